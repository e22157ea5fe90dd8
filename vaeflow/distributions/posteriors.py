"""Approximate posteriors q(z|x): a diagonal Gaussian, and a flow that refines it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vaeflow.bijections import Bijection
from vaeflow.bijections.elementwise import bounded
from vaeflow.distributions.base import check_temperature
from vaeflow.errors import VaeflowError, check_mapped
from vaeflow.nets.conditioner import Context
from vaeflow.noise import Noise


class Posterior(nn.Module):
    """Features of x → q(z|x): z₀ = μ + σ ⊙ ε with ε ~ N(0, I), then z = f(z₀) where there is a flow f.

    μ and log σ are linear in the features, log σ bounded smoothly to ±7; the flow's context are the features.

    Args:
        features: dimension of the encoder's features.
        latent_features: D, the dimension of z.
        flow: makes f of the latent and the context dimension; None for the diagonal Gaussian.
    """

    def __init__(
        self, features: int, latent_features: int, flow: Callable[[int, int], Bijection] | None = None
    ) -> None:
        super().__init__()
        self.gaussian = nn.Linear(features, 2 * latent_features)
        nn.init.xavier_uniform_(self.gaussian.weight)
        nn.init.zeros_(self.gaussian.bias)
        try:
            self.flow = flow(latent_features, features) if flow is not None else None
        except TypeError as error:
            raise VaeflowError(f"the flow cannot be made: {error}.") from error

    def forward(self, features: Tensor) -> ConditionedPosterior:
        """``(batch, features)`` → the posteriors of the batch, everything that does not depend on ε done."""
        mean, raw = self.gaussian(features).chunk(2, dim=-1)
        context = None if self.flow is None else self.flow.condition(features)
        return ConditionedPosterior(mean, bounded(raw), self.flow, context)


@dataclass(frozen=True)
class ConditionedPosterior:
    """q(z|x) for the examples of one batch.

    Args:
        mean, log_scale: μ and log σ of z₀, ``(batch, features)``.
        flow: f, or None.
        context: what f is conditioned on.
    """

    mean: Tensor
    log_scale: Tensor
    flow: Bijection | None = None
    context: Context = None

    def rsample_with_log_prob(self, noise: Noise, num_samples: int) -> tuple[Tensor, Tensor]:
        """z ``(num_samples, batch, features)`` and log q(z|x) ``(num_samples, batch)``, in nats, reparameterised:

        log q(z|x) = log N(z₀; μ, σ²) − log |det ∂f/∂z₀|.
        """
        return self.at(self.epsilon(noise, num_samples))

    def epsilon(self, noise: Noise, num_samples: int) -> Tensor:
        """ε ~ N(0, I) ``(num_samples, batch, features)``, from which z comes by :meth:`at`."""
        return noise.normal("posterior", num_samples, self.mean.shape[-1:], self.mean.dtype)

    def at(self, epsilon: Tensor, path_weights: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """z = f(μ + σ ⊙ ε) and log q(z|x), of ε ``(..., batch, features)``.

        With ``path_weights`` μ and σ are constants in log N(z₀; μ, σ²). All their gradient comes through z₀, and is
        multiplied there by ``path_weights[0]`` ``(..., batch)``, to be filled in before backward runs.
        """
        z = self.mean + self.log_scale.exp() * epsilon
        if path_weights is None:
            log_q = self._log_normal(epsilon)
        else:
            z = _with_gradient_times(z, path_weights)
            fixed = replace(self, mean=self.mean.detach(), log_scale=self.log_scale.detach())
            log_q = fixed._log_normal(epsilon + (z - z.detach()) * (-fixed.log_scale).exp())
        if self.flow is None:
            return z, log_q
        z, log_det = check_mapped(type(self.flow).__name__, self.flow(z, self.context), z)
        return z, log_q - log_det

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) ``(num_samples, batch)`` in nats of any z ``(num_samples, batch, features)``:

        log q(z|x) = log N(f⁻¹(z); μ, σ²) + log |det ∂f⁻¹/∂z|.
        """
        log_det = z.new_zeros(())
        if self.flow is not None:
            z, log_det = check_mapped(type(self.flow).__name__, self.flow.inverse(z, self.context), z)
        return self._log_normal((z - self.mean) * (-self.log_scale).exp()) + log_det

    def _log_normal(self, epsilon: Tensor) -> Tensor:
        """log N(μ + σ ⊙ ε; μ, σ²), ``(..., batch, features)`` → ``(..., batch)``."""
        constant = self.log_scale.sum(-1) + 0.5 * math.log(2 * math.pi) * self.mean.shape[-1]
        return -0.5 * torch.linalg.vecdot(epsilon, epsilon) - constant

    def sample(self, noise: Noise, temperature: float = 1.0) -> Tensor:
        """One z for each example, ``(batch, features)``, σ multiplied by the temperature."""
        epsilon = noise.normal("posterior", 1, self.mean.shape[-1:], self.mean.dtype)[0]
        return self._pushed(self.mean + check_temperature(temperature) * self.log_scale.exp() * epsilon)

    def centre(self) -> Tensor:
        """The mean μ pushed through the flow, ``(batch, features)``: where x lives."""
        return self._pushed(self.mean)

    def _pushed(self, z_0: Tensor) -> Tensor:
        return (
            z_0 if self.flow is None else check_mapped(type(self.flow).__name__, self.flow(z_0, self.context), z_0)[0]
        )

    def kl_to_standard_normal(self) -> Tensor:
        """KL(q(z_i|x) ‖ N(0, 1)) = ½ (μ_i² + σ_i² − 1) − log σ_i in nats, without a flow: ``(batch, features)``."""
        if self.flow is not None:
            raise TypeError("the KL of a flow posterior has no closed form")
        return 0.5 * (self.mean.square() + torch.expm1(2 * self.log_scale)) - self.log_scale


@torch.compiler.disable
def _with_gradient_times(z: Tensor, weights: list[Tensor]) -> Tensor:
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient * weights[0].unsqueeze(-1))
    return z
