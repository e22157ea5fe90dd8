"""Gaussians: amortised, fitted in one pass, and mixtures of them trained by gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vaeflow.bijections.linear import lu_factors, solve_lu
from vaeflow.bijections.normalisation import moments, sum_over_processes
from vaeflow.distributions.base import CodedDistribution, Distribution, check_temperature
from vaeflow.errors import VaeflowError, check_context, check_positive, check_shape
from vaeflow.functional import bounded
from vaeflow.nets.conditioner import Conditioned, Context, lead_of
from vaeflow.nets.initialisation import DataDependent
from vaeflow.noise import Noise

MOST_PATHS = 4096


@dataclass(frozen=True)
class Normal:
    """N(μ, diag σ²) of events of any shape, with parameters that a net computed.

    Args:
        mean, log_scale: μ and log σ, ``(..., batch, *event_shape)``.
        event_dims: the number of dimensions of an event.
    """

    mean: Tensor
    log_scale: Tensor
    event_dims: int = 1

    def at(self, epsilon: Tensor) -> Tensor:
        """y = μ + σ ⊙ ε, of ε ``(..., batch, *event_shape)``."""
        return self.mean + self.log_scale.exp() * epsilon

    def log_prob(self, y: Tensor) -> Tensor:
        """log N(y; μ, σ²) in nats, ``(..., batch, *event_shape)`` → ``(..., batch)``."""
        return self.log_prob_at((y - self.mean) * (-self.log_scale).exp())

    def log_prob_at(self, epsilon: Tensor) -> Tensor:
        """log N(μ + σ ⊙ ε; μ, σ²), of ε as in :meth:`at`."""
        epsilon, log_scale = (value.flatten(-self.event_dims) for value in (epsilon, self.log_scale))
        constant = log_scale.sum(-1) + 0.5 * math.log(2 * math.pi) * log_scale.shape[-1]
        return -0.5 * torch.linalg.vecdot(epsilon, epsilon) - constant

    def kl(self, other: Normal | None = None) -> Tensor:
        """KL(N(μ, σ²) ‖ other) of each dimension in nats, ``(..., batch, *event_shape)``; by default from N(0, I):

        ½ (μ² + σ² − 1) − log σ,    or    ½ ((μ − μ′)² + σ² − σ′²)/σ′² − log (σ/σ′).
        """
        if other is None:
            return 0.5 * (self.mean.square() + torch.expm1(2 * self.log_scale)) - self.log_scale
        log_ratio = self.log_scale - other.log_scale
        white = (self.mean - other.mean) * (-other.log_scale).exp()
        return 0.5 * (white.square() + torch.expm1(2 * log_ratio)) - log_ratio


class PathWeights:
    """What the gradient that comes through each draw is multiplied by, once it is known: after the draws are weighed,
    and before the backward pass runs.

    Source: Tucker et al. 2018, "Doubly reparameterized gradient estimators", arXiv 1810.04152.
    """

    value: Tensor
    """``(num_samples, batch)``."""

    @torch.compiler.disable
    def attach(self, z: Tensor) -> Tensor:
        """z ``(num_samples, batch, D)`` itself, whose gradient is multiplied by :attr:`value` on its way."""
        if z.requires_grad:
            z.register_hook(lambda gradient: gradient * self.value.unsqueeze(-1))
        return z


class DiagonalGaussian(Distribution):
    """N(μ, diag σ²) with μ and log σ linear in the context, log σ bounded smoothly to ±7; without a context they are
    learned directly. With an encoder's features as context it is the posterior of a VAE.

    Args:
        features: D.
        context_features: dimension of the context; 0 for none.
    """

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__((features,), context_features)
        if context_features:
            self.linear = nn.Linear(context_features, 2 * features)
            nn.init.xavier_uniform_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)
        else:
            self.parameters_of_all = nn.Parameter(torch.zeros(1, 2 * features))

    def condition(self, context: Context) -> Conditioned:
        """μ and σ of each example, as a :class:`Normal`."""
        if isinstance(context, Conditioned):
            return context
        check_context(context, self.context_features)
        parameters = self.parameters_of_all if context is None else self.linear(context)
        mean, raw = parameters.chunk(2, dim=-1)
        return Conditioned(Normal(mean, bounded(raw)), lead_of(context))

    def log_prob(self, y: Tensor, context: Context = None) -> Tensor:
        check_shape("y", y, self.features)
        return self.condition(context).value.log_prob(y)

    def sample(
        self, num_samples: int = 1, context: Context = None, noise: Noise | None = None, temperature: float = 1.0
    ) -> Tensor:
        return self.condition(context).value.at(
            check_temperature(temperature) * self._epsilon(num_samples, context, noise)
        )

    def rsample_with_log_prob(
        self,
        num_samples: int = 1,
        context: Context = None,
        noise: Noise | None = None,
        path_weights: PathWeights | None = None,
    ) -> tuple[Tensor, Tensor]:
        """y = μ + σ ⊙ ε and its log-density, ε ~ N(0, I).

        Args:
            path_weights: where given, μ and σ are constants in the log-density. All their gradient comes through y,
                and is multiplied there by these weights.
        """
        normal, epsilon = self.condition(context).value, self._epsilon(num_samples, context, noise)
        y = normal.at(epsilon)
        if path_weights is None:
            return y, normal.log_prob_at(epsilon)
        y = path_weights.attach(y)
        fixed = Normal(normal.mean.detach(), normal.log_scale.detach())
        return y, fixed.log_prob_at(epsilon + (y - y.detach()) * (-fixed.log_scale).exp())

    def mean(self, context: Context = None) -> Tensor:
        return self.condition(context).value.mean

    def _epsilon(self, num_samples: int, context: Context, noise: Noise | None) -> Tensor:
        return self._source(noise, context, num_samples).normal(
            "posterior", num_samples, self.event_shape, self.zero.dtype
        )


class GaussianDensity(DataDependent, CodedDistribution):
    """N(μ, Σ) with the mean and the covariance of the training data, of maximum likelihood in closed form.

        log p(z) = −½ ‖L⁻¹(z − μ)‖² − Σ_i log L_ii − ½ D log 2π,    Σ = L Lᵀ.

    Args:
        features: D.
        context_features: 0, since it takes no context.
        covariance: full, or diagonal.
    """

    takes_training_set = True
    places: Tensor

    def __init__(
        self, features: int, context_features: int = 0, covariance: Literal["full", "diagonal"] = "full"
    ) -> None:
        super().__init__((features,), context_features)
        refuse_context(self, context_features)
        full = covariance == "full"
        rows, columns = torch.tril_indices(features, features) if full else torch.arange(features).expand(2, -1)
        self.register_buffer("places", torch.stack([rows, columns]), persistent=False)
        self.mu = nn.Parameter(torch.full((features,), torch.nan, dtype=torch.float64), requires_grad=False)
        self.entries = nn.Parameter((rows == columns).double(), requires_grad=False)  # of L, which are not zero

    def start(self, x: Tensor) -> None:
        """The diagonal alone: a first batch may be small. :meth:`refresh` replaces it."""
        mean, variance = moments([x])
        self.mu.copy_(mean)
        self.entries.copy_(torch.diag(variance.clamp(min=1e-12).sqrt())[*self.places])

    @torch.no_grad()
    def refresh(self, y: list[Tensor], context: list[Tensor | None]) -> None:
        mean, variance = moments(y)
        self.mu.copy_(mean)
        covariance = torch.diag(variance)
        if len(self.entries) > self.features:
            products = sum(((batch.double() - mean).mT @ (batch.double() - mean) for batch in y), torch.zeros(()))
            count = sum_over_processes(torch.tensor(float(sum(len(batch) for batch in y)), device=mean.device))
            covariance = sum_over_processes(products) / count
        factor, info = torch.linalg.cholesky_ex(covariance)
        if info or not bool((factor.diagonal() > 1e-7 * factor.diagonal().max()).all()):
            raise VaeflowError(
                "the covariance of the training data is singular: some dimensions are constant or linear functions of "
                "others, so their density has no bound; leave them out, or take more data."
            )
        self.entries.copy_(factor[*self.places])
        self.started.fill_(True)

    @property
    def factor(self) -> Tensor:
        """L, ``(D, D)``."""
        return self.mu.new_zeros(self.features, self.features).index_put(tuple(self.places), self.entries)

    def log_prob(self, y: Tensor, context: Context = None) -> Tensor:
        white = self._white(y)
        constant = self.factor.diagonal().log().sum() + 0.5 * self.features * math.log(2 * math.pi)
        return (-0.5 * torch.linalg.vecdot(white, white) - constant).to(y.dtype)

    def _white(self, y: Tensor) -> Tensor:
        self.see(y)
        return torch.linalg.solve_triangular(self.factor.mT, y.double() - self.mu, upper=True, left=False)

    def sample(
        self, num_samples: int = 1, context: Context = None, noise: Noise | None = None, temperature: float = 1.0
    ) -> Tensor:
        epsilon = self._source(noise, context, num_samples).normal(
            "base", num_samples, self.event_shape, self.zero.dtype
        )
        return self.decode(check_temperature(temperature) * epsilon)

    def mean(self, context: Context = None) -> Tensor:
        return self.mu.to(self.zero.dtype).expand(*self._lead(context), -1)

    def encode(self, y: Tensor, context: Context = None) -> Tensor:
        return self._white(y).to(y.dtype)

    def decode(self, code: Tensor, context: Context = None) -> Tensor:
        self.require_started()
        return (self.mu + code.double() @ self.factor.mT).to(code.dtype)

    def icdf(self, u: Tensor) -> Tensor:
        return torch.special.ndtri(u)


class GaussianMixture(DataDependent, Distribution):
    """Σ_c π_c N(μ_c, diag σ_c²), trained by gradient, logarithms of the σ bounded smoothly to ±7.

    Its means start near random examples of the first batch and its scales at that batch's.

    Args:
        features: D.
        context_features: 0, since it takes no context.
        components: C.
    """

    is_reparameterised = False

    def __init__(self, features: int, context_features: int = 0, components: int = 10) -> None:
        super().__init__((features,), context_features)
        refuse_context(self, context_features)
        check_positive(components=components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, features))
        self.log_scales = nn.Parameter(torch.zeros(components, features))

    def start(self, x: Tensor) -> None:
        _, variance = moments([x])
        x = x.flatten(0, -2)
        generator = torch.Generator().manual_seed(0)
        components = len(self.logits)
        order = torch.randperm(len(x), generator=generator).repeat(components // len(x) + 1)[:components]
        jitter = 0.1 * torch.randn(self.means.shape, generator=generator).to(x)
        self.means.copy_(x[order.to(x.device)] + jitter * variance.sqrt().to(x))  # no two alike
        self.log_scales.copy_(0.5 * variance.clamp(min=1e-6).log())

    def log_prob(self, y: Tensor, context: Context = None) -> Tensor:
        self.see(y)
        log_scales = bounded(self.log_scales)
        white = (y.unsqueeze(-2) - self.means) * (-log_scales).exp()
        log_components = (
            -0.5 * white.square().sum(-1) - log_scales.sum(-1) - 0.5 * self.features * math.log(2 * math.pi)
        )
        return torch.logsumexp(log_components + self.logits.log_softmax(-1), dim=-1)

    def sample(
        self, num_samples: int = 1, context: Context = None, noise: Noise | None = None, temperature: float = 1.0
    ) -> Tensor:
        source, dtype = self._source(noise, context, num_samples), self.zero.dtype
        c = pick(self.logits.softmax(-1), source.uniform("component", num_samples, (1,), dtype))
        epsilon = check_temperature(temperature) * source.normal("base", num_samples, self.event_shape, dtype)
        return self.means[c] + bounded(self.log_scales[c]).exp() * epsilon

    def mean(self, context: Context = None) -> Tensor:
        return (self.logits.softmax(-1) @ self.means).expand(*self._lead(context), -1)


class DeepGaussianMixture(Distribution):
    """z = A_{L,c_L}(… A_{1,c_1}(ε)), ε ~ N(0, I): each layer picks one of its affine maps at random.

    A path c = (c_1, …, c_L) makes a Gaussian N(μ_c, M_c M_cᵀ) of weight Π_l π_{l,c_l}, so the density is a mixture of
    as many Gaussians as there are paths, and its logarithm is the exact sum over all of them:

        log p(z) = log Σ_c Π_l π_{l,c_l} N(z; μ_c, M_c M_cᵀ).

    Paths share layers: layer by layer from the data, every prefix of a path is inverted once. Each map is
    A(h) = L U h + b with L, U triangular and the diagonal of U exp(s), s bounded smoothly to ±7, so none can become
    singular. Trained by gradient (the paper has an EM algorithm with sampled paths).

    Source: van den Oord & Schrauwen 2014, "Factoring Variations in Natural Images with Deep Gaussian Mixture Models",
    NIPS 27.

    Args:
        features: D.
        context_features: 0, since it takes no context.
        components: of each layer, from the base to the data; refused where their product, the number of paths,
            exceeds 4,096.
    """

    is_reparameterised = False

    def __init__(self, features: int, context_features: int = 0, components: Sequence[int] = (4, 4, 4)) -> None:
        super().__init__((features,), context_features)
        refuse_context(self, context_features)
        check_positive(
            **{"number of layers": len(components)}, **{f"components[{i}]": c for i, c in enumerate(components)}
        )
        self.paths = math.prod(components)
        if self.paths > MOST_PATHS:
            raise VaeflowError(
                f"layers of {' × '.join(map(str, components))} components have {self.paths:,} paths, expected at most "
                f"{MOST_PATHS:,}: the likelihood is a sum over all of them."
            )
        self.logits = nn.ParameterList(torch.zeros(c) for c in components)
        self.triangles = nn.ParameterList(0.01 * torch.randn(c, features, features) for c in components)
        self.log_diagonals = nn.ParameterList(0.1 * torch.randn(c, features) for c in components)
        self.biases = nn.ParameterList(torch.randn(c, features) / len(components) ** 0.5 for c in components)

    def log_prob(self, y: Tensor, context: Context = None) -> Tensor:
        """Works on ``(paths, rows, features)``, from the data's layer to the base's."""
        h = y.reshape(1, -1, self.features)
        log_weights = y.new_zeros(1, 1)
        for layer in reversed(range(len(self.logits))):
            lower, upper, s = self._factors(layer)
            h = h.unsqueeze(1) - self.biases[layer][:, None]  # (paths, components, rows, features)
            h = solve_lu(lower, upper, h).flatten(0, 1)
            log_weight = self.logits[layer].log_softmax(-1) - s.sum(-1)
            log_weights = (log_weights.unsqueeze(1) + log_weight[:, None]).flatten(0, 1)
        log_base = -0.5 * (h.square().sum(-1) + self.features * math.log(2 * math.pi))
        return torch.logsumexp(log_base + log_weights, dim=0).reshape(y.shape[:-1])

    def sample(
        self, num_samples: int = 1, context: Context = None, noise: Noise | None = None, temperature: float = 1.0
    ) -> Tensor:
        source, dtype = self._source(noise, context, num_samples), self.zero.dtype
        h = check_temperature(temperature) * source.normal("base", num_samples, self.event_shape, dtype)
        for layer in range(len(self.logits)):
            lower, upper, _ = self._factors(layer)
            uniform = source.uniform(f"component {layer}", num_samples, (1,), dtype)
            c = pick(self.logits[layer].softmax(-1), uniform)
            h = ((lower @ upper)[c] @ h.unsqueeze(-1)).squeeze(-1) + self.biases[layer][c]
        return h

    def _factors(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """L, U ``(components, D, D)`` and log diagonal of U ``(components, D)``."""
        s = bounded(self.log_diagonals[layer])
        return *lu_factors(self.triangles[layer], s), s


def pick(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The index below whose cumulative probability a uniform number lies: ``(..., C)`` and ``(..., 1)`` → ``(...)``."""
    below = uniform > probabilities.cumsum(-1)
    return below.sum(-1).clamp(max=probabilities.shape[-1] - 1)


def refuse_context(density: Distribution, context_features: int) -> None:
    """Raise a :class:`VaeflowError` if there is a context."""
    if context_features:
        raise VaeflowError(f"{type(density).__name__} takes no context: leave class_conditional false.")
