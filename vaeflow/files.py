"""Files that are there whole or not at all, and how paths are read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vaeflow.errors import VaeflowError


def expanded(path: str | Path) -> Path:
    """A path as a shell would read it: ``~`` is the home folder, ``$NAME`` an environment variable. A folder that
    ``..`` leads out of need not exist."""
    if not isinstance(path, (str, os.PathLike)):
        raise VaeflowError(f"{path!r} is no path, expected a string or a pathlib.Path.")
    place = Path(os.path.expanduser(os.path.expandvars(path)))
    return Path(os.path.realpath(place)) if ".." in place.parts else place


def find_files(folder: Path, name: str) -> list[Path]:
    """The files ``**/name`` below a folder, also behind links to other folders; those of version 10 after those of
    version 9."""
    found, seen = list[Path](), set[str]()
    for place, below, _ in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            below.clear()
        elif (path := Path(place, name)).is_file():
            found.append(path)
        seen.add(real)
    return sorted(found, key=lambda path: [(text, int(n or 0)) for text, n in re.findall(r"(\D*)(\d*)", str(path))])


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
