"""Elementary functions against torch's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vaeflow.functional import ELU, log_sigmoid, softplus

functions = pytest.mark.parametrize(
    ("ours", "exact"),
    [(softplus, lambda x: torch.logaddexp(x, torch.zeros_like(x))), (log_sigmoid, F.logsigmoid), (ELU(), F.elu)],
)


@functions
def test_values(ours: Callable[[Tensor], Tensor], exact: Callable[[Tensor], Tensor]) -> None:
    """To the last digits, far out as well; of ELU to those of one, about zero."""
    x = torch.cat([torch.linspace(-100, 100, 10_001), 10.0 ** torch.linspace(-30, 0, 301)]).double()
    x = torch.cat([x, -x])
    for dtype in (torch.float32, torch.float64):
        got, expected = ours(x.to(dtype)), exact(x.to(dtype).double())
        eps = torch.finfo(dtype).eps
        assert got.dtype == dtype
        error = (got.double() - expected).abs()
        floor = 1.0 if isinstance(ours, ELU) else torch.finfo(dtype).tiny
        assert (error <= 4 * eps * expected.abs().clamp(min=floor)).all()


@functions
def test_limits(ours: Callable[[Tensor], Tensor], exact: Callable[[Tensor], Tensor]) -> None:
    x = torch.tensor([torch.inf, -torch.inf, torch.nan])
    torch.testing.assert_close(ours(x), exact(x), equal_nan=True)


@functions
def test_derivatives(ours: Callable[[Tensor], Tensor], exact: Callable[[Tensor], Tensor]) -> None:
    x = torch.tensor([-3.1, -0.7, 1.9, 30.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ours, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(ours, x)
    x = torch.linspace(-3, 3, 2**10 + 1, dtype=torch.float64, requires_grad=True)  # enough numbers, 0 among them
    (expected,) = torch.autograd.grad(exact(x).sum(), x)
    torch.testing.assert_close(torch.autograd.grad(ours(x).sum(), x)[0], expected)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(ours))(x), expected)


@functions
@pytest.mark.parametrize("size", [4, 2**10 + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_second_derivatives_far_out(
    ours: Callable[[Tensor], Tensor], exact: Callable[[Tensor], Tensor], size: int, dtype: torch.dtype
) -> None:
    """Finite where exp overflows, and those of the middle, however few or many numbers there are."""

    def second(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        x = x.requires_grad_()
        (first,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        return torch.autograd.grad(first.sum(), x)[0]

    x = torch.linspace(-20, 20, size, dtype=dtype)
    torch.testing.assert_close(second(ours, x), second(exact, x), rtol=1e-3, atol=1e-6)
    far = torch.tensor([-1e30, -800.0, -100.0, -95.0, -89.0, -88.0, 88.0, 95.0, 800.0, 1e30], dtype=dtype)
    far = torch.cat([far, torch.full((size,), -100.0, dtype=dtype)])
    assert (second(ours, far).abs() <= 1e-30).all()
    assert torch.func.vmap(torch.func.grad(torch.func.grad(ours)))(far).abs().max() <= 1e-30
