"""Numerical inverses that maps share: a scalar equation, and an autoregressive system of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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


def solve_autoregressive(
    step: Callable[[Tensor, int], tuple[Tensor, Tensor]], like: Tensor, order: Iterable[int]
) -> tuple[Tensor, Tensor]:
    """The image y of a map whose y_i depends on y_<i, one feature after the other: D passes for D features.

    At step i only column i is written. The columns that come later hold zeros until it is their turn, so that no
    value which is not yet valid, however large, can reach a valid one.

    Args:
        step: (y ``(..., features)``, i) → y_i and log |∂y_i/∂v_i|, both ``(...)``, of the y_<i that are there.
        like: of the shape and number type of y.
        order: the features' order.

    Returns:
        y ``(..., features)`` and log |det ∂y/∂v| ``(...)``.
    """
    image = torch.zeros_like(like)
    log_det = like.new_zeros(like.shape[:-1])
    columns = torch.arange(like.shape[-1], device=like.device)
    for i in order:
        image_i, log_slope = step(image, i)
        image = torch.where(columns == i, image_i.unsqueeze(-1), image)
        log_det = log_det + log_slope
    return image, log_det
