"""Models: one file for each system."""

from vaeflow.models.base import LikelihoodModel
from vaeflow.models.baselines import DeepGMM, GaussianMixtureModel, GaussianModel, UniformModel
from vaeflow.models.density import DensityModel, Flow
from vaeflow.models.gated_pixelcnn import GatedPixelCNN
from vaeflow.models.glow import Glow
from vaeflow.models.iaf import IAF
from vaeflow.models.latent import LatentVariableModel
from vaeflow.models.made import MADE
from vaeflow.models.maf import MAF
from vaeflow.models.nice import NICE
from vaeflow.models.realnvp import ImageRealNVP, RealNVP
from vaeflow.models.reverse_kl import ReverseKL
from vaeflow.models.spline import NeuralSplineFlow
from vaeflow.models.vae import VAE
from vaeflow.models.vdvae import VDVAE

__all__ = [
    "IAF",
    "MADE",
    "MAF",
    "NICE",
    "VAE",
    "VDVAE",
    "DeepGMM",
    "DensityModel",
    "Flow",
    "GatedPixelCNN",
    "GaussianMixtureModel",
    "GaussianModel",
    "Glow",
    "ImageRealNVP",
    "LatentVariableModel",
    "LikelihoodModel",
    "NeuralSplineFlow",
    "RealNVP",
    "ReverseKL",
    "UniformModel",
]
