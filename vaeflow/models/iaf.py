"""IAF, inverse autoregressive flow, as a model of data (Kingma et al. 2016, arXiv 1606.04934)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from vaeflow.bijections import Affine, InverseAutoregressive
from vaeflow.distributions import FlowDensity
from vaeflow.models.density import DensityModel


class IAF(DensityModel):
    """Inverse autoregressive flow as a density model: samples, and their density, in one pass.

    Its steps are affine, x_i = z_i exp(s_i(z_<i)) + m_i(z_<i), since the paper's gates only contract.

    The density of any other point takes D steps in each of the K nets, and its gradient as many, so that it trains
    slowly where D is large; there take :class:`MAF`.

    Source: Kingma et al. 2016, arXiv 1606.04934.

    Args:
        steps: K.
        hidden: sizes of the hidden layers of each MADE.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
    """

    def __init__(self, steps: int = 4, hidden: Sequence[int] = (64,), activation: str = "elu", **shared: Any) -> None:
        super().__init__(**shared)
        flow = functools.partial(
            InverseAutoregressive, steps=steps, hidden=hidden, activation=activation, transformer=Affine
        )
        self.density = FlowDensity(self.density_features, self.context_features, flow)
