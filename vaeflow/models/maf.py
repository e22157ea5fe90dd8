"""MAF, masked autoregressive flow (Papamakarios, Pavlakou & Murray 2017, arXiv 1705.07057)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from vaeflow.distributions import MAFDensity
from vaeflow.models.density import DensityModel


class MAF(DensityModel):
    """Masked autoregressive flow of the data, by default with batch normalisation; see
    :class:`~vaeflow.distributions.MAFDensity`, which is a prior and a posterior as well.

    Args:
        steps: K.
        hidden: sizes of the hidden layers of each MADE.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
        components: of the base's conditionals.
        degrees: of hidden units, sequential or random.
        residual_blocks: of each MADE.
        batch_norm: batch normalisation after each step.
    """

    def __init__(
        self,
        steps: int = 5,
        hidden: Sequence[int] = (256,),
        activation: str = "relu",
        components: int = 1,
        degrees: Literal["sequential", "random"] = "sequential",
        residual_blocks: int = 0,
        batch_norm: bool = True,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.density = MAFDensity(
            self.density_features,
            self.context_features,
            steps,
            hidden,
            activation,
            components,
            degrees,
            residual_blocks,
            batch_norm,
        )
