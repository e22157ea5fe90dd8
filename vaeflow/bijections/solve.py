"""Numerical inverses that maps share: a scalar equation, and an autoregressive system of them."""

from __future__ import annotations

import torch
from torch import Tensor


def solve_tanh(p: Tensor, q: Tensor, c: Tensor, t: Tensor) -> Tensor:
    """The s with s + p tanh(q s + c) = t, elementwise, where pq > −1, so that the left side rises in s.

    |s − t| ≤ |p| brackets the root; bisection halves the bracket down to the precision of the number type, however
    flat the left side is, and two Newton steps from there carry the gradients of the implicit function theorem.

    Shape:
        ``p``, ``q``, ``c``, ``t`` broadcast against each other; the result has their common shape.
    """
    p, q, c, t = torch.broadcast_tensors(p, q, c, t)
    with torch.no_grad():
        low, high = t - p.abs(), t + p.abs()
        for _ in range(56 if t.dtype == torch.float64 else 28):
            middle = (low + high) / 2
            too_high = middle + p * torch.tanh(q * middle + c) > t
            low, high = torch.where(too_high, low, middle), torch.where(too_high, middle, high)
        root = (low + high) / 2
    for _ in range(2):
        h = torch.tanh(q * root + c)
        root = root - (root + p * h - t) / (1 + p * q * (1 - h * h))
    return root
