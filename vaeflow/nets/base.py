"""What a latent-variable model asks of its two nets. Your own are subclasses, named in a config like these."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """x and its context → features, of which a posterior is made.

    A subclass takes the data's ``shape`` and ``context_features`` as its first two constructor arguments.
    """

    features: int
    """Size of the result."""

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(batch, *shape)``, centred, and ``(batch, context_features)`` → ``(batch, features)``."""


class Decoder(nn.Module, ABC):
    """z → parameters of p(x|z).

    A subclass takes ``features``, the dimension of z (with labels, where there are any, appended to it), and the
    output's ``shape`` as its first two constructor arguments.
    """

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """``(..., batch, features)`` → ``(..., batch, *shape)``."""

    @property
    def output_bias(self) -> Tensor | None:
        """What is added to the output and broadcasts to ``shape``, for a start that depends on the data; None if
        there is no such thing."""
        return None
