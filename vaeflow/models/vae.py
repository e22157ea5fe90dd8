"""The variational autoencoder (Kingma & Welling 2014, arXiv 1312.6114), its posterior refined by any flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vaeflow.bijections import Bijection, Standardise
from vaeflow.distributions import ConditionedPosterior, Density, Gaussian, Likelihood, Posterior, StandardNormal
from vaeflow.distributions.heads import likelihood_for
from vaeflow.errors import VaeflowError, check_positive
from vaeflow.estimate import LogWeights, log_mean_exp, mean_over_processes
from vaeflow.latents import LatentSpace
from vaeflow.models.base import refuse_statistics
from vaeflow.models.coded import CodedModel
from vaeflow.nets import Decoder, Encoder, MLPDecoder, MLPEncoder
from vaeflow.noise import Noise


class VAE(CodedModel):
    """p(x) = ∫ p(x|z) p(z) dz, trained through an approximate posterior q(z|x), a Gaussian that a flow may refine.

        z₀ = μ(x) + σ(x) ⊙ ε,  ε ~ N(0, I),    z = f(z₀; x),
        log q(z|x) = log N(z₀; μ, σ²) − log |det ∂f/∂z₀|,
        ELBO = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)) ≤ log p(x).

    The KL is in closed form where q is Gaussian and p(z) = N(0, I); otherwise it is estimated by
    log q(z|x) − log p(z) at the very z drawn, which may come out below zero for single examples though its mean
    cannot. The importance-weighted objective is log (1/k) Σ_k p(x, z_k)/q(z_k|x), of the same log-weights.

    Sources: Kingma & Welling 2014, arXiv 1312.6114; Rezende & Mohamed 2015, arXiv 1505.05770 (flows);
    Kingma et al. 2016, arXiv 1606.04934 (IAF, free bits); Burda et al. 2016, arXiv 1509.00519 (IWAE); Tucker et al.
    2018, arXiv 1810.04152 (its doubly reparameterised gradient).

    Args:
        latent_features: D, the dimension of z.
        encoder: makes the net x, context → features, of the data's shape and the context's dimension.
        decoder: makes the net z, context → parameters of p(x|z), of D, the context's dimension and the output's shape.
        flow: makes f of D and the dimension of the encoder's features, which are its context; None for a Gaussian q.
        likelihood: makes p(x|z) of the data's shape and levels; by default Bernoulli for binary, discretised logistic
            for integer and Gaussian for continuous data.
        prior: makes p(z) of D and the context's dimension.
        objective: elbo, or iwae for the importance-weighted bound.
        num_samples: draws of z for each example in training: averaged by elbo, k of iwae.
        gradient_samples: m of the k draws of iwae, picked with probability w_k / Σ w, through which its gradient goes,
            Σ_k (w_k / Σ w) ∇ log w_k in expectation (section 3 of its paper); the decoder sees m draws at a time,
            which bounds its memory. By default it goes through all k at once, two to three times the work where k is
            large.
        doubly_reparameterised: whether the gradient of iwae by φ = (μ, σ) is Σ_k (w_k / Σ w)² (∂ log w_k / ∂z₀)
            ∂z₀/∂φ, φ constant in log w_k: the same in expectation. Its noise is less where q is as wide as the true
            posterior or wider, and does not drown it as k grows; where q is much too narrow it is more. A flow, and
            what reaches the encoder as its context, keep the usual gradient.
        kl_warmup_epochs: β, the weight of the KL in the training loss of elbo, rises from 0 to 1 over so many epochs.
        free_bits: λ in nats. The loss of elbo counts at least λ for the KL of each group, averaged over the global
            batch: of each dimension where the KL is in closed form, of all of z where it is estimated.
    """

    kind = "importance-sampled"
    combining = "log_mean_exp"
    evaluation_samples = 1000
    data_mean: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int | None = None,
        num_classes: int = 0,
        class_conditional: bool = False,
        latent_features: int = 16,
        encoder: Callable[[Sequence[int], int], Encoder] = MLPEncoder,
        decoder: Callable[[int, int, Sequence[int]], Decoder] = MLPDecoder,
        flow: Callable[[int, int], Bijection] | None = None,
        likelihood: Callable[[Sequence[int], int | None], Likelihood] | None = None,
        prior: Callable[[int, int], Density] = StandardNormal,
        objective: Literal["elbo", "iwae"] = "elbo",
        num_samples: int = 1,
        gradient_samples: int | None = None,
        doubly_reparameterised: bool = False,
        kl_warmup_epochs: float = 0.0,
        free_bits: float = 0.0,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.Adam,
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        seed: int = 0,
    ) -> None:
        if objective == "iwae" and (kl_warmup_epochs or free_bits):
            raise VaeflowError(
                "kl_warmup_epochs and free_bits change the KL of the ELBO; objective iwae has none: set both to 0."
            )
        if objective == "iwae" and num_samples < 2:
            raise VaeflowError(f"objective iwae with num_samples {num_samples} is the ELBO: set model.num_samples.")
        if gradient_samples is not None and gradient_samples > num_samples:
            raise VaeflowError(f"gradient_samples is {gradient_samples}, of num_samples {num_samples} draws.")
        if gradient_samples is not None and objective != "iwae":
            raise VaeflowError("gradient_samples are picked among the draws of objective iwae: set model.objective.")
        if doubly_reparameterised and objective != "iwae":
            raise VaeflowError("doubly_reparameterised is a gradient of objective iwae alone: set model.objective.")
        names = ("objective", "nll", "elbo", "kl", "reconstruction")
        self.logged = (*names, "iwae") if objective == "iwae" else names
        super().__init__(shape, levels, num_classes, class_conditional, optimizer, lr_scheduler, seed)
        check_positive(
            latent_features=latent_features,
            num_samples=num_samples,
            gradient_samples=num_samples if gradient_samples is None else gradient_samples,
        )
        self.objective_name = "ELBO" if objective == "elbo" else f"IWAE, k = {num_samples}"
        self.latent_features, self.objective = latent_features, objective
        self.num_samples, self.gradient_samples = num_samples, gradient_samples
        self.doubly_reparameterised = doubly_reparameterised
        self.kl_warmup_epochs, self.free_bits = kl_warmup_epochs, free_bits
        self.encoder = encoder(self.shape, self.context_features)
        self.posterior = Posterior(self.encoder.features, latent_features, flow)
        self.prior = prior(latent_features, self.context_features)
        refuse_statistics(self.posterior, self.prior)
        self.likelihood = (likelihood or likelihood_for(levels))(self.shape, levels)
        if gradient_samples is not None and isinstance(self.likelihood, Gaussian) and self.likelihood.dequantises:
            raise VaeflowError("a Gaussian likelihood of integers draws noise for each z: leave out gradient_samples.")
        self.decoder = decoder(latent_features, self.context_features, self.likelihood.decoder_shape)
        self.analytic_kl = flow is None and isinstance(self.prior, StandardNormal)
        self.standardise = Standardise(self.shape) if levels is None else None
        self.reported = ("elbo", "kl", "reconstruction", *(("log_det",) if levels is None else ()))
        self.register_buffer("data_mean", torch.zeros(self.shape))

    # ------------------------------------------------------------------------------------------------ the bound

    def losses(self, x: Tensor, noise: Noise, context: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        x, context = self._checked_given(x, context)
        noise = self._checked_noise(noise, len(x), x.device)
        q = self._inferred(x, context)
        epsilon = q.epsilon(noise, self.num_samples)
        has_gradient = torch.is_grad_enabled()
        m = self.gradient_samples if has_gradient else None
        path_weights = list[Tensor]() if self.doubly_reparameterised and has_gradient else None
        with torch.set_grad_enabled(has_gradient and m is None):
            parts = epsilon.split(self.gradient_samples or self.num_samples)
            terms = [self._terms_at(part, x, q, noise, context, path_weights) for part in parts]
            reconstruction, log_ratio = (torch.cat(term) for term in zip(*terms, strict=True))
            kl_by_group = self._kl_by_group(q, log_ratio)
        values = _elbo_terms(reconstruction, kl_by_group)
        values["nll"] = -values["elbo"]
        if self.objective == "elbo":
            loss = reconstruction.mean() + self.beta * self._with_free_bits(kl_by_group.mean(0))
            return loss, {**values, "objective": values["nll"]}
        log_weights = -reconstruction - log_ratio
        iwae = log_mean_exp(log_weights)
        values |= {"iwae": iwae, "objective": -iwae}
        shares = torch.softmax(log_weights.detach(), 0)  # w_k / Σ w
        if m is not None:
            k = _picked(shares, m, noise)
            epsilon, shares = epsilon.take_along_dim(k.unsqueeze(-1), 0), shares.take_along_dim(k, 0)
        if path_weights is not None:
            path_weights.append(shares)
        if m is None:
            return -iwae.mean(), values
        loss = torch.stack(self._terms_at(epsilon, x, q, noise, context, path_weights)).sum(0).mean()
        return loss - loss.detach() - iwae.mean(), values  # the bound, with the gradient of the picked draws

    def infer(self, x: Tensor, context: Tensor | None = None) -> ConditionedPosterior:
        """q(z|x) for each example of a batch ``(batch, *shape)``."""
        return self._inferred(*self._checked_given(x, context))

    def _inferred(self, x: Tensor, context: Tensor | None) -> ConditionedPosterior:
        features = self._features(x, context)
        with full_precision(x):
            return self.posterior(features)

    def _features(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.encoder(self._centred(x), context).to(self.dtype)

    def terms(
        self, x: Tensor, q: ConditionedPosterior, noise: Noise, num_samples: int, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """−log p(x|z) and log q(z|x) − log p(z) at draws of z, both ``(num_samples, batch)``, in nats."""
        return self._terms_at(q.epsilon(noise, num_samples), x, q, noise, context)

    def _terms_at(
        self,
        epsilon: Tensor,
        x: Tensor,
        q: ConditionedPosterior,
        noise: Noise,
        context: Tensor | None,
        path_weights: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        with full_precision(x):
            z, log_q = q.at(epsilon, path_weights)
        log_likelihood, log_prior = self._log_joint(x, z, noise, context)
        return -log_likelihood, log_q - log_prior

    def log_joint(self, x: Tensor, z: Tensor, noise: Noise, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """log p(x|z) and log p(z), both ``(num_samples, batch)`` in nats, of z ``(num_samples, batch, D)``."""
        x, context = self._checked_given(x, context)
        z = self._checked_code(z, self.latent_features)
        if z.dim() != 3 or (z.shape[1] != len(x) and 1 not in (z.shape[1], len(x))):
            raise VaeflowError(
                f"z has shape {tuple(z.shape)}, expected (num_samples, {len(x)}, {self.latent_features}), codes for "
                "each example, or for all."
            )
        return self._log_joint(x, z, self._checked_noise(noise, len(x), x.device), context)

    def _log_joint(self, x: Tensor, z: Tensor, noise: Noise, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_det = (x, 0.0) if self.standardise is None else self._standardised(x)
        with full_precision(x):
            log_prior = self.prior.log_prob(z, context)
        output = self.decoder(z, context)
        with full_precision(x):
            return self.likelihood.log_prob(x, output.to(self.dtype), noise) + log_det, log_prior

    def report(self, x: Tensor, noise: Noise, num_samples: int, context: Tensor | None = None) -> dict[str, Tensor]:
        x, context = self._checked_given(x, context)
        check_positive(num_samples=num_samples)
        noise = self._checked_noise(noise, len(x), x.device)
        q = self._inferred(x, context)
        reconstruction, log_ratio = self.terms(x, q, noise, num_samples, context)
        terms = _elbo_terms(reconstruction, self._kl_by_group(q, log_ratio))
        return terms if self.standardise is None else {**terms, "log_det": self.standardise.inverse(x)[1]}

    def _kl_by_group(self, q: ConditionedPosterior, log_ratio: Tensor) -> Tensor:
        """``(batch, groups)``: of each dimension where the KL is in closed form, of all of z where it is estimated."""
        return q.kl_to_standard_normal() if self.analytic_kl else log_ratio.mean(0).unsqueeze(-1)

    @property
    @torch.compiler.disable
    def beta(self) -> float:
        """The weight of the KL in the training loss, 1 outside training."""
        if not self.training or not self.kl_warmup_epochs:
            return 1.0
        # an epoch ends with a step, whatever is left
        steps_per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        return min(1.0, self.global_step / (self.kl_warmup_epochs * steps_per_epoch))

    def _with_free_bits(self, kl: Tensor) -> Tensor:
        """Σ_j max(λ, KL_j) of KLs ``(groups,)`` in training. Whether the maximum is λ is decided by the mean over all
        processes; the gradient, averaged over them by DDP, is then that of the global batch."""
        if not self.free_bits or not self.training:
            return kl.sum()
        return torch.where(mean_over_processes(kl.detach()) > self.free_bits, kl, self.free_bits).sum()

    # ---------------------------------------------------------------------------------------- the four questions

    def log_weights_of(self, x: Tensor, context: Tensor | None = None) -> LogWeights:
        x, context = self._checked_given(x, context)
        q = self._inferred(x, context)

        def log_weights(noise: Noise, num_samples: int) -> Tensor:
            noise = self._checked_noise(noise, len(x), x.device)
            reconstruction, log_ratio = self.terms(x, q, noise, num_samples, context)
            return -reconstruction - log_ratio

        return log_weights

    @torch.no_grad()
    def sample(
        self, n: int, noise: Noise, context: Tensor | None = None, temperature: float = 1.0, mean: bool = False
    ) -> Tensor:
        noise, context = self._checked_draw(n, noise, context)
        output = self.decoder(self.prior.sample(noise, context, temperature), context)
        return self._in_units_of_data(self.likelihood.mean(output) if mean else self.likelihood.sample(output, noise))

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.infer(x, context).centre()

    def reconstruct(self, x: Tensor, noise: Noise, context: Tensor | None = None, temperature: float = 0.0) -> Tensor:
        q = self.infer(x, context)
        return self.decode(q.sample(self._checked_noise(noise, len(x), x.device), temperature), context)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        z = self._checked_code(z, self.latent_features)
        context = self._checked_context_of(z, context)
        return self._in_units_of_data(self.likelihood.mean(self.decoder(z, context)))

    @property
    def latent_slices(self) -> dict[str, slice]:
        return {"z": slice(0, self.latent_features)}

    @property
    def latent_spaces(self) -> dict[str, LatentSpace]:
        flow = self.posterior.flow
        if flow is None:
            return super().latent_spaces
        parts = {"z0": slice(0, self.latent_features), "features": slice(self.latent_features, None)}

        def encode(x: Tensor, context: Tensor | None) -> Tensor:
            features = self._features(*self._checked_given(x, context))
            return torch.cat([self.posterior(features).mean, features], dim=-1)

        def decode(code: Tensor, context: Tensor | None) -> Tensor:
            code = self._checked_code(code, self.latent_features + self.encoder.features)
            z_0, features = code[..., parts["z0"]], code[..., parts["features"]]
            return self.decode(flow(z_0, flow.condition(features))[0], context)

        before = LatentSpace("z₀ and the encoder's features", encode, decode, parts, straight=("features",))
        return {**super().latent_spaces, "z0": before}

    def icdf(self, u: Tensor) -> Tensor:
        return self.prior.decode(self.prior.icdf(self._checked_cube(u)).to(self.dtype))

    # --------------------------------------------------------------------------------------------- data to nets

    def initialise(self, data: Any) -> None:
        mean, scale = data.statistics()
        self.data_mean.copy_(mean)
        if self.standardise is not None:
            self.standardise.set(mean, scale, data.dimension_name)
        elif self.decoder.output_bias is not None:
            self.likelihood.start(mean, scale, self.decoder.output_bias)

    def _standardised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Continuous data in units of their standard deviation, and the log-determinant of that."""
        assert self.standardise is not None
        standardised, log_det = self.standardise.inverse(x)
        return standardised.to(self.dtype), log_det.to(self.dtype)

    def _in_units_of_data(self, x: Tensor) -> Tensor:
        return x if self.standardise is None else self.standardise(x.double())[0]

    def _centred(self, x: Tensor) -> Tensor:
        """x as the encoder sees it: continuous data standardised, integers about their mean in the training set and
        divided by L − 1, since pixels that are nearly always black, seen as −1, drown what differs between images."""
        return self._standardised(x)[0] if self.levels is None else (x - self.data_mean) / (self.levels - 1)


def full_precision(like: Tensor) -> torch.autocast:
    """Mixed precision is for the nets: logarithms of densities, added up over dimensions, need all their digits."""
    return torch.autocast(like.device.type, enabled=False)


def _picked(shares: Tensor, m: int, noise: Noise) -> Tensor:
    """Indices ``(m, batch)`` of draws, each as often as its share ``(k, batch)`` in expectation: systematic resampling,
    which puts m equally spaced points, from one random start, on the cumulated shares."""
    below = shares.double().cumsum(0)
    start = noise.uniform("picked", 1, (), torch.float64)[0]
    points = (torch.arange(m, device=start.device).unsqueeze(-1) + start) / m
    return torch.searchsorted(below.T.contiguous(), points.T.contiguous()).T.clamp(max=len(shares) - 1)


def _elbo_terms(reconstruction: Tensor, kl_by_group: Tensor) -> dict[str, Tensor]:
    """ELBO = −(reconstruction + KL), of ``(num_samples, batch)`` and ``(batch, groups)``."""
    reconstruction, kl = reconstruction.mean(0), kl_by_group.sum(-1)
    return {"elbo": -reconstruction - kl, "kl": kl, "reconstruction": reconstruction}
