"""RealNVP, real-valued non-volume-preserving transformations (Dinh, Sohl-Dickstein & Bengio 2017, arXiv 1605.08803)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from vaeflow.bijections import (
    BatchNorm,
    Bijection,
    Composition,
    Coupling,
    EachPixel,
    ImageCoupling,
    MultiScale,
    Scale,
    Squeeze,
)
from vaeflow.bijections.coupling import channelwise, checkerboard
from vaeflow.bijections.multiscale import check_scales
from vaeflow.distributions import FlowDensity, ImageFlowDensity
from vaeflow.errors import check_positive
from vaeflow.models.density import DensityModel
from vaeflow.nets import ConvConditioner


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

        self.density = FlowDensity(self.density_features, self.context_features, flow)


class ImageRealNVP(DensityModel):
    """RealNVP of images: at each scale but the last three couplings with a checkerboard mask, a squeeze and three
    couplings with a channel-wise mask, after which half of the channels leaves; at the last scale four couplings with a
    checkerboard mask. Batch normalisation follows every coupling.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, arXiv 1605.08803, sections 3.4 to 3.7 and figure 4b.

    Args:
        scales: one more than there are squeezes.
        couplings: of each mask in each scale, 3 in the paper; the last scale has one more.
        channels: of the hidden layers of the nets, doubled by each squeeze.
        residual_blocks: of each net.
    """

    def __init__(
        self, scales: int = 2, couplings: int = 3, channels: int = 64, residual_blocks: int = 2, **shared: Any
    ) -> None:
        super().__init__(**shared)
        check_positive(scales=scales, couplings=couplings)

        def flow(shape: Sequence[int], context_features: int) -> MultiScale:
            return MultiScale(
                shape, realnvp_scales(shape, context_features, scales, couplings, channels, residual_blocks)
            )

        self.density = ImageFlowDensity(self.density_shape, self.context_features, flow)


def realnvp_scales(
    shape: Sequence[int], context_features: int, scales: int, couplings: int, channels: int, residual_blocks: int
) -> Iterator[Scale]:
    """The scales of :class:`ImageRealNVP`, the finest first."""
    check_scales(shape, scales, last_halves=False)
    c, h, w = shape

    def steps(mask: Callable[..., Tensor], count: int, channels: int) -> list[Bijection]:
        net = functools.partial(ConvConditioner, channels=channels, residual_blocks=residual_blocks)
        maps: list[Bijection] = []
        for k in range(count):
            maps += [ImageCoupling(mask((c, h, w), k % 2 == 1), context_features, net=net), EachPixel(BatchNorm(c))]
        return maps

    for _ in range(scales - 1):
        maps = [*steps(checkerboard, couplings, channels), Squeeze()]
        c, h, w, channels = 4 * c, h // 2, w // 2, 2 * channels
        yield Scale([*maps, *steps(channelwise, couplings, channels)], leaves=(c - c // 2, h, w))
        c = c // 2
    yield Scale(steps(checkerboard, couplings + 1, channels), leaves=(c, h, w))
