"""Where runs live: ``<root>/<experiment>/version_N``, decided once for all that a run reads and writes."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path, PurePath

from pytorch_lightning.utilities import rank_zero_only

from vaeflow.errors import VaeflowError
from vaeflow.files import expanded
from vaeflow.records.checkpoint import named

BEST = "checkpoints/best.ckpt"
LAST = "checkpoints/last.ckpt"
VERSION = "VAEFLOW_VERSION"
"""The environment variable that tells the processes that a run starts of its folder."""
LOGS = ("events.out.tfevents.*", "hparams.yaml", "metrics.csv")
"""What loggers write before the first batch."""


def runs_of(runs: Path, experiment: str, file: str) -> list[Path]:
    """The folders of an experiment's runs that hold a file of this name, the newest last: that of the highest
    number."""
    found = {path.name.removeprefix("version_"): path
             for path in Path(runs, experiment).glob("version_*") if (path / file).is_file()}  # fmt: skip
    return [found[number] for number in sorted((name for name in found if name.isdecimal()), key=int)]


def new_version(experiment: Path) -> str:
    """Make the folder ``version_N`` of a new run, with N above all that are there: a folder that nobody else has, even
    if two runs begin at the same moment.

    Raises:
        VaeflowError: if it cannot be made.
    """
    try:
        experiment.mkdir(parents=True, exist_ok=True)
        numbers = [name.removeprefix("version_") for name in os.listdir(experiment) if name.startswith("version_")]
        for number in count(max((int(n) for n in numbers if n.isdecimal()), default=-1) + 1):
            with suppress(FileExistsError):
                (experiment / f"version_{number}").mkdir()
                return f"version_{number}"
    except OSError as error:
        raise VaeflowError(f"no run can be kept in {experiment} ({error.strerror}): {_advice(error)}.") from error
    raise AssertionError


def _advice(error: OSError) -> str:
    return "make room" if error.errno in (28, 122) else "set --trainer.default_root_dir to a folder you can write to"


class RunFolder:
    """The folder of one run: a new one, which :meth:`make` makes, or that of the run that is resumed.

    Args:
        root: folder of all runs.
        experiment: the name that runs of the same kind share.
        ckpt_path: the checkpoint to resume from; ``last``: that of the experiment's newest run that has one, or none.

    Raises:
        VaeflowError: for a root or a name that no folder can have.
    """

    def __init__(self, root: str | None, experiment: str, ckpt_path: str | None = None) -> None:
        self.root = expanded("runs" if root is None else root)
        if "$" in str(self.root) or "://" in str(root):
            raise VaeflowError(
                f"trainer.default_root_dir is {root}, expected a folder of this machine; environment variables in it "
                "must be set."
            )
        name = PurePath(os.path.expandvars(experiment))
        if not name.parts or name.is_absolute() or ".." in name.parts or str(name)[0] == "~" or "$" in str(name):
            raise VaeflowError(
                f"--experiment is {experiment or 'empty'}, expected a name, or a path below the runs' folder."
            )
        self.experiment = str(name)
        self.resume_from = self._newest_last() if ckpt_path == "last" else ckpt_path and str(named(expanded(ckpt_path)))
        self.version = self._version_of(self.resume_from)
        self.is_resumed = self.version is not None
        """Whether the run that is resumed goes on in its own folder."""
        self._made: Path | None = None

    def make(self) -> None:
        """Make the folder of a new run, if this process is the first; the others are told its name."""
        if self.version is None and VERSION not in os.environ and getattr(rank_zero_only, "rank", 0) == 0:
            os.environ[VERSION] = new_version(self.root / self.experiment)
            self._made = self.root / self.experiment / os.environ[VERSION]
        if self.version is None:
            self.version = os.environ.get(VERSION)

    @property
    def path(self) -> Path:
        """The folder. Processes that others have started may not know its name, and have no use for it."""
        return self.root / self.experiment / (self.version or "")

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.path / "checkpoints"

    def _newest_last(self) -> str | None:
        found = runs_of(self.root, self.experiment, LAST)
        if not found and getattr(rank_zero_only, "rank", 0) == 0:
            where = self.root / self.experiment
            print(f"there is no last.ckpt in {where} to go on from: the run begins anew.", file=sys.stderr)
        return str(found[-1] / LAST) if found else None

    def _version_of(self, ckpt_path: str | None) -> str | None:
        """The run of this experiment that a checkpoint is of, whatever links lead there."""
        if ckpt_path is None or not os.path.isfile(ckpt_path):
            return None
        for file in Path(self.root, self.experiment).glob("*/checkpoints/*.ckpt"):
            if file.is_file() and file.samefile(ckpt_path):
                return file.parents[1].name
        return None

    def discard_if_unused(self) -> None:
        """Remove the folder that this process has made if its run could not begin: it holds logs without a line."""
        if self._made is None:
            return
        os.environ.pop(VERSION, None)
        made, self._made = self._made, None
        logs = {path for pattern in LOGS for path in made.glob(pattern)}
        folders = [path for path in (made / "checkpoints",) if path.is_dir()]
        with suppress(OSError):
            if {*logs, *folders} != set(made.iterdir()):
                return
            for folder in folders:
                folder.rmdir()
            for log in logs:
                log.unlink()
            made.rmdir()
