"""What the user of a command is told when something is wrong: one sentence, and an exit code that says whose it is."""

from __future__ import annotations

import difflib
import errno
import inspect
import os
import re
import signal
import sys
import sysconfig
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.distributed import DistBackendError
from torch.optim import lr_scheduler

import vaeflow.bijections
import vaeflow.data
import vaeflow.distributions
import vaeflow.models
import vaeflow.nets
from vaeflow.callbacks import Pictures
from vaeflow.commands.configs import PATHS, config_names, expand_paths
from vaeflow.errors import Stopped, VaeflowError, VaeflowWarning
from vaeflow.machine.launch import forget_others
from vaeflow.machine.memory import keep_freed_memory
from vaeflow.machine.quiet import quiet

LIGHTNING = ("pytorch_lightning", "lightning_fabric")
OURS = str(Path(vaeflow.__file__).parent) + os.sep
SECONDS = 3.0
"""How long one of several processes keeps its error: the first one mostly has the same, says so and ends the others."""


def main(command: Callable[[], None]) -> None:
    """Run a script: an error is one sentence, and the exit code says whose it is.

    0: done; 1: something the user can mend, be it in code of their own; 2: wrong usage; 70: a defect of vaeflow;
    130: stopped with Ctrl-C, and 143 with SIGTERM.
    """
    keep_freed_memory()
    sys.path.append(os.getcwd())  # your own classes, named in a config as module.Class
    debug = "--debug" in sys.argv
    try:
        forget_others()
        with quiet(), _plain_warnings():
            command()
    except KeyboardInterrupt as stop:
        if getattr(rank_zero_only, "rank", 0) == 0:
            print(f"\n{str(stop) or 'stopped.'}", file=sys.stderr)
        sys.exit(128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if debug:
            raise
        if getattr(rank_zero_only, "rank", 0) != 0:
            time.sleep(SECONDS)
        if _is_lost(error):
            reason = str(error).splitlines()[0][:200]
            print(f"error: another process has ended, as it says, or cannot be reached ({reason}).", file=sys.stderr)
            sys.exit(1)
        if _is_of_memory(error):
            size = re.search(
                r"tried to allocate ([\d.]+ \w+)|Unable to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE
            )
            asked = f" for another {size[1] or size[2]}" if size else ""
            advice = "take smaller batches, a smaller model, or a lower memory limit of the evaluation"
            print(f"error: there is not enough memory{asked}: {advice}.", file=sys.stderr)
            sys.exit(1)
        cause = _unwrapped(error)
        said: Any = _mendable(error) or (_said_by_a_class(str(error)) if _place_in_user_code(cause) is None else None)
        if said is None and (_is_refused_by_lightning(cause) or _is_of_the_disk(cause)):
            said = cause
        if said is not None:
            print(f"error: {' '.join(str(said).split())}", file=sys.stderr)
            sys.exit(1)
        reason = traceback.format_exception_only(cause)[-1].strip().splitlines()[0]
        place = _place_in_user_code(cause)
        whose = f"error in {place}" if place else "internal error, a defect of vaeflow"
        print(f"{whose}: {reason} (--debug shows the traceback)", file=sys.stderr)
        sys.exit(1 if place else 70)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Within it our own warnings are a line each, said once by the first process."""
    show = warnings.showwarning

    def show_plainly(message: Any, category: type[Warning], *more: Any) -> None:
        if not issubclass(category, VaeflowWarning):
            show(message, category, *more)
        elif getattr(rank_zero_only, "rank", 0) == 0:
            print(f"warning: {message}", file=sys.stderr)

    warnings.showwarning = show_plainly  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.showwarning = show


def _is_lost(error: Exception) -> bool:
    """Whether this process has waited for another that is no longer there."""
    return isinstance(error, DistBackendError) or "gloo/transport" in str(error)


def _is_of_memory(error: Exception) -> bool:
    """Whether the device or this machine has too little memory."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)


def _is_refused_by_lightning(error: BaseException) -> bool:
    """Whether Lightning itself raises it, by a statement that does so, of what a user has asked of it: a library that
    is not installed, an argument of a callback, an environment."""
    place, statement = _raised_at(error)
    kinds = (ImportError, ValueError, RuntimeError, TypeError, NotImplementedError)
    is_lightning = any(f"{os.sep}{name}{os.sep}" in place for name in LIGHTNING)
    return isinstance(error, kinds) and is_lightning and statement.startswith("raise ")


def is_ours(error: BaseException) -> bool:
    """Whether it was vaeflow's code that raised an error, rather than a library that it called."""
    return _raised_at(error)[0].startswith(OURS)


def _raised_at(error: BaseException) -> tuple[str, str]:
    """The file that raised an error, and the statement."""
    frames = traceback.extract_tb(error.__traceback__)
    return (frames[-1].filename, frames[-1].line or "") if frames else ("", "")


def _is_of_the_disk(error: BaseException) -> bool:
    """Whether a file or folder of the user's cannot be written or read, no matter who tried."""
    numbers = (
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
    )
    return isinstance(error, OSError) and error.errno in numbers


def _unwrapped(error: BaseException) -> BaseException:
    """What a constructor raised, where jsonargparse reports it as a value that does not fit its type."""
    while str(error).startswith("Does not validate against") and (below := error.__cause__ or error.__context__):
        error = below
    return error


def _said_by_a_class(message: str) -> str | None:
    """What a constructor said, where jsonargparse keeps that alone, among the types that it has tried."""
    if not message.startswith("Does not validate against"):
        return None
    if found := re.search(r"Problem with given class_path '[\w.]+':\s+(.*)", message):
        return found[1]
    lines = re.findall(r"^ +- (?!Expected a |Does not validate )(.*)", message, re.MULTILINE)
    return lines[0] if lines else None


def _place_in_user_code(error: BaseException) -> str | None:
    """File and line of the user's own code, such as a bijection named in a config, that an error passed through."""
    libraries = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib"))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((OURS, *libraries, "<")):
            return f"{os.path.relpath(frame.filename)}, line {frame.lineno}"
    return None


def _mendable(error: BaseException | None) -> BaseException | None:
    """What the user can mend behind an error, ours or Lightning's: jsonargparse wraps what a constructor raises."""
    while error is not None and not isinstance(error, (VaeflowError, MisconfigurationException)):
        error = error.__cause__ or error.__context__
    return error


class Parser(LightningArgumentParser):
    """Says what is wrong in one sentence, with the nearest valid key, and exits with 2. Options may have hyphens or
    underscores."""

    def parse_args(self, args: Any = None, *others: Any, **options: Any) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        end = words.index("--") if "--" in words else len(words)  # what is after it are no options
        words[:end] = map(self._spelt, words[:end])
        return expand_paths(super().parse_args(words, *others, **options))

    def _spelt(self, word: str) -> str:
        """A word of the command line: an option of this parser by the name that it has here, others as they are."""
        name, equals, value = word.partition("=")
        others = [f"--{name[2:].replace(*characters)}" for characters in ("-_", "_-")]
        known = [other for other in (name, *others) if other in self._option_string_actions]
        if value == "~" and re.split("[.-]", name)[-1] in PATHS:  # which is null in YAML
            value = os.path.expanduser(value)
        return known[0] + equals + value if name.startswith("--") and known else word

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            super().error(message, ex)
        options = {option.lstrip("-") for action in self._actions for option in action.option_strings}
        print(f"{self.prog}: error: {_one_sentence(message, options)}", file=sys.stderr)
        self.exit(2)


def _one_sentence(message: str, options: set[str]) -> str:
    """What jsonargparse reports as a tree, as one sentence: the key at fault, what it was, and what it may be.

    Args:
        options: that the parser itself has; those of the classes that a config names are known here.
    """
    value = re.search(r"(?:Got|Given) value: (.*?)(?:\. Got value: .*)?$", message, re.MULTILINE)
    before = message[: value.start()] if value else message
    key = ".".join(re.findall(r'Parser key "([\w.]+)"', before))
    key = dashed if (dashed := key.replace("_", "-")) in options else key
    if found := re.search(r"arguments are required: ([\w, -]+)", message):
        if found[1].startswith("data, model"):
            return f"there is no model to train: give --config with one of {', '.join(config_names())}."
        first = found[1].split(", ")[0]
        return f"`{key}` needs `{first}`: add --{key}.{first} VALUE." if key else f"{found[1]} is required."
    if found := re.search(r"Option '([\w.]+)' is not accepted|unrecognized arguments: --([\w.-]+)", message):
        name = found[1] or found[2]
        if "config" not in options and name.rpartition(".")[2].replace("_", "-") in options:
            return f"there is no key `{name}`; did you mean `{name.rpartition('.')[2]}`?"
        keys = {part for option in options for part in option.split(".")}
        if "config" in options:
            keys |= set(_keys())
        wrong = next((part for part in name.split(".") if part not in keys), name)
        return f"there is no key `{key + '.' if key else ''}{name}`{_near(wrong, keys)}"
    if found := re.search(r"No module named '([\w.]+)'", message):
        return f"`{key}` names the module {found[1]}, which is not to be found."
    if found := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message):
        classes = {name for name, value in vars(sys.modules[found[1]]).items() if inspect.isclass(value)}
        return f"`{key}`: {found[1]} has no {found[2]}{_near(found[2], classes)}"
    if found := re.search(r"Expected '([\w.]+)' to be a subclass of <class '(\w+)'>", message):
        return f"`{key}` is {found[1]}, which is no {found[2]}."
    if found := re.search(
        r"Not of type \w+: (?:(\S+) )?does not conform to restriction v(>=?)(\S+)(?: and v<=(\S+))?", message
    ):
        got = found[1] or (value[1] if value else "out of range")
        least = f"{found[3]} or more" if found[2] == ">=" else f"more than {found[3]}"
        return f"`{key}` is {got}, expected {f'{found[3]} to {found[4]}' if found[4] else least}."
    if key == "trainer.callbacks" and value and re.fullmatch(r"[A-Za-z_][\w.]*", value[1]):
        callbacks = set(vars(sys.modules["pytorch_lightning.callbacks"]))
        return f"`{key}` is {value[1]}, which is no callback of Lightning{_near(value[1], callbacks)}"
    types = re.findall(r"Expected (?:a )?(?:<class '([\w.]+)'>|typing\.Literal\[(.*?)\])", before)
    names = {"NoneType": "null", "collections.abc.Sequence": "a list, such as [200, 200]"}
    expected = list(dict.fromkeys(names.get(name, name) or choices for name, choices in types))
    if (found := re.search(r"dot import path string: ([\w.]+)", before)) and set(expected) <= {"null"}:
        key = key or found.string.partition(":")[0].lstrip("-")
        return f"`{key}` is {found[1]}, which is no class known here{_near(found[1], set(_classes()))}"
    nested = max(re.findall(r"NestedArg\(key='([\w.]+)'", message), key=len, default="")
    if nested and set(expected) <= {"null"}:
        part, _, name = f"{key.split('.')[0]}.{nested}".rpartition(".")
        return f"`{part}` has no key `{name}`: name its class first, --{part} CLASS, or give --config."
    if value and key and expected:
        return f"`{key}` is {value[1]}, expected {' or '.join(expected)}."
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    if lines[0].startswith("Problems parsing config"):
        return f"the config is no YAML: {', '.join(lines[-2:])}"
    return lines[-1]


def _near(word: str, words: set[str]) -> str:
    by_lower_case = {other.lower(): other for other in sorted(words - {word})}
    near = difflib.get_close_matches(word.lower(), by_lower_case, 1)
    return f"; did you mean `{by_lower_case[near[0]]}`?" if near else "."


def _classes() -> dict[str, type]:
    """The classes that a config may name without a path."""
    homes = (
        vaeflow.models,
        vaeflow.data,
        vaeflow.bijections,
        vaeflow.nets,
        vaeflow.distributions,
        torch.optim,
        lr_scheduler,
    )
    return {name: cls for home in homes for name, cls in vars(home).items() if inspect.isclass(cls)}


def _keys() -> Iterator[str]:
    """Every part of a key that a config may have."""
    yield from ("class_path", "init_args")
    for cls in (Trainer, Pictures, *_classes().values()):
        yield from list(inspect.signature(cls.__init__).parameters)[1:]  # type: ignore[misc]
