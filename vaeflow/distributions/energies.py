"""Unnormalised densities exp(−U(z)) of the plane, to which flows are fitted by reverse KL."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Energy(nn.Module, ABC):
    """U(z) of z in the plane, with p(z) = exp(−U(z))/Z.

    A subclass implements ``forward``, and sets ``box`` where the mass lies elsewhere.
    """

    box: tuple[tuple[float, float], tuple[float, float]] = ((-6.0, 6.0), (-8.0, 8.0))
    """The ranges of z₁ and z₂ outside which exp(−U) is negligible."""

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """U in nats: ``(..., 2)`` → ``(...)``."""

    def log_normaliser(self, points: int = 1201) -> float:
        """log Z = log ∫ exp(−U(z)) dz over :attr:`box`, by the trapezoidal rule in float64 on ``points``² points; for
        smooth functions that vanish at the borders it converges faster than any power of the step."""
        rows, steps = [], []
        for low, high in self.box:
            rows.append(torch.linspace(low, high, points, dtype=torch.float64))
            steps.append((high - low) / (points - 1))
        grid = torch.cartesian_prod(*rows)
        values = torch.cat([self.double()(part) for part in grid.split(100_000)])
        return torch.logsumexp(-values, 0).item() + sum(math.log(step) for step in steps)


def _w_1(z: Tensor) -> Tensor:
    return torch.sin(2 * math.pi * z[..., 0] / 4)


def _square(z: Tensor, scale: float) -> Tensor:
    return 0.5 * (z / scale).square()


def _wall(z: Tensor) -> Tensor:
    """½ (max(|z₁| − 4, 0)/0.1)²: without it U2 to U4 have infinite mass along z₁, and the reverse KL no minimum."""
    return _square((z[..., 0].abs() - 4).clamp(min=0), 0.1)


class U1(Energy):
    """½((‖z‖ − 2)/0.4)² − log(exp(−½((z₁ − 2)/0.6)²) + exp(−½((z₁ + 2)/0.6)²)): a ring with two heavy sides.

    The four are of Rezende & Mohamed 2015, arXiv 1505.05770, table 1; U2 to U4 with a wall at |z₁| = 4.
    """

    def forward(self, z: Tensor) -> Tensor:
        ring = _square(torch.linalg.vector_norm(z, dim=-1) - 2, 0.4)
        return ring - torch.logaddexp(-_square(z[..., 0] - 2, 0.6), -_square(z[..., 0] + 2, 0.6))


class U2(Energy):
    """½((z₂ − w₁)/0.4)², w₁ = sin(2πz₁/4): a wave."""

    def forward(self, z: Tensor) -> Tensor:
        return _square(z[..., 1] - _w_1(z), 0.4) + _wall(z)


class U3(Energy):
    """−log(exp(−½((z₂ − w₁)/0.35)²) + exp(−½((z₂ − w₁ + w₂)/0.35)²)), w₂ = 3 exp(−½((z₁ − 1)/0.6)²): a wave that
    splits and joins again."""

    def forward(self, z: Tensor) -> Tensor:
        w_2 = 3 * torch.exp(-_square(z[..., 0] - 1, 0.6))
        above = z[..., 1] - _w_1(z)
        return _wall(z) - torch.logaddexp(-_square(above, 0.35), -_square(above + w_2, 0.35))


class U4(Energy):
    """−log(exp(−½((z₂ − w₁)/0.4)²) + exp(−½((z₂ − w₁ + w₃)/0.35)²)), w₃ = 3 sigmoid((z₁ − 1)/0.3): a wave that
    splits."""

    def forward(self, z: Tensor) -> Tensor:
        w_3 = 3 * torch.sigmoid((z[..., 0] - 1) / 0.3)
        above = z[..., 1] - _w_1(z)
        return _wall(z) - torch.logaddexp(-_square(above, 0.4), -_square(above + w_3, 0.35))
