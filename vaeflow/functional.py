"""Elementary functions for which torch takes up to ten times as long on a CPU: its log1p and expm1 do not run
along the lanes of a processor as its exp and log do."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeflow.errors import VaeflowError
from vaeflow.tracing import is_eager

LOG_SCALE_BOUND = 7.0
FEW = 2**10
"""Up to how many numbers one slow operation takes less time than many fast ones."""

_LEAST = {dtype: -math.log(torch.finfo(dtype).max) for dtype in (torch.float32, torch.float64)}


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp x), elementwise."""
    if x.device.type != "cpu":
        return F.softplus(x)
    if not is_eager():
        return _softplus(x)
    if x.numel() <= FEW and not (x.requires_grad and torch.is_grad_enabled() and _reaches_far(x)):
        return torch.logaddexp(x, torch.zeros_like(x))
    return _Softplus.apply(x)


def _reaches_far(x: Tensor) -> bool:
    """Whether a number is so low that exp(−x) overflows, and the second derivative of torch's logaddexp is NaN."""
    return x.numel() > 0 and x.detach().min().item() <= _LEAST.get(x.dtype, 0.0)


def log_sigmoid(x: Tensor) -> Tensor:
    """log sigmoid(x) = −softplus(−x), elementwise."""
    return F.logsigmoid(x) if x.device.type != "cpu" else -softplus(-x)


class ELU(nn.ELU):
    """x where it is positive, exp(x) − 1 elsewhere (Clevert, Unterthiner & Hochreiter 2016, arXiv 1511.07289)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return F.elu(x)
        return _Elu.apply(x) if is_eager() else _elu(x)


def floored(x: Tensor, levels: int) -> Tensor:
    """The integer in whose cell x lies, 0 … L − 1, elementwise. Its derivative is zero wherever there is one, which
    nobody who asks for it expects: differentiating raises a :class:`VaeflowError`."""
    message = "decode rounds down to integers, which have no derivative: call it with floor=False to differentiate."
    return refuse_derivative(x.floor().clamp(0, levels - 1), message)


def refuse_derivative(x: Tensor, message: str) -> Tensor:
    """x itself, whose derivative in any mode is a :class:`VaeflowError` with this message instead of a quiet zero."""
    return _Refusing.apply(x, message)


def _softplus(x: Tensor) -> Tensor:
    """max(x, 0) + log u + (e − (u − 1))/u, with e = exp(−|x|) and u = 1 + e rounded: the last term brings back what
    the rounding took, since log(u + δ) = log u + δ/u."""
    e = torch.exp(torch.where(x > 0, -x, x))
    u = e + 1
    return (e - (u - 1)) / u + torch.log(u) + torch.where(x > 0, x, 0.0)


def _elu(x: Tensor) -> Tensor:
    """max(x, 0) + exp(min(x, 0)) − 1."""
    return torch.exp(torch.where(x > 0, 0.0, x)) - 1 + torch.where(x > 0, x, 0.0)


class _Softplus(torch.autograd.Function):
    """The same with less memory than autograd takes for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        e = x.abs().neg_().exp_()
        u = e + 1
        return e.sub_(u - 1).div_(u).add_(u.log_()).add_(x.clamp(min=0))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * torch.sigmoid(x)


class _Elu(torch.autograd.Function):
    """The same with less memory than autograd takes for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(max=0).exp_().sub_(1).add_(x.clamp(min=0))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * torch.exp(x.clamp(max=0))


class _Refusing(torch.autograd.Function):
    """The same; reverse and forward differentiation, and transforms of torch.func, all end in an error."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, message: str) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.message = inputs

    @staticmethod
    def _refuse(ctx: Any, *by: Any) -> Any:
        raise VaeflowError(ctx.message)

    backward = jvp = _refuse


def bounded(log_scale: Tensor, bound: float = LOG_SCALE_BOUND) -> Tensor:
    """B tanh(a/B): near 0 the identity, and no logarithm of a scale leaves ±B, whatever a net puts out."""
    return bound * torch.tanh(log_scale * (1 / bound))


def unbounded(log_scale: Tensor, bound: float = LOG_SCALE_BOUND) -> Tensor:
    """What :func:`bounded` maps to ``log_scale``, or to the nearest that is well inside the bounds."""
    return bound * torch.atanh((log_scale / bound).clamp(-0.95, 0.95))
