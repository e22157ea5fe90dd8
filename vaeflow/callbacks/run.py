"""What a training run shows and keeps: its progress bar, its checkpoints, how TensorBoard lays its curves out."""

from __future__ import annotations

import math
import os
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger


class Progress(TQDMProgressBar):
    """The progress bar, with nll, kl and bpd of the training batches since they were last logged, and ``val/nll``."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown: dict[str, str] = {}
        metric = pl_module.means["train_"]  # type: ignore[index,operator]
        if metric.count > 0:  # type: ignore[union-attr,operator]
            self._last = {name: (total / metric.count).item() for name, total in zip(metric.names, metric.total, strict=True)}  # type: ignore
        last = getattr(self, "_last", {})
        for name in ("nll", "kl"):
            if name in last:
                shown[name] = f"{last[name]:.2f}"
        if "nll" in last and pl_module.levels is not None:
            shown["bpd"] = f"{last['nll'] / (pl_module.dimension * math.log(2)):.3f}"  # type: ignore[operator]
        if "val/nll" in trainer.callback_metrics:
            shown["val/nll"] = f"{trainer.callback_metrics['val/nll'].item():.2f}"
        return shown  # type: ignore[return-value]


class Checkpoints(ModelCheckpoint):
    """``best.ckpt``, by ``val/objective``, and ``last.ckpt``, after each epoch and when training is interrupted."""

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
        if isinstance(exception, KeyboardInterrupt) and trainer.global_step > 0 and self.dirpath is not None:
            trainer.save_checkpoint(os.path.join(self.dirpath, "last.ckpt"))


class Curves(Callback):
    """TensorBoard's custom scalars: the curves that compare runs, and the terms of the ELBO in one chart."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and isinstance(trainer.logger, TensorBoardLogger):
            layout = {
                "compare": {tag: ["Multiline", [tag]] for tag in ("val/nll", "val/bpd", "val/objective")},
                "terms": {"ELBO": ["Multiline", ["val/elbo", "val/kl", "val/reconstruction"]]},
            }
            trainer.logger.experiment.add_custom_scalars(layout)
