"""A latent space of two dimensions: what is decoded from all over it, and where the data lie in it.

Source: Kingma & Welling 2014, arXiv 1312.6114, figure 4 and appendix A.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vaeflow.errors import VaeflowError
from vaeflow.figures.images import GAP, Limits, mosaic, tiles
from vaeflow.figures.streaming import streamed
from vaeflow.figures.style import NAME_LENGTH, WIDTH, literal, styled
from vaeflow.latents import has_codes


def check_plane(model: Any) -> None:
    """Raise a :class:`VaeflowError` unless a model has codes of two numbers."""
    features = model.code_features if has_codes(model) else 0
    if features != 2:
        space = f"a latent space of {features} dimensions" if features else "no latent space"
        raise VaeflowError(
            f"{type(model).__name__} has {space}, expected one of two dimensions, such as that of --config vae_2d."
        )


def plane_of_codes(model: Any, points: int) -> Tensor:
    """Codes ``(points², 2)`` of the cells' middles of the unit square, cut into points × points, through the inverse
    of the prior's cumulative distribution, row by row. The first row is the highest z₂."""
    middles = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    u_2, u_1 = torch.meshgrid(middles.flip(0), middles, indexing="ij")
    u = torch.stack([u_1, u_2], dim=-1).flatten(0, 1).to(model.dtype)
    return streamed(model.icdf, u, device=model.device)


@styled
def draw(
    decoded: Tensor, codes: Tensor, y: Tensor, names: Sequence[str], limits: Limits, title: str, codes_title: str
) -> Figure:
    """The manifold beside the codes of data.

    Args:
        decoded: what lies at the codes of :func:`plane_of_codes`, ``(points², *shape)``.
        codes, y: of data, ``(N, 2)`` and labels ``(N,)``.
        names: of the labels.
    """
    points = round(len(decoded) ** 0.5)
    figure = Figure(figsize=(WIDTH, 0.5 * WIDTH))
    left, right = figure.subplots(1, 2)
    page = mosaic(tiles(decoded.unflatten(0, (points, points)), limits))
    left.imshow(page, aspect="auto")
    tile = [(size - GAP) / points for size in page.shape[:2]]
    shown = range(0, points, max(1, points // 6))
    left.set_xticks([(i + 0.5) * tile[1] for i in shown], [f"{(i + 0.5) / points:.2g}" for i in shown])
    left.set_yticks([(i + 0.5) * tile[0] for i in shown], [f"{1 - (i + 0.5) / points:.2g}" for i in shown])
    left.set(title=literal(title), xlabel="$u_1$, cumulative probability", ylabel="$u_2$", box_aspect=1)
    scatter(right, codes, y, names)
    right.set(title=literal(codes_title), box_aspect=1)
    return figure


def scatter(axes: Axes, codes: Tensor, y: Tensor, names: Sequence[str]) -> None:
    """Codes ``(N, 2)`` in the plane, coloured by label, each label's name where the middle of its codes is."""
    codes = codes.float()
    size = 60 / max(1.0, len(codes) ** 0.5)
    if not names:
        axes.scatter(codes[:, 0], codes[:, 1], s=max(2, size))
    for label, name in enumerate(names):
        of_label = codes[y == label]
        if len(of_label):
            axes.scatter(of_label[:, 0], of_label[:, 1], s=max(2, size), color=f"C{label % 10}", lw=0)
            z_1, z_2 = of_label.median(0).values.tolist()
            box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": f"C{label % 10}", "lw": 1}
            axes.annotate(
                literal(name, NAME_LENGTH),
                (z_1, z_2),
                ha="center",
                va="center",
                fontsize=9,
                fontweight="bold",
                bbox=box,
            )
    axes.set(xlabel="$z_1$", ylabel="$z_2$")
