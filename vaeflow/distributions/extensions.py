"""What turns data into the real numbers that a density is of, each part with its own log-density: integers become real
by noise in their cells (dequantisation), and data get further dimensions (augmentation).

With both, a density model's log-weights are

    log w = log p(x + u, e) − log q(u|x) − log q(e|x + u),    u ~ q(u|x) on (0, 1)^D,    e ~ q(e|x + u),

whose exponentials have the mean P(x) for integers x, and p(x) for continuous ones, with no u.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vaeflow.bijections import Bijection, InverseAutoregressive
from vaeflow.distributions.base import Distribution, StandardLogistic, full_precision
from vaeflow.distributions.flow import FlowDensity
from vaeflow.distributions.gaussians import DiagonalGaussian
from vaeflow.errors import VaeflowError, check_positive
from vaeflow.functional import log_sigmoid
from vaeflow.nets import Encoder, MLPEncoder
from vaeflow.noise import Noise


class Dequantisation(nn.Module, ABC):
    """q(u|x) on (0, 1)^D, the noise that makes x + u of an integer x.

    A subclass takes the data's ``shape``, ``levels`` and ``context_features`` as its first three constructor arguments.
    """

    @abstractmethod
    def draw(self, x: Tensor, context: Tensor | None, noise: Noise, num_samples: int) -> tuple[Tensor, Tensor]:
        """u ``(num_samples, batch, D)`` and log q(u|x) ``(num_samples, batch)`` of integers x ``(batch, *shape)``."""


class UniformDequantisation(Dequantisation):
    """u uniform on (0, 1)^D, log q(u|x) = 0 (Theis et al. 2016, arXiv 1511.01844).

    Args:
        shape, levels, context_features: of the data.
    """

    def __init__(self, shape: Sequence[int], levels: int, context_features: int = 0) -> None:
        super().__init__()
        self.features = math.prod(shape)

    def draw(self, x: Tensor, context: Tensor | None, noise: Noise, num_samples: int) -> tuple[Tensor, Tensor]:
        u = noise.uniform("dequantisation", num_samples, (self.features,))
        return u, u.new_zeros(())


class LearnedDequantisation(Dequantisation):
    """u = sigmoid(v), v = f(ε; h(x)), with logistic ε, a flow f and an encoder h:

        log q(u|x) = log q(v|x) − Σ_i [log u_i + log(1 − u_i)].

    Where f is the identity u is uniform: the sigmoid of logistic noise.

    Source: Ho et al. 2019, "Flow++", arXiv 1902.00275, section 3.1, whose ε is normal.

    Args:
        shape, levels, context_features: of the data.
        encoder: makes h of the shape and the context's dimension; it sees x divided by L, and centred.
        flow: makes f of D and the dimension of h(x); one whose ``forward`` is fast.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int,
        context_features: int = 0,
        encoder: Callable[[Sequence[int], int], Encoder] = MLPEncoder,
        flow: Callable[[int, int], Bijection] = InverseAutoregressive,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.encoder = encoder(shape, context_features)
        self.distribution = FlowDensity(math.prod(shape), self.encoder.features, flow, StandardLogistic)

    def draw(self, x: Tensor, context: Tensor | None, noise: Noise, num_samples: int) -> tuple[Tensor, Tensor]:
        features = self.encoder((x + 0.5) / self.levels - 0.5, context)
        with full_precision(x):
            v, log_q = self.distribution.rsample_with_log_prob(
                num_samples, features.to(x.dtype), noise.within("dequantisation")
            )
            v = v.double()
            log_q = log_q - (log_sigmoid(v) + log_sigmoid(-v)).sum(-1)
            return torch.sigmoid(v).clamp(1e-12, 1 - 1e-12), log_q  # inside the cell, whatever v


class Augmentation(nn.Module):
    """q(e|x), e further channels of an image, or further features of a vector, that the density is of as well.

    Sources: Huang, Dinh & Courville 2020, arXiv 2002.07101 (q = N(0, I): ``encoder`` null); Chen et al. 2020,
    "VFlow", arXiv 2002.09741.

    Args:
        shape, context_features: of the data.
        size: how many channels, or features.
        encoder: makes the net that sees x as the density does, of the shape and the context's dimension; None for noise
            that does not depend on x.
        posterior: makes q of e's dimension and that of the encoder's features, one through which gradients pass.
    """

    def __init__(
        self,
        shape: Sequence[int],
        context_features: int = 0,
        size: int = 1,
        encoder: Callable[[Sequence[int], int], Encoder] | None = MLPEncoder,
        posterior: Callable[[int, int], Distribution] = DiagonalGaussian,
    ) -> None:
        super().__init__()
        check_positive(size=size)
        self.shape = tuple(shape)
        self.extended_shape = (shape[0] + size, *shape[1:]) if len(shape) == 3 else (math.prod(shape) + size,)
        self.encoder = None if encoder is None else encoder(shape, context_features)
        features = math.prod(self.extended_shape) - math.prod(shape)
        self.distribution = posterior(features, 0 if self.encoder is None else self.encoder.features)
        if not self.distribution.is_reparameterised:
            raise VaeflowError(
                f"{type(self.distribution).__name__} picks at random what a gradient does not pass: take another "
                "posterior of the augmentation."
            )

    def draw(self, y: Tensor, context: Tensor | None, noise: Noise, num_samples: int) -> tuple[Tensor, Tensor]:
        """e ``(num_samples, batch, E)`` and log q(e|y) ``(num_samples, batch)``, of y ``(num_samples or 1, batch, D)``:
        each sample has one of its own, or all the same."""
        features = None
        if self.encoder is not None:
            if context is not None:
                context = context.repeat(len(y), 1)
            rows = y.flatten(0, 1).unflatten(-1, self.shape)
            features = self.encoder(rows, context).to(y.dtype).unflatten(0, y.shape[:2])
            features = features[0] if len(y) == 1 else features
        with full_precision(y):
            return self.distribution.rsample_with_log_prob(num_samples, features, noise.within("augmentation"))
