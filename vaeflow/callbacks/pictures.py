"""Pictures for TensorBoard while a model trains."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from tqdm import tqdm

from vaeflow.callbacks.run import tensorboards
from vaeflow.errors import VaeflowError, check_positive
from vaeflow.figures import density_plot, manifold
from vaeflow.figures.images import grid, limits_of, rows_in_turn
from vaeflow.figures.interpolation import interpolate
from vaeflow.figures.samples import reconstruct
from vaeflow.figures.style import pixels, styled
from vaeflow.latents import has_codes
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
        self._failed = set[str]()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and self.every:
            self._validations += 1
            if self._validations % self.every == 0:
                self._show(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every and trainer.global_step > self._last_step:
            self._show(trainer, pl_module)

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw and write all pictures. A failing one is left out, since no picture may end a training; the model's
        modes and the random generators are left as they were."""
        self._last_step = trainer.global_step
        if not trainer.is_global_zero or not (loggers := tensorboards(trainer)):
            return
        modes = {module: module.training for module in pl_module.modules()}
        pl_module.eval()
        try:
            with isolate_rng(), self._warned("pictures"):
                for tag, make in pictures_of(pl_module, trainer.datamodule, self.count).items():  # type: ignore[attr-defined]
                    with self._warned(f"the picture {tag}"):
                        picture = make()
                        for logger in loggers:
                            logger.experiment.add_image(tag, picture, trainer.global_step, dataformats="HWC")
        finally:
            for module, training in modes.items():
                module.training = training

    @contextmanager
    def _warned(self, what: str) -> Iterator[None]:
        """Turns an error within it into a warning, the first time."""
        try:
            yield
        except Exception as error:
            if what not in self._failed:
                self._failed.add(what)
                reason = " ".join(str(error).split())[:300].removesuffix(".")
                reason = reason if isinstance(error, VaeflowError) else f"{type(error).__name__}: {reason}"
                tqdm.write(f"warning: cannot draw {what} ({reason}); training goes on without.", file=sys.stderr)


def draw(model: Any, data: Any, count: int = 64) -> dict[str, np.ndarray]:
    """All pictures of a model, ``(height, width, 3)`` of uint8, by tag."""
    return {tag: make() for tag, make in pictures_of(model, data, count).items()}


def pictures_of(model: Any, data: Any, count: int = 64) -> dict[str, Callable[[], np.ndarray]]:
    """What draws each of a model's pictures, by tag; none needs another, so that one may fail alone."""
    makers: dict[str, Callable[[Any, Any, int], np.ndarray]] = {}
    if len(model.shape) == 3:
        makers["samples"] = _samples
        if has_codes(model):
            makers["reconstructions"] = _reconstructions
            if min(count, len(data.splits["val"][0])) > 1:
                makers["interpolation"] = _interpolation
    if has_codes(model) and model.code_features == 2 and model.dimension > 2:
        makers["latents"] = lambda model, data, count: pixels(_latents(model, data))
    if model.shape == (2,) and model.levels is None and not model.context_features:
        makers["density"] = lambda model, data, count: pixels(density_plot.draw(model, data))
    return {tag: torch.no_grad()(functools.partial(make, model, data, count)) for tag, make in makers.items()}


def _examples(data: Any, most: int) -> tuple[Tensor, Tensor]:
    """The first of the validation images, and their labels."""
    return data.examples("val", torch.arange(min(most, len(data.splits["val"][0]))))


def _samples(model: Any, data: Any, count: int) -> np.ndarray:
    labels = torch.tensor(data.trained_classes() if model.context_features else [0] * 8, device=model.device)
    columns = len(labels)
    whole_rows = count - count % columns or count
    labels = labels[torch.arange(whole_rows, device=model.device) % columns]
    samples = model.sample(whole_rows, Noise(), model.context_of(labels), mean=True)
    return grid(samples, limits_of(_examples(data, count)[0], model.levels), columns)


def _reconstructions(model: Any, data: Any, count: int) -> np.ndarray:
    x, y = _examples(data, count)
    again = reconstruct(model, x[:32], y[:32], Noise())
    return rows_in_turn(x[:32], again, limits_of(x, model.levels))


def _interpolation(model: Any, data: Any, count: int) -> np.ndarray:
    x, y = _examples(data, count)
    even = min(10, len(x) - len(x) % 2)
    walk = interpolate(model, model.latent_spaces["z"], x[:even], y[:even], 10, frames=1)
    return grid(walk.x.flatten(0, 1), limits_of(x, model.levels), 10)


@styled
def _latents(model: Any, data: Any) -> Figure:
    """Codes of validation data in the plane, coloured by label."""
    x, y = _examples(data, 2000)
    codes = model.encode(x.to(model.device), model.context_of(y.to(model.device))).cpu()
    figure = Figure(figsize=(5.6, 5))
    axes = figure.subplots()
    manifold.scatter(axes, codes, y, data.class_names)
    axes.set(title="codes of validation data", aspect="equal")
    return figure
