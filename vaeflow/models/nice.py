"""NICE, non-linear independent components estimation (Dinh, Krueger & Bengio 2014, arXiv 1410.8516)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from vaeflow.bijections import Additive, Composition, Coupling, Rescaling, UnitInterval
from vaeflow.distributions import Distribution, FlowDensity, StandardLogistic
from vaeflow.errors import check_positive
from vaeflow.models.density import DensityModel


class NICE(DensityModel):
    """Additive couplings of alternating halves, then a rescaling: y = f(z), z from a factorised base.

        h_A = y_A,  h_B = y_B + m(y_A)   four times, A and B by turns,    z = exp(s) ⊙ h,
        log p(y) = Σ_i [log p(z_i) + s_i].

    Its couplings preserve volume; all of it is in the scales s. Integer data are brought to [0, 1]. The output layers
    of the m start uniform in ±0.01, as in the paper's code: where all are zero, and one half of the data says nothing
    of the other's mean, as with eight Gaussians on a circle, the gradient of every m is zero in expectation.

    Source: Dinh, Krueger & Bengio 2014, arXiv 1410.8516, sections 3 and 5.1.

    Args:
        couplings: how many, 4 in the paper.
        hidden: sizes of the hidden layers of each m; five of 1,000 in the paper on MNIST.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
        base: makes the density of z, StandardLogistic or StandardNormal.
    """

    default_preprocess = UnitInterval

    def __init__(
        self,
        couplings: int = 4,
        hidden: Sequence[int] = (1000,) * 5,
        activation: str = "relu",
        base: Callable[[int, int], Distribution] = StandardLogistic,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        check_positive(couplings=couplings)

        def flow(features: int, context_features: int) -> Composition:
            steps = [
                Coupling(features, context_features, Additive, hidden, activation, swap=k % 2 == 1)
                for k in range(couplings)
            ]
            for step in steps:
                nn.init.uniform_(step.net.out.weight, -0.01, 0.01)
            return Composition([Rescaling(features), *reversed(steps)])

        self.density = FlowDensity(self.density_features, self.context_features, flow, base)
