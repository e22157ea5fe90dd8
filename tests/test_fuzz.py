"""Odd configs, spoilt checkpoints and odd data end in a trained step or in one sentence."""

from __future__ import annotations

import pytest

from tests.test_cli import Run
from vaeflow.commands.fuzz import NUMBERS, draw, try_all
from vaeflow.fuzz import trial
from vaeflow.fuzz.cases import Case


@pytest.mark.parametrize(("kind", "number"), [("configs", 26), ("checkpoints", 12), ("arrays", 12)])
def test_odd_input_ends_in_a_step_or_a_sentence(kind: str, number: int) -> None:
    assert try_all(kind, number, seed=1, processes=1) == []


@pytest.mark.parametrize(
    ("code", "output", "changed", "wrong"),
    [
        (0, "trained", True, None),
        (0, "trained", False, "no parameter changed"),
        (1, "error: the file is damaged.", False, None),
        (2, "train.py: error: `x` is 1.", False, None),
        (1, "error: one thing.\nerror: another.", False, "2 sentences"),
        (1, "nothing", False, "0 sentences"),
        (70, "internal error, a defect of vaeflow: ValueError", False, "exit code 70"),
        (-9, "", False, "exit code -9"),
        (1, "error: one thing.\nTraceback (most recent call last)", False, "a traceback"),
        (None, "", False, "not over after"),
    ],
)
def test_the_verdict(
    code: int | None, output: str, changed: bool, wrong: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "run_in", lambda folder, case: (code, output, changed))
    found = trial.verdict(Case("train", ()))
    assert found is None if wrong is None else wrong in (found or "")


def test_the_same_seed_tries_the_same() -> None:
    one, again, other = (draw("configs", 20, seed) for seed in (0, 0, 1))
    assert one == again != other
    assert len(one) == 20
    assert set(NUMBERS) == {"configs", "checkpoints", "arrays"}


def test_an_unknown_kind(run: Run) -> None:
    code, output = run("fuzz", "--kinds", "pictures")
    assert code == 1
    assert "there is no kind pictures: there are configs, checkpoints, arrays." in output
