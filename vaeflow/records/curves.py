"""Where a run's loggers write, and how their curves go on when it is resumed."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from vaeflow.errors import VaeflowError
from vaeflow.files import whole
from vaeflow.records.runs import RunFolder

METRICS = "metrics.csv"


def loggers_of(given: Any, folder: RunFolder) -> Logger | list[Logger] | bool:
    """The loggers of a run: TensorBoard in its folder, none, or the user's own, which write where their ``save_dir``
    says, in folders that are called as the run is, where they have no name of their own.

    Args:
        given: the Trainer's argument ``logger``.
    """
    version = folder.version
    if given in (None, True):
        return TensorBoardLogger(str(folder.root), folder.experiment, version, default_hp_metric=False)
    if not given:
        return False
    loggers = list(given) if isinstance(given, list) else [given]
    for logger in loggers:
        if isinstance(logger, (CSVLogger, TensorBoardLogger)):  # others take a version for a run's identity
            if logger._name == "lightning_logs":  # Lightning's default
                logger._name = folder.experiment
            if logger._version is None:
                logger._version = version
    return loggers


def continue_curves(loggers: Iterable[Logger], step: int, is_resumed: bool) -> None:
    """Have CSVLoggers go on after the lines of the steps before this one, which Lightning would delete.

    Raises:
        VaeflowError: where there are lines of another run.
    """
    for logger in loggers:
        if not isinstance(logger, CSVLogger):
            continue
        path = Path(logger.log_dir, METRICS)
        aside = path.with_name(f"{METRICS}.kept")
        if aside.is_file() and not path.is_file():  # of a process that was ended right here
            aside.replace(path)
        if not path.is_file():
            continue
        if not is_resumed:
            raise VaeflowError(
                f"{path} is there already, the curves of another run: leave out the logger's version, or take another."
            )
        lines = csv.DictReader(io.StringIO(path.read_text()))
        names, kept = list(lines.fieldnames or []), [line for line in lines if int(line["step"]) < step]
        text = io.StringIO()
        table = csv.DictWriter(text, names)
        table.writeheader()
        table.writerows(kept)
        with whole(path) as file:
            file.write(text.getvalue().encode())
        path.replace(aside)  # since the logger deletes what is there when it is first asked for
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            writer = logger.experiment
        aside.replace(path)
        writer.metrics_keys = names
