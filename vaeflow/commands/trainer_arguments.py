"""The arguments of Lightning's Trainer: our defaults, what is refused, and what is added to a user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    OnExceptionCheckpoint,
    ProgressBar,
    StochasticWeightAveraging,
    Timer,
)
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.plugins.environments import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher

from vaeflow.callbacks import Averaging, Checkpoints, Curves, Progress, Unchanged
from vaeflow.errors import VaeflowError
from vaeflow.evaluation.evaluate import best_accelerator
from vaeflow.machine.launch import cluster_environment
from vaeflow.records.checkpoint import Files
from vaeflow.records.runs import RunFolder

DEFAULTS = {
    "accelerator": best_accelerator(),
    "devices": 1,
    "default_root_dir": "runs",
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "log_every_n_steps": 10,
    "gradient_clip_val": 500.0,  # several times what any config has after its first steps
    "use_distributed_sampler": False,  # it pads; the data modules share out whole batches themselves
}
IN_HELP = {
    "max_epochs": "passes over the training data",
    "max_time": "stop after so long, DD:HH:MM:SS",
    "accelerator": "cpu, gpu, …; by default the best at hand",
    "devices": "how many, or which: data.batch_size is that of all together",
    "precision": "32-true, 64-true, bf16-mixed, …",
    "gradient_clip_val": "largest norm of the gradient",
    "accumulate_grad_batches": "batches for each step of the optimizer",
    "check_val_every_n_epoch": "epochs from one validation to the next",
    "callbacks": "further callbacks of Lightning, such as EarlyStopping or EMAWeightAveraging",
    "default_root_dir": "folder of all runs",
}
"""The Trainer's keys that ``--help`` shows, with one line each."""
REFUSED = {
    "enable_checkpointing": (False, "the best checkpoint is what is evaluated"),
    "barebones": (True, "that keeps neither checkpoints nor curves"),
    "use_distributed_sampler": (True, "that repeats examples: the data modules share out batches themselves"),
}
"""What no run can have, and why."""
REFUSED_CALLBACKS = {
    BatchSizeFinder: "set data.batch_size yourself: noise, schedule and what a checkpoint knows of its data rest on it",
    LearningRateFinder: "set model.optimizer.lr yourself: its trial steps would start the model from the data twice",
    ModelPruning: "it renames parameters, so that no checkpoint of it could be evaluated",
    BackboneFinetuning: "it wants a model with a `backbone`, which none has here",
    OnExceptionCheckpoint: "a new run would go on from what an old one left; last.ckpt is there for that",
}


def check_arguments(trainer: Namespace) -> None:
    """Refuse what no run can have, before anything is made, and fit validations into short runs.

    Args:
        trainer: the arguments, some of which are changed.

    Raises:
        VaeflowError: with the reason.
    """
    for name, (value, reason) in REFUSED.items():
        if trainer[name] is value:
            raise VaeflowError(f"trainer.{name} is {str(value).lower()}, but {reason}: leave it out.")
    for name in ("max_epochs", "max_steps", "accumulate_grad_batches"):
        if trainer[name] == 0:
            raise VaeflowError(f"trainer.{name} is 0, expected at least 1.")
    if trainer.gradient_clip_val is not None and trainer.gradient_clip_val < 0:
        raise VaeflowError(
            f"trainer.gradient_clip_val is {trainer.gradient_clip_val}, expected 0, for none, or more: a negative norm "
            "would turn gradients round."
        )
    if trainer.limit_train_batches == 0:
        raise VaeflowError("trainer.limit_train_batches is 0, expected more than 0: nothing would be trained.")
    for name in ("check_val_every_n_epoch", "val_check_interval"):
        if (given := trainer[name]) is not None and not isinstance(given, (str, dict)) and given <= 0:
            raise VaeflowError(
                f"trainer.{name} is {given}, expected more than 0: without validation there is no best checkpoint."
            )
    if str(trainer.precision) in ("16-true", "bf16-true"):
        raise VaeflowError(
            f"trainer.precision is {trainer.precision}, too coarse for a likelihood: take 16-mixed or bf16-mixed, "
            "which keep the weights and the logarithms whole."
        )
    if trainer.gradient_clip_val == DEFAULTS["gradient_clip_val"] and str(trainer.precision) == "16-mixed":
        trainer.gradient_clip_val = None  # Lightning cannot with a fused optimizer's scaled gradients
    _fit_validations(trainer)


def _fit_validations(trainer: Namespace) -> None:
    """A short run is validated at its end, and so must be every other."""
    epochs, every = trainer.max_epochs, trainer.check_val_every_n_epoch
    if epochs and every and 0 < epochs < every:
        every = trainer.check_val_every_n_epoch = epochs
    if epochs is not None and every and epochs > 0 and epochs % every:
        raise VaeflowError(
            f"trainer.max_epochs is {epochs}, expected a multiple of trainer.check_val_every_n_epoch, {every}: "
            f"the last epochs would not be validated; take {epochs - epochs % every}, or "
            "--trainer.check_val_every_n_epoch 1."
        )


def callbacks_of(given: Any, trainer: Namespace, folder: RunFolder, every: int) -> tuple[list[Callback], Checkpoints]:
    """The callbacks of a run that come after the user's own, and the one of them that writes its checkpoints.

    Args:
        given: the user's own, one or a list or None.
        trainer: the other arguments.
        every: steps from one ``last.ckpt`` to the next.

    Raises:
        VaeflowError: for one of the user's that cannot be part of a run.
    """
    own = given if isinstance(given, list) else [given]
    for callback in own:
        if type(callback) is BaseFinetuning:
            raise VaeflowError("trainer.callbacks has BaseFinetuning, which freezes nothing itself: take a subclass.")
        for kind, advice in REFUSED_CALLBACKS.items():
            if isinstance(callback, kind):
                raise VaeflowError(
                    f"trainer.callbacks has {type(callback).__name__}, which is not supported: {advice}."
                )
        if isinstance(callback, StochasticWeightAveraging):
            _check_averaging(callback, trainer.max_epochs)
        if isinstance(callback, ModelCheckpoint):
            _place(callback, folder.checkpoints)
    checkpoints = Checkpoints(folder.checkpoints, every, Path(folder.resume_from) if folder.resume_from else None)
    callbacks: list[Callback] = [checkpoints, Curves(), Unchanged(), Averaging(folder.checkpoints)]
    timers = [callback for callback in own if isinstance(callback, Timer)]
    if not timers:
        timers = [Timer(trainer.max_time)]  # Lightning makes none of its own where there is one
        callbacks += timers
    elif trainer.max_time is not None:
        raise VaeflowError("trainer.callbacks has Timer, so that trainer.max_time would not count: leave one out.")
    if any((left := timer.time_remaining()) is not None and left <= 0 for timer in timers):
        raise VaeflowError("the time limit of the training is 0 or less, expected more, as DD:HH:MM:SS.")
    if trainer.enable_progress_bar in (None, True) and not any(isinstance(callback, ProgressBar) for callback in own):
        callbacks.append(Progress())
    return callbacks, checkpoints


def _check_averaging(callback: StochasticWeightAveraging, epochs: int | None) -> None:
    """Refuse averages that never begin, in whose place Lightning puts the model as it was before training, and those
    that hold that model: it averages what each epoch begins with."""
    start = callback._swa_epoch_start
    if epochs is None or epochs < 0:
        raise VaeflowError(
            "trainer.callbacks has StochasticWeightAveraging, which averages the last of trainer.max_epochs: set it."
        )
    first = int(start * epochs) if isinstance(start, float) else start
    if first < 2:
        raise VaeflowError(
            f"StochasticWeightAveraging averages what each epoch from its swa_epoch_start, {start}, on begins with, "
            f"which of {epochs} epochs is the untrained model as well: train longer, or raise swa_epoch_start."
        )
    if first > epochs:
        raise VaeflowError(
            f"StochasticWeightAveraging would begin with epoch {start}, but trainer.max_epochs is {epochs}: lower "
            "swa_epoch_start."
        )


def _place(callback: ModelCheckpoint, folder: Path) -> None:
    """Keep the files of a user's own ModelCheckpoint apart from ``best.ckpt`` and ``last.ckpt``."""
    if callback.dirpath is None:
        callback.dirpath = str(folder / type(callback).__name__)
    elif Path(callback.dirpath).resolve() == folder.resolve():
        raise VaeflowError(
            f"trainer.callbacks has {type(callback).__name__}, which writes to {folder}, where best.ckpt and last.ckpt "
            "of the run lie: give it another dirpath, or none."
        )


def plugins_of(given: Any) -> list[Any]:
    """The user's plugins, and what we add: checkpoints that are written whole, and who has started the processes."""
    plugins = list(given) if isinstance(given, list) else [] if given is None else [given]
    if not any(isinstance(plugin, CheckpointIO) or "Async" in str(plugin) for plugin in plugins):
        plugins.append(Files())
    if not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
        plugins += cluster_environment()
    return plugins


def check_trainer(trainer: Any, model: Any) -> None:
    """Refuse, before training, a trainer by which no run comes to its end; set what its arguments cannot.

    Raises:
        VaeflowError: with the reason.
    """
    strategy = trainer.strategy
    if isinstance(strategy.launcher, _MultiProcessingLauncher):
        raise VaeflowError(
            "trainer.strategy starts processes that are gone, with what they have trained, before it is evaluated: "
            "take ddp."
        )
    if isinstance(strategy, (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)):
        raise VaeflowError(
            f"trainer.strategy is {type(strategy).__name__}, which splits a model up, so that no checkpoint of it "
            "could be evaluated: take ddp."
        )
    accumulates = any(isinstance(callback, GradientAccumulationScheduler) for callback in trainer.callbacks)
    if accumulates and model.lr_scheduler is not None:
        raise VaeflowError(
            "trainer.callbacks has GradientAccumulationScheduler, which changes how many steps there are, and the "
            "learning rate's schedule would not come to its end: set model.lr_scheduler to null."
        )
    if isinstance(trainer.overfit_batches, float) and trainer.overfit_batches:
        trainer.limit_val_batches = 1.0  # there may be no whole batch in that part of them
    if isinstance(strategy, DDPStrategy):  # no copy of the gradient, and none of buffers at every step
        options = {"gradient_as_bucket_view": True, "broadcast_buffers": False}
        strategy._ddp_kwargs = {**options, **strategy._ddp_kwargs}
