"""Files that are there whole or not at all, and folders that belong to one run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO

from vaeflow.errors import VaeflowError


@contextmanager
def whole(path: Path, keep: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write, under a temporary name until it is on the disk: under its own there is the old one or the new.

    Args:
        keep: where the old one stays.

    Raises:
        VaeflowError: if there is no room, or no permission.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.is_file():
            os.replace(_second_name(path), keep)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        there = f"; {path} is as it was" if path.is_file() else ""
        raise VaeflowError(f"{path} cannot be written ({error.strerror or error}){there}.") from error


def _second_name(path: Path) -> Path:
    """Another name of the same file, where the disk knows such, or a copy."""
    second = path.with_name(f".{path.name}.old")
    with suppress(OSError):
        second.unlink()
    try:
        os.link(path, second)
    except OSError:
        second.write_bytes(path.read_bytes())
    return second


def _flush_folder(folder: Path) -> None:
    """Have the disk know the names in a folder, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
