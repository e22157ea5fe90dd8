"""What latent-variable models share: all that follows from inferring, weighing and generating groups of latents."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vaeflow.distributions import PathWeights
from vaeflow.distributions.base import check_temperature
from vaeflow.errors import VaeflowError, check_tensor
from vaeflow.estimate import LogWeights, Means, Terms
from vaeflow.models.coded import CodedModel
from vaeflow.noise import Noise
from vaeflow.objectives import ELBO, Objective


class LatentVariableModel(CodedModel):
    """p(x) = ∫ p(x|z) p(z) dz with latents z in named groups, each with a prior and an approximate posterior.

    A subclass calls :meth:`declare_groups`, and implements three methods, of which training, evaluation, samples,
    codes and interpolation are made:

    * :meth:`infer`, what depends on x alone;
    * :meth:`terms`, draws of all groups from the posterior, weighed;
    * :meth:`generate`, the same walk without x, any groups given.

    Args:
        shape, levels, num_classes, class_conditional, optimizer, lr_scheduler, seed: as of every model.
        objective: makes what it is trained by.
    """

    kind = "importance-sampled"
    combining = "log_mean_exp"
    evaluation_samples = 1000
    takes_path_weights = False
    """Whether :meth:`terms` has an argument ``path_weights``, for objectives that change the gradient through draws."""
    epochs_done: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int | None = None,
        num_classes: int = 0,
        class_conditional: bool = False,
        objective: Callable[[], Objective] = ELBO,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.Adam,
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        seed: int = 0,
    ) -> None:
        self.logged: tuple[str, ...] = ()
        super().__init__(shape, levels, num_classes, class_conditional, optimizer, lr_scheduler, seed)
        self.objective = objective()
        if self.objective.uses_path_weights and not self.takes_path_weights:
            raise VaeflowError(
                f"the doubly reparameterised gradient is not defined for {type(self).__name__}: leave it out of "
                "model.objective."
            )
        self.objective_name = self.objective.title
        self.register_buffer("epochs_done", torch.zeros(()), persistent=False)
        self.reported = ("elbo", "kl", "reconstruction")
        self.event_shapes: dict[str, tuple[int, ...]] = {}

    def declare_groups(self, event_shapes: Mapping[str, Iterable[int]]) -> None:
        """Name the groups of latents in the order in which generation draws them, with the shape of each one's z."""
        self.event_shapes = {name: tuple(shape) for name, shape in event_shapes.items()}
        several = tuple(f"kl/{name}" for name in self.event_shapes) if len(self.event_shapes) > 1 else ()
        self.reported, self.logged = (*self.reported, *several), (*self.objective.logged, *several)
        self.train_means, self.val_means = Means(self.logged), Means(self.logged)

    # ------------------------------------------------------------------------------------- what a subclass implements

    @abstractmethod
    def infer(self, x: Tensor, context: Tensor | None) -> Any:
        """All that depends on x ``(batch, *shape)`` and its context alone, once, however many draws follow."""

    @abstractmethod
    def terms(self, inferred: Any, noise: Noise, num_samples: int) -> Terms:
        """Draws z ~ q(z|x) of each group, what p(x|z) says of x, and log q and log p of the draws.

        Args:
            inferred: what :meth:`infer` gave.
            noise: with the examples' indices.
            num_samples: K.
        """

    @abstractmethod
    def generate(
        self,
        noise: Noise,
        context: Tensor | None,
        given: Mapping[str, Tensor],
        temperature: float = 1.0,
        mean: bool = False,
    ) -> Tensor:
        """x ``(batch, *shape)`` in the data's units, from z ~ p(z), group by group.

        Args:
            noise: with the examples' indices.
            given: groups that are not drawn but taken from here, ``(batch, *event_shape)`` by name.
            temperature: multiplies the standard deviation of the groups that are drawn.
            mean: the mean of p(x|z) instead of a draw from it.
        """

    # -------------------------------------------------------------------------------------------- what follows from it

    def code_of(self, inferred: Any, noise: Noise, temperature: float) -> Tensor:
        """A code of each example, ``(batch, code_features)``, all groups one after the other: a draw from q(z|x) whose
        noise has its standard deviation multiplied by the temperature, at 0 the middle of it."""
        groups = self.terms(inferred, noise.cooled(check_temperature(temperature)), 1).groups
        return torch.cat([group.z[0].flatten(1) for group in groups.values()], dim=-1)

    def losses(self, x: Tensor, noise: Noise, context: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        if not self.event_shapes:
            raise VaeflowError(f"{type(self).__name__} names no groups of latents: call declare_groups in __init__.")
        x, context = self._checked_given(x, context)
        noise = self._checked_noise(noise, len(x), x.device)
        inference = Inference(self, self.infer(x, context), len(x))
        loss, values = self.objective(inference.draw, noise, self.training, self.epochs_done)
        return loss, {name: values[name] for name in self.logged}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # an epoch ends with a step, whatever is left
        steps_per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        self.epochs_done.fill_(self.global_step / steps_per_epoch)

    def draws_of(self, x: Tensor, context: Tensor | None = None) -> Inference:
        x, context = self._checked_given(x, context)
        return Inference(self, self.infer(x, context), len(x))

    def log_weights_of(self, x: Tensor, context: Tensor | None = None) -> LogWeights:
        draw = self.draws_of(x, context)
        return lambda noise, num_samples: draw(noise, num_samples).log_weights

    @torch.no_grad()
    def sample(
        self,
        n: int,
        noise: Noise,
        context: Tensor | None = None,
        temperature: float = 1.0,
        mean: bool = False,
        given: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """What does it imagine? ``(n, *shape)``, in the data's units; some groups of latents may be given, ``(n,
        *event_shape)`` by name, and the others are drawn. The further arguments are those of every model."""
        noise, context = self._checked_draw(n, noise, context)
        given = dict(given or {})
        for name, z in given.items():
            if name not in self.event_shapes:
                raise VaeflowError(f"there is no group {name!r} of latents: there are {', '.join(self.event_shapes)}.")
            check_tensor(name, z)
            if z.shape != (n, *self.event_shapes[name]):
                expected = (n, *self.event_shapes[name])
                raise VaeflowError(f"the group {name!r} is given as {tuple(z.shape)}, expected {expected}.")
            given[name] = self._checked_numbers(name, z)
        return self.generate(noise, context, given, temperature, mean)

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.draws_of(x, context).codes()

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        z = self._checked_code(z, self.code_features)
        context = self._checked_context_of(z, context)
        return self._decoded(z, context)

    def _decoded(self, z: Tensor, context: Tensor | None) -> Tensor:
        """:meth:`decode` of codes ``(..., batch, code_features)`` and the context of each, or of the batch."""
        if context is not None:
            context = context.expand(*z.shape[:-1], -1).flatten(0, -2)
        rows = z.flatten(0, -2)
        given = {
            name: rows[:, level].unflatten(-1, self.event_shapes[name]) for name, level in self.latent_slices.items()
        }
        x = self.generate(Noise().at(torch.arange(len(rows), device=z.device)), context, given, mean=True)
        return x.unflatten(0, z.shape[:-1])

    def reconstruct(self, x: Tensor, noise: Noise, context: Tensor | None = None, temperature: float = 0.0) -> Tensor:
        noise = self._checked_noise(noise, len(x), self.device)
        return self.decode(self.draws_of(x, context).codes(noise, temperature), context)

    @property
    def latent_slices(self) -> dict[str, slice]:
        slices, start = {}, 0
        for name, shape in self.event_shapes.items():
            slices[name] = slice(start, start := start + math.prod(shape))
        return slices


@dataclass(frozen=True)
class Inference:
    """The draws of a batch, and its codes, all of one pass of :meth:`LatentVariableModel.infer`.

    Args:
        model: whose :meth:`~LatentVariableModel.terms` they are.
        inferred: what it inferred from x.
        batch: how many examples there are.
    """

    model: LatentVariableModel
    inferred: Any
    batch: int

    def __call__(self, noise: Noise, num_samples: int) -> Terms:
        noise = self.model._checked_noise(noise, self.batch, self.model.device)
        return self.model.terms(self.inferred, noise, num_samples)

    def draw(self, noise: Noise, num_samples: int, path_weights: PathWeights | None = None) -> Terms:
        """For objectives."""
        further: dict[str, Any] = {} if path_weights is None else {"path_weights": path_weights}
        return self.model.terms(self.inferred, noise, num_samples, **further)

    def codes(self, noise: Noise | None = None, temperature: float = 0.0) -> Tensor:
        """See :meth:`LatentVariableModel.code_of`; by default the middle of q(z|x)."""
        noise = self.model._checked_noise(noise or Noise(), self.batch, self.model.device)
        return self.model.code_of(self.inferred, noise, temperature)
