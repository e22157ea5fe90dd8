"""What all models share: how likely is x, what does it imagine, and what follows from the answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vaeflow.errors import (
    NoAnswer,
    VaeflowError,
    check_context,
    check_finite,
    check_positive,
    check_tensor,
    check_values,
    is_integer,
)
from vaeflow.estimate import Combining, Draw, LogWeights, Terms, combined, log_likelihood, rows_within
from vaeflow.models.training import TrainedModel
from vaeflow.noise import Noise
from vaeflow.records.checkpoint import describe
from vaeflow.tracing import is_eager, unwrapped

UNANSWERED = {
    **dict.fromkeys(
        ("encode", "decode", "reconstruct", "icdf", "latent_slices", "latent_spaces", "code_features"),
        "has no codes: its data are no function of one latent vector",
    ),
    "trajectory": "has no layers that lead from noise to data",
    "posterior_of": "has no approximate posterior",
    "log_joint": "has no latent variable that is not a function of x",
}
"""The questions to which some models have no answer, and what is said then."""


class LikelihoodModel(TrainedModel):
    """A model that answers two questions: how likely is x, and what does it imagine.

    A subclass implements :meth:`log_weights_of`, :meth:`sample` and :meth:`losses`. One that also knows where x lives
    and what lives at z is a :class:`~vaeflow.models.coded.CodedModel`. The further questions of :mod:`vaeflow.latents`
    are answered by methods of their names; a model without one raises a :class:`~vaeflow.errors.NoAnswer`.

    Args:
        shape: of one example; comes from the data.
        levels: L of integer data 0 … L − 1, None of continuous data; comes from the data.
        num_classes: number of labels, 0 for none; comes from the data.
        class_conditional: model p(x|y) instead of p(x); the context is the one-hot label.
        optimizer: makes the optimizer of the parameters.
        lr_scheduler: makes the schedule of the learning rate, stepped every batch, of the optimizer and of the number
            of training steps (so a class whose second argument is T_max or total_iters).
        seed: of the training noise; comes from seed_everything.
    """

    kind: str
    """How its nll is computed: exact, dequantised, importance-sampled, elbo, unbiased or reverse-kl."""
    combining: Combining
    """How the log-weights of several draws become one estimate; see :data:`~vaeflow.estimate.Combining`."""
    objective_name: str
    evaluation_samples: int
    """How many samples of noise evaluation draws for each example where nobody says."""
    reported: tuple[str, ...] = ()
    """The further terms that its draws have, see :attr:`~vaeflow.estimate.Terms.means`, which evaluation averages."""

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int | None = None,
        num_classes: int = 0,
        class_conditional: bool = False,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.Adam,
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(shape, levels, optimizer, lr_scheduler, seed)
        self.save_hyperparameters(logger=False)
        for key in ("_instantiator", "_class_path"):  # Lightning's own way of rebuilding calls what a file names
            self.hparams.pop(key, None)
        self.hparams.update({name: describe(value) for name, value in self.hparams.items()})
        if class_conditional and not num_classes:
            raise VaeflowError("class_conditional needs labels, but the data have none.")
        self.num_classes = num_classes
        self.context_features = num_classes if class_conditional else 0

    def __getattr__(self, name: str) -> Any:
        if name in UNANSWERED:
            raise NoAnswer(f"{type(self).__name__} {UNANSWERED[name]}.")
        return super().__getattr__(name)

    # ------------------------------------------------------------------------------------------------ the questions

    def log_weights(self, x: Tensor, noise: Noise, num_samples: int, context: Tensor | None = None) -> Tensor:
        """How likely is x? Log-weights ``(num_samples, batch)`` in nats, differentiable; log p(x) is bounded from below
        by the logarithm of the mean of their exponentials.

        Args:
            x: ``(batch, *shape)``, as the user gave it.
            noise: with the examples' indices; with none they are 0 … batch − 1.
            context: ``(batch, context_features)``; :meth:`context_of` makes it of labels.
        """
        check_positive(num_samples=num_samples)
        num_samples = int(num_samples)
        log_weights = self.log_weights_of(x, context)
        return log_weights(self._checked_noise(noise, len(x), x.device).watched(), num_samples)

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, num_samples: int | None = None, noise: Noise | None = None
    ) -> Tensor:
        """log p(x) ``(batch,)`` in nats.

        Where x or the context requires a gradient, or inside a transform of torch.func, the result is differentiable
        and all K samples are in memory at once. Otherwise it is computed in chunks and has no gradient: to train,
        differentiate :meth:`log_weights`.

        Exact where the likelihood is. Else an estimate, mostly a bound from below in expectation, log (1/K) Σ_k w_k,
        with w the log-weights' exponentials.

        Args:
            x: ``(batch, *shape)``, as the user gave it.
            context: ``(batch, context_features)``; :meth:`context_of` makes it of labels.
            num_samples: K; by default as many as evaluation draws.
            noise: with the examples' indices; by default they are 0 … batch − 1.
        """
        x, context = self._checked_given(x, context)
        num_samples = self.evaluation_samples if num_samples is None else num_samples
        check_positive(num_samples=num_samples)
        num_samples = 1 if self.combining == "exact" else int(num_samples)
        noise = self._checked_noise(Noise() if noise is None else noise, len(x), x.device)
        training = self.training
        self.eval()  # batch normalisation is that of the training set
        try:
            inputs = [x] if context is None else [x, context]
            if not is_eager() or (torch.is_grad_enabled() and any(value.requires_grad for value in inputs)):
                return combined(self.log_weights_of(x, context)(noise, num_samples).double(), self.combining)
            rows = rows_within(256.0, self, x, noise, context)
            return log_likelihood(self, x, noise, num_samples, context, rows).log_likelihood
        finally:
            self.train(training)

    @abstractmethod
    def log_weights_of(self, x: Tensor, context: Tensor | None = None) -> LogWeights:
        """The function (noise, num_samples) → log-weights of x. All that depends on x alone is done here, once,
        however many samples are drawn and in however many chunks."""

    def draws_of(self, x: Tensor, context: Tensor | None = None) -> Draw:
        """The function (noise, num_samples) → terms of x: log-weights, and what evaluation reports beside them."""
        log_weights = self.log_weights_of(x, context)
        return lambda noise, num_samples: Terms(log_weights(noise, num_samples))

    @abstractmethod
    def sample(
        self, n: int, noise: Noise, context: Tensor | None = None, temperature: float = 1.0, mean: bool = False
    ) -> Tensor:
        """What does it imagine? ``(n, *shape)``, in the data's units. Draws have no gradient.

        Args:
            noise: with n indices, or with none for 0 … n − 1.
            context: ``(n, context_features)``; :meth:`context_of` makes it of labels.
            temperature: multiplies the standard deviation of the base.
            mean: the mean of p(x|z) instead of a draw from it.
        """

    def _checked_draw(self, n: int, noise: Noise, context: Tensor | None) -> tuple[Noise, Tensor | None]:
        """The noise of n samples, and their context."""
        if not is_integer(n) or n < 0:
            raise VaeflowError(f"n is {n!r}, expected an integer of 0 or more.")
        return self._checked_noise(noise, n, self.device).watched(), self._checked_context(context, n)

    def _checked_noise(self, noise: Noise, batch: int, device: torch.device) -> Noise:
        """A source of noise for so many examples on a device; with no indices, they are 0 … batch − 1."""
        if not isinstance(noise, Noise):
            raise VaeflowError(f"noise is {noise!r}, expected a source of it, such as vaeflow.Noise(seed=1).")
        if noise.index is None:
            return noise.at(torch.arange(batch, device=device))
        if len(noise.index) != batch:
            raise VaeflowError(f"noise has {len(noise.index)} indices, expected {batch}, one for each example.")
        return noise

    def _checked_context(self, context: Tensor | None, batch: int) -> Tensor | None:
        """A context ``(batch, context_features)`` in the model's number type, None for a model that has none."""
        check_context(context, self.context_features)
        if context is not None and context.shape[:-1] != (batch,):
            self._refuse_context(context, batch)
        return None if context is None else self._checked_numbers("context", context)

    def _checked_context_of(self, z: Tensor, context: Tensor | None) -> Tensor | None:
        """A context of codes ``(..., batch, D)``: a row for each of the batch, for each code, or one for all."""
        check_context(context, self.context_features)
        if context is None:
            return None
        if context.shape[:-1] == (1,):
            context = context.expand(z.shape[-2], -1)
        if context.shape[:-1] not in (z.shape[:-1], z.shape[-2:-1]):
            self._refuse_context(context, z.shape[-2])
        return self._checked_numbers("context", context)

    def _refuse_context(self, context: Tensor, batch: int) -> NoReturn:
        raise VaeflowError(
            f"context has shape {tuple(context.shape)}, expected ({batch}, {self.context_features}), a row for each "
            "example."
        )

    def _checked_numbers(self, name: str, value: Tensor) -> Tensor:
        """Finite numbers ``(..., features)`` in the model's number type; on a GPU, which would wait for it, nothing is
        looked at."""
        value = value.to(self.dtype)
        if value.device.type == "cpu" and self._can_look_at(value):
            check_finite(name, unwrapped(value.flatten(0, -2)))
        return value

    def _checked_given(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Data that the model can be of, and their context."""
        x = self._checked(x)
        return x, self._checked_context(context, len(x))

    def context_of(self, y: Tensor) -> Tensor | None:
        """Labels ``(batch,)`` → the context ``(batch, context_features)``, None for a model that has none."""
        if not self.context_features:
            return None
        check_tensor("y", y)
        if y.dim() != 1:
            raise VaeflowError(f"y has shape {tuple(y.shape)}, expected labels (batch,).")
        if self._can_look_at(y):
            check_values("y", unwrapped(y), self.num_classes)
        return nn.functional.one_hot(y.long(), self.num_classes).to(self.dtype)

    @property
    def description(self) -> dict[str, Any]:
        """Class and arguments in plain words, from which a checkpoint's model is built again."""
        return {**describe(type(self)), "init_args": dict(self.hparams)}


def refuse_statistics(*parts: nn.Module) -> None:
    """Raise a :class:`VaeflowError` if a part needs statistics of training data, where there are none of its input."""
    for part in parts:
        for module in part.modules():
            if getattr(module, "takes_training_set", False):
                raise VaeflowError(
                    f"{type(module).__name__} takes statistics of a training set, and what passes through it here are "
                    "no data but latents: leave it out, or take ActNorm."
                )
