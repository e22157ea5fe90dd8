"""Keeps from the user what Lightning says about things that are meant to be as they are."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = (
    "pytorch_lightning.utilities.rank_zero",
    "lightning_fabric.utilities.seed",
    "lightning_fabric.utilities.distributed",
)
WARNINGS = (
    "does not have many workers",
    "Checkpoint directory .* exists and is not empty",
    "your dataloader is not resumable",  # it is, by another way
    "LeafSpec.* is deprecated",
    "number of training batches .* is smaller than the logging interval",  # steps of several epochs are counted
    "`LightningModule.configure_optimizers` returned `None`",  # as it should for what is fitted in closed form
    "`training_step` returned `None`",
    ".*broadcast_buffers. is deprecated",  # the new name is of newest versions alone
    "SWA is currently only supported every epoch",  # it takes the place of a schedule by steps
    "recommended to use .*sync_dist",  # the metrics are in step already
)


@contextmanager
def quiet() -> Iterator[None]:
    """Within it Lightning says only what a user of vaeflow may want to know."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in WARNINGS:
            warnings.filterwarnings("ignore", message=f".*{message}")
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
