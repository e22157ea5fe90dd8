"""Pictures for TensorBoard while a model trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from vaeflow.errors import check_positive
from vaeflow.evaluation.chart import pixels
from vaeflow.evaluation.log_likelihood import log_likelihood
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
        if trainer.is_global_zero and isinstance(trainer.logger, TensorBoardLogger):
            training = pl_module.training
            pl_module.eval()
            for tag, picture in draw(pl_module, trainer.datamodule, self.count).items():  # type: ignore[attr-defined]
                trainer.logger.experiment.add_image(tag, picture, trainer.global_step)
            pl_module.train(training)


@torch.no_grad()
def draw(model: Any, data: Any, count: int = 64) -> dict[str, Tensor]:
    """All pictures of a model, ``(3, height, width)`` in [0, 1], by tag."""
    size = min(count, len(data.splits["val"][0]))
    x, y = (t.to(model.device) for t in data.examples("val", torch.arange(size)))
    x = x.to(model.dtype)
    context = model.context_of(y)
    pictures = {}
    if len(model.shape) == 3 and model.shape[0] in (1, 3):
        columns = model.num_classes if model.context_features else 8
        whole_rows = count - count % columns or count
        labels = torch.arange(whole_rows, device=model.device) % columns
        samples = model.sample(whole_rows, Noise(), model.context_of(labels), mean=True)
        pictures["samples"] = grid(samples, model.levels, columns)
    if "samples" in pictures and model.latent_slices:
        again = model.decode(model.encode(x, context), context)
        rows = [torch.cat([x[i : i + 16], again[i : i + 16]]) for i in range(0, min(32, size - size % 16) or size, 16)]
        pictures["reconstructions"] = torch.cat([grid(row, model.levels, len(row) // 2) for row in rows], dim=1)
        pictures["interpolation"] = grid(_interpolation(model, x, context), model.levels, 10)
    if max((s.stop for s in model.latent_slices.values()), default=0) == 2 and model.dimension > 2:
        pictures["latents"] = _latents(model, data)
    if model.shape == (2,) and model.levels is None and not model.context_features:
        pictures["density"] = density(model, data)
    return pictures


def grid(images: Tensor, levels: int | None, columns: int) -> Tensor:
    """Images ``(N, channels, height, width)`` side by side, small ones enlarged, on [0, 1]: ``(3, height, width)``."""
    from torchvision.utils import make_grid

    images = images.float().cpu()
    if levels is not None:
        images = images / (levels - 1)
    else:
        low, high = images.min(), images.max()
        images = (images - low) / (high - low).clamp(min=1e-9)
    zoom = max(1, 32 // images.shape[-1])
    images = images.clamp(0, 1).repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
    return make_grid(images, nrow=columns, padding=2, pad_value=0.5)


def _interpolation(model: Any, x: Tensor, context: Tensor | None) -> Tensor:
    """Five rows, each from one validation image to the next in ten equal steps of the code, and of the context."""
    codes = model.encode(x[:10], None if context is None else context[:10])
    rows = []
    for i in range(0, len(codes) - 1, 2):
        weights = torch.linspace(0, 1, 10, dtype=codes.dtype, device=codes.device).unsqueeze(-1)
        between = None if context is None else (1 - weights) * context[i] + weights * context[i + 1]
        rows.append(model.decode((1 - weights) * codes[i] + weights * codes[i + 1], between))
    return torch.cat(rows)


def _latents(model: Any, data: Any) -> Tensor:
    """Codes of validation data in the plane, coloured by label."""
    x, y = data.examples("val", torch.arange(min(2000, len(data.splits["val"][0]))))
    context = model.context_of(y.to(model.device))
    codes = model.encode(x.to(model.device, model.dtype), context).float().cpu().numpy()
    figure = Figure(figsize=(5.6, 5), dpi=100, layout="constrained")
    axes = figure.subplots()
    labels = range(data.num_classes or 1)
    for label in labels:
        z_1, z_2 = codes[y.numpy() == label].T
        axes.scatter(z_1, z_2, s=8, color=f"C{label}", label=str(label))
    if data.num_classes:
        axes.legend(title="label", loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    axes.set(xlabel="$z_1$", ylabel="$z_2$", title="validation data in latent space", aspect="equal")
    return pixels(figure)


@torch.no_grad()
def density(model: Any, data: Any, points: int = 200) -> Tensor:
    """p(x) of a model of the plane on a grid, beside the data's own density where it is known, or a histogram of them.
    Both in one scale of colours."""
    (left, right), (bottom, top) = data.window()
    axis_1, axis_2 = torch.linspace(left, right, points), torch.linspace(bottom, top, points)
    plane = torch.cartesian_prod(axis_1, axis_2).to(model.device, model.dtype)
    estimate = log_likelihood(model, plane, Noise().at(torch.arange(len(plane), device=model.device)),
                              min(64, model.evaluation_samples), rows=4_000)  # fmt: skip
    ours = estimate.log_likelihood.exp().view(points, points).T.float().cpu().numpy()
    figure = Figure(figsize=(9, 4.4), dpi=100, layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    extent = (left, right, bottom, top)
    log_p = data.log_density(plane)
    if log_p is None:
        x_1, x_2 = data.splits["val"][0].double().T.numpy()
        theirs, *_ = np.histogram2d(x_1, x_2, bins=80, range=[extent[:2], extent[2:]], density=True)
        theirs, title = theirs.T, "data"
    else:
        theirs, title = log_p.exp().view(points, points).T.float().cpu().numpy(), data.label
    for ax, image, name in zip(axes, (theirs, ours), (title, type(model).__name__), strict=True):
        shown = ax.imshow(image, origin="lower", extent=extent, aspect="auto", vmin=0, vmax=np.quantile(theirs, 0.999))
        ax.set(title=name, xlabel="$x_1$", ylabel="$x_2$", box_aspect=1)
    figure.colorbar(shown, ax=axes, label="density")
    return pixels(figure)
