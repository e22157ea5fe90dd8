"""Pictures for TensorBoard while a model trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer

from vaeflow.callbacks.run import tensorboards
from vaeflow.errors import check_positive
from vaeflow.figures import density, manifold
from vaeflow.figures.images import grid, limits_of, rows_in_turn
from vaeflow.figures.interpolation import interpolate
from vaeflow.figures.samples import reconstruct
from vaeflow.figures.style import pixels, styled
from vaeflow.noise import Noise


class Pictures(Callback):
    """``samples``, ``reconstructions``, ``interpolation``; ``latents`` of a two-dimensional latent space; ``density``
    of data in the plane, on a grid beside the data.

    All are of the same noise and the same validation images each time, so that frames can be compared. Samples of a
    latent-variable model are means of p(x|z), without the noise of single pixels; those of a class-conditional one have
    a column for each class. Reconstructions stand below their originals.

    Args:
        every: of how many validations; the trained model always has pictures. 0 for no pictures.
        count: how many samples and reconstructions.
    """

    def __init__(self, every: int = 10, count: int = 64) -> None:
        check_positive(**{"pictures.count": count})
        self.every, self.count = every, count
        self._validations = 0
        self._last_step = -1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and self.every:
            self._validations += 1
            if self._validations % self.every == 0:
                self._show(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every and trainer.global_step > self._last_step:
            self._show(trainer, pl_module)

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_step = trainer.global_step
        if trainer.is_global_zero and (loggers := tensorboards(trainer)):
            training = pl_module.training
            pl_module.eval()
            for tag, picture in draw(pl_module, trainer.datamodule, self.count).items():  # type: ignore[attr-defined]
                for logger in loggers:
                    logger.experiment.add_image(tag, picture, trainer.global_step, dataformats="HWC")
            pl_module.train(training)


@torch.no_grad()
def draw(model: Any, data: Any, count: int = 64) -> dict[str, np.ndarray]:
    """All pictures of a model, ``(height, width, 3)`` of uint8, by tag."""
    pictures = {}
    if len(model.shape) == 3:
        x, y = data.examples("val", torch.arange(min(count, len(data.splits["val"][0]))))
        limits = limits_of(x, model.levels)
        columns = model.num_classes if model.context_features else 8
        whole_rows = count - count % columns or count
        labels = torch.arange(whole_rows, device=model.device) % columns
        samples = model.sample(whole_rows, Noise(), model.context_of(labels), mean=True)
        pictures["samples"] = grid(samples, limits, columns)
        if model.latent_spaces:
            again = reconstruct(model, x[:32], y[:32], Noise())
            pictures["reconstructions"] = rows_in_turn(x[:32], again, limits)
            if even := min(10, len(x) - len(x) % 2):
                walk = interpolate(model, model.latent_spaces["z"], x[:even], y[:even], 10, frames=1)
                pictures["interpolation"] = grid(walk.x.flatten(0, 1), limits, 10)
    if model.code_features == 2 and model.dimension > 2:
        pictures["latents"] = pixels(_latents(model, data))
    if model.shape == (2,) and model.levels is None and not model.context_features:
        pictures["density"] = pixels(density.draw(model, data))
    return pictures


@styled
def _latents(model: Any, data: Any) -> Figure:
    """Codes of validation data in the plane, coloured by label."""
    x, y = data.examples("val", torch.arange(min(2000, len(data.splits["val"][0]))))
    codes = model.encode(x.to(model.device), model.context_of(y.to(model.device))).cpu()
    figure = Figure(figsize=(5.6, 5))
    axes = figure.subplots()
    manifold.scatter(axes, codes, y, data.class_names)
    axes.set(title="codes of validation data", aspect="equal")
    return figure
