"""Elementwise maps whose parameters a net computes: what autoregressive and coupling maps do to each feature.

The word is that of Papamakarios et al. 2021 (arXiv 1912.02762): a *conditioner* net computes parameters, with which a
*transformer* maps one feature. It has nothing to do with attention.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeflow.errors import VaeflowError, check_positive
from vaeflow.functional import bounded, log_sigmoid, softplus


class Transformer(nn.Module, ABC):
    """x = τ(z; θ), invertible in z, the same function for every element.

    z is of any shape, θ has one more dimension, the last, of size ``num_parameters``. With θ = 0 the map is the
    identity, unless its paper says otherwise. Both directions return the image and the logarithm of the slope of the
    map just applied, of the shape of z.
    """

    num_parameters: int
    """How many numbers θ holds for each element."""

    @abstractmethod
    def forward(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """x = τ(z; θ) and log ∂x/∂z."""

    @abstractmethod
    def inverse(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """z = τ⁻¹(x; θ) and log ∂z/∂x."""


class Additive(Transformer):
    """x = z + t (NICE; Dinh, Krueger & Bengio 2014, arXiv 1410.8516)."""

    num_parameters = 1

    def forward(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        return z + theta.squeeze(-1), torch.zeros_like(z)

    def inverse(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        return x - theta.squeeze(-1), torch.zeros_like(x)


class Affine(Transformer):
    """x = z exp(s) + t, log ∂x/∂z = s, with s bounded smoothly to ±7.

    In the papers' letters: s and t of RealNVP (Dinh et al. 2017, arXiv 1605.08803), α and μ of MAF (Papamakarios et
    al. 2017, arXiv 1705.07057).
    """

    num_parameters = 2

    def forward(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        raw, t = theta.unbind(-1)
        s = bounded(raw)
        return z * torch.exp(s) + t, s

    def inverse(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        raw, t = theta.unbind(-1)
        s = bounded(raw)
        return (x - t) * torch.exp(-s), -s


class SigmoidAffine(Transformer):
    """x = z/σ − t, log ∂x/∂z = −log σ, with σ = sigmoid(s + 2) and s bounded smoothly to ±7.

    At θ = 0 the map is x = z/0.88. Normalising, z = (x + t) σ, only contracts; the maps between couplings expand.

    Source: the released code of Kingma & Dhariwal 2018, "Glow", arXiv 1807.03039; the paper's exp(s) in place of σ is
    less stable.
    """

    num_parameters = 2

    def forward(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        t, s = theta.unbind(-1)
        s = bounded(s) + 2
        return z + z * torch.exp(-s) - t, -log_sigmoid(s)  # 1/σ = 1 + exp(−s)

    def inverse(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        t, s = theta.unbind(-1)
        s = bounded(s) + 2
        return (x + t) * torch.sigmoid(s), log_sigmoid(s)


class Gated(Transformer):
    """x = σ z + (1 − σ) m, log ∂x/∂z = log σ, with σ = sigmoid(s + 2) and s bounded smoothly to ±7.

    The shift of 2 opens the gates at the start, whatever the data, as the paper advises (a bias of 1 to 2); the bound
    keeps every gate from closing for good. At θ = 0 the map is x = 0.88 z.

    Source: Kingma et al. 2016, arXiv 1606.04934, equations 13–14.
    """

    num_parameters = 2

    def forward(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        m, s = theta.unbind(-1)
        s = bounded(s) + 2
        return m + torch.sigmoid(s) * (z - m), log_sigmoid(s)

    def inverse(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        m, s = theta.unbind(-1)
        s = bounded(s) + 2
        return x + (x - m) * torch.exp(-s), -log_sigmoid(s)  # (x − m)/σ + m, where 1/σ = 1 + exp(−s)


IN_MACHINE_CODE = (Additive, Affine, Gated)
"""Those that :mod:`vaeflow.kernels` knows."""


class RationalQuadraticSpline(Transformer):
    """A monotone piecewise rational-quadratic function on [−B, B], the identity outside.

    In bin k, with ξ = (z − z_k)/(z_{k+1} − z_k), slope s = (x_{k+1} − x_k)/(z_{k+1} − z_k) and derivatives d at knots,

        x = x_k + (x_{k+1} − x_k) (s ξ² + d_k ξ(1−ξ)) / (s + (d_{k+1} + d_k − 2s) ξ(1−ξ)),
        ∂x/∂z = s² (d_{k+1} ξ² + 2s ξ(1−ξ) + d_k (1−ξ)²) / (s + (d_{k+1} + d_k − 2s) ξ(1−ξ))².

    Bins' widths and heights are a softmax of 2K numbers, no less than 10⁻³ of the interval; inner derivatives a
    softplus of K − 1, no less than 10⁻³; those at ±B are 1, so that the tails join smoothly, and a value beyond the
    interval is passed on as it is, with log-slope 0. The inverse is the root of a quadratic, in the form that does
    not cancel.

    Source: Durkan, Bekasov, Murray & Papamakarios 2019, "Neural Spline Flows", arXiv 1906.04032, section 3.1.

    Args:
        bins: K.
        bound: B.
    """

    least = 1e-3

    def __init__(self, bins: int = 8, bound: float = 3.0) -> None:
        super().__init__()
        check_positive(bins=bins)
        if bins * self.least >= 1:
            raise VaeflowError(f"bins is {bins}, expected fewer than {round(1 / self.least)}.")
        if not bound > 0:
            raise VaeflowError(f"bound is {bound}, expected a positive number.")
        self.bins, self.bound = bins, bound
        self.num_parameters = 3 * bins - 1

    def forward(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        knots_z, knots_x, derivatives = self._knots(theta)
        inside = z.abs() < self.bound
        z_in = torch.where(inside, z, 0.0)
        z_k, width, x_k, height, d_k, d_next = self._bin(z_in, knots_z, knots_z, knots_x, derivatives)
        slope = height / width
        xi = self._within_unit_interval((z_in - z_k) / width)
        x = x_k + height * (slope * xi * xi + d_k * xi * (1 - xi)) / self._denominator(xi, slope, d_k, d_next)
        return torch.where(inside, x, z), torch.where(inside, self._log_slope(xi, slope, d_k, d_next), 0.0)

    def inverse(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        knots_z, knots_x, derivatives = self._knots(theta)
        inside = x.abs() < self.bound
        x_in = torch.where(inside, x, 0.0)
        z_k, width, x_k, height, d_k, d_next = self._bin(x_in, knots_x, knots_z, knots_x, derivatives)
        slope = height / width
        y = self._within_unit_interval((x_in - x_k) / height)
        curve = d_k + d_next - 2 * slope
        a = slope - d_k + y * curve
        b = d_k - y * curve
        c = -slope * y
        root = torch.sqrt((b * b - 4 * a * c).clamp(min=torch.finfo(x.dtype).tiny))
        xi = self._within_unit_interval(2 * c / (-b - root))
        z = z_k + width * xi
        return torch.where(inside, z, x), torch.where(inside, -self._log_slope(xi, slope, d_k, d_next), 0.0)

    def _knots(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Knots in z and in x, and derivatives at them, each ``(..., K + 1)``."""
        widths, heights, inner = theta.split([self.bins, self.bins, self.bins - 1], dim=-1)
        shift = math.log(math.expm1(1 - self.least))
        derivatives = F.pad(self.least + softplus(inner + shift), (1, 1), value=1.0)
        return self._edges(widths), self._edges(heights), derivatives

    def _edges(self, raw: Tensor) -> Tensor:
        sizes = self.least + (1 - self.least * self.bins) * raw.softmax(-1)
        inner = self.bound * (2 * sizes.cumsum(-1)[..., :-1] - 1)
        return F.pad(F.pad(inner, (1, 0), value=-self.bound), (0, 1), value=self.bound)

    @staticmethod
    def _bin(value: Tensor, searched: Tensor, knots_z: Tensor, knots_x: Tensor, derivatives: Tensor) -> list[Tensor]:
        """z_k, width, x_k, height, d_k and d_{k+1} of each value's bin."""
        k = (value.unsqueeze(-1) >= searched[..., 1:-1]).sum(-1, keepdim=True)
        below = [t.gather(-1, k).squeeze(-1) for t in (knots_z, knots_x, derivatives)]
        above = [t.gather(-1, k + 1).squeeze(-1) for t in (knots_z, knots_x, derivatives)]
        return [below[0], above[0] - below[0], below[1], above[1] - below[1], below[2], above[2]]

    def _within_unit_interval(self, xi: Tensor) -> Tensor:
        """ξ, moved to the nearer end of [0, 1] where rounding took it out.

        clamp has no derivative at the ends, which are the knots. Training may do without at single points, and its
        results stay what they were; codes need their Jacobian everywhere."""
        return xi.clamp(0, 1) if self.training else torch.where(xi < 0, 0.0, torch.where(xi > 1, 1.0, xi))

    @staticmethod
    def _denominator(xi: Tensor, slope: Tensor, d_k: Tensor, d_next: Tensor) -> Tensor:
        return slope + (d_next + d_k - 2 * slope) * xi * (1 - xi)

    def _log_slope(self, xi: Tensor, slope: Tensor, d_k: Tensor, d_next: Tensor) -> Tensor:
        numerator = d_next * xi * xi + 2 * slope * xi * (1 - xi) + d_k * (1 - xi) * (1 - xi)
        return 2 * slope.log() + numerator.log() - 2 * self._denominator(xi, slope, d_k, d_next).log()
