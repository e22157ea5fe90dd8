"""Flows by the names of their papers, each a model, a prior, a posterior, or a density p(y|context) by itself."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

from vaeflow.bijections import (
    BatchNorm,
    Bijection,
    Composition,
    Coupling,
    LULinear,
    MaskedAutoregressiveStep,
    Permutation,
    RationalQuadraticSpline,
)
from vaeflow.distributions.autoregressive import AutoregressiveMixture
from vaeflow.distributions.base import StandardNormal
from vaeflow.distributions.flow import FlowDensity
from vaeflow.errors import check_positive


class MAFDensity(FlowDensity):
    """Masked autoregressive flow: K steps of MADE, the order reversed between them, maybe each followed by batch norm.

        z_i = (y_i − μ_i(y_<i)) exp(−α_i(y_<i))   in every step,    log p(y) = log p(z) − Σ α + …

    The density is one pass of K nets; a sample takes D steps in each. The base is N(0, I), or with more than one
    component a MADE whose conditionals are mixtures of Gaussians, and then there is no latent space.

    Source: Papamakarios, Pavlakou & Murray 2017, arXiv 1705.07057.

    Args:
        features: D.
        context_features: dimension of the context; 0 for none.
        steps: K.
        hidden: sizes of the hidden layers of each MADE.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
        components: of the base's conditionals.
        degrees: of hidden units, sequential or random.
        residual_blocks: of each MADE.
        batch_norm: batch normalisation after each step, of which a prior or a posterior can have none.

    >>> import torch
    >>> p = MAFDensity(2, context_features=3)  # p(y|context)
    >>> p.log_prob(torch.zeros(10, 2), torch.zeros(10, 3)).shape
    torch.Size([10])
    """

    def __init__(
        self,
        features: int,
        context_features: int = 0,
        steps: int = 5,
        hidden: Sequence[int] = (256,),
        activation: str = "relu",
        components: int = 1,
        degrees: Literal["sequential", "random"] = "sequential",
        residual_blocks: int = 0,
        batch_norm: bool = False,
    ) -> None:
        check_positive(steps=steps, components=components)
        arguments: dict[str, Any] = {
            "hidden": hidden,
            "activation": activation,
            "degrees": degrees,
            "residual_blocks": residual_blocks,
        }

        def flow(features: int, context_features: int) -> Composition:
            maps: list[Bijection] = []
            for k in range(steps):
                maps.append(
                    MaskedAutoregressiveStep(features, context_features, reverse=k % 2 == 1, seed=k, **arguments)
                )
                if batch_norm:
                    maps.append(BatchNorm(features))
            return Composition(reversed(maps))

        mixture = functools.partial(AutoregressiveMixture, components=components, reverse=steps % 2 == 1, **arguments)
        super().__init__(features, context_features, flow, StandardNormal if components == 1 else mixture)


class SplineDensity(FlowDensity):
    """K steps, each a random permutation, a trained linear map, and monotone splines of each feature.

    The splines' parameters come from half of the features (coupling, RQ-NSF (C)), or from all earlier ones
    (autoregressive, RQ-NSF (AR)).

    Source: Durkan, Bekasov, Murray & Papamakarios 2019, "Neural Spline Flows", arXiv 1906.04032.

    Args:
        features: D.
        context_features: dimension of the context; 0 for none.
        steps: K.
        variant: coupling, fast both ways, or autoregressive, of which a sample takes D steps.
        bins: of each spline.
        bound: the splines act on [−bound, bound], beyond which they are the identity.
        hidden: sizes of the hidden layers of each net.
        residual_blocks: of each net.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
    """

    def __init__(
        self,
        features: int,
        context_features: int = 0,
        steps: int = 5,
        variant: Literal["coupling", "autoregressive"] = "coupling",
        bins: int = 8,
        bound: float = 3.0,
        hidden: Sequence[int] = (128,),
        residual_blocks: int = 1,
        activation: str = "relu",
    ) -> None:
        check_positive(steps=steps)
        step = Coupling if variant == "coupling" else MaskedAutoregressiveStep
        transformer = functools.partial(RationalQuadraticSpline, bins, bound)

        def flow(features: int, context_features: int) -> Composition:
            maps: list[Bijection] = []
            for k in range(steps):
                maps += [
                    Permutation(features, seed=k),
                    LULinear(features),
                    step(features, context_features, transformer, hidden, activation, residual_blocks=residual_blocks),
                ]
            return Composition(reversed([*maps, LULinear(features)]))

        super().__init__(features, context_features, flow)
