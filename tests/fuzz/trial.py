"""One trial, each command in a process of its own, and the verdict."""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tests.fuzz.case import Case, Change, Command, CommandOutcome, Snapshot, Step

SCRIPTS = Path(__file__).parents[2] / "scripts"
SECONDS, BYTES = 120, 12 * 2**30
"""The limits of a command: one that takes longer has failed; beyond this address space there is no memory."""
SECONDS_TO_END = 5.0
"""How long the processes that a command has started may outlive it."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["vaeflow.commands", "vaeflow.commands.messages"])


class Verdict(NamedTuple):
    """What came of a case.

    Args:
        wrong: what is wrong with how it ended; None where nothing is.
        trained: whether it trained a model.
    """

    wrong: str | None
    trained: bool


def verdict(case: Case, keep: Path | None = None) -> Verdict:
    """Try a case.

    Args:
        keep: a new folder in which its files stay.
    """
    with nullcontext(keep) if keep is not None else tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve() / "trial"
        folder.mkdir(parents=True)
        outcomes = run(case, folder)
        endings = (f"{outcome.command}: {wrong}" for outcome in outcomes if (wrong := wrong_ending(outcome)))
        wrong = next(endings, None) or case.check(case, outcomes, folder)
        return Verdict(wrong, any(outcome.code == 0 and outcome.trained for outcome in outcomes))


def wrong_ending(outcome: CommandOutcome) -> str | None:
    """What is wrong with how a command ended; None for a trained step or one sentence."""
    if outcome.code is None:
        return f"not over after {SECONDS} s"
    sentences = re.findall(r"^(?:error|[\w.]+\.py: error): .+", outcome.output, re.MULTILINE)
    if outcome.left_processes:
        what = "processes that it started are still there"
    elif "Traceback" in outcome.output:
        what = "a traceback"
    elif outcome.code == 0:
        is_unknown = outcome.command.script != "train" or not outcome.command.is_watched
        if is_unknown or outcome.trained or "usage:" in outcome.output:
            return None
        what = "no parameter changed, or one is not finite"
    elif outcome.code in (1, 2) and len(sentences) == 1:
        return None
    else:
        what = f"{len(sentences)} sentences"
    return f"exit code {outcome.code}, {what}: {outcome.output.strip()[-800:]}"


def run(case: Case, folder: Path) -> list[CommandOutcome]:
    """The outcomes of a case's commands, up to the first that needs a training that failed."""
    for name, content in case.files.items():
        _apply(Change("write", name, content=content), folder)
    outcomes: list[CommandOutcome] = []
    for step in case.steps:
        filled = _filled(step, folder, outcomes)
        if filled is None:
            break
        if isinstance(filled, Change):
            _apply(filled, folder)
            continue
        before = snapshot(folder)
        outcomes.append(replace(run_command(filled, folder), before=before, after=snapshot(folder)))
    return outcomes


def snapshot(folder: Path) -> Snapshot:
    """All files below a folder; links are not followed."""
    found = {}
    for above, folders, files in os.walk(folder):
        for name in [*files, *folders]:
            path = Path(above, name)
            key = str(path.relative_to(folder))
            if path.is_symlink():
                found[key] = b"link to " + os.fsencode(os.readlink(path))
            elif path.is_file():
                found[key] = path.read_bytes()
    return found


def run_command(command: Command, folder: Path) -> CommandOutcome:
    """Run a command in a process of its own; what it started and left behind is ended."""
    output = folder.with_name("output.txt")
    trained, code = _context.Value("i", 0, lock=False), _context.Value("i", -1, lock=False)
    process = _context.Process(target=_run, args=(folder, output, command, trained, code))
    process.start()
    assert process.pid is not None
    process.join(SECONDS)
    is_over = not process.is_alive()
    left = is_over and _outlived(process.pid)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
    text = output.read_text(errors="replace").replace("\r", "\n") if output.is_file() else ""
    output.unlink(missing_ok=True)
    found = code.value if code.value >= 0 else process.exitcode  # which is 255 where the fork server has lost it
    return CommandOutcome(command, found if is_over else None, text, bool(trained.value), left)


def _filled(step: Step, folder: Path, outcomes: list[CommandOutcome]) -> Any:
    """A step with its placeholders filled in; None if it needs a run and there is none."""
    runs = [folder / outcome.command.folder / outcome.run for outcome in outcomes if outcome.run]
    values = {"{folder}": folder, **({"{run}": runs[-1], "{run0}": runs[0]} if runs else {})}

    def fill(text: str) -> str:
        for name, value in values.items():
            text = text.replace(name, str(value))
        return text

    texts = (step.path, step.to) if isinstance(step, Change) else step.arguments
    if not runs and any("{run" in text for text in texts):
        return None
    if isinstance(step, Change):
        return replace(step, path=fill(step.path), to=fill(step.to))
    environment = {name: fill(value) for name, value in step.environment.items()}
    return replace(step, arguments=tuple(map(fill, step.arguments)), environment=environment)


def _apply(change: Change, folder: Path) -> None:
    path, to = folder / change.path, folder / change.to
    (to if change.do in ("move", "copy") else path).parent.mkdir(parents=True, exist_ok=True)
    if change.do == "write":
        path.write_bytes(change.content)
    elif change.do == "delete":
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif change.do == "move":
        path.rename(to)
    elif change.do == "copy":
        shutil.copytree(path, to) if path.is_dir() else shutil.copyfile(path, to)
    elif change.do == "link":
        path.symlink_to(change.to)
    elif path.exists():
        later = time.time() + 10
        os.utime(path, (later, later))


def _outlived(group: int) -> bool:
    """Whether processes of a group are still there after a while."""
    end = time.monotonic() + SECONDS_TO_END
    while _is_alive(group):
        if time.monotonic() > end:
            return True
        time.sleep(0.05)
    return False


def _is_alive(group: int) -> bool:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, of_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state not in "ZX":
                return True
    return False


def _run(folder: Path, output: Path, command: Command, trained: Any, code: Any) -> None:
    """The command, watched: whether a step changed parameters, which are finite, and its exit code."""
    import torch

    from vaeflow.commands import compare_runs, evaluate_checkpoint
    from vaeflow.commands.gallery import COMMANDS
    from vaeflow.commands.messages import main
    from vaeflow.models import LikelihoodModel

    os.setsid()  # what it starts is of one group, and found again
    torch.set_num_threads(1)
    place = folder / command.folder
    place.mkdir(parents=True, exist_ok=True)
    os.chdir(place)
    os.environ.update(command.environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    before: list[torch.Tensor] = []

    def end(self: Any) -> None:
        after = list(self.parameters())
        finite = all(bool(torch.isfinite(parameter).all()) for parameter in after)
        moved = any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        trained.value = finite and (moved or not self.is_trained_by_gradient)

    on_train_start = LikelihoodModel.on_train_start

    def start(self: Any) -> None:
        on_train_start(self)
        before[:] = [parameter.detach().clone() for parameter in self.parameters()]

    LikelihoodModel.on_train_start, LikelihoodModel.on_train_end = start, end  # type: ignore[method-assign]
    sys.argv = [str(SCRIPTS / f"{command.script}.py"), *command.arguments]
    try:
        main({**COMMANDS, "evaluate": evaluate_checkpoint, "compare": compare_runs}[command.script])
    except SystemExit as stop:
        code.value = int(stop.code or 0)
        raise
    code.value = 0
