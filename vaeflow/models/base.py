"""What all models share: the four questions, the training loop's steps, and what is logged."""

from __future__ import annotations

import functools
import inspect
import math
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins import DoublePrecision, MixedPrecision, Precision
from pytorch_lightning.utilities import GradClipAlgorithmType
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

import vaeflow
from vaeflow.checkpoint import KEY, class_of, describe
from vaeflow.errors import VaeflowError, check_context, check_positive, check_shape
from vaeflow.evaluation.log_likelihood import LogWeights, log_likelihood, rows_within
from vaeflow.evaluation.metrics import Means
from vaeflow.latents import LatentSpace
from vaeflow.models.finite import is_finite, where, whose
from vaeflow.noise import Noise

SCHEDULE_LENGTHS = ("T_max", "total_iters")
SUMS = f"{KEY}_sums"


class LikelihoodModel(LightningModule, ABC):
    """A model that answers four questions: how likely is x, what does it imagine, where does x live, what lives at z.

    A subclass implements :meth:`log_weights_of`, :meth:`sample`, :meth:`encode`, :meth:`decode` and :meth:`losses`.

    Args:
        shape: of one example; comes from the data.
        levels: L of integer data 0 … L − 1, None of continuous data; comes from the data.
        num_classes: number of labels, 0 for none; comes from the data.
        class_conditional: model p(x|y) instead of p(x); the context is the one-hot label.
        optimizer: makes the optimizer of the parameters.
        lr_scheduler: makes the schedule of the learning rate, stepped every batch, of the optimizer and of the number
            of training steps (so a class whose second argument is T_max or total_iters).
        seed: of the training noise; comes from seed_everything.
    """

    kind: str
    """How its nll is had: exact, dequantised, importance-sampled or reverse-kl."""
    objective_name: str
    evaluation_samples: int
    """How many samples of noise evaluation draws for each example where nobody says."""
    has_posterior = False
    """Whether z is a latent variable, with q(z|x) and p(x|z), rather than a function of x."""
    started: Tensor
    logged: tuple[str, ...] = ("objective", "nll")
    compile_losses = False
    """Whether training compiles :meth:`losses` with torch.compile: a setting of a run, not of a model."""
    reported: tuple[str, ...] = ()
    """The further terms that :meth:`report` gives."""

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int | None = None,
        num_classes: int = 0,
        class_conditional: bool = False,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.Adam,
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        for key in ("_instantiator", "_class_path"):  # Lightning's own way of rebuilding calls what a file names
            self.hparams.pop(key, None)
        self.hparams.update({name: describe(value) for name, value in self.hparams.items()})
        self.shape, self.levels = tuple(shape), levels
        self.dimension = math.prod(self.shape)
        if class_conditional and not num_classes:
            raise VaeflowError("class_conditional needs labels, but the data have none.")
        self.num_classes = num_classes
        self.context_features = num_classes if class_conditional else 0
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.seed = seed
        self.register_buffer("started", torch.tensor(False))
        self.train_means, self.val_means = Means(self.logged), Means(self.logged)
        self.gradient_means = Means(["gradient_norm", "clipped"])

    # ---------------------------------------------------------------------------------------- the four questions

    def log_weights(self, x: Tensor, noise: Noise, num_samples: int, context: Tensor | None = None) -> Tensor:
        """How likely is x? Log-weights ``(num_samples, batch)`` in nats, differentiable; log p(x) is bounded from below
        by the logarithm of the mean of their exponentials.

        Args:
            x: ``(batch, *shape)``, as the user gave it.
            noise: knows the examples' indices.
            context: ``(batch, context_features)``; :meth:`context_of` makes it of labels.
        """
        return self.log_weights_of(x, context)(noise, num_samples)

    @torch.no_grad()
    def log_prob(
        self, x: Tensor, context: Tensor | None = None, num_samples: int | None = None, noise: Noise | None = None
    ) -> Tensor:
        """log p(x) ``(batch,)`` in nats, without its gradient, which :meth:`log_weights` has.

        Exact for continuous data and an exact likelihood. Else a bound from below in expectation,
        log (1/K) Σ_k w_k, with w the log-weights' exponentials.

        Args:
            x: ``(batch, *shape)``, as the user gave it.
            context: ``(batch, context_features)``; :meth:`context_of` makes it of labels.
            num_samples: K; by default as many as evaluation draws.
            noise: with the examples' indices; by default they are 0 … batch − 1.
        """
        check_shape("x", x, *self.shape)
        num_samples = self.evaluation_samples if num_samples is None else num_samples
        check_positive(num_samples=num_samples)
        noise = noise or Noise(index=torch.arange(len(x), device=x.device))
        training = self.training
        self.eval()  # batch normalisation is that of the training set
        try:
            rows = rows_within(256.0, self, x, noise, context)
            return log_likelihood(self, x, noise, num_samples, context, rows).log_likelihood
        finally:
            self.train(training)

    @abstractmethod
    def log_weights_of(self, x: Tensor, context: Tensor | None = None) -> LogWeights:
        """The function (noise, num_samples) → log-weights of x. All that depends on x alone is done here, once,
        however many samples are drawn and in however many chunks."""

    @abstractmethod
    def sample(
        self, n: int, noise: Noise, context: Tensor | None = None, temperature: float = 1.0, mean: bool = False
    ) -> Tensor:
        """What does it imagine? ``(n, *shape)``, in the data's units.

        Args:
            noise: with n indices, or with none for 0 … n − 1.
            context: ``(n, context_features)``; :meth:`context_of` makes it of labels.
            temperature: multiplies the standard deviation of the base.
            mean: the mean of p(x|z) instead of a draw from it.
        """

    def noise_of_samples(self, n: int, noise: Noise, context: Tensor | None) -> Noise:
        """The noise of n samples, after a look at their context; with no indices, they are 0 … n − 1."""
        if not isinstance(noise, Noise):
            raise VaeflowError(f"noise is {noise!r}, expected a source of it, such as vaeflow.Noise(seed=1).")
        check_context(context, self.context_features)
        if context is not None and len(context) != n:
            raise VaeflowError(f"context has {len(context)} rows, expected {n}, one for each sample.")
        return noise.at(torch.arange(n, device=self.device)) if noise.index is None else noise

    @abstractmethod
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Where does x live? A code ``(batch, code_features)``, without noise."""

    @abstractmethod
    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """What lives at z? ``(batch, code_features)`` → ``(batch, *shape)``, in the data's units."""

    @property
    @abstractmethod
    def latent_slices(self) -> dict[str, slice]:
        """The levels of a code, by name; empty for a model without a latent space."""

    @property
    def code_features(self) -> int:
        """The dimension of a code, 0 for a model without a latent space."""
        return max((level.stop for level in self.latent_slices.values()), default=0)

    @property
    def latent_spaces(self) -> dict[str, LatentSpace]:
        """The spaces that the data have codes in, by name: ``z``, that of :meth:`encode`, and others."""
        return {"z": LatentSpace("z", self.encode, self.decode, self.latent_slices)} if self.latent_slices else {}

    def icdf(self, u: Tensor) -> Tensor:
        """Points of the unit cube ``(batch, code_features)`` → codes: uniform points become codes of the prior."""
        raise VaeflowError(f"{type(self).__name__} has no latent space with a cumulative distribution.")

    @torch.no_grad()
    def reconstruct(self, x: Tensor, noise: Noise, context: Tensor | None = None, temperature: float = 0.0) -> Tensor:
        """x ``(batch, *shape)`` once more, from a code: that of :meth:`encode` at temperature 0, else a draw from
        q(z|x) whose noise has its standard deviation multiplied by the temperature. A model whose code is a function
        of x has no such draws, and raises a :class:`VaeflowError` at other temperatures."""
        if temperature:
            raise VaeflowError(
                f"{type(self).__name__} draws no codes, they are functions of x: leave temperature at 0."
            )
        return self.decode(self.encode(x, context), context)

    def trajectory(self, z: Tensor, context: Tensor | None = None) -> Iterator[Tensor]:
        """Codes ``(batch, code_features)`` on their way to data, layer by layer, each value ``(batch, *shape)`` and in
        the data's units: first the code as if it were data, last what :meth:`decode` gives before flooring."""
        raise VaeflowError(f"{type(self).__name__} has no layers that lead from noise to data, only a decoder.")

    def infer(self, x: Tensor, context: Tensor | None = None) -> Any:
        """q(z|x) for each example of a batch ``(batch, *shape)``: a
        :class:`~vaeflow.distributions.ConditionedPosterior`. A model whose code is a function of x has none."""
        raise VaeflowError(f"{type(self).__name__} has no approximate posterior: its code is a function of x.")

    def log_joint(self, x: Tensor, z: Tensor, noise: Noise, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """log p(x|z) and log p(z), both ``(num_samples, batch)`` in nats, of z ``(num_samples, batch, D)``."""
        raise VaeflowError(f"{type(self).__name__} has no latent variable: its code is a function of x.")

    # -------------------------------------------------------------------------------------------------- training

    @abstractmethod
    def losses(self, x: Tensor, noise: Noise, context: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise, and what is logged of each example: ``(batch,)`` by the names in ``logged``."""

    def report(self, x: Tensor, noise: Noise, num_samples: int, context: Tensor | None = None) -> dict[str, Tensor]:
        """What evaluation averages beside the likelihood, of each example and averaged over draws of its noise:
        ``(batch,)`` in nats by the names in ``reported``."""
        return {}

    def initialise(self, data: Any) -> None:
        """Set what depends on the training data, before training: ``data`` is a
        :class:`~vaeflow.data.base.DataModule`, set up."""

    def refresh(self, data: Any) -> None:
        """Set what is a statistic of the whole training set and changes while the model trains: called before each
        validation, and before a checkpoint is written."""

    def context_of(self, y: Tensor) -> Tensor | None:
        """Labels ``(batch,)`` → the context ``(batch, context_features)``, None for a model that has none."""
        if not self.context_features:
            return None
        return nn.functional.one_hot(y.long(), self.num_classes).to(self.dtype)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> Tensor | None:
        x, y, index = batch
        noise = Noise(self.seed, "train", self.current_epoch, index)
        x, context = self._checked(x), self.context_of(y)
        loss, values = self._training_losses(x, noise, context)
        # a GPU would have to finish all that is queued: one step in many is looked at there, if none may be skipped
        self._is_watched = loss.device.type == "cpu" or self._is_logged(batch_index) or self.on_nonfinite == "skip"
        self._losses_again = functools.partial(self.losses, x, noise, context)
        self._whose = functools.partial(whose, {name: value.detach() for name, value in values.items()}, index)
        if not self._is_watched or torch.isfinite(loss):
            self.train_means.update(**values)
        elif self.on_nonfinite == "stop" and self.trainer.world_size == 1:  # several stop together, by their gradient
            terms = ", ".join(f"{name} {value.detach().mean().item():.4g}" for name, value in values.items())
            raise self._not_finite(f"the loss became {loss.item()}", f" ({terms})")
        if self._is_logged(batch_index):
            self._log_means("train", self.train_means)
            if self.is_trained_by_gradient:
                self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
                self._log_means("train", self.gradient_means)
        return loss if self.is_trained_by_gradient else None

    def _training_losses(self, x: Tensor, noise: Noise, context: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The same as :meth:`losses`, compiled if ``compile_losses`` is set and torch can."""
        if self.compile_losses:
            try:
                return _compiled(type(self))(self, x, noise, context)
            except RuntimeError as error:
                if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    raise
                self.compile_losses = False
                reason = " ".join(str(error).split()[:20])
                warnings.warn(
                    f"torch.compile failed ({reason}): the losses are computed uncompiled, up to 1.5 times slower.",
                    stacklevel=2,
                )
        return self.losses(x, noise, context)

    @property
    def is_trained_by_gradient(self) -> bool:
        """False of what :meth:`initialise` fits in closed form."""
        return any(parameter.requires_grad for parameter in self.parameters())

    def _is_logged(self, batch_index: int) -> bool:
        """Whether this batch ends a step of the optimizer that Lightning writes down."""
        trainer: Any = self.trainer
        steps = (batch_index + 1) % trainer.accumulate_grad_batches == 0
        return bool(steps and trainer._logger_connector.should_update_logs)

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> None:
        x, y, index = batch
        _, values = self.losses(self._checked(x), Noise(self.seed, "val", 0, index), self.context_of(y))
        self.val_means.update(**values)

    def on_validation_epoch_start(self) -> None:
        if not self.trainer.sanity_checking:
            self.refresh(self.trainer.datamodule)  # type: ignore[attr-defined]

    def on_validation_epoch_end(self) -> None:
        self._log_means("val", self.val_means)

    def _log_means(self, stage: str, metric: Means) -> None:
        if not metric.state()["count"]:  # of all processes, which then either all go on, or none
            return
        means = {name: value for name, (value, _) in metric.compute().items()}
        metric.reset()
        if self.levels is not None and "nll" in means:
            means["bpd"] = means["nll"] / (self.dimension * math.log(2))
        self.log_dict({f"{stage}/{name}": value.float() for name, value in means.items()})

    def _checked(self, x: Tensor) -> Tensor:
        check_shape("x", x, *self.shape)
        return x if self.levels is None else x.to(self.dtype)  # continuous data are standardised in float64 first

    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What is done where a loss or a gradient is NaN or infinite: stop the run, or leave out that step."""

    def _not_finite(self, what: str, more: str = "") -> VaeflowError:
        place = f"at step {self.global_step}, epoch {self.current_epoch + 1}, of {self._whose()}{more}"
        return VaeflowError(
            f"{what} {place}; {where(self, self._losses_again)}: lower the learning rate or clip the gradient more; "
            "earlier checkpoints are kept."
        )

    def configure_optimizers(self) -> Any:
        if not self.is_trained_by_gradient:
            return None
        try:
            optimizer = self.optimizer(self.parameters())
        except (TypeError, ValueError) as error:
            raise VaeflowError(f"model.optimizer cannot be made: {error}.") from error
        trainer: Any = self.trainer if self._trainer is not None else None
        if (
            trainer
            and trainer.gradient_clip_val
            and optimizer.defaults.get("fused")
            and trainer.precision == "16-mixed"
        ):
            raise VaeflowError("fused optimizers cannot clip in half precision: set model.optimizer.fused to false.")
        if self.lr_scheduler is None:
            return optimizer
        cls = class_of(self.lr_scheduler)
        second = list(inspect.signature(cls).parameters)[1]
        if second not in SCHEDULE_LENGTHS:
            raise VaeflowError(
                f"lr_scheduler is called with the optimizer and the number of steps, but the second argument of "
                f"{cls.__name__} is `{second}`: take one with {' or '.join(SCHEDULE_LENGTHS)} there, CosineAnnealingLR "
                "or PolynomialLR."
            )
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise VaeflowError("a schedule of the learning rate needs an end: set trainer.max_epochs or max_steps.")
        return [optimizer], [{"scheduler": self.lr_scheduler(optimizer, int(steps)), "interval": "step"}]

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the norm of the gradient, keep it for the log, and stop or leave out the step where it is not finite.

        Lightning does it where gradients are scaled or shared out between devices, or clipped by value. It would refuse
        fused optimizers in all mixed precision; but bfloat16 has the range of float32, and nothing is scaled."""
        plugin: Any = self.trainer.precision_plugin
        is_whole = type(plugin) in (Precision, DoublePrecision) or (
            type(plugin) is MixedPrecision and plugin.scaler is None
        )
        if not is_whole:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        if self._is_watched and not torch.isfinite(norm):
            error = self._not_finite(f"the gradient's norm became {norm.item()}")
            if self.on_nonfinite == "stop":
                raise error
            if self.global_rank == 0:
                tqdm.write(f"warning: {str(error).partition(': lower')[0]}: this step is left out.", file=sys.stderr)
            for parameter in parameters:
                parameter.grad = None  # which every optimizer passes over
            return
        if gradient_clip_algorithm == GradClipAlgorithmType.VALUE:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        if gradient_clip_val:
            nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)
        clipped = norm > (gradient_clip_val or math.inf)
        self.gradient_means.update(gradient_norm=norm.view(1), clipped=clipped.view(1))

    def on_train_start(self) -> None:
        if not self.started:
            self.initialise(self.trainer.datamodule)  # type: ignore[attr-defined]
            self.started.fill_(True)
        for config in self.trainer.lr_scheduler_configs:
            length = next(vars(config.scheduler)[name] for name in SCHEDULE_LENGTHS if name in vars(config.scheduler))
            steps = self.trainer.estimated_stepping_batches
            if length != steps:
                raise VaeflowError(
                    f"the learning rate's schedule was made for {length} steps, but this run has {steps}: "
                    "resume with the same trainer.max_epochs and batch size."
                )

    @property
    def description(self) -> dict[str, Any]:
        """Class and arguments in plain words, from which a checkpoint's model is built again."""
        return {**describe(type(self)), "init_args": dict(self.hparams)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        datamodule = getattr(self.trainer, "datamodule", None)
        if not all(map(is_finite, self.parameters())):
            raise VaeflowError(f"the weights are not finite at step {self.global_step}: they are not kept.")
        # what has been added up since the last line of the log
        checkpoint[SUMS] = {name: getattr(self, name).state() for name in ("train_means", "gradient_means")}
        checkpoint[KEY] = {
            "version": vaeflow.__version__,
            "model": self.description,
            "data": datamodule.description if datamodule is not None else None,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.global_rank == 0:  # the others' sums are in it
            for name, state in checkpoint.get(SUMS, {}).items():
                getattr(self, name).restore(state)


@functools.cache
def _compiled(model: type[LikelihoodModel]) -> Any:
    return torch.compile(model.losses)


def refuse_statistics(*parts: nn.Module) -> None:
    """Raise a :class:`VaeflowError` if a part needs statistics of training data, where there are none of its input."""
    for part in parts:
        for module in part.modules():
            if getattr(module, "statistics", "none") == "training set":
                raise VaeflowError(
                    f"{type(module).__name__} takes statistics of a training set, and what passes through it here are "
                    "no data but latents: leave it out, or take ActNorm."
                )
