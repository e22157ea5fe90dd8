"""Densities of the plane."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from vaeflow.estimate import log_likelihood
from vaeflow.figures.style import NAME_LENGTH, WIDTH, headline, literal, styled
from vaeflow.noise import Noise


@styled
@torch.no_grad()
def draw(model: Any, data: Any, points: int = 200, title: str | None = None) -> Figure:
    """p(x) of a model of the plane on a grid, beside the data's own density where it is known, or a histogram of them.
    Both in one scale of colours."""
    (left, right), (bottom, top) = data.window()
    axis_1, axis_2 = torch.linspace(left, right, points), torch.linspace(bottom, top, points)
    plane = torch.cartesian_prod(axis_1, axis_2).to(model.device, model.dtype)
    num_samples = min(64, model.evaluation_samples)
    noise = Noise().at(torch.arange(len(plane), device=model.device))
    estimate = log_likelihood(model, plane, noise, num_samples, rows=4_000)
    ours = estimate.log_likelihood.exp().view(points, points).T.float().cpu().numpy()
    figure = Figure(figsize=(WIDTH, 0.5 * WIDTH))
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    extent = (left, right, bottom, top)
    log_p = data.log_density(plane)
    if log_p is None:
        x_1, x_2 = data.splits["val"][0].double().T.numpy()
        theirs, *_ = np.histogram2d(x_1, x_2, bins=80, range=[extent[:2], extent[2:]], density=True)
        theirs, data_name = theirs.T, f"data ({data.label})"
    else:
        theirs, data_name = log_p.exp().view(points, points).T.float().cpu().numpy(), data.label
    bound = f", a bound: {model.kind}, K = {num_samples}" if num_samples > 1 else ""
    headline(figure, (title or type(model).__name__) + bound)
    for ax, image, name in zip(axes, (theirs, ours), (data_name, "model"), strict=True):
        shown = ax.imshow(image, origin="lower", extent=extent, aspect="auto", vmin=0, vmax=np.quantile(theirs, 0.999))
        ax.set(title=literal(name, NAME_LENGTH), xlabel="$x_1$", ylabel="$x_2$", box_aspect=1)
    figure.colorbar(shown, ax=axes, label="density")
    return figure
