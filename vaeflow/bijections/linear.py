"""Linear maps of vectors: permutations, rotations, and any matrix with ones in its LU decomposition's corners."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeflow.bijections.base import Bijection
from vaeflow.errors import check_positive, check_shape
from vaeflow.functional import bounded, unbounded
from vaeflow.nets.conditioner import Context


class Permutation(Bijection):
    """x_i = z_{π(i)}, log |det ∂x/∂z| = 0, with a random π.

    Args:
        features: D.
        context_features: unused; every bijection has it.
        seed: of π.
    """

    order: Tensor

    def __init__(self, features: int, context_features: int = 0, seed: int = 0) -> None:
        super().__init__()
        check_positive(features=features)
        self.register_buffer("order", self._order(features, seed))

    @staticmethod
    def _order(features: int, seed: int) -> Tensor:
        return torch.randperm(features, generator=torch.Generator().manual_seed(seed))

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("z", z, len(self.order))
        return z[..., self.order], z.new_zeros(z.shape[:-1])

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("x", x, len(self.order))
        return x[..., self.order.argsort()], x.new_zeros(x.shape[:-1])


class Reversal(Permutation):
    """x_i = z_{D+1−i}, log |det ∂x/∂z| = 0.

    Args:
        features: D.
        context_features: unused; every bijection has it.
    """

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__(features)

    @staticmethod
    def _order(features: int, seed: int) -> Tensor:
        return torch.arange(features).flip(0)


class Rotation(Bijection):
    """x = R z, log |det ∂x/∂z| = 0, with a random rotation R, uniform on SO(D), which is not trained.

    Args:
        features: D.
        context_features: unused; every bijection has it.
        seed: of R.
    """

    matrix: Tensor

    def __init__(self, features: int, context_features: int = 0, seed: int = 0) -> None:
        super().__init__()
        check_positive(features=features)
        generator = torch.Generator().manual_seed(seed)
        q, r = torch.linalg.qr(torch.randn(features, features, generator=generator, dtype=torch.float64))
        q = q * r.diagonal().sign()
        q[:, 0] *= torch.linalg.det(q).sign()
        self.register_buffer("matrix", q)

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("z", z, len(self.matrix))
        return z @ self.matrix.to(z.dtype).mT, z.new_zeros(z.shape[:-1])

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("x", x, len(self.matrix))
        return x @ self.matrix.to(x.dtype), x.new_zeros(x.shape[:-1])


class LULinear(Bijection):
    """z = L U x + b with a trained matrix in its LU decomposition, log |det ∂z/∂x| = Σ log U_ii.

    L is lower triangular with ones on its diagonal, U upper triangular with a diagonal exp(s), s bounded smoothly to
    ±7: the matrix cannot become singular. Normalising is two products, generating solves two triangular systems. The
    identity at the start; with a :class:`Permutation` beside it, any matrix of a positive determinant is near.

    Sources: Kingma & Dhariwal 2018, arXiv 1807.03039, section 3.2; Durkan et al. 2019, arXiv 1906.04032.

    Args:
        features: D.
        context_features: unused; every bijection has it.
    """

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__()
        check_positive(features=features)
        self.features = features
        self.triangles = nn.Parameter(torch.zeros(features, features))  # L below the diagonal, U above
        self.log_diagonal = nn.Parameter(torch.zeros(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("z", z, self.features)
        lower, upper, log_det = self._factors()
        return solve_lu(lower, upper, z - self.bias), -log_det.expand(z.shape[:-1])

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("x", x, self.features)
        lower, upper, log_det = self._factors()
        return F.linear(x, lower @ upper, self.bias), log_det.expand(x.shape[:-1])

    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        lower, upper = lu_factors(self.triangles, s := bounded(self.log_diagonal))
        return lower, upper, s.sum()


class InvertibleLinear(Bijection):
    """z = W x with W = P L U, log |det ∂z/∂x| = Σ log |U_ii|; of an image's pixels, an invertible 1 × 1 convolution.

    W starts as a random rotation, from whose decomposition the permutation P and the signs of U's diagonal are kept.
    L is lower triangular with ones on its diagonal; the logarithms of |U_ii| are bounded smoothly to ±7, so that W
    cannot become singular.

    Source: Kingma & Dhariwal 2018, "Glow", arXiv 1807.03039, section 3.2.

    Args:
        features: D.
        context_features: unused; every bijection has it.
    """

    order: Tensor
    signs: Tensor

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__()
        check_positive(features=features)
        self.features = features
        rotation = torch.linalg.qr(torch.randn(features, features, dtype=torch.float64, device="cpu"))[0]
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        triangles = lower.tril(-1) + upper.triu(1) + torch.diag(unbounded(diagonal.abs().log()))
        self.triangles = nn.Parameter(torch.empty(features, features))  # L below, U above, log |U_ii| on the diagonal
        with torch.no_grad():
            self.triangles.copy_(triangles)
        self.register_buffer("order", torch.empty(features, dtype=torch.int64).copy_(permutation.argmax(1)))
        self.register_buffer("signs", torch.empty(features).copy_(diagonal.sign()))

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("z", z, self.features)
        lower, upper, log_det = self._factors()
        return solve_lu(lower, upper, z[..., self.order.argsort()]), -log_det.expand(z.shape[:-1])

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("x", x, self.features)
        lower, upper, log_det = self._factors()
        return F.linear(x, (lower @ upper)[self.order]), log_det.expand(x.shape[:-1])

    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        lower, upper = lu_factors(self.triangles, s := bounded(self.triangles.diagonal()))
        return lower, upper * (1 + torch.diag(self.signs - 1)), s.sum()


def lu_factors(triangles: Tensor, log_diagonal: Tensor) -> tuple[Tensor, Tensor]:
    """L with ones on its diagonal and U with exp(s) on its, of their other entries in one square.

    Shape:
        ``triangles`` ``(..., D, D)``, ``log_diagonal`` s ``(..., D)``, L and U ``(..., D, D)``.
    """
    identity = torch.eye(log_diagonal.shape[-1], dtype=log_diagonal.dtype, device=log_diagonal.device)
    return triangles.tril(-1) + identity, triangles.triu(1) + torch.diag_embed(log_diagonal.exp())


def solve_lu(lower: Tensor, upper: Tensor, rows: Tensor) -> Tensor:
    """(L U)⁻¹ of every row of ``rows``, ``(..., rows, D)``, by two triangular systems."""
    rows = torch.linalg.solve_triangular(lower.mT, rows, upper=True, left=False, unitriangular=True)
    return torch.linalg.solve_triangular(upper.mT, rows, upper=False, left=False)
