"""Maps that treat every dimension on its own: bounded scales, and the pre-processing of integers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaeflow.bijections.base import Bijection
from vaeflow.errors import VaeflowError, check_shape
from vaeflow.functional import log_sigmoid
from vaeflow.nets.conditioner import Context
from vaeflow.tracing import unwrapped


class UnitInterval(Bijection):
    """z = x/L: dequantised integers on [0, L) come to lie on [0, 1), log |det ∂z/∂x| = −D log L.

    Args:
        features: D.
        levels: L.
    """

    def __init__(self, features: int, levels: int) -> None:
        super().__init__()
        self.features, self.levels = features, integer_levels("UnitInterval", levels)

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("z", z, self.features)
        return z * self.levels, z.new_full(z.shape[:-1], self.features * math.log(self.levels))

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("x", x, self.features)
        return x / self.levels, x.new_full(x.shape[:-1], -self.features * math.log(self.levels))


class Logit(Bijection):
    """z = logit(α + (1 − 2α) x/L): dequantised integers on [0, L) come to lie on the whole line.

        log |det ∂z/∂x| = Σ_i [log((1 − 2α)/L) − log v_i − log(1 − v_i)],    v = α + (1 − 2α) x/L.

    The arithmetic is in float64: near L, v has no digits left for 1 − v in float32. x outside [0, L] has no image
    where v leaves (0, 1), and is refused.

    Sources: Dinh et al. 2017, arXiv 1605.08803, section 4.1, α = 0.05; Papamakarios et al. 2017, arXiv 1705.07057,
    appendix E, α = 10⁻⁶ for MNIST.

    Args:
        features: D.
        levels: L.
        alpha: α, from 0 to less than ½.
    """

    def __init__(self, features: int, levels: int, alpha: float = 0.05) -> None:
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise VaeflowError(f"alpha is {alpha}, expected 0 or more and less than 0.5.")
        self.features, self.levels, self.alpha = features, integer_levels("Logit", levels), alpha

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("z", z, self.features)
        wide = z.double()
        x = self.levels * (torch.sigmoid(wide) - self.alpha) / (1 - 2 * self.alpha)
        log_v_and_rest = log_sigmoid(wide) + log_sigmoid(-wide)
        return x.to(z.dtype), (log_v_and_rest - self._log_slope).sum(-1).to(z.dtype)

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("x", x, self.features)
        v = self.alpha + (1 - 2 * self.alpha) * x.double() / self.levels
        if not torch.compiler.is_compiling() and not bool((unwrapped(v > 0) & unwrapped(v < 1)).all()):
            values = unwrapped(x)
            raise VaeflowError(
                f"the data range from {values.min().item():g} to {values.max().item():g}, expected more than 0 and "
                f"less than {self.levels}, as integers of {self.levels} levels with noise added."
            )
        log_v, log_rest = v.log(), torch.log1p(-v)
        return (log_v - log_rest).to(x.dtype), (self._log_slope - log_v - log_rest).sum(-1).to(x.dtype)

    @property
    def _log_slope(self) -> float:
        return math.log((1 - 2 * self.alpha) / self.levels)


def integer_levels(name: str, levels: int | None) -> int:
    """L, or a :class:`VaeflowError` where the data are continuous."""
    if not levels:
        raise VaeflowError(
            f"{name} is for integer data, but these are continuous: set --model.preprocess null, for the map that fits "
            "the data, or --data.levels if they are integers."
        )
    return levels
