"""What a bijection is here, and the ways of making one from others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vaeflow.errors import VaeflowError, check_context, check_positive, check_shape
from vaeflow.nets.conditioner import Conditioned, Context, lead_of


class Bijection(nn.Module, ABC):
    """An invertible map x = f(z) with a tractable Jacobian determinant.

    ``forward`` **generates**, z → x; ``inverse`` **normalises**, x → z. With it the change of variables reads

        log p(x) = log p(z) − log |det ∂f/∂z|,    z = f⁻¹(x).

    Both return the image and ``log_det`` = log |det| of the Jacobian *of the map just applied*, so that
    ``log_det`` of ``inverse`` is minus that of ``forward`` at the same pair of points.

    Vectors are ``(..., batch, features)`` and their ``log_det`` ``(..., batch)``: leading sample dimensions share the
    batch's context. The few maps of images take ``(batch, channels, height, width)``.

    A subclass implements ``forward`` and ``inverse``, and takes ``features`` and ``context_features`` as its first two
    constructor arguments, so that a config can name it.

    A subclass whose parameters are computed from the context puts that computation into :meth:`condition`, which is
    then run once per example, however many samples pass through the map.
    """

    takes_training_set: bool = False
    """Whether :meth:`refresh` sets statistics of the whole training set, before each evaluation."""

    @abstractmethod
    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """x = f(z) and log |det ∂x/∂z|."""

    @abstractmethod
    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """z = f⁻¹(x) and log |det ∂z/∂x|."""

    def condition(self, context: Context) -> Context:
        """All that the map needs of the context, computed once; ``forward`` and ``inverse`` take it for ``context``.

        Idempotent: what is conditioned already is returned as it is.
        """
        return context

    def trajectory(self, z: Tensor, context: Context = None) -> Iterator[Tensor]:
        """z and every intermediate value on its way to x = f(z), x included."""
        yield z
        yield self(z, context)[0]

    def refresh(self, x: list[Tensor], context: Sequence[Context]) -> list[Tensor]:
        """Set whatever is a statistic of the whole training set, and pass it on: x → z, batch by batch.

        A map that takes such statistics overrides it, as batch normalisation does. On several processes each brings its
        own batches. What starts from the first batch alone is :class:`~vaeflow.nets.initialisation.DataDependent`.
        """
        return [self.inverse(part, c)[0] for part, c in zip(x, context, strict=True)]


class Composition(Bijection):
    """f = f_K ∘ … ∘ f_1 of bijections that are there: generating applies them in the order given.

    Args:
        bijections: f_1, …, f_K. At least one.
    """

    def __init__(self, bijections: Iterable[Bijection]) -> None:
        super().__init__()
        self.bijections: Any = nn.ModuleList(bijections)

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(())
        for bijection, c in zip(self.bijections, self.condition(context).value, strict=True):
            z, log_det = bijection(z, c)
            total = total + log_det
        return z, total

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(())
        for bijection, c in reversed(list(zip(self.bijections, self.condition(context).value, strict=True))):
            x, log_det = bijection.inverse(x, c)
            total = total + log_det
        return x, total

    def condition(self, context: Context) -> Conditioned:
        if isinstance(context, Conditioned):
            return context
        return Conditioned(tuple(bijection.condition(context) for bijection in self.bijections), lead_of(context))

    def trajectory(self, z: Tensor, context: Context = None) -> Iterator[Tensor]:
        yield z
        for bijection, c in zip(self.bijections, self.condition(context).value, strict=True):
            _, *rest = bijection.trajectory(z, c)
            yield from rest
            z = rest[-1]

    def refresh(self, x: list[Tensor], context: Sequence[Context]) -> list[Tensor]:
        for bijection in reversed(self.bijections):
            x = bijection.refresh(x, context)
        return x


class Chain(Composition):
    """f = f_K ∘ … ∘ f_1 of bijections that a config lists: generating applies them in the order given.

    Args:
        features, context_features: as of any bijection.
        bijections: each makes one, of the same two numbers.

    >>> from vaeflow.bijections import Coupling, Reversal
    >>> flow = Chain(4, 0, [Coupling, Reversal, Coupling])
    >>> flow(torch.randn(5, 4))[0].shape
    torch.Size([5, 4])
    """

    def __init__(
        self, features: int, context_features: int, bijections: Sequence[Callable[[int, int], Bijection]]
    ) -> None:
        check_positive(**{"number of bijections": len(bijections)})
        super().__init__(make(features, context_features) for make in bijections)


class Inverse(Bijection):
    """The same map the other way round: ``Inverse(f).forward`` is ``f.inverse``.

    It makes the density of a map whose fast direction is the other one cheap: an inverse autoregressive map becomes
    a masked autoregressive one. A map that takes statistics of the whole training set, as
    batch normalisation does, is refused.

    Args:
        features, context_features: as of any bijection.
        bijection: makes the map to turn round.
    """

    def __init__(self, features: int, context_features: int, bijection: Callable[[int, int], Bijection]) -> None:
        super().__init__()
        self.bijection = bijection(features, context_features)
        for part in self.bijection.modules():
            if getattr(part, "takes_training_set", False):
                raise VaeflowError(
                    f"{type(part).__name__} takes statistics of a training set, and cannot be turned round."
                )

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(z, context)

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self.bijection(x, context)

    def condition(self, context: Context) -> Context:
        return self.bijection.condition(context)

    def trajectory(self, z: Tensor, context: Context = None) -> Iterator[Tensor]:
        if not isinstance(self.bijection, Composition):
            yield from super().trajectory(z, context)
            return
        yield z
        conditioned = zip(self.bijection.bijections, self.bijection.condition(context).value, strict=True)
        for bijection, c in reversed(list(conditioned)):
            z, _ = bijection.inverse(z, c)
            yield z


class Amortised(Bijection):
    """``steps`` maps of one family after each other, their parameters a linear function of the context.

    Without a context the parameters are learned directly. A subclass names the shapes of one step's parameters in
    :meth:`parameter_shapes`, gives their values at the start, makes of them in :meth:`prepare` what the maps need, and
    implements the map of one step in both directions.

    Args:
        features: D, the dimension of z.
        context_features: dimension of the context; 0 for a map that depends on nothing else.
        steps: K, how many maps are composed.
    """

    def __init__(self, features: int, context_features: int = 0, steps: int = 1) -> None:
        super().__init__()
        check_positive(features=features, steps=steps)
        self.features, self.context_features, self.steps = features, context_features, steps
        start = torch.cat(
            [self.initial(name, shape).flatten() for _ in range(steps) for name, shape in self.parameter_shapes.items()]
        )
        if context_features:
            self.amortise = nn.Linear(context_features, len(start))
            with torch.no_grad():
                self.amortise.weight.mul_(0.1)
                self.amortise.bias.copy_(start)
        else:
            self.parameters_of_steps = nn.Parameter(start)

    @property
    @abstractmethod
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each parameter of one step."""

    @abstractmethod
    def initial(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Value at the start of one step's parameter ``name``; random values come from torch's generator."""

    @abstractmethod
    def prepare(self, **parameters: Tensor) -> dict[str, Tensor]:
        """What the maps need of the parameters of all steps, each ``(batch, steps, *shape)``, or ``(steps, *shape)``
        without a context. It is computed once, however many samples are drawn; its values have the same leading
        dimensions."""

    @abstractmethod
    def step(self, z: Tensor, *args: Any, **prepared: Any) -> tuple[Tensor, Tensor]:
        """The map of one step, z → x, with what :meth:`prepare` made."""

    @abstractmethod
    def step_inverse(self, x: Tensor, *args: Any, **prepared: Any) -> tuple[Tensor, Tensor]:
        """The same map's inverse, x → z."""

    def condition(self, context: Context) -> Conditioned:
        if isinstance(context, Conditioned):
            return context
        check_context(context, self.context_features)
        flat = self.amortise(context) if self.context_features else self.parameters_of_steps
        shapes = self.parameter_shapes
        sizes = [int(torch.Size(shape).numel()) for shape in shapes.values()]
        parts = flat.unflatten(-1, (self.steps, -1)).split(sizes, dim=-1)
        parameters = zip(shapes.items(), parts, strict=True)
        prepared = self.prepare(**{name: part.unflatten(-1, shape) for (name, shape), part in parameters})
        return Conditioned(prepared, lead_of(context))

    def _of_steps(self, context: Context) -> list[dict[str, Tensor]]:
        """What :meth:`prepare` made, step by step."""
        prepared = self.condition(context).value
        steps = zip(*(value.unbind(1 if self.context_features else 0) for value in prepared.values()), strict=True)
        return [dict(zip(prepared, values, strict=True)) for values in steps]

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("z", z, self.features)
        total = z.new_zeros(())
        for prepared in self._of_steps(context):
            z, log_det = self.step(z, **prepared)
            total = total + log_det
        return z, total

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("x", x, self.features)
        total = x.new_zeros(())
        for prepared in reversed(self._of_steps(context)):
            x, log_det = self.step_inverse(x, **prepared)
            total = total + log_det
        return x, total

    def trajectory(self, z: Tensor, context: Context = None) -> Iterator[Tensor]:
        yield z
        for prepared in self._of_steps(context):
            z, _ = self.step(z, **prepared)
            yield z
