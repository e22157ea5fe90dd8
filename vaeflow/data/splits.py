"""Splits and labels that data bring with them: their names, and what is missing of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaeflow.data.base import Split, shuffled_split
from vaeflow.errors import VaeflowError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What the splits are called, in any case of letters."""


def split_called(name: str) -> str | None:
    """The split that a name is of: train, val, test, or None."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def missing_splits(given: Collection[str]) -> list[str]:
    """Which of val and test must be cut from the training split."""
    return [name for name in ("val", "test") if name not in given]


def complete_splits(splits: dict[str, Split], source: Path, seed: int | None) -> dict[str, Split]:
    """The train, val and test splits, where one of val and test is missing with a tenth of the training split in its
    place, drawn with a seed."""
    x, y = splits["train"]
    for name in missing_splits(splits):
        if len(x) < 10:
            raise VaeflowError(
                f"{source} has {len(x)} training examples, expected at least 10: one in ten becomes its {name} split, "
                "which it lacks."
            )
        cut = shuffled_split(x, y, (len(x) // 10, 0), seed)
        splits = {**splits, "train": cut["train"], name: cut["val"]}
    return {name: splits[name] for name in SPLIT_NAMES}


def describe_cut(given: Collection[str]) -> str:
    """What a protocol says of splits that are missing."""
    return "".join(f", {name} cut from train" for name in missing_splits(given))


def number_labels(labels: dict[str, np.ndarray], source: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Labels of each split as numbers 0, 1, … ``(N,)``, and what they are called: only those that occur have a number.

    Args:
        labels: whole numbers, texts, or truth values.
    """
    if not labels:
        return {}, []
    values = {name: _label_values(array, source) for name, array in labels.items()}
    classes, numbers = np.unique(np.concatenate(list(values.values())), return_inverse=True)
    ends = np.cumsum([len(array) for array in values.values()])[:-1]
    parts = np.split(numbers.astype(np.int64), ends)
    numbered = {name: torch.from_numpy(part) for name, part in zip(values, parts, strict=True)}
    names = [str(label) for label in classes.tolist()]
    check_classes(numbered, names, source)
    return numbered, names


def check_classes(labels: dict[str, Tensor], names: list[str], source: Path) -> None:
    """Raise a :class:`VaeflowError` if a split has a label that the training split lacks."""
    for split in set(labels) & {"val", "test"}:
        new = sorted(set(labels[split].tolist()) - set(labels["train"].tolist()))
        if new:
            raise VaeflowError(
                f"{source} has examples with the label {names[new[0]]} in its {split} split but none in its training "
                "split: give both the same labels, or leave the labels out."
            )


def _label_values(array: np.ndarray, source: Path) -> np.ndarray:
    """Labels as int64 or text."""
    if array.ndim == 1 and array.dtype.kind in "biufUS":
        if array.dtype.kind in "bUS":
            return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array.astype(str)
        with np.errstate(invalid="ignore"):
            whole = array.astype(np.int64)
        if np.array_equal(whole, array):  # neither a fraction, nor NaN, nor beyond 64 bits
            return whole
    raise VaeflowError(
        f"{source} holds labels y of shape {array.shape} and type {array.dtype}, expected (N,) whole numbers or texts, "
        "one for each example."
    )
