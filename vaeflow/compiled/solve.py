"""The sequential solve of an autoregressive map in machine code, for the CPU.

:mod:`vaeflow.bijections.sequential` says what is computed. Here the features are taken in blocks. What a block reads of
the blocks before it is a product of matrices; what it reads of itself is a small triangle, taken feature by feature for
all samples of a chunk at once. Every chunk is a task of its own, so that threads never wait for each other.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from vaeflow.bijections.transformers import Additive, Affine, Gated, Transformer
from vaeflow.compiled import kernels
from vaeflow.compiled.threads import together
from vaeflow.functional import ELU
from vaeflow.nets.made import MADE

ACTIVATIONS = {
    nn.ReLU: kernels.RELU,
    ELU: kernels.ELU,
    nn.SiLU: kernels.SILU,
    nn.Tanh: kernels.TANH,
    nn.Softplus: kernels.SOFTPLUS,
    nn.LeakyReLU: kernels.LEAKY_RELU,
    nn.GELU: kernels.GELU,
}
TRANSFORMERS = {Additive: kernels.ADDITIVE, Affine: kernels.AFFINE, Gated: kernels.GATED}


def is_able(made: MADE, transformer: Transformer, value: Tensor) -> bool:
    """Whether the solve of these is in here."""
    return (
        type(transformer) in TRANSFORMERS
        and type(made.activation) in ACTIVATIONS
        and value.dtype in (torch.float32, torch.float64)
        and value.device.type == "cpu"
        and made.out.weight.dtype == value.dtype
    )


def solve(
    made: MADE, transformer: Transformer, inverse: bool, value: Tensor, conditioned: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """The image y of v, and log |det ∂y/∂v|; see :func:`vaeflow.bijections.sequential.solve`. None of what is not here.

    Args:
        value: v ``(..., batch, D)``.
        conditioned: the context's part of the first layer, ``(batch, hidden[0])``, or with more of the dimensions of v.
    """
    if not is_able(made, transformer, value):
        return None
    lead = value.shape[:-1]
    v = value.detach().flatten(0, -2).contiguous()
    y, log_det = torch.empty_like(v), v.new_empty(len(v))
    if conditioned is None:
        context = v.new_empty(0, 0)
    else:  # sample n of all has row n modulo the number of rows
        if conditioned.shape[:-1] != lead[len(lead) + 1 - conditioned.dim() :]:
            conditioned = conditioned.expand(*lead, -1)
        context = conditioned.detach().flatten(0, -2).contiguous()
    stages = made.stages
    weights, biases = (
        tuple(getattr(stage, name).detach().contiguous().numpy() for stage in stages) for name in ("weight", "bias")
    )
    added = np.array([made.is_added(k) for k in range(len(stages))])
    net = (weights, biases, made.table, added, made.reverse)
    codes = (ACTIVATIONS[type(made.activation)], TRANSFORMERS[type(transformer)], inverse)
    from_, contexts, to, slopes = v.numpy(), context.numpy(), y.numpy(), log_det.numpy()
    chunk = min(kernels.MANY, max(1, -(-len(v) // torch.get_num_threads())))
    starts = range(0, len(v), chunk)

    def work(start: int) -> None:
        part = slice(start, start + chunk)
        kernels.solve(from_[part], contexts, start, *net, *codes, to[part], slopes[part])

    together(work, starts)
    return y.view(value.shape), log_det.view(lead)
