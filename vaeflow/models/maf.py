"""MAF, masked autoregressive flow (Papamakarios, Pavlakou & Murray 2017, arXiv 1705.07057)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

from vaeflow.bijections import BatchNorm, Bijection, Composition, MaskedAutoregressiveStep
from vaeflow.distributions import AutoregressiveMixture, FlowDensity, StandardNormal
from vaeflow.errors import check_positive
from vaeflow.models.density import DensityModel


class MAF(DensityModel):
    """Masked autoregressive flow: K steps of MADE, the order reversed between them, each followed by batch norm.

        z_i = (y_i − μ_i(y_<i)) exp(−α_i(y_<i))   in every step,    log p(y) = log p(z) − Σ α + …

    The density is one pass of K nets; a sample takes D steps in each. The base is N(0, I), or with more than one
    component a MADE whose conditionals are mixtures of Gaussians, and then there is no latent space.

    Source: Papamakarios, Pavlakou & Murray 2017, arXiv 1705.07057.

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
        check_positive(steps=steps, components=components)
        arguments: dict[str, Any] = {
            "hidden": hidden,
            "activation": activation,
            "degrees": degrees,
            "residual_blocks": residual_blocks,
        }

        def flow(features: int, context_features: int) -> Composition:
            maps: list[Bijection] = []
            for k in range(steps):
                maps.append(
                    MaskedAutoregressiveStep(features, context_features, reverse=k % 2 == 1, seed=k, **arguments)
                )
                if batch_norm:
                    maps.append(BatchNorm(features))
            return Composition(reversed(maps))

        mixture = functools.partial(AutoregressiveMixture, components=components, reverse=steps % 2 == 1, **arguments)
        base = StandardNormal if components == 1 else mixture
        self.density = FlowDensity(self.density_features, self.context_features, flow, base)
