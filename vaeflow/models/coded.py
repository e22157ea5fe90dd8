"""Models whose data have codes: where does x live, and what lives at z."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from vaeflow.errors import NoAnswer, VaeflowError, check_shape, check_tensor
from vaeflow.latents import LatentSpace
from vaeflow.models.base import LikelihoodModel
from vaeflow.noise import Noise
from vaeflow.tracing import unwrapped


class CodedModel(LikelihoodModel):
    """A model that answers two more questions: where does x live, and what lives at z. See
    :class:`~vaeflow.latents.HasCodes`.

    A subclass implements :meth:`encode`, :meth:`decode` and :attr:`latent_slices`, beside what every model does.
    """

    @abstractmethod
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Where does x live? A code ``(batch, code_features)``, without noise. Differentiable: call it within
        ``torch.no_grad()`` where no gradient is wanted."""

    @abstractmethod
    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """What lives at z? ``(batch, code_features)`` → ``(batch, *shape)``, in the data's units. Differentiable, as
        :meth:`encode` is."""

    @property
    @abstractmethod
    def latent_slices(self) -> dict[str, slice]:
        """The levels of a code, by name; empty for a model without a latent space."""

    @property
    def code_features(self) -> int:
        """The dimension of a code, 0 for a model without a latent space."""
        return max((level.stop for level in self.latent_slices.values()), default=0)

    @property
    def latent_spaces(self) -> dict[str, LatentSpace]:
        """The spaces that the data have codes in, by name: ``z``, that of :meth:`encode`, and others."""
        return {"z": LatentSpace("z", self.encode, self.decode, self.latent_slices)} if self.latent_slices else {}

    def icdf(self, u: Tensor) -> Tensor:
        """Points of the unit cube ``(batch, code_features)`` → codes: uniform points become codes of the prior."""
        raise NoAnswer(f"{type(self).__name__} has no latent space with a cumulative distribution.")

    def reconstruct(self, x: Tensor, noise: Noise, context: Tensor | None = None, temperature: float = 0.0) -> Tensor:
        """x ``(batch, *shape)`` once more, from a code: that of :meth:`encode` at temperature 0, else a draw from
        q(z|x) whose noise has its standard deviation multiplied by the temperature. A model whose code is a function
        of x has no such draws, and raises a :class:`VaeflowError` at other temperatures."""
        if temperature:
            raise VaeflowError(
                f"{type(self).__name__} draws no codes, they are functions of x: leave temperature at 0."
            )
        return self.decode(self.encode(x, context), context)

    def _checked_code(self, z: Tensor, features: int) -> Tensor:
        """Finite codes ``(..., batch, features)`` in the model's number type."""
        check_shape("z", z, features)
        return self._checked_numbers("z", z)

    def _checked_cube(self, u: Tensor) -> Tensor:
        """Points ``(..., code_features)`` strictly inside the unit cube; of any type, as float32 has few near 1."""
        check_tensor("u", u)
        if self.code_features:  # else there is something else to say
            if u.shape[-1:] != (self.code_features,):
                raise VaeflowError(f"u has shape {tuple(u.shape)}, expected (..., {self.code_features}).")
            if u.numel() and u.device.type == "cpu" and self._can_look_at(u):
                low, high = (bound.item() for bound in unwrapped(u).aminmax())
                if not (low > 0 and high < 1):
                    raise VaeflowError(f"u has values from {low:g} to {high:g}, expected some between 0 and 1.")
        return u if u.dtype in (torch.float32, torch.float64) else u.to(self.dtype)
