"""The sequential solve of an autoregressive map in machine code, for the CPU.

:mod:`vaeflow.bijections.sequential` says what is computed. Here the features are taken in blocks. What a block reads of
the blocks before it is a product of matrices; what it reads of itself is a small triangle, taken feature by feature for
all samples of a chunk at once. Every chunk is a task of its own, so that threads never wait for each other.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vaeflow.bijections.transformers import Transformer
from vaeflow.compiled import kernels
from vaeflow.compiled.context import context_rows
from vaeflow.compiled.nets import codes, table
from vaeflow.compiled.threads import run
from vaeflow.nets.made import MADE


def solve(
    made: MADE, transformer: Transformer, inverse: bool, value: Tensor, conditioned: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The image y of v, and log |det ∂y/∂v|; see :func:`vaeflow.bijections.sequential.solve`.

    Args:
        value: v ``(..., batch, D)``.
        conditioned: the context's part of the first layer, ``(batch, hidden[0])``, or with more of the dimensions of v.
    """
    v = value.detach().reshape(-1, made.features).contiguous()
    y, log_det = torch.empty_like(v), v.new_empty(len(v))
    net, _layers = table(made, made.stage_parameters)
    counts = np.array(made.counts, np.int64)
    chunk = min(kernels.MANY, max(1, -(-len(v) // torch.get_num_threads())))
    scalars = (made.reverse, *codes(made, transformer, inverse), chunk)
    run("solve", -(-len(v) // chunk), scalars, (net, counts, v, context_rows(conditioned, value), y, log_det))
    return y.view(value.shape), log_det.view(value.shape[:-1])
