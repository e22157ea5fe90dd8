"""A pass of MADE, and of the elementwise map that it serves, in one call of machine code; and its derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.func import functional_call

from vaeflow.kernels import attempt
from vaeflow.nets.conditioner import Conditioned, Context
from vaeflow.tracing import is_batched, is_eager

Masked: TypeAlias = Any
"""A :class:`~vaeflow.nets.masked_mlp.MaskedMLP`, which calls the functions below."""
Map: TypeAlias = Any
"""A :class:`~vaeflow.bijections.Transformer`, of the floor above."""
LEAST_SAMPLES, LEAST_WEIGHTS = 48, 2**14
"""From which size on the machine code is faster than torch's dense products."""


def has_machine_code(made: Masked, x: Tensor) -> bool:
    """Whether there is machine code for the net and such an x, on a GPU for the sequential solve alone."""
    return (
        x.device.type in ("cpu", "cuda")
        and x.dtype in (torch.float32, torch.float64)
        and made.out.weight.dtype == x.dtype
        and not torch.is_autocast_enabled(x.device.type)
        and made.activation_name is not None
        and not any(stage._forward_hooks or stage._forward_pre_hooks for stage in made.stages)
        and is_eager()
    )


def is_able(made: Masked, x: Tensor) -> bool:
    """Whether it is also faster."""
    samples = x.numel() // made.features
    is_large = samples >= LEAST_SAMPLES and made.num_weights >= LEAST_WEIGHTS
    return is_large and x.device.type == "cpu" and has_machine_code(made, x)


def parallel(
    made: Masked, transformer: Map | None, inverse: bool, x: Tensor, context: Context
) -> tuple[Tensor, Tensor]:
    """The image τ(x; θ) with θ = MADE(x), and its log-determinant.

    Args:
        transformer: τ, Additive, Affine or Gated. Without one, the image is θ, ``(..., outputs · D)``.
        inverse: take the inverse of τ.
        x: ``(..., D)``.
        context: of the batch, or what :meth:`MaskedMLP.condition` made of it.
    """
    conditioned = made.condition(context).value
    if conditioned is not None:
        x = x.expand(*torch.broadcast_shapes(x.shape[:-1], conditioned.shape[:-1]), -1)
    sources = (x, conditioned, *made.stage_parameters)
    return _Parallel.apply(made, transformer, inverse, torch.is_grad_enabled(), *sources)


class _Parallel(torch.autograd.Function):
    """The same as a function of tensors, which keeps the sums of the net's units for its derivative."""

    @staticmethod
    def forward(
        ctx: Any, made: Masked, transformer: Map | None, inverse: bool, keep: bool, *sources: Any
    ) -> tuple[Tensor, Tensor]:
        ctx.what = made, transformer, inverse
        found = attempt("masked_pass", "forward", *ctx.what, keep, *sources)
        image, log_det, kept = found or (*_by_layers(*ctx.what, *sources), None)
        ctx.save_for_backward(*sources, kept)
        return image, log_det

    @staticmethod
    def backward(ctx: Any, *by: Tensor) -> Any:
        x, conditioned, *parameters, kept = ctx.saved_tensors
        wanted, twice = ctx.needs_input_grad[4:], torch.is_grad_enabled()
        found = None
        if kept is not None and not twice and not is_batched(*by):  # the derivative will not be differentiated itself
            asked = (wanted[1], any(wanted[2:]))
            found = attempt("masked_pass", "backward", *ctx.what, x, parameters, kept, *by, *asked)
        if found is None:
            made, transformer, inverse = ctx.what
            found = _derivatives(made, transformer, inverse, (x, conditioned, *parameters), by, wanted, twice)
        elif found[1] is not None:
            found = found[0], found[1].sum_to_size(conditioned.shape), *found[2:]
        return None, None, None, None, *found


def _by_layers(
    made: Masked, transformer: Map | None, inverse: bool, x: Tensor, conditioned: Tensor | None,
    *parameters: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The definition."""
    names = [name for name, _ in made.named_parameters() if not name.startswith("context.")]
    theta = functional_call(made, dict(zip(names, parameters, strict=True)), (x, Conditioned(conditioned), True))
    if transformer is None:
        return theta.movedim(-1, -2).flatten(-2), x.new_empty(0)
    image, log_slopes = (transformer.inverse if inverse else transformer.forward)(x, theta)
    return image, log_slopes.sum(-1)


def _derivatives(
    made: Masked, transformer: Map | None, inverse: bool, sources: Sequence[Tensor | None], by: Sequence[Tensor],
    wanted: Sequence[bool], twice: bool,
) -> list[Tensor | None]:  # fmt: skip
    """What is wanted of Σ by ∂out/∂source; with ``twice`` it can be differentiated itself."""
    fixed: list[Any] = [
        source if source is None or not is_wanted else source.view_as(source) if twice else source.detach()
        for source, is_wanted in zip(sources, wanted, strict=True)
    ]
    asked = [source.requires_grad_() for source, is_wanted in zip(fixed, wanted, strict=True) if is_wanted]
    with torch.enable_grad():
        out = _by_layers(made, transformer, inverse, *fixed)
        pairs = [(o, b) for o, b in zip(out, by, strict=True) if o.requires_grad]
        found = iter(torch.autograd.grad([o for o, _ in pairs], asked, [b for _, b in pairs], create_graph=twice))
    return [next(found) if is_wanted else None for is_wanted in wanted]
