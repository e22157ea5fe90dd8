"""Latent spaces, and the questions about them that some models answer and others do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from vaeflow.noise import Noise

Map = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class LatentSpace:
    """One of the spaces in which a model's data have codes.

    Args:
        title: what a code is, in plain text for the title of a picture.
        encode: x ``(batch, *shape)`` and its context → codes ``(batch, code_features)``, without noise.
        decode: codes and their context → x, in the data's units.
        slices: the levels of a code, by name.
        straight: the levels that hold no noise, such as an encoder's features: a path through them is a straight line.
    """

    title: str
    encode: Map
    decode: Map
    slices: dict[str, slice]
    straight: tuple[str, ...] = ()


class HasCodes(Protocol):
    """A model whose data have codes."""

    code_features: int
    latent_spaces: dict[str, LatentSpace]

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Where does x live? ``(batch, *shape)`` → ``(batch, code_features)``, without noise."""

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """What lives at z? ``(batch, code_features)`` → ``(batch, *shape)``, in the data's units."""

    def icdf(self, u: Tensor) -> Tensor:
        """Points of the unit cube ``(batch, code_features)`` → codes: uniform points become codes of the prior."""


class HasLayers(Protocol):
    """A model with layers that lead from noise to data."""

    def trajectory(self, z: Tensor, context: Tensor | None = None) -> Iterator[Tensor]:
        """Codes ``(batch, code_features)`` on their way to data, layer by layer, each value ``(batch, *shape)`` and in
        the data's units: first the code as if it were data, last what decoding gives before flooring."""


class HasPosterior(Protocol):
    """A model with a latent variable z, q(z|x) and p(x|z)."""

    def posterior_of(self, x: Tensor, context: Tensor | None = None) -> Any:
        """q(z|x) for each example of a batch ``(batch, *shape)``, a :class:`~vaeflow.distributions.base.Given`."""

    def log_joint(self, x: Tensor, z: Tensor, noise: Noise, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """log p(x|z) and log p(z), both ``(num_samples, batch)`` in nats, of z ``(num_samples, batch, D)``."""


def has_codes(model: Any) -> bool:
    """Whether a model's data have codes; those of a mixture's density, say, have none."""
    return bool(getattr(model, "latent_slices", None))
