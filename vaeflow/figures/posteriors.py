"""What a flow does to the posterior: q(z|x) of a few examples in a latent space of two dimensions, beside p(z|x).

Source: the pictures are those of Kingma et al. 2016, arXiv 1606.04934, figure 1; the exact posterior is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from vaeflow.figures.streaming import progress
from vaeflow.figures.style import WIDTH, styled
from vaeflow.noise import Noise

MASSES = (0.5, 0.9)
"""The contours hold so much of the probability."""


@dataclass(frozen=True)
class PosteriorsOfOne:
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
    model: Any, x: Tensor, y: Tensor, name: str, num_samples: int = 2000, points: int = 161, half_width: float = 4.0,
    seed: int = 0, rows: int = 20_000,
) -> PosteriorsOfOne:  # fmt: skip
    """q(z|x), and p(z|x) = p(x, z)/p(x) with p(x) = ∫ p(x, z) dz by quadrature on the grid.

        KL(q(z|x) ‖ p(z|x)) = E_q[log q(z|x) − log p(x, z)] + log p(x).

    Args:
        x, y: examples ``(n, *shape)`` and labels.
        points: of the grid, each way, from −half_width to half_width.
        rows: pairs of a point and an example that are weighed at once.
    """
    x, context = x.to(model.device), model.context_of(y.to(model.device))
    q = model.infer(x, context)
    noise = Noise(seed).at(torch.arange(len(x), device=model.device))
    axis = torch.linspace(-half_width, half_width, points, dtype=model.dtype, device=model.device)
    z_2, z_1 = torch.meshgrid(axis, axis, indexing="ij")
    grid = torch.stack([z_1, z_2], dim=-1).flatten(0, 1).unsqueeze(1).expand(-1, len(x), -1)
    log_q, log_joint, log_prior = [], [], []
    with progress(len(grid), name) as bar:
        for part in grid.split(max(1, rows // len(x))):
            likelihood, prior = model.log_joint(x, part, noise, context)
            log_q.append(q.log_prob(part))
            log_joint.append(likelihood + prior)
            log_prior.append(prior[:, 0])
            bar.update(len(part))
    cell = (axis[1] - axis[0]).log()
    joint = torch.cat(log_joint).double()
    log_p_x = torch.logsumexp(joint, 0) + 2 * cell
    samples, log_q_samples = q.rsample_with_log_prob(noise, num_samples)
    likelihood, prior = model.log_joint(x, samples, noise, context)
    uniform = Noise(seed).at(torch.arange(num_samples, device=model.device)).uniform("prior", 1, 2, model.dtype)[0]
    gap = (log_q_samples - likelihood - prior).double().mean(0) + log_p_x

    def square(values: Tensor) -> Tensor:
        return values.T.unflatten(-1, (points, points)).cpu()

    return PosteriorsOfOne(
        name, samples.cpu(), model.icdf(uniform).cpu(), axis.cpu(), square(torch.cat(log_q)), square(joint - log_p_x),
        square(torch.cat(log_prior).unsqueeze(-1))[0], gap.cpu(), -log_p_x.cpu(),
    )  # fmt: skip


@styled
def draw(models: Sequence[PosteriorsOfOne], title: str) -> Figure:
    """The prior, and for each model the posteriors of all examples: as samples above, as contours below."""
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
        panels[0, k].set_title(one.name)
        panels[1, k].set_title(f"−log p(x) {one.nll.mean():.2f} nats\ngap {one.gap.mean():.2f} nats", fontsize=8)
    for axes in panels[1]:
        axes.set_xlabel("$z_1$")
    for axes in panels[:, 0]:
        axes.set_ylabel("$z_2$")
    for axes in panels.flat:
        axes.set(aspect="equal", xlim=(axis[0], axis[-1]), ylim=(axis[0], axis[-1]))
    lines = [Line2D([], [], color="black", ls=style) for style in ("solid", "dotted")]
    figure.legend(
        lines,
        ["q(z|x), half and nine tenths of it", "p(z|x), exact"],
        loc="outside lower center",
        ncols=2,
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def _levels(log_density: Tensor, one: PosteriorsOfOne) -> list[float]:
    """The densities whose contours hold the masses, rising."""
    cell = (one.axis[1] - one.axis[0]).item() ** 2
    values = log_density.double().flatten().exp().sort(descending=True).values
    below = values.cumsum(0) * cell
    total = min(1.0, below[-1].item())
    levels = [values[int((below < mass * total).sum().clamp(max=len(values) - 1))].item() for mass in MASSES]
    return sorted({level for level in levels if level > 0}) or [values[0].item()]
