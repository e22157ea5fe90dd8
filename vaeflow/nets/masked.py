"""Linear layers in which each unit reads a range of the columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeflow.compiled import attempt

LEAST_SAMPLES, LEAST_WEIGHTS = 48, 2**17
"""From which size on the machine code is faster than torch's dense product."""


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
        self.groups = groups
        many = np.array(reads)
        start = in_features - many if from_end else 0 * many
        self.ranges = np.stack([start, start + many], -1)
        """The columns that each unit of a group reads."""
        mask = (self.ranges[:, :1] <= np.arange(in_features)) & (np.arange(in_features) < self.ranges[:, 1:])
        self.readers = np.stack([mask.argmax(0), mask.argmax(0) + mask.sum(0)], -1)
        """The units of a group that read each column."""
        self.register_buffer("mask", torch.from_numpy(mask).repeat(groups, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self._is_able(x):
            return _dense(x, self.weight, self.bias, self.mask)
        y = _MaskedLinear.apply(x.reshape(-1, self.in_features), self.weight, self.bias, self.mask, self)
        return y.view(*x.shape[:-1], self.out_features)

    def _is_able(self, x: Tensor) -> bool:
        """Whether there is machine code for it, and to any use."""
        return (
            not torch.compiler.is_compiling()
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype
            and x.dtype in (torch.float32, torch.float64)
            and not torch.is_autocast_enabled("cpu")
            and x.numel() >= LEAST_SAMPLES * self.in_features
            and self.weight.numel() >= LEAST_WEIGHTS
        )


def _dense(x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    return F.linear(x, torch.where(mask, weight, 0.0), bias)


class _MaskedLinear(torch.autograd.Function):
    """The same and its derivative, without the products that are masked."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, layer: MaskedLinear) -> Tensor:
        y = attempt("masked", "masked_linear", x, weight, bias, layer.ranges, layer.groups)
        return _dense(x, weight, bias, mask) if y is None else y

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, weight, bias, mask, ctx.layer = inputs
        ctx.save_for_backward(x, weight, bias, mask)
        ctx.save_for_forward(x, weight, mask)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight, _, mask = ctx.saved_tensors
        layer = ctx.layer
        by_x, by_weight, by_bias = None, None, None
        differentiable = torch.is_grad_enabled()  # the derivative will be differentiated as well
        if ctx.needs_input_grad[0]:
            if not differentiable:
                by_x = attempt("masked", "masked_linear", g, weight.T, None, layer.readers, 1, layer.groups)
            by_x = g @ torch.where(mask, weight, 0.0) if by_x is None else by_x
        if ctx.needs_input_grad[1]:
            if not differentiable:
                by_weight = attempt("masked", "masked_gradient", g, x, layer.ranges, layer.readers, layer.groups)
            by_weight = torch.where(mask, g.T @ x, 0.0) if by_weight is None else by_weight
        if ctx.needs_input_grad[2]:
            by_bias = g.sum(0)
        return by_x, by_weight, by_bias, None, None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, weight_t: Tensor, bias_t: Tensor, *_: Any) -> Tensor:
        x, weight, mask = ctx.saved_tensors
        return _dense(x_t, weight, bias_t, mask) + x @ torch.where(mask, weight_t, 0.0).T

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Tensor, int]:
        *tensors, _ = inputs
        return torch.vmap(_dense, in_dims[:-1])(*tensors), 0
