"""Averages of weights by Lightning's callbacks, such that a checkpoint holds what is evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

AVERAGED = "averaged.ckpt"


class Averages(AveragedModel):
    """torch's averages of a model, but for what no mean means anything of: counters, flags and permutations, buffers of
    integers, are the model's own. Until the first update all is the model's own."""

    def update_parameters(self, model: nn.Module) -> None:
        """Add the model as it is to the averages."""
        averaged = self._buffers_of(self.module) if self.use_buffers else {}
        before, count = {name: value.clone() for name, value in averaged.items()}, self.n_averaged.clone()
        uses_buffers, self.use_buffers = self.use_buffers, False  # torch then copies them
        super().update_parameters(model)
        self.use_buffers = uses_buffers
        if averaged and count > 0:
            new = self._buffers_of(model)
            for name, value in averaged.items():
                last = new[name].to(value.device)
                mean = self._mean(before[name].clone(), last, count.to(value.device))
                value.copy_(torch.where(before[name].isfinite(), mean, last))  # statistics are NaN until they are set

    @staticmethod
    def _buffers_of(model: nn.Module) -> dict[str, Tensor]:
        """What changes while a model trains: running statistics, but no masks, which no checkpoint holds."""
        kept = model.state_dict(keep_vars=True)
        return {name: b.detach() for name, b in model.named_buffers() if name in kept and b.is_floating_point()}

    def _mean(self, average: Tensor, value: Tensor, count: Tensor) -> Tensor:
        if self.avg_fn is not None:
            return torch.as_tensor(self.avg_fn(average, value, count))
        if self.multi_avg_fn is not None:
            self.multi_avg_fn((average,), (value,), count)
            return average
        return average + (value - average) / (count + 1)


class Averaging(Callback):
    """Comes after Lightning's averaging callbacks, which a user may have added, and mends them: see :class:`Averages`.
    What StochasticWeightAveraging has at the end, after the last checkpoint, is kept in ``averaged.ckpt``.

    Args:
        folder: of the run's checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / AVERAGED
        self._waiting = list[Averages]()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        for callback in averaging_callbacks(trainer):
            if isinstance(callback, WeightAveraging):
                options: dict[str, Any] = {"use_buffers": callback._use_buffers, **callback._kwargs}
                average = Averages(pl_module, callback._device or pl_module.device, **options)
                callback._average_model = average
                self._waiting.append(average)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for average in self._waiting:  # which validation sees, and by now the model has started from the data
            average.module.load_state_dict(pl_module.state_dict())

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        self._waiting = [average for average in self._waiting if average.n_averaged == 0]
        for average in self._waiting:
            average.module.load_state_dict(pl_module.state_dict())

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if checkpoint.get("averaging_state", {}).get("n_averaged", 0) > 0:  # of Lightning, which puts averages in
            names = [type(c).__name__ for c in averaging_callbacks(trainer) if isinstance(c, WeightAveraging)]
            pl_module.averaged_by = names[-1]

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        for callback in averaging_callbacks(trainer):
            if isinstance(callback, StochasticWeightAveraging) and callback.n_averaged and not trainer.fast_dev_run:
                assert callback._average_model is not None
                callback.transfer_weights(callback._average_model, pl_module)
                pl_module.refresh(trainer.datamodule)
                pl_module.averaged_by = type(callback).__name__
                trainer.save_checkpoint(self.path, weights_only=True)


def refresh_averages(trainer: Any) -> None:
    """Set what is a statistic of the training data in averages of weights, which is that of no model they came from."""
    for callback in averaging_callbacks(trainer):
        average: Any = callback._average_model if isinstance(callback, WeightAveraging) else None
        if average is not None and average.n_averaged > 0:
            average.module.refresh(trainer.datamodule)


def averaging_callbacks(trainer: Any) -> list[Callback]:
    """Those of a trainer's callbacks that average weights."""
    return [c for c in trainer.callbacks if isinstance(c, (WeightAveraging, StochasticWeightAveraging))]
