"""What a flow does to the posterior: q(z|x) of a few examples in a latent space of two dimensions, beside p(z|x).

Source: the pictures are those of Kingma et al. 2016, arXiv 1606.04934, figure 1; the exact posterior is added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from vaeflow.errors import VaeflowError
from vaeflow.figures.streaming import progress
from vaeflow.figures.style import NAME_LENGTH, WIDTH, headline, literal, styled
from vaeflow.noise import Noise

MASSES = (0.5, 0.9)
"""The contours hold so much of the probability."""


@dataclass(frozen=True)
class ModelPosteriors:
    """Of n examples under one model, all in nats.

    Args:
        name: of the model.
        samples: z ~ q(z|x), ``(num_samples, n, 2)``.
        prior_samples: z ~ p(z), ``(num_samples, 2)``.
        axis: of the grid, each way: ``(points,)``.
        q, p: log q(z|x) and log p(z|x) on the grid, ``(n, points, points)``, z₂ by rows.
        prior: log p(z) there.
        gap: KL(q(z|x) ‖ p(z|x)), ``(n,)``.
        nll: −log p(x), ``(n,)``.
    """

    name: str
    samples: Tensor
    prior_samples: Tensor
    axis: Tensor
    q: Tensor
    p: Tensor
    prior: Tensor
    gap: Tensor
    nll: Tensor


@torch.no_grad()
def posteriors(
    model: Any,
    x: Tensor,
    y: Tensor,
    name: str,
    num_samples: int = 2000,
    points: int = 161,
    half_width: float = 4.0,
    seed: int = 0,
    rows: int = 20_000,
) -> ModelPosteriors:
    """q(z|x), and p(z|x) = p(x, z)/p(x) with p(x) = ∫ p(x, z) dz by quadrature on the grid.

        KL(q(z|x) ‖ p(z|x)) = E_q[log q(z|x) − log p(x, z)] + log p(x).

    Where the likelihood is of integers with noise added, x + u, it is that of one u for each example.

    Args:
        x, y: examples ``(n, *shape)`` and labels.
        points: of the grid, each way, from −half_width to half_width.
        rows: pairs of a point and an example that are weighed at once.

    Raises:
        VaeflowError: if p(z|x) or q(z|x) reaches beyond the grid, or is narrower than its steps.
    """
    if model.context_features:
        raise VaeflowError("a class-conditional model has another prior for each class: take one that is not.")
    x, index = x.to(model.device), torch.arange(len(x), device=model.device)
    noise, q = Noise(seed), model.posterior_of(x)
    axis = torch.linspace(-half_width, half_width, points, dtype=model.dtype, device=model.device)
    z_2, z_1 = torch.meshgrid(axis, axis, indexing="ij")
    grid = torch.stack([z_1, z_2], dim=-1).flatten(0, 1).unsqueeze(1).expand(-1, len(x), -1)
    at_once = max(1, rows // len(x))

    def weighed(z: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x, z) and log p(z) of z ``(m, n, 2)``, ``(m, n)`` each. Points go along the batch, not along the
        samples, so that each example keeps its u."""
        repeated = x.repeat(len(z), *(1 for _ in model.shape))
        log_p, log_prior = model.log_joint(repeated, z.flatten(0, 1).unsqueeze(0), noise.at(index.repeat(len(z))))
        return (log_p + log_prior).view(len(z), -1), log_prior.view(len(z), -1)

    on_grid, drawn, ratios = [], [], []
    with progress(len(grid) + num_samples, name) as bar:
        for z in grid.split(at_once):
            on_grid.append(torch.stack([*weighed(z), q.log_prob(z)]))
            bar.update(len(z))
        for first in range(0, num_samples, at_once):
            z, log_q = q.rsample_with_log_prob(min(at_once, num_samples - first), noise.at(index).skip(first))
            drawn.append(z)
            ratios.append(log_q - weighed(z)[0])
            bar.update(len(z))
    samples, ratio = torch.cat(drawn), torch.cat(ratios).double()
    joint, log_prior, log_q = (part.double().T.unflatten(-1, (points, points)) for part in torch.cat(on_grid, dim=1))
    log_cell = 2 * math.log(2 * half_width / (points - 1))
    log_p_x = torch.logsumexp(joint, (1, 2)) + log_cell
    log_p = joint - log_p_x[:, None, None]
    _check_grid(log_p, log_q, samples, log_cell, half_width)
    uniform = noise.at(torch.arange(num_samples, device=model.device)).uniform("prior", 1, (2,))[0].to(model.dtype)
    return ModelPosteriors(
        name=name,
        samples=samples.cpu(),
        prior_samples=model.icdf(uniform).cpu(),
        axis=axis.cpu(),
        q=log_q.cpu(),
        p=log_p.cpu(),
        prior=log_prior[0].cpu(),
        gap=(ratio.mean(0) + log_p_x).cpu(),
        nll=-log_p_x.cpu(),
    )


def _check_grid(log_p: Tensor, log_q: Tensor, samples: Tensor, log_cell: float, half_width: float) -> None:
    """Raise a :class:`VaeflowError` unless a grid holds log p(z|x) and log q(z|x) ``(n, points, points)``: at most a
    thousandth of p in its outermost cells and a hundredth of samples of q ``(num_samples, n, 2)`` beyond it, and a mass
    of 1 to a hundredth or two, that of p on every second point alone."""
    p, q = (log_p + log_cell).exp(), (log_q + log_cell).exp()
    beyond = (1 - p[:, 1:-1, 1:-1].sum((1, 2)) > 1e-3) | ((samples.abs() > half_width).any(-1).double().mean(0) > 0.01)
    narrow = ((4 * p[:, ::2, ::2].sum((1, 2)) - 1).abs() > 0.01) | ((q.sum((1, 2)) - 1).abs() > 0.02)
    for wrong, what in (
        (beyond, f"reaches beyond the grid: --half-width is {half_width:g}, take more"),
        (narrow, f"is narrower than the steps of the grid: --points is {log_p.shape[-1]}, take more"),
    ):
        if bool(wrong.any()):
            raise VaeflowError(f"the posterior of example {int(wrong.nonzero()[0]) + 1} {what}.")


@styled
def draw(models: Sequence[ModelPosteriors], title: str, names: Sequence[str] | None = None) -> Figure:
    """The prior, and for each model the posteriors of all examples: as samples above, as contours below; and the means
    over the examples of −log p(x) and of the gap.

    Args:
        names: of the examples' labels.
    """
    columns = len(models) + 1
    figure = Figure(figsize=(WIDTH, 2 * WIDTH / columns + 0.9))
    panels = figure.subplots(2, columns, sharex=True, sharey=True)
    first = models[0]
    axis = first.axis.numpy()
    panels[0, 0].scatter(first.prior_samples[:, 0], first.prior_samples[:, 1], s=1.5, color="0.5", lw=0)
    panels[1, 0].contour(axis, axis, first.prior.exp().numpy(), levels=_levels(first.prior, first), colors="0.5")
    panels[0, 0].set_title("prior")
    for k, one in enumerate(models, start=1):
        for i in range(one.samples.shape[1]):
            panels[0, k].scatter(one.samples[:, i, 0], one.samples[:, i, 1], s=1.5, color=f"C{i % 10}", lw=0, alpha=0.6)
            for density, style, width in ((one.p[i], "dotted", 1.0), (one.q[i], "solid", 1.3)):
                panels[1, k].contour(axis, axis, density.exp().numpy(), levels=_levels(density, one),
                                     colors=f"C{i % 10}", linestyles=style, linewidths=width)  # fmt: skip
        panels[0, k].contour(axis, axis, one.prior.exp().numpy(), levels=_levels(one.prior, one), colors="0.5",
                             linewidths=0.8)  # fmt: skip
        panels[0, k].set_title(literal(one.name, NAME_LENGTH))
        panels[1, k].set_title(
            f"mean −log p(x) {one.nll.mean():.2f} nats\nmean gap {one.gap.mean():.2f} nats", fontsize=8
        )
    for axes in panels[1]:
        axes.set_xlabel("$z_1$")
    for axes in panels[:, 0]:
        axes.set_ylabel("$z_2$")
    for axes in panels.flat:
        axes.set(aspect="equal", xlim=(axis[0], axis[-1]), ylim=(axis[0], axis[-1]))
    lines = [Line2D([], [], color="black", ls=style) for style in ("solid", "dotted")]
    labels = ["q(z|x), half and nine tenths of it", "p(z|x), exact"]
    if names is not None and len(names) <= 10:
        lines += [Line2D([], [], marker="o", ls="", color=f"C{i}") for i in range(len(names))]
        labels += [f"label {literal(name, NAME_LENGTH)}" for name in names]
    figure.legend(lines, labels, loc="outside lower center", ncols=6)
    headline(figure, title)
    return figure


def _levels(log_density: Tensor, one: ModelPosteriors) -> list[float]:
    """The densities whose contours hold the masses, rising."""
    cell = (one.axis[1] - one.axis[0]).item() ** 2
    values = log_density.double().flatten().exp().sort(descending=True).values
    below = values.cumsum(0) * cell
    total = min(1.0, below[-1].item())
    levels = [values[int((below < mass * total).sum().clamp(max=len(values) - 1))].item() for mass in MASSES]
    return sorted({level for level in levels if level > 0}) or [values[0].item()]
