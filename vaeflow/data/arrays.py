"""The user's own numbers: a file of arrays, or a table."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaeflow.data.array_files import load_arrays
from vaeflow.data.base import DataModule, Split, shuffled_split
from vaeflow.data.splits import SPLIT_NAMES, complete_splits, describe_cut, missing_splits, number_labels, split_called
from vaeflow.data.tables import TABLE_ENDINGS, read_table
from vaeflow.errors import VaeflowError, VaeflowWarning, check_values
from vaeflow.files import expanded

MAX_LEVELS = 2**24
"""Integers below are the same in float32, which models compute in."""


class Arrays(DataModule):
    """Vectors or images from a file of arrays, ``.npy`` or ``.npz``, or vectors from a table, ``.csv`` or the like.

    Vectors are ``(N, D)``, images ``(N, height, width[, channels])``. Tables ``.csv``, ``.tsv`` and ``.txt`` hold
    numbers alone, see :func:`~vaeflow.data.tables.read_table`: labels go into a ``.npz``.

    A ``.npz`` holds either ``train``, ``val`` and ``test``, perhaps with labels ``y_train``, ``y_val`` and ``y_test``,
    or one array (``x``, or the only one), perhaps with labels ``y``; where val or test is missing, a tenth of train,
    drawn with ``split_seed``, takes its place. Other data are shuffled with ``split_seed`` and split 80 / 10 / 10 %.
    Labels are whole numbers or texts, and those that occur are the classes. Values stay as they are: real numbers are
    standardised by the model, inside the likelihood; images of uint8 have 256 levels.

    Args:
        path: the file.
        levels: L, for integer data 0 … L − 1, at least 2; default 256 for uint8, else none: a continuous density.
        batch_size: of all processes together.
        split_seed: of the split.
        seed: of the order of training examples; comes from seed_everything.
    """

    column_names: list[str] | None = None
    """Those of a table's header."""

    def __init__(
        self, path: str, levels: int | None = None, batch_size: int = 128, split_seed: int = 0, seed: int = 0
    ) -> None:
        super().__init__(batch_size, seed)
        self.source = self.path = expanded(path)
        if levels is not None and not 2 <= levels <= MAX_LEVELS:
            raise VaeflowError(f"levels is {levels}, expected at least 2 and at most {MAX_LEVELS:,}.")
        arrays, labels = _sort(self._read_file(), self.path)
        self.given = set(arrays)
        is_split = "train" in arrays
        self.split_seed = None if is_split and not missing_splits(arrays) else split_seed
        if labels and labels.keys() != arrays.keys():
            expected = ", ".join(f"y_{name}" for name in arrays) if is_split else "y"
            raise VaeflowError(
                f"{self.path} has labels of {', '.join(labels)}, expected labels of {', '.join(arrays)} ({expected})."
            )
        for name, y in labels.items():
            if len(y.shape) == 1 and len(y) != len(arrays[name]):
                raise VaeflowError(
                    f"{self.path} holds labels y of shape {y.shape}, expected ({len(arrays[name])},) as there are "
                    "examples."
                )
        self._labels, self.classes = number_labels(labels, self.path)
        self._tensors = {name: self._tensor(array) for name, array in arrays.items()}
        for name, tensor in self._tensors.items():  # by their place in the file: later they are shuffled
            check_values(f"{name} in {self.path}" if is_split else str(self.path), tensor)
        shapes = {tuple(tensor.shape[1:]) for tensor in self._tensors.values()}
        if len(shapes) > 1:
            raise VaeflowError(f"{self.path} holds splits of different shapes: {', '.join(map(str, sorted(shapes)))}.")
        self.levels = self._find_levels(levels, list(arrays.values()))
        self.shape = shapes.pop()
        self.num_classes = len(self.classes)

    @property
    def label(self) -> str:
        return self.path.name

    @property
    def class_names(self) -> list[str]:
        return self.classes

    @property
    def protocol(self) -> str:
        return super().protocol + (describe_cut(self.given) if "train" in self.given else "")

    def dimension_name(self, i: int) -> str:
        name = self.column_names[i] if self.column_names is not None else ""
        if self.path.suffix.lower() in TABLE_ENDINGS:  # of whose columns the errors of reading count from 1
            return f"column {name!r}" if name else f"column {i + 1} of {self.shape[0]}"
        return super().dimension_name(i)

    def read(self) -> dict[str, Split]:
        splits = {
            name: (x, self._labels.get(name, torch.zeros(len(x), dtype=torch.int64)))
            for name, x in self._tensors.items()
        }
        if "train" in splits:
            return complete_splits(splits, self.path, self.split_seed)
        x, y = splits["x"]
        if len(x) < 10:
            raise VaeflowError(f"{self.path} holds {len(x)} examples, expected at least 10.")
        return shuffled_split(x, y, (len(x) // 10, len(x) // 10), self.split_seed)

    def _read_file(self) -> dict[str, np.ndarray]:
        if not self.path.is_file():
            raise VaeflowError(f"there is no file {self.path.resolve()}.")
        ending = self.path.suffix.lower()
        if ending in (".npy", ".npz"):
            return load_arrays(self.path)
        if ending not in TABLE_ENDINGS:
            raise VaeflowError(f"{self.path} is no {', '.join(('.npy', '.npz', *TABLE_ENDINGS))} file.")
        try:
            table = read_table(self.path)
        except OSError as error:
            raise VaeflowError(f"{self.path} cannot be read ({error}).") from None
        self.column_names = table.column_names
        for note in table.notes:
            warnings.warn(note, VaeflowWarning, stacklevel=3)
        return {"x": table.values}

    def _tensor(self, array: np.ndarray) -> Tensor:
        if array.dtype.kind not in "fiub" or array.ndim < 2 or array.ndim > 4 or 0 in array.shape:
            raise VaeflowError(
                f"{self.path} holds an array of shape {array.shape} and type {array.dtype}, "
                "expected numbers (N, D) or (N, height, width[, channels])."
            )
        if array.dtype == np.uint64 and array.max() >= 2**63:
            raise VaeflowError(f"{self.path} holds integers up to {array.max()}, expected them below 2⁶³.")
        if array.dtype != np.uint8:  # torch knows neither all integers nor the other byte order
            array = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
        if array.ndim == 4 and array.shape[-1] > 4:
            raise VaeflowError(
                f"{self.path} holds images of shape {array.shape[1:]}, expected (height, width, channels) with at most "
                "4 channels: move the axis of the channels to the end."
            )
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if tensor.dim() == 3:
            return tensor.unsqueeze(1)
        return tensor.permute(0, 3, 1, 2).contiguous() if tensor.dim() == 4 else tensor

    def _find_levels(self, levels: int | None, arrays: list[np.ndarray]) -> int | None:
        if levels is not None:
            return levels
        first = arrays[0]
        if first.dtype.kind == "b" or (first.dtype == np.uint8 and first.max() <= 1):
            raise VaeflowError(
                f"{self.path} holds 0 and 1 alone: set --data.levels 2 (or 256, if they are grey levels)."
            )
        if first.dtype == np.uint8:
            return 256
        if all(map(_are_integers, arrays)):
            is_pair = self.path.suffix.lower() in TABLE_ENDINGS and first.shape[1:] == (2,)
            commas = "; if its commas are decimal signs, write points instead" if is_pair else ""
            raise VaeflowError(
                f"{self.path} holds integers alone: set --data.levels to their number L (they go from 0 to L − 1), or "
                f"add noise between 0 and 1 to make them continuous{commas}."
            )
        return None


def _are_integers(array: np.ndarray) -> bool:
    """Whether all numbers are integers, which all floating-point numbers of 2⁵³ and more are by their nature."""
    return bool(np.array_equal(array, np.round(array)) and (array.dtype.kind != "f" or np.abs(array).max() < 2.0**53))


def _sort(arrays: dict[str, np.ndarray], path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The arrays of examples, and those of labels, both by split, or called x.

    Raises:
        VaeflowError: if one would be left over, or the training split is missing.
    """

    def are_labels(name: str) -> bool:
        return name.lower() == "y" or name.lower().startswith("y_")

    examples: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    only = [name for name in arrays if not are_labels(name)]
    if len(only) == 1 and split_called(only[0].lower().removeprefix("x_")) in ("val", "test"):
        raise VaeflowError(f"{path} holds {only[0]} alone, expected train as well; call it x to train on it.")
    for given, array in arrays.items():
        name, kind = given.lower(), labels if are_labels(given) else examples
        is_only = [given] == only and not any(map(split_called, (other.lower()[2:] for other in arrays)))
        split = "x" if name in ("x", "y") or is_only else split_called(name.removeprefix("y_").removeprefix("x_"))
        if split is not None and split not in kind:
            kind[split] = array
    is_split = "train" in examples and len(examples) > 1 and "x" not in examples
    if len(examples) + len(labels) < len(arrays) or not (is_split or set(examples) == {"x"}):
        raise VaeflowError(
            f"{path} holds arrays {', '.join(arrays)}: expected train, val and test, perhaps with labels y_train, "
            "y_val and y_test, or x, perhaps with labels y, and nothing else."
        )
    return {name: examples[name] for name in ("x", *SPLIT_NAMES) if name in examples}, labels
