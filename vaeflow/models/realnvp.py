"""RealNVP, real-valued non-volume-preserving transformations (Dinh, Sohl-Dickstein & Bengio 2017, arXiv 1605.08803)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vaeflow.bijections import BatchNorm, Bijection, Composition, Coupling, MultiScale
from vaeflow.distributions import FlowDensity
from vaeflow.errors import VaeflowError, check_positive
from vaeflow.models.density import DensityModel


class RealNVP(DensityModel):
    """Affine couplings of vectors, every second feature by turns, each followed by batch normalisation.

        h_A = y_A,  h_B = (y_B − t(y_A)) exp(−s(y_A)),    log p(y) = log N(z; 0, I) − Σ s + …

    Sources: Dinh, Sohl-Dickstein & Bengio 2017, arXiv 1605.08803; the version for vectors that Papamakarios et al.
    2017, arXiv 1705.07057, compare with, whose nets for s and t are separate while here they share hidden layers.

    Args:
        couplings: K.
        hidden: sizes of the hidden layers of each net.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
        batch_norm: batch normalisation after each coupling.
    """

    def __init__(
        self,
        couplings: int = 5,
        hidden: Sequence[int] = (256, 256),
        activation: str = "relu",
        batch_norm: bool = True,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        check_positive(couplings=couplings)

        def flow(features: int, context_features: int) -> Composition:
            steps: list[Bijection] = []
            for k in range(couplings):
                steps.append(
                    Coupling(features, context_features, hidden=hidden, activation=activation, swap=k % 2 == 1)
                )
                if batch_norm:
                    steps.append(BatchNorm(features))
            return Composition(reversed(steps))

        self.density = FlowDensity(self.dimension, self.context_features, flow)


class ImageRealNVP(DensityModel):
    """RealNVP of images: checkerboard and channel-wise couplings at several scales, half of z leaving at each.

    See :class:`~vaeflow.bijections.MultiScale` for the architecture.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, arXiv 1605.08803, sections 3.4 to 3.7.

    Args:
        scales: one more than there are squeezes.
        couplings: of each mask in each scale.
        channels: of the hidden layers of the nets, doubled by each squeeze.
        residual_blocks: of each net.
    """

    def __init__(
        self, scales: int = 2, couplings: int = 3, channels: int = 64, residual_blocks: int = 2, **shared: Any
    ) -> None:
        super().__init__(**shared)
        if len(self.shape) != 3:
            raise VaeflowError(f"ImageRealNVP is for images, but the data have shape {self.shape}: take RealNVP.")

        def flow(features: int, context_features: int) -> MultiScale:
            return MultiScale(
                self.shape, context_features, scales, couplings, channels=channels, residual_blocks=residual_blocks
            )

        self.density = FlowDensity(self.dimension, self.context_features, flow)
