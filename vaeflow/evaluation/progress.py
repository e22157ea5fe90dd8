"""Progress bars on stderr, so that stdout holds results alone."""

from __future__ import annotations

import sys
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm


class EvaluationProgress(ProgressBar):
    """One bar over the batches of the test loop."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: tqdm | None = None
        self.enabled = True

    def disable(self) -> None:
        """Called by Lightning on all processes but the first."""
        self.enabled = False

    def enable(self) -> None:
        """The opposite of :meth:`disable`."""
        self.enabled = True

    def open(self, **arguments: Any) -> tqdm:
        """Begin a bar; a log file gets a line every ten seconds, a terminal ten refreshes a second."""
        interval = 0.1 if sys.stderr.isatty() else 10
        self.bar = tqdm(disable=not self.enabled, dynamic_ncols=True, mininterval=interval, **arguments)
        return self.bar

    def close(self) -> None:
        """End the bar, if there is one."""
        if self.bar is not None:
            self.bar.close()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.open(total=int(sum(trainer.num_test_batches)), unit="batch", desc="evaluation")

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        assert self.bar is not None
        self.bar.update()

    def say(self, what: str) -> None:
        """What takes a while without moving the bar."""
        if self.bar is not None:
            self.bar.set_description(what)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.say("evaluated")
        self.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.close()
