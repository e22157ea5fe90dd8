"""Neural spline flows (Durkan, Bekasov, Murray & Papamakarios 2019, arXiv 1906.04032)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

from vaeflow.bijections import (
    Bijection,
    Composition,
    Coupling,
    LULinear,
    MaskedAutoregressiveStep,
    Permutation,
    RationalQuadraticSpline,
)
from vaeflow.distributions import FlowDensity
from vaeflow.errors import check_positive
from vaeflow.models.density import DensityModel


class NeuralSplineFlow(DensityModel):
    """K steps, each a random permutation, a trained linear map, and monotone splines of each feature.

    The splines' parameters come from half of the features (coupling, RQ-NSF (C)), or from all earlier ones
    (autoregressive, RQ-NSF (AR)).

    Source: Durkan, Bekasov, Murray & Papamakarios 2019, "Neural Spline Flows", arXiv 1906.04032.

    Args:
        steps: K.
        variant: coupling, fast both ways, or autoregressive, of which a sample takes D steps.
        bins: of each spline.
        bound: the splines act on [−bound, bound], beyond which they are the identity.
        hidden: sizes of the hidden layers of each net.
        residual_blocks: of each net.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
    """

    def __init__(
        self,
        steps: int = 5,
        variant: Literal["coupling", "autoregressive"] = "coupling",
        bins: int = 8,
        bound: float = 3.0,
        hidden: Sequence[int] = (128,),
        residual_blocks: int = 1,
        activation: str = "relu",
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        check_positive(steps=steps)
        step = Coupling if variant == "coupling" else MaskedAutoregressiveStep

        def flow(features: int, context_features: int) -> Composition:
            maps: list[Bijection] = []
            for k in range(steps):
                maps += [
                    Permutation(features, seed=k),
                    LULinear(features),
                    step(
                        features,
                        context_features,
                        functools.partial(RationalQuadraticSpline, bins, bound),
                        hidden,
                        activation,
                        residual_blocks=residual_blocks,
                    ),
                ]
            return Composition(reversed([*maps, LULinear(features)]))

        self.density = FlowDensity(self.density_features, self.context_features, flow)
