"""Densities, likelihood heads and posteriors."""

from vaeflow.distributions.base import Density, FlowDensity, StandardNormal
from vaeflow.distributions.heads import Bernoulli, Categorical, DiscretisedLogistic, Gaussian, Likelihood
from vaeflow.distributions.posteriors import ConditionedPosterior, Posterior

__all__ = [
    "Bernoulli",
    "Categorical",
    "ConditionedPosterior",
    "Density",
    "DiscretisedLogistic",
    "FlowDensity",
    "Gaussian",
    "Likelihood",
    "Posterior",
    "StandardNormal",
]
