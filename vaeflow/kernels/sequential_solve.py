"""The sequential solve of an autoregressive map in machine code, for the CPU.

:mod:`vaeflow.bijections.sequential` says what is computed. Here the features are taken in blocks. What a block reads of
the blocks before it is a product of matrices; what it reads of itself is a small triangle, taken feature by feature for
all samples of a chunk at once. Every chunk is a task of its own, so that threads never wait for each other.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vaeflow.kernels import cpu
from vaeflow.kernels.net import Net, codes, table
from vaeflow.kernels.threads import run


def solve(made: Net, transformer: object, inverse: bool, v: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """The image y of v ``(samples, D)``, and log |det ∂y/∂v| ``(samples,)``; see
    :func:`vaeflow.bijections.sequential.solve`.

    Args:
        context: its part of the first layer, ``(rows, hidden[0])``: sample n has row n modulo ``rows``. No rows
            where there is no context.
    """
    y, log_det = torch.empty_like(v), v.new_empty(len(v))
    net, _layers = table(made, made.stage_parameters)
    counts = np.array(made.counts, np.int64)
    chunk = min(cpu.MANY, max(1, -(-len(v) // torch.get_num_threads())))
    scalars = (made.reverse, *codes(made, transformer, inverse), chunk)
    run("solve", -(-len(v) // chunk), scalars, (net, counts, v, context, y, log_det))
    return y, log_det
