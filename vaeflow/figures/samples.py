"""Samples, reconstructions, and the training examples that lie nearest to samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vaeflow.figures.images import Limits, grid, limits_of, row_of_tiles, show, tiles
from vaeflow.figures.plane import Plane, show_plane
from vaeflow.figures.streaming import progress, streamed
from vaeflow.figures.style import WIDTH, styled
from vaeflow.noise import Noise


def sample(
    model: Any,
    n: int,
    noise: Noise,
    y: Tensor | None = None,
    temperature: float = 1.0,
    mean: bool = False,
    rows: int = 256,
) -> Tensor:
    """n samples ``(n, *shape)`` on the CPU, drawn in batches of ``rows``; the batch changes none of them.

    Args:
        y: labels ``(n,)`` of a class-conditional model.
        temperature, mean: see the model's own ``sample``.
    """

    def draw(index: Tensor, y: Tensor | None) -> Tensor:
        context = None if y is None else model.context_of(y)
        return model.sample(len(index), noise.at(index), context, temperature, mean)

    return streamed(draw, torch.arange(n), y, device=model.device, rows=rows, what="sampling")


@torch.no_grad()
def nearest(x: Tensor, data: Any, count: int = 1, rows: int = 2048) -> tuple[Tensor, Tensor]:
    """The training examples nearest to each x ``(n, *shape)``, by Euclidean distance in the data's units: distances and
    indices in the training split, ``(n, count)`` each, the nearest first.

    Args:
        rows: training examples that are compared at once.
    """
    flat = x.flatten(1).double()
    size = len(data.splits["train"][0])
    distances = torch.full((len(x), 0), math.inf, dtype=torch.float64)
    indices = torch.zeros(len(x), 0, dtype=torch.int64)
    with progress(size, "comparing with training data") as bar:
        for index in torch.arange(size).split(rows):
            examples = data.examples("train", index)[0].flatten(1).double()
            distances = torch.cat([distances, torch.cdist(flat, examples)], dim=1)
            indices = torch.cat([indices, index.expand(len(x), -1)], dim=1)
            distances, order = distances.topk(min(count, distances.shape[1]), largest=False)
            indices = indices.gather(1, order)
            bar.update(len(index))
    return distances, indices


@styled
def draw_samples(x: Tensor, title: str, levels: int | None, limits: Limits | None, plane: Plane | None) -> Figure:
    """Samples ``(n, *shape)`` in a square grid; points of the plane where they lie."""
    if plane is not None:
        return _scatter({"samples": x}, title, plane)
    height, width = tiles(x[0], (0.0, 1.0)).shape[:2]
    page = grid(x, levels, math.ceil(math.sqrt(len(x) * height / width)), limits)
    figure = Figure(figsize=(0.75 * WIDTH, 0.75 * WIDTH * len(page) / page.shape[1] + 0.4))
    axes = figure.subplots()
    show(axes, page)
    axes.set_title(title)
    return figure


@styled
def draw_reconstructions(x: Tensor, again: Tensor, title: str, levels: int | None, plane: Plane | None) -> Figure:
    """Examples ``(n, *shape)``, and below each its reconstruction, sixteen to a row."""
    if plane is not None:
        return _scatter({"examples": x, "reconstructions": again}, title, plane)
    limits = limits_of(x, levels)
    columns = min(16, len(x))
    rows = [part[i : i + columns] for i in range(0, len(x), columns) for part in (x, again)]
    page = np.concatenate([grid(row, levels, columns, limits) for row in rows])
    figure = Figure(figsize=(WIDTH, WIDTH * len(page) / page.shape[1] + 0.5))
    axes = figure.subplots()
    show(axes, page)
    height = page.shape[0] / len(rows)
    axes.set_yticks([(i + 0.5) * height for i in range(len(rows))], ["example", "decoded"] * (len(rows) // 2))
    axes.set_title(title)
    return figure


@styled
def draw_neighbours(x: Tensor, neighbours: Tensor, title: str, levels: int | None, limits: Limits) -> Figure:
    """Samples ``(n, *shape)``, and right of each the training examples ``(n, count, *shape)`` nearest to it."""
    half = -(-len(x) // 2)
    count = neighbours.shape[1]
    blocks, names = [], []
    for part in (slice(0, half), slice(half, None)):
        blocks += [tiles(x[part, None], limits), tiles(neighbours[part], limits)]
        names += [["sample"], [str(k + 1) for k in range(count)]]
    if len(x) % 2:
        blocks[2:] = [np.concatenate([b, np.full_like(b[:1], 255)]) for b in blocks[2:]]
    if len(x) == 1:
        blocks, names = blocks[:2], names[:2]
    return row_of_tiles(blocks, names, title, "the nearest training examples, the nearest first")


@styled
def draw_side_by_side(samples: dict[str, Tensor], title: str, levels: int | None) -> Figure:
    """Samples ``(n, *shape)`` of several models, each a square grid below its name."""
    figure = Figure(figsize=(WIDTH, WIDTH / len(samples) + 0.6))
    panels = figure.subplots(1, len(samples), squeeze=False)[0]
    for axes, (name, x) in zip(panels, samples.items(), strict=True):
        show(axes, grid(x, levels, math.ceil(math.sqrt(len(x)))))
        axes.set_title(name)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def _scatter(sets: dict[str, Tensor], title: str, plane: Plane) -> Figure:
    figure = Figure(figsize=(0.6 * WIDTH, 0.6 * WIDTH))
    axes = figure.subplots()
    show_plane(axes, plane)
    for (name, x), marker in zip(sets.items(), ("o", "x"), strict=False):
        axes.scatter(x[:, 0], x[:, 1], s=4 if len(sets) == 1 else 24, marker=marker, label=name, lw=1, zorder=2)
    axes.legend(loc="upper right")
    axes.set_title(title)
    return figure


def limits_for(data: Any) -> Limits:
    """What is black and what is white in pictures of samples: as in the data."""
    return limits_of(data.splits["train"][0][:10_000], data.levels)
