"""Layer by layer: a flow pulls data to noise, and noise to data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from vaeflow.figures.images import limits_of, mosaic, show, tiles
from vaeflow.figures.plane import Plane
from vaeflow.figures.streaming import progress
from vaeflow.figures.style import WIDTH, headline, styled

ROUND = LinearSegmentedColormap.from_list("round", ["#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#3f90da"])
"""Colours of angles, which tell where a point started."""


@torch.no_grad()
def layers(model: Any, z: Tensor, y: Tensor, columns: int = 6, rows: int = 256) -> tuple[Tensor, list[int], int]:
    """Values ``(columns, n, *shape)`` on the way from codes ``(n, code_features)`` to data, evenly chosen among all,
    both ends included; how many layers each has passed; and how many there are.

    Args:
        y: labels ``(n,)``.
        columns: at most, at least 2.
        rows: that go through the model at once.
    """
    parts, chosen, last = [], list[int](), 0
    with progress(len(z), "layers") as bar:
        for index in torch.arange(len(z)).split(rows):
            context = model.context_of(y[index].to(model.device))
            values = list(model.trajectory(z[index].to(model.device), context))
            last = len(values) - 1
            chosen = sorted({round(i) for i in np.linspace(0, last, min(columns, last + 1))})
            parts.append(torch.stack([values[i].cpu() for i in chosen]))
            bar.update(len(index))
    return torch.cat(parts, dim=1), chosen, last


@styled
def draw(
    to_noise: Tensor,
    to_data: Tensor,
    passed: list[int],
    last: int,
    title: str,
    levels: int | None,
    plane: Plane | None,
) -> Figure:
    """Above, data on their way to noise; below, noise on its way to data.

    Args:
        to_noise, to_data: the same number of values each, ``(columns, batch, *shape)``, from code to data.
        passed: how many layers each column is away from the code; ``last`` for data.
        plane: of data in the plane.
    """
    names = ["$z$" if k == 0 else "$x$" if k == last else f"layer {k}" for k in passed]
    if plane is None:
        return _images(to_noise, to_data, names, title, levels)
    columns = len(names)
    figure = Figure(figsize=(WIDTH, 2 * WIDTH / columns + 0.9))
    panels = figure.subplots(2, columns, sharex=True, sharey=True)
    seen = torch.cat([to_noise, to_data]).flatten(0, 1)
    seen = seen[seen.isfinite().all(-1)]
    if not len(seen):
        seen = torch.tensor([plane.across, plane.up]).T
    low, high = (torch.quantile(seen[:: len(seen) // 100_000 + 1], q, dim=0).tolist() for q in (0.005, 0.995))
    window = [(min(low[i], ends[0]), max(high[i], ends[1])) for i, ends in enumerate((plane.across, plane.up))]
    rows = ((to_noise.flip(0), names[::-1], "data → noise"), (to_data, names, "noise → data"))
    for row, (values, row_names, label) in zip(panels, rows, strict=True):
        start = values[0].numpy()
        with np.errstate(invalid="ignore"):  # of infinities
            centred = start - np.median(start, axis=0)
        angle = np.arctan2(centred[:, 1], centred[:, 0])
        for axes, value, name in zip(row, values, row_names, strict=True):
            axes.scatter(value[:, 0], value[:, 1], s=2, c=angle, cmap=ROUND, vmin=-math.pi, vmax=math.pi, lw=0)
            axes.set_title(name)
            axes.set(xlim=window[0], ylim=window[1], box_aspect=1)
            axes.locator_params(nbins=3)
        row[0].set_ylabel(f"{label}\n$x_2$")
    for axes in panels[1]:
        axes.set_xlabel("$x_1$")
    headline(figure, title)
    return figure


def _images(to_noise: Tensor, to_data: Tensor, names: list[str], title: str, levels: int | None) -> Figure:
    limits = limits_of(to_noise[-1], levels)
    above, below = (tiles(values.movedim(0, 1), limits) for values in (to_noise.flip(0), to_data))
    columns = len(names)
    pages = [mosaic(part) for part in (above, below)]
    figure = Figure(figsize=(WIDTH, 2 * WIDTH * len(pages[0]) / pages[0].shape[1] + 1.1))
    for axes, page, row_names, label in zip(
        figure.subplots(2, 1), pages, (names[::-1], names), ("data → noise", "noise → data"), strict=True
    ):
        show(axes, page)
        tile = page.shape[1] / columns
        axes.set_xticks([(i + 0.5) * tile for i in range(columns)], row_names)
        axes.set_ylabel(label)
    headline(figure, title)
    return figure
