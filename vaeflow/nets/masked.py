"""Linear layers in which each unit reads a range of the columns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaskedLinear(nn.Linear):
    """A linear layer whose unit r reads the first ``reads[r]`` columns of its input alone, or the last.

    What stands elsewhere in the weight has no part in anything: no value there, not even NaN, can reach an output.

    Args:
        in_features: number of columns.
        reads: how many of them each unit reads, ascending or descending.
        groups: the units come so many times over; a layer of ``groups · len(reads)`` outputs.
        from_end: they read the last columns instead of the first.
    """

    mask: Tensor

    def __init__(self, in_features: int, reads: Sequence[int], groups: int = 1, from_end: bool = False) -> None:
        super().__init__(in_features, groups * len(reads))
        distance = torch.arange(in_features)
        mask = (distance.flip(0) if from_end else distance) < torch.tensor(reads)[:, None]
        self.register_buffer("mask", mask.repeat(groups, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch.where(self.mask, self.weight, 0.0), self.bias)
