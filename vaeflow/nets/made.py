"""MADE, the masked net behind every autoregressive map (Germain et al. 2015, arXiv 1502.03509)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeflow.errors import check_positive
from vaeflow.nets.conditioner import Conditioner


class MADE(Conditioner):
    """θ_i = θ_i(x_<i, context): one net for all conditionals of an autoregressive model.

    Every unit has a degree: input i has i (1 … D), a hidden unit m may read what has a degree of at most m, and the
    outputs of feature i read hidden units of a degree below i. The context has degree 0, below every feature, so
    with a context there are hidden units of degree 0 as well, and every output depends on it, the first one too.

    Sources: Germain, Gregor, Murray & Larochelle 2015, "MADE: Masked Autoencoder for Distribution Estimation",
    arXiv 1502.03509; residual blocks as in Nash & Durkan 2019, arXiv 1904.05626.

    Args:
        features: D.
        outputs: numbers of parameters of each feature, P.
        hidden: sizes of the hidden layers, at least one.
        context_features: dimension of the context; 0 for none.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
        reverse: the order is D … 1 instead of 1 … D.
        degrees: of hidden units, sequential (evenly spread and ascending) or random.
        residual_blocks: after the hidden layers, each of two more of the last one's size, added to their input.
        seed: of random degrees.

    >>> made = MADE(features=3, outputs=2, hidden=[16])
    >>> made(torch.randn(7, 3)).shape
    torch.Size([7, 3, 2])
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        hidden: Sequence[int],
        context_features: int = 0,
        activation: str = "elu",
        reverse: bool = False,
        degrees: Literal["sequential", "random"] = "sequential",
        residual_blocks: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(hidden, context_features, activation)
        check_positive(features=features)
        self.features, self.outputs = features, outputs
        lowest = 0 if context_features or features == 1 else 1
        generator, kept = torch.Generator().manual_seed(seed), degrees == "random"

        def degrees_of(size: int) -> Tensor:
            if degrees == "random":
                drawn = torch.randint(lowest, max(lowest + 1, features), (size,), generator=generator)
                drawn[0] = lowest  # of the first feature, or the context alone
                return drawn
            return lowest + torch.arange(size) * (features - lowest) // size

        ascending = torch.arange(1, features + 1)
        self.order = list(reversed(range(features))) if reverse else list(range(features))
        degrees_in = below = ascending.flip(0) if reverse else ascending
        self.layers = nn.ModuleList()
        for size in hidden:
            above = degrees_of(size)
            self.layers.append(MaskedLinear(above[:, None] >= below, kept))
            below = above
        self.blocks = nn.ModuleList(
            nn.ModuleList(MaskedLinear(below[:, None] >= below, kept) for _ in range(2)) for _ in range(residual_blocks)
        )
        self.out = MaskedLinear((degrees_in[:, None] > below).repeat(outputs, 1), kept)

    def forward(self, x: Tensor, context: Any = None) -> Tensor:
        """``(..., batch, features)`` → ``(..., batch, features, outputs)``."""
        return self.out(self.hidden(x, context)).unflatten(-1, (self.outputs, self.features)).movedim(-2, -1)


class MaskedLinear(nn.Linear):
    """A linear layer whose weight is multiplied by a constant mask ``(out_features, in_features)``.

    Args:
        mask: of ones and zeros.
        kept: whether checkpoints keep it, as they must what a random generator made.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, kept: bool = False) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=kept)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)
