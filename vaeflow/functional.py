"""Elementary functions for which torch takes up to ten times as long on a CPU: its log1p and expm1 do not run
along the lanes of a processor as its exp and log do."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp x), elementwise."""
    if x.device.type != "cpu":
        return F.softplus(x)
    return _softplus(x) if torch.compiler.is_compiling() else _Softplus.apply(x)


def log_sigmoid(x: Tensor) -> Tensor:
    """log sigmoid(x) = −softplus(−x), elementwise."""
    return -softplus(-x)


class ELU(nn.ELU):
    """x where it is positive, exp(x) − 1 elsewhere (Clevert, Unterthiner & Hochreiter 2016, arXiv 1511.07289)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return F.elu(x)
        return _elu(x) if torch.compiler.is_compiling() else _Elu.apply(x)


def _softplus(x: Tensor) -> Tensor:
    """max(x, 0) + log u + (e − (u − 1))/u, with e = exp(−|x|) and u = 1 + e rounded: the last term brings back what
    the rounding took, since log(u + δ) = log u + δ/u."""
    e = torch.exp(-x.abs())
    u = e + 1
    return (e - (u - 1)) / u + torch.log(u) + x.clamp(min=0)


def _elu(x: Tensor) -> Tensor:
    """max(x, 0) + exp(min(x, 0)) − 1."""
    return torch.exp(x.clamp(max=0)) - 1 + x.clamp(min=0)


class _Elementwise(torch.autograd.Function):
    """A function with less memory than autograd takes for it, and its derivative: g times its slope at x."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)


class _Softplus(_Elementwise):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        e = x.abs().neg_().exp_()
        u = e + 1
        return e.sub_(u - 1).div_(u).add_(u.log_()).add_(x.clamp(min=0))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * torch.sigmoid(x)

    jvp = backward


class _Elu(_Elementwise):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clamp(max=0).exp_().sub_(1).add_(x.clamp(min=0))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * torch.exp(x.clamp(max=0))

    jvp = backward
