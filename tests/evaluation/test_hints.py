"""Hints before a training: true, and with options that the data have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vaeflow.data import Arrays, DataModule, Digits, EnergyData, ImageFolder, Toy
from vaeflow.evaluation.doubts import hints_before

GENERATOR = np.random.default_rng(0)
COUNTS = GENERATOR.integers(0, 16, (400, 12))
BITS = GENERATOR.integers(0, 2, (400, 12)).astype(np.uint8)
REALS = GENERATOR.normal(size=(200, 3))


def hints(data: DataModule, kind: str = "exact") -> list[str]:
    return list(hints_before(SimpleNamespace(kind=kind, levels=data.levels), data))


def numbered(column: np.ndarray) -> np.ndarray:
    return np.column_stack([REALS[:, 0], column, REALS[:, 1]])


FOUND = {
    "fewer levels": (COUNTS.astype(np.uint8), None, r"go up to 15, .* 256 levels, .* 16 \(--data.levels 16\)"),
    "12 bits": (COUNTS * 273, 65_536, r"go up to 4095, .* 65536 levels, .* 4096 \(--data.levels 4096\)"),
    "multiples": ((COUNTS * 17).astype(np.uint8), None, "16 different values, all multiples of 17, .* 256 levels"),
    "black and white": (BITS * 255, 256, "2 different values, all multiples of 255"),
    "few of many": (COUNTS + 84 * (COUNTS > 7), 100, "have 16 different values, but .* 100 levels"),
    "binary": (BITS, 2, r"^the data are binary .* usually trained on\.$"),
    "rows": (numbered(np.arange(200)), None, "column 1 of x.npy numbers the examples"),
    "rows from 1, out of order": (numbered(GENERATOR.permutation(200) + 1.0), None, "column 1 of x.npy numbers"),
    "times": (numbered(np.linspace(0.3, 7.1, 200)), None, "column 1 of x.npy numbers .* equally far apart"),
}


@pytest.mark.parametrize("case", FOUND)
def test_what_is_unusual_is_said_once(case: str, tmp_path: Path) -> None:
    values, levels, message = FOUND[case]
    np.save(tmp_path / "x.npy", values)
    (hint,) = hints(Arrays(str(tmp_path / "x.npy"), levels), "dequantised" if case == "binary" else "exact")
    with pytest.raises(ValueError, match=message):
        raise ValueError(hint)


def test_a_column_is_called_by_its_name(tmp_path: Path) -> None:
    rows = zip(range(1, 51), REALS[:50, 0].tolist(), strict=True)
    (tmp_path / "t.csv").write_text("id,u\n" + "".join(f"{i},{u}\n" for i, u in rows))
    (hint,) = hints(Arrays(str(tmp_path / "t.csv")))
    assert hint.startswith("column 'id' of t.csv numbers the examples")


def test_untrained_classes_and_levels_of_pictures(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / "ab"[i > 0]).mkdir(exist_ok=True)
        Image.fromarray(COUNTS[i : i + 4].astype(np.uint16) * 273).save(tmp_path / "ab"[i > 0] / f"{i}.png")
    for seed, others in ((0, []), (21, ["no training example has the label a."])):
        levels, *found = hints(ImageFolder(str(tmp_path), grey=True, split_seed=seed))
        assert "(--data.levels 4096)" in levels
        assert found == others


USUAL: list[Callable[[], DataModule]] = [Digits, EnergyData, lambda: Toy("pinwheel", num_train=500, num_val=50)]


@pytest.mark.parametrize("make", USUAL)
def test_usual_data_have_no_hints(make: Callable[[], DataModule]) -> None:
    assert hints(make()) == []
