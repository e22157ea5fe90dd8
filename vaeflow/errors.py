"""The one error that users are meant to read, and the shape check that raises it most often."""

from __future__ import annotations

from torch import Tensor


class VaeflowError(Exception):
    """Something the user can mend: one sentence with what was found, what was expected and what to do."""


def check_shape(name: str, tensor: Tensor, *event: int) -> None:
    """Raise a :class:`VaeflowError` unless ``tensor`` is ``(..., batch, *event)``.

    >>> import torch
    >>> check_shape("z", torch.zeros(5, 2), 3)
    Traceback (most recent call last):
    ...
    vaeflow.errors.VaeflowError: z has shape (5, 2), expected (..., batch, 3).
    """
    if tensor.dim() <= len(event) or tensor.shape[tensor.dim() - len(event) :] != event:
        expected = ", ".join(["...", "batch", *map(str, event)])
        raise VaeflowError(f"{name} has shape {tuple(tensor.shape)}, expected ({expected}).")
