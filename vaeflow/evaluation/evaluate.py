"""One protocol for every number: a test loop around any model that has log-weights, and the results it leaves."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.backends import cudnn
from torchmetrics.utilities.distributed import gather_all_tensors

import vaeflow
from vaeflow.errors import VaeflowError, check_positive
from vaeflow.estimate import Means, RunningEstimate, rows_within, stderr
from vaeflow.evaluation.doubts import (
    COPIES,
    describe_example,
    dominant_example,
    doubts_about_copies,
    doubts_about_density,
    doubts_about_outliers,
    doubts_before,
)
from vaeflow.evaluation.metrics import ActiveUnits, ByExample, LogLikelihood
from vaeflow.evaluation.partial import Partial
from vaeflow.evaluation.progress import EvaluationProgress
from vaeflow.evaluation.results import score_of
from vaeflow.latents import has_codes
from vaeflow.machine.launch import cluster_environment
from vaeflow.machine.quiet import quiet
from vaeflow.noise import Noise
from vaeflow.records.checkpoint import describe
from vaeflow.records.provenance import git_commit


class Evaluation(LightningModule):
    """The test loop: nll from log-weights, and the terms of the same draws that are reported beside it, such as the
    ELBO's.

    Args:
        model: a model; see :class:`~vaeflow.models.base.LikelihoodModel` for what it has.
        size: how many examples it is evaluated on.
        num_samples: K; None for as many as such a model is usually given. One with an exact likelihood needs one.
        seed: of the evaluation's noise.
        memory_mb: budget for what one chunk of samples computes, in MiB.
    """

    def __init__(
        self, model: Any, size: int, num_samples: int | None = None, seed: int = 0, memory_mb: float = 256.0
    ) -> None:
        super().__init__()
        if num_samples is None:
            num_samples = model.evaluation_samples
        check_positive(num_samples=num_samples)
        num_samples = int(num_samples)
        self.model = model.eval()
        self.num_samples = 1 if model.combining == "exact" else num_samples
        self.seed, self.memory_mb = seed, memory_mb
        self.likelihood = LogLikelihood(self.num_samples, size, model.reported)
        self.kl = Means(["kl"])
        self.log_det = ByExample(size)
        self.features = model.code_features if has_codes(model) else 0
        self.active = ActiveUnits(self.features)
        self.results: dict[str, Any] = {}
        self.partial: Partial | None = None
        self._done = 0

    def on_test_start(self) -> None:
        self._began = time.perf_counter()
        if self.partial is not None:
            self._done = self.partial.restore()
            if self.shares_samples:
                counts = gather_all_tensors(torch.tensor(self._done, device=self.device))
                if len(set(map(int, counts))) > 1:  # stopped while one had written and another had not
                    self.partial.clear()
                    self._done = 0

    @property
    def shares_samples(self) -> bool:
        """Whether every process sees every example."""
        return self.likelihood.world_size > 1

    def test_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> None:
        if batch_index < self._done:
            return
        # mixed precision is for training, and so are the 10 bits of TF32 that convolutions on a GPU may have
        with torch.autocast(self.device.type, enabled=False), _without_tf32():
            self._evaluate(batch_index, *batch)
        if self.partial is not None:
            is_due = self.partial.is_due()
            if self.shares_samples:
                is_due = self.trainer.strategy.broadcast(is_due)
            if is_due:
                self.partial.save(batch_index + 1)

    def _evaluate(self, batch_index: int, x: Tensor, y: Tensor, index: Tensor) -> None:
        if not len(x):
            return
        context = self.model.context_of(y)
        split = self.trainer.datamodule.evaluation_split  # type: ignore[attr-defined]
        noise = Noise(self.seed, {"train": "train, evaluated"}.get(split, split), 0, index)  # not that of training
        if self.model.kind == "reverse-kl":
            self.kl.update(kl=self.model.losses(x, noise, context)[1]["kl"])
            return
        if self.likelihood.rows is None:
            self.likelihood.rows = rows_within(self.memory_mb, self.model, x, noise, context)
        log_det: list[Tensor] = []

        def look(draw: Any, estimate: RunningEstimate) -> None:
            if self._has_units:
                self.active.update(draw.codes())
            if "log_det" in estimate.means:
                log_det.append(estimate.means["log_det"])

        is_first = not self.likelihood.rank  # of the processes that share samples
        self.likelihood.update(self.model, x, noise, context, look if is_first else None)
        if log_det:
            self.log_det.update(index, torch.cat(log_det))

    @property
    def _has_units(self) -> bool:
        """Whether there are latents that may be active or not."""
        return "kl" in self.model.reported and self.features > 0

    def on_test_epoch_end(self) -> None:
        results: dict[str, Any] = {
            "kind": self.model.kind,
            "context": "class" if self.model.context_features else None,
            "objective": self.model.objective_name,
            "num_samples": self.num_samples,
            "nll": None,
            "nll_stderr": None,
            "nll_preprocessed": None,
            "nll_preprocessed_stderr": None,
            "bpd": None,
            "elbo": None,
            "elbo_gap": None,
            "kl": None,
            "kl_stderr": None,
            "reconstruction": None,
            "active_units": None,
            "latent_features": None,
            "effective_sample_size": None,
            "num_examples": 0,
            "nll_by_example": None,
        }
        if self.model.kind == "reverse-kl":
            mean, error = self.kl.compute()["kl"]
            results |= {"kl": mean.item(), "kl_stderr": error.item(), "num_examples": int(self.kl.state()["count"])}
        else:
            self._add_likelihood(results)
        if "log_det" in self.model.reported:
            log_det = self.log_det.compute().cpu()
            if self.model.kind != "dequantised" or self.num_samples == 1:  # else it would be of no single y
                preprocessed = torch.from_numpy(results["nll_by_example"]) + log_det
                results["nll_preprocessed"] = preprocessed.mean().item()
                results["nll_preprocessed_stderr"] = _or_none(stderr(preprocessed))
        if results["elbo"] is not None:
            results["elbo_gap"] = -results["elbo"] - results["nll"]
        if self._has_units:
            results["active_units"] = int(self.active.compute())
            results["latent_features"] = self.features
        results["evaluation_seconds"] = time.perf_counter() - self._began
        self.results = results

    def _add_likelihood(self, results: dict[str, Any]) -> None:
        computed = self.likelihood.compute()
        results["nll_by_example"] = computed.pop("nll_by_example").reshape(-1).cpu().numpy()
        values = {name: value.item() for name, value in computed.items()}
        results["nll"] = values["nll"]
        results["nll_stderr"] = _or_none(computed["nll_stderr"])
        results["num_examples"] = int(values["num_examples"])
        if self.num_samples > 1:
            results["effective_sample_size"] = _or_none(computed["effective_sample_size"])
            if results["kind"] == "dequantised":  # the noise is the latent variable
                results["elbo"] = values["mean_log_weight"]
        elif results["kind"] == "importance-sampled":
            results["kind"] = "elbo"
        results.update({name: values[name] for name in self.model.reported if name != "log_det"})
        if self.model.levels is not None:
            results["bpd"] = values["nll"] / (self.model.dimension * math.log(2))


def _or_none(value: Tensor) -> float | None:
    """None for what is not defined: the standard error of a single example, effective samples of a mean."""
    return None if value.isnan() else value.item()


def evaluate(
    model: Any,
    data: Any,
    num_samples: int | None = None,
    split: str = "test",
    seed: int = 0,
    memory_mb: float = 256.0,
    limit: int | None = None,
    trainer: Trainer | None = None,
    shard: Literal["examples", "samples"] = "examples",
    partial: Path | None = None,
    time_sampling: bool = False,
) -> dict[str, Any]:
    """Evaluate a model on one split of its data, by importance sampling with K samples for each example.

    The noise depends on the seed, the split, the example and the sample alone, so the result depends neither on the
    number of processes nor, beyond rounding, on the batch size or the memory budget.

    Args:
        model: a :class:`~vaeflow.models.base.LikelihoodModel`, as :func:`vaeflow.load` gives it.
        data: a :class:`~vaeflow.data.base.DataModule`, as :func:`vaeflow.load_data` gives it.
        num_samples: K; by default 1,000 importance samples of a latent-variable model, one draw of the noise that
            makes integers continuous.
        split: train, val or test.
        seed: of the evaluation's noise.
        memory_mb: budget for what one chunk of samples computes, in MiB.
        limit: evaluate only so many examples of the split, the first ones.
        trainer: of Lightning, for the devices; by default one on the best single device at hand.
        shard: what several processes share: whole batches of examples, or the samples of every example.
        partial: folder of what is done so far, from which an evaluation of the same numbers goes on that was stopped;
            written once a minute. None for none.
        time_sampling: whether to measure how long 64 samples take.

    Returns:
        What ``results.json`` holds: nll ± stderr in nats for each example, bpd, elbo, kl, reconstruction, what kind
        of number nll is, and of what data; and what is beside it in ``results.npy``, ``nll_by_example``, an array.
    """
    if not (hasattr(model, "log_weights_of") and hasattr(data, "evaluate_on")):
        raise VaeflowError(
            f"evaluate was given {type(model).__name__} and {type(data).__name__}, expected a model and its data, such "
            "as vaeflow.load(checkpoint) and vaeflow.load_data(checkpoint)."
        )
    data.evaluate_on(split, limit)
    check_fits(model, data)
    loop = Evaluation(model, data.num_evaluated, num_samples, seed, memory_mb)
    with quiet():
        trainer = trainer or evaluation_trainer()
        if shard == "samples" and model.kind != "reverse-kl":
            loop.likelihood.rank, loop.likelihood.world_size = trainer.global_rank, trainer.world_size
        data.shares_examples = not loop.shares_samples
        doubts = list(doubts_before(model, data)) if trainer.is_global_zero else []
        if partial is not None:
            asked = {
                "num_samples": loop.num_samples, "split": split, "seed": seed, "memory_mb": memory_mb, "limit": limit,
                "model": model.description, "data": data.description, "batch_size": data.batch_size, "shard": shard,
                "place": (trainer.global_rank, trainer.world_size), "precision": trainer.precision,
                "accelerator": type(trainer.accelerator).__name__, "values": data.fingerprint(),
                "version": vaeflow.__version__,
            }  # fmt: skip
            metrics = (loop.likelihood, loop.likelihood.means, loop.kl, loop.log_det, loop.active)
            loop.partial = Partial(partial, model, asked, metrics)
        try:
            trainer.test(loop, datamodule=data, verbose=False)
        finally:
            data.shares_examples = True
        if loop.partial is not None:
            loop.partial.remove()
    if loop.results["num_examples"] != data.num_evaluated:
        raise VaeflowError(
            f"{loop.results['num_examples']} of {data.num_evaluated} examples were evaluated: "
            "leave trainer.limit_test_batches alone and use limit."
        )
    name = score_of(loop.results)
    if not math.isfinite(loop.results[name]):
        raise VaeflowError(
            f"the {name} of this model is {loop.results[name]}: its weights or its data hold NaN or infinity."
        )
    description = {
        "model": type(model).__name__,
        "likelihood": _name_of_likelihood(model),
        "data": data.label,
        "split": split,
        "measure": data.measure,
        "protocol": data.protocol,
        "test_fingerprint": data.fingerprint(),
    }
    results = {
        **description,
        "entropy": data.entropy,
        **loop.results,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "checkpoint": None,
        "weights": None,
        "seed": seed,
        "git_commit": git_commit(),
        "world_size": trainer.world_size,
        "training_seconds": None,
        "sampling_seconds": sampling_seconds(model) if time_sampling else None,
    }
    if not trainer.is_global_zero:
        return {**results, **dict.fromkeys(COPIES), "dominant_example": None, "doubts": []}
    one = dominant_example(loop.results["nll_by_example"])
    results |= data.count_copies()
    results["dominant_example"] = None if one is None else describe_example(data, results, one)
    doubts += [*doubts_about_density(model, data), *doubts_about_copies(model, results)]
    doubts += doubts_about_outliers(results)
    return {**results, "doubts": doubts}


def _name_of_likelihood(model: Any) -> str | None:
    head = getattr(getattr(model, "observation", model), "head", None)
    return None if head is None else type(head).__name__


def _without_tf32() -> Any:
    """As long as it lasts convolutions have all bits of float32."""
    return cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    )


def evaluation_trainer(**arguments: Any) -> Trainer:
    """A trainer for evaluation alone, by default on the best single device at hand.

    Args:
        arguments: of Lightning's Trainer, such as devices.
    """
    defaults: dict[str, Any] = {
        "accelerator": best_accelerator(),
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,  # it pads; the data modules share out whole batches themselves
        "callbacks": [EvaluationProgress()],
        "plugins": cluster_environment(),
    }
    return Trainer(**{**defaults, **arguments})


def best_accelerator() -> str:
    """Lightning's choice, but for Apple's GPUs, which lack the float64 that sums are kept in."""
    return "cpu" if torch.backends.mps.is_available() else "auto"


def check_fits(model: Any, data: Any) -> None:
    """Raise a :class:`VaeflowError` if a model cannot be of these data."""
    if (model.kind == "reverse-kl") != (data.measure == "energy"):
        raise VaeflowError(
            f"{type(model).__name__} is no model of {data.label}: an energy has no examples, and goes with --model "
            "ReverseKL; everything else is for examples."
        )
    if model.kind == "reverse-kl" and describe(model.hparams["energy"]) != describe(data.energy):
        raise VaeflowError(f"the model was fitted to {type(model.energy).__name__}, but the data are {data.label}.")
    for name in ("shape", "levels", *(("num_classes",) if model.context_features else ())):
        if getattr(model, name) != getattr(data, name):
            raise VaeflowError(
                f"the model was made for data of {name} {getattr(model, name)}, but these have {getattr(data, name)}."
            )
    if model.context_features:
        data.check_classes()


@torch.no_grad()
def sampling_seconds(model: Any, n: int = 64) -> float:
    """Wall time of drawing n samples, after one or two draws to warm up: machine code is compiled with the first."""

    def draw(n: int) -> float:
        context = model.context_of(torch.zeros(n, dtype=torch.int64, device=model.device))
        began = time.perf_counter()
        model.sample(n, Noise(), context).cpu()
        return time.perf_counter() - began

    draw(1)
    seconds = draw(n)
    return draw(n) if seconds < 1 else seconds
