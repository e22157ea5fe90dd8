"""Models: one file for each system."""

from vaeflow.models.base import LikelihoodModel
from vaeflow.models.vae import VAE

__all__ = ["VAE", "LikelihoodModel"]
