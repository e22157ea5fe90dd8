"""Random input of all kinds ends in a trained step or in one sentence, and the checks of the fuzzer can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import trial
from tests.fuzz.case import Case, Change, Command, CommandOutcome
from tests.fuzz.command import NUMBERS, draw, strategy_of, try_all
from tests.fuzz.inputs import ONE_STEP
from tests.fuzz.small import lost_files
from tests.fuzz.text import texts
from tests.test_cli import Run

TRAIN = Command("train", ())


TRIALS = {"configs": 13, "checkpoints": 6, "arrays": 6, "paths": 5, "replaced": 5, "tables": 5, "pictures": 5,
          "trainer": 5}  # fmt: skip


@pytest.mark.parametrize("seed", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", TRIALS)
def test_random_input(kind: str, seed: int) -> None:
    failed, trained = try_all(kind, TRIALS[kind], seed=seed, processes=1)
    assert failed == []
    assert trained >= 1 or kind == "checkpoints" or seed > 1  # else nothing was tested but refusals


def test_random_tables_are_read_as_they_were_written() -> None:
    wrong = [verdict.wrong for verdict in map(trial.verdict, draw(texts(), range(300), 1))]
    assert [sentence for sentence in wrong if sentence] == []


@pytest.mark.parametrize(
    ("outcome", "wrong"),
    [
        (CommandOutcome(TRAIN, 0, "trained", trained=True), None),
        (CommandOutcome(TRAIN, 0, "trained"), "no parameter changed"),
        (CommandOutcome(TRAIN, 1, "error: the file is damaged."), None),
        (CommandOutcome(TRAIN, 2, "train.py: error: `x` is 1."), None),
        (CommandOutcome(TRAIN, 1, "error: one thing.\nerror: another."), "2 sentences"),
        (CommandOutcome(TRAIN, 1, "nothing"), "0 sentences"),
        (CommandOutcome(TRAIN, 70, "internal error, a defect of vaeflow: ValueError"), "exit code 70"),
        (CommandOutcome(TRAIN, -9, ""), "exit code -9"),
        (CommandOutcome(TRAIN, 1, "error: one thing.\nTraceback (most recent call last)"), "a traceback"),
        (CommandOutcome(TRAIN, 0, "trained", trained=True, left_processes=True), "still there"),
        (CommandOutcome(TRAIN, None, ""), "not over after"),
    ],
)
def test_wrong_endings(outcome: CommandOutcome, wrong: str | None) -> None:
    found = trial.wrong_ending(outcome)
    assert found is None if wrong is None else wrong in (found or "")


def test_steps_follow_each_other(tmp_path: Path) -> None:
    """A run is trained, moved and evaluated, in an environment of its own; then a step fails for want of a file."""
    train = Command("train", ("--config", "vae", *ONE_STEP, "--trainer.default_root_dir={folder}/mine"), {"A": "1"})
    evaluate = Command("evaluate", ("--ckpt", "moved/checkpoints/last.ckpt", "--num-samples", "1"))
    steps = (train, Change("move", "{run}", "moved"), evaluate, Change("delete", "moved"), evaluate)
    case = Case(steps, {"mine/notes.txt": b"mine"})
    trained, evaluated, refused = trial.run(case, tmp_path)
    assert (trained.code, evaluated.code, refused.code) == (0, 0, 1)
    assert trained.trained
    assert str(trained.run) == f"{tmp_path}/mine/vae/version_0"
    assert "mine/vae/version_0/results.json" in trained.after
    assert "moved/results.json" in evaluated.before
    assert "mine/notes.txt" in evaluated.after
    assert str(train).startswith("A=1 python scripts/train.py --config vae")
    assert trial.run(Case((Change("delete", "{run}"), train)), tmp_path / "other") == []  # there is no run yet


def test_lost_files() -> None:
    def lost(before: bytes, after: bytes | None, name: str, resumed: str | None = None) -> str | None:
        files = {} if after is None else {name: after}
        return lost_files(CommandOutcome(TRAIN, 0, "", before={name: before}, after=files), resumed)

    assert lost(b"mine", b"mine", "notes.txt") is None
    assert "notes.txt is gone" in (lost(b"mine", None, "notes.txt") or "")
    assert "notes.txt is changed" in (lost(b"mine", b"yours", "notes.txt", "runs") or "")
    assert lost(b"curve", b"curves", "runs/events.out.tfevents.1", "runs") is None
    assert lost(b"curve", b"new", "runs/events.out.tfevents.1", "runs") is not None
    assert lost(b"1\n2\n", b"3\n", "runs/metrics.csv", "runs") is not None
    assert lost(b"one", b"two", "runs/checkpoints/last.ckpt", "runs") is None
    assert lost(b"one", b"two", "other/checkpoints/last.ckpt", "runs") is not None


def test_processes_that_outlive_a_command_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS_TO_END", 0.2)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    assert trial._outlived(process.pid)
    process.communicate(b"\n")
    assert not trial._outlived(process.pid)


def test_what_is_read_of_a_table_is_compared() -> None:
    def wrong(text: bytes, matrix: object) -> str | None:
        (case,) = draw(texts(), [0], 0)
        facts = {"matrix": matrix, "also": None}
        return trial.verdict(Case((), {"x.csv": text}, facts=facts, check=case.check)).wrong

    text = b"x,y\n" + b"".join(b"%d.5,1.25\n" % row for row in range(12))
    matrix = tuple(sorted((row + 0.5, 1.25) for row in range(12)))
    assert wrong(text, matrix) is None
    assert "expected 11 of 2" in (wrong(text, matrix[1:]) or "")
    assert "cannot be read" in (wrong(text, None) or "")
    assert wrong(text + b"red,1\n", None) is None  # it is refused


@pytest.mark.parametrize("kind", [kind for kind in NUMBERS if kind != "checkpoints"])
def test_the_same_seed_tries_the_same(kind: str) -> None:
    one, again, other = (draw(strategy_of(kind), range(5), seed) for seed in (0, 0, 1))
    assert one == again != other
    assert draw(strategy_of(kind), [3], 0) == one[3:4]


def test_the_files_of_a_case_can_be_kept(run: Run, tmp_path: Path) -> None:
    place = next(place for place, case in enumerate(draw(strategy_of("tables"), range(20), 0)) if not case.steps)
    code, output = run("fuzz", "--kinds", "tables", "--only", place, "--keep", "kept")
    assert code == 0, output
    assert "1 tried" in output
    assert list((tmp_path / f"kept/tables_{place}/trial").iterdir())
    code, output = run("fuzz", "--kinds", "tables", "--only", place, "--keep", "kept")
    assert code == 1
    assert "--keep is kept, which exists already" in output


def test_an_unknown_kind(run: Run) -> None:
    code, output = run("fuzz", "--kinds", "sounds")
    assert code == 1
    assert "there is no kind sounds: there are configs, checkpoints, arrays" in output
