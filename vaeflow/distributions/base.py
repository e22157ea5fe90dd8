"""Densities of vectors: bases of flows and priors of latent-variable models."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaeflow.bijections import Bijection
from vaeflow.errors import VaeflowError, check_mapped
from vaeflow.noise import Noise


class Density(nn.Module, ABC):
    """A density p(z), or p(z|context), of vectors.

    Args:
        features: D, the dimension of z.
        context_features: dimension of the context; 0 for none.
    """

    zero: Tensor

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__()
        self.features, self.context_features = features, context_features
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # knows the device and the number type

    @abstractmethod
    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(z) in nats: ``(..., batch, features)`` → ``(..., batch)``."""

    @abstractmethod
    def sample(self, noise: Noise, context: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """One z for each example of the noise source, ``(batch, features)``.

        Args:
            temperature: what the standard deviation of the base is multiplied by; 0 gives its mode.
        """


class StandardNormal(Density):
    """N(0, I): log p(z) = −½ Σ_i (z_i² + log 2π)."""

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return -0.5 * (torch.linalg.vecdot(z, z) + self.features * math.log(2 * math.pi))

    def sample(self, noise: Noise, context: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        if temperature < 0:
            raise VaeflowError(f"temperature is {temperature}, expected 0 or more.")
        return temperature * noise.normal("base", 1, self.features, self.zero.dtype)[0]


class FlowDensity(Density):
    """The density of x = f(z) with z ~ N(0, I): log p(x) = log N(f⁻¹(x); 0, I) + log |det ∂f⁻¹/∂x|.

    As a learned prior, p is evaluated at every training step: choose a flow whose ``inverse`` is fast, such as
    ``Inverse`` around ``InverseAutoregressive``.

    Args:
        features: D, the dimension of x.
        context_features: dimension of the context; 0 for none.
        flow: makes f.
    """

    def __init__(self, features: int, context_features: int, flow: Callable[[int, int], Bijection]) -> None:
        super().__init__(features, context_features)
        self.base = StandardNormal(features)
        self.flow = flow(features, context_features)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        base, log_det = check_mapped(type(self.flow).__name__, self.flow.inverse(z, context), z)
        return self.base.log_prob(base) + log_det

    def sample(self, noise: Noise, context: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        return self.flow(self.base.sample(noise, context, temperature), context)[0]
