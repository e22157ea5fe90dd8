"""The Bernoulli likelihood of binary data and its derivative in machine code, for the CPU: one pass each, not ten."""

from __future__ import annotations

import torch
from torch import Tensor

from vaeflow.kernels.threads import run, tasks_for


def log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """Σ_c x_c a_c − log(1 + exp a_c) with the logits a.

    Args:
        x: ``(batch, D)``.
        logits: a ``(..., batch, D)``.

    Returns:
        ``(..., batch)``.
    """
    out = logits.new_empty(logits.shape[:-1])
    run("bernoulli", tasks_for(out.numel()), (), (*_rows(x, logits), out))
    return out


def by_logits(x: Tensor, logits: Tensor, g: Tensor) -> Tensor:
    """g (x − sigmoid a), of the shape of a, for g ``(..., batch)``."""
    out = torch.empty_like(logits, memory_format=torch.contiguous_format)
    arrays = (*_rows(x, logits), g.detach().contiguous().flatten(), out.flatten(0, -2))
    run("bernoulli_back", tasks_for(g.numel()), (), arrays)
    return out


def _rows(x: Tensor, logits: Tensor) -> list[Tensor]:
    return [value.detach().reshape(-1, value.shape[-1]).contiguous() for value in (x, logits)]
