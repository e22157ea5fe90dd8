"""MADE, the masked net behind every autoregressive map (Germain et al. 2015, arXiv 1502.03509)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeflow.errors import check_context, check_positive
from vaeflow.nets.mlp import activation_named


class MADE(nn.Module):
    """θ_i = θ_i(x_<i, context): one net for all conditionals of an autoregressive model.

    Every unit has a degree: input i has i (1 … D), a hidden unit m may read what has a degree of at most m, and the
    outputs of feature i read hidden units of a degree below i. The context has degree 0, below every feature, so
    with a context there are hidden units of degree 0 as well, and every output depends on it, the first one too.

    Source: Germain, Gregor, Murray & Larochelle 2015, "MADE: Masked Autoencoder for Distribution Estimation",
    arXiv 1502.03509. Degrees of hidden units are sequential: evenly spread and ascending.

    Args:
        features: D.
        outputs: numbers of parameters of each feature, P.
        hidden: sizes of the hidden layers, at least one.
        context_features: dimension of the context; 0 for none.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
        reverse: the order is D … 1 instead of 1 … D.

    >>> made = MADE(features=3, outputs=2, hidden=[16])
    >>> made(torch.randn(7, 3)).shape
    torch.Size([7, 2, 3])
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        hidden: Sequence[int],
        context_features: int = 0,
        activation: str = "elu",
        reverse: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"len(hidden)": len(hidden), **{f"hidden[{i}]": size for i, size in enumerate(hidden)}}
        check_positive(features=features, **sizes)
        self.features, self.outputs, self.context_features = features, outputs, context_features
        lowest = 0 if context_features or features == 1 else 1
        ascending = torch.arange(1, features + 1)
        self.order = list(reversed(range(features))) if reverse else list(range(features))
        degrees_in = degrees = ascending.flip(0) if reverse else ascending
        self.layers = nn.ModuleList()
        for size in hidden:
            degrees_out = lowest + torch.arange(size) * (features - lowest) // size
            self.layers.append(MaskedLinear(degrees_out[:, None] >= degrees))
            degrees = degrees_out
        self.out = MaskedLinear((degrees_in[:, None] > degrees).repeat(outputs, 1))
        self.context = nn.Linear(context_features, hidden[0], bias=False) if context_features else None
        self.activation = activation_named(activation)

    def condition(self, context: Any) -> Any:
        """The context's part of the first hidden layer, ``(batch, hidden[0])``; idempotent."""
        if isinstance(context, tuple):
            return context
        check_context(context, self.context_features)
        return None if self.context is None else (self.context(context),)

    def forward(self, x: Tensor, context: Any = None) -> Tensor:
        """``(..., batch, features)`` → ``(..., batch, outputs, features)``."""
        first, *others = self.layers
        hidden = first(x)
        conditioned = self.condition(context)
        if conditioned is not None:
            hidden = hidden + conditioned[0]
        hidden = self.activation(hidden)
        for layer in others:
            hidden = self.activation(layer(hidden))
        return self.out(hidden).unflatten(-1, (self.outputs, self.features))


class MaskedLinear(nn.Linear):
    """A linear layer whose weight is multiplied by a constant mask ``(out_features, in_features)``."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)
