"""What a latent space is to whoever walks through it: the way there, the way back, and the levels of a code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

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
