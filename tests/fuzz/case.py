"""What a trial consists of: files, commands typed one after another, changes to the files in between, and a check."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Snapshot = dict[str, bytes]
"""The content of every file of a trial by its path; of a symbolic link, where it points."""


@dataclass(frozen=True)
class Command:
    """A script and what is typed after it.

    In arguments and environment, ``{folder}`` stands for the trial's folder, ``{run}`` for the folder of the latest
    training that succeeded, and ``{run0}`` for that of the first one.

    Args:
        script: its name, without the ending.
        arguments: typed after it.
        environment: variables that are set.
        folder: where it is typed, below the trial's folder.
        is_watched: whether a training can be watched: not if it takes place in a process that starts from nothing.
    """

    script: str
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "."
    is_watched: bool = True

    def __str__(self) -> str:
        place = [] if self.folder == "." else [f"cd {shlex.quote(self.folder)} &&"]
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*place, *variables, "python", f"scripts/{self.script}.py", *map(shlex.quote, self.arguments)])


@dataclass(frozen=True)
class Change:
    """A change to the files between two commands; its paths may have the same placeholders as a command.

    Args:
        do: what happens to ``path``.
        path: below the trial's folder.
        to: the new path, or what a link points to.
        content: that is written.
    """

    do: Literal["write", "delete", "move", "copy", "link", "touch"]
    path: str
    to: str = ""
    content: bytes = b""

    def __str__(self) -> str:
        return shlex.join([self.do, self.path, *([self.to] if self.to else [])])


Step = Command | Change


@dataclass(frozen=True)
class CommandOutcome:
    """How a command ended.

    Args:
        command: with its placeholders filled in.
        code: its exit code; None where it was not over in time.
        output: stdout and stderr.
        trained: whether parameters changed and are finite.
        left_processes: whether processes that it started outlived it.
        before, after: the files of the trial.
    """

    command: Command
    code: int | None
    output: str
    trained: bool = False
    left_processes: bool = False
    before: Snapshot = field(default_factory=dict)
    after: Snapshot = field(default_factory=dict)

    @property
    def run(self) -> Path | None:
        """The folder in which a training says that its results are, from where it was typed."""
        found = re.search(r"^results\s+(\S.*)$", self.output, re.MULTILINE)
        return Path(found[1]).parent if found and self.command.script == "train" and self.code == 0 else None


def no_more(case: Case, outcomes: list[CommandOutcome], folder: Path) -> str | None:
    """The check of cases whose commands have to end well and nothing else."""
    return None


@dataclass(frozen=True)
class Case:
    """One thing to try.

    Args:
        steps: commands and changes, in order. A step that needs the folder of a training that failed ends the trial.
        files: that are there at first, by name.
        recipe: how the files were made, in words.
        facts: what ``check`` has to know.
        check: given the case, the outcomes of its commands and its folder, what is wrong; None if nothing is.
    """

    steps: tuple[Step, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    recipe: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    check: Callable[[Case, list[CommandOutcome], Path], str | None] = no_more


def single(script: str, arguments: tuple[str, ...], files: dict[str, bytes] | None = None) -> Case:
    """A case of one command."""
    return Case((Command(script, arguments),), files or {})
