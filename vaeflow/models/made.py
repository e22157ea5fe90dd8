"""MADE, the masked autoencoder as a density (Germain, Gregor, Murray & Larochelle 2015, arXiv 1502.03509)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

from vaeflow.bijections import MaskedAutoregressiveStep
from vaeflow.distributions import AutoregressiveMixture, FlowDensity
from vaeflow.errors import check_positive
from vaeflow.models.density import DensityModel


class MADE(DensityModel):
    """p(y) = Π_i p(y_i | y_<i), each conditional a Gaussian or a mixture of Gaussians, all by one masked net.

    With one component it is a flow of one step, z_i = (y_i − μ_i) exp(−α_i), and has a latent space.

    Sources: Germain, Gregor, Murray & Larochelle 2015, arXiv 1502.03509; Papamakarios et al. 2017, arXiv 1705.07057.

    Args:
        components: of each conditional.
        hidden: sizes of the hidden layers.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
        degrees: of hidden units, sequential or random.
        residual_blocks: after the hidden layers.
    """

    def __init__(
        self,
        components: int = 1,
        hidden: Sequence[int] = (512, 512),
        activation: str = "relu",
        degrees: Literal["sequential", "random"] = "sequential",
        residual_blocks: int = 0,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        check_positive(components=components)
        arguments: dict[str, Any] = {
            "hidden": hidden,
            "activation": activation,
            "degrees": degrees,
            "residual_blocks": residual_blocks,
        }
        if components == 1:
            flow = functools.partial(MaskedAutoregressiveStep, **arguments)
            self.density = FlowDensity(self.density_features, self.context_features, flow)
        else:
            self.density = AutoregressiveMixture(self.density_features, self.context_features, components, **arguments)
