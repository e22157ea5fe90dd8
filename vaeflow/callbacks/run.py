"""What a training run shows and keeps: its progress bar, its checkpoints, how TensorBoard lays its curves out."""

from __future__ import annotations

import math
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, StochasticWeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from vaeflow.callbacks.averaging import AVERAGED, refresh_averages
from vaeflow.errors import VaeflowError
from vaeflow.evaluation.progress import EvaluationProgress
from vaeflow.files import whole
from vaeflow.records.checkpoint import read


def tensorboards(trainer: Trainer) -> list[TensorBoardLogger]:
    """TensorBoard's among a trainer's loggers."""
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


class Progress(EvaluationProgress):
    """One bar over the whole training, with nll, kl and bpd as they were last logged, and ``val/nll``."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = trainer.estimated_stepping_batches
        self.open(total=int(steps) if math.isfinite(steps) else None, initial=trainer.global_step, unit="step")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.bar is not None
        self.bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs or '?'}", refresh=False)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        assert self.bar is not None
        if self.bar.update(trainer.global_step - self.bar.n):
            self.bar.set_postfix(self._terms(trainer), refresh=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.bar is not None:
            self.bar.set_postfix(self._terms(trainer), refresh=False)
            self.say("last checkpoint and pictures")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.say("trained")
        self.close()

    @staticmethod
    def _terms(trainer: Trainer) -> dict[str, str]:
        digits = {"train/nll": 2, "train/kl": 2, "train/bpd": 3, "val/nll": 2, "val/kl": 3}
        logged = trainer.callback_metrics
        return {tag.removeprefix("train/"): f"{logged[tag].item():.{n}f}" for tag, n in digits.items() if tag in logged}


class Checkpoints(ModelCheckpoint):
    """``best.ckpt``, by ``val/objective``, and ``last.ckpt``, after each validation, every so many steps, and when
    training stops.

    Ctrl-C (or SIGTERM) stops training at the end of the step, of several processes at their next line of the log, or of
    the validation, since only there all that a checkpoint holds is of one step; a second one stops at once and saves
    nothing.

    Args:
        folder: where they lie.
        every: the most steps from one ``last.ckpt`` to the next.
        resumed: the checkpoint that is resumed, if one is; the best of its run, which lies beside it, comes along.
    """

    stopped_by = signal.SIGINT
    """The signal that asked for the end."""

    def __init__(self, folder: Path, every: int = 1000, resumed: Path | None = None) -> None:
        super().__init__(
            monitor="val/objective",
            mode="min",
            filename="best",
            auto_insert_metric_name=False,
            enable_version_counter=False,
            save_on_train_epoch_end=False,  # but after validation, so that last.ckpt knows which was best
        )
        self.dirpath = str(folder)  # as it was given, for what is printed
        self.every, self.resumed = every, resumed
        self._stop_asked = self._stopping = False
        self._last_step = 0
        self._metrics: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """With the last values of what is logged, which EarlyStopping looks at after the validation's checkpoint."""
        return {**super().state_dict(), "metrics": self._metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The opposite of :meth:`state_dict`."""
        score, best = state_dict["best_model_score"], ""  # of a folder that may be called otherwise now
        if self._has_best(score):
            best = os.path.join(str(self.dirpath), "best.ckpt")
        paths = {"dirpath": self.dirpath, "best_model_path": best, "kth_best_model_path": best}
        scores = {"best_model_score": score if best else None, "best_k_models": {best: score} if best else {}}
        last = os.path.join(str(self.dirpath), "last.ckpt")
        last = last if os.path.isfile(last) else str(self.resumed or "")
        super().load_state_dict({**state_dict, **paths, **scores, "last_model_path": last})
        self._metrics = state_dict.get("metrics", {})

    def _has_best(self, score: Tensor | None) -> bool:
        """Whether the best checkpoint so far, of this score, is there; one in another folder is copied."""
        if self.resumed is None or score is None:
            return False
        beside = self.resumed.resolve().parent
        folders = (Path(str(self.dirpath)), beside, beside.parent)  # the last is of a ModelCheckpoint of the user's own
        mine, *theirs = (folder / "best.ckpt" for folder in folders)
        found = next((path for path in (mine, *theirs) if path.is_file() and _score_of(path) == score.item()), None)
        if found not in (None, mine) and getattr(rank_zero_only, "rank", 0) == 0:
            mine.parent.mkdir(parents=True, exist_ok=True)
            with whole(mine) as file:
                file.write(found.read_bytes())
        return found is not None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._last_step = trainer.global_step
        trainer.callback_metrics.update(self._metrics)
        progress: Any = trainer.fit_loop.epoch_progress
        if trainer.fit_loop.restarted_mid_epoch and progress.total.started == progress.total.processed:
            progress.increment_ready()  # after the last step of an epoch Lightning does not count the next one's begin
            progress.increment_started()
        if trainer.received_sigterm:  # before signals were ours
            self._stop_asked, self.stopped_by = True, signal.SIGTERM
            trainer._signal_connector.received_sigterm = False
        # Lightning has processes tell each other of SIGTERM at every step, for which a GPU waits
        assert hasattr(trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor")
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._ask_to_stop)

    def _ask_to_stop(self, number: int, _: Any) -> None:
        if self._stop_asked:
            raise KeyboardInterrupt
        self._stop_asked, self.stopped_by = True, signal.Signals(number)
        if getattr(rank_zero_only, "rank", 0) == 0:
            os.write(2, b"\nstopping soon, with a checkpoint; Ctrl-C again stops at once and saves nothing\n")

    def _agree_to_stop(self, trainer: Any) -> bool:
        """Whether any process was asked to stop; all then say by which signal."""
        decide = trainer.strategy.reduce_boolean_decision
        stopping = decide(self._stop_asked, all=False)
        if stopping and decide(self._stop_asked and self.stopped_by == signal.SIGTERM, all=False):
            self.stopped_by = signal.SIGTERM
        return bool(stopping)

    def on_train_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        n = trainer.check_val_every_n_epoch
        is_validated = trainer.enable_validation and (n is None or (trainer.current_epoch + 1) % n == 0)
        if is_validated if trainer.is_last_batch else (index + 1) % trainer.accumulate_grad_batches:
            return  # the one is saved after its validation, the other is no step
        # several processes agree where they wait for each other's numbers anyhow, not after each step
        every = trainer.log_every_n_steps or 1
        if trainer.world_size == 1 or trainer.global_step % every == 0:
            self._stopping = self._agree_to_stop(trainer)
        is_due = trainer.global_step - self._last_step >= self.every
        if self._stopping or trainer.should_stop or trainer.global_step == trainer.max_steps or is_due:
            self._save_last(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._stopping:  # by now the curves have the last step, too
            raise KeyboardInterrupt

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.sanity_checking:
            return
        self._save_last(trainer, validated=True)
        if self._agree_to_stop(trainer):
            raise KeyboardInterrupt

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_last(trainer)

    def _save_last(self, trainer: Any, validated: bool = False) -> None:
        # a validation may change what is best, but one that Lightning adds as it stops is no part of the run
        is_there = trainer.global_step == self._last_step and (not validated or trainer.should_stop)
        if self.dirpath is None or trainer.fast_dev_run or is_there:
            return
        if not validated:
            trainer.lightning_module.refresh(trainer.datamodule)
            refresh_averages(trainer)
        self._last_step = trainer.global_step
        self._metrics = {name: value.cpu() for name, value in trainer.callback_metrics.items()}
        for logger in tensorboards(trainer) if trainer.is_global_zero else []:
            logger.experiment.flush()  # the curves, too, are on the disk up to here
        self.last_model_path = os.path.join(self.dirpath, "last.ckpt")
        trainer.save_checkpoint(self.last_model_path, weights_only=False)

    @property
    def _averaged(self) -> Path:
        return Path(str(self.dirpath), AVERAGED)

    def is_averaged(self, step: int) -> bool:
        """Whether there are averages by StochasticWeightAveraging, which it has at its end, after so many steps."""
        return self._averaged.is_file() and read(self._averaged)["global_step"] == step

    def to_evaluate(self, trainer: Any) -> Path:
        """The checkpoint of a trained model: averaged over its last epochs, if it was asked for, or the best by
        validation, or, without validation, the last."""
        averages = any(isinstance(callback, StochasticWeightAveraging) for callback in trainer.callbacks)
        if averages and self.is_averaged(trainer.global_step):
            return self._averaged
        path = self.best_model_path or self.last_model_path
        if not path:
            raise VaeflowError(f"training ended after {trainer.global_step} steps, before there was a checkpoint.")
        return Path(path)


def _score_of(best: Path) -> float | None:
    """The score for which a checkpoint is the best of its run; None if it is damaged, or holds weights alone."""
    with suppress(VaeflowError):
        for name, state in read(best).get("callbacks", {}).items():
            if name.startswith(Checkpoints.__name__) and isinstance(score := state.get("best_model_score"), Tensor):
                return score.item()
    return None


class Unchanged(Callback):
    """Raises a :class:`VaeflowError` where a training, begun and ended by this process, has changed no parameter."""

    def __init__(self) -> None:
        self._before = list[float]()

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == batch_idx == 0:  # by now the model has started from the data
            self._before = self._sums(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self._before and pl_module.is_trained_by_gradient and self._sums(pl_module) == self._before:
            rate, clip = trainer.optimizers[0].defaults.get("lr"), trainer.gradient_clip_val
            raise VaeflowError(
                f"{trainer.global_step} steps changed no parameter: the learning rate is {rate}, gradients are clipped "
                f"to a norm of {clip}, or all steps were left out."
            )

    @staticmethod
    def _sums(model: LightningModule) -> list[float]:
        return [float(parameter.detach().double().sum()) for parameter in model.parameters()]


class Curves(Callback):
    """TensorBoard's custom scalars: the curves that compare runs, and the terms of the ELBO in one chart."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        layout = {
            "compare": {tag: ["Multiline", [tag]] for tag in ("val/nll", "val/bpd", "val/objective")},
            "terms": {"ELBO": ["Multiline", ["val/elbo", "val/kl", "val/reconstruction"]]},
        }
        for logger in tensorboards(trainer) if trainer.is_global_zero else []:
            logger.experiment.add_custom_scalars(layout)
