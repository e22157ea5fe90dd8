"""Nets that compute the parameters of one part of a vector or an image from the rest of it, and from a context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vaeflow.errors import check_context, check_positive
from vaeflow.nets.mlp import activation_named


@dataclass(frozen=True)
class Conditioned:
    """What a net, a bijection or a distribution has made of its context, for it alone to use in place of the context.

    Args:
        value: whatever its ``condition`` computes.
        lead: the leading dimensions of the context, ``(batch,)`` or ``(num_samples, batch)``; None without a context.
    """

    value: Any
    lead: tuple[int, ...] | None = None


Context: TypeAlias = Tensor | Conditioned | None
"""A tensor ``(batch, context_features)``, or what ``condition`` made of it; None without a context."""


def lead_of(context: Context) -> tuple[int, ...] | None:
    """The leading dimensions of a context, the last one the number of its examples."""
    if isinstance(context, Conditioned):
        return context.lead
    return None if context is None else tuple(context.shape[:-1])


class Conditioner(nn.Module):
    """θ = θ(x, context): hidden layers and residual blocks, the context's part of the first layer computed once.

    A subclass makes ``layers`` (at least one), ``blocks`` (pairs of layers, added to their input) and ``out``.

    Args:
        hidden: sizes of the hidden layers, or their channels.
        context_features: dimension of the context; 0 for none.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
    """

    layers: nn.ModuleList
    blocks: Any  # a ModuleList of ModuleLists
    out: Any  # a linear layer, or a convolution

    def __init__(self, hidden: Sequence[int], context_features: int, activation: str) -> None:
        super().__init__()
        check_positive(**{"len(hidden)": len(hidden), **{f"hidden[{i}]": size for i, size in enumerate(hidden)}})
        self.context_features = context_features
        self.context = nn.Linear(context_features, hidden[0], bias=False) if context_features else None
        self.activation = activation_named(activation)

    def condition(self, context: Context) -> Conditioned:
        """The context's part of the first hidden layer, ``(batch, hidden[0])``; idempotent."""
        if isinstance(context, Conditioned):
            return context
        check_context(context, self.context_features)
        return Conditioned(None if self.context is None else self.context(context), lead_of(context))

    def hidden(self, x: Tensor, context: Context) -> Tensor:
        """What the output layer reads."""
        for value in self.sums(x, context):  # noqa: B007
            pass
        return self.activation(value)

    def sums(self, x: Tensor, context: Context) -> Iterator[Tensor]:
        """What the activation is applied to, stage by stage."""
        first, *others = self.layers
        hidden = first(x)
        conditioned = self.condition(context).value
        if conditioned is not None:
            hidden = hidden + self.spread(conditioned)
        yield hidden
        for layer in others:
            hidden = layer(self.activation(hidden))
            yield hidden
        for inner, outer in self.blocks:
            between = inner(self.activation(hidden))
            yield between
            hidden = hidden + outer(self.activation(between))
            yield hidden

    def spread(self, context: Tensor) -> Tensor:
        """The context's part in the shape of the first layer's output."""
        return context


class MLPConditioner(Conditioner):
    """θ = θ(x, context) by a multi-layer perceptron whose output starts at zero.

    Args:
        in_features, out_features: sizes of x and θ.
        hidden: sizes of the hidden layers, at least one.
        context_features: dimension of the context; 0 for none.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
        residual_blocks: after the hidden layers, each of two more of the last one's size, added to their input.

    >>> import torch
    >>> MLPConditioner(3, 8, [16], context_features=2)(torch.randn(100, 5, 3), torch.randn(5, 2)).shape
    torch.Size([100, 5, 8])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: Sequence[int],
        context_features: int = 0,
        activation: str = "relu",
        residual_blocks: int = 0,
    ) -> None:
        super().__init__(hidden, context_features, activation)
        sizes = [in_features, *hidden]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Linear(sizes[-1], sizes[-1]) for _ in range(2)) for _ in range(residual_blocks)
        )
        self.out = nn.Linear(sizes[-1], out_features)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        """``(..., batch, in_features)`` → ``(..., batch, out_features)``."""
        return self.out(self.hidden(x, context))


class ConvConditioner(Conditioner):
    """θ = θ(x, context) by a convolutional residual net whose output starts at zero.

    A 3 × 3 convolution, residual blocks of two more, and a 1 × 1 convolution, all but the last weight-normalised; the
    context's part is added to every pixel of the first layer. There is no batch normalisation in it, so an example's
    parameters depend on that example alone.

    Source: the nets of Dinh, Sohl-Dickstein & Bengio 2017, arXiv 1605.08803, without their batch normalisation.

    Args:
        in_channels, out_channels: of x and θ.
        context_features: dimension of the context; 0 for none.
        channels: of the hidden layers.
        residual_blocks: how many.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        context_features: int = 0,
        channels: int = 64,
        residual_blocks: int = 2,
        activation: str = "relu",
    ) -> None:
        super().__init__([channels], context_features, activation)

        def convolution(n: int) -> nn.Module:
            return weight_norm(nn.Conv2d(n, channels, 3, padding=1))

        self.layers = nn.ModuleList([convolution(in_channels)])
        self.blocks = nn.ModuleList(
            nn.ModuleList(convolution(channels) for _ in range(2)) for _ in range(residual_blocks)
        )
        self.out = nn.Conv2d(channels, out_channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        """``(batch, in_channels, height, width)`` → ``(batch, out_channels, height, width)``."""
        return self.out(self.hidden(x, context))

    def spread(self, context: Tensor) -> Tensor:
        return context[..., None, None]
