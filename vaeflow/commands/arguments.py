"""What the commands that start from a checkpoint share: which one it is, of which data, and where pictures go."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse.typing import PositiveInt, restricted_number_type
from torch import Tensor

from vaeflow.callbacks.averaging import AVERAGED
from vaeflow.commands.messages import Parser
from vaeflow.data import DataModule, ImageFolder
from vaeflow.data.examples import own_examples
from vaeflow.data.pictures import Background
from vaeflow.errors import VaeflowError
from vaeflow.evaluation.evaluate import check_fits
from vaeflow.figures.style import FIGURES, check_outputs, shortened
from vaeflow.files import find_files
from vaeflow.latents import LatentSpace, has_codes
from vaeflow.models import LikelihoodModel
from vaeflow.records.checkpoint import load, load_data, named
from vaeflow.records.runs import BEST, runs_of

AtLeastTwo = restricted_number_type("AtLeastTwo", int, (">=", 2))


def parser_of(script: str, command: Callable[[], None]) -> Parser:
    """A command's parser, described by its docstring."""
    return Parser(prog=script, description=command.__doc__ or "", allow_abbrev=False)


def words_of(given: Sequence[str]) -> list[str]:
    """What was given with commas or blanks between, each once; if that is nothing, what was given."""
    return list(dict.fromkeys(re.findall(r"[^\s,]+", " ".join(given)))) or list(given)


def check_known(what: str, chosen: Collection[str], known: Collection[str]) -> None:
    """Raise a :class:`VaeflowError` that names the first of what was chosen that is not known."""
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise VaeflowError(f"there is no {what} {unknown[0]}: there are {', '.join(known)}.")


# ------------------------------------------------------------------------------------------------ which checkpoint


def add_checkpoint(parser: Parser, several: bool = False) -> None:
    """Options that name a checkpoint, and what its data may have become since."""
    add = parser.add_argument
    many: dict[str, Any] = {"nargs": "+"} if several else {}
    s = "s" if several else ""
    add("--ckpt", type=str, default=None, help=f"the checkpoint{s}", **many)
    add(
        "--experiment",
        type=str,
        default=None,
        help=f"instead: the checkpoint{s} that the newest run{s} of this name was evaluated with",
        **many,
    )
    add("--runs", type=str, default="runs", help="folder of all runs")
    add("--root", type=str | None, default=None, help="folder of the data, if they have moved")
    add("--path", type=str | None, default=None, help="file of the data, if it has moved")
    add("--trust", type=str, nargs="*", default=[], help="further packages whose classes the checkpoint may name")
    add("--debug", action="store_true", help="show the traceback of an error")


def checkpoints_of(args: Namespace, parser: Parser) -> list[Path]:
    """The checkpoints that were asked for, by their paths or by their experiments.

    Raises:
        VaeflowError: if there is no run of that name.
    """
    ckpts, experiments = ([value] if isinstance(value, str) else value or [] for value in (args.ckpt, args.experiment))
    if bool(ckpts) == bool(experiments):
        parser.error("give --ckpt with a checkpoint's path, or --experiment with the name of a run.")
    return [named(ckpt) for ckpt in ckpts] + [newest(Path(args.runs), name) for name in experiments]


def newest(runs: Path, experiment: str) -> Path:
    """The checkpoint of the newest run of an experiment that its results are of: the best, or, where
    StochasticWeightAveraging was asked for, averages."""
    found = runs_of(runs, experiment, BEST)
    if not found:
        others = sorted({str(path.parents[2].relative_to(runs)) for path in find_files(runs, BEST)})
        there = f"there are {', '.join(others)}" if others else "there are no runs there"
        raise VaeflowError(f"there is no run {experiment} with a best.ckpt in {runs}: {there}.")
    averaged = (found[-1] / BEST).with_name(AVERAGED)
    with suppress(OSError, ValueError, KeyError, TypeError):
        if Path(json.loads((found[-1] / "results.json").read_text())["checkpoint"]).name == AVERAGED:
            return averaged if averaged.is_file() else found[-1] / BEST
    return found[-1] / BEST


def open_checkpoint(path: Path, args: Namespace, **overrides: Any) -> tuple[LikelihoodModel, DataModule]:
    """A checkpoint's model, and its data, set up, with some of their arguments replaced."""
    model, moved = load(path, args.trust), {"root": args.root, "path": args.path, **overrides}
    data = load_data(path, args.trust, **{name: value for name, value in moved.items() if value is not None})
    data.setup("")
    check_fits(model, data)
    return model, data


def device() -> str:
    """Where models of pictures go: the GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def run_name(checkpoint: Path, runs: str) -> str:
    """The name of the experiment that a checkpoint is of, or else its own."""
    if checkpoint.parent.name != "checkpoints":
        return checkpoint.stem
    experiment = checkpoint.parents[2]
    return str(experiment.relative_to(runs)) if experiment.is_relative_to(runs) else experiment.name


def space_of(model: LikelihoodModel, name: str = "z") -> LatentSpace:
    """A model's latent space of a name.

    Raises:
        VaeflowError: if it has none, or no such.
    """
    spaces = model.latent_spaces if has_codes(model) else {}
    if not spaces:
        raise VaeflowError(
            f"{type(model).__name__} has no latent space to go through: its data are no function of one code."
        )
    if name not in spaces:
        raise VaeflowError(f"--space is {name}, but this model has {' and '.join(spaces)} alone.")
    return spaces[name]


# -------------------------------------------------------------------------------------------------- which examples


def add_examples(parser: Parser, what: str) -> None:
    """Options that choose examples."""
    add = parser.add_argument
    add("--index", type=int, nargs="+", default=[], help=f"of {what} in their split")
    add("--label", type=str, nargs="+", default=[], help="take the first examples of these labels, by turns")
    add("--file", type=str, nargs="+", default=[], help="examples of your own: pictures, .npy or .npz")
    add("--invert", action="store_true", help="examples of your own are dark where the data are light")
    add("--split", type=str, default="test", help="train, val or test")


def chosen_examples(
    args: Namespace, model: LikelihoodModel, data: DataModule, num: int | None, default: int, at_once: int = 1
) -> tuple[Tensor, Tensor]:
    """The examples ``(n, *shape)`` that were asked for, and labels ``(n,)``: those of ``--index``; those in ``--file``,
    whose labels are ``--label``; the first of each ``--label``, by turns; or else the first of the split.

    Args:
        num: how many the user asks for, of each label, or of all; None for ``default``, or what there is.
        at_once: examples that each of them has, where no labels are given.
    """
    count = num or default
    if args.index and (args.file or args.label):
        raise VaeflowError("--index names examples by itself: leave out --label and --file.")
    if args.file:
        background: Background = getattr(data, "background", "white")
        x = own_examples(
            [Path(path) for path in args.file], model.shape, model.levels, background, isinstance(data, ImageFolder)
        )
        if args.invert and model.levels is None:
            raise VaeflowError("--invert is for integers: these data are real numbers.")
        x = model.levels - 1 - x if args.invert and model.levels is not None else x
        if args.label and len(args.label) != len(x):
            raise VaeflowError(f"there are {len(args.label)} labels for {len(x)} examples of your own.")
        if model.context_features and not args.label:
            raise VaeflowError("this model is class-conditional: give --label for each of the examples of your own.")
        return x, torch.tensor([data.label_of(name) for name in args.label] or [0] * len(x))
    if args.label:
        of_each = []
        for place, name in enumerate(args.label):
            found, before = data.of_class(args.split, name), count * args.label[:place].count(name)
            if len(found) < before + count:
                few = f"{len(found)} examples with the label {name}"
                raise VaeflowError(f"the {args.split} split has {few}, not {before + count}.")
            of_each.append(found[before : before + count])  # a label that comes again has other examples
        return data.examples(args.split, torch.stack(of_each, dim=1).flatten())
    if args.index:
        return data.examples(args.split, torch.tensor(args.index))
    there = data.count(args.split) // at_once
    if num is not None and num > there:
        raise VaeflowError(f"--num is {num}, but the {args.split} split has {data.count(args.split)} examples.")
    return data.examples(args.split, torch.arange(at_once * min(count, there)))


# ---------------------------------------------------------------------------------------------- where pictures go


def add_output(parser: Parser, name: str, folder: str = "pictures/ in the run's folder, or the file's") -> None:
    """Options of where a picture goes."""
    add = parser.add_argument
    add("--out", type=str | None, default=None, help=f"{', '.join(FIGURES)}; by default {name} in {folder}")
    add("--force", action="store_true", help="overwrite files that are there already")


def output_of(args: Namespace, name: str, checkpoint: Path | None = None, more: Sequence[str] = ()) -> list[Path]:
    """Where the picture goes, and what else is written beside it under the endings ``more``; looked at before the work.

    Args:
        name: of the file where ``--out`` names none: in the checkpoint's run, or, of no checkpoint, here.

    Raises:
        VaeflowError: for an ending that is none of a picture, a file that is there, or a folder that cannot be written.
    """
    folder = Path()
    if checkpoint is not None and checkpoint.parent.name == "checkpoints":
        folder = checkpoint.parents[1] / "pictures"
    elif checkpoint is not None:
        folder, name = checkpoint.parent / "pictures", f"{checkpoint.stem}_{name}"
    out = Path(args.out) if args.out is not None else folder / name
    if out.suffix not in FIGURES:
        raise VaeflowError(f"--out is {out}, expected a name that ends in one of {', '.join(FIGURES)}.")
    paths = [out, *(out.with_suffix(ending) for ending in more)]
    check_outputs(paths, args.force)
    return paths


class Opened(NamedTuple):
    """What a picture of one checkpoint starts from.

    Args:
        model, data: the checkpoint's.
        title: run, model and data, which the picture's own begins with.
        out: where the picture goes.
        beside: where what is written beside it goes.
    """

    model: LikelihoodModel
    data: DataModule
    title: str
    out: Path
    beside: list[Path]


def picture_parser(script: str, command: Callable[[], None], picture: str) -> Parser:
    """The parser of a command that draws one checkpoint's picture."""
    parser = parser_of(script, command)
    add_checkpoint(parser)
    add_output(parser, picture)
    return parser


def opened(parser: Parser, args: Namespace, picture: str, more: Sequence[str] = ()) -> Opened:
    """The checkpoint that was asked for, once it is known that its picture can be written.

    Args:
        picture, more: see :func:`output_of`.
    """
    (path,) = checkpoints_of(args, parser)
    model, data = open_checkpoint(path, args)
    out, *beside = output_of(args, picture, path, more)
    title = f"{shortened(run_name(path, args.runs))} ({type(model).__name__} on {shortened(data.label)})"
    return Opened(model.to(device()), data, title, out, beside)


def add_batch_size(parser: Parser) -> None:
    """The option that bounds the memory."""
    parser.add_argument("--batch-size", type=PositiveInt, default=256, help="examples in the model at once")


def say(**paths: Path) -> None:
    """What was written, on stdout."""
    for name, path in paths.items():
        print(f"{name:<12}{path}")
