"""Autoregressive maps in both directions: IAF (Kingma et al. 2016) and MAF (Papamakarios et al. 2017)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from vaeflow.bijections.base import Bijection, Composition
from vaeflow.bijections.sequential import solve
from vaeflow.bijections.transformers import IN_MACHINE_CODE, Affine, Gated, Transformer
from vaeflow.errors import check_positive, check_shape
from vaeflow.nets.conditioner import Context
from vaeflow.nets.masked_mlp import MaskedMLP
from vaeflow.nets.parallel import is_able, parallel


class AutoregressiveStep(Bijection):
    """One autoregressive map of either direction: a MADE computes what a transformer does to each feature.

    Args:
        features: D, the dimension of z.
        context_features: dimension of the context; 0 for none.
        transformer: makes the map of one feature.
        hidden: sizes of the MADE's hidden layers.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
        reverse: take the features from the last to the first.
        degrees: of the MADE's hidden units, sequential or random.
        residual_blocks: of the MADE.
        seed: of random degrees.
    """

    def __init__(
        self,
        features: int,
        context_features: int = 0,
        transformer: Callable[[], Transformer] = Affine,
        hidden: Sequence[int] = (128,),
        activation: str = "elu",
        reverse: bool = False,
        degrees: Literal["sequential", "random"] = "sequential",
        residual_blocks: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.transformer = transformer()
        self.made = MaskedMLP(
            features,
            self.transformer.num_parameters,
            hidden,
            context_features,
            activation,
            reverse,
            degrees,
            residual_blocks,
            seed,
        )

    def condition(self, context: Context) -> Context:
        return self.made.condition(context)

    def _parallel(self, inverse: bool, value: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """One pass: every feature is mapped with parameters of the features before it, which are known."""
        check_shape("the vector", value, self.made.features)
        if type(self.transformer) in IN_MACHINE_CODE and is_able(self.made, value):
            return parallel(self.made, self.transformer, inverse, value, context)
        transform = self.transformer.inverse if inverse else self.transformer.forward
        image, log_slopes = transform(value, self.made(value, context))
        return image, log_slopes.sum(-1)

    def _sequential(self, inverse: bool, value: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """D steps: every feature is mapped with parameters of the images before it, found one after the other."""
        check_shape("the vector", value, self.made.features)
        return solve(self.made, self.transformer, inverse, value, context)

    @abstractmethod
    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]: ...


class InverseAutoregressiveStep(AutoregressiveStep):
    """x_i = τ(z_i; θ_i(z_<i, context)): generates in one pass. One step of :class:`InverseAutoregressive`."""

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self._parallel(False, z, context)

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self._sequential(True, x, context)


class MaskedAutoregressiveStep(AutoregressiveStep):
    """x_i = τ(z_i; θ_i(x_<i, context)): normalises in one pass. One step of :class:`MaskedAutoregressive`."""

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self._sequential(False, z, context)

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self._parallel(True, x, context)


class InverseAutoregressive(Composition):
    """K autoregressive steps that generate fast, the order of the features reversed between them.

        x_i = τ(z_i; θ_i),    θ = MADE(z, context),    log |det ∂x/∂z| = Σ_i log ∂x_i/∂z_i,

    where θ_i depends on z_<i and on the context, and τ is the paper's gate: x = σ z + (1 − σ) m.

    | direction | cost |
    |---|---|
    | ``forward``, z → x: sampling, with the density of the sample | one pass of K nets |
    | ``inverse``, x → z: the density of a point from outside | features × K steps, together the products of one pass |

    For a cheap density, as of a learned prior, take :class:`MaskedAutoregressive`.

    Source: Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling 2016, "Improving Variational Inference with
    Inverse Autoregressive Flow", arXiv 1606.04934, algorithm 1.

    Args:
        features: D, the dimension of z.
        context_features: dimension of the context; 0 for none.
        steps: K.
        hidden: sizes of the hidden layers of each step's MADE.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
        transformer: makes τ, the map of one feature.
        degrees: of the MADEs' hidden units, sequential or random.
        residual_blocks: of each MADE.

    >>> import torch
    >>> flow = InverseAutoregressive(features=3, context_features=8, steps=2, hidden=[32])
    >>> x, log_det = flow(torch.randn(100, 5, 3), torch.randn(5, 8))  # 100 samples for each of 5 contexts
    >>> log_det.shape
    torch.Size([100, 5])
    """

    def __init__(
        self,
        features: int,
        context_features: int = 0,
        steps: int = 1,
        hidden: Sequence[int] = (320,),
        activation: str = "elu",
        transformer: Callable[[], Transformer] = Gated,
        degrees: Literal["sequential", "random"] = "sequential",
        residual_blocks: int = 0,
    ) -> None:
        check_positive(features=features, steps=steps)
        arguments = (features, context_features, transformer, hidden, activation)
        super().__init__(
            InverseAutoregressiveStep(*arguments, k % 2 == 1, degrees, residual_blocks, seed=k) for k in range(steps)
        )


class MaskedAutoregressive(Composition):
    """K autoregressive steps that normalise fast, the order of the features reversed between them.

        x_i = τ(z_i; θ_i),    θ = MADE(x, context),    log |det ∂x/∂z| = Σ_i log ∂x_i/∂z_i,

    where θ_i depends on x_<i and on the context, and τ is affine: x = z exp(α) + μ.

    | direction | cost |
    |---|---|
    | ``inverse``, x → z: the density of any point | one pass of K nets |
    | ``forward``, z → x: sampling | features × K steps, together the products of one pass |

    Source: Papamakarios, Pavlakou & Murray 2017, "Masked Autoregressive Flow for Density Estimation",
    arXiv 1705.07057, section 3.

    Args:
        features: D, the dimension of z.
        context_features: dimension of the context; 0 for none.
        steps: K.
        hidden: sizes of the hidden layers of each step's MADE.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
        transformer: makes τ, the map of one feature.
        degrees: of the MADEs' hidden units, sequential or random.
        residual_blocks: of each MADE.
    """

    def __init__(
        self,
        features: int,
        context_features: int = 0,
        steps: int = 1,
        hidden: Sequence[int] = (320,),
        activation: str = "relu",
        transformer: Callable[[], Transformer] = Affine,
        degrees: Literal["sequential", "random"] = "sequential",
        residual_blocks: int = 0,
    ) -> None:
        check_positive(features=features, steps=steps)
        arguments = (features, context_features, transformer, hidden, activation)
        super().__init__(
            MaskedAutoregressiveStep(*arguments, k % 2 == 1, degrees, residual_blocks, seed=k) for k in range(steps)
        )
