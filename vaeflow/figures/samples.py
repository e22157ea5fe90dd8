"""Samples, reconstructions, and the training examples that lie nearest to samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vaeflow.figures.images import Limits, blocks_of_tiles, grid, limits_of, rows_in_turn, show, tiles
from vaeflow.figures.plane import Plane, show_plane
from vaeflow.figures.streaming import progress, streamed
from vaeflow.figures.style import NAME_LENGTH, WIDTH, headline, literal, styled
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


def reconstruct(model: Any, x: Tensor, y: Tensor, noise: Noise, temperature: float = 0.0, rows: int = 256) -> Tensor:
    """Examples ``(n, *shape)`` encoded and decoded again, in batches of ``rows``, on the CPU.

    Args:
        y: labels ``(n,)``.
        temperature: of the draws from q(z|x); 0 for none, see the model's own ``reconstruct``.
    """

    def again(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        return model.reconstruct(x, noise.at(index), model.context_of(y), temperature)

    return streamed(again, x, y, torch.arange(len(x)), device=model.device, rows=rows, what="decoding")


@torch.no_grad()
def nearest(x: Tensor, data: Any, count: int = 1, rows: int = 2048) -> tuple[Tensor, Tensor]:
    """The training examples nearest to each x ``(n, *shape)``, by Euclidean distance in the data's units: distances and
    indices in the training split, ``(n, count)`` each, the nearest first.

    Args:
        rows: of x, and of training examples, that are compared at once.
    """
    size = len(data.splits["train"][0])
    distances, indices = [], []
    with progress(len(x), "comparing with training data") as bar:
        for part in x.flatten(1).double().split(rows):
            least, where = part.new_zeros(len(part), 0), torch.zeros(len(part), 0, dtype=torch.int64)
            for index in torch.arange(size).split(rows):
                examples = data.examples("train", index)[0].flatten(1).double()
                least = torch.cat([least, torch.cdist(part, examples)], dim=1)
                where = torch.cat([where, index.expand(len(part), -1)], dim=1)
                least, order = least.topk(min(count, least.shape[1]), largest=False)
                where = where.gather(1, order)
            distances.append(least)
            indices.append(where)
            bar.update(len(part))
    return torch.cat(distances), torch.cat(indices)


@styled
def draw_samples(x: Tensor, title: str, limits: Limits, plane: Plane | None) -> Figure:
    """Samples ``(n, *shape)`` in a square grid; points of the plane where they lie."""
    if plane is not None:
        return _scatter({"samples": x}, title, plane)
    height, width = tiles(x[0], (0.0, 1.0)).shape[:2]
    page = grid(x, limits, math.ceil(math.sqrt(len(x) * height / width)))
    figure = Figure(figsize=(0.75 * WIDTH, 0.75 * WIDTH * len(page) / page.shape[1] + 0.4))
    axes = figure.subplots()
    show(axes, page)
    axes.set_title(literal(title))
    return figure


@styled
def draw_reconstructions(x: Tensor, again: Tensor, title: str, levels: int | None, plane: Plane | None) -> Figure:
    """Examples ``(n, *shape)``, and below each its reconstruction, sixteen to a row."""
    if plane is not None:
        return _scatter({"examples": x, "reconstructions": again}, title, plane)
    page = rows_in_turn(x, again, limits_of(x, levels))
    figure = Figure(figsize=(WIDTH, WIDTH * len(page) / page.shape[1] + 0.5))
    axes = figure.subplots()
    show(axes, page)
    rows = 2 * -(-len(x) // 16)
    height = len(page) / rows
    axes.set_yticks([(i + 0.5) * height for i in range(rows)], ["example", "decoded"] * (rows // 2))
    axes.set_title(literal(title))
    return figure


@styled
def draw_neighbours(x: Tensor, neighbours: Tensor, title: str, limits: Limits) -> Figure:
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
    return blocks_of_tiles(blocks, names, title, "the nearest training examples, the nearest first")


@styled
def draw_side_by_side(samples: dict[str, Tensor], title: str, limits: Limits) -> Figure:
    """Samples ``(n, *shape)`` of several models, each a square grid below its name."""
    figure = Figure(figsize=(WIDTH, WIDTH / len(samples) + 0.6))
    panels = figure.subplots(1, len(samples), squeeze=False)[0]
    for axes, (name, x) in zip(panels, samples.items(), strict=True):
        show(axes, grid(x, limits, math.ceil(math.sqrt(len(x)))))
        axes.set_title("\n".join(literal(line, NAME_LENGTH) for line in name.splitlines()))
    headline(figure, title)
    return figure


def _scatter(sets: dict[str, Tensor], title: str, plane: Plane) -> Figure:
    figure = Figure(figsize=(0.6 * WIDTH, 0.6 * WIDTH))
    axes = figure.subplots()
    show_plane(axes, plane)
    beyond = 0
    for (name, x), marker in zip(sets.items(), ("o", "x"), strict=False):
        one = len(sets) == 1
        axes.scatter(x[:, 0], x[:, 1], s=3 if one else 24, marker=marker, label=name, lw=0 if one else 1, alpha=0.6)
        beyond += int((~plane.holds(x)).sum())
    axes.legend(loc="upper right", frameon=True, markerscale=2)
    axes.set_title(literal(f"{title}, {beyond} outside" if beyond else title), wrap=True)
    return figure


def limits_for(data: Any) -> Limits:
    """What is black and what is white in pictures of samples: as in the data."""
    return limits_of(data.splits["train"][0][:10_000], data.levels)
