"""The one error that users are meant to read, and the checks of shapes that raise it most often."""

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


def check_context(context: Tensor | None, context_features: int) -> None:
    """Raise a :class:`VaeflowError` unless ``context`` is ``(..., batch, context_features)``, or None for 0."""
    if context is None and context_features:
        raise VaeflowError(f"this is conditioned on a context of {context_features} features, but got none.")
    if context is not None:
        if not context_features:
            raise VaeflowError(f"this takes no context, but got one of shape {tuple(context.shape)}.")
        check_shape("context", context, context_features)


def check_positive(**sizes: int) -> None:
    """Raise a :class:`VaeflowError` unless every size is at least 1.

    >>> check_positive(steps=0)
    Traceback (most recent call last):
    ...
    vaeflow.errors.VaeflowError: steps is 0, expected at least 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise VaeflowError(f"{name} is {size}, expected at least 1.")
