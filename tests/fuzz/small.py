"""Trainings that take a second, and what cases of them check."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tests.fuzz.case import CommandOutcome

QUICK = ("--pictures.every", "0", "--trainer.accelerator", "cpu", "--data.batch_size", "32")
ONE_EPOCH, TWO_EPOCHS = (("--trainer.max_epochs", str(epochs)) for epochs in (1, 2))
MADE = ("--model", "MADE", "--model.hidden", "[8]")
VAE = ("--model", "VAE", "--model.latent_features", "2", "--num_samples", "3")
TOY = ("--data", "Toy", "--data.num_train", "64", "--data.num_val", "32", "--data.num_test", "32")


def results_in(path: Path) -> dict[str, Any]:
    """What a ``results.json`` holds; nothing where there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def has_finite_nll(results: dict[str, Any]) -> bool:
    """Whether results have an nll that is a number."""
    return isinstance(results.get("nll"), float) and math.isfinite(results["nll"])


def lost_files(outcome: CommandOutcome, resumed: str | None = None) -> str | None:
    """Which file that was there before a command is gone or changed.

    Args:
        resumed: the folder of the run that the command resumed, whose files may grow.
    """
    for name, before in outcome.before.items():
        after = outcome.after.get(name)
        if after == before or ".cache" in Path(name).parts:
            continue
        if after is None or resumed is None or not _may_become(Path(name), Path(resumed), before, after):
            return f"{outcome.command}: {name} is {'gone' if after is None else 'changed'}"
    return None


def _may_become(name: Path, run: Path, before: bytes, after: bytes) -> bool:
    """Whether a resumed run may have changed this file so."""
    if "tfevents" in name.name:  # of loggers that have folders of their own, too
        return after.startswith(before)
    if name.name == "metrics.csv":
        return after.count(b"\n") >= before.count(b"\n")
    if not name.is_relative_to(run):
        return False
    checkpoints = ("last.ckpt", "previous.ckpt", "best.ckpt")
    return name.name in (*checkpoints, "run.json", "config.yaml", "hparams.yaml", "results.json", "results.npy")
