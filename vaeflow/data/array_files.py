"""Arrays from files that anyone may have made: nothing in them is run, and none is larger than there is memory for."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from vaeflow.errors import VaeflowError
from vaeflow.machine.memory import memory

GIB = 2**30


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.npy``, called x, or of a ``.npz``, by name.

    Raises:
        VaeflowError: if there is no such file, or it is damaged, holds objects, or more than fits into memory.
    """
    try:
        with path.open("rb") as file:
            if path.suffix.lower() != ".npz":
                _check_size(path, file)
                return {"x": np.load(path, allow_pickle=False)}
        with zipfile.ZipFile(path) as archive:
            total = 0
            for entry in archive.infolist():
                total += entry.file_size
                with archive.open(entry) as part:
                    _check_size(path, part, entry.file_size)
            _check_fits(path, total)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise VaeflowError(f"there is no file {path.resolve()}.") from None
    except VaeflowError:
        raise
    except Exception as error:  # whatever zipfile and numpy raise for what a stranger has written
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise VaeflowError(f"{path} cannot be read as arrays ({reason}).") from None


def _check_size(path: Path, file: IO[bytes], size: int | None = None) -> None:
    """Raise a ValueError unless a ``.npy`` has as many bytes as the shape in its header says, before any is taken."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"it is of version {version}")
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which could run code")
    wanted = dtype.itemsize * int(np.prod(shape, dtype=object))
    there = (path.stat().st_size if size is None else size) - file.tell()
    if wanted > there:
        raise ValueError(f"its header promises {wanted:,} bytes, and there are {there:,}")
    _check_fits(path, wanted)


def _check_fits(path: Path, size: int) -> None:
    """Raise unless there is room for arrays and their copy, in which they become splits of examples."""
    there = memory()
    if 2 * size > there:
        raise VaeflowError(
            f"{path} unpacks to {size / GIB:,.1f} GiB, more than half of the memory of {there / GIB:,.1f}."
        )
