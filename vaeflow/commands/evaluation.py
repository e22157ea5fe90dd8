"""``evaluate.py`` and ``compare.py``: what a checkpoint's likelihood is, and which run's is the best."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from vaeflow.commands.arguments import add_checkpoint, checkpoints_of, open_checkpoint, parser_of
from vaeflow.commands.training import stoppable
from vaeflow.errors import VaeflowError
from vaeflow.evaluation import compare
from vaeflow.evaluation.evaluate import best_accelerator, evaluate, evaluation_trainer
from vaeflow.evaluation.partial import cache
from vaeflow.evaluation.results import table, write_results
from vaeflow.figures import comparison
from vaeflow.machine.launch import as_launched, check_devices
from vaeflow.machine.quiet import quiet
from vaeflow.records.checkpoint import read, weights_of


def evaluate_checkpoint() -> None:
    """Estimate the log-likelihood of a checkpoint's model by importance sampling."""
    parser = parser_of("evaluate.py", evaluate_checkpoint)
    add_checkpoint(parser)
    add = parser.add_argument
    add(
        "--num-samples",
        type=PositiveInt | None,
        default=None,
        help="K samples for each example: by default 1000 of a VAE's latents, 1 of dequantisation noise, whatever "
        "train.py was given",
    )
    add("--split", type=str, default="test", help="train, val or test")
    add("--json", type=str | None, default=None, help="write the results to this file")
    add("--seed", type=NonNegativeInt, default=0, help="of the noise")
    add("--memory-mb", type=PositiveFloat, default=256.0, help="what one chunk of samples may compute, in MiB")
    add("--batch-size", type=PositiveInt | None, default=None, help="examples at once; by default as in training")
    add("--limit", type=PositiveInt | None, default=None, help="only so many examples, the first ones")
    add("--accelerator", type=str, default=best_accelerator(), help="cpu, gpu, …; by default the best at hand")
    add("--devices", type=PositiveInt, default=1, help="processes, each on a device of its own")
    add("--shard", type=Literal["examples", "samples"], default="examples", help="what they share")
    add("--precision", type=Literal["32", "64"], default="32", help="bits of the model's numbers; sums have 64")
    add("--time-sampling", action="store_true", help="measure how long 64 samples take, for compare.py")
    args = parser.parse_args()
    if args.json is not None and (Path(args.json).is_dir() or Path(args.json).suffix != ".json"):
        raise VaeflowError(f"--json is {args.json}, expected a file whose name ends in .json, such as out.json.")
    (path,) = checkpoints_of(args, parser)
    model, data = open_checkpoint(path, args, batch_size=args.batch_size)
    seconds = _training_seconds(path)
    with quiet():
        devices, num_nodes = as_launched(args.devices)
        precision = "64-true" if args.precision == "64" else "32-true"
        trainer = evaluation_trainer(
            accelerator=args.accelerator, devices=devices, num_nodes=num_nodes, precision=precision
        )
    asked = (args.num_samples, args.split, args.seed, args.memory_mb, args.limit)
    check_devices(trainer)
    with stoppable(trainer, lambda: "stopped; a long one goes on from its last minute if the same is asked again."):
        results = evaluate(model, data, *asked, trainer, args.shard, cache(), args.time_sampling)
    if not trainer.is_global_zero:
        return
    results.update(checkpoint=str(path), weights=weights_of(path, read(path)), training_seconds=seconds)
    print(f"\n{table(results)}")
    if args.json is not None:
        write_results(Path(args.json), results)
        print(f"\nresults     {args.json}")


def _training_seconds(path: Path) -> float | None:
    """How long the run of a checkpoint was trained: up to its last checkpoint, where that lies beside this one."""
    try:
        checkpoint = read(path.with_name("last.ckpt"))
    except VaeflowError:
        checkpoint = read(path)
    return checkpoint.get("callbacks", {}).get("Timer", {"time_elapsed": {}})["time_elapsed"].get("train")


def compare_runs() -> None:
    """Rank all runs below some folders, each among those that it is comparable with."""
    parser = parser_of("compare.py", compare_runs)
    parser.add_argument("folders", type=str, nargs="+", help="folders with runs, such as runs/")
    parser.add_argument(
        "--out", type=str | None, default=None, help="folder for compare.md, compare.png and the TensorBoard run; "
        "by default the first of the folders"
    )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args()
    if args.out is not None and Path(args.out).is_file():
        raise VaeflowError(f"--out is {args.out}, which is a file, expected a folder.")
    runs, complaints = compare.find_runs(args.folders)
    groups = compare.comparable(runs)
    paths = comparison.write(groups, Path(args.out or args.folders[0]))
    print("\n".join([compare.as_text(groups), "", *complaints]))
    for name, path in zip(("page", "picture", "TensorBoard"), paths, strict=True):
        print(f"{name:<12}{path}")
