"""The bits of counter-based random numbers in machine code, for the CPU: one pass instead of fifteen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vaeflow.kernels import cpu


def random_bits(index: Tensor, key: int, first_sample: int, num_samples: int, counters: int) -> Tensor:
    """What ``Noise._bits`` defines, int64 ``(num_samples, batch, counters)``."""
    out = torch.empty(num_samples, len(index), counters, dtype=torch.int64)
    words = index.long().contiguous().numpy().view(np.uint64), np.uint64(key), np.uint64(first_sample)
    cpu.random_bits(*words, out.numpy().view(np.uint64))
    return out
