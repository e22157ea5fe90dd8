"""From one example to another through latent space: the path, its pictures, and an animation of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vaeflow.errors import VaeflowError, check_positive
from vaeflow.figures.images import blocks_of_tiles, limits_of, mosaic, show, tiles
from vaeflow.figures.plane import Plane, show_plane
from vaeflow.figures.streaming import streamed
from vaeflow.figures.style import WIDTH, literal, styled
from vaeflow.latents import LatentSpace

Method = Literal["linear", "spherical"]
Along = Callable[[Tensor, Tensor, Tensor], Tensor]


def linear(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """(1 − t) a + t b, exactly a at 0 and b at 1."""
    return (1 - t) * a + t * b


def spherical(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """[sin((1 − t) ω) a + sin(t ω) b] / sin ω along the great circle between vectors ``(..., features)`` at an angle ω,
    exactly a at 0 and b at 1.

    In many dimensions nearly all of N(0, I) lies close to a sphere, which straight lines leave. Vectors that have no
    angle, since they are parallel, opposite or zero, are joined by a line.

    Source: Shoemake 1985, "Animating rotation with quaternion curves"; White 2016, arXiv 1609.04468.

    >>> a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    >>> spherical(a, b, torch.tensor([0.5]))
    tensor([0.7071, 0.7071])
    """
    norms = [v.norm(dim=-1, keepdim=True) for v in (a, b)]
    unit_a, unit_b = (v / norm.clamp(min=1e-30) for v, norm in zip((a, b), norms, strict=True))
    omega = 2 * torch.atan2((unit_a - unit_b).norm(dim=-1, keepdim=True), (unit_a + unit_b).norm(dim=-1, keepdim=True))
    sin = omega.sin()
    curved = (sin.abs() > 1e-4) & (norms[0] > 0) & (norms[1] > 0)
    safe = torch.where(curved, sin, 1.0)
    arc = ((1 - t) * omega).sin() / safe * a + (t * omega).sin() / safe * b
    return torch.where(curved, arc, linear(a, b, t))


def path(a: Tensor, b: Tensor, t: Tensor, space: LatentSpace, method: Method, levels: Sequence[str] = ()) -> Tensor:
    """Codes between codes a and b ``(..., code_features)``, each level on a path of its own.

    Args:
        t: how far, 0 at a and 1 at b; broadcasts against the codes.
        levels: that move, by name, all of them by default; the others stay as they are in a.
    """
    unknown = [level for level in levels if level not in space.slices]
    if unknown:
        raise VaeflowError(f"there is no level {unknown[0]} in this latent space: it has {', '.join(space.slices)}.")
    parts = []
    for name, part in space.slices.items():
        if levels and name not in levels:
            parts.append(a[..., part].expand(torch.broadcast_shapes(a[..., part].shape, t.shape)))
        elif method == "spherical" and name not in space.straight:
            parts.append(spherical(a[..., part], b[..., part], t))
        else:
            parts.append(linear(a[..., part], b[..., part], t))
    return torch.cat(parts, dim=-1)


@dataclass(frozen=True)
class Interpolation:
    """Paths through latent space, and what lies on them.

    Args:
        ends: the examples between which they go: ``(pairs, 2, *shape)``, or ``(2, 2, *shape)`` of corners.
        codes: ``(rows, columns, code_features)``.
        x: what is decoded from them, ``(rows, columns, *shape)``.
        corners: rows and columns both are directions of one path, between four corners.
        every: how many columns there are from one that the picture shows to the next.
    """

    ends: Tensor
    codes: Tensor
    x: Tensor
    corners: bool = False
    every: int = 1

    def arrays(self) -> dict[str, np.ndarray]:
        """For a ``.npz``: ``ends``, ``codes``, ``x``, and ``t`` of the columns."""
        t = np.linspace(0, 1, self.codes.shape[1])
        return {"ends": self.ends.numpy(), "codes": self.codes.numpy(), "x": self.x.numpy(), "t": t}


def interpolate(
    model: Any,
    space: LatentSpace,
    x: Tensor,
    y: Tensor,
    steps: int = 11,
    method: Method = "linear",
    levels: Sequence[str] = (),
    corners: bool = False,
    frames: int = 4,
    rows: int = 256,
) -> Interpolation:
    """Paths from every first to every second of the examples ``(2 pairs, *shape)``, or between four of them.

    Args:
        y: labels, ``(2 pairs,)``. The context of a class-conditional model moves along a straight line.
        steps: columns of the picture, both ends counted.
        levels: that move; see :func:`path`.
        corners: a square between four examples, the first two above, instead of pairs.
        frames: of the animation from one column to the next; corners have none between.
        rows: decoded at once.
    """
    if steps < 2:
        raise VaeflowError(f"steps is {steps}, expected at least 2, the two ends.")
    frames = 1 if corners else frames
    check_positive(frames=frames)
    if len(x) != 4 and corners:
        raise VaeflowError(f"corners are four examples, but there are {len(x)}.")
    if len(x) % 2 or not len(x):
        raise VaeflowError(f"there are {len(x)} examples, expected pairs of a first and a last.")
    context = model.context_of(y.to(model.device))
    context = None if context is None else context.cpu()
    codes = streamed(space.encode, x, context, device=model.device, rows=rows, what="encoding")
    t = torch.linspace(0, 1, (steps - 1) * frames + 1, dtype=codes.dtype)

    def between(ends: Tensor, along: Along) -> Tensor:
        """(2 pairs, features) → (rows, columns, features)"""
        if not corners:
            return along(ends[0::2, None], ends[1::2, None], t[:, None])
        left, right = (along(ends[i], ends[i + 2], t[:, None]) for i in (0, 1))
        return along(left[:, None], right[:, None], t[:, None])

    points = between(codes, lambda a, b, t: path(a, b, t, space, method, levels))
    contexts = None if context is None else between(context, linear).flatten(0, 1)
    decoded = streamed(space.decode, points.flatten(0, 1), contexts, device=model.device, rows=rows, what="decoding")
    return Interpolation(x.unflatten(0, (-1, 2)), points, decoded.unflatten(0, points.shape[:2]), corners, frames)


@styled
def draw(interpolation: Interpolation, title: str, levels: int | None, plane: Plane | None = None) -> Figure:
    """The picture of an interpolation: a row for each pair, the examples themselves at both ends; or the square.

    Args:
        levels: of the data.
        plane: of data in the plane, whose paths are drawn there.
    """
    if plane is not None:
        return _in_the_plane(interpolation, title, plane)
    limits = limits_of(interpolation.ends, levels)
    if interpolation.corners:
        page = mosaic(tiles(interpolation.x, limits))
        figure = Figure(figsize=(0.75 * WIDTH, 0.75 * WIDTH * len(page) / page.shape[1] + 0.6))
        axes = figure.subplots()
        show(axes, page)
        axes.set(title=literal(title), xlabel="left to right: $t$ from 0 to 1", ylabel="top to bottom: $s$ from 0 to 1")
        return figure
    shown = tiles(interpolation.x[:, :: interpolation.every], limits)
    ends = tiles(interpolation.ends, limits)
    t = [f"{t:.2g}" for t in np.linspace(0, 1, shown.shape[1])]
    return blocks_of_tiles(
        [ends[:, :1], shown, ends[:, 1:]],
        [["example"], t, ["example"]],
        title,
        "$t$, from the code of the left example to that of the right",
    )


def animation(interpolation: Interpolation, levels: int | None) -> list[np.ndarray]:
    """The pictures of an animation, ``(height, width, 3)`` of uint8: all rows beside one another at every t; of a
    square, a walk round its four sides."""
    limits = limits_of(interpolation.ends, levels)
    pictures = tiles(interpolation.x, limits)
    if interpolation.corners:
        last = len(pictures) - 1
        corners = [(0, 0), (0, last), (last, last), (last, 0), (0, 0)]
        walk = [
            (i + k * ((j > i) - (j < i)), m + k * ((n > m) - (n < m)))
            for (i, m), (j, n) in pairwise(corners)
            for k in range(last)
        ]
        return [mosaic(pictures[None, i, None, j], smallest=128) for i, j in walk]
    pairs = len(pictures)
    columns = next(c for c in range(min(pairs, 8), 0, -1) if pairs % c == 0)
    return [
        mosaic(pictures[:, k].reshape(pairs // columns, columns, *pictures.shape[2:]), smallest=96)
        for k in range(pictures.shape[1])
    ]


def _in_the_plane(interpolation: Interpolation, title: str, plane: Plane) -> Figure:
    """Paths between points of the plane, as they look in the plane."""
    figure = Figure(figsize=(0.65 * WIDTH, 0.6 * WIDTH))
    axes = figure.subplots()
    show_plane(axes, plane)
    x = interpolation.x.numpy()
    for line in (*x, *(x.swapaxes(0, 1) if interpolation.corners else ())):
        axes.plot(*line.T, color="0.7", lw=1, zorder=1)
    t = np.broadcast_to(np.linspace(0, 1, x.shape[1]), x.shape[:2])
    shown = axes.scatter(x[..., 0].ravel(), x[..., 1].ravel(), c=t.ravel(), s=8, zorder=2)
    axes.plot(*interpolation.ends.flatten(0, 1).T.numpy(), "o", mfc="none", mec="black", ms=8, zorder=3)
    axes.set_title(literal(title))
    figure.colorbar(shown, ax=axes, label="$t$")
    return figure
