"""What Lightning's Trainer takes ends well, or is refused before training, with one sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn

import vaeflow
from tests.test_cli import Run
from vaeflow.commands.configs import CONFIGS
from vaeflow.commands.messages import _is_refused_by_lightning
from vaeflow.models import VAE
from vaeflow.records.checkpoint import KEY, read

SHORT = ("--trainer.accelerator", "cpu", "--trainer.check_val_every_n_epoch", 1, "--num_samples", 2,
         "--pictures.every", 0, "--data.batch_size", 320, "--trainer.max_epochs", 2)  # fmt: skip
EMA = ("--trainer.callbacks", "EMAWeightAveraging", "--trainer.callbacks.decay", 0.9)
SWA = ("--trainer.callbacks", "StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", 1e-3,
       "--trainer.callbacks.swa_epoch_start", 2, "--trainer.max_epochs", 4)  # fmt: skip


def version(tmp_path: Path, experiment: str = "vae", number: int = 0) -> Path:
    return tmp_path / "runs" / experiment / f"version_{number}"


def results(tmp_path: Path, experiment: str = "vae", number: int = 0) -> dict[str, Any]:
    return json.loads((version(tmp_path, experiment, number) / "results.json").read_text())


def callback(name: str, **arguments: object) -> list[object]:
    words: list[object] = ["--trainer.callbacks", name]
    for key, value in arguments.items():
        words += [f"--trainer.callbacks.{key}", value]
    return words


REFUSED: dict[str, tuple[list[object], str]] = {
    "spawn": (["--trainer.strategy", "ddp_spawn", "--trainer.devices", 2], "are gone, with what they have trained"),
    "fork": (["--trainer.strategy", "ddp_fork"], "take ddp"),
    "notebook": (["--trainer.strategy", "ddp_notebook_find_unused_parameters_true"], "take ddp"),
    "class": (["--trainer.strategy", "DDPStrategy", "--trainer.strategy.start_method", "fork"], "take ddp"),
    "split": (["--trainer.strategy", '{"class_path": "ModelParallelStrategy"}'], "which splits a model up"),
    "deepspeed": (["--trainer.strategy", "deepspeed"], "pip install -U deepspeed"),
    "xla": (["--trainer.strategy", "xla"], "the trainer cannot be made: Requirement 'torch_xla"),
    "engine": (["--trainer.precision", "transformer-engine"], "transformer_engine"),
    "bits": (["--trainer.plugins", "BitsandbytesPrecision", "--trainer.plugins.mode", "int8"], "bitsandbytes"),
    "machines": (["--trainer.num_nodes", 2], "nothing has started this on other machines"),
    "checkpoints": (["--trainer.enable_checkpointing", "false"], "the best checkpoint is what is evaluated"),
    "barebones": (["--trainer.barebones", "true"], "trainer.barebones is true, but that keeps neither"),
    "sampler": (["--trainer.use_distributed_sampler", "true"], "that repeats examples"),
    "no batches": (["--trainer.limit_train_batches", 0], "trainer.limit_train_batches is 0, expected more than 0"),
    "no share": (["--trainer.limit_train_batches", 0.0], "trainer.limit_train_batches is 0"),
    "no steps": (["--trainer.max_steps", 0], "trainer.max_steps is 0, expected at least 1"),
    "accumulation": (["--trainer.accumulate_grad_batches", 0], "accumulate_grad_batches is 0, expected at least 1"),
    "clipping": (
        ["--trainer.gradient_clip_val", -1],
        "trainer.gradient_clip_val is -1.0, expected 0, for none, or more",
    ),
    "batch size": (
        callback("BatchSizeFinder"),
        "BatchSizeFinder, which is not supported: set data.batch_size yourself",
    ),
    "rate": (callback("LearningRateFinder"), "set model.optimizer.lr yourself"),
    "backbone": (callback("BackboneFinetuning"), "it wants a model with a `backbone`"),
    "pruning": (callback("ModelPruning", pruning_fn="l1_unstructured"), "it renames parameters"),
    "exception": (callback("OnExceptionCheckpoint", dirpath="more"), "would go on from what an old one left"),
    "schedule": (callback("GradientAccumulationScheduler", scheduling='{"0": 2}'), "set model.lr_scheduler to null"),
    "two limits": ([*callback("Timer"), "--trainer.max_time", "00:01:00:00"], "trainer.max_time would not count"),
    "monitor": (callback("EarlyStopping", monitor="nothing"), "metric `nothing` which is not available"),
    "best": (callback("ModelCheckpoint", dirpath="runs/vae/version_0/checkpoints"), "give it another dirpath, or none"),
    "rich bar": (callback("RichProgressBar"), "pip install -U rich"),
    "rich summary": (callback("RichModelSummary"), "pip install -U rich"),
    "psutil": (callback("DeviceStatsMonitor"), "pip install -U 'psutil'"),
    "wandb": (["--trainer.logger", "WandbLogger"], "pip install -U 'wandb"),
    "mlflow": (["--trainer.logger", "MLFlowLogger"], "pip install -U 'mlflow"),
    "duration": (callback("Timer", duration="soon"), "is not a valid duration"),
    "no time": (["--trainer.max_time", "00:00:00:00"], "the time limit of the training is 0 or less"),
    "time that is over": (["--trainer.max_time", "{hours: -1}"], "the time limit of the training is 0 or less"),
    "a timer's": (callback("Timer", duration="{seconds: 0}"), "the time limit of the training is 0 or less"),
    "averages after the end": (
        callback("StochasticWeightAveraging", swa_lrs=1e-3, swa_epoch_start=5),
        "StochasticWeightAveraging would begin with epoch 5, but trainer.max_epochs is 2: lower swa_epoch_start",
    ),
    "averages of untrained weights": (
        callback("StochasticWeightAveraging", swa_lrs=1e-3),
        "averages what each epoch from its swa_epoch_start, 0.8, on begins with",
    ),
    "averages without an end": (
        [*callback("StochasticWeightAveraging", swa_lrs=1e-3), "--trainer.max_epochs", -1, "--trainer.max_steps", 3],
        "averages the last of trainer.max_epochs: set it",
    ),
    "too small a part": (["--trainer.overfit_batches", 0.01], "overfit_batches is 0.01, less than one of the batches"),
    "profiler": (["--trainer.profiler", "xla"], "torch_xla"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_before_training(case: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VAE, "on_train_epoch_end", lambda self: pytest.fail("it trains"))
    arguments, message = REFUSED[case]
    if case == "monitor":
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)  # which only a validation can tell
    code, output = run("train", "--config", "vae", *SHORT, *arguments)
    (said,) = [line for line in output.splitlines() if line.startswith("error")]
    assert (code, message in said) == (1, True), output
    if case != "monitor":
        assert not list(tmp_path.glob("runs/*/*"))


WORKS: dict[str, list[object]] = {
    "overfit": ["--trainer.overfit_batches", 1],
    "overfit a part": ["--trainer.overfit_batches", 0.25],
    "limited test": ["--trainer.limit_test_batches", 1],
    "no test": ["--trainer.limit_test_batches", 0],
    "averages": callback("WeightAveraging"),
    "timer": callback("Timer"),
    "timer with a limit": callback("Timer", duration="00:01:00:00"),
    "bar": callback("TQDMProgressBar"),
    "accumulation": [*callback("GradientAccumulationScheduler", scheduling='{"0": 1, "1": 2}'),
                     "--model.lr_scheduler", "null"],
}  # fmt: skip


@pytest.mark.parametrize("case", WORKS)
def test_what_works(case: str, run: Run, tmp_path: Path) -> None:
    """And its config begins the same run again."""
    code, output = run("train", "--config", "vae", *SHORT, *WORKS[case])
    assert code == 0, output
    assert results(tmp_path)["num_examples"] == 300
    assert "Warning" not in output
    code, output = run("train", "--config", version(tmp_path) / "config.yaml")
    assert code == 0, output
    one, other = (read(version(tmp_path, number=n) / "checkpoints/last.ckpt")["state_dict"] for n in (0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("batches", "count"), [(1, 1), (3, 3), (0.5, 2)])
def test_overfitting_repeats_the_same_batches(
    batches: float, count: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    step = VAE.training_step

    def kept(self: VAE, batch: Any, index: int) -> Any:
        seen.append(batch[2].clone())
        return step(self, batch, index)

    monkeypatch.setattr(VAE, "training_step", kept)
    code, output = run("train", "--config", "vae", *SHORT, "--num_samples", 0, "--trainer.overfit_batches", batches)
    assert code == 0, output
    assert len(seen) == 2 * count
    assert torch.equal(torch.cat(seen[:count]), torch.cat(seen[count:]))
    assert len(torch.cat(seen[:count]).unique()) == 320 * count


# ------------------------------------------------------------------------------------------------------- averages


def test_counters_and_flags_are_not_averaged() -> None:
    from vaeflow.callbacks.averaging import Averages

    model = nn.BatchNorm1d(2)  # which counts its batches
    model.register_buffer("order", torch.tensor([5, 3, 4]))
    model.register_buffer("fitted", torch.tensor(False))
    for options in ({"avg_fn": lambda average, value, count: 0.9 * average + 0.1 * value}, {}):
        average = Averages(model, use_buffers=True, **options)
        means = list[Tensor]()
        for step in range(30):
            model(torch.randn(8, 2) + step)
            model.fitted.fill_(step > 3)
            average.update_parameters(model)
            means.append(model.running_mean.clone())
        assert average.module.num_batches_tracked == model.num_batches_tracked
        assert torch.equal(average.module.order, torch.tensor([5, 3, 4]))
        assert average.module.fitted
        if not options:
            torch.testing.assert_close(average.module.running_mean, torch.stack(means).mean(0))
        else:
            assert (average.module.running_mean < model.running_mean).all()


@pytest.mark.parametrize("config", ["nice", "realnvp_image", "maf"])
@pytest.mark.parametrize("name", ["EMAWeightAveraging", "WeightAveraging"])
def test_averages_of_flows(config: str, name: str, run: Run, tmp_path: Path) -> None:
    """With permutations, masks, statistics of the data and data-dependent starts."""
    more = ("--model.channels", 8) if config == "realnvp_image" else ()
    code, output = run("train", "--config", config, *SHORT, *callback(name), *more)
    assert code == 0, output
    path = version(tmp_path, config) / "checkpoints/best.ckpt"
    averages, last = read(path)["state_dict"], read(path)["current_model_state"]
    for key, value in last.items():
        if not value.is_floating_point():
            assert torch.equal(averages[key], value), key
    parameters = [name for name, _ in vaeflow.load(path).named_parameters()]
    assert sum(not torch.equal(averages[name], last[name]) for name in parameters) > len(parameters) / 2
    assert results(tmp_path, config)["weights"] == f"best.ckpt, epoch 2, averaged by {name}"
    assert f"epoch 2  best.ckpt, averaged by {name}\n" in output


def test_averages_that_have_not_begun_are_the_model(run: Run, tmp_path: Path) -> None:
    late = ("--trainer.callbacks.update_starting_at_step", 1000)
    code, output = run("train", "--config", "realnvp", *SHORT, *EMA, *late)
    assert code == 0, output
    averaged = results(tmp_path, "realnvp")
    assert averaged["weights"] == "best.ckpt, epoch 2"
    assert run("train", "--config", "realnvp", *SHORT)[0] == 0
    assert averaged["nll"] == results(tmp_path, "realnvp", 1)["nll"]


def test_stochastic_weight_averaging(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is evaluated is the mean of the weights as the epochs begin, and it has a checkpoint of its own."""
    begins = list[dict[str, Tensor]]()

    def keep(self: VAE) -> None:
        begins.append({name: p.detach().clone() for name, p in self.named_parameters()})

    monkeypatch.setattr(VAE, "on_train_epoch_start", keep)
    code, output = run("train", "--config", "vae", *SHORT, *SWA)
    assert code == 0, output
    found = results(tmp_path)
    assert found["weights"] == "averaged.ckpt, epoch 4, averaged by StochasticWeightAveraging"
    assert found["checkpoint"] == "runs/vae/version_0/checkpoints/averaged.ckpt"
    averaged = read(tmp_path / found["checkpoint"])["state_dict"]
    for name, value in begins[0].items():
        expected = torch.stack([begin[name] for begin in begins[1:]]).mean(0)
        torch.testing.assert_close(averaged[name], expected, msg=name)
        assert not torch.equal(averaged[name], value)
    evaluate = ("evaluate", "--num-samples", 2, "--json", "out.json", "--ckpt")
    assert run(*evaluate, found["checkpoint"])[0] == 0
    again = json.loads((tmp_path / "out.json").read_text())
    assert (again["nll"], again["weights"]) == (found["nll"], found["weights"])
    assert run(*evaluate[:-1], "--experiment", "vae")[0] == 0
    assert json.loads((tmp_path / "out.json").read_text())["checkpoint"] == found["checkpoint"]
    assert run("train", "--config", "vae", *SHORT, *SWA, "--ckpt_path", "last")[0] == 0  # as after a stopped evaluation
    assert results(tmp_path)["weights"] == found["weights"]
    (version(tmp_path) / "checkpoints/averaged.ckpt").unlink()
    code, output = run("train", "--config", "vae", *SHORT, *SWA, "--ckpt_path", "last")
    assert (code, "averages its last epochs, which Lightning cannot go on with" in output) == (1, True), output


def test_the_table_names_the_best_epoch_without_averages(run: Run, tmp_path: Path) -> None:
    code, output = run("train", "--config", "vae", *SHORT)
    assert code == 0, output
    assert re.search(r"^  weights +epoch 2  best.ckpt$", output, re.MULTILINE)
    code, output = run("train", "--config", "vae", *SHORT, "--trainer.limit_val_batches", 0)
    assert code == 0, output
    assert results(tmp_path, number=1)["weights"] == "last.ckpt, epoch 2"
    run("evaluate", "--ckpt", "pretrained/vae", "--num-samples", 1, "--limit", 10, "--json", "out.json")
    assert re.fullmatch(r"vae.ckpt, epoch \d+", json.loads((tmp_path / "out.json").read_text())["weights"])


def test_two_processes_average_as_one(run: Run, tmp_path: Path) -> None:
    """They are copies of the model, without the processes that its trainer has started."""
    arguments = [str(word) for word in ("--config", "realnvp", *SHORT, *EMA)]
    assert run("train", *arguments)[0] == 0
    command = [sys.executable, str(CONFIGS.parent / "scripts/train.py"), *arguments, "--trainer.devices", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = results(tmp_path, "realnvp"), results(tmp_path, "realnvp", 1)
    assert (two["world_size"], two["num_examples"], two["weights"]) == (2, 300, one["weights"])
    assert two["nll"] == pytest.approx(one["nll"], rel=1e-4)


# ----------------------------------------------------------------------------------------- the user's own callbacks


class Untested(Callback):
    """Is part of a training, and of nothing else."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert trainer.world_size == 1

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise AssertionError

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        assert stage == "fit"


def test_the_evaluation_has_a_trainer_of_its_own(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = set[torch.dtype]()
    draws_of = VAE.draws_of

    def seen(self: VAE, *arguments: Any) -> Any:
        kinds.add(next(self.parameters()).dtype)
        return draws_of(self, *arguments)

    monkeypatch.setattr(VAE, "draws_of", seen)
    own = ("--trainer.callbacks", "tests.test_trainer_arguments.Untested", "--trainer.limit_test_batches", 0)
    code, output = run("train", "--config", "vae", *SHORT, *own, "--trainer.precision", "64-true")
    assert code == 0, output
    assert kinds == {torch.float64}
    command = ("evaluate", "--ckpt", version(tmp_path) / "checkpoints/best.ckpt", "--num-samples", 2, "--precision", 64)
    assert run(*command, "--accelerator", "cpu", "--json", "out.json")[0] == 0
    assert json.loads((tmp_path / "out.json").read_text())["nll"] == pytest.approx(results(tmp_path)["nll"], rel=1e-6)


def test_an_own_checkpoint_leaves_ours_alone(run: Run, tmp_path: Path) -> None:
    own = ("filename", "best"), ("save_last", "true"), ("save_weights_only", "true"), ("monitor", "val/kl")
    code, output = run("train", "--config", "vae", *SHORT, *callback("ModelCheckpoint", **dict(own)))
    assert code == 0, output
    folder = version(tmp_path) / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt", "ModelCheckpoint"}
    assert {"best.ckpt", "last.ckpt"} <= {path.name for path in (folder / "ModelCheckpoint").iterdir()}
    assert all("optimizer_states" in read(folder / name) for name in ("best.ckpt", "last.ckpt"))
    weights = folder / "ModelCheckpoint/last.ckpt"
    assert vaeflow.load(weights).shape == (1, 8, 8)
    code, output = run("train", "--config", "vae", *SHORT, "--ckpt_path", weights)
    assert (code, "holds the weights alone" in output) == (1, True), output


def test_weights_that_are_kept_alone_are_not_called_averages(run: Run, tmp_path: Path) -> None:
    both = [f"--trainer.callbacks+={EMA[1]}", "--trainer.callbacks+=ModelCheckpoint",
            "--trainer.callbacks.save_weights_only=true", "--trainer.callbacks.filename=mine"]  # fmt: skip
    code, output = run("train", "--config", "vae", *SHORT, *both)
    assert code == 0, output
    folder = version(tmp_path) / "checkpoints"
    assert read(folder / "best.ckpt")[KEY]["averaged_by"] == "EMAWeightAveraging"
    assert read(folder / "ModelCheckpoint/mine.ckpt")[KEY]["averaged_by"] is None


# ----------------------------------------------------------------------------------------------------- schedulers


TASK = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
LEFTOVERS: list[dict[str, str]] = [
    {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "jupyter"},
    {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_JOB_NAME": "interactive", **TASK},
    {"SLURM_NTASKS": "4", "SLURM_PROCID": "2"},
    {"SLURM_NTASKS": "many", **TASK},
    {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "train", **TASK},
    {"SLURM_PROCID": "3"},
    {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"},
    {"JSM_NAMESPACE_RANK": "1", "NODE_RANK": "1"},
]
NOT_STARTED: list[tuple[dict[str, str], str]] = [
    ({"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "jupyter", **TASK}, "SLURM has started 4 tasks"),
    ({"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", **TASK}, "unset SLURM_NTASKS"),
    ({"TORCHELASTIC_RUN_ID": "none"}, "unset TORCHELASTIC_RUN_ID"),
    ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, "RANK is no number"),
    (
        {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "/nowhere", "JSM_NAMESPACE_LOCAL_RANK": "0", "JSM_NAMESPACE_SIZE": "2"},
        "the trainer cannot be made: ",
    ),
]


def started_in(environment: dict[str, str], run: Run, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    for name in {**environment, "RANK": "", "LOCAL_RANK": "", "WORLD_SIZE": "", "NODE_RANK": ""}:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ranks = [value for name, value in environment.items() if name.endswith(("RANK", "PROCID"))]
    monkeypatch.setattr(rank_zero_only, "rank", int(ranks[0]) if ranks else 0)  # as Lightning does when it is imported
    return run("train", "--config", "vae", *SHORT, "--trainer.max_epochs", 1)


@pytest.mark.parametrize("environment", LEFTOVERS)
def test_what_a_scheduler_left_behind_is_no_matter(
    environment: dict[str, str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = started_in(environment, run, monkeypatch)
    assert code == 0, output
    assert results(tmp_path)["world_size"] == 1
    assert run("evaluate", "--ckpt", version(tmp_path) / "checkpoints/best.ckpt", "--num-samples", 1)[0] == 0
    assert "SLURM_NTASKS" not in environment or os.environ["SLURM_NTASKS"]  # left as it was


@pytest.mark.parametrize(("environment", "message"), NOT_STARTED)
def test_processes_that_nobody_has_started(
    environment: dict[str, str], message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = started_in(environment, run, monkeypatch)
    (said,) = [line for line in output.splitlines() if line.startswith("error")]
    assert (code, message in said) == (1, True), output
    assert not list(tmp_path.glob("runs/*/*"))


BN = "{class_path: Chain, init_args: {bijections: [BatchNorm, Coupling]}}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--trainer.limit_val_batches", 0, "--trainer.max_epochs", 2),
        ("--trainer.num_sanity_val_steps", 2, "--trainer.max_epochs", 2),
        ("--trainer.max_steps", 5),
    ],
)
def test_averages_have_statistics_of_their_own(arguments: tuple[object, ...], run: Run, tmp_path: Path) -> None:
    """Without validation, before the first one, and where a run ends within an epoch."""
    toy = ("--data", "Toy", "--data.num_train", 128, "--data.num_val", 32, "--data.num_test", 32)
    code, output = run("train", "--model", "Flow", "--model.flow", BN, *toy, "--data.batch_size", 32,
                       "--trainer.accelerator", "cpu", "--pictures.every", 0, "--experiment", "a",
                       "--trainer.callbacks", "EMAWeightAveraging", *arguments)  # fmt: skip
    assert code == 0, output
    last = tmp_path / "runs/a/version_0/checkpoints/last.ckpt"
    state = read(last)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())
    model, data = vaeflow.load(last), vaeflow.load_data(last)
    before = model.density.flow.bijections[0].mean.clone()
    model.refresh(data)
    torch.testing.assert_close(model.density.flow.bijections[0].mean, before)
    assert run("evaluate", "--ckpt", last)[0] == 0


def test_a_defect_of_ours_is_no_refusal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaeflow.commands.trainer_arguments.Curves", None)
    code, output = run("train", "--config", "vae", *SHORT)
    assert code == 70, output
    assert "internal error, a defect of vaeflow: TypeError" in output


@pytest.mark.parametrize(("arguments", "is_refusal"), [({"devices": "a"}, True), ({"limit_val_batches": "a"}, False)])
def test_what_lightning_raises_and_what_it_stumbles_over(arguments: dict[str, Any], is_refusal: bool) -> None:
    """A statement that raises an error tells of an argument; any other may as well be our mistake."""
    with pytest.raises(TypeError) as caught:
        Trainer(accelerator="cpu", logger=False, **arguments)
    assert _is_refused_by_lightning(caught.value) == is_refusal


def test_averages_that_never_began_are_missed(run: Run, tmp_path: Path) -> None:
    end = ("--trainer.max_steps", 5, "--trainer.max_epochs", 10)
    average = ("--trainer.callbacks", "StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", 1e-3,
               "--trainer.callbacks.swa_epoch_start", 5)  # fmt: skip
    code, output = run("train", "--config", "vae", *SHORT, *end, *average, "--model.lr_scheduler", "null")
    assert code == 0, output
    assert "warning: StochasticWeightAveraging has averaged nothing: training ended before it." in output
    assert results(tmp_path)["weights"].startswith("best.ckpt, epoch ")
