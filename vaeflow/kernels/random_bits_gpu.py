"""The bits of counter-based random numbers as one kernel of Triton, for GPUs: one launch instead of forty."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PANEL = 1024  # numbers of a program


def random_bits(index: Tensor, key: int, first_sample: int, num_samples: int, counters: int) -> Tensor:
    """What ``Noise._bits`` defines, int64 ``(num_samples, batch, counters)``."""
    out = torch.empty(num_samples, len(index), counters, dtype=torch.int64, device=index.device)
    words = torch.tensor([key, first_sample], dtype=torch.uint64).view(torch.int64).tolist()
    with torch.cuda.device_of(out):
        _random_bits[(triton.cdiv(out.numel(), PANEL),)](
            index.long().contiguous(), out, *words, len(index), counters, out.numel(), PANEL=PANEL
        )
    return out


@triton.jit
def _mix(h):
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9
    h = (h ^ (h >> 27)) * 0x94D049BB133111EB
    return h ^ (h >> 31)


@triton.jit(do_not_specialize=["key", "first_sample", "batch", "counters", "numbers"])
def _random_bits(index, out, key, first_sample, batch, counters, numbers, PANEL: tl.constexpr):
    golden = 0x9E3779B97F4A7C15
    at = tl.program_id(0).to(tl.int64) * PANEL + tl.arange(0, PANEL)
    is_there = at < numbers
    counter, pair = at % counters, at // counters
    example = tl.load(index + pair % batch, mask=is_there, other=0).to(tl.uint64, bitcast=True)
    sample = (pair // batch + first_sample).to(tl.uint64, bitcast=True)
    h = _mix(example * golden + (key.to(tl.int64).to(tl.uint64, bitcast=True) + golden))
    h = _mix(_mix(h + (sample + 1) * golden))
    h = _mix(h + (counter.to(tl.uint64, bitcast=True) + 1) * golden)
    tl.store(out + at, h.to(tl.int64, bitcast=True), mask=is_there)
