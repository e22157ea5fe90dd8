"""Invertible maps x = f(z): ``forward`` generates, ``inverse`` normalises."""

from vaeflow.bijections.autoregressive import (
    AutoregressiveStep,
    InverseAutoregressive,
    InverseAutoregressiveStep,
    MaskedAutoregressive,
    MaskedAutoregressiveStep,
)
from vaeflow.bijections.base import Amortised, Bijection, Chain, Composition, Inverse
from vaeflow.bijections.check import check_bijection
from vaeflow.bijections.coupling import ChannelCoupling, Coupling, ImageCoupling
from vaeflow.bijections.elementwise import Logit, UnitInterval
from vaeflow.bijections.images import EachPixel, Squeeze
from vaeflow.bijections.linear import InvertibleLinear, LULinear, Permutation, Reversal, Rotation
from vaeflow.bijections.multiscale import GaussianPart, MultiScale, Scale
from vaeflow.bijections.normalisation import ActNorm, BatchNorm, Rescaling, Standardise
from vaeflow.bijections.planar import Planar, Radial
from vaeflow.bijections.sylvester import Sylvester
from vaeflow.bijections.transformers import (
    Additive,
    Affine,
    Gated,
    RationalQuadraticSpline,
    SigmoidAffine,
    Transformer,
)

__all__ = [
    "ActNorm",
    "Additive",
    "Affine",
    "Amortised",
    "AutoregressiveStep",
    "BatchNorm",
    "Bijection",
    "Chain",
    "ChannelCoupling",
    "Composition",
    "Coupling",
    "EachPixel",
    "Gated",
    "GaussianPart",
    "ImageCoupling",
    "Inverse",
    "InverseAutoregressive",
    "InverseAutoregressiveStep",
    "InvertibleLinear",
    "LULinear",
    "Logit",
    "MaskedAutoregressive",
    "MaskedAutoregressiveStep",
    "MultiScale",
    "Permutation",
    "Planar",
    "Radial",
    "RationalQuadraticSpline",
    "Rescaling",
    "Reversal",
    "Rotation",
    "Scale",
    "SigmoidAffine",
    "Squeeze",
    "Standardise",
    "Sylvester",
    "Transformer",
    "UnitInterval",
    "check_bijection",
]
