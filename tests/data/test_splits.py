"""Splits and labels that data bring with them are used, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vaeflow.data import Arrays, ImageFolder
from vaeflow.errors import VaeflowError

GENERATOR = np.random.default_rng(0)


def tree(root: Path, **counts: int) -> str:
    """Pictures in folders, whose names have two underscores for each slash."""
    for name, count in counts.items():
        folder = root / name.replace("__", "/")
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(GENERATOR.integers(0, 256, (3, 4), np.uint8)).save(folder / f"{i}.png")
    return str(root)


def sizes(data: Any) -> dict[str, int]:
    data.setup("")
    return {name: len(x) for name, (x, _) in data.splits.items()}


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "Valid", "TEST"), ("training", "validation", "testing")]
)
def test_folders_of_splits_are_the_splits(names: tuple[str, str, str], tmp_path: Path) -> None:
    counts = {f"{split}__{label}": n for split, n in zip(names, (8, 3, 2), strict=True) for label in ("cat", "dog")}
    data = ImageFolder(tree(tmp_path, **counts), grey=True)
    assert sizes(data) == {"train": 16, "val": 6, "test": 4}
    assert data.class_names == ["cat", "dog"]
    assert data.splits["test"][1].tolist() == [0, 0, 1, 1]
    expected = np.asarray(Image.open(tmp_path / names[2] / "cat" / "0.png")).tolist()
    assert data.splits["test"][0][0, 0].tolist() == expected
    assert data.protocol == "split 16/6/4, splits of the folders, size None, grey"
    assert ImageFolder(str(tmp_path), split_seed=1).fingerprint() == ImageFolder(str(tmp_path)).fingerprint()


@pytest.mark.parametrize(("given", "missing"), [("test", "val"), ("dev", "test")])
def test_a_missing_split_is_cut_from_training(given: str, missing: str, tmp_path: Path) -> None:
    data = ImageFolder(tree(tmp_path, train=25, **{given: 4}), split_seed=3)
    assert sizes(data) == {"train": 23, "val": 4, "test": 4} | {missing: 2}
    assert data.num_classes == 0
    assert f"split seed 3, splits of the folders, {missing} cut from train" in data.protocol
    whole = ImageFolder(str(tmp_path), split_seed=4)
    whole.setup("")
    kept = "test" if missing == "val" else "val"
    assert torch.equal(data.splits[kept][0], whole.splits[kept][0])
    assert not torch.equal(data.splits[missing][0], whole.splits[missing][0])
    names = {"test": "test", "dev": "valid"}
    x = GENERATOR.normal(size=(34, 2))
    np.savez(tmp_path / "x.npz", x_train=x[:30], y_train=["a", "b"] * 15, **{names[given]: x[30:]}, **{
        f"y_{names[given]}": ["a", "a", "b", "b"]})  # fmt: skip
    arrays = Arrays(str(tmp_path / "x.npz"), split_seed=3)
    assert sizes(arrays) == {"train": 27, "val": 4, "test": 4} | {missing: 3}
    assert f"split seed 3, {missing} cut from train" in arrays.protocol
    assert arrays.splits[kept][1].tolist() == [0, 0, 1, 1]


def test_folders_that_are_called_as_splits_may_be_classes(tmp_path: Path) -> None:
    data = ImageFolder(tree(tmp_path, train=8, plane=8))
    assert (data.class_names, data.num_classes) == (["plane", "train"], 2)
    assert sizes(data) == {"train": 14, "val": 1, "test": 1}


LAYOUTS: dict[str, tuple[dict[str, int], str]] = {
    "other folders": ({"train": 9, "test": 3, "unlabelled": 2}, "splits test, train, and beside them unlabelled"),
    "loose pictures": ({"train": 9, "val": 3, ".": 2}, "splits train, val, and beside them 0.png"),
    "two of one": ({"train": 9, "val": 3, "valid": 3}, "and beside them val"),
    "training alone": ({"train__a": 9, "train__b": 3}, r"no folder but train.*set --data.root to .*train"),
    "no training": ({"val": 9, "test": 3}, "holds test, val, expected a folder train beside them"),
    "test without labels": ({"train__a": 6, "train__b": 6, "test": 3}, r"beside them test/0.png .* has no class"),
    "new class": ({"train__a": 9, "test__a": 3, "test__b": 2}, "label b in its test split but none in its training"),
    "splits in classes": ({"a__train": 6, "a__test": 6, "b__train": 6}, "expected splits above the classes"),
    "few": ({"train": 9, "test": 5}, "9 training examples, expected at least 10: one in ten becomes its val split"),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_layouts_that_can_be_misread_are_refused(case: str, tmp_path: Path) -> None:
    counts, message = LAYOUTS[case]
    with pytest.raises(VaeflowError, match=message) as error:
        ImageFolder(tree(tmp_path, **counts)).setup("")
    assert "\n" not in str(error.value)


X = GENERATOR.normal(size=(30, 2))
FILES: dict[str, tuple[dict[str, Any], str]] = {
    "x beside splits": ({"x": X, "train": X, "test": X}, "holds arrays x, train, test: expected train, val and test"),
    "other arrays": ({"x": X, "labels": np.arange(30)}, "holds arrays x, labels: expected .* nothing else"),
    "labels of no split": (
        {"x": X, "y": np.arange(30), "y_train": np.arange(30)},
        r"has labels of x, train, expected labels of x \(y\)",
    ),
    "labels alone": ({"y": np.arange(30)}, "holds arrays y: expected"),
    "no training": ({"val": X, "test": X}, "holds arrays val, test: expected"),
    "twice": ({"train": X, "x_train": X, "test": X}, "holds arrays train, x_train, test"),
    "new label": (
        {"train": X, "test": X, "y_train": np.arange(30) % 2, "y_test": np.arange(30) % 3},
        "label 2 in its test split but none in its training split",
    ),
    "complex": ({"x": X + 1j}, "type complex128, expected numbers"),
    "dates": ({"x": X.astype("M8[s]")}, r"type datetime64\[s\], expected numbers"),
    "no examples": ({"x": X[:0]}, r"shape \(0, 2\)"),
    "no axis": ({"x": np.array(3.0)}, r"shape \(\)"),
    "beyond 63 bits": ({"x": np.full((30, 2), 2**63, np.uint64)}, "integers up to 9223372036854775808"),
    "fractions as labels": ({"x": X, "y": np.arange(30) / 2}, "expected .* whole numbers or texts"),
    "NaN as a label": ({"x": X, "y": np.where(X[:, 0] > 0, 1.0, np.nan)}, "expected .* whole numbers or texts"),
    "one-hot labels": ({"x": X, "y": np.eye(30)}, r"labels y of shape \(30, 30\)"),
    "few labels": ({"x": X, "y": np.arange(29)}, r"labels y of shape \(29,\), expected \(30,\)"),
    "one value": ({"x": np.full((30, 2), 0.5)}, "all values of the training split of x.npz are 0.5"),
}


@pytest.mark.parametrize("case", FILES)
def test_arrays_that_would_be_ignored_or_misread_are_refused(case: str, tmp_path: Path) -> None:
    arrays, message = FILES[case]
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(VaeflowError, match=message) as error:
        Arrays(str(tmp_path / "x.npz")).setup("")
    assert "\n" not in str(error.value)


def test_more_levels_than_float32_tells_apart_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(60).reshape(30, 2))
    assert Arrays(str(tmp_path / "x.npy"), levels=2**24).levels == 2**24
    with pytest.raises(VaeflowError, match="at most 16,777,216"):
        Arrays(str(tmp_path / "x.npy"), levels=2**24 + 1)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.where(np.arange(30) % 2, 3, 8), ["3", "8"]),
        (np.where(np.arange(30) % 2, -1.0, 10.0), ["-1", "10"]),
        (np.where(np.arange(30) % 2, "cat", "dog"), ["cat", "dog"]),
        (np.where(np.arange(30) % 2, "cat", "dog").astype("S3"), ["cat", "dog"]),
        (np.arange(30) % 2 == 0, ["False", "True"]),
        (np.where(np.arange(30) % 2, 7, 200).astype(np.uint8), ["7", "200"]),
    ],
)
def test_only_labels_that_occur_are_classes(labels: np.ndarray, names: list[str], tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=X, y=labels)
    data = Arrays(str(tmp_path / "x.npz"))
    assert (data.num_classes, data.class_names) == (2, names)
    first = {tuple(row): label for row, label in zip(X.tolist(), (np.arange(30) % 2 == 0).tolist(), strict=True)}
    for split in ("train", "val", "test"):
        x, y = data.examples(split, torch.arange(data.count(split)))
        assert [first[tuple(row)] for row in x.tolist()] == y.bool().tolist()
    assert data.label_of(names[1]) == 1
    assert data.trained_classes() == [0, 1]
    with pytest.raises(VaeflowError, match=f"x.npz has labels {names[0]}, {names[1]}, and none called 0"):
        data.label_of("0")


def test_a_class_without_training_examples_is_no_class_to_learn(tmp_path: Path) -> None:
    labels = np.zeros(30, dtype=int)
    np.savez(tmp_path / "x.npz", x=X, y=labels)
    data = Arrays(str(tmp_path / "x.npz"))
    data.setup("")
    rare = data.splits["test"][0][0].numpy()
    labels[(rare == X).all(1)] = 5
    np.savez(tmp_path / "x.npz", x=X, y=labels)
    data = Arrays(str(tmp_path / "x.npz"))
    assert (data.class_names, data.trained_classes()) == (["0", "5"], [0])
    with pytest.raises(VaeflowError, match=r"test split of x.npz has examples with the label 5, but the training"):
        data.check_classes()
