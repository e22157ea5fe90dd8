"""Maps that treat every dimension on its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaeflow.bijections.base import Bijection, Context
from vaeflow.errors import VaeflowError

LOG_SCALE_BOUND = 7.0


def bounded(log_scale: Tensor) -> Tensor:
    """B tanh(a/B) with B = 7: near 0 the identity, and no logarithm of a scale leaves ±7, whatever a net puts out."""
    return LOG_SCALE_BOUND * torch.tanh(log_scale / LOG_SCALE_BOUND)


class Standardise(Bijection):
    """x = μ + σ ⊙ z, log |det ∂x/∂z| = Σ log σ, with μ and σ the mean and standard deviation of the training set.

    It is the first map of a model of continuous data, inside the likelihood: the data stay in the user's units and
    the density is a density of those units. μ and σ are buffers that :meth:`fit` sets and checkpoints keep; they, and
    the arithmetic with them, are in float64, since data may lie far from zero (dates, say).

    Args:
        features: D, or the whole shape of one example.
        context_features: unused; every bijection has it.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int | Sequence[int], context_features: int = 0) -> None:
        super().__init__()
        shape = (features,) if isinstance(features, int) else tuple(features)
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(shape, dtype=torch.float64))

    def fit(self, mean: Tensor, scale: Tensor) -> None:
        """Set μ and σ, each of the shape of one example. Raises where σ is 0: a constant has no density."""
        constant = (scale <= 0).flatten().nonzero().flatten().tolist()
        if constant:
            raise VaeflowError(
                f"dimension {constant[0]} of the training data is constant ({len(constant)} in all), so its density "
                "has no bound: leave it out, or give integers (images as uint8), whose likelihood is of integers."
            )
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return (self.mean + self.scale * z.double()).to(z.dtype), self._log_det(z)

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return ((x.double() - self.mean) / self.scale).to(x.dtype), -self._log_det(x)

    def _log_det(self, like: Tensor) -> Tensor:
        return self.scale.double().log().sum().to(like.dtype).expand(like.shape[: like.dim() - self.scale.dim()])
