"""Whatever goes through a model for a picture goes through it in batches."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from vaeflow.latents import LatentSpace


@torch.no_grad()
def streamed(
    function: Callable[..., Tensor], *inputs: Tensor | None, device: torch.device, rows: int = 256, what: str = ""
) -> Tensor:
    """What a function makes of inputs that share their first dimension, a batch of ``rows`` at a time: one batch is on
    the device, the results are gathered on the CPU.

    Args:
        function: of one batch of each input, None for an input that is None.
        what: is under way, for the bar.
    """
    size = next(len(part) for part in inputs if part is not None)
    done = []
    with progress(size, what) as bar:
        for index in torch.arange(size).split(rows):
            done.append(function(*(None if part is None else part[index].to(device) for part in inputs)).cpu())
            bar.update(len(index))
    return torch.cat(done)


def encoded(model: Any, space: LatentSpace, x: Tensor, y: Tensor, rows: int = 256) -> Tensor:
    """Examples ``(n, *shape)`` with labels ``(n,)`` → their codes ``(n, code_features)``, streamed."""

    def encode(x: Tensor, y: Tensor) -> Tensor:
        return space.encode(x, model.context_of(y))

    return streamed(encode, x, y, device=model.device, rows=rows, what="encoding")


def decoded(model: Any, space: LatentSpace, codes: Tensor, y: Tensor, rows: int = 256) -> Tensor:
    """Codes ``(n, code_features)`` with labels ``(n,)`` → what lies there, ``(n, *shape)``, streamed."""

    def decode(codes: Tensor, y: Tensor) -> Tensor:
        return space.decode(codes, model.context_of(y))

    return streamed(decode, codes, y, device=model.device, rows=rows, what="decoding")


@contextmanager
def progress(total: int, what: str) -> Iterator[tqdm]:
    """A bar on stderr once the work takes two seconds, whose clock goes on within a batch: a sample of an
    autoregressive flow takes as many steps as it has dimensions. A log file gets a line every ten seconds."""
    first, interval = (2.0, 1.0) if sys.stderr.isatty() else (10.0, 10.0)
    done = Event()

    def beat() -> None:
        wait = first
        while not done.wait(wait):
            bar.refresh()
            wait = interval

    with tqdm(total=total, desc=what, delay=first, leave=False, dynamic_ncols=True, mininterval=math.inf) as bar:
        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield bar
        finally:
            done.set()
            thread.join()
