"""What a distribution is here, and those without parameters, from which flows start."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaeflow.errors import NoAnswer, VaeflowError, check_positive
from vaeflow.functional import softplus
from vaeflow.nets.conditioner import Context, lead_of
from vaeflow.noise import Noise


class Distribution(nn.Module, ABC):
    """p(y), or p(y|context), of events y of one shape: whatever has a ``log_prob``, whatever its place. A prior has no
    context, or labels; that of a posterior are an encoder's features, that of an observation p(x|z) is z.

    A subclass implements :meth:`log_prob` and :meth:`sample`. One whose parameters are computed from the context puts
    that computation into :meth:`condition`, which is then run once, however many events follow. So that a config can
    name it as a prior, a posterior or the base of a flow, it takes ``features`` (D, of vectors) and
    ``context_features`` as its first two constructor arguments.

    Args:
        event_shape: of one y.
        context_features: dimension of the context; 0 for none.
    """

    is_reparameterised: bool = True
    """Whether gradients of all parameters go through a sample; not through a component, or an integer, that is
    picked."""
    takes_training_set: bool = False
    """Whether :meth:`refresh` sets statistics of the whole training set, before each evaluation."""
    zero: Tensor

    def __init__(self, event_shape: Sequence[int], context_features: int = 0) -> None:
        super().__init__()
        check_positive(**{f"event_shape[{i}]": size for i, size in enumerate(event_shape)})
        self.event_shape, self.context_features = tuple(event_shape), context_features
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # knows the device and the number type

    @property
    def features(self) -> int:
        """D, how many numbers an event has."""
        return math.prod(self.event_shape)

    def condition(self, context: Context) -> Context:
        """All that depends on the context alone, computed once; the other methods take it for ``context``.

        Idempotent: what is conditioned already is returned as it is.
        """
        return context

    @abstractmethod
    def log_prob(self, y: Tensor, context: Context = None) -> Tensor:
        """log p(y|context) in nats: ``(..., batch, *event_shape)`` → ``(..., batch)``."""

    @abstractmethod
    def sample(
        self, num_samples: int = 1, context: Context = None, noise: Noise | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Draws y ``(num_samples, batch, *event_shape)``.

        Args:
            num_samples: of each example.
            context: ``(batch, context_features)``, or ``(num_samples, batch, context_features)``, one for each draw; or
                what :meth:`condition` made of it.
            noise: with the examples' indices; by default drawn from torch's generator, for as many examples as the
                context has, one without a context.
            temperature: multiplies the standard deviation of the noise; 0 gives the middle of it.
        """

    def rsample_with_log_prob(
        self, num_samples: int = 1, context: Context = None, noise: Noise | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws y and log p(y|context) ``(num_samples, batch)``, through both of which gradients pass."""
        if not self.is_reparameterised:
            raise NoAnswer(f"{type(self).__name__} picks at random what a gradient does not pass: take another one.")
        context = self.condition(context)
        y = self.sample(num_samples, context, noise)
        return y, self.log_prob(y, context)

    def mean(self, context: Context = None) -> Tensor | None:
        """E[y|context] ``(batch, *event_shape)``; None where it has no closed form, and callers draw instead."""
        return None

    def refresh(self, y: list[Tensor], context: list[Tensor | None]) -> None:
        """Set whatever is a statistic of the whole training set, which comes in batches; see ``Bijection.refresh``."""

    def _source(self, noise: Noise | None, context: Context, num_samples: int) -> Noise:
        """The noise given, or one that torch's generator seeds."""
        lead = lead_of(context)
        if lead is not None and len(lead) > 1 and lead[:-1] != (num_samples,):
            raise VaeflowError(
                f"the context is of {' × '.join(map(str, lead[:-1]))} draws for each example, and num_samples is "
                f"{num_samples}: each draw has a context of its own, or all have one."
            )
        if noise is not None:
            return noise
        index = torch.arange(1 if lead is None else lead[-1], device=self.zero.device)
        return Noise(int(torch.randint(2**63 - 1, ())), index=index)

    def _lead(self, context: Context) -> tuple[int, ...]:
        """The leading dimensions of a mean."""
        return lead_of(context) or (1,)


@dataclass(frozen=True)
class Given:
    """A distribution given the context of a batch, with all that depends on it alone computed.

    Args:
        distribution: p(y|context).
        context: what its ``condition`` made of the context.
    """

    distribution: Distribution
    context: Context

    def log_prob(self, y: Tensor) -> Tensor:
        """log p(y|context) in nats: ``(..., batch, *event_shape)`` → ``(..., batch)``."""
        return self.distribution.log_prob(y, self.context)

    def sample(self, num_samples: int = 1, noise: Noise | None = None, temperature: float = 1.0) -> Tensor:
        """Draws y ``(num_samples, batch, *event_shape)``."""
        return self.distribution.sample(num_samples, self.context, noise, temperature)

    def rsample_with_log_prob(self, num_samples: int = 1, noise: Noise | None = None) -> tuple[Tensor, Tensor]:
        """Draws y and log p(y|context), through both of which gradients pass."""
        return self.distribution.rsample_with_log_prob(num_samples, self.context, noise)


class CodedDistribution(Distribution):
    """A distribution whose events are a function of a code of as many dimensions, and the other way round."""

    @abstractmethod
    def encode(self, y: Tensor, context: Context = None) -> Tensor:
        """The code ``(..., batch, D)`` that y ``(..., batch, *event_shape)`` is made of."""

    @abstractmethod
    def decode(self, code: Tensor, context: Context = None) -> Tensor:
        """The inverse of :meth:`encode`."""

    @abstractmethod
    def icdf(self, u: Tensor) -> Tensor:
        """The code whose coordinates have the cumulative probabilities u: ``(..., D)`` in (0, 1)."""

    def trajectory(self, code: Tensor, context: Context = None) -> Iterator[Tensor]:
        """A code and every value on its way to :meth:`decode` of it."""
        yield code
        yield self.decode(code, context)

    @property
    def latent_slices(self) -> dict[str, slice]:
        """The levels of a code, by name."""
        return {"z": slice(0, self.features)}


class Base(CodedDistribution):
    """A distribution of vectors without parameters, for flows to start from: its events are their own codes.

    Args:
        features: D.
        context_features: unused.
    """

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__((features,))

    def encode(self, y: Tensor, context: Context = None) -> Tensor:
        return y

    def decode(self, code: Tensor, context: Context = None) -> Tensor:
        return code

    def trajectory(self, code: Tensor, context: Context = None) -> Iterator[Tensor]:
        yield code


class StandardNormal(Base):
    """N(0, I): log p(y) = −½ Σ_i (y_i² + log 2π)."""

    def log_prob(self, y: Tensor, context: Context = None) -> Tensor:
        return -0.5 * (torch.linalg.vecdot(y, y) + self.features * math.log(2 * math.pi))

    def sample(
        self, num_samples: int = 1, context: Context = None, noise: Noise | None = None, temperature: float = 1.0
    ) -> Tensor:
        source = self._source(noise, context, num_samples)
        return check_temperature(temperature) * source.normal("base", num_samples, self.event_shape, self.zero.dtype)

    def mean(self, context: Context = None) -> Tensor:
        return self.zero.expand(*self._lead(context), *self.event_shape)

    def icdf(self, u: Tensor) -> Tensor:
        return torch.special.ndtri(u)


class StandardLogistic(Base):
    """The logistic density of NICE: log p(y) = −Σ_i [softplus(y_i) + softplus(−y_i)]; its variance is π²/3."""

    def log_prob(self, y: Tensor, context: Context = None) -> Tensor:
        return -(softplus(y) + softplus(-y)).sum(-1)

    def sample(
        self, num_samples: int = 1, context: Context = None, noise: Noise | None = None, temperature: float = 1.0
    ) -> Tensor:
        u = self._source(noise, context, num_samples).uniform("base", num_samples, self.event_shape, self.zero.dtype)
        return check_temperature(temperature) * torch.logit(u)

    def mean(self, context: Context = None) -> Tensor:
        return self.zero.expand(*self._lead(context), *self.event_shape)

    def icdf(self, u: Tensor) -> Tensor:
        return torch.logit(u)


class Uniform(Base):
    """The uniform density on a cube: log p(y) = −D log(high − low) inside, −∞ outside.

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

    def log_prob(self, y: Tensor, context: Context = None) -> Tensor:
        inside = ((y >= self.low) & (y <= self.high)).all(-1)
        return torch.where(inside, y.new_tensor(-self.features * math.log(self.high - self.low)), -math.inf)

    def sample(
        self, num_samples: int = 1, context: Context = None, noise: Noise | None = None, temperature: float = 1.0
    ) -> Tensor:
        u = self._source(noise, context, num_samples).uniform("base", num_samples, self.event_shape, self.zero.dtype)
        centred = check_temperature(temperature) * (u - 0.5)
        return 0.5 * (self.low + self.high) + (self.high - self.low) * centred

    def mean(self, context: Context = None) -> Tensor:
        return (self.zero + 0.5 * (self.low + self.high)).expand(*self._lead(context), *self.event_shape)

    def icdf(self, u: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * u


def full_precision(like: Tensor) -> torch.autocast:
    """Mixed precision is for the nets: logarithms of densities, added up over dimensions, need all their digits."""
    return torch.autocast(like.device.type, enabled=False)


def check_temperature(temperature: float) -> float:
    """The temperature, if it is one."""
    try:
        is_valid = 0 <= float(temperature) < math.inf
    except (TypeError, ValueError):
        is_valid = False
    if not is_valid:
        raise VaeflowError(f"temperature is {temperature!r}, expected a number of 0 or more.")
    return temperature
