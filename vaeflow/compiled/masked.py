"""Masked linear layers in machine code, for the CPU: only what is not masked is multiplied.

The product of the layer and both products of its derivative take half the multiplications of a dense layer. A chunk of
samples, or a panel of columns, and a share of the units are a task of their own.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaeflow.compiled import kernels
from vaeflow.compiled.threads import together


def masked_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, ranges: Any, groups: int, groups_read: int = 1
) -> Tensor:
    """bias + x weightᵀ, where unit r of each group reads the columns ``range(*ranges[r])`` of each group read.

    Args:
        x: ``(samples, groups_read · C)``.
        weight: ``(groups · R, groups_read · C)``, or the transposed of such a tensor.
        ranges: ``(R, 2)``.
    """
    out = x.new_empty(len(x), len(weight))
    x_, weight_, out_ = x.detach().contiguous().numpy(), weight.detach().numpy(), out.numpy()
    bias_ = np.empty(0, x_.dtype) if bias is None else bias.detach().contiguous().numpy()
    starts = range(0, len(x), kernels.MANY)
    shares = -(-torch.get_num_threads() // max(1, len(starts)))

    def work(task: tuple[int, int]) -> None:
        part = slice(task[0], task[0] + kernels.MANY)
        kernels.masked_product(x_[part], weight_, bias_, ranges, groups, groups_read, task[1], shares, out_[part])

    together(work, list(product(starts, range(shares))))
    return out


def masked_gradient(g: Tensor, x: Tensor, ranges: Any, readers: Any, groups: int) -> Tensor:
    """gᵀ x where a unit reads a column, zero elsewhere: the derivative by the weight.

    Args:
        g: ``(samples, groups · R)``, by the outputs.
        x: ``(samples, C)``.
        ranges: the columns that a unit reads, ``(R, 2)``.
        readers: the units of a group that read a column, ``(C, 2)``.
    """
    out = x.new_empty(g.shape[1], x.shape[1])
    g_, x_, out_ = g.detach().contiguous().numpy().T, x.detach().contiguous().numpy(), out.numpy()
    panels = range(0, x.shape[1], kernels.MANY)
    shares = -(-torch.get_num_threads() // len(panels))

    def work(task: tuple[int, int]) -> None:
        panel, share = task
        read = readers[panel : panel + kernels.MANY]
        first, last = int(read[:, 0].min()), int(read[:, 1].max())
        kernels.masked_gradient(g_, x_, ranges, groups, panel, first, last, share, shares, out_)

    together(work, list(product(panels, range(shares))))
    return out
