"""The one error that users are meant to read, and the checks of shapes and values that raise it most often."""

from __future__ import annotations

import math
import operator
import signal
from typing import Any

import torch
from torch import Tensor


class VaeflowError(Exception):
    """Something the user can mend: one sentence with what was found, what was expected and what to do."""


class NoAnswer(VaeflowError, AttributeError):
    """A model was asked what it has no answer to, such as for codes of data that have none. It is an AttributeError, so
    that ``hasattr`` works."""


class VaeflowWarning(UserWarning):
    """Something the user should know of that stops nothing: one sentence."""


class Stopped(KeyboardInterrupt):
    """A user, or a scheduler, asked for an end, and there is something to say about how to go on.

    Args:
        message: what is said.
        number: of the signal that asked.
    """

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.number = number


def check_shape(name: str, tensor: Tensor, *event: int) -> None:
    """Raise a :class:`VaeflowError` unless ``tensor`` is ``(..., batch, *event)``.

    >>> import torch
    >>> check_shape("z", torch.zeros(5, 2), 3)
    Traceback (most recent call last):
    ...
    vaeflow.errors.VaeflowError: z has shape (5, 2), expected (..., batch, 3).
    """
    check_tensor(name, tensor)
    if tensor.dim() <= len(event) or tensor.shape[tensor.dim() - len(event) :] != event:
        expected = ", ".join(["...", "batch", *map(str, event)])
        raise VaeflowError(f"{name} has shape {tuple(tensor.shape)}, expected ({expected}).")


def check_tensor(name: str, value: Any) -> None:
    """Raise a :class:`VaeflowError` unless ``value`` is a tensor of real numbers.

    >>> check_tensor("x", [1.0, 2.0])
    Traceback (most recent call last):
    ...
    vaeflow.errors.VaeflowError: x is of type list, expected a tensor: torch.as_tensor(x) makes one.
    """
    if not isinstance(value, Tensor):
        raise VaeflowError(
            f"{name} is of type {type(value).__name__}, expected a tensor: torch.as_tensor({name}) makes one."
        )
    if value.is_complex():
        raise VaeflowError(f"{name} holds complex numbers, expected real ones.")


def check_finite(name: str, x: Tensor, advice: str = "") -> None:
    """Raise a :class:`VaeflowError` that ends with the advice unless every value of ``x``, ``(batch, ...)``, is finite.

    >>> check_finite("z", torch.tensor([[0.0], [torch.nan]]))
    Traceback (most recent call last):
    ...
    vaeflow.errors.VaeflowError: example 1 of z holds NaN or infinity (1 of 2 examples do).
    """
    if not x.is_floating_point() or not x.numel():
        return
    if not all(math.isfinite(bound.item()) for bound in torch.aminmax(x)):  # NaN if there is one
        bad = (~torch.isfinite(x)).reshape(len(x), -1).any(1).nonzero().flatten().tolist()
        raise VaeflowError(
            f"example {bad[0]} of {name} holds NaN or infinity ({len(bad)} of {len(x):,} examples do){advice}."
        )


def check_values(name: str, x: Tensor, levels: int | None = None) -> None:
    """Raise a :class:`VaeflowError` unless every value of ``x``, ``(batch, ...)``, is finite and, of integer data, one
    of 0 ... levels − 1. The same check serves data modules, files and models.

    Args:
        name: of ``x`` in the error.
        levels: L of integer data, None of continuous data.

    >>> check_values("x", torch.tensor([[0.0, 2.5]]), levels=17)
    Traceback (most recent call last):
    ...
    vaeflow.errors.VaeflowError: x has the value 2.5, expected integers 0 to 16.
    """
    advice = "leave such examples or dimensions out; one number in place of all missing values would have no density"
    check_finite(name, x, f": {advice}")
    if levels is None or not x.numel():
        return
    if x.dtype in (torch.uint16, torch.uint32, torch.uint64):
        x = x.to(torch.int64)  # torch has no order of those
    low, high = (bound.item() for bound in torch.aminmax(x))
    fractions = x.is_floating_point() and not torch.equal(x, x.floor())
    if low < 0 or high >= levels:
        found = f"values from {low:g} to {high:g}{', fractions among them' if fractions else ''}"
    elif fractions:
        found = f"the value {x[x != x.floor()][0].item():g}"
    else:
        return
    raise VaeflowError(f"{name} has {found}, expected integers 0 to {levels - 1}.")


def check_context(context: Tensor | None, context_features: int) -> None:
    """Raise a :class:`VaeflowError` unless ``context`` is ``(..., batch, context_features)``, or None for 0."""
    if context is None and context_features:
        raise VaeflowError(f"this is conditioned on a context of {context_features} features, but got none.")
    if context is not None:
        check_tensor("context", context)
        if not context_features:
            raise VaeflowError(f"this takes no context, but got one of shape {tuple(context.shape)}.")
        check_shape("context", context, context_features)


def check_mapped(name: str, output: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """What a bijection returned, if it is the image of ``like`` and a log-determinant for each vector.

    >>> import torch
    >>> z = torch.zeros(5, 2)
    >>> check_mapped("Mine", (z, torch.zeros(5, 2)), z)
    Traceback (most recent call last):
    ...
    vaeflow.errors.VaeflowError: Mine returned (5, 2) and (5, 2) for vectors (5, 2), expected (5, 2) and log_det (5,).
    """
    expected = f"expected {tuple(like.shape)} and log_det {tuple(like.shape[:-1])}"
    if not isinstance(output, tuple) or not all(isinstance(part, Tensor) for part in output):
        parts = output if isinstance(output, tuple) else (output,)
        found = ", ".join(type(part).__name__ for part in parts)
        raise VaeflowError(f"{name} returned ({found}) for vectors {tuple(like.shape)}, {expected}.")
    shapes = [tuple(part.shape) for part in output]
    if shapes != [tuple(like.shape), tuple(like.shape[:-1])]:
        raise VaeflowError(
            f"{name} returned {' and '.join(map(str, shapes))} for vectors {tuple(like.shape)}, {expected}."
        )
    return output


def is_integer(value: object) -> bool:
    """Whether a value counts something: an int, or a scalar of numpy's or torch's."""
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def check_positive(**sizes: int) -> None:
    """Raise a :class:`VaeflowError` unless every size is an integer of at least 1.

    >>> check_positive(steps=0)
    Traceback (most recent call last):
    ...
    vaeflow.errors.VaeflowError: steps is 0, expected at least 1.
    """
    for name, size in sizes.items():
        if not is_integer(size):
            raise VaeflowError(f"{name} is {size!r}, expected an integer.")
        if size < 1:
            raise VaeflowError(f"{name} is {size}, expected at least 1.")
