"""The distribution that a bijection makes of another: a density, a prior, or a posterior."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from vaeflow.bijections import Bijection
from vaeflow.distributions.base import CodedDistribution, Distribution, StandardNormal
from vaeflow.distributions.gaussians import PathWeights
from vaeflow.errors import NoAnswer, VaeflowError, check_mapped
from vaeflow.nets.conditioner import Conditioned, Context, lead_of
from vaeflow.noise import Noise


class FlowDensity(CodedDistribution):
    """The distribution of y = f(z; context) with z from a base:

        log p(y|context) = log p(f⁻¹(y)|context) + log |det ∂f⁻¹/∂y|.

    As a model or a learned prior, p is evaluated at every training step: choose a flow whose ``inverse`` is fast, such
    as ``MaskedAutoregressive`` or a ``Chain`` of ``Coupling``. As a posterior it is sampled, together with its density
    there: choose one whose ``forward`` is fast.

    Args:
        features: D, the dimension of y.
        context_features: dimension of the context; 0 for none.
        flow: makes f of these two numbers.
        base: makes the distribution of z, of the same two numbers.

    >>> import torch
    >>> from vaeflow.bijections import MaskedAutoregressive
    >>> p = FlowDensity(2, 3, MaskedAutoregressive)  # p(y|c), three lines with the import
    >>> p.log_prob(torch.zeros(10, 2), torch.zeros(10, 3)).shape
    torch.Size([10])
    """

    def __init__(
        self,
        features: int,
        context_features: int,
        flow: Callable[[int, int], Bijection],
        base: Callable[[int, int], Distribution] = StandardNormal,
    ) -> None:
        super().__init__((features,), context_features)
        self.base = base(features, context_features)
        try:
            self.flow = flow(features, context_features)
        except TypeError as error:
            raise VaeflowError(f"the flow cannot be made: {error}.") from error

    @property
    def is_reparameterised(self) -> bool:  # type: ignore[override]
        """Whether its base is."""
        return self.base.is_reparameterised

    def condition(self, context: Context) -> Conditioned:
        if isinstance(context, Conditioned):
            return context
        return Conditioned((self.base.condition(context), self.flow.condition(context)), lead_of(context))

    def generate(self, z: Tensor, of_flow: Context) -> tuple[Tensor, Tensor]:
        """y = f(z) ``(..., batch, *event_shape)`` and log |det ∂y/∂z|, with what f made of the context."""
        return check_mapped(type(self.flow).__name__, self.flow(z, of_flow), z)

    def normalise(self, y: Tensor, of_flow: Context) -> tuple[Tensor, Tensor]:
        """z = f⁻¹(y) ``(..., batch, D)`` and log |det ∂z/∂y|."""
        return check_mapped(type(self.flow).__name__, self.flow.inverse(y, of_flow), y)

    def log_prob(self, y: Tensor, context: Context = None) -> Tensor:
        of_base, of_flow = self.condition(context).value
        z, log_det = self.normalise(y, of_flow)
        return self.base.log_prob(z, of_base) + log_det

    def sample(
        self, num_samples: int = 1, context: Context = None, noise: Noise | None = None, temperature: float = 1.0
    ) -> Tensor:
        of_base, of_flow = self.condition(context).value
        return self.generate(self.base.sample(num_samples, of_base, noise, temperature), of_flow)[0]

    def rsample_with_log_prob(
        self,
        num_samples: int = 1,
        context: Context = None,
        noise: Noise | None = None,
        path_weights: PathWeights | None = None,
    ) -> tuple[Tensor, Tensor]:
        """y = f(z) and log p(y|context) = log p(z|context) − log |det ∂f/∂z|.

        Args:
            path_weights: of a base that takes them; see :class:`~vaeflow.distributions.gaussians.DiagonalGaussian`.
        """
        of_base, of_flow = self.condition(context).value
        further: dict[str, Any] = {} if path_weights is None else {"path_weights": path_weights}
        z, log_p = self.base.rsample_with_log_prob(num_samples, of_base, noise, **further)
        y, log_det = self.generate(z, of_flow)
        return y, log_p - log_det

    def encode(self, y: Tensor, context: Context = None) -> Tensor:
        of_base, of_flow = self.condition(context).value
        return self._coded_base().encode(self.normalise(y, of_flow)[0], of_base)

    def decode(self, code: Tensor, context: Context = None) -> Tensor:
        of_base, of_flow = self.condition(context).value
        return self.generate(self._coded_base().decode(code, of_base), of_flow)[0]

    def trajectory(self, code: Tensor, context: Context = None) -> Iterator[Tensor]:
        of_base, of_flow = self.condition(context).value
        *before, z = self._coded_base().trajectory(code, of_base)
        yield from before
        yield from self.flow.trajectory(z, of_flow)

    def icdf(self, u: Tensor) -> Tensor:
        return self._coded_base().icdf(u)

    @property
    def latent_slices(self) -> dict[str, slice]:
        if not isinstance(self.base, CodedDistribution):
            return {}
        return self.base.latent_slices and getattr(self.flow, "slices", self.base.latent_slices)

    def _coded_base(self) -> CodedDistribution:
        if not isinstance(self.base, CodedDistribution):
            raise NoAnswer(f"{type(self.base).__name__} has no latent space: many draws of its noise make one point.")
        return self.base

    def refresh(self, y: list[Tensor], context: list[Tensor | None]) -> None:
        self.base.refresh(self.flow.refresh(y, context), context)


class ImageFlowDensity(FlowDensity):
    """A :class:`FlowDensity` of images ``(channels, height, width)``, whose flow maps rows of them, ``(rows, channels,
    height, width)``, to vectors ``(rows, D)``. Samples and examples become rows here, once, each with its context.

    Args:
        shape: of one image.
        context_features: dimension of the context; 0 for none.
        flow: makes f of the shape and the context's dimension, such as a :class:`~vaeflow.bijections.MultiScale`.
        base: makes the distribution of z, of D and the context's dimension.
    """

    def __init__(
        self,
        shape: Sequence[int],
        context_features: int,
        flow: Callable[[Sequence[int], int], Bijection],
        base: Callable[[int, int], Distribution] = StandardNormal,
    ) -> None:
        if len(shape) != 3:
            raise VaeflowError(
                f"the data have shape {tuple(shape)}, but this flow takes images (channels, height, width)."
            )
        features = math.prod(shape)
        super().__init__(features, context_features, lambda _, context_features: flow(shape, context_features), base)
        self.event_shape = tuple(shape)

    def generate(self, z: Tensor, of_flow: Context) -> tuple[Tensor, Tensor]:
        lead = z.shape[:-1]
        y, log_det = self.flow(z.flatten(0, -2), self._of_rows(of_flow, lead))
        return y.reshape(*lead, *self.event_shape), log_det.expand(len(y)).reshape(lead)

    def normalise(self, y: Tensor, of_flow: Context) -> tuple[Tensor, Tensor]:
        lead = y.shape[:-3]
        z, log_det = self.flow.inverse(y.flatten(0, -4), self._of_rows(of_flow, lead))
        return z.reshape(*lead, self.features), log_det.expand(len(z)).reshape(lead)

    def trajectory(self, code: Tensor, context: Context = None) -> Iterator[Tensor]:
        """Of z, laid out as an image, and of y."""
        yield self._coded_base().decode(code, context).unflatten(-1, self.event_shape)
        yield self.decode(code, context)

    @staticmethod
    def _of_rows(context: Context, lead: Sequence[int]) -> Context:
        """The context of each row."""
        if isinstance(context, Tensor):
            return context.expand(*lead, context.shape[-1]).flatten(0, -2)
        return context
