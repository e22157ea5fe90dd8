"""Images of any number of channels as pixels, and many of them side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vaeflow.errors import VaeflowError
from vaeflow.figures.style import WIDTH, literal

GAP = 2
GREY = 128
LARGEST = 2048
Limits = tuple[float, float]


def is_drawable(shape: tuple[int, ...]) -> bool:
    """Whether there is a picture of data of a shape: of images, and of points of the plane."""
    return len(shape) == 3 or shape == (2,)


def check_drawable(shape: tuple[int, ...]) -> None:
    """Raise a :class:`VaeflowError` unless there is a picture of such data."""
    if not is_drawable(shape):
        raise VaeflowError(
            f"there is no picture of data of shape {shape}, only of images and of points of the plane: "
            "`interpolate.py`, and `sample.py --npz`, write numbers."
        )


def limits_of(images: Tensor, levels: int | None) -> Limits:
    """The values that are shown black and white: of integers the first and the last, else the range of these images,
    as far as they are finite."""
    if levels is not None:
        return 0.0, float(levels - 1)
    low, high = images.min().item(), images.max().item()
    if not (math.isfinite(low) and math.isfinite(high)):
        finite = images[images.isfinite()]
        low, high = (finite.min().item(), finite.max().item()) if len(finite) else (0.0, 1.0)
    return low, high


def tiles(images: Tensor, limits: Limits) -> np.ndarray:
    """Images ``(..., channels, height, width)`` → pixels ``(..., height, width, 3)`` of uint8.

    Three channels are red, green and blue; any others are shown in grey beside one another, which widens the tile. NaN
    is black.
    """
    low, high = limits
    x = ((images.detach().cpu().float() - low) / max(high - low, 1e-9)).nan_to_num(0).clamp(0, 1)
    x = x.mul(255).round().to(torch.uint8)
    if x.shape[-3] == 3:
        return x.movedim(-3, -1).numpy()
    return x.movedim(-3, -2).flatten(-2).unsqueeze(-1).expand(*x.shape[:-3], x.shape[-2], -1, 3).numpy()


def mosaic(pictures: np.ndarray, smallest: int = 32) -> np.ndarray:
    """Tiles ``(rows, columns, height, width, 3)`` side by side, ``(height, width, 3)``, small ones enlarged.

    Args:
        smallest: edge in pixels that every tile has at least, where that makes the page no wider than 2,048.
    """
    _, columns, height, width, _ = pictures.shape
    zoom = max(1, min(-(-smallest // min(height, width)), LARGEST // (columns * width)))
    pictures = pictures.repeat(zoom, axis=2).repeat(zoom, axis=3)
    framed = np.pad(pictures, ((0, 0), (0, 0), (GAP, 0), (GAP, 0), (0, 0)), constant_values=GREY)
    page = np.concatenate(np.concatenate(framed, axis=1), axis=1)
    return np.pad(page, ((0, GAP), (0, GAP), (0, 0)), constant_values=GREY)


def grid(images: Tensor, limits: Limits, columns: int) -> np.ndarray:
    """Images ``(N, channels, height, width)`` in rows of so many, the last row filled up with grey."""
    pictures = tiles(images, limits)
    rows = -(-len(pictures) // columns)
    missing = np.full((rows * columns - len(pictures), *pictures.shape[1:]), GREY, np.uint8)
    return mosaic(np.concatenate([pictures, missing]).reshape(rows, columns, *pictures.shape[1:]))


def rows_in_turn(first: Tensor, second: Tensor, limits: Limits, columns: int = 16) -> np.ndarray:
    """Images ``(N, channels, height, width)`` in rows, and below each row that of their counterparts."""
    columns = min(columns, len(first))
    rows = [part[i : i + columns] for i in range(0, len(first), columns) for part in (first, second)]
    return np.concatenate([grid(row, limits, columns) for row in rows])


def show(axes: Axes, page: np.ndarray) -> None:
    """A page of tiles without the marks of axes."""
    axes.imshow(page)
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def blocks_of_tiles(blocks: Sequence[np.ndarray], names: Sequence[Sequence[str]], title: str, label: str) -> Figure:
    """Blocks of tiles ``(rows, columns, height, width, 3)`` beside one another, a gap between them.

    Args:
        names: of the columns of each block, written below them.
        label: of the axis that the columns are on.
    """
    pages = [mosaic(block) for block in blocks]
    gap = np.full((len(pages[0]), pages[0].shape[1] // blocks[0].shape[1] // 3, 3), 255, np.uint8)
    page = np.concatenate([part for one in pages for part in (one, gap)][:-1], axis=1)
    figure = Figure(figsize=(WIDTH, WIDTH * len(page) / page.shape[1] + 0.6))
    axes = figure.subplots()
    show(axes, page)
    places: list[float] = []
    shown: list[str] = []
    left = 0
    for one, texts in zip(pages, names, strict=True):
        tile = one.shape[1] / len(texts)
        each = -(-len(texts) // 14)
        places += [left + (i + 0.5) * tile for i in range(0, len(texts), each)]
        shown += texts[::each]
        left += one.shape[1] + gap.shape[1]
    axes.set_xticks(places, shown)
    axes.set(title=literal(title), xlabel=label)
    return figure
