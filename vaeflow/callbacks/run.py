"""What a training run shows and keeps: its progress bar, its checkpoints, how TensorBoard lays its curves out."""

from __future__ import annotations

import math
import os
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger

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
            self.bar.set_postfix(self._terms(trainer))
        self.close()

    @staticmethod
    def _terms(trainer: Trainer) -> dict[str, str]:
        digits = {"train/nll": 2, "train/kl": 2, "train/bpd": 3, "val/nll": 2}
        logged = trainer.callback_metrics
        return {tag.removeprefix("train/"): f"{logged[tag].item():.{n}f}" for tag, n in digits.items() if tag in logged}


class Checkpoints(ModelCheckpoint):
    """``best.ckpt``, by ``val/objective``, and ``last.ckpt``, after each validation and when training is stopped."""

    def __init__(self) -> None:
        super().__init__(
            monitor="val/objective",
            mode="min",
            filename="best",
            save_last=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        stopped = isinstance(exception, KeyboardInterrupt) and trainer.training  # a validation is done again
        if stopped and trainer.global_step > 0 and self.dirpath is not None:
            trainer.save_checkpoint(os.path.join(self.dirpath, "last.ckpt"), weights_only=False)


class Curves(Callback):
    """TensorBoard's custom scalars: the curves that compare runs, and the terms of the ELBO in one chart."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and isinstance(trainer.logger, TensorBoardLogger):
            layout = {
                "compare": {tag: ["Multiline", [tag]] for tag in ("val/nll", "val/bpd", "val/objective")},
                "terms": {"ELBO": ["Multiline", ["val/elbo", "val/kl", "val/reconstruction"]]},
            }
            trainer.logger.experiment.add_custom_scalars(layout)
