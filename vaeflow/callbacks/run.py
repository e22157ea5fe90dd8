"""What a training run shows and keeps: its progress bar, its checkpoints, how TensorBoard lays its curves out."""

from __future__ import annotations

import math
import os
import signal
import threading
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from vaeflow.errors import VaeflowError
from vaeflow.evaluation.progress import EvaluationProgress


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
        every: the most steps from one ``last.ckpt`` to the next.
    """

    stopped_by = signal.SIGINT
    """The signal that asked for the end."""

    def __init__(self, every: int = 1000) -> None:
        super().__init__(
            monitor="val/objective",
            mode="min",
            filename="best",
            auto_insert_metric_name=False,
            enable_version_counter=False,
            save_on_train_epoch_end=False,  # but after validation, so that last.ckpt knows which was best
        )
        self.every = every
        self._stop_asked = self._stopping = False
        self._last_step = 0
        self._metrics: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """With the last values of what is logged, which EarlyStopping looks at after the validation's checkpoint."""
        return {**super().state_dict(), "metrics": self._metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The opposite of :meth:`state_dict`."""
        super().load_state_dict(state_dict)
        self._metrics = state_dict.get("metrics", {})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._last_step = trainer.global_step
        trainer.callback_metrics.update(self._metrics)
        # Lightning has processes tell each other of SIGTERM at every step, for which a GPU waits; signals are ours here
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._ask_to_stop)

    def _ask_to_stop(self, number: int, _: Any) -> None:
        if self._stop_asked:
            raise KeyboardInterrupt
        self._stop_asked, self.stopped_by = True, signal.Signals(number)
        if getattr(rank_zero_only, "rank", 0) == 0:
            os.write(2, b"\nstopping at the end of this step; Ctrl-C again stops at once and saves nothing\n")

    def on_train_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if trainer.is_last_batch or (index + 1) % trainer.accumulate_grad_batches:
            return
        # several processes agree where they wait for each other's numbers anyhow, not after each step
        if trainer.world_size == 1 or trainer.global_step % trainer.log_every_n_steps == 0:
            self._stopping = trainer.strategy.reduce_boolean_decision(self._stop_asked, all=False)
        is_due = trainer.global_step - self._last_step >= self.every
        if self._stopping or trainer.should_stop or trainer.global_step == trainer.max_steps or is_due:
            self._save_last(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._stopping:  # by now the curves have the last step, too
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: Any, pl_module: LightningModule) -> None:
        """After the last step of an epoch, which has no validation before each of them."""
        super().on_train_epoch_end(trainer, pl_module)
        stopping = trainer.strategy.reduce_boolean_decision(self._stop_asked, all=False)
        if stopping or trainer.global_step - self._last_step >= self.every:
            self._save_last(trainer)
        if stopping:
            raise KeyboardInterrupt

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.sanity_checking:
            return
        self._save_last(trainer, validated=True)
        if trainer.strategy.reduce_boolean_decision(self._stop_asked, all=False):
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
        self._last_step = trainer.global_step
        self._metrics = {name: value.cpu() for name, value in trainer.callback_metrics.items()}
        if trainer.is_global_zero and isinstance(trainer.logger, TensorBoardLogger):
            trainer.logger.experiment.flush()  # the curves, too, are on the disk up to here
        self.last_model_path = os.path.join(self.dirpath, "last.ckpt")
        trainer.save_checkpoint(self.last_model_path, weights_only=False)


class Unchanged(Callback):
    """Raises a :class:`VaeflowError` where a training's steps have changed no parameter."""

    def __init__(self) -> None:
        self._step, self._before = 0, list[float]()

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if not self._before:  # by now the model has started from the data
            self._step, self._before = trainer.global_step, self._sums(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        steps = trainer.global_step - self._step
        if self._before and pl_module.is_trained_by_gradient and steps and self._sums(pl_module) == self._before:
            rate, clip = trainer.optimizers[0].defaults.get("lr"), trainer.gradient_clip_val
            raise VaeflowError(
                f"{steps} steps changed no parameter: the learning rate is {rate}, and gradients are clipped to a norm "
                f"of {clip}."
            )

    @staticmethod
    def _sums(model: LightningModule) -> list[float]:
        return [float(parameter.detach().double().sum()) for parameter in model.parameters()]


class Curves(Callback):
    """TensorBoard's custom scalars: the curves that compare runs, and the terms of the ELBO in one chart."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and isinstance(trainer.logger, TensorBoardLogger):
            layout = {
                "compare": {tag: ["Multiline", [tag]] for tag in ("val/nll", "val/bpd", "val/objective")},
                "terms": {"ELBO": ["Multiline", ["val/elbo", "val/kl", "val/reconstruction"]]},
            }
            trainer.logger.experiment.add_custom_scalars(layout)
