"""The baselines that every table starts with: uniform, Gaussian, and mixtures of Gaussians."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from vaeflow import distributions
from vaeflow.bijections import UnitInterval
from vaeflow.errors import VaeflowError
from vaeflow.models.density import DensityModel


class UniformModel(DensityModel):
    """All L values of every dimension are as likely: nll = D log L, bpd = log₂ L. Nothing is trained."""

    default_preprocess = UnitInterval

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        if self.levels is None:
            raise VaeflowError("Uniform is for integer data: continuous data have no bounds known beforehand.")
        self.density = distributions.Uniform(self.density_features, self.context_features)


class GaussianModel(DensityModel):
    """One Gaussian with the training data's mean and covariance, in closed form. Nothing is trained by gradient.

    Args:
        covariance: full, or diagonal.
    """

    def __init__(self, covariance: Literal["full", "diagonal"] = "full", **shared: Any) -> None:
        super().__init__(**shared)
        self.density = distributions.GaussianDensity(self.density_features, self.context_features, covariance)


class GaussianMixtureModel(DensityModel):
    """A mixture of Gaussians of diagonal covariance, trained by gradient.

    Args:
        components: how many.
    """

    def __init__(self, components: int = 10, **shared: Any) -> None:
        super().__init__(**shared)
        self.density = distributions.GaussianMixture(self.density_features, self.context_features, components)


class DeepGMM(DensityModel):
    """The deep mixture of Gaussians: layers of affine maps, each picked at random; exact over all paths.

    Source: van den Oord & Schrauwen 2014, NIPS 27.

    Args:
        components: of each layer, from the base to the data; at most 4,096 paths.
    """

    def __init__(self, components: Sequence[int] = (4, 4, 4), **shared: Any) -> None:
        super().__init__(**shared)
        self.density = distributions.DeepGaussianMixture(self.density_features, self.context_features, components)
