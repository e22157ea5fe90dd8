"""What the models with an exact likelihood share: one density of the data, once they are on the line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vaeflow.bijections import Bijection, Logit, Standardise
from vaeflow.distributions import CodedDistribution, Distribution, FlowDensity, StandardNormal
from vaeflow.distributions.base import full_precision
from vaeflow.distributions.extensions import Augmentation, Dequantisation, UniformDequantisation
from vaeflow.errors import NoAnswer, VaeflowError
from vaeflow.estimate import Draw, LogWeights, Terms
from vaeflow.functional import floored
from vaeflow.models.coded import CodedModel
from vaeflow.noise import Noise
from vaeflow.records.checkpoint import class_of


class DensityModel(CodedModel):
    """log p(x) = log p(y) + log |det ∂y/∂x| of continuous data x, y being x pre-processed.

    For integers it is

        log P(x) = log ∫ p(x + u) du ≥ E_q[log p(x + u) − log q(u|x)],    u in (0, 1)^D,

    so that nll is of the data as the user gave them, whatever the pre-processing. Evaluated with one u for each
    example it is the mean of the bound on the right, as papers report it; with K of them it is the tighter
    log (1/K) Σ_k p(x + u_k)/q(u_k|x). Training draws u anew for each example in each epoch. Of augmented data see
    :mod:`vaeflow.distributions.extensions`.

    A subclass sets ``density``, of vectors of all ``density_features`` dimensions, or of images of ``density_shape``.

    Args:
        preprocess: makes the map to y of D and of L (0 for continuous data): by default the model's own for integers,
            standardisation for continuous data.
        dequantisation: makes q(u|x) of the data's shape, L and the context's dimension, for integers; by default u is
            uniform.
        augmentation: makes q(e|x) of the data's shape and the context's dimension: further dimensions e, of which the
            density is as well; by default there are none.
        noise_once: draw the noise of each training example once and for all, as the experiments of MAF's paper do,
            instead of anew in each epoch.
    """

    default_preprocess: Callable[[int, int], Bijection] = Logit
    objective_name = "log-likelihood"
    evaluation_samples = 1
    reported = ("log_det",)
    density: Distribution

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int | None = None,
        num_classes: int = 0,
        class_conditional: bool = False,
        preprocess: Callable[[int, int], Bijection] | None = None,
        dequantisation: Callable[[Sequence[int], int, int], Dequantisation] = UniformDequantisation,
        augmentation: Callable[[Sequence[int], int], Augmentation] | None = None,
        noise_once: bool = False,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.Adam,
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(shape, levels, num_classes, class_conditional, optimizer, lr_scheduler, seed)
        self.noise_once = noise_once
        if levels is None and class_of(dequantisation) is not UniformDequantisation:
            raise VaeflowError("dequantisation makes real numbers of integers, and these data are real: leave it out.")
        self.dequantisation = None if levels is None else dequantisation(self.shape, levels, self.context_features)
        self.augmentation = None if augmentation is None else augmentation(self.shape, self.context_features)
        self.kind = "exact" if levels is None else "dequantised"
        self.combining = "exact" if levels is None else "log_mean_exp"
        self.density_shape = self.shape
        if self.augmentation is not None:
            self.kind, self.combining, self.evaluation_samples = "importance-sampled", "log_mean_exp", 1000
            self.density_shape = self.augmentation.extended_shape
        self.density_features = math.prod(self.density_shape)
        default = Standardise if levels is None else type(self).default_preprocess
        self.preprocess = (preprocess or default)(self.dimension, levels or 0)
        if list(self.preprocess.parameters()):
            raise VaeflowError(
                f"preprocess is {type(self.preprocess).__name__}, which learns: it belongs into the flow. Take Logit, "
                "UnitInterval or Standardise."
            )

    # ---------------------------------------------------------------------------------------- the four questions

    def draws_of(self, x: Tensor, context: Tensor | None = None) -> Draw:
        x, context = self._checked_given(x, context)

        def draw(noise: Noise, num_samples: int) -> Terms:
            noise = self._checked_noise(noise, len(x), x.device)
            with full_precision(x):
                y, log_det, log_q = self._extended(x, context, noise, num_samples)
                log_prob = self.density.log_prob(self._as_events(y), context)
                return Terms(log_prob + log_det - log_q, reported={"log_det": log_det})

        return draw

    def log_weights_of(self, x: Tensor, context: Tensor | None = None) -> LogWeights:
        draw = self.draws_of(x, context)
        return lambda noise, num_samples: draw(noise, num_samples).log_weights

    @torch.no_grad()
    def sample(
        self, n: int, noise: Noise, context: Tensor | None = None, temperature: float = 1.0, mean: bool = False
    ) -> Tensor:
        """Draws x ``(n, *shape)`` in the data's units, without a gradient.

        Args:
            noise: such as ``Noise(seed=1)``; the same noise gives the same samples.
            context: ``(n, context_features)``; :meth:`context_of` makes it of labels.
            temperature: what the standard deviation of the base is multiplied by.
            mean: changes nothing here: a sample is the value itself, without noise to average.
        """
        noise, context = self._checked_draw(n, noise, context)
        return self._in_units_of_data(self._as_vectors(self.density.sample(1, context, noise, temperature)[0]))

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """z = f⁻¹(x), ``(batch, *shape)`` → ``(batch, D)``. An integer x stands for the middle of its cell, x + ½, and
        the derivative by x is that by a real number there; further dimensions are the middle of theirs."""
        x, context = self._checked_given(x, context)
        y = self.preprocess.inverse(self._middle(x))[0].to(self.dtype)
        if self.augmentation is not None:
            noise = Noise().at(torch.arange(len(x), device=x.device)).cooled(0.0)
            y = torch.cat([y, self.augmentation.draw(y.unsqueeze(0), context, noise, 1)[0][0]], dim=-1)
        return self._coded().encode(self._as_events(y), context)

    def decode(self, z: Tensor, context: Tensor | None = None, floor: bool = True) -> Tensor:
        """x = f(z), ``(batch, D)`` → ``(batch, *shape)`` in the data's units.

        Args:
            floor: for integer data, return the integer in whose cell the value lies instead of the value. Integers
                have no derivative: asking for one raises a :class:`VaeflowError`, so pass False to differentiate.
        """
        z = self._checked_code(z, self.density_features)
        context = self._checked_context_of(z, context)
        return self._in_units_of_data(self._as_vectors(self._coded().decode(z, context)), floor)

    def trajectory(self, z: Tensor, context: Tensor | None = None) -> Iterator[Tensor]:
        z = self._checked_code(z, self.density_features)
        context = self._checked_context_of(z, context)
        for y in self._coded().trajectory(z, context):
            yield self._in_units_of_data(self._as_vectors(y), floor=False)

    def icdf(self, u: Tensor) -> Tensor:
        return self._coded().icdf(self._checked_cube(u))

    @property
    def latent_slices(self) -> dict[str, slice]:
        return self.density.latent_slices if isinstance(self.density, CodedDistribution) else {}

    def _coded(self) -> CodedDistribution:
        if not isinstance(self.density, CodedDistribution):
            raise NoAnswer(
                f"{type(self.density).__name__} has no latent space: many draws of its noise make the same point."
            )
        return self.density

    # -------------------------------------------------------------------------------------------------- training

    def losses(self, x: Tensor, noise: Noise, context: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        x = self._checked(x)
        noise = self._checked_noise(noise, len(x), x.device)
        if self.noise_once and noise.stage == "train":
            noise = replace(noise, stage="train, once", epoch=0)
        nll = -self.log_weights_of(x, context)(noise, 1)[0]
        return nll.mean(), {"objective": nll, "nll": nll}

    def initialise(self, data: Any) -> None:
        if isinstance(self.preprocess, Standardise):
            mean, scale = data.statistics()
            if self.levels is not None:  # x + u
                mean, scale = mean + 0.5, (scale.square() + 1 / 12).sqrt()
            self.preprocess.set(mean.flatten(), scale.flatten(), data.dimension_name)
        super().initialise(data)
        if not self.is_trained_by_gradient:
            self.refresh(data)

    @torch.no_grad()
    def refresh(self, data: Any) -> None:
        if not any(getattr(part, "takes_training_set", False) for part in self.density.modules()):
            return
        training = self.training
        self.eval()
        inputs, contexts = [], []
        for x, y, index in data.batches_of_process("train"):
            noise = Noise(self.seed, "train, once", 0, index.to(self.device))
            contexts.append(self.context_of(y.to(self.device)))
            y, *_ = self._extended(self._checked(x.to(self.device)), contexts[-1], noise, 1)
            inputs.append(self._as_events(y[0]))
        self.density.refresh(inputs, contexts)
        self.train(training)

    # --------------------------------------------------------------------------------------------- data to vectors

    def _extended(
        self, x: Tensor, context: Tensor | None, noise: Noise, num_samples: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """y, with further dimensions, ``(num_samples, batch, density_features)``, log |det ∂y/∂x| and the logarithm of
        all that was drawn with, both ``(num_samples, batch)``; one row of continuous data without an augmentation."""
        flat, log_q = x.flatten(1).double().unsqueeze(0), self.zero
        if self.dequantisation is not None:
            u, log_q = self.dequantisation.draw(x, context, noise, num_samples)
            flat = flat + u
        y, log_det = (value.to(self.dtype) for value in self.preprocess.inverse(flat))
        if self.augmentation is not None:
            e, log_q_e = self.augmentation.draw(y, context, noise, num_samples)
            y, log_q = torch.cat([y.expand(len(e), -1, -1), e], dim=-1), log_q + log_q_e
        return y, log_det, log_q.to(self.dtype)

    def _as_events(self, y: Tensor) -> Tensor:
        """Vectors in the shape of the density's events."""
        return y.unflatten(-1, self.density.event_shape)

    def _as_vectors(self, y: Tensor) -> Tensor:
        """What of the density's events is data, as vectors ``(..., D)``."""
        return y.flatten(-len(self.density.event_shape))[..., : self.dimension]

    def _middle(self, x: Tensor) -> Tensor:
        return x.flatten(1).double() + (0.0 if self.levels is None else 0.5)

    def _in_units_of_data(self, y: Tensor, floor: bool = True) -> Tensor:
        """Continuous data in float64, as they may lie far from zero."""
        if self.levels is None:
            return self.preprocess(y.double())[0].unflatten(-1, self.shape)
        x = self.preprocess(y)[0].unflatten(-1, self.shape)
        return floored(x, self.levels) if floor else x


class Flow(DensityModel):
    """Any bijection from a base density to the data: the place for your own.

    Args:
        flow: makes the bijection of D and the context's dimension; a ``Chain`` lists several.
        base: makes the density of z, of the same two numbers.
    """

    def __init__(
        self,
        flow: Callable[[int, int], Bijection],
        base: Callable[[int, int], Distribution] = StandardNormal,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.density = FlowDensity(self.density_features, self.context_features, flow, base)
