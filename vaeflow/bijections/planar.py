"""Planar and radial flows (Rezende & Mohamed 2015, arXiv 1505.05770)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaeflow.bijections.base import Amortised
from vaeflow.bijections.solve import solve_tanh
from vaeflow.errors import check_shape
from vaeflow.functional import softplus
from vaeflow.nets.conditioner import Context

SHIFT = math.log(math.e - 1)  # softplus(SHIFT) = 1
MARGIN = 1e-4  # how far every slope stays from zero, and so every log-determinant from −∞


class Planar(Amortised):
    """A plane pushes space apart or together, K times over.

        f(z) = z + û h(wᵀz + b),    log |det ∂f/∂z| = log(1 + h′(wᵀz + b) wᵀû),    h = tanh.

    The map is invertible where wᵀû > −1, which û makes sure of:

        û = u + (m(wᵀu) − wᵀu) w / ‖w‖²,    m(a) = (1 − ε)(softplus(a + log(e − 1)) − 1).

    This is the paper's m(a) = softplus(a) − 1 with its argument shifted, so that u = 0 is the identity, and a margin
    ε = 1e-4, so that the determinant cannot reach zero; ‖w‖² has a floor, so that w = 0 is no division by zero.

    The inverse has no closed form. α = wᵀz solves the scalar equation α + wᵀû tanh(α + b) = wᵀx, whose left side
    rises in α; bisection and Newton's method find it to the precision of the number type, and z = x − û tanh(α + b).

    Without a context all steps together cost two products of matrices: with h_j the tanh of step j,

        w_kᵀz_k = w_kᵀz + Σ_{j<k} w_kᵀû_j h_j,    x = z + Σ_k û_k h_k.

    Source: Rezende & Mohamed 2015, arXiv 1505.05770, section 4.1 and appendix A.1.

    Args:
        features: D, the dimension of z.
        context_features: dimension of the context that u, w and b are linear functions of; 0 to learn them directly.
        steps: K.

    >>> flow = Planar(features=3, steps=8)
    >>> x, log_det = flow(torch.randn(5, 3))
    >>> x.shape, log_det.shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"u": (self.features,), "w": (self.features,), "b": (1,)}

    def initial(self, name: str, shape: tuple[int, ...]) -> Tensor:
        scale = {"u": 0.01, "w": 1.0, "b": 0.0}[name]
        return scale * torch.randn(shape) / math.sqrt(self.features)

    def prepare(self, *, u: Tensor, w: Tensor, b: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        wu = torch.linalg.vecdot(w, u).unsqueeze(-1)
        m = (1 - MARGIN) * (softplus(wu + SHIFT) - 1)
        norm = torch.linalg.vecdot(w, w).unsqueeze(-1)
        floor = norm.clamp(min=torch.finfo(w.dtype).tiny ** 0.5)
        # wᵀû is m itself where w ≠ 0: as wᵀu + (m − wᵀu) it would be rounded to below −1 where wᵀu is large. What û has
        # lost in the same way is added to it, as far as its own digits go.
        wu_hat = torch.where(norm == floor, m, wu + (m - wu) * norm / floor)
        u_hat = u + (m - wu) / floor * w
        u_hat = u_hat + (wu_hat - torch.linalg.vecdot(w, u_hat).unsqueeze(-1)) / floor * w
        return {"u_hat": u_hat, "wu_hat": wu_hat, "w": w, "b": b}

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        if self.context_features:
            return super().forward(z, context)
        check_shape("z", z, self.features)
        prepared = self.condition(context).value
        w, u_hat = prepared["w"], prepared["u_hat"]
        flat = z.reshape(-1, self.features)
        projected = torch.addmm(prepared["b"], w, flat.T)  # of the steps that are left, by those that are done
        h = []
        for k, column in enumerate((w @ u_hat.T).unbind(-1)):  # w_jᵀû_k of the steps j
            h.append(torch.tanh(projected[0]))
            projected = torch.addr(projected[1:], column[k + 1 :], h[-1])
        units = torch.stack(h, -1)
        slopes = (1 - units * units) * prepared["wu_hat"].squeeze(-1)
        return torch.addmm(flat, units, u_hat).view_as(z), torch.log(1 + slopes).sum(-1).view(z.shape[:-1])

    def step(self, z: Tensor, *, u_hat: Tensor, wu_hat: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(torch.linalg.vecdot(z, w).unsqueeze(-1) + b)
        return z + u_hat * h, torch.log1p((1 - h * h) * wu_hat).squeeze(-1)

    def step_inverse(self, x: Tensor, *, u_hat: Tensor, wu_hat: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        alpha = solve_tanh(wu_hat, torch.ones_like(b), b, torch.linalg.vecdot(x, w).unsqueeze(-1))
        h = torch.tanh(alpha + b)
        return x - u_hat * h, -torch.log1p((1 - h * h) * wu_hat).squeeze(-1)


class Radial(Amortised):
    """A point pulls space in or pushes it out, K times over.

        f(z) = z + β (z − z₀) / (α + r),    r = ‖z − z₀‖,
        log |det ∂f/∂z| = (D − 1) log(1 + β/(α + r)) + log(1 + αβ/(α + r)²).

    Invertible where α > 0 and β > −α: α = softplus(α̂) + 1e-4 and β = α(1 − ε)(softplus(β̂ + log(e − 1)) − 1), so
    that β̂ = 0 is the identity. The inverse is in closed form: r is the positive root of
    r² + (α + β − ‖x − z₀‖) r − α ‖x − z₀‖ = 0.

    Source: Rezende & Mohamed 2015, arXiv 1505.05770, section 4.1 and appendix A.2.

    Args:
        features: D, the dimension of z.
        context_features: dimension of the context that z₀, α̂ and β̂ are linear functions of; 0 to learn them directly.
        steps: K.
    """

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"centre": (self.features,), "alpha": (1,), "beta": (1,)}

    def initial(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name == "centre":
            return torch.randn(shape)
        return torch.full(shape, math.sqrt(self.features)) if name == "alpha" else 0.01 * torch.randn(shape)

    def prepare(self, *, centre: Tensor, alpha: Tensor, beta: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        alpha = softplus(alpha) + MARGIN
        return {"centre": centre, "alpha": alpha, "beta": alpha * (1 - MARGIN) * (softplus(beta + SHIFT) - 1)}

    def step(self, z: Tensor, *, centre: Tensor, alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        away = z - centre
        r = torch.linalg.vector_norm(away, dim=-1, keepdim=True)
        return z + beta * away / (alpha + r), self._log_det(r, alpha, beta)

    def step_inverse(self, x: Tensor, *, centre: Tensor, alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        away = x - centre
        rho = torch.linalg.vector_norm(away, dim=-1, keepdim=True)
        linear = alpha + beta - rho
        root = torch.sqrt(linear * linear + 4 * alpha * rho)
        # of the two forms of the positive root, the one that subtracts nothing
        r = torch.where(linear > 0, 2 * alpha * rho / (linear + root).where(linear > 0, 1.0), (root - linear) / 2)
        return centre + away * (alpha + r) / (alpha + r + beta), -self._log_det(r, alpha, beta)

    def _log_det(self, r: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        h = 1 / (alpha + r)
        return ((self.features - 1) * torch.log1p(beta * h) + torch.log1p(alpha * beta * h * h)).squeeze(-1)
