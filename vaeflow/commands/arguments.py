"""What the commands that start from a checkpoint share: which one it is, of which data, and where pictures go."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from vaeflow.checkpoint import load, load_data
from vaeflow.data import DataModule
from vaeflow.data.examples import own_examples
from vaeflow.errors import VaeflowError
from vaeflow.figures.style import check_outputs
from vaeflow.messages import Parser
from vaeflow.models import LikelihoodModel


def add_checkpoint(parser: Parser, several: bool = False) -> None:
    """Options that name a checkpoint, and what its data may have become since."""
    add = parser.add_argument
    many: dict[str, Any] = {"nargs": "+"} if several else {}
    s = "s" if several else ""
    add("--ckpt", type=str, default=None, help=f"the checkpoint{s}", **many)
    add("--experiment", type=str, default=None, help=f"instead: the best of the newest run{s} of this name", **many)
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
    return [Path(ckpt) for ckpt in ckpts] + [newest(Path(args.runs), name) for name in experiments]


def newest(runs: Path, experiment: str) -> Path:
    """The best checkpoint of the newest run of an experiment."""
    found = list(Path(runs, experiment).glob("version_*/checkpoints/best.ckpt"))
    if not found:
        all_runs = runs.rglob("version_*/checkpoints/best.ckpt")
        others = sorted({str(path.parents[2].relative_to(runs)) for path in all_runs})
        there = f"there are {', '.join(others)}" if others else "there are no runs there"
        raise VaeflowError(f"there is no run {experiment} with a best.ckpt in {runs}: {there}.")
    return max(found, key=lambda path: int(path.parents[1].name.rpartition("_")[2]))


def open_checkpoint(path: Path, args: Namespace, **overrides: Any) -> tuple[LikelihoodModel, DataModule]:
    """A checkpoint's model, on the device at hand, and its data, with some of their arguments replaced."""
    moved = {"root": args.root, "path": args.path, **overrides}
    data = {name: value for name, value in moved.items() if value is not None}
    model = load(path, args.trust).to("cuda" if torch.cuda.is_available() else "cpu")
    return model, load_data(path, args.trust, **data)


def add_output(parser: Parser, name: str, endings: Sequence[str]) -> None:
    """Options of where a picture goes."""
    add = parser.add_argument
    add("--out", type=str | None, default=None, help=f"the picture, {', '.join(endings)}; by default pictures/{name} in the run's folder")  # noqa: E501  # fmt: skip
    add("--force", action="store_true", help="overwrite files that are there already")
    add("--batch-size", type=PositiveInt, default=256, help="examples that go through the model at once")


def output_of(
    args: Namespace, checkpoint: Path, name: str, endings: Sequence[str], more: Sequence[str] = ()
) -> list[Path]:
    """Where the picture goes, and what else is written beside it under the endings ``more``; looked at before the work.

    Raises:
        VaeflowError: for an ending that is none of a picture, a file that is there, or a folder that cannot be written.
    """
    run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    out = Path(args.out) if args.out is not None else run / "pictures" / name
    if out.suffix not in endings:
        raise VaeflowError(f"--out is {out}, expected a name that ends in one of {', '.join(endings)}.")
    paths = [out, *(out.with_suffix(ending) for ending in more)]
    check_outputs(paths, args.force)
    return paths


def add_examples(parser: Parser, what: str) -> None:
    """Options that choose examples."""
    add = parser.add_argument
    add("--index", type=int, nargs="+", default=[], help=f"of {what} in their split")
    add("--label", type=str, nargs="+", default=[], help="take the first examples of these labels, in this order")
    add("--file", type=str, nargs="+", default=[], help="examples of your own: pictures, .npy or .npz (with --label of each, for a class-conditional model)")  # noqa: E501  # fmt: skip
    add("--split", type=str, default="test", help="train, val or test")


def chosen_examples(args: Namespace, model: LikelihoodModel, data: DataModule, count: int) -> tuple[Tensor, Tensor]:
    """The examples ``(n, *shape)`` that were asked for, and labels ``(n,)``: those of ``--index``, those in ``--file``,
    the first ``count`` of each ``--label``, one of each in turn, or else the first of the split.

    Args:
        count: of each label, or of all.
    """
    if args.index and (args.file or args.label):
        raise VaeflowError("--index names examples by itself: leave out --label and --file.")
    if args.file:
        x = own_examples([Path(path) for path in args.file], model.shape, model.levels)
        if args.label and len(args.label) != len(x):
            raise VaeflowError(f"there are {len(args.label)} labels for {len(x)} examples of your own.")
        if model.context_features and not args.label:
            raise VaeflowError("this model is class-conditional: give --label for each of the examples of your own.")
        return x, torch.tensor([label_of(data, name) for name in args.label] or [0] * len(x))
    if args.label:
        of_each = [data.of_class(args.split, name)[:count] for name in args.label]
        few = min(zip(of_each, args.label, strict=True), key=lambda pair: len(pair[0]))
        if len(few[0]) < count:
            raise VaeflowError(
                f"the {args.split} split has {len(few[0])} examples with the label {few[1]}, not {count}."
            )
        return data.examples(args.split, torch.stack(of_each, dim=1).flatten())
    return data.examples(args.split, torch.tensor(args.index) if args.index else torch.arange(count))


def label_of(data: DataModule, name: str) -> int:
    """The label with a name."""
    data.of_class("train", name)
    return data.class_names.index(name)


def title_of(checkpoint: Path, model: LikelihoodModel, data: DataModule) -> str:
    """What a picture says it is of: experiment, model and data."""
    name = checkpoint.parents[2].name if checkpoint.parent.name == "checkpoints" else checkpoint.stem
    return f"{name} ({type(model).__name__} on {data.label})"
