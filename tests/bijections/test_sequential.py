"""The sequential solve: what a strict pass for each feature gives, in steps and in machine code, and its gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import vaeflow.bijections as B
from tests.conftest import redraw
from vaeflow.bijections import sequential
from vaeflow.bijections.autoregressive import AutoregressiveStep
from vaeflow.nets.parallel import has_machine_code

C = 3
spline = functools.partial(B.RationalQuadraticSpline, bins=4, bound=2.0)
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "one layer": {"features": 20, "hidden": [32]},
    "three layers": {"features": 37, "hidden": [30, 64, 9], "activation": "tanh"},
    "reversed": {"features": 33, "hidden": [40, 21], "reverse": True},
    "fewer units than features": {"features": 40, "hidden": [7, 5], "activation": "silu"},
    "random degrees": {"features": 18, "hidden": [40, 30], "degrees": "random", "activation": "softplus"},
    "residual": {"features": 19, "hidden": [25], "residual_blocks": 2, "activation": "gelu"},
    "residual, reversed, random": {
        "features": 35, "hidden": [16, 50], "residual_blocks": 1, "reverse": True, "degrees": "random",
    },
    "gated": {"features": 21, "hidden": [48], "transformer": B.Gated},
    "additive": {"features": 17, "hidden": [16], "transformer": B.Additive, "activation": "leaky_relu"},
    "spline": {"features": 12, "hidden": [24], "transformer": spline, "activation": "relu"},
    "spline, reversed": {"features": 9, "hidden": [24], "transformer": spline, "reverse": True},
    "one feature": {"features": 1, "hidden": [5]},
    "two features": {"features": 2, "hidden": [1]},
}  # fmt: skip

architectures = pytest.mark.parametrize("name", ARCHITECTURES)
conditional_or_not = pytest.mark.parametrize("conditional", [False, True])


DEVICE = torch.device("cpu")


@pytest.fixture(params=["machine code", "steps", *["GPU"] * torch.cuda.is_available()])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All ways of solving."""
    if request.param == "steps":
        monkeypatch.setattr(sequential, "attempt", lambda *arguments: None)
    if request.param == "GPU":
        monkeypatch.setitem(globals(), "DEVICE", torch.device("cuda"))
    return request.param


def make(
    name: str, conditional: bool, gain: float, dtype: torch.dtype = torch.float64, inverse: bool = False
) -> AutoregressiveStep:
    cls = B.InverseAutoregressiveStep if inverse else B.MaskedAutoregressiveStep
    arguments = dict(ARCHITECTURES[name])
    step = cls(arguments.pop("features"), C if conditional else 0, **arguments)
    return redraw(step.double(), gain).to(DEVICE, dtype)  # type: ignore[return-value]


def inputs(name: str, conditional: bool, batch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    value = torch.randn(batch, ARCHITECTURES[name]["features"], generator=generator, dtype=torch.float64)
    context = torch.randn(batch, C, generator=generator, dtype=torch.float64)
    return value.to(DEVICE, dtype), context.to(DEVICE, dtype) if conditional else None


def solve(step: AutoregressiveStep, value: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    return (step.inverse if isinstance(step, B.InverseAutoregressiveStep) else step.forward)(value, context)


def back(step: AutoregressiveStep, value: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    return (step.forward if isinstance(step, B.InverseAutoregressiveStep) else step.inverse)(value, context)


def strict(step: AutoregressiveStep, value: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """The definition: a pass of the whole net for each feature, of which only that feature is written."""
    inverse = isinstance(step, B.InverseAutoregressiveStep)
    transform = step.transformer.inverse if inverse else step.transformer.forward
    image, log_det = torch.zeros_like(value), value.new_zeros(value.shape[:-1])
    columns = torch.arange(value.shape[-1], device=value.device)
    for i in step.made.order:
        image_i, log_slope = transform(value[..., i], step.made(image, context)[..., i, :])
        image = torch.where(columns == i, image_i.unsqueeze(-1), image)
        log_det = log_det + log_slope
    return image, log_det


def slopes_back(step: AutoregressiveStep, image: Tensor, context: Tensor | None) -> Tensor:
    """The Jacobian of the fast direction at each image, the inverse of that of the solve."""
    of_one = torch.func.jacrev(lambda y, c: back(step, y[None], None if c is None else c[None])[0][0])
    return torch.func.vmap(of_one, in_dims=(0, None if context is None else 0))(image, context)


@architectures
@conditional_or_not
@pytest.mark.parametrize("gain", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("inverse", [False, True])
@torch.no_grad()
def test_it_is_what_strict_passes_give(name: str, conditional: bool, gain: float, inverse: bool, way: str) -> None:
    step = make(name, conditional, gain, inverse=inverse)
    value, context = inputs(name, conditional, 7, torch.float64)
    (wanted, wanted_log_det), (got, log_det) = strict(step, value, context), solve(step, value, context)
    kept = wanted.norm(dim=-1) <= 1e4
    tolerance = 1e-10 * (1 + wanted.norm(dim=-1)) * torch.linalg.cond(slopes_back(step, wanted, context))
    assert kept.any() or gain > 1
    assert ((got - wanted).norm(dim=-1) <= tolerance)[kept].all()
    assert ((log_det - wanted_log_det).abs() <= tolerance)[kept].all()
    assert not torch.allclose(wanted, value, atol=1e-3)
    assert not (got.isnan() & ~wanted.isnan()).any()


@architectures
@pytest.mark.parametrize("batch", [0, 1, 7, 128])
@pytest.mark.parametrize("gain", [1.0, 2.0, 4.0])
@torch.no_grad()
def test_single_precision_is_as_good_as_that_of_strict_passes(name: str, batch: int, gain: float, way: str) -> None:
    step = make(name, True, gain, torch.float32)
    value, context = inputs(name, True, batch, torch.float32)
    (wanted, wanted_log_det), (got, log_det) = strict(step, value, context), solve(step, value, context)
    assert got.dtype == log_det.dtype == torch.float32
    assert got.shape == value.shape
    assert log_det.shape == (batch,)
    step, value, context = step.double(), value.double(), context.double()  # type: ignore[union-attr]
    exact = strict(make(name, True, gain), value, context)[0]
    kept = exact.norm(dim=-1) <= 1e4

    def residual(image: Tensor) -> Tensor:
        return (back(step, image.double(), context)[0] - value).norm(dim=-1)

    amplified = exact.norm(dim=-1) * torch.linalg.matrix_norm(slopes_back(step, exact, context), 2)
    seen = 1 + value.norm(dim=-1) + amplified
    of_rounding = torch.finfo(torch.float32).eps * seen
    assert (residual(got) <= 10 * residual(wanted).maximum(of_rounding))[kept].all()
    assert kept.any() or gain > 1 or not batch
    assert not (got.isnan() & ~wanted.isnan()).any()
    assert not (log_det.isnan() & ~wanted_log_det.isnan()).any()


@torch.no_grad()
def test_huge_weights_bring_no_nan_of_their_own(way: str) -> None:
    """Where libraries that write every column in each pass overflow, and inf times a zero of the mask is NaN."""
    step = make("three layers", False, 1e6, torch.float32)
    value, _ = inputs("three layers", False, 7, torch.float32)
    (wanted, _), (got, _) = strict(step, value, None), solve(step, value, None)
    assert wanted.isfinite().any()
    assert not (got.isnan() & ~wanted.isnan()).any()


@torch.no_grad()
def test_what_is_masked_is_never_read(way: str) -> None:
    step = make("residual, reversed, random", False, 1.0)
    value, _ = inputs("residual, reversed, random", False, 7, torch.float64)
    clean = solve(step, value, None), back(step, value, None)
    for junk in (1e30, float("inf"), float("nan")):
        for stage in step.made.stages:
            stage.weight[~stage.mask] = junk
        for got, wanted in zip((solve(step, value, None), back(step, value, None)), clean, strict=True):
            assert torch.equal(got[0], wanted[0])
            assert torch.equal(got[1], wanted[1])


@torch.no_grad()
def test_samples_share_contexts_and_strides_do_not_matter(way: str) -> None:
    step = make("gated", True, 1.0)
    value, context = inputs("gated", True, 5, torch.float64)
    many = torch.stack([value * k for k in (1, 2, 3, 4, 5, 6)]).unflatten(0, (2, 3))
    got, log_det = solve(step, many.mT.contiguous().mT, context)
    for i in range(2):
        for j in range(3):
            wanted, wanted_log_det = strict(step, many[i, j], context)
            torch.testing.assert_close(got[i, j], wanted)
            torch.testing.assert_close(log_det[i, j], wanted_log_det)
    torch.testing.assert_close(solve(step, many, context.expand(3, 5, C))[0], got)  # type: ignore[union-attr]
    assert solve(step, many[:0], context)[0].shape == (0, 3, 5, 21)


@torch.no_grad()
def test_thousands_of_samples_are_the_same_in_chunks(way: str) -> None:
    step = make("one layer", True, 1.0)
    value, context = inputs("one layer", True, 1003, torch.float64)
    together = solve(step, value, context)
    apart = [solve(step, value[n : n + 1], context[n : n + 1]) for n in (0, 1, 500, 1002)]  # type: ignore[index]
    for n, one in zip((0, 1, 500, 1002), apart, strict=True):
        torch.testing.assert_close(together[0][n], one[0][0])
        torch.testing.assert_close(together[1][n], one[1][0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_is_taken_in_steps(dtype: torch.dtype) -> None:
    step = make("one layer", True, 1.0, dtype)
    value, context = inputs("one layer", True, 7, dtype)
    got, log_det = solve(step, value, context)
    assert got.dtype == log_det.dtype == dtype
    wanted = strict(make("one layer", True, 1.0), *(t.double() for t in (value, context)))[0]  # type: ignore[union-attr]
    torch.testing.assert_close(got.double(), wanted, rtol=0.2, atol=0.2)


@architectures
@conditional_or_not
@pytest.mark.parametrize("inverse", [False, True])
def test_gradients_are_those_of_strict_passes(name: str, conditional: bool, inverse: bool, way: str) -> None:
    """Of the value, the context and every parameter."""
    step = make(name, conditional, 1.0, inverse=inverse)
    value, context = inputs(name, conditional, 3, torch.float64)
    sources = [value.requires_grad_(), *step.parameters()]
    if context is not None:
        sources.append(context.requires_grad_())
    weight = torch.randn(value.shape, dtype=value.dtype, device=DEVICE)

    def gradients(of: Callable[..., tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
        image, log_det = of(step, value, context)
        loss = (weight * image).sin().sum() + (log_det * torch.tensor([1, 2, 3], device=DEVICE)).sum()
        return torch.autograd.grad(loss, sources, materialize_grads=True, allow_unused=True)

    images = strict(step, value, context)[0].detach()
    condition = torch.linalg.cond(slopes_back(step, images, context).detach()).max()
    for got, wanted in zip(gradients(solve), gradients(strict), strict=True):
        assert (got - wanted).norm() <= 1e-10 * (1 + wanted.norm()) * condition


@pytest.mark.parametrize("name", ["reversed", "residual", "gated", "spline", "one feature"])
def test_gradcheck(name: str, way: str) -> None:
    step = make(name, True, 1.0)
    value, context = inputs(name, True, 2, torch.float64)
    assert torch.autograd.gradcheck(
        lambda v, c: solve(step, v, c),
        (value.requires_grad_(), context.requires_grad_()),
        atol=1e-5,  # type: ignore[union-attr]
    )


@pytest.mark.parametrize("name", ["two features", "residual, reversed, random"])
def test_gradgradcheck(name: str) -> None:
    step = make(name, True, 1.0)
    value, context = inputs(name, True, 1, torch.float64)
    value, context = value[:, :4].requires_grad_(), context.requires_grad_()  # type: ignore[union-attr]
    if name != "two features":
        step = redraw(B.MaskedAutoregressiveStep(4, C, hidden=[6, 7], residual_blocks=1, reverse=True).double(), 1.0)
    sources = (value, context, *step.parameters())
    assert torch.autograd.gradgradcheck(lambda v, c, *_: solve(step, v, c), sources, atol=1e-5)


def test_what_machine_code_cannot_do_is_known() -> None:
    made = make("gated", False, 1.0).made
    value = torch.randn(3, made.features, dtype=torch.float64)
    assert has_machine_code(made, value)
    assert not has_machine_code(made, value.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert not has_machine_code(made, value)
    for activation in (torch.nn.LeakyReLU(0.2), torch.nn.GELU("tanh"), torch.nn.Sequential()):
        made.activation = activation
        assert not has_machine_code(made, value)
    made.activation = torch.nn.LeakyReLU(0.01)
    assert has_machine_code(made, value)
    made.layers[0].register_forward_pre_hook(lambda module, inputs: None)
    assert not has_machine_code(made, value)


@pytest.mark.parametrize("name", ["gated", "residual, reversed, random", "spline"])
def test_transforms_of_functions_go_through(name: str) -> None:
    step = make(name, True, 1.0)
    value, context = inputs(name, True, 3, torch.float64)

    def image(value: Tensor, context: Tensor) -> Tensor:
        return solve(step, value.unsqueeze(0), context.unsqueeze(0))[0].squeeze(0)

    assert context is not None
    jacobians = torch.stack([
        torch.autograd.functional.jacobian(lambda v, c=c: image(v, c), v) for v, c in zip(value, context, strict=True)
    ])  # fmt: skip
    torch.testing.assert_close(torch.func.vmap(torch.func.jacrev(image))(value, context), jacobians)
    torch.testing.assert_close(torch.func.vmap(torch.func.jacfwd(image))(value, context), jacobians)
    at_once = torch.autograd.functional.jacobian(lambda v: image(v, context[0]), value[0], vectorize=True)
    torch.testing.assert_close(at_once, jacobians[0])


def test_parameters_that_a_functional_call_puts_in() -> None:
    """Its derivative is taken when the net has its own ones again."""
    step = make("three layers", False, 1.0)
    value, _ = inputs("three layers", False, 4, torch.float64)
    value.requires_grad_()
    others = {name: (1.5 * p.detach()).requires_grad_() for name, p in step.named_parameters()}
    direction = "inverse" if isinstance(step, B.InverseAutoregressiveStep) else "forward"
    assert direction == "forward"
    image, log_det = torch.func.functional_call(step, others, (value,))
    got = torch.autograd.grad(image.square().sum() + log_det.sum(), [value, *others.values()])
    with torch.no_grad():
        for name, parameter in step.named_parameters():
            parameter.copy_(others[name])
    image, log_det = solve(step, value, None)
    wanted = torch.autograd.grad(image.square().sum() + log_det.sum(), [value, *step.parameters()])
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


class Shifted(B.Additive):
    """With a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def forward(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        image, log_slope = super().forward(z, theta)
        return image + self.shift * z.tanh(), log_slope + torch.log(1 + self.shift * (1 - z.tanh() ** 2))


def test_a_transformer_with_parameters_learns() -> None:
    step = B.MaskedAutoregressiveStep(7, hidden=[16], transformer=Shifted).double()
    value = torch.randn(5, 7, dtype=torch.float64)
    sources = [step.transformer.shift, *step.made.parameters()]

    def gradients(of: Callable[..., tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
        image, log_det = of(step, value, None)
        return torch.autograd.grad(image.square().sum() + log_det.sum(), sources)

    for got, wanted in zip(gradients(solve), gradients(strict), strict=True):
        torch.testing.assert_close(got, wanted)


def test_transforms_of_functions_go_through_a_transformer_with_parameters() -> None:
    step = B.MaskedAutoregressiveStep(7, hidden=[16], transformer=Shifted).double()
    value = torch.randn(5, 7, dtype=torch.float64)

    def image(value: Tensor) -> Tensor:
        return solve(step, value.unsqueeze(0), None)[0].squeeze(0)

    jacobians = torch.stack([torch.autograd.functional.jacobian(image, v) for v in value])
    torch.testing.assert_close(torch.func.vmap(torch.func.jacrev(image))(value), jacobians)
    torch.testing.assert_close(torch.func.vmap(torch.func.jacfwd(image))(value), jacobians)
