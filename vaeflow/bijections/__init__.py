"""Invertible maps x = f(z): ``forward`` generates, ``inverse`` normalises."""

from vaeflow.bijections.autoregressive import GatedAutoregressiveStep, InverseAutoregressive
from vaeflow.bijections.base import Amortised, Bijection, Chain, Inverse
from vaeflow.bijections.elementwise import Standardise
from vaeflow.bijections.planar import Planar, Radial
from vaeflow.bijections.sylvester import Sylvester

__all__ = [
    "Amortised",
    "Bijection",
    "Chain",
    "GatedAutoregressiveStep",
    "Inverse",
    "InverseAutoregressive",
    "Planar",
    "Radial",
    "Standardise",
    "Sylvester",
]
