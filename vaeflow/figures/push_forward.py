"""What planar flows do to a density, step after step (figure 1 of Rezende & Mohamed 2015, arXiv 1505.05770)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure

from vaeflow.bijections import Planar
from vaeflow.distributions import Distribution, FlowDensity, StandardNormal, Uniform
from vaeflow.figures.style import WIDTH, styled


@styled
@torch.no_grad()
def push_forward(steps: Sequence[int] = (1, 2, 10), seed: int = 0, points: int = 300) -> Figure:
    """A Gaussian and a uniform density, and what K random planar maps make of them, a column for each K.

    The maps of a smaller K are the first of those of a larger one.

    Args:
        steps: the K.
        seed: of the maps.
        points: of the grid, each way.
    """
    axis = torch.linspace(-4, 4, points)
    plane = torch.cartesian_prod(axis, axis)
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(max(steps), 5, generator=generator)
    maps[:, :2] *= 0.8  # u
    maps[:, 2:4] *= 1.7  # w
    bases = {"Gaussian": StandardNormal(2), "uniform": Uniform(2, low=-2, high=2)}
    figure = Figure(figsize=(WIDTH, 2 * WIDTH / (len(steps) + 1) + 0.6))
    panels = figure.subplots(len(bases), len(steps) + 1, sharex=True, sharey=True)
    for row, (name, base) in zip(panels, bases.items(), strict=True):
        for ax, k in zip(row, (0, *steps), strict=True):
            density: Distribution = base
            if k:
                density = FlowDensity(2, 0, functools.partial(Planar, steps=k), type(base))
                density.base = base
                density.flow.parameters_of_steps.copy_(maps[:k].flatten())  # type: ignore[operator]
            p = density.log_prob(plane).exp().view(points, points).T
            ax.imshow(p.numpy(), origin="lower", extent=(-4, 4, -4, 4), vmax=p.quantile(0.998).item(), vmin=0)
            ax.set_title(f"{name} base" if not k else f"K = {k}")
    for ax in panels[-1]:
        ax.set_xlabel("$x_1$")
    for ax in panels[:, 0]:
        ax.set_ylabel("$x_2$")
    return figure
