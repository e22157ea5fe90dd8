"""Linear layers in which each unit reads a range of the columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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
    zero: Tensor

    def __init__(self, in_features: int, reads: Sequence[int], groups: int = 1, from_end: bool = False) -> None:
        super().__init__(in_features, groups * len(reads))
        self.groups = groups
        many = np.array(reads, np.int64)
        start = in_features - many if from_end else 0 * many
        self.ranges = np.stack([start, start + many], -1)
        """The columns that each unit of a group reads."""
        mask = (self.ranges[:, :1] <= np.arange(in_features)) & (np.arange(in_features) < self.ranges[:, 1:])
        self.readers = np.stack([mask.argmax(0), mask.argmax(0) + mask.sum(0)], -1)
        """The units of a group that read each column."""
        self.register_buffer("mask", torch.from_numpy(mask).repeat(groups, 1), persistent=False)
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # a number would become one in each pass

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch.where(self.mask, self.weight, self.zero), self.bias)
