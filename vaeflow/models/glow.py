"""Glow (Kingma & Dhariwal 2018, arXiv 1807.03039): couplings of channels that invertible 1 × 1 convolutions mix."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vaeflow.bijections import (
    ActNorm,
    Bijection,
    ChannelCoupling,
    Composition,
    EachPixel,
    GaussianPart,
    InvertibleLinear,
    MultiScale,
    Scale,
    SigmoidAffine,
    Squeeze,
    Transformer,
    UnitInterval,
)
from vaeflow.bijections.multiscale import check_scales
from vaeflow.distributions import ImageFlowDensity
from vaeflow.errors import check_positive
from vaeflow.models.density import DensityModel
from vaeflow.nets.glow_conditioner import GlowConditioner


class Glow(DensityModel):
    """A flow of images of L scales, each a squeeze and K steps, after which half of the channels leaves.

    A step is, normalising, with x_A and x_B the halves of the channels, at every pixel

        x ← (x − t) ⊙ exp(s)                      activation normalisation, started by the first batch,
        x ← W x                                   an invertible 1 × 1 convolution,
        x_B ← (x_B + t(x_A)) ⊙ sigmoid(s(x_A) + 2)    an affine coupling,

    and log p(x) = Σ over scales of log N(z; μ(h), σ(h)²) + Σ log-determinants, z being what leaves a scale and h what
    stays; at the last scale μ and σ are learned. Integers are divided by their number of levels, without a logit.

    Where the paper and its released code differ this is the code: σ = sigmoid(s + 2), the shift before the scale, a
    3 × 3 convolution for the last scale's μ and σ that sees nothing but the border. W = P L U as the paper's section
    3.2 has it; the code's default is a full matrix.

    Source: Kingma & Dhariwal 2018, "Glow: Generative Flow with Invertible 1 × 1 Convolutions", arXiv 1807.03039.

    Args:
        scales: L. Height and width are halved as often.
        steps: K, of each scale.
        channels: of the hidden layers of the nets.
        dropout: in the nets; 0 in the paper.
        transformer: makes the coupling's map of one value.
    """

    default_preprocess = UnitInterval

    def __init__(
        self,
        scales: int = 3,
        steps: int = 32,
        channels: int = 512,
        dropout: float = 0.0,
        transformer: Callable[[], Transformer] = SigmoidAffine,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        check_positive(scales=scales, steps=steps)

        def flow(shape: Sequence[int], context_features: int) -> MultiScale:
            return MultiScale(
                shape, glow_scales(shape, context_features, scales, steps, channels, dropout, transformer)
            )

        self.density = ImageFlowDensity(self.density_shape, self.context_features, flow)


def glow_scales(
    shape: Sequence[int],
    context_features: int,
    scales: int,
    steps: int,
    channels: int,
    dropout: float,
    transformer: Callable[[], Transformer],
) -> Iterator[Scale]:
    """The scales of :class:`Glow`, the finest first."""
    check_scales(shape, scales, last_halves=True)
    net = functools.partial(GlowConditioner, channels=channels, dropout=dropout)
    c, h, w = shape
    for scale in range(scales):
        c, h, w = 4 * c, h // 2, w // 2
        maps: list[Bijection] = [Squeeze()]
        for _ in range(steps):
            maps += [
                EachPixel(Composition([InvertibleLinear(c), ActNorm(c)])),
                ChannelCoupling(c, context_features, transformer, net),
            ]
        stays = c // 2 if scale < scales - 1 else 0
        leaves = (c - stays, h, w)
        yield Scale(maps, leaves, GaussianPart(stays, leaves, context_features))
        c = stays
