"""Densities of vectors: bases of flows, priors of latent-variable models, and models of data by themselves."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from vaeflow.bijections import Bijection
from vaeflow.bijections.base import Statistics
from vaeflow.errors import VaeflowError, check_mapped, check_positive
from vaeflow.functional import softplus
from vaeflow.noise import Noise


class Density(nn.Module, ABC):
    """A density p(z), or p(z|context), of vectors.

    Args:
        features: D, the dimension of z.
        context_features: dimension of the context; 0 for none.
    """

    statistics: Statistics = "none"
    """What :meth:`fit` wants to see; see ``Bijection.statistics``."""
    has_rsample: bool = True
    """Whether gradients of all parameters go through :meth:`sample`; not through a component that is picked."""
    zero: Tensor

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__()
        check_positive(features=features)
        self.features, self.context_features = features, context_features
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # knows the device and the number type

    @abstractmethod
    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(z) in nats: ``(..., batch, features)`` → ``(..., batch)``."""

    @abstractmethod
    def sample(self, noise: Noise, context: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """One z for each example of the noise source, ``(batch, features)``.

        Args:
            temperature: what the standard deviation of the noise is multiplied by; 0 gives the middle of it.
        """

    def encode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The noise that z is made of, ``(batch, features)``, where each z is made of one."""
        raise VaeflowError(f"{type(self).__name__} has no latent space: many draws of its noise make the same point.")

    def decode(self, code: Tensor, context: Tensor | None = None) -> Tensor:
        """The inverse of :meth:`encode`."""
        raise VaeflowError(f"{type(self).__name__} has no latent space: many draws of its noise make the same point.")

    def trajectory(self, code: Tensor, context: Tensor | None = None) -> Iterator[Tensor]:
        """A code and every value on its way to :meth:`decode` of it."""
        yield code
        yield self.decode(code, context)

    def icdf(self, u: Tensor) -> Tensor:
        """The code whose coordinates have the cumulative probabilities u: ``(..., features)`` in (0, 1)."""
        raise VaeflowError(f"{type(self).__name__} has no latent space with a cumulative distribution.")

    @property
    def latent_slices(self) -> dict[str, slice]:
        """The levels of a code, by name; empty where there is none."""
        return {}

    def fit(self, z: list[Tensor], context: list[Tensor | None]) -> None:
        """Set whatever is a statistic of the training data, which come in batches; see ``Bijection.fit``."""


class Base(Density):
    """A density without structure, for flows to start from: its points are their own codes."""

    def encode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return z

    def decode(self, code: Tensor, context: Tensor | None = None) -> Tensor:
        return code

    def trajectory(self, code: Tensor, context: Tensor | None = None) -> Iterator[Tensor]:
        yield code

    @property
    def latent_slices(self) -> dict[str, slice]:
        return {"z": slice(0, self.features)}


class StandardNormal(Base):
    """N(0, I): log p(z) = −½ Σ_i (z_i² + log 2π)."""

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return -0.5 * (torch.linalg.vecdot(z, z) + self.features * math.log(2 * math.pi))

    def sample(self, noise: Noise, context: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        return check_temperature(temperature) * noise.normal("base", 1, (self.features,), self.zero.dtype)[0]

    def icdf(self, u: Tensor) -> Tensor:
        return torch.special.ndtri(u)


class StandardLogistic(Base):
    """The logistic density of NICE: log p(z) = −Σ_i [softplus(z_i) + softplus(−z_i)]; its variance is π²/3."""

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return -(softplus(z) + softplus(-z)).sum(-1)

    def sample(self, noise: Noise, context: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        return check_temperature(temperature) * torch.logit(
            noise.uniform("base", 1, (self.features,), self.zero.dtype)[0]
        )

    def icdf(self, u: Tensor) -> Tensor:
        return torch.logit(u)


class Uniform(Base):
    """The uniform density on a cube: log p(z) = −D log(high − low) inside, −∞ outside.

    Args:
        features: D.
        context_features: unused.
        low, high: of every side.
    """

    def __init__(self, features: int, context_features: int = 0, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(features)
        if not low < high:
            raise VaeflowError(f"low is {low} and high is {high}, expected low < high.")
        self.low, self.high = low, high

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        inside = ((z >= self.low) & (z <= self.high)).all(-1)
        return torch.where(inside, z.new_tensor(-self.features * math.log(self.high - self.low)), -math.inf)

    def sample(self, noise: Noise, context: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        centred = check_temperature(temperature) * (
            noise.uniform("base", 1, (self.features,), self.zero.dtype)[0] - 0.5
        )
        return 0.5 * (self.low + self.high) + (self.high - self.low) * centred

    def icdf(self, u: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * u


class FlowDensity(Density):
    """The density of x = f(z) with z from a base: log p(x) = log p(f⁻¹(x)) + log |det ∂f⁻¹/∂x|.

    As a model or a learned prior, p is evaluated at every training step: choose a flow whose ``inverse`` is fast, such
    as ``MaskedAutoregressive`` or a ``Chain`` of ``Coupling``.

    Args:
        features: D, the dimension of x.
        context_features: dimension of the context; 0 for none.
        flow: makes f.
        base: makes the density of z, of the same two numbers.
    """

    def __init__(
        self,
        features: int,
        context_features: int,
        flow: Callable[[int, int], Bijection],
        base: Callable[[int, int], Density] = StandardNormal,
    ) -> None:
        super().__init__(features, context_features)
        self.base = base(features, context_features)
        try:
            self.flow = flow(features, context_features)
        except TypeError as error:
            raise VaeflowError(f"the flow cannot be made: {error}.") from error

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        base, log_det = check_mapped(type(self.flow).__name__, self.flow.inverse(z, context), z)
        return self.base.log_prob(base, context) + log_det

    def sample(self, noise: Noise, context: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        return self.flow(self.base.sample(noise, context, temperature), context)[0]

    def encode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.base.encode(self.flow.inverse(z, context)[0], context)

    def decode(self, code: Tensor, context: Tensor | None = None) -> Tensor:
        return self.flow(self.base.decode(code, context), context)[0]

    def trajectory(self, code: Tensor, context: Tensor | None = None) -> Iterator[Tensor]:
        *before, z = self.base.trajectory(code, context)
        yield from before
        yield from self.flow.trajectory(z, context)

    def icdf(self, u: Tensor) -> Tensor:
        return self.base.icdf(u)

    @property
    def latent_slices(self) -> dict[str, slice]:
        return self.base.latent_slices and getattr(self.flow, "slices", self.base.latent_slices)

    def fit(self, z: list[Tensor], context: list[Tensor | None]) -> None:
        self.base.fit(self.flow.fit(z, context), context)


def check_temperature(temperature: float) -> float:
    """The temperature, if it is one."""
    try:
        is_valid = 0 <= float(temperature) < math.inf
    except (TypeError, ValueError):
        is_valid = False
    if not is_valid:
        raise VaeflowError(f"temperature is {temperature!r}, expected a number of 0 or more.")
    return temperature
