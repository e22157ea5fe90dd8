"""Mixtures of discretised logistics, the likelihood head of PixelCNN++ and its successors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaeflow.distributions.gaussians import pick
from vaeflow.distributions.heads import Likelihood, discretised_logistic, sum_of_sigmoids
from vaeflow.errors import check_positive
from vaeflow.functional import bounded, unbounded
from vaeflow.noise import Noise


class DiscretisedLogisticMixture(Likelihood):
    """P(x|z) = Σ_m π_m [F((x + ½ − μ_m)/s_m) − F((x − ½ − μ_m)/s_m)] of each dimension, F = sigmoid.

    0 takes the whole lower tails and L − 1 the whole upper ones, so that the probabilities of all levels sum to 1.

    Source: Salimans, Karpathy, Chen & Kingma 2017, arXiv 1701.05517, section 2.1; here each channel of a pixel has a
    mixture of its own, where theirs share the component and have means that are linear in the channels before.
    The decoder puts out the logits of the π, then (μ − c)/c with c = (L − 1)/2, then log(s/c), bounded smoothly to ±7.

    Args:
        shape: of one example, channels first.
        levels: L.
        components: how many.
    """

    def __init__(self, shape: Sequence[int], levels: int | None, components: int = 5) -> None:
        super().__init__(shape, levels)
        check_positive(components=components)
        self.components = components

    @property
    def parameters_per_dimension(self) -> int:
        return 3 * self.components

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        log_pi, mu, s = self._mixture(output)
        x = x.unsqueeze(-len(self.shape) - 1)
        log_p = torch.logsumexp(log_pi + discretised_logistic(x, mu, s, self._top), -len(self.shape) - 1)
        return log_p.flatten(-len(self.shape)).sum(-1)

    def mean(self, output: Tensor) -> Tensor:
        log_pi, mu, s = self._mixture(output)
        return (log_pi.exp() * sum_of_sigmoids(mu, s, self._top)).sum(-len(self.shape) - 1)

    def sample(self, output: Tensor, noise: Noise, num_samples: int = 1) -> Tensor:
        log_pi, mu, s = (value.movedim(-len(self.shape) - 1, -1) for value in self._mixture(output))
        c = pick(log_pi.exp(), noise.uniform("component", num_samples, self.shape, output.dtype).unsqueeze(-1))
        mu, s = (value.expand(*c.shape, -1).gather(-1, c.unsqueeze(-1)).squeeze(-1) for value in (mu, s))
        return (mu + s * torch.logit(self._uniform(output, noise, num_samples))).round().clamp(0, self._top)

    def start(self, mean: Tensor, scale: Tensor, bias: Tensor) -> None:
        """Components side by side, within two standard deviations of the mean."""
        centre, m = self._top / 2, self.components
        places = torch.linspace(-1, 1, m + 2)[1:-1].tolist()  # m of them, none at the ends
        width = torch.log(2 * scale.clamp(min=0.5) / (m * centre))
        mu = [(mean + 2 * place * scale - centre) / centre for place in places]
        self._fill(bias, *[torch.zeros_like(mean)] * m, *mu, *[unbounded(width)] * m)

    @property
    def _top(self) -> int:
        assert self.levels is not None
        return self.levels - 1

    def _mixture(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log π, μ and s, each ``(..., batch, components, *shape)``."""
        parameters = output.unflatten(-len(self.shape), (3, self.components, self.shape[0]))
        logits, location, log_scale = parameters.unbind(-len(self.shape) - 2)
        centre = self._top / 2
        log_pi = logits.log_softmax(-len(self.shape) - 1)
        return log_pi, centre * (1 + location), centre * torch.exp(bounded(log_scale))
