"""How machine code is told of a masked autoregressive net and of the elementwise map behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from vaeflow.kernels import cpu

ACTIVATIONS = {
    "relu": cpu.RELU,
    "elu": cpu.ELU,
    "silu": cpu.SILU,
    "tanh": cpu.TANH,
    "softplus": cpu.SOFTPLUS,
    "leaky_relu": cpu.LEAKY_RELU,
    "gelu": cpu.GELU,
}
MAPS = {"Additive": cpu.ADDITIVE, "Affine": cpu.AFFINE, "Gated": cpu.GATED, "NoneType": cpu.NONE}


class Net(Protocol):
    """What machine code reads of a net; :class:`~vaeflow.nets.masked_mlp.MaskedMLP` is one."""

    features: int
    """D, how many features it reads."""
    outputs: int
    """How many numbers it puts out for each."""
    reverse: bool
    """Whether the order of the features is from the last to the first."""
    ranges: Any
    readers: Any
    counts: Any
    stages: Any
    """Its layers, of masked weights."""

    @property
    def stage_parameters(self) -> Sequence[Tensor]:
        """Weight and bias of each layer."""

    @property
    def activation_name(self) -> str | None:
        """One of :data:`ACTIVATIONS`; None of others."""

    def is_added(self, stage: int) -> bool:
        """Whether a layer's output is added to the input of the one before it."""


def table(made: Net, parameters: Sequence[Tensor]) -> tuple[np.ndarray, list[Tensor]]:
    """The net as :mod:`vaeflow.kernels.cpu` takes it, valid as long as the tensors beside it live.

    Args:
        parameters: weight and bias of each stage, which need not be the ones that are the net's now.
    """
    layers = [parameter.detach().contiguous() for parameter in parameters]
    assert all(p.device.type == "cpu" and p.dtype == layers[0].dtype for p in layers)
    rows = [
        (weight.data_ptr(), bias.data_ptr(), len(stage.ranges), stage.groups, stage.in_features, made.is_added(k))
        for k, (stage, weight, bias) in enumerate(zip(made.stages, layers[::2], layers[1::2], strict=True))
    ]
    return np.array(rows, np.int64), layers


def codes(made: Net, transformer: object, inverse: bool) -> tuple[int, int, int]:
    """Activation, map and direction in numbers. The map is an Additive, Affine or Gated transformer, or None."""
    assert made.activation_name is not None
    return ACTIVATIONS[made.activation_name], MAPS[type(transformer).__name__], inverse
