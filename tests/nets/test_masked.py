"""Masked linear layers: machine code against the dense product, and what stands in masked entries."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vaeflow.nets import masked
from vaeflow.nets.masked import MaskedLinear, _dense

LAYERS = {
    "square": (70, sorted(r * 70 // 61 for r in range(61)), 1, False),
    "from the end": (70, sorted(r * 70 // 61 for r in range(61)), 1, True),
    "descending": (70, sorted((r for r in range(70)), reverse=True), 1, False),
    "descending from the end": (70, sorted((r for r in range(70)), reverse=True), 1, True),
    "groups": (130, [2 * r for r in range(65)], 3, False),
    "more units than columns": (5, sorted(r % 6 for r in range(150)), 2, False),
    "fewer units than columns": (300, [0, 0, 17, 170, 300], 1, True),
    "one": (1, [1], 1, False),
    "all or nothing": (20, [0] * 30 + [20] * 40, 1, False),
}
layers = pytest.mark.parametrize("name", LAYERS)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machine code for small layers as well."""
    monkeypatch.setattr(masked, "LEAST_SAMPLES", 0)
    monkeypatch.setattr(masked, "LEAST_WEIGHTS", 0)


def make(name: str, dtype: torch.dtype, junk: bool = False) -> MaskedLinear:
    torch.manual_seed(0)
    layer = MaskedLinear(*LAYERS[name]).to(dtype)
    if junk:
        with torch.no_grad():
            layer.weight.copy_(torch.where(layer.mask, layer.weight, torch.nan))
    return layer


def derivatives(y: Tensor, layer: MaskedLinear, x: Tensor, g: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y, (x, layer.weight, layer.bias), g)


@layers
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [0, 1, 7, 64, 130])
@pytest.mark.parametrize("junk", [False, True])
def test_machine_code_is_the_dense_product(name: str, dtype: torch.dtype, batch: int, junk: bool) -> None:
    layer = make(name, dtype, junk)
    x = torch.randn(batch, layer.in_features, dtype=dtype, requires_grad=True)
    g = torch.randn(batch, layer.out_features, dtype=dtype)
    assert layer._is_able(x)
    got, expected = layer(x), _dense(x, layer.weight, layer.bias, layer.mask)
    torch.testing.assert_close(got, expected)
    for ours, dense in zip(derivatives(got, layer, x, g), derivatives(expected, layer, x, g), strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-5)


@layers
def test_what_a_unit_does_not_read_cannot_reach_it(name: str) -> None:
    """Not in an input, and not in a cotangent, even if it is NaN."""
    layer = make(name, torch.float64)
    for column in range(0, layer.in_features, 7):
        x = torch.randn(3, layer.in_features, dtype=torch.float64, requires_grad=True)
        spoilt = x.detach().clone()
        spoilt[:, column] = torch.nan
        assert torch.equal(layer(spoilt).isnan().any(0), layer.mask[:, column])
        y = layer(x)
        g = torch.randn_like(y)
        g[:, layer.mask[:, column]] = torch.nan
        by_x, by_weight, _ = derivatives(y, layer, x, g)
        unread = ~layer.mask[layer.mask[:, column]].any(0)
        assert by_x[:, unread].isfinite().all()
        assert by_weight[~layer.mask].eq(0).all()


@pytest.mark.parametrize("name", ["groups", "from the end"])
def test_derivatives_of_derivatives(name: str) -> None:
    layer = make(name, torch.float64)
    layer.weight.requires_grad_(False)
    x = torch.randn(2, layer.in_features, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn_like(layer.weight).requires_grad_(), torch.randn_like(layer.bias).requires_grad_()

    def apply(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, x)

    sources = (x, weight, bias)
    assert torch.autograd.gradcheck(apply, sources, fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(apply, sources, fast_mode=True)


def test_transforms_of_functions_go_through() -> None:
    layer = make("groups", torch.float64)
    x = torch.randn(4, 130, dtype=torch.float64)
    weight = torch.where(layer.mask, layer.weight, 0.0)
    jacobian = torch.func.vmap(torch.func.jacrev(layer))(x)
    torch.testing.assert_close(jacobian, weight.expand(4, *weight.shape))
    torch.testing.assert_close(torch.func.jacfwd(layer)(x[0]), weight)
    torch.testing.assert_close(torch.func.vmap(layer)(x.unsqueeze(1)).squeeze(1), layer(x))


def test_any_layout_of_the_input() -> None:
    layer = make("groups", torch.float32)
    x = torch.randn(130, 5, 4).permute(2, 1, 0)
    torch.testing.assert_close(layer(x), _dense(x, layer.weight, layer.bias, layer.mask))
    assert layer(x[:, :0]).shape == (4, 0, layer.out_features)
    half = layer.to(torch.float16)(x.half())
    assert half.dtype == torch.float16
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(x).dtype == torch.bfloat16
