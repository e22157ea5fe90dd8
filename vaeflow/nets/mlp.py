"""Multi-layer perceptrons: the plain net, and the encoder and decoder made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaeflow.errors import VaeflowError, check_positive
from vaeflow.functional import ELU
from vaeflow.nets.base import Decoder, Encoder

ACTIVATIONS = {
    "relu": nn.ReLU,
    "elu": ELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
}


def activation_named(name: str) -> nn.Module:
    """The activation of that name, one of :data:`ACTIVATIONS`."""
    if name not in ACTIVATIONS:
        raise VaeflowError(f"activation is {name!r}, expected one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]()


_NAMES = {repr(make()): name for name, make in ACTIVATIONS.items()}


def name_of_activation(activation: nn.Module) -> str | None:
    """The name by which :func:`activation_named` makes such a one; None of others, and of other settings."""
    return _NAMES.get(repr(activation))


class MLP(nn.Sequential):
    """Linear layers with an activation after each: ``(..., in_features)`` → ``(..., features)``.

    Weights start uniform with the variance of Glorot & Bengio (2010), biases at zero.

    Args:
        in_features: size of the input.
        hidden: sizes of the layers; the last one is the net's output.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
    """

    def __init__(self, in_features: int, hidden: Sequence[int], activation: str = "tanh") -> None:
        super().__init__()
        check_positive(**{f"hidden[{i}]": size for i, size in enumerate(hidden)})
        self.features = in_features
        for size in hidden:
            linear = nn.Linear(self.features, size)
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
            self.append(linear)
            self.append(activation_named(activation))
            self.features = size


class MLPEncoder(Encoder):
    """x, flattened, and its context → features: ``(batch, *shape)`` → ``(batch, hidden[-1])``.

    Args:
        shape: of one example.
        context_features: dimension of the context; 0 for none.
        hidden: sizes of the layers.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
    """

    def __init__(
        self,
        shape: Sequence[int],
        context_features: int = 0,
        hidden: Sequence[int] = (200, 200),
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        self.net = MLP(math.prod(shape) + context_features, hidden, activation)
        self.features = self.net.features

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = x.flatten(1)
        return self.net(x if context is None else torch.cat([x, context], dim=-1))


class MLPDecoder(Decoder):
    """z → parameters of p(x|z): ``(..., batch, features)`` → ``(..., batch, *shape)``.

    Args:
        features: dimension of z.
        shape: of the output for one example.
        hidden: sizes of the hidden layers.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
    """

    def __init__(
        self,
        features: int,
        shape: Sequence[int],
        hidden: Sequence[int] = (200, 200),
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.net = MLP(features, hidden, activation)
        self.out = nn.Linear(self.net.features, math.prod(shape))
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, z: Tensor) -> Tensor:
        return self.out(self.net(z)).unflatten(-1, self.shape)

    @property
    def output_bias(self) -> Tensor:
        """Bias of the output, one entry for each number in ``shape``, for a data-dependent start."""
        return self.out.bias.view(self.shape)
