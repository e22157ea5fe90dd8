"""An autoregressive map taken feature by feature, each unit of its net evaluated once; and its derivative.

The image of v under y_i = τ(v_i; θ_i(y_<i)) needs y_<i before θ_i, hence D steps, but not D passes of the net: a hidden
unit of degree t reads y_1 … y_t and nothing else, so it is known for good at step t. Units lie in the order of their
degrees, so each reads a range of columns that are all known, and what is masked is never touched. The whole costs the
products of one pass in which no masked product is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vaeflow.bijections.transformers import IN_MACHINE_CODE, Transformer
from vaeflow.kernels import attempt
from vaeflow.kernels.context import context_rows
from vaeflow.nets.conditioner import Conditioned, Context
from vaeflow.nets.masked_mlp import MaskedMLP
from vaeflow.nets.parallel import has_machine_code
from vaeflow.tracing import is_batched, is_eager

Transform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A transformer's forward or inverse."""


def solve(
    made: MaskedMLP, transformer: Transformer, inverse: bool, value: Tensor, context: Context
) -> tuple[Tensor, Tensor]:
    """The image y of v under y_i = τ(v_i; θ_i(y_<i, context)), and log |det ∂y/∂v|.

    With y = F(v, y) known, the implicit function theorem gives dy = (I − ∂F/∂y)⁻¹ dF|_y, where ∂F/∂y is strictly
    triangular: gradients cost one pass of the net and one more sequential solve, and no more memory than that.

    Args:
        transformer: τ, or with ``inverse`` its inverse.
        value: v ``(..., batch, D)``.
        context: of the batch, or what :meth:`MaskedMLP.condition` made of it.
    """
    transform = transformer.inverse if inverse else transformer.forward
    context = made.condition(context)
    conditioned = context.value
    learns = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in transformer.parameters())
    if torch.compiler.is_compiling() or (learns and is_eager()):  # the steps themselves are differentiated
        return _solve_in_steps_of(transform, made, value, conditioned)
    if not is_eager():
        return _solve_in_passes(transform, made, value, context)
    with torch.no_grad():
        solved = None
        if type(transformer) in IN_MACHINE_CODE and has_machine_code(made, value):
            module = "sequential_solve" if value.device.type == "cpu" else "sequential_solve_gpu"
            v = value.detach().reshape(-1, made.features).contiguous()
            solved = attempt(module, "solve", made, transformer, inverse, v, context_rows(conditioned, value))
        if solved is None:
            y, log_det = _solve_in_steps_of(transform, made, value, conditioned)
        else:
            y, log_det = solved[0].view(value.shape), solved[1].view(value.shape[:-1])
    if not torch.is_grad_enabled():
        return y, log_det
    sources = [source for source in (value, conditioned, *made.parameters()) if source is not None]
    if not any(source.requires_grad for source in sources):
        return y, log_det
    y = _Implicit.apply(y, made, transform, value, conditioned, *made.parameters())
    return y, transform(value, made(y, context))[1].sum(-1)


def _solve_in_passes(transform: Transform, made: MaskedMLP, value: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """The definition: a pass for each feature, in operations that every transform of functions knows."""
    y, log_det = torch.zeros_like(value), value.new_zeros(value.shape[:-1])
    for i in made.order:
        image, log_slope = transform(value[..., i], made(y, context)[..., i, :])
        y = torch.cat([y[..., :i], image.unsqueeze(-1), y[..., i + 1 :]], -1)
        log_det = log_det + log_slope
    return y, log_det


def _solve_in_steps_of(
    transform: Transform, made: MaskedMLP, value: Tensor, conditioned: Tensor | None
) -> tuple[Tensor, Tensor]:
    flat = value.flatten(0, -2)
    if conditioned is not None:
        conditioned = conditioned.expand(*value.shape[:-1], -1).flatten(0, -2)
    y, log_det = solve_in_steps(made, lambda i, theta: transform(flat[:, i], theta), flat, conditioned)
    return y.view_as(value), log_det.view(value.shape[:-1])


def solve_in_steps(
    made: MaskedMLP, step: Callable[[int, Tensor], tuple[Tensor, Tensor]], like: Tensor, conditioned: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The image y of a map whose y_i is made of θ_i(y_<i), and log |det ∂y/∂v|, one feature after the other.

    At step t the units of degree t are evaluated, then the outputs of the next feature, then that feature. A value that
    is not yet there is never read, so that nothing of it, however large, can reach one that is.

    Args:
        step: (i, θ_i ``(batch, P)``) → y_i and log |∂y_i/∂v_i|, both ``(batch,)``.
        like: of the shape ``(batch, D)`` and the number type of y.
        conditioned: the context's part of the first layer, ``(batch, hidden[0])``.
    """
    *stages, out = made.stages
    batch = len(like)
    y, log_det = like.new_empty(made.features, batch), like.new_zeros(batch)  # unit by unit: (units, batch)
    sums = [like.new_empty(stage.out_features, batch) for stage in stages]
    active = [torch.empty_like(value) for value in sums]
    below = [y, *active]
    weight, bias = (part.unflatten(0, (made.outputs, -1)) for part in (out.weight, out.bias))

    def read(k: int, known: slice) -> Tensor:
        part = below[k][known]
        watched = torch.compiler.is_compiling() or torch.is_grad_enabled()
        return part.clone() if watched else part  # autograd keeps it, and `below` still changes

    for t, i in enumerate(made.order):
        for k, stage in enumerate(stages):
            units, known = made.units(k + 1, t, t + 1), made.units(k, 0, t + 1)
            if units.start == units.stop:
                continue
            value = torch.addmm(stage.bias[units, None], stage.weight[units, known], read(k, known))
            if k == 0 and conditioned is not None:
                value = value + conditioned[:, units].T
            if made.is_added(k):
                value = value + sums[k - 2][units]
            sums[k][units], active[k][units] = value, made.activation(value)
        known = made.units(len(stages), 0, t + 1)
        theta = torch.addmm(bias[:, i, None], weight[:, i, known], read(len(stages), known))
        y[i], log_slope = step(i, theta.T)
        log_det = log_det + log_slope
    return y.T.contiguous(), log_det


class _Implicit(torch.autograd.Function):
    """y as a function of v, the context and the parameters: the cotangent g of y becomes u = (I − ∂F/∂y)⁻ᵀ g, and
    theirs are uᵀ ∂F/∂·, with y held fixed."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, made: MaskedMLP, transform: Transform, *sources: Tensor | None) -> Tensor:
        y = y.view_as(y)
        ctx.made, ctx.transform = made, transform
        ctx.save_for_backward(y, *sources)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        twice = torch.is_grad_enabled()  # the gradient will be differentiated as well

        def fixed(tensor: Any) -> Any:
            """The same value, of which a derivative is a partial one."""
            if tensor is None:
                return None
            return tensor.view_as(tensor) if twice else tensor.detach().requires_grad_(tensor.requires_grad)

        y, *sources = map(fixed, ctx.saved_tensors)
        value, conditioned, *parameters = sources
        names = [name for name, _ in ctx.made.named_parameters()]
        with torch.enable_grad():
            theta = functional_call(ctx.made, dict(zip(names, parameters, strict=True)), (y, Conditioned(conditioned)))
            image, _ = ctx.transform(value, theta)
            if twice or is_batched(g):
                u = _differentiable_cotangents(image, y, g)
            else:
                by_name = {f"made.{name}": parameter for name, parameter in zip(names, parameters, strict=True)}
                arguments = (ctx.transform, y, value, conditioned, g)
                u = functional_call(_Cotangents(ctx.made), by_name, arguments)
            wanted = [source for source in sources if source is not None and source.requires_grad]
            gradients = torch.autograd.grad(image, wanted, u, create_graph=twice, allow_unused=True)
        found = dict(zip(map(id, wanted), gradients, strict=True))
        return None, None, None, *(found.get(id(source)) for source in sources)


class _Cotangents(nn.Module):
    """:func:`_cotangents` as a module, so that it can be called with other parameters than those the net has now."""

    def __init__(self, made: MaskedMLP) -> None:
        super().__init__()
        self.made = made

    def forward(self, *arguments: Any) -> Tensor:
        return _cotangents(self.made, *arguments)


@torch.no_grad()
def _cotangents(
    made: MaskedMLP, transform: Transform, y: Tensor, value: Tensor, conditioned: Tensor | None, g: Tensor
) -> Tensor:
    """The u with u_i = g_i + Σ_j u_j ∂F_j/∂y_i, where j runs over the features after i, from the last to the first.

    It is backpropagation in the order of the degrees: the cotangent of a unit of degree t is complete once those of
    the features after t are.
    """
    *stages, out = made.stages
    with torch.enable_grad():
        sums = [value.detach().requires_grad_() for value in made.sums(y.detach(), Conditioned(conditioned))]
        slopes = torch.autograd.grad([made.activation(value).sum() for value in sums], sums)
        theta = made.out(made.activation(sums[-1].detach())).unflatten(-1, (made.outputs, -1)).detach().requires_grad_()
        (by_theta,) = torch.autograd.grad(
            transform(value, theta.movedim(-2, -1))[0].sum(), theta, allow_unused=True, materialize_grads=True
        )
    by_sums = [slope.flatten(0, -2).T for slope in slopes]
    by_theta = by_theta.flatten(0, -3).movedim(0, -1)  # (outputs, features, batch)
    u, of_theta = torch.empty_like(y.flatten(0, -2).T), torch.empty_like(by_theta)
    of_sums = [torch.empty_like(slope) for slope in by_sums]
    weight = out.weight.unflatten(0, (made.outputs, -1))
    for t in reversed(range(made.features)):
        i = made.order[t]
        after = slice(0, i) if made.reverse else slice(i + 1, made.features)
        for k in reversed(range(len(stages))):
            units = made.units(k + 1, t + 1, t + 2)
            if units.start == units.stop:
                continue
            if k == len(stages) - 1:
                back = torch.einsum("pfu,pfb->ub", weight[:, after, units], of_theta[:, after])
            else:
                readers = made.units(k + 2, t + 1, made.features)
                back = stages[k + 1].weight[readers, units].T @ of_sums[k + 1][readers]
            back = by_sums[k][units] * back
            if made.is_added(k + 2):
                back = back + of_sums[k + 2][units]
            of_sums[k][units] = back
        readers = made.units(1, t + 1, made.features)
        u[i] = g[..., i].flatten() + stages[0].weight[readers, i] @ of_sums[0][readers]
        of_theta[:, i] = u[i] * by_theta[:, i]
    return u.T.reshape(y.shape)


def _differentiable_cotangents(image: Tensor, y: Tensor, g: Tensor) -> Tensor:
    """The same, for derivatives of it: u = g + (∂F/∂y)ᵀ u, D times, when all of the triangle is through."""
    u = g
    for _ in range(y.shape[-1] - 1):
        u = g + torch.autograd.grad(image, y, u, create_graph=True)[0]
    return u
