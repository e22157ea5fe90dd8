"""What the user of a command is told when something is wrong: one sentence, and an exit code that says whose it is."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import NoReturn

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.optim import lr_scheduler

import vaeflow.bijections
import vaeflow.data
import vaeflow.distributions
import vaeflow.models
import vaeflow.nets
from vaeflow.callbacks import Pictures
from vaeflow.configs import config_names
from vaeflow.errors import VaeflowError


def main(command: Callable[[], None]) -> None:
    """Run a script: an error is one sentence, and the exit code says whose it is.

    0: done; 1: something the user can mend; 2: wrong usage; 70: a defect of vaeflow; 130: stopped with Ctrl-C.
    """
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    noise = (
        "does not have many workers",
        "Checkpoint directory .* exists and is not empty",
        "your dataloader is not resumable",  # it is, by another way
        "LeafSpec.* is deprecated",
        "recommended to use .*sync_dist",  # the metrics are in step already
    )
    for message in noise:  # of Lightning's, about what is meant to be so
        warnings.filterwarnings("ignore", message=f".*{message}")
    sys.path.append(os.getcwd())  # your own classes, named in a config as module.Class
    debug = "--debug" in sys.argv
    try:
        command()
    except KeyboardInterrupt as stop:
        print(f"\n{stop or 'stopped.'}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if debug:
            raise
        mendable = _mendable(error)
        if mendable is not None:
            print(f"error: {' '.join(str(mendable).split())}", file=sys.stderr)
            sys.exit(1)
        reason = traceback.format_exception_only(error)[0].strip().splitlines()[0]
        print(f"internal error, a defect of vaeflow: {reason} (--debug shows the traceback)", file=sys.stderr)
        sys.exit(70)


def _mendable(error: BaseException | None) -> BaseException | None:
    """What the user can mend behind an error, ours or Lightning's: jsonargparse wraps what a constructor raises."""
    while error is not None and not isinstance(error, (VaeflowError, MisconfigurationException)):
        error = error.__cause__ or error.__context__
    return error


class Parser(LightningArgumentParser):
    """Says what is wrong in one sentence, with the nearest valid key, and exits with 2."""

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
    if "arguments are required: data, model" in message:
        return f"there is no model to train: give --config with one of {', '.join(config_names())}."
    value = re.search(r"(?:Got|Given) value: (.*?)(?:\. Got value: .*)?$", message, re.MULTILINE)
    before = message[: value.start()] if value else message
    key = ".".join(re.findall(r'Parser key "([\w.]+)"', before))
    unknown = re.search(r"Option '([\w.]+)' is not accepted|unrecognized arguments: --([\w.]+)", message)
    if unknown:
        name = unknown[1] or unknown[2]
        keys = {part for option in options for part in option.split(".")}
        if "config" in options:
            keys |= set(_keys())
        wrong = next((part for part in name.split(".") if part not in keys), name)
        return f"there is no key `{key + '.' if key else ''}{name}`{_near(wrong, keys)}"
    types = re.findall(r"Expected (?:a )?(?:<class '([\w.]+)'>|typing\.Literal\[(.*?)\]|(?=dot import path))", before)
    expected = list(dict.fromkeys((t or choices).replace("NoneType", "null") for t, choices in types if t or choices))
    missing_class = re.search(r"dot import path string: ([\w.]+)", before)
    if missing_class and set(expected) <= {"null"}:
        return f"`{key}` is {missing_class[1]}, which is no class known here{_near(missing_class[1], set(_classes()))}"
    if value and key and expected:
        return f"`{key}` is {value[1]}, expected {' or '.join(expected)}."
    return [line.strip(" -") for line in message.splitlines() if line.strip(" -")][-1]


def _near(word: str, words: set[str]) -> str:
    near = difflib.get_close_matches(word, sorted(words - {word}), 1)
    return f"; did you mean `{near[0]}`?" if near else "."


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
