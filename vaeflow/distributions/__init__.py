"""Densities, likelihood heads and posteriors."""

from vaeflow.distributions.autoregressive import AutoregressiveMixture
from vaeflow.distributions.base import Density, FlowDensity, StandardLogistic, StandardNormal, Uniform
from vaeflow.distributions.gaussians import DeepGaussianMixture, GaussianDensity, GaussianMixture
from vaeflow.distributions.heads import Bernoulli, Categorical, DiscretisedLogistic, Gaussian, Likelihood
from vaeflow.distributions.posteriors import ConditionedPosterior, Posterior

__all__ = [
    "AutoregressiveMixture",
    "Bernoulli",
    "Categorical",
    "ConditionedPosterior",
    "DeepGaussianMixture",
    "Density",
    "DiscretisedLogistic",
    "FlowDensity",
    "Gaussian",
    "GaussianDensity",
    "GaussianMixture",
    "Likelihood",
    "Posterior",
    "StandardLogistic",
    "StandardNormal",
    "Uniform",
]
