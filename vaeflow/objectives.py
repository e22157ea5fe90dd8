"""What a latent-variable model is trained by: bounds of log p(x) made of its terms. Evaluation never uses them.

An objective is a part of a model that a config names. It sees draws of the model's :class:`~vaeflow.estimate.Terms`
and gives a loss; your own is a subclass of :class:`Objective`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, Protocol

import torch
from torch import Tensor

from vaeflow.distributions.gaussians import PathWeights
from vaeflow.errors import VaeflowError, check_positive
from vaeflow.estimate import Group, Terms, log_mean_exp, mean_over_processes
from vaeflow.noise import Noise


class DrawForTraining(Protocol):
    """Draws of a model's terms, whose gradient may be weighed where it comes through the draws."""

    def __call__(self, noise: Noise, num_samples: int, path_weights: PathWeights | None = None) -> Terms: ...


class Objective(ABC):
    """The loss of one batch, made of terms that are drawn for it."""

    logged: tuple[str, ...] = ("objective", "nll", "elbo", "kl", "reconstruction")
    """The values of each example that it gives."""
    uses_path_weights = False
    """Whether it changes the gradient that comes through each draw."""

    @property
    @abstractmethod
    def title(self) -> str:
        """Its name in tables of results."""

    @abstractmethod
    def __call__(
        self, draw: DrawForTraining, noise: Noise, training: bool, epochs: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise, and what is logged of each example: ``(batch,)`` by the names in ``logged``.

        Args:
            draw: (noise, num_samples, path_weights=None) → the terms of so many draws.
            noise: with the examples' indices.
            training: whether the loss is for training, where the terms may be weighed otherwise than in the bound.
            epochs: how many epochs of training are done, with fractions; a scalar.
        """


class ELBO(Objective):
    """The evidence lower bound, E_q[log p(x|z)] − Σ_groups KL(q ‖ p) ≤ log p(x).

    The KL of a group is in closed form where there is one. Otherwise it is estimated by log q − log p at the very z
    drawn.

    Sources: Kingma & Welling 2014, arXiv 1312.6114; Kingma et al. 2016, arXiv 1606.04934 (free bits).

    Args:
        num_samples: draws of z for each example, which are averaged.
        kl_warmup_epochs: β, the weight of the KL in the loss, rises from 0 to 1 over so many epochs.
        free_bits: λ in nats: the loss counts at least λ for the KL, averaged over the global batch, of each unit.
        free_bits_per: what a unit is: a ``dimension``, a ``channel`` (the first dimension of a group's event; of a
            vector, a dimension), or a ``group`` of latents. Where the KL is estimated it is the whole group.
    """

    def __init__(
        self,
        num_samples: int = 1,
        kl_warmup_epochs: float = 0.0,
        free_bits: float = 0.0,
        free_bits_per: Literal["dimension", "channel", "group"] = "dimension",
    ) -> None:
        check_positive(num_samples=num_samples)
        for name, value in (("kl_warmup_epochs", kl_warmup_epochs), ("free_bits", free_bits)):
            if not value >= 0:
                raise VaeflowError(f"{name} is {value}, expected a number of 0 or more.")
        self.num_samples, self.kl_warmup_epochs = num_samples, kl_warmup_epochs
        self.free_bits, self.free_bits_per = free_bits, free_bits_per

    @property
    def title(self) -> str:
        return "ELBO"

    def __call__(
        self, draw: DrawForTraining, noise: Noise, training: bool, epochs: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        terms = draw(noise, self.num_samples)
        values = terms.means
        beta = (epochs / self.kl_warmup_epochs).clamp(max=1.0) if training and self.kl_warmup_epochs else 1.0
        kl = torch.stack([self._loss_of(group, training) for group in terms.groups.values()]).sum()
        nll = -values["elbo"]
        return beta * kl - terms.log_likelihood.mean(), {**values, "nll": nll, "objective": nll}

    def _loss_of(self, group: Group, training: bool) -> Tensor:
        """Σ_units max(λ, KL) in training. Whether the maximum is λ is decided by the mean over all processes; the
        gradient, averaged over them by DDP, is then that of the global batch."""
        kl = group.mean_kl.mean(0)
        if not self.free_bits or not training:
            return kl.sum()
        if self.free_bits_per == "group":
            kl = kl.sum()
        elif self.free_bits_per == "channel" and kl.dim() > 1:
            kl = kl.flatten(1).sum(1)
        return torch.where(mean_over_processes(kl.detach()) > self.free_bits, kl, self.free_bits).sum()


class IWAE(Objective):
    """The importance-weighted bound, E log (1/k) Σ_k w_k ≤ log p(x), with w = p(x, z)/q(z|x).

    Sources: Burda et al. 2016, arXiv 1509.00519; Tucker et al. 2018, arXiv 1810.04152 (the doubly reparameterised
    gradient).

    Args:
        k: how many draws.
        gradient_samples: m of the k draws, picked with probability w_k / Σ w, through which the gradient goes,
            Σ_k (w_k / Σ w) ∇ log w_k in expectation (section 3 of the paper); the decoder sees m draws at a time,
            which bounds its memory. By default it goes through all k at once, two to three times the work where k is
            large.
        doubly_reparameterised: whether the gradient by φ = (μ, σ) of the posterior's Gaussian is
            Σ_k (w_k / Σ w)² (∂ log w_k / ∂z₀) ∂z₀/∂φ, φ constant in log w_k: the same in expectation. Its noise is
            less where q is as wide as the true posterior or wider, and does not drown it as k grows; where q is much
            too narrow it is more. A flow, and what reaches the encoder as its context, keep the usual gradient.
    """

    logged = (*Objective.logged, "iwae")

    def __init__(self, k: int = 5, gradient_samples: int | None = None, doubly_reparameterised: bool = False) -> None:
        check_positive(k=k)
        if k < 2:
            raise VaeflowError("IWAE of a single draw is the ELBO: set k to 2 or more, or take ELBO.")
        if gradient_samples is not None:
            check_positive(gradient_samples=gradient_samples)
            if gradient_samples > k:
                raise VaeflowError(f"gradient_samples is {gradient_samples}, of k = {k} draws.")
        self.k, self.gradient_samples = k, gradient_samples
        self.uses_path_weights = doubly_reparameterised

    @property
    def title(self) -> str:
        return f"IWAE, k = {self.k}"

    def __call__(
        self, draw: DrawForTraining, noise: Noise, training: bool, epochs: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        has_gradient, m = torch.is_grad_enabled(), self.gradient_samples
        path_weights = PathWeights() if self.uses_path_weights and has_gradient else None
        if m is None:
            terms = draw(noise, self.k, path_weights)
            log_weights, values = terms.log_weights, terms.means
        else:
            log_weights, values = self._without_gradient(draw, noise, m)
        iwae = log_mean_exp(log_weights)
        values |= {"nll": -values["elbo"], "iwae": iwae, "objective": -iwae}
        shares = torch.softmax(log_weights.detach(), 0)  # w_k / Σ w
        if m is None or not has_gradient:
            if path_weights is not None:
                path_weights.value = shares
            return -iwae.mean(), values
        k = _picked(shares, m, noise)
        if path_weights is not None:
            path_weights.value = shares.take_along_dim(k, 0)
        loss = -draw(noise.pick(k), m, path_weights).log_weights.mean()
        return loss - loss.detach() - iwae.mean(), values  # the bound, with the gradient of the picked draws

    @torch.no_grad()
    def _without_gradient(self, draw: DrawForTraining, noise: Noise, m: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The log-weights of all k draws, m at a time, and the means of their terms."""
        log_weights, sums = [], dict[str, Tensor]()
        for done in range(0, self.k, m):
            n = min(m, self.k - done)
            terms = draw(noise.skip(done), n)
            log_weights.append(terms.log_weights)
            for name, value in terms.means.items():
                sums[name] = sums.get(name, 0) + n * value
        return torch.cat(log_weights), {name: total / self.k for name, total in sums.items()}


def _picked(shares: Tensor, m: int, noise: Noise) -> Tensor:
    """Indices ``(m, batch)`` of draws, each as often as its share ``(k, batch)`` in expectation: systematic resampling,
    which puts m equally spaced points, from one random start, on the cumulated shares."""
    below = shares.double().cumsum(0)
    start = noise.uniform("picked", 1, (), torch.float64)[0]
    points = (torch.arange(m, device=start.device).unsqueeze(-1) + start) / m
    return torch.searchsorted(below.T.contiguous(), points.T.contiguous()).T.clamp(max=len(shares) - 1)
