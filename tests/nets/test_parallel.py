"""A pass of MADE in machine code against the same layer by layer, with all its derivatives."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import vaeflow.bijections as B
from vaeflow.bijections.transformers import Transformer
from vaeflow.nets import parallel as module
from vaeflow.nets.conditioner import Conditioned
from vaeflow.nets.masked_mlp import MaskedMLP
from vaeflow.nets.parallel import _by_layers, is_able, parallel

C = 3
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "one layer": {"features": 20, "hidden": [37], "activation": "relu"},
    "wide": {"features": 70, "hidden": [200], "activation": "elu"},
    "three layers": {"features": 37, "hidden": [30, 64, 9], "activation": "tanh"},
    "reversed": {"features": 33, "hidden": [40, 21], "reverse": True, "activation": "elu"},
    "fewer units than features": {"features": 40, "hidden": [7, 5], "activation": "silu"},
    "random degrees": {"features": 18, "hidden": [70, 30], "degrees": "random", "activation": "softplus"},
    "residual": {"features": 19, "hidden": [25], "residual_blocks": 2, "activation": "gelu"},
    "residual, reversed, random": {
        "features": 35, "hidden": [16, 80], "residual_blocks": 1, "reverse": True, "degrees": "random",
        "activation": "leaky_relu",
    },
    "one feature": {"features": 1, "hidden": [5]},
    "two features": {"features": 2, "hidden": [1]},
}  # fmt: skip
TRANSFORMERS: dict[str, tuple[Transformer | None, bool]] = {
    "none": (None, False),
    **{
        f"{make.__name__}{', inverse' if inverse else ''}": (make(), inverse)
        for make in (B.Additive, B.Affine, B.Gated)
        for inverse in (False, True)
    },
}
architectures = pytest.mark.parametrize("name", ARCHITECTURES)
transformers = pytest.mark.parametrize("which", TRANSFORMERS)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machine code for small nets as well."""
    monkeypatch.setattr(module, "LEAST_SAMPLES", 0)
    monkeypatch.setattr(module, "LEAST_WEIGHTS", 0)


def make(name: str, which: str, dtype: torch.dtype, conditional: bool = False, gain: float = 1.0) -> MaskedMLP:
    """With NaN wherever an entry is masked."""
    torch.manual_seed(0)
    transformer, _ = TRANSFORMERS[which]
    outputs = 3 if transformer is None else transformer.num_parameters
    made = MaskedMLP(outputs=outputs, context_features=C if conditional else 0, **ARCHITECTURES[name]).to(dtype)
    with torch.no_grad():
        for stage in made.stages:
            stage.weight.copy_(torch.where(stage.mask, gain * stage.weight, torch.nan))
    return made


def sources_of(made: MaskedMLP, lead: tuple[int, ...], rows: tuple[int, ...] | None) -> list[Any]:
    dtype = made.out.weight.dtype
    x = torch.randn(*lead, made.features, dtype=dtype, requires_grad=True)
    width = made.layers[0].out_features
    conditioned = None if rows is None else torch.randn(*rows, width, dtype=dtype, requires_grad=True)
    return [x, conditioned, *(p for stage in made.stages for p in (stage.weight, stage.bias))]


def apply(
    made: MaskedMLP, which: str, x: Tensor, conditioned: Tensor | None, *parameters: Tensor
) -> tuple[Tensor, Tensor]:
    assert is_able(made, x)
    return parallel(made, *TRANSFORMERS[which], x, Conditioned(conditioned))


@architectures
@transformers
@dtypes
@pytest.mark.parametrize("lead", [(0,), (1,), (130,), (3, 50)])
def test_machine_code_is_the_pass_by_layers(name: str, which: str, dtype: torch.dtype, lead: tuple[int, ...]) -> None:
    for rows in (None, lead[-1:], lead, (*lead[:-1], 1)):
        made = make(name, which, dtype, rows is not None, gain=2.0)
        sources = sources_of(made, lead, rows)
        got, expected = apply(made, which, *sources), _by_layers(made, *TRANSFORMERS[which], *sources)
        rtol, atol = (1e-4, 1e-4) if dtype == torch.float32 else (1e-11, 1e-11)
        torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)
        by = [torch.randn_like(out) for out in got]
        given = [source for source in sources if source is not None]
        pairs = [(e, b) for e, b in zip(expected, by, strict=True) if e.requires_grad]
        gradients = torch.autograd.grad(got, given, by)
        for ours, theirs in zip(
            gradients, torch.autograd.grad([e for e, _ in pairs], given, [b for _, b in pairs]), strict=True
        ):
            scale = max(1.0, theirs.abs().max().item() if theirs.numel() else 0.0)
            torch.testing.assert_close(ours, theirs, rtol=10 * rtol, atol=atol * scale)


@architectures
@pytest.mark.parametrize("which", ["none", "Affine, inverse", "Gated"])
def test_what_a_feature_does_not_read_cannot_reach_it(name: str, which: str) -> None:
    """Not in an input, and not in a cotangent, even if it is NaN."""
    made = make(name, which, torch.float64)
    order = made.order
    for t in range(0, made.features, 5):
        x, *rest = sources_of(made, (60,), None)
        spoilt = x.detach().clone()
        spoilt[:, order[t]] = torch.nan
        image, _ = apply(made, which, spoilt, *rest)
        image = image.view(60, -1, made.features)
        assert image[..., order[:t]].isfinite().all()
        image, log_det = apply(made, which, x, *rest)
        by_image = torch.randn_like(image).view(60, -1, made.features)
        by_image[..., order[t]] = torch.nan
        by_x, by_weight = torch.autograd.grad(
            (image, log_det), (x, rest[1]), (by_image.view_as(image), torch.zeros_like(log_det))
        )
        assert by_x[:, order[t + 1 :]].isfinite().all()
        assert by_weight[~made.layers[0].mask].eq(0).all()


@pytest.mark.parametrize("which", TRANSFORMERS)
@pytest.mark.parametrize("name", ["reversed", "residual, reversed, random"])
def test_derivatives_of_derivatives(name: str, which: str) -> None:
    made = make(name, which, torch.float64, conditional=True)
    with torch.no_grad():  # finite differences move masked entries as well
        for stage in made.stages:
            stage.weight.copy_(torch.where(stage.mask, stage.weight, 0.5))
    sources = sources_of(made, (3,), (3,))
    made.activation = torch.nn.Softplus()  # smooth

    def outputs(*sources: Any) -> Any:
        out = apply(made, which, *sources)
        return out[:1] if out[1].numel() == 0 or not out[1].requires_grad else out

    def of_tensors(x: Tensor, conditioned: Tensor) -> Any:
        return outputs(x, conditioned, *sources[2:])

    assert torch.autograd.gradcheck(of_tensors, tuple(sources[:2]), fast_mode=True)
    assert torch.autograd.gradgradcheck(of_tensors, tuple(sources[:2]), fast_mode=True)

    weight = sources[2]

    def of_weight(value: Tensor) -> Any:
        with torch.no_grad():
            weight.copy_(value)
        return outputs(*sources)

    image, _ = apply(made, which, *sources)
    (by_weight,) = torch.autograd.grad(image.sum(), weight)
    step = torch.randn_like(weight)
    start, h = weight.detach().clone(), 1e-6
    slope = (of_weight(start + h * step)[0].sum() - of_weight(start - h * step)[0].sum()) / (2 * h)
    torch.testing.assert_close((by_weight * step).sum(), slope, rtol=1e-6, atol=1e-6)


def test_parameters_that_a_functional_call_puts_in() -> None:
    """Its derivative is taken when the net has its own ones again."""
    made = make("three layers", "none", torch.float64)
    x = torch.randn(50, made.features, dtype=torch.float64)
    others = {name: (2 * p.detach()).requires_grad_() for name, p in made.named_parameters()}
    out = torch.func.functional_call(made, others, (x,))
    gradients = torch.autograd.grad(out.square().sum(), list(others.values()))
    expected = torch.func.functional_call(made, others, (x, None, True))
    torch.testing.assert_close(out, expected)
    for ours, theirs in zip(
        gradients, torch.autograd.grad(expected.square().sum(), list(others.values())), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    copied = copy.deepcopy(made)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(copied(x), expected)


def test_transforms_of_functions_go_through() -> None:
    made = make("reversed", "none", torch.float64)
    x = torch.randn(4, made.features, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: made(x).sum(0), x).movedim(2, 0)
    torch.testing.assert_close(torch.func.vmap(torch.func.jacrev(made))(x.unsqueeze(1)).squeeze(), jacobian)
    torch.testing.assert_close(torch.func.vmap(torch.func.jacfwd(made))(x.unsqueeze(1)).squeeze(), jacobian)
    torch.testing.assert_close(torch.func.vmap(made)(x.unsqueeze(1)).squeeze(1), made(x))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(made(dual)).tangent
    torch.testing.assert_close(tangent, jacobian.sum(-1))


def test_any_layout_and_number_type_of_the_input() -> None:
    made = make("wide", "none", torch.float32)
    x = torch.randn(made.features, 5, 30).permute(2, 1, 0)
    torch.testing.assert_close(made(x), made(x, by_layers=True))
    torch.testing.assert_close(made(x[0, 0]), made(x[0, 0], by_layers=True))
    assert made(x[:, :0]).shape == (30, 0, made.features, made.outputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_able(made, x)
        assert made(x).dtype == torch.bfloat16
    assert not is_able(made, x.double())
    assert made.half()(x.half()).dtype == torch.float16


def test_many_contexts_for_one_input() -> None:
    made = make("reversed", "none", torch.float64, conditional=True)
    x, context = torch.randn(4, made.features, dtype=torch.float64), torch.randn(3, 4, C, dtype=torch.float64)
    torch.testing.assert_close(made(x, context), made(x, context, by_layers=True))


@pytest.mark.parametrize("frozen", ["x", "parameters"])
def test_what_needs_no_gradient_gets_none(frozen: str) -> None:
    made = make("three layers", "Affine", torch.float64, conditional=True)
    sources = sources_of(made, (50,), (50,))
    given = [s.requires_grad_(frozen != ("x" if k < 2 else "parameters")) for k, s in enumerate(sources)]
    wanted = [s for s in given if s.requires_grad]
    image, log_det = apply(made, "Affine", *sources)
    expected = sum(out.sum() for out in _by_layers(made, *TRANSFORMERS["Affine"], *sources))
    assert isinstance(expected, Tensor)
    for ours, theirs in zip(
        torch.autograd.grad(image.sum() + log_det.sum(), wanted), torch.autograd.grad(expected, wanted), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("which", ["none", "Affine, inverse"])
def test_many_cotangents_at_once(which: str) -> None:
    made = make("three layers", which, torch.float64, conditional=True)
    sources = sources_of(made, (50,), (50,))
    outputs = apply(made, which, *sources)[0][:2, :3].flatten()
    one_by_one = [torch.autograd.grad(output, sources, retain_graph=True) for output in outputs]
    at_once = torch.autograd.grad(outputs, sources, torch.eye(6, dtype=torch.float64), is_grads_batched=True)
    for ours, theirs in zip(at_once, zip(*one_by_one, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.stack(theirs))
