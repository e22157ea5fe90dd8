"""Whatever goes through a model for a picture goes through it in batches."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm


@torch.no_grad()
def streamed(
    function: Callable[..., Tensor], *inputs: Tensor | None, device: torch.device, rows: int = 256, what: str = ""
) -> Tensor:
    """What a function makes of inputs that share their first dimension, a batch of ``rows`` at a time: one batch is on
    the device, the results are gathered on the CPU. After two seconds there is a progress bar on stderr.

    Args:
        function: of one batch of each input, None for an input that is None.
        what: is under way, for the bar.
    """
    size = next(len(part) for part in inputs if part is not None)
    done = []
    for index in progress(torch.arange(size).split(rows), what):
        done.append(function(*(None if part is None else part[index].to(device) for part in inputs)).cpu())
    return torch.cat(done)


def progress(steps: Any, what: str) -> Any:
    """A bar over steps, on stderr, once they have taken two seconds; a log file gets a line every ten seconds."""
    interval = 0.1 if sys.stderr.isatty() else 10
    return tqdm(steps, desc=what, delay=2, leave=False, dynamic_ncols=True, mininterval=interval)
