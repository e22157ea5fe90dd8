"""``scaling.py``: what more devices would bring, from what a step and an all-reduce take here."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from tqdm import tqdm

from benchmarks.report import machine
from benchmarks.scaling import Cost, Link, fit, measure_link, time_training
from vaeflow.commands.arguments import AtLeastTwo, device, parser_of
from vaeflow.errors import VaeflowError

DEVICES = [2**k for k in range(11)]


def scaling() -> None:
    """Say what data-parallel training on 1 to 1,024 devices would bring, from the time of a step and of an all-reduce
    that are measured here: T(W, n) = a + b n + d + r(W) seconds for W devices with n examples each, where d is what
    DistributedDataParallel takes by itself, and r the all-reduce. Two to five minutes."""
    parser = parser_of("scaling.py", scaling)
    add = parser.add_argument
    add("--config", type=str, required=True, help="what is trained, as train.py takes it")
    add("--more", type=str, default="", help='further options of train.py, such as "--model.flow.steps 8"')
    add("--batch", type=PositiveInt, default=128, help="examples that all devices share, or that each has")
    add("--batches", type=list[PositiveInt], default=[32, 64, 128, 256, 512], help="at which one device is timed")
    add("--steps", type=PositiveInt, default=150, help="of each training that is timed")
    gpus = torch.cuda.device_count()
    add("--processes", type=AtLeastTwo, default=max(2, gpus), help="among which an all-reduce is timed")
    add("--per_machine", type=PositiveInt, default=8, help="devices of one machine")
    add("--within", type=list[float] | None, default=None,
        help="GB/s and µs of a machine's own link, such as [200, 10]; by default measured")  # fmt: skip
    add("--between", type=list[float] | None, default=None,
        help="the same between machines; by default [25, 20] for GPUs, for CPUs as within one")  # fmt: skip
    add("--json", type=str | None, default=None, help="where all numbers are written")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args()
    if len(set(args.batches)) < 2:
        raise VaeflowError("--batches needs two sizes or more: a line is laid through their times.")
    on_cuda = device() == "cuda"
    within = None if args.within is None else _link(args.within, "--within")
    between = Link(25e9, 20e-6) if on_cuda else None
    if args.between is not None:
        between = _link(args.between, "--between")
    if within is None and on_cuda and gpus < args.processes:
        raise VaeflowError(f"there are {gpus} GPUs, too few to time their link: give --within, such as [200, 10].")

    typed = ["--config", args.config, *shlex.split(args.more)]
    can_run_all = not on_cuda or gpus >= args.processes
    shared = [args.batch, args.batch * args.processes] if can_run_all and args.batch % args.processes == 0 else []
    sizes = sorted(set(args.batches))
    seconds, measured = [], {}
    copies = 1 if on_cuda else args.processes  # cores share the memory: they are all busy, as they will be together
    with tqdm(total=len(sizes) + 1 + len(shared) + (within is None), leave=False) as bar:
        for size in sizes:
            bar.set_description(f"batch {size}")
            taken, parameters = time_training(typed, size, 1, args.steps, copies)
            seconds.append(taken)
            bar.update()
        fixed, per_example = fit(sizes, seconds)
        bar.set_description("DistributedDataParallel")
        size = min(sizes, key=lambda size: abs(size - args.batch))
        alone, _ = time_training([*typed, "--trainer.strategy", "ddp"], size, 1, args.steps, copies)
        bookkeeping = max(0.0, alone - seconds[sizes.index(size)])
        bar.update()
        if within is None:
            bar.set_description("all-reduce")
            within = measure_link(4 * parameters, args.processes, device())
            bar.update()
        for size in shared:
            bar.set_description(f"{args.processes} processes, batch {size}")
            measured[size], _ = time_training(typed, size, args.processes, args.steps)
            bar.update()
    cost = Cost(fixed, per_example, bookkeeping, 4 * parameters, within, between or within, args.per_machine)
    report = {
        "machine": machine(torch.device(device())),
        "command": typed,
        "seconds": dict(zip(sizes, seconds, strict=True)),
        "cost": asdict(cost),
        "measured": {"processes": args.processes, "seconds": measured},
    }  # fmt: skip
    print(_text(cost, args, report))
    if args.json is not None:
        Path(args.json).write_text(json.dumps(report, indent=1))


def _link(numbers: list[float], option: str) -> Link:
    if len(numbers) != 2 or not (numbers[0] > 0 and numbers[1] >= 0):
        raise VaeflowError(f"{option} is {numbers}, expected GB/s and µs, such as [25, 20].")
    return Link(numbers[0] * 1e9, numbers[1] * 1e-6)


def _text(cost: Cost, args: Any, report: dict[str, Any]) -> str:
    """The table, in Markdown."""
    batch, processes, measured = args.batch, args.processes, report["measured"]["seconds"]
    how = "given" if args.within is not None else f"measured with {processes} processes"
    between = "the same" if cost.between == cost.within else _shown(cost.between)
    between += " (given)" if args.between else " (assumed)"
    lines = [
        f"{args.config} on {report['machine']['device']}, one thread for a process on CPUs",
        f"step: {cost.fixed * 1e3:.2f} ms + {cost.per_example * 1e6:.1f} µs for each example, and "
        f"{cost.bookkeeping * 1e3:.2f} ms where devices share it; gradient: {cost.num_bytes / 1e6:.2f} MB",
        *(f"  batch {size}: {t * 1e3:.2f} ms, by the line {cost.step(1, size) * 1e3:.2f} ms"
          for size, t in report["seconds"].items()),
        f"link within a machine of {cost.per_machine}: {_shown(cost.within)} ({how}); "
        f"between machines: {between}",
        *(f"  {processes} processes, {size} examples together: {t * 1e3:.2f} ms, by the model "
          f"{cost.step(processes, size / processes) * 1e3:.2f} ms" for size, t in measured.items()),
        "",
        f"| devices | {batch} together: step | times faster | efficiency | {batch} each: step | efficiency |",
        "|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for devices in DEVICES:
        strong = cost.strong(devices, batch)
        together = f"{cost.step(devices, batch / devices) * 1e3:.2f} ms | {devices * strong:.2f} | {strong:.0%}"
        lines.append(
            f"| {devices} | {together if devices <= batch else '– | – | –'} "
            f"| {cost.step(devices, batch) * 1e3:.2f} ms | {cost.weak(devices, batch):.0%} |"
        )
    most = cost.pays_up_to(batch)
    lines += ["", f"A batch of {batch} keeps {most} device{'s' * (most > 1)} busy for half of the time or more."]
    return "\n".join(lines)


def _shown(link: Link) -> str:
    return f"{link.bandwidth / 1e9:.3g} GB/s, {link.latency * 1e6:.3g} µs"
