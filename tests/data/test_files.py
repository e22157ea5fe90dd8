"""Files from strangers: what is in them is read, never run, and never unpacked beyond what there is memory for."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from vaeflow.data import Arrays, FreyFaces
from vaeflow.data import array_files as module
from vaeflow.data.array_files import load_arrays
from vaeflow.errors import VaeflowError


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def npy(array: np.ndarray, **arguments: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array, **arguments)
    return content.getvalue()


def write(folder: Path, ending: str, content: bytes) -> Path:
    """A file of what a ``.npy`` holds, or a ``.npz`` with it."""
    path = folder / f"x.{ending}"
    if ending == "npy":
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
    return path


def test_arrays_come_as_they_were_saved(tmp_path: Path) -> None:
    x, y = np.arange(6.0).reshape(2, 3), np.array([1, 0])
    np.save(tmp_path / "a.npy", x)
    np.savez_compressed(tmp_path / "a.npz", x=x, y=y)
    np.save(tmp_path / "empty.npy", x[:0])
    assert np.array_equal(load_arrays(tmp_path / "a.npy")["x"], x)
    found = load_arrays(tmp_path / "a.npz")
    assert found.keys() == {"x", "y"}
    assert np.array_equal(found["y"], y)
    assert load_arrays(tmp_path / "empty.npy")["x"].shape == (0, 3)


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_objects_are_not_unpickled(ending: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    path = write(tmp_path, ending, npy(np.array([[Bomb(made)]], dtype=object), allow_pickle=True))
    with pytest.raises(VaeflowError, match=r"cannot be read as arrays \(it holds Python objects"):
        Arrays(str(path))
    assert not made.exists()
    np.load(path, allow_pickle=True)["x" if ending == "npz" else ...]
    assert made.exists()  # what would have been


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_a_header_that_promises_too_much(ending: str, tmp_path: Path) -> None:
    content = npy(np.zeros((4, 4))).replace(b"(4, 4), }          ", b"(4000000000000, 4)}")
    path = write(tmp_path, ending, content)
    with pytest.raises(VaeflowError, match=r"its header promises 128,000,000,000,000 bytes, and there are 128"):
        Arrays(str(path))


def test_what_unpacks_to_more_than_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((1000, 1000)), y=np.zeros(1000))
    assert (tmp_path / "x.npz").stat().st_size < 20_000
    monkeypatch.setattr(module, "memory", lambda: 1_000_000)
    with pytest.raises(VaeflowError, match="more than half of the memory"):
        load_arrays(tmp_path / "x.npz")
    monkeypatch.setattr(module, "memory", lambda: 16_008_000)  # enough for either, and not for both
    with pytest.raises(VaeflowError, match="more than half of the memory"):
        load_arrays(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "ff",
    [
        np.zeros((560, 100), np.uint8),
        np.zeros((560, 20_000), np.uint8),
        np.array([["a"], [{"b": 1}]], dtype=object),
        {"field": 3},
        "text",
    ],
)
def test_matrices_of_other_kinds_are_refused(ff: Any, tmp_path: Path) -> None:
    savemat(tmp_path / "frey_rawface.mat", {"ff": ff}, do_compression=True)
    with pytest.raises(VaeflowError, match=r"frey_rawface.mat holds \w+ of shape"):
        FreyFaces(root=str(tmp_path)).setup("")
