"""How machine code for the CPU is told of a net and of a map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from vaeflow.bijections.transformers import Additive, Affine, Gated, Transformer
from vaeflow.compiled import kernels
from vaeflow.nets.made import MADE
from vaeflow.nets.mlp import name_of_activation

ACTIVATIONS = {
    "relu": kernels.RELU,
    "elu": kernels.ELU,
    "silu": kernels.SILU,
    "tanh": kernels.TANH,
    "softplus": kernels.SOFTPLUS,
    "leaky_relu": kernels.LEAKY_RELU,
    "gelu": kernels.GELU,
}
TRANSFORMERS = {Additive: kernels.ADDITIVE, Affine: kernels.AFFINE, Gated: kernels.GATED, type(None): kernels.NONE}


def table(made: MADE, parameters: Sequence[Tensor]) -> tuple[np.ndarray, list[Tensor]]:
    """The net as :mod:`vaeflow.compiled.kernels` takes it, valid as long as the tensors beside it live.

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


def codes(made: MADE, transformer: Transformer | None, inverse: bool) -> tuple[int, int, int]:
    """Activation, map and direction in numbers."""
    name = name_of_activation(made.activation)
    assert name is not None
    return ACTIVATIONS[name], TRANSFORMERS[type(transformer)], inverse
