"""Likelihood heads p(x|z): what the numbers that a decoder puts out mean.

Data are as the user gave them: 0 or 1, integers 0 … L − 1, or real numbers. A decoder's output for ``(channels, …)``
data is ``(..., batch, parameters · channels, …)``, the parameters outermost.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vaeflow.errors import VaeflowError
from vaeflow.functional import LOG_SCALE_BOUND, bounded, log_sigmoid, refuse_derivative, softplus
from vaeflow.kernels import attempt
from vaeflow.noise import Noise
from vaeflow.tracing import is_batched, is_eager

LEAST = 2**14
"""From how many numbers on the machine code is faster."""


class Likelihood(nn.Module, ABC):
    """p(x|z), factorised over the dimensions of x.

    Args:
        shape: of one example, channels first.
        levels: L of integer data, None of continuous data.
    """

    def __init__(self, shape: Sequence[int], levels: int | None) -> None:
        super().__init__()
        self.shape, self.levels = tuple(shape), levels
        self.check_levels()

    @property
    def parameters_per_dimension(self) -> int:
        """How many numbers the decoder puts out for each dimension of x."""
        return 1

    @property
    def decoder_shape(self) -> tuple[int, ...]:
        """Shape of the decoder's output for one example."""
        return (self.parameters_per_dimension * self.shape[0], *self.shape[1:])

    def check_levels(self) -> None:
        """Raise a :class:`VaeflowError` unless the head is one for such data."""
        if self.levels is None:
            raise VaeflowError(
                f"{type(self).__name__} is a likelihood of integers, but the data are continuous: set "
                "--model.likelihood null for the head that fits."
            )

    @property
    def dequantises(self) -> bool:
        """Whether the data are integers but the head is a density: of x + u, with uniform noise u."""
        return False

    @abstractmethod
    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """log p(x|z) in nats, summed over the dimensions of x.

        Args:
            x: ``(batch, *shape)``, or ``(num_samples, batch, *shape)`` where there is noise in it.
            output: the decoder's, ``(num_samples, batch, *decoder_shape)``.

        Returns:
            ``(num_samples, batch)``.
        """

    @abstractmethod
    def mean(self, output: Tensor) -> Tensor:
        """E[x|z]: ``(..., batch, *decoder_shape)`` → ``(..., batch, *shape)``."""

    @abstractmethod
    def sample(self, output: Tensor, noise: Noise, num_samples: int = 1) -> Tensor:
        """Draws x: ``(batch, *decoder_shape)`` → ``(num_samples, batch, *shape)``."""

    def start(self, mean: Tensor, scale: Tensor, bias: Tensor) -> None:
        """Write into the decoder's output ``bias`` what explains data of this mean and standard deviation.

        Args:
            mean, scale: of the training set, ``shape``.
            bias: what broadcasts to ``decoder_shape``, changed in place.
        """

    def of_one_number(self) -> Likelihood:
        """The same head for data of a single number, of shape ``(1, …)``."""
        one = copy.copy(self)
        one.shape = (1,) * len(self.shape)
        return one

    def split(self, output: Tensor) -> tuple[Tensor, ...]:
        """The decoder's output by parameter, each ``(..., batch, *shape)``."""
        return output.unflatten(-len(self.shape), (self.parameters_per_dimension, self.shape[0])).unbind(
            -len(self.shape) - 1
        )

    def _uniform(self, output: Tensor, noise: Noise, num_samples: int) -> Tensor:
        """(num_samples, batch, *shape)"""
        return noise.uniform("data", num_samples, self.shape, output.dtype)

    def _fill(self, bias: Tensor, *parameters: Tensor) -> None:
        """Set the bias to the parameters, averaged where one entry of it serves many dimensions."""
        wanted = torch.cat([p.to(bias) for p in parameters])
        with torch.no_grad():
            bias.copy_(wanted if bias.shape == wanted.shape else wanted.mean((-1, -2), keepdim=True))


def _sum(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    return values.flatten(-len(shape)).sum(-1)


class Bernoulli(Likelihood):
    """p(x = 1|z) = sigmoid(a), for binary data; a is the decoder's output."""

    def check_levels(self) -> None:
        if self.levels != 2:
            raise VaeflowError(
                f"Bernoulli is a likelihood of binary data, but the data are "
                f"{'continuous' if self.levels is None else f'integers with {self.levels} levels'}: "
                "binarise them, or set --model.likelihood null for the head that fits."
            )

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        x, logits = x.flatten(1), output.flatten(-len(self.shape))
        able = (
            logits.device.type == "cpu"
            and logits.dtype in (torch.float32, torch.float64)
            and (x.dtype, x.shape) == (logits.dtype, logits.shape[-2:])
        )
        if able and logits.numel() >= LEAST and is_eager():
            return _Bernoulli.apply(x, logits)
        return _bernoulli(x, logits)

    def mean(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)

    def sample(self, output: Tensor, noise: Noise, num_samples: int = 1) -> Tensor:
        return (self._uniform(output, noise, num_samples) < torch.sigmoid(output)).to(output.dtype)

    def start(self, mean: Tensor, scale: Tensor, bias: Tensor) -> None:
        self._fill(bias, torch.logit(mean, eps=1e-3))


def _bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    return (x * logits - softplus(logits)).sum(-1)


class _Bernoulli(torch.autograd.Function):
    """The same in fewer passes over the memory, of x ``(batch, D)`` and logits ``(..., batch, D)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, logits: Tensor) -> Tensor:
        ctx.save_for_backward(x, logits)
        found = attempt("bernoulli", "log_prob", x, logits)
        return _bernoulli(x, logits) if found is None else found

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, logits = ctx.saved_tensors
        by_x, by_logits = None, None
        if ctx.needs_input_grad[0]:
            by_x = (g.unsqueeze(-1) * logits).sum_to_size(x.shape)
        if ctx.needs_input_grad[1]:
            if not torch.is_grad_enabled() and not is_batched(g):  # it will not be differentiated itself
                by_logits = attempt("bernoulli", "by_logits", x, logits, g)
            by_logits = g.unsqueeze(-1) * (x - torch.sigmoid(logits)) if by_logits is None else by_logits
        return by_x, by_logits


class DiscretisedLogistic(Likelihood):
    """The mass that a logistic density with location μ and scale s puts on each integer 0 … L − 1.

        P(x|z) = F((x + ½ − μ)/s) − F((x − ½ − μ)/s),    F = sigmoid,

    where 0 takes the whole lower tail and L − 1 the whole upper one. With a and b the two arguments,
    F(a) − F(b) = F(a) F(−b) (1 − exp(b − a)), whose logarithm loses no digits however far out x is.

    Source: Kingma et al. 2016, arXiv 1606.04934; the tails as in Salimans et al. 2017, arXiv 1701.05517.
    The decoder puts out (μ − c)/c with c = (L − 1)/2, and log(s/c), bounded smoothly to ±7.
    """

    @property
    def parameters_per_dimension(self) -> int:
        return 2

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        return _sum(discretised_logistic(x, *self._location_and_scale(output), self._top), self.shape)

    def mean(self, output: Tensor) -> Tensor:
        """E[x] = Σ_{k=1}^{L−1} P(x ≥ k), in a time that does not grow with L."""
        mu, s = self._location_and_scale(output)
        return sum_of_sigmoids(mu, s, self._top, self._top / 2 * math.exp(-LOG_SCALE_BOUND))

    def sample(self, output: Tensor, noise: Noise, num_samples: int = 1) -> Tensor:
        mu, s = self._location_and_scale(output)
        return (mu + s * torch.logit(self._uniform(output, noise, num_samples))).round().clamp(0, self._top)

    def start(self, mean: Tensor, scale: Tensor, bias: Tensor) -> None:
        centre = self._top / 2
        s = scale.clamp(min=0.5) * math.sqrt(3) / math.pi  # a logistic's standard deviation is s π/√3
        self._fill(bias, (mean - centre) / centre, torch.log(s / centre))

    @property
    def _top(self) -> int:
        assert self.levels is not None
        return self.levels - 1

    def _location_and_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        location, log_scale = self.split(output)
        centre = self._top / 2
        return centre * (1 + location), centre * torch.exp(bounded(log_scale))


def discretised_logistic(x: Tensor, mu: Tensor, s: Tensor, top: int) -> Tensor:
    """log [F((x + ½ − μ)/s) − F((x − ½ − μ)/s)] of integers x in 0 … top, the tails at both ends, elementwise."""
    inside_low, inside_high = x > 0, x < top
    upper, lower = (x + 0.5 - mu) / s, (x - 0.5 - mu) / s
    log_p = torch.where(inside_high, log_sigmoid(upper), 0.0) + torch.where(inside_low, log_sigmoid(-lower), 0.0)
    width = torch.log(-torch.expm1(-1 / s))
    return log_p + torch.where(inside_low & inside_high, width, 0.0)


SMOOTH = 3.0
"""From which scale on a sum of sigmoids is taken as an integral."""


def sum_of_sigmoids(mu: Tensor, s: Tensor, n: int, least_scale: float = 0.0) -> Tensor:
    """Σ_{k=1}^n σ((μ − k + ½)/s) with σ = sigmoid, elementwise and differentiable, in float64 to a relative 10⁻¹¹.

    A short sum is added up. Of a long one with s < 3, all terms but those around μ are 0 or 1 to the precision of the
    number type. For s ≥ 3 the sum is a midpoint rule, given by its Euler–Maclaurin expansion

        ∫₀ⁿ σ((μ − t)/s) dt + e(μ − n) − e(μ),    e(v) = σ′(v/s)/(24 s) − 7 σ‴(v/s)/(5760 s³) + …

    up to the seventh derivative.

    Args:
        least_scale: what no s falls below.
    """
    half = math.ceil(SMOOTH * (1 - math.log(torch.finfo(mu.dtype).eps)))
    if n <= 2 * half + 1:
        return _added_up(mu, s, n)
    is_steep = s < SMOOTH
    smooth = _by_expansion(mu.double(), torch.where(is_steep, SMOOTH, s).double(), n).to(mu.dtype)
    if least_scale >= SMOOTH:
        return smooth
    ones = (mu.detach().round() - half - 1).clamp(0, n - 2 * half - 1)
    steep = ones + _added_up(mu - ones, torch.where(is_steep, s, SMOOTH), 2 * half + 1)
    return torch.where(is_steep, steep, smooth)


def _added_up(mu: Tensor, s: Tensor, n: int) -> Tensor:
    total = torch.zeros_like(mu)
    for k in range(1, n + 1):
        total += torch.sigmoid((mu - k + 0.5) / s)
    return total


def _by_expansion(mu: Tensor, s: Tensor, n: int) -> Tensor:
    def edge(v: Tensor) -> Tensor:
        p, r = torch.sigmoid(v / s) * torch.sigmoid(-v / s), (1 / s).square()  # the derivatives are polynomials in p
        fifth, seventh = 1 + p * (-30 + 120 * p), 1 + p * (-126 + p * (1680 - 5040 * p))
        series = -7 / 5760 * (1 - 6 * p) + r * (31 / 967680 * fifth - 127 / 154828800 * r * seventh)
        return p / s * (1 / 24 + r * series)

    return s * (softplus(mu / s) - softplus((mu - n) / s)) + edge(mu - n) - edge(mu)


class Categorical(Likelihood):
    """p(x = l|z) = softmax(a)_l, one of L levels for each dimension; a is the decoder's output."""

    @property
    def parameters_per_dimension(self) -> int:
        assert self.levels is not None
        return self.levels

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        message = "Categorical has no derivative by x, which is an index: take DiscretisedLogistic."
        if x.requires_grad:
            raise VaeflowError(message)
        logits = self._logits(output)
        chosen = logits.gather(
            -len(self.shape) - 1,
            x.long().expand(*output.shape[: -len(self.shape)], *self.shape).unsqueeze(-len(self.shape) - 1),
        )
        log_p = _sum(chosen.squeeze(-len(self.shape) - 1) - logits.logsumexp(-len(self.shape) - 1), self.shape)
        if is_eager() or torch.compiler.is_compiling():
            return log_p
        return log_p + 0 * _sum(
            refuse_derivative(x, message), self.shape
        )  # a forward-mode derivative is not known above

    def mean(self, output: Tensor) -> Tensor:
        levels = torch.arange(self.parameters_per_dimension, dtype=output.dtype, device=output.device)
        return (levels @ self._logits(output).flatten(-len(self.shape)).softmax(-2)).unflatten(-1, self.shape)

    def sample(self, output: Tensor, noise: Noise, num_samples: int = 1) -> Tensor:
        cumulative = self._logits(output).softmax(-len(self.shape) - 1).cumsum_(-len(self.shape) - 1)
        below = self._uniform(output, noise, num_samples).unsqueeze(-len(self.shape) - 1) > cumulative
        return below.sum(-len(self.shape) - 1).clamp(max=self.parameters_per_dimension - 1).to(output.dtype)

    def _logits(self, output: Tensor) -> Tensor:
        """(..., batch, levels, *shape)"""
        return output.unflatten(-len(self.shape), (self.parameters_per_dimension, self.shape[0]))


class Gaussian(Likelihood):
    """p(x|z) = N(x; μ, σ²), for continuous data (standardised), or for integers with uniform noise added.

    Of integers it is the density of x + u with u uniform on (0, 1), one level's width, in training and in evaluation
    alike, which bounds the mass of the integer from below: log P(x|z) ≥ E_u log p(x + u|z). And σ ≥ 0.01, of a level
    or of the standardised data. With neither, one constant pixel gives a density without bound.

    The decoder puts out μ and log σ in units of half the range of the levels, or of the standardised data; log σ is
    bounded smoothly to ±7 before the floor.
    """

    min_scale = 0.01

    def check_levels(self) -> None:
        """Any data will do."""

    @property
    def dequantises(self) -> bool:
        return self.levels is not None

    @property
    def parameters_per_dimension(self) -> int:
        return 2

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        mu, sigma = self._location_and_scale(output)
        return _sum(-0.5 * (((x - mu) / sigma).square() + math.log(2 * math.pi)) - sigma.log(), self.shape)

    def mean(self, output: Tensor) -> Tensor:
        mu, _ = self._location_and_scale(output)
        return mu - 0.5 if self.dequantises else mu

    def sample(self, output: Tensor, noise: Noise, num_samples: int = 1) -> Tensor:
        mu, sigma = self._location_and_scale(output)
        y = mu + sigma * noise.normal("data", num_samples, self.shape, output.dtype)
        return y if self.levels is None else y.floor().clamp(0, self.levels - 1)

    def start(self, mean: Tensor, scale: Tensor, bias: Tensor) -> None:
        if self.dequantises:
            self._fill(bias, (mean + 0.5 - self._unit) / self._unit, torch.log(scale.clamp(min=0.3) / self._unit))

    @property
    def _unit(self) -> float:
        return 1.0 if self.levels is None else self.levels / 2

    def _location_and_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        location, log_scale = self.split(output)
        sigma = self._unit * torch.exp(bounded(log_scale)) + self.min_scale
        return (location if self.levels is None else self._unit * (1 + location)), sigma


def likelihood_for(levels: int | None) -> type[Likelihood]:
    """The default head: Bernoulli for binary, discretised logistic for integer, Gaussian for continuous data."""
    if levels is None:
        return Gaussian
    return Bernoulli if levels == 2 else DiscretisedLogistic
