"""Autoregressive mixtures: MADE with a mixture of Gaussians for each conditional."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from vaeflow.bijections.sequential import solve_in_steps
from vaeflow.distributions.base import Distribution, check_temperature
from vaeflow.distributions.gaussians import pick
from vaeflow.errors import check_positive, check_shape
from vaeflow.functional import bounded, unbounded
from vaeflow.nets.conditioner import Conditioned, Context
from vaeflow.nets.initialisation import DataDependent
from vaeflow.nets.masked_mlp import MaskedMLP
from vaeflow.noise import Noise


class AutoregressiveMixture(DataDependent, Distribution):
    """p(x) = Π_i Σ_c π_ic N(x_i; μ_ic, σ_ic²), all functions of x_<i and of the context by one MADE.

    The logarithms of the σ are bounded smoothly to ±7. A density takes one pass, a sample D steps.

    It starts near the product of the first batch's marginals: of C components one is as wide as all values of its
    feature, and light; the sorted values are shared out to the others, each of which starts at the middle of its share,
    with half of its width as σ. From components that all start near zero the way there takes thousands of steps where
    marginals have edges, as those of pixels have.

    Sources: Germain et al. 2015, arXiv 1502.03509; Papamakarios et al. 2017, arXiv 1705.07057, "MADE MoG".

    Args:
        features: D.
        context_features: dimension of the context; 0 for none.
        components: C.
        hidden: sizes of the hidden layers.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
        degrees: of hidden units, sequential or random.
        residual_blocks: of the MADE.
        reverse: take the features from the last to the first.
    """

    is_reparameterised = False

    def __init__(
        self,
        features: int,
        context_features: int = 0,
        components: int = 10,
        hidden: Sequence[int] = (512,),
        activation: str = "relu",
        degrees: Literal["sequential", "random"] = "sequential",
        residual_blocks: int = 0,
        reverse: bool = False,
    ) -> None:
        super().__init__((features,), context_features)
        check_positive(components=components)
        self.components = components
        self.made = MaskedMLP(
            features, 3 * components, hidden, context_features, activation, reverse, degrees, residual_blocks
        )
        with torch.no_grad():  # components that start alike stay alike
            self.made.out.bias.view(3, components, features)[1].normal_()

    def start(self, x: Tensor) -> None:
        values = x.flatten(0, -2).sort(0).values
        std, mean = torch.std_mean(values, 0, correction=0)
        wide, shares = std.clamp(min=1), self.components - 1  # at least 1, for what the batch does not show
        place = torch.linspace(0, len(values) - 1, 2 * shares + 1, device=values.device).round().long()
        low, middle, high = values[place[:-2:2]], values[place[1::2]], values[place[2::2]]
        scale = torch.maximum((high - low) / 2, 0.01 * wide)
        logits, mu, raw = self.made.out.bias.view(3, self.components, self.features)
        logits[-1] -= 4
        mu.copy_(torch.cat([middle, mean[None]]))
        raw.copy_(unbounded(torch.cat([scale, wide[None]]).log()))
        self.made.out.weight.mul_(0.01)

    def condition(self, context: Context) -> Conditioned:
        return self.made.condition(context)

    def log_prob(self, y: Tensor, context: Context = None) -> Tensor:
        check_shape("y", y, self.features)
        self.see(y)
        log_pi, mu, log_sigma = self._mixture(self.made(y, context))
        white = (y.unsqueeze(-1) - mu) * (-log_sigma).exp()
        log_components = log_pi - log_sigma - 0.5 * (white.square() + math.log(2 * math.pi))
        return torch.logsumexp(log_components, dim=-1).sum(-1)

    def sample(
        self, num_samples: int = 1, context: Context = None, noise: Noise | None = None, temperature: float = 1.0
    ) -> Tensor:
        source, dtype = self._source(noise, context, num_samples), self.zero.dtype
        epsilon = check_temperature(temperature) * source.normal("base", num_samples, self.event_shape, dtype)
        uniform = source.uniform("component", num_samples, self.event_shape, dtype).flatten(0, 1)
        rows, conditioned = epsilon.flatten(0, 1), self.condition(context).value
        if conditioned is not None:
            conditioned = conditioned.expand(*epsilon.shape[:-1], -1).flatten(0, 1)

        def draw(i: int, theta: Tensor) -> tuple[Tensor, Tensor]:
            log_pi, mu, log_sigma = self._mixture(theta)
            c = pick(log_pi.exp(), uniform[..., i, None]).unsqueeze(-1)
            log_scale = log_sigma.gather(-1, c).squeeze(-1)
            return mu.gather(-1, c).squeeze(-1) + log_scale.exp() * rows[..., i], log_scale

        return solve_in_steps(self.made, draw, rows, conditioned)[0].view_as(epsilon)

    def _mixture(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log π, μ and log σ, each ``(..., components)``."""
        logits, mu, raw = theta.unflatten(-1, (3, self.components)).unbind(-2)
        return logits.log_softmax(-1), mu, bounded(raw)
