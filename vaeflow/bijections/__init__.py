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
from vaeflow.bijections.coupling import Coupling, ImageCoupling
from vaeflow.bijections.elementwise import Logit, UnitInterval
from vaeflow.bijections.linear import LULinear, Permutation, Reversal, Rotation
from vaeflow.bijections.multiscale import EachPixel, MultiScale, Squeeze
from vaeflow.bijections.normalisation import ActNorm, BatchNorm, Rescaling, Standardise
from vaeflow.bijections.planar import Planar, Radial
from vaeflow.bijections.sylvester import Sylvester
from vaeflow.bijections.transformers import Additive, Affine, Gated, RationalQuadraticSpline, Transformer

__all__ = [
    "ActNorm",
    "Additive",
    "Affine",
    "Amortised",
    "AutoregressiveStep",
    "BatchNorm",
    "Bijection",
    "Chain",
    "Composition",
    "Coupling",
    "EachPixel",
    "Gated",
    "ImageCoupling",
    "Inverse",
    "InverseAutoregressive",
    "InverseAutoregressiveStep",
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
    "Squeeze",
    "Standardise",
    "Sylvester",
    "Transformer",
    "UnitInterval",
    "check_bijection",
]
