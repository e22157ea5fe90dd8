"""How machine code is told of a context."""

from __future__ import annotations

from torch import Tensor


def context_rows(conditioned: Tensor | None, like: Tensor) -> Tensor:
    """``(rows, hidden[0])``, where sample n of all has row n modulo the number of rows; none without a context.

    Args:
        conditioned: ``(..., hidden[0])``, with all or the last of the dimensions of ``like``, or some that fit them.
    """
    if conditioned is None:
        return like.new_empty(0, 0)
    lead = like.shape[:-1]
    if conditioned.shape[:-1] != lead[len(lead) + 1 - conditioned.dim() :]:
        conditioned = conditioned.expand(*lead, -1)
    return conditioned.detach().reshape(-1, conditioned.shape[-1]).contiguous()
