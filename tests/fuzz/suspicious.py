"""Arrays whose likelihood is unbounded or flattered, which has to be said, and sound ones, where nothing may be."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.fuzz.case import Case, Command, CommandOutcome
from tests.fuzz.small import MADE, ONE_EPOCH, QUICK, results_in

SOUND = ("normal", "correlated", "heavy tails", "mixture", "uniform")
SUSPICIOUS = ("atom", "outlier", "repeated rows", "test rows in training", "integer column", "NaN", "curve")


@st.composite
def arrays(draw: Any) -> Case:
    """A training on an array that is sound or has one fault."""
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    rows, columns = draw(st.sampled_from([100, 300, 1000])), draw(st.integers(2, 4))
    kind = draw(st.sampled_from([*SOUND, *SUSPICIOUS, *SUSPICIOUS]))
    rows = max(rows, 300) if kind == "curve" else rows  # of fewer a curve cannot be told from noise
    scale, detail = draw(st.sampled_from([1.0, 1e-3, 1e4])), kind
    x = scale * _sound(kind if kind in SOUND else draw(st.sampled_from(SOUND)), rows, columns, generator)
    splits = {"train": x[: -rows // 5], "val": x[-rows // 5 : -rows // 10], "test": x[-rows // 10 :]}
    column = draw(st.integers(0, columns - 1))
    if kind == "atom":
        part = draw(st.integers(5, 60))
        at = generator.permutation(rows)[: max(5, rows * part // 100)]
        x[at, column] = draw(st.sampled_from([0.0, x[0, column], -999.0 * scale, x[:, column].max()]))
        detail = f"one value holds {part} % of column {column}"
    elif kind == "outlier":
        size, count = draw(st.floats(1e8, 1e15)), draw(st.integers(1, 3))
        x[generator.permutation(rows)[:count], column] *= size
        detail = f"{count} values of column {column} times {size:.3g}"
    elif kind == "repeated rows":
        times = draw(st.integers(2, 8))
        x = x[generator.permutation(np.arange(rows) // times)]
        detail = f"each row about {times} times"
    elif kind == "test rows in training":
        part = draw(st.integers(30, 100))
        count = max(1, len(splits["test"]) * part // 100)
        splits["test"] = np.concatenate([splits["train"][:count], splits["test"][count:]])
        detail = f"{part} % of the test rows"
    elif kind == "integer column":
        levels = draw(st.sampled_from([2, 3, 5, 10, 30, 100, 1000]))
        x[:, column] = generator.integers(0, levels, rows)
        detail = f"{levels} integers in column {column}"
    elif kind == "NaN":
        x[draw(st.integers(0, rows - 1)), column] = np.nan
    elif kind == "curve":
        shape = draw(st.sampled_from(["line", "parabola", "circle", "copy", "sine"]))
        t = generator.uniform(-3, 3, rows) * scale
        others = {"line": 2 * t + scale, "parabola": t**2, "circle": np.sqrt(9 * scale**2 - t**2), "copy": t,
                  "sine": np.sin(t / scale)}  # fmt: skip
        x[:, 0], x[:, 1] = t, others[shape]
        detail = shape
    named = splits if kind == "test rows in training" else {"x": x}
    suffix = "npz" if kind == "test rows in training" or draw(st.booleans()) else "npy"
    buffer, dtype = io.BytesIO(), draw(st.sampled_from(["f8", "f8", "f4"])) if kind != "outlier" else "f8"
    if suffix == "npz":
        np.savez(buffer, **{name: array.astype(dtype) for name, array in named.items()})
    else:
        np.save(buffer, named["x"].astype(dtype))
    model = draw(st.sampled_from([("--model", "GaussianModel"), MADE]))
    arguments = ("--data", "Arrays", "--data.path", f"x.{suffix}", *model, *QUICK, *ONE_EPOCH)
    recipe = f"{rows} rows of {columns} ({dtype}, scale {scale:g}), {kind}: {detail}"
    facts = {"is_sound": kind in SOUND, "kind": kind}
    return Case((Command("train", arguments),), {f"x.{suffix}": buffer.getvalue()}, recipe, facts, _check)


def _sound(kind: str, rows: int, columns: int, generator: np.random.Generator) -> np.ndarray:
    shape = (rows, columns)
    if kind == "correlated":
        return generator.normal(size=shape) @ np.linalg.cholesky(0.9 + 0.1 * np.eye(columns)).T
    if kind == "heavy tails":
        return generator.standard_t(5, shape)
    if kind == "mixture":
        return generator.normal(size=shape) * 0.5 + 4 * generator.integers(0, 3, (rows, 1))
    return generator.uniform(-2, 3, shape) if kind == "uniform" else generator.normal(size=shape)


def _check(case: Case, outcomes: list[CommandOutcome], folder: Path) -> str | None:
    (outcome,) = outcomes
    if outcome.code != 0:
        return f"sound data were refused: {outcome.output.strip()[-400:]}" if case.facts["is_sound"] else None
    results = results_in(folder / (outcome.run or "") / "results.json")
    if not results:
        return "there are no results"
    doubts = results["doubts"]
    if case.facts["is_sound"]:
        return f"there is a doubt of sound data: {doubts[0]}" if doubts else None
    return None if doubts else f"an nll of {results['nll']} and no doubt, of {case.recipe}"
