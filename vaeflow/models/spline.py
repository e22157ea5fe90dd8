"""Neural spline flows (Durkan, Bekasov, Murray & Papamakarios 2019, arXiv 1906.04032)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from vaeflow.distributions import SplineDensity
from vaeflow.models.density import DensityModel


class NeuralSplineFlow(DensityModel):
    """A neural spline flow of the data; see :class:`~vaeflow.distributions.SplineDensity`, which is a prior and a
    posterior as well.

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
        self.density = SplineDensity(
            self.density_features,
            self.context_features,
            steps,
            variant,
            bins,
            bound,
            hidden,
            residual_blocks,
            activation,
        )
