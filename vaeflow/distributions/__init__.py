"""Distributions: densities, priors, posteriors, and likelihood heads of decoders."""

from vaeflow.distributions.autoregressive import AutoregressiveMixture
from vaeflow.distributions.base import CodedDistribution, Distribution, StandardLogistic, StandardNormal, Uniform
from vaeflow.distributions.flow import FlowDensity, ImageFlowDensity
from vaeflow.distributions.flows import MAFDensity, SplineDensity
from vaeflow.distributions.gaussians import (
    DeepGaussianMixture,
    DiagonalGaussian,
    GaussianDensity,
    GaussianMixture,
    Normal,
    PathWeights,
)
from vaeflow.distributions.heads import Bernoulli, Categorical, DiscretisedLogistic, Gaussian, Likelihood
from vaeflow.distributions.logistic_mixture import DiscretisedLogisticMixture
from vaeflow.distributions.observations import Factorised

__all__ = [
    "AutoregressiveMixture",
    "Bernoulli",
    "Categorical",
    "CodedDistribution",
    "DeepGaussianMixture",
    "DiagonalGaussian",
    "DiscretisedLogistic",
    "DiscretisedLogisticMixture",
    "Distribution",
    "Factorised",
    "FlowDensity",
    "Gaussian",
    "GaussianDensity",
    "GaussianMixture",
    "ImageFlowDensity",
    "Likelihood",
    "MAFDensity",
    "Normal",
    "PathWeights",
    "SplineDensity",
    "StandardLogistic",
    "StandardNormal",
    "Uniform",
]
