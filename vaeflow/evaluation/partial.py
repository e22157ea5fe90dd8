"""A long evaluation's sums so far, on the disk, so that one that is stopped goes on where it was."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchmetrics import Metric

from vaeflow.errors import VaeflowError
from vaeflow.files import whole
from vaeflow.records.checkpoint import damage

SECONDS = 60.0
"""From one writing to the next."""


class Partial:
    """The sums of one process, in a file that is found again by an evaluation of the same numbers alone.

    Args:
        folder: where it lies.
        model: whose weights have a part in its name, as has
        asked: all else that the numbers and their order depend on, in plain values.
        metrics: that are added up.
    """

    def __init__(self, folder: Path, model: nn.Module, asked: dict[str, Any], metrics: Sequence[Metric]) -> None:
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode())
        for name, value in model.state_dict().items():
            numbers = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
            digest.update(name.encode() + numbers.numpy().tobytes())
        self.path = folder / f"evaluation-{digest.hexdigest()[:16]}.part"
        self.metrics = metrics
        self.last = time.monotonic()
        self.is_usable = True

    def restore(self) -> int:
        """Take up what is there: how many batches are done."""
        try:
            if damage(self.path):
                raise ValueError
            found = torch.load(self.path, weights_only=True)
            states, done = found["states"], int(found["done"])
            for metric, state in zip(self.metrics, states, strict=True):
                for name in metric._defaults:
                    mine, kept = getattr(metric, name), state[name]
                    if (mine.shape, mine.dtype) != (kept.shape, kept.dtype):
                        raise ValueError
                    mine.copy_(kept)
        except Exception:  # none, or one that was spoilt: all is computed anew
            self.clear()
            return 0
        return done

    def clear(self) -> None:
        """Begin with nothing."""
        for metric in self.metrics:
            metric.reset()

    def is_due(self) -> bool:
        """Whether a minute has gone by."""
        return self.is_usable and time.monotonic() - self.last >= SECONDS

    def save(self, done: int) -> None:
        """Keep what there is."""
        states = [{name: getattr(metric, name).cpu() for name in metric._defaults} for metric in self.metrics]
        content = io.BytesIO()
        torch.save({"states": states, "done": done}, content)
        try:
            with whole(self.path) as file:
                file.write(content.getbuffer())
        except VaeflowError:  # the evaluation does not need it
            self.is_usable = False
        self.last = time.monotonic()

    def remove(self) -> None:
        """Once all is done."""
        self.path.unlink(missing_ok=True)


def cache() -> Path:
    """The user's own folder for what can be computed again: what lies in a run's may be a stranger's."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "vaeflow")
