"""Data-dependent starts: modules that set themselves from the first batch that passes through them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vaeflow.errors import VaeflowError
from vaeflow.tracing import is_eager


class DataDependent(nn.Module):
    """A module whose parameters start from the first batch that it sees within :func:`initialising`.

    A subclass calls :meth:`see` on what passes through it, before anything else, and implements :meth:`start`. It
    takes ``started`` to checkpoints. Evaluating a module that has not started raises a :class:`VaeflowError`; training
    one is allowed, and begins from the parameters as they are.

    A class that is also a bijection or a distribution names this one first among its bases.
    """

    started: Tensor
    """Whether it has seen data, a buffer."""
    is_initialising = False
    """Whether it is within :func:`initialising`, which sets it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("started", torch.tensor(False))
        self._is_known_to_have_started = False  # a GPU would wait for each look at the buffer

    @abstractmethod
    def start(self, x: Tensor) -> None:
        """Set the parameters from the first batch, without a gradient; leading dimensions are of samples."""

    def see(self, x: Tensor) -> bool:
        """Start from x within :func:`initialising`, unless started already; refuse to evaluate before that.

        Returns whether this was the start."""
        if self.is_initialising and not self.started:
            self.start(x.detach())
            self.started.fill_(True)
            return True
        if not self.training:
            self.require_started()
        return False

    def require_started(self) -> None:
        """Raise a :class:`VaeflowError` before the start, where values can be looked at."""
        if self._is_known_to_have_started or not is_eager():
            return
        if not self.started:
            raise VaeflowError(
                f"{type(self).__name__} starts from training data, and has seen none: train the model with a Trainer; "
                "or, before training, call model.initialise(data) with a data module, or compute the loss of the first "
                "batch within `vaeflow.initialising(model)`."
            )
        self._is_known_to_have_started = self.started.device.type != "cpu"


@contextmanager
def initialising(model: nn.Module) -> Iterator[None]:
    """Within it, every data-dependent module below ``model`` that has not started yet starts from what passes through
    it first, in either direction, as if in evaluation and without a gradient.

    >>> from vaeflow.bijections import ActNorm
    >>> flow = ActNorm(3)
    >>> with initialising(flow):
    ...     z, _ = flow.inverse(5 + 2 * torch.randn(100, 3))
    >>> bool(z.mean().abs() < 1e-6), bool(flow.started)
    (True, True)
    """
    modules = list(model.modules())
    training = [module.training for module in modules]
    parts = [module for module in modules if isinstance(module, DataDependent)]
    model.eval()
    for part in parts:
        part.is_initialising = True
    try:
        with torch.no_grad():
            yield
    finally:
        for part in parts:
            part.is_initialising = False
        for module, was_training in zip(modules, training, strict=True):
            module.training = was_training
