"""Sylvester flows (van den Berg, Hasenclever, Tomczak & Welling 2018, arXiv 1803.05649)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from vaeflow.bijections.base import Amortised
from vaeflow.bijections.planar import MARGIN
from vaeflow.bijections.solve import solve_tanh
from vaeflow.errors import VaeflowError


class Sylvester(Amortised):
    """Planar flows through a bottleneck of M units instead of one, K times over.

        f(z) = z + Q R h(R̃ Qᵀz + b),    log |det ∂f/∂z| = Σ_i log(1 + h′(R̃ Qᵀz + b)_i R_ii R̃_ii),    h = tanh,

    with Q of M orthonormal columns and R, R̃ upper triangular, M × M. The diagonals pass through (1 − ε) tanh, so
    that R_ii R̃_ii > −1, which makes the map invertible. Three ways to Q:

    - ``orthogonal``: the Q of a QR decomposition of a free D × M matrix. (The paper orthogonalises by an iteration;
      QR is exact, and so are the determinant and the inverse.)
    - ``householder``: M = D, the product of ``reflections`` Householder reflections 1 − 2vvᵀ/‖v‖².
    - ``triangular``: M = D, the identity and the reversal of the features by turns.

    The inverse works in y = Qᵀz, where the system is triangular: from the last unit to the first, each is a scalar
    equation, solved as in :class:`~vaeflow.bijections.planar.Planar`.

    Args:
        features: D, the dimension of z.
        context_features: of the context that the parameters are linear functions of; 0 to learn them directly.
        steps: K.
        kind: how Q is made: by a QR decomposition, of Householder reflections, or the identity and the reversal of the
            features by turns.
        bottleneck: M of the orthogonal kind, at most D; default min(D, 8).
        reflections: of the householder kind; default 8.
    """

    def __init__(
        self,
        features: int,
        context_features: int = 0,
        steps: int = 1,
        kind: Literal["orthogonal", "householder", "triangular"] = "orthogonal",
        bottleneck: int | None = None,
        reflections: int = 8,
    ) -> None:
        bottleneck = min(features, 8) if bottleneck is None else bottleneck
        if not 1 <= bottleneck <= features:
            raise VaeflowError(f"bottleneck is {bottleneck}, expected 1 to {features}, the number of features.")
        self.kind, self.reflections = kind, reflections
        self.bottleneck = bottleneck if kind == "orthogonal" else features
        super().__init__(features, context_features, steps)

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        d, m = self.features, self.bottleneck
        q = {"orthogonal": {"q": (d, m)}, "householder": {"q": (self.reflections, d)}, "triangular": {}}[self.kind]
        # R and R̃ share a square: R in its upper part, R̃ transposed in its lower; their diagonals beside it
        return {"r": (m, m), "diagonal": (m,), "diagonal_tilde": (m,), "b": (m,), **q}

    def initial(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name == "q":
            return torch.randn(shape)
        scale = {"r": 0.01, "diagonal": 0.01, "diagonal_tilde": 1.0, "b": 0.01}[name]
        return scale * torch.randn(shape) / math.sqrt(shape[-1])

    def prepare(  # type: ignore[override]
        self, *, r: Tensor, diagonal: Tensor, diagonal_tilde: Tensor, b: Tensor, q: Tensor | None = None
    ) -> dict[str, Tensor]:
        """R, R̃ ``(batch, steps, M, M)``, Q ``(batch, steps, D, M)``, and the products Q R and R̃ Qᵀ."""
        upper = r.triu(1) + torch.diag_embed((1 - MARGIN) * torch.tanh(diagonal))
        upper_tilde = r.mT.triu(1) + torch.diag_embed((1 - MARGIN) * torch.tanh(diagonal_tilde))
        rotation = self._permutations(r) if q is None else self._orthonormal(q)
        return {
            "r": upper,
            "r_tilde": upper_tilde,
            "b": b,
            "q": rotation,
            "out": rotation @ upper,
            "into": upper_tilde @ rotation.mT,
        }

    def step(
        self, z: Tensor, *, r: Tensor, r_tilde: Tensor, b: Tensor, q: Tensor, out: Tensor, into: Tensor
    ) -> tuple[Tensor, Tensor]:
        h = torch.tanh(_apply(into, z) + b)
        return z + _apply(out, h), self._log_det(h, r, r_tilde)

    def step_inverse(
        self, x: Tensor, *, r: Tensor, r_tilde: Tensor, b: Tensor, q: Tensor, out: Tensor, into: Tensor
    ) -> tuple[Tensor, Tensor]:
        t = _apply(q.mT, x)
        y, h = torch.zeros_like(t), torch.zeros_like(t)
        units = torch.arange(self.bottleneck, device=x.device)
        for i in reversed(range(self.bottleneck)):
            rest = torch.linalg.vecdot(h, r[..., i, :])
            c = torch.linalg.vecdot(y, r_tilde[..., i, :]) + b[..., i]
            y_i = solve_tanh(r[..., i, i], r_tilde[..., i, i], c, t[..., i] - rest)
            h_i = torch.tanh(r_tilde[..., i, i] * y_i + c)
            y, h = (torch.where(units == i, new.unsqueeze(-1), old) for new, old in ((y_i, y), (h_i, h)))
        return x - _apply(out, h), -self._log_det(h, r, r_tilde)

    def _permutations(self, like: Tensor) -> Tensor:
        """The identity and the reversal by turns, of the shape of ``like``."""
        identity = torch.eye(self.features, dtype=like.dtype, device=like.device)
        return torch.stack([identity.flip(0) if k % 2 else identity for k in range(self.steps)]).expand_as(like)

    def _orthonormal(self, q: Tensor) -> Tensor:
        if self.kind == "orthogonal":
            return torch.linalg.qr(q).Q
        result = torch.eye(self.features, dtype=q.dtype, device=q.device)
        for v in q.unbind(-2):
            v = v / torch.linalg.vector_norm(v, dim=-1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny ** 0.5)
            result = result - 2 * (result @ v.unsqueeze(-1)) * v.unsqueeze(-2)
        return result

    @staticmethod
    def _log_det(h: Tensor, r: Tensor, r_tilde: Tensor) -> Tensor:
        slopes = r.diagonal(dim1=-2, dim2=-1) * r_tilde.diagonal(dim1=-2, dim2=-1)
        return torch.log1p((1 - h * h) * slopes).sum(-1)


def _apply(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Each example's matrix ``(batch, m, n)``, or one for all, times ``(..., batch, n)``: ``(..., batch, m)``."""
    if matrix.dim() == 2:
        return vectors @ matrix.mT
    if vectors.dim() == 2:
        return (matrix @ vectors.unsqueeze(-1)).squeeze(-1)
    samples = vectors.shape[:-2]
    flat = vectors.reshape(-1, *vectors.shape[-2:])
    return rearrange(matrix @ rearrange(flat, "s b n -> b n s"), "b m s -> s b m").reshape(*samples, *matrix.shape[:-1])
