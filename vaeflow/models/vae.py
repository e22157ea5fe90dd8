"""The variational autoencoder (Kingma & Welling 2014, arXiv 1312.6114), its posterior refined by any flow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vaeflow.bijections import Bijection, Standardise
from vaeflow.distributions import (
    CodedDistribution,
    DiagonalGaussian,
    Distribution,
    Factorised,
    FlowDensity,
    Likelihood,
    PathWeights,
    StandardNormal,
)
from vaeflow.distributions.base import Given, full_precision
from vaeflow.distributions.heads import likelihood_for
from vaeflow.errors import NoAnswer, VaeflowError, check_positive
from vaeflow.estimate import Group, Terms
from vaeflow.latents import LatentSpace
from vaeflow.models.base import refuse_statistics
from vaeflow.models.latent import LatentVariableModel
from vaeflow.nets import Decoder, Encoder, MLPDecoder, MLPEncoder
from vaeflow.noise import Noise
from vaeflow.objectives import ELBO, Objective


@dataclass(frozen=True)
class Inferred:
    """What a VAE infers from x.

    Args:
        x: ``(batch, *shape)``.
        context: of the batch.
        q: q(z|x).
    """

    x: Tensor
    context: Tensor | None
    q: Given


class VAE(LatentVariableModel):
    """p(x) = ∫ p(x|z) p(z) dz, trained through an approximate posterior q(z|x), a Gaussian that a flow may refine.

        z₀ = μ(x) + σ(x) ⊙ ε,  ε ~ N(0, I),    z = f(z₀; x),
        log q(z|x) = log N(z₀; μ, σ²) − log |det ∂f/∂z₀|,
        ELBO = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)) ≤ log p(x).

    The KL is in closed form where q is Gaussian and p(z) = N(0, I); otherwise it is estimated by
    log q(z|x) − log p(z) at the very z drawn.

    Sources: Kingma & Welling 2014, arXiv 1312.6114; Rezende & Mohamed 2015, arXiv 1505.05770 (flows);
    Kingma et al. 2016, arXiv 1606.04934 (IAF).

    Args:
        latent_features: D, the dimension of z.
        encoder: makes the net x, context → features, of the data's shape and the context's dimension.
        decoder: makes the net z → parameters of p(x|z), of the dimension of z, with labels where there are any, and the
            output's shape.
        flow: makes f of D and the dimension of the encoder's features, which are its context; None for a Gaussian q.
        posterior: makes q of the same two numbers, any distribution with the encoder's features as its context: in
            place of a Gaussian and ``flow``.
        likelihood: makes p(x|z) of the data's shape and levels; by default Bernoulli for binary, discretised logistic
            for integer and Gaussian for continuous data.
        prior: makes p(z) of D and the context's dimension.
        objective: makes what it is trained by: ELBO, or IWAE for the importance-weighted bound.
    """

    takes_path_weights = True
    data_mean: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int | None = None,
        num_classes: int = 0,
        class_conditional: bool = False,
        latent_features: int = 16,
        encoder: Callable[[Sequence[int], int], Encoder] = MLPEncoder,
        decoder: Callable[[int, Sequence[int]], Decoder] = MLPDecoder,
        flow: Callable[[int, int], Bijection] | None = None,
        posterior: Callable[[int, int], Distribution] | None = None,
        likelihood: Callable[[Sequence[int], int | None], Likelihood] | None = None,
        prior: Callable[[int, int], Distribution] = StandardNormal,
        objective: Callable[[], Objective] = ELBO,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.Adam,
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(shape, levels, num_classes, class_conditional, objective, optimizer, lr_scheduler, seed)
        check_positive(latent_features=latent_features)
        if flow is not None and posterior is not None:
            raise VaeflowError("flow refines the Gaussian posterior, and posterior takes its place: set one of them.")
        self.latent_features = latent_features
        self.encoder = encoder(self.shape, self.context_features)
        features = self.encoder.features
        if flow is not None:
            self.posterior: Distribution = FlowDensity(latent_features, features, flow, DiagonalGaussian)
        else:
            self.posterior = (posterior or DiagonalGaussian)(latent_features, features)
        base = self.posterior.base if isinstance(self.posterior, FlowDensity) else self.posterior
        if self.objective.uses_path_weights and not isinstance(base, DiagonalGaussian):
            raise VaeflowError(
                "the doubly reparameterised gradient is that of a Gaussian posterior, or of a flow on one, but this is "
                f"on {type(base).__name__}: leave it out of model.objective."
            )
        self.prior = prior(latent_features, self.context_features)
        for name, part in (("posterior", self.posterior), ("prior", self.prior)):
            if part.event_shape != (latent_features,):
                raise VaeflowError(f"the {name} is of {part.event_shape}, expected latents ({latent_features},).")
        refuse_statistics(self.posterior, self.prior)
        head = (likelihood or likelihood_for(levels))(self.shape, levels)
        given = latent_features + self.context_features
        self.observation = Factorised(decoder(given, head.decoder_shape), head, given)
        self.standardise = Standardise(self.shape) if levels is None else None
        self.register_buffer("data_mean", torch.zeros(self.shape))
        if levels is None:
            self.reported = (*self.reported, "log_det")
        self.declare_groups({"z": (latent_features,)})

    # ---------------------------------------------------------------------------------------- inferring and weighing

    def infer(self, x: Tensor, context: Tensor | None) -> Inferred:
        features = self._features(x, context)
        with full_precision(x):
            return Inferred(x, context, Given(self.posterior, self.posterior.condition(features)))

    def terms(
        self, inferred: Inferred, noise: Noise, num_samples: int, path_weights: PathWeights | None = None
    ) -> Terms:
        x, q = inferred.x, inferred.q
        further: dict[str, Any] = {} if path_weights is None else {"path_weights": path_weights}
        with full_precision(x):
            z, log_q = self.posterior.rsample_with_log_prob(num_samples, q.context, noise, **further)
        log_likelihood, log_p, log_det = self._log_joint(x, z, noise, inferred.context)
        kl = None
        if isinstance(self.posterior, DiagonalGaussian) and isinstance(self.prior, StandardNormal):
            kl = self.posterior.condition(q.context).value.kl().unsqueeze(0)
        reported = {} if log_det is None else {"log_det": log_det}
        return Terms(log_likelihood, {"z": Group(z, log_q, log_p, kl)}, reported)

    def generate(
        self,
        noise: Noise,
        context: Tensor | None,
        given: Mapping[str, Tensor],
        temperature: float = 1.0,
        mean: bool = False,
    ) -> Tensor:
        z = given["z"] if "z" in given else self.prior.sample(1, context, noise, temperature)[0]
        z = self._with_labels(z, context)
        x = self.observation.mean(z) if mean else self.observation.sample(1, z, noise)[0]
        return x if self.standardise is None else self.standardise(x.double())[0]

    def posterior_of(self, x: Tensor, context: Tensor | None = None) -> Given:
        """q(z|x) for each example of a batch ``(batch, *shape)``."""
        return self.infer(*self._checked_given(x, context)).q

    def log_joint(self, x: Tensor, z: Tensor, noise: Noise, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """log p(x|z) and log p(z), both ``(num_samples, batch)`` in nats, of z ``(num_samples, batch, D)``."""
        x, context = self._checked_given(x, context)
        z = self._checked_code(z, self.latent_features)
        if z.dim() != 3 or (z.shape[1] != len(x) and 1 not in (z.shape[1], len(x))):
            raise VaeflowError(
                f"z has shape {tuple(z.shape)}, expected (num_samples, {len(x)}, {self.latent_features}), codes for "
                "each example, or for all."
            )
        return self._log_joint(x, z, self._checked_noise(noise, len(x), x.device), context)[:2]

    def _log_joint(
        self, x: Tensor, z: Tensor, noise: Noise, context: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """log p(x|z), log p(z), and of continuous data the log-determinant of their standardisation."""
        log_det = None
        if self.standardise is not None:
            x, log_det = self._standardised(x)
        elif self.observation.head.dequantises:
            x = x + noise.uniform("dequantisation", len(z), self.shape, self.dtype)
        with full_precision(x):
            log_p = self.prior.log_prob(z, context)
        log_likelihood = self.observation.log_prob(x, self._with_labels(z, context))
        if log_det is not None:
            log_likelihood, log_det = log_likelihood + log_det, log_det.expand_as(log_likelihood)
        return log_likelihood, log_p, log_det

    def _with_labels(self, z: Tensor, context: Tensor | None) -> Tensor:
        """What the observation is conditioned on, ``(..., batch, D + context_features)``."""
        return z if context is None else torch.cat([z, context.expand(*z.shape[:-1], -1)], dim=-1)

    # -------------------------------------------------------------------------------------------------------- codes

    def code_of(self, inferred: Inferred, noise: Noise, temperature: float) -> Tensor:
        return inferred.q.sample(1, noise, temperature)[0]

    @property
    def latent_spaces(self) -> dict[str, LatentSpace]:
        if not (isinstance(self.posterior, FlowDensity) and isinstance(self.posterior.base, DiagonalGaussian)):
            return super().latent_spaces
        base, flow = self.posterior.base, self.posterior.flow
        parts = {"z0": slice(0, self.latent_features), "features": slice(self.latent_features, None)}

        def encode(x: Tensor, context: Tensor | None) -> Tensor:
            features = self._features(*self._checked_given(x, context))
            return torch.cat([base.condition(features).value.mean, features], dim=-1)

        def decode(code: Tensor, context: Tensor | None) -> Tensor:
            code = self._checked_code(code, self.latent_features + self.encoder.features)
            z_0, features = code[..., parts["z0"]], code[..., parts["features"]]
            return self.decode(flow(z_0, flow.condition(features))[0], context)

        before = LatentSpace("z₀ and the encoder's features", encode, decode, parts, straight=("features",))
        return {**super().latent_spaces, "z0": before}

    def icdf(self, u: Tensor) -> Tensor:
        u = self._checked_cube(u)
        if not isinstance(self.prior, CodedDistribution):
            raise NoAnswer(f"{type(self.prior).__name__} has no latent space with a cumulative distribution.")
        return self.prior.decode(self.prior.icdf(u).to(self.dtype))

    # --------------------------------------------------------------------------------------------- data to nets

    def initialise(self, data: Any) -> None:
        mean, scale = data.statistics()
        self.data_mean.copy_(mean)
        bias = self.observation.decoder.output_bias
        if self.standardise is not None:
            self.standardise.set(mean, scale, data.dimension_name)
        elif bias is not None:
            self.observation.head.start(mean, scale, bias)
        super().initialise(data)

    def _features(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.encoder(self._centred(x), context).to(self.dtype)

    def _centred(self, x: Tensor) -> Tensor:
        """x as the encoder sees it: continuous data standardised, integers about their mean in the training set and
        divided by L − 1, since pixels that are nearly always black, seen as −1, drown what differs between images."""
        return self._standardised(x)[0] if self.levels is None else (x - self.data_mean) / (self.levels - 1)

    def _standardised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Continuous data in units of their standard deviation, and the log-determinant of that."""
        assert self.standardise is not None
        standardised, log_det = self.standardise.inverse(x)
        return standardised.to(self.dtype), log_det.to(self.dtype)
