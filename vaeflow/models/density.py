"""What the models with an exact likelihood share: one density of the data, once they are on the line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vaeflow.bijections import Bijection, Logit, Standardise
from vaeflow.distributions import CodedDistribution, Distribution, FlowDensity, StandardNormal
from vaeflow.distributions.base import full_precision
from vaeflow.errors import NoAnswer, VaeflowError
from vaeflow.estimate import Draw, LogWeights, Terms
from vaeflow.functional import floored
from vaeflow.models.coded import CodedModel
from vaeflow.noise import Noise


class DensityModel(CodedModel):
    """log p(x) = log p(y) + log |det ∂y/∂x| of continuous data x, y being x pre-processed.

    For integers it is

        log P(x) = log ∫ p(x + u) du ≥ E_u log p(x + u),    u uniform on (0, 1)^D,

    so that nll is of the data as the user gave them, whatever the pre-processing. Evaluated with one u for each
    example it is the mean of the bound on the right, as papers report it; with K of them log (1/K) Σ_k p(x + u_k),
    which is tighter. Training draws u anew for each example in each epoch.

    A subclass sets ``density``, of vectors of all D dimensions of the data.

    Args:
        preprocess: makes the map to y of D and of L (0 for continuous data): by default the model's own for integers,
            standardisation for continuous data.
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
        noise_once: bool = False,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.Adam,
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(shape, levels, num_classes, class_conditional, optimizer, lr_scheduler, seed)
        self.noise_once = noise_once
        self.kind = "exact" if levels is None else "dequantised"
        self.combining = "exact" if levels is None else "log_mean_exp"
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
                y, log_det = self._preprocessed(x, noise, num_samples)
                return Terms(self.density.log_prob(y, context) + log_det, reported={"log_det": log_det})

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
        return self._in_units_of_data(self.density.sample(1, context, noise, temperature)[0])

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """z = f⁻¹(x), ``(batch, *shape)`` → ``(batch, D)``. An integer x stands for the middle of its cell, x + ½, and
        the derivative by x is that by a real number there."""
        x, context = self._checked_given(x, context)
        y, _ = self.preprocess.inverse(self._middle(x))
        return self._coded().encode(y.to(self.dtype), context)

    def decode(self, z: Tensor, context: Tensor | None = None, floor: bool = True) -> Tensor:
        """x = f(z), ``(batch, D)`` → ``(batch, *shape)`` in the data's units.

        Args:
            floor: for integer data, return the integer in whose cell the value lies instead of the value. Integers
                have no derivative: asking for one raises a :class:`VaeflowError`, so pass False to differentiate.
        """
        z = self._checked_code(z, self.dimension)
        context = self._checked_context_of(z, context)
        return self._in_units_of_data(self._coded().decode(z, context), floor)

    def trajectory(self, z: Tensor, context: Tensor | None = None) -> Iterator[Tensor]:
        z = self._checked_code(z, self.dimension)
        context = self._checked_context_of(z, context)
        for y in self._coded().trajectory(z, context):
            yield self._in_units_of_data(y, floor=False)

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
            inputs.append(self._preprocessed(self._checked(x.to(self.device)), noise, 1)[0][0])
            contexts.append(self.context_of(y.to(self.device)))
        self.density.refresh(inputs, contexts)
        self.train(training)

    # --------------------------------------------------------------------------------------------- data to vectors

    def _preprocessed(self, x: Tensor, noise: Noise, num_samples: int) -> tuple[Tensor, Tensor]:
        """y ``(num_samples, batch, D)`` and log |det ∂y/∂x| ``(num_samples, batch)``; one row of continuous data."""
        flat = x.flatten(1).double().unsqueeze(0)
        if self.levels is not None:
            flat = flat + noise.uniform("dequantisation", num_samples, (self.dimension,))
        y, log_det = self.preprocess.inverse(flat)
        return y.to(self.dtype), log_det.to(self.dtype)

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
        self.density = FlowDensity(self.dimension, self.context_features, flow, base)
