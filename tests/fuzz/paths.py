"""Folders of runs that are spelt in any way, and what is typed after a first training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from tests.fuzz.case import Case, Change, Command, CommandOutcome, Step
from tests.fuzz.small import MADE, ONE_EPOCH, QUICK, TOY, TWO_EPOCHS, lost_files, results_in
from vaeflow.records.checkpoint import read

WORK = "work"
"""Where commands are typed; beside it are the folders that ``..``, ``~`` and the links lead to."""
ENVIRONMENT = {"HOME": "{folder}/home", "WHERE": "{folder}/where"}
ROOTS = {
    "runs": "work/runs",
    "~/runs": "home/runs",
    "~/my runs/": "home/my runs",
    "~": "home",
    "$WHERE/runs": "where/runs",
    "${WHERE}/runs": "where/runs",
    "{folder}/absolute/runs": "absolute/runs",
    "{folder}/absolute//runs/": "absolute/runs",
    "../beside/runs": "beside/runs",
    "./runs/../other": "work/other",
    "runs/": "work/runs",
    "runs//deep/.": "work/runs/deep",
    "my runs": "work/my runs",
    "läufe": "work/läufe",
    "ランス/🚀": "work/ランス/🚀",
    "linked": "elsewhere/real",
    "linked/deep/": "elsewhere/real/deep",
    "runs=1": "work/runs=1",
    "ru'ns": "work/ru'ns",
    "a#b": "work/a#b",
    "%s{0}": "work/%s{0}",
    ".": "work",
}
"""How a folder of runs is typed, and where it is, below the trial's folder."""
ODD_ROOTS = ["$NOWHERE/runs", "~nobody_known/runs", "dangling", "runs ", "", "null", "1", "true", "file.txt"]
"""What may be refused or mean anything, as long as nothing is lost."""
EXPERIMENTS = ["mine", "a/b", "mein Lauf", "läufe", "x=1", "mine.v2", "version_3"]
ODD_EXPERIMENTS = ["..", "../up", "~", "$WHERE", "mine/", "./mine", "0", "null", ".", "", "a//b", "/absolute"]
SAVE_DIRS = ["csv", "~/csv", "{folder}/logs", "$WHERE/logs", "logs dir/", "../logs", "linked"]
THERE = ["version_9/notes.txt", "version_10/notes.txt", "version_a/notes.txt", "version_007/x", "version_٣/x",
         "version_-1/x", "version_/x", "notes.txt", "version_4", "version_0/config.yaml",
         "version_2/checkpoints/mine.txt", "version_5/hparams.yaml"]  # fmt: skip
BAD = [("--model.hidden", "[-3]"), ("--trainer.max_epochs", "0"), ("--model.optimizer.lr", "nan"), ("--no_key", "1"),
       ("--data.num_train", "0"), ("--trainer.gradient_clip_val", "1e-300"), ("--trainer.limit_train_batches", "0"),
       ("--ckpt_path", "nowhere.ckpt"), ("--trainer.precision", "16-true")]  # fmt: skip


@st.composite
def paths(draw: Any) -> Case:
    """A training whose folder is spelt in any way, perhaps beside the user's own files, and what is typed next."""
    is_odd = draw(st.integers(0, 4)) == 0
    root = draw(st.sampled_from(ODD_ROOTS) if is_odd and draw(st.booleans()) else st.sampled_from(sorted(ROOTS)))
    some = [*EXPERIMENTS, *ODD_EXPERIMENTS] if is_odd else [None, *EXPERIMENTS]
    experiment = draw(st.sampled_from(some))
    logger, save_dir = draw(_logger())
    files = {f"{WORK}/file.txt": b"mine", "home/notes.txt": b"mine", "elsewhere/real/notes.txt": b"mine"}
    typed = draw(st.sampled_from(["equals", "words", "words" if "{folder}" in root else "config"]))
    given: tuple[str, ...] = (*MADE, *TOY, *QUICK)
    if typed == "config":
        config = {"trainer": {"default_root_dir": root}, "model": "MADE"}
        files[f"{WORK}/settings.yaml"] = yaml.safe_dump(config, allow_unicode=True).encode()
        given = ("--config", "settings.yaml", *given)
    elif typed == "words" and root:
        given = (*given, "--trainer.default_root_dir", root)
    else:
        given = (*given, f"--trainer.default_root_dir={root}")
    if experiment is not None:
        given = (*given, f"--experiment={experiment}")
    given = (*given, *logger)
    name = experiment if experiment is not None else "settings" if typed == "config" else "unnamed"
    steps: list[Step] = [Change("link", f"{WORK}/linked", "../elsewhere/real"),
                         Change("link", f"{WORK}/dangling", "../nowhere")]  # fmt: skip
    if root in ROOTS and not is_odd:
        below = "" if save_dir is None else draw(st.sampled_from(["lightning_logs/", ""]))
        home = f"{ROOTS[root]}/{name}" if save_dir is None else f"{_place(save_dir)}/{below}"
        there = draw(st.lists(st.sampled_from(THERE), max_size=3, unique=True))
        steps += [Change("write", f"{home}/{path}", content=b"mine") for path in there]
        if draw(st.integers(0, 3)) == 0:
            steps += [Change("link", f"{home}/version_12", "{folder}/elsewhere/real")]
    train = _command("train", *given, *ONE_EPOCH)
    steps += [train]
    if draw(st.integers(0, 3)) == 0:
        steps += [_command("train", *given, *ONE_EPOCH, *draw(st.sampled_from(BAD)))]
    follow = draw(st.sampled_from(["resume", "resume newest", "evaluate", "compare", "again"]))
    if follow == "resume newest":
        steps += [train, Change("touch", "{run0}/checkpoints/last.ckpt")]
    if follow.startswith("resume"):
        steps += [_command("train", *given, *TWO_EPOCHS, "--ckpt_path", "last")]
    elif follow == "evaluate":
        which = ("--ckpt", "{run}/checkpoints/best.ckpt") if save_dir else (f"--runs={root}", f"--experiment={name}")
        steps += [_command("evaluate", *which, "--accelerator", "cpu", "--json", "out.json")]
    elif follow == "compare":
        steps += [_command("compare", root if save_dir is None else "{run}")]
    else:
        steps += [train]
    recipe = f"{experiment=} in {root=}, given by {typed}, then {follow}"
    is_odd |= root == "~" and typed != "equals"  # which is null in YAML
    return Case(tuple(steps), files, recipe, {"is_odd": is_odd}, _check)


@st.composite
def _logger(draw: Any) -> tuple[tuple[str, ...], str | None]:
    """What is typed of loggers, and the folder of their own that they have, if any."""
    kind = draw(st.sampled_from(["default", "default", "true", "false", "CSVLogger", "TensorBoardLogger", "several"]))
    if kind in ("default", "true", "false"):
        return () if kind == "default" else ("--trainer.logger", kind), None
    save_dir = draw(st.sampled_from(SAVE_DIRS))
    if kind == "several":
        classes = draw(st.permutations(["CSVLogger", "TensorBoardLogger"]))
        parts = [f'{{class_path: {name}, init_args: {{save_dir: "{save_dir}"}}}}' for name in classes]
        return ("--trainer.logger", f"[{', '.join(parts)}]"), save_dir
    arguments = ("--trainer.logger", kind, f"--trainer.logger.save_dir={save_dir}")
    more = draw(st.sampled_from([(), (), ("--trainer.logger.name", "mine"), ("--trainer.logger.version", "1"),
                                 ("--trainer.logger.version", "final")]))  # fmt: skip
    return (*arguments, *more), save_dir


def _command(script: str, *arguments: str) -> Command:
    return Command(script, arguments, ENVIRONMENT, WORK)


def _place(save_dir: str) -> str:
    """Where a logger's own folder is, below the trial's."""
    known = {"~/csv": "home/csv", "{folder}/logs": "logs", "$WHERE/logs": "where/logs", "../logs": "logs"}
    return known.get(save_dir, f"{WORK}/{save_dir.rstrip('/')}")


def _check(case: Case, outcomes: list[CommandOutcome], folder: Path) -> str | None:
    trained: list[CommandOutcome] = []
    for outcome in outcomes:
        resumed = None
        if outcome.command.script == "train":
            is_resumed = "--ckpt_path" in outcome.command.arguments and "last" in outcome.command.arguments
            wrong = _wrong_training(outcome, folder, case.facts["is_odd"])
            if is_resumed and trained and not wrong:
                wrong = _wrong_resumption(outcome, trained[-1], folder)
                resumed = _where(outcome, folder)
            if outcome.code and not is_resumed and not case.facts["is_odd"] and not trained:
                wrong = f"it could not be trained: {outcome.output.strip()[-400:]}"
            trained += [outcome] if outcome.code == 0 else []
        else:
            wrong = None if case.facts["is_odd"] else _wrong_successor(outcome, trained, folder)
        if wrong := wrong or lost_files(outcome, resumed):
            return wrong if wrong.startswith(str(outcome.command)) else f"{outcome.command}: {wrong}"
    return None


def _where(outcome: CommandOutcome, folder: Path) -> str | None:
    """The folder of a training's results, below the trial's, by its own output and with links followed."""
    if outcome.run is None:
        return None
    return os.path.relpath(os.path.realpath(folder / outcome.command.folder / outcome.run), folder)


def _wrong_training(outcome: CommandOutcome, folder: Path, is_odd: bool) -> str | None:
    """What is not there that a training said is, or there as it was typed."""
    if outcome.code != 0:
        return None
    place = _where(outcome, folder)
    if place is None:
        return "it does not say where its results are"
    for name in ("config.yaml", "checkpoints/last.ckpt", "checkpoints/best.ckpt", "results.json"):
        if f"{place}/{name}" not in outcome.after:
            return f"there is no {name} in {place}, where its results are said to be"
    literal = next((path for path in outcome.after if "~" in Path(path).parts or "$WHERE" in path), None)
    return f"a folder is called as it was typed: {literal}" if literal and not is_odd else None


def _wrong_resumption(outcome: CommandOutcome, before: CommandOutcome, folder: Path) -> str | None:
    """Why a training did not go on in the run with the highest number."""
    if outcome.code != 0:
        return f"it was not resumed: {outcome.output.strip()[-400:]}"
    runs = Path(_where(before, folder) or "").parent
    numbers = {path.parts[len(runs.parts)]: path for path in map(Path, outcome.before)
               if path.is_relative_to(runs) and path.match("*/checkpoints/last.ckpt")}  # fmt: skip
    versions = {int(name.removeprefix("version_")): name for name in numbers
                if name.startswith("version_") and name.removeprefix("version_").isdecimal()}  # fmt: skip
    expected = runs / versions[max(versions)] if versions else Path(_where(before, folder) or "")
    if _where(outcome, folder) != str(expected):
        return f"it went on in {_where(outcome, folder)}, expected {expected}"
    new = {Path(path).parts[: len(runs.parts) + 1] for path in outcome.after if Path(path).is_relative_to(runs)}
    old = {Path(path).parts[: len(runs.parts) + 1] for path in outcome.before if Path(path).is_relative_to(runs)}
    if new != old:
        return f"it made {sorted('/'.join(parts) for parts in new - old)}"
    return None if _steps(outcome.after, expected) > _steps(outcome.before, expected) else "its step count did not grow"


def _steps(files: dict[str, bytes], run: Path) -> int:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".ckpt") as file:
        file.write(files[str(run / "checkpoints/last.ckpt")])
        file.flush()
        return int(read(file.name)["global_step"])


def _wrong_successor(outcome: CommandOutcome, trained: list[CommandOutcome], folder: Path) -> str | None:
    """What is wrong with how a run was evaluated or compared, unless a run that failed at its end is the newest."""
    best = {path for path in outcome.before if path.endswith("checkpoints/best.ckpt")}
    if not trained or len(best) > len(trained):
        return None
    if outcome.code != 0:
        return f"it did not find what was trained: {outcome.output.strip()[-400:]}"
    if outcome.command.script == "compare":
        return "a run was left out" if "left out" in outcome.output else None
    runs = [results_in(folder / (_where(training, folder) or "") / "results.json") for training in trained]
    nll = results_in(folder / WORK / "out.json")["nll"]
    return None if nll == runs[-1]["nll"] else f"the nll is {nll}, after training it was {runs[-1]['nll']}"
