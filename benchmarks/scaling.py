"""What data-parallel training costs on W devices: a model of three terms, and how its numbers are measured."""

from __future__ import annotations

import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import distributed

from vaeflow.errors import VaeflowError

TRAIN = Path(__file__).parents[1] / "scripts" / "train.py"
LINE = 5
"""Steps from one line of the log to the next, while steps are timed."""


@dataclass(frozen=True)
class Link:
    """What the sum of a gradient over processes goes through.

    Args:
        bandwidth: bytes per second that one process sends, and receives, at the same time.
        latency: seconds until the first of them is there.
    """

    bandwidth: float
    latency: float

    def seconds(self, num_bytes: float, world_size: int) -> float:
        """Of an all-reduce. Each of W processes sends 2 (W − 1)/W of the bytes, as a ring does, which is the least
        possible (Patarasuk and Yuan, 2009), and waits 2 ⌈log₂ W⌉ times, as along a tree:
        r = 2 (W − 1)/W · bytes / bandwidth + 2 ⌈log₂ W⌉ · latency."""
        return (
            2 * (world_size - 1) / world_size * num_bytes / self.bandwidth
            + 2 * (world_size - 1).bit_length() * self.latency
        )


@dataclass(frozen=True)
class Cost:
    """Seconds of one training step, in which W processes have n examples each: T(1, n) = a + b n, and
    T(W, n) = a + b n + d + r(W).

    That gradients are summed while others are still computed is left out, and so is waiting for the slowest process: an
    estimate, not a bound.

    Args:
        fixed: a, seconds of a step whatever its batch: starting operations, the optimizer, the loop.
        per_example: b, seconds for each example more.
        bookkeeping: d, seconds that DistributedDataParallel takes by itself.
        num_bytes: of the gradient.
        within: the link between devices of one machine.
        between: that between machines, of each of them.
        per_machine: devices of one machine.
    """

    fixed: float
    per_example: float
    bookkeeping: float
    num_bytes: int
    within: Link
    between: Link
    per_machine: int = 8

    def step(self, world_size: int, per_device: float) -> float:
        """T(W, n) in seconds."""
        compute = self.fixed + self.per_example * per_device
        if world_size == 1:
            return compute
        link = self.within if world_size <= self.per_machine else self.between
        return compute + self.bookkeeping + link.seconds(self.num_bytes, world_size)

    def strong(self, world_size: int, batch: float) -> float:
        """Efficiency with one global batch B shared out: T(1, B) / (W · T(W, B/W))."""
        return self.step(1, batch) / (world_size * self.step(world_size, batch / world_size))

    def weak(self, world_size: int, batch: float) -> float:
        """Efficiency with B examples for each device, a global batch of W · B: T(1, B) / T(W, B)."""
        return self.step(1, batch) / self.step(world_size, batch)

    def pays_up_to(self, batch: float, most: int = 1024) -> int:
        """The most devices, a power of two, with one global batch and an example each, that are not idle for more than
        half of the time."""
        sizes = [2**k for k in range(most.bit_length()) if 2**k <= batch]
        return max(size for size in sizes if self.strong(size, batch) >= 0.5)


def fit(batches: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """a and b of a + b n, neither below zero, with the least squares of relative errors."""
    n, t = np.asarray(batches, float), np.asarray(seconds, float)
    b, a = np.polyfit(n, t, 1, w=1 / t)
    if b < 0:
        return float((1 / t).sum() / (1 / t**2).sum()), 0.0
    return (float(a), float(b)) if a >= 0 else (0.0, float((n / t).sum() / (n**2 / t**2).sum()))


# ---------------------------------------------------------------------------------------------------- what is measured


def time_training(arguments: Sequence[str], batch: int, devices: int, steps: int, copies: int = 1) -> tuple[float, int]:
    """The median seconds of a step of ``train.py``, with all that belongs to it, and how many parameters there are.
    On CPUs a process has one thread.

    Args:
        batch: that of all devices together.
        copies: trainings at once, which know nothing of each other but share the machine's memory.

    Raises:
        VaeflowError: if it cannot train so.
    """
    if copies > 1:
        with ThreadPoolExecutor(copies) as pool:
            timed = list(pool.map(lambda _: time_training(arguments, batch, devices, steps), range(copies)))
        return statistics.mean(seconds for seconds, _ in timed), timed[0][1]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, str(TRAIN), *arguments, f"--data.batch_size={batch}", f"--trainer.devices={devices}",
            f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1", "--trainer.limit_val_batches=0",
            f"--trainer.log_every_n_steps={LINE}", f"--trainer.default_root_dir={folder}", "--experiment=timed",
            "--num_samples=0", "--pictures.every=0", "--checkpoint_every=1000000000",
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if "error:" in line] or done.stderr.splitlines()[-1:]
            raise VaeflowError(f"train.py with a batch of {batch} on {devices} devices: {' '.join(said)}")
        parameters = re.search(r" of ([\d,]+) parameters", done.stdout)
        assert parameters is not None
        return median_step(Path(folder, "timed", "version_0")), int(parameters[1].replace(",", ""))


def median_step(run: Path) -> float:
    """Seconds, by the lines of a run's log, of which the first ones are left out."""
    logged = EventAccumulator(str(run)).Reload()
    events = logged.Scalars("train/objective") if "train/objective" in logged.Tags()["scalars"] else []
    taken = [(b.wall_time - a.wall_time) / (b.step - a.step) for a, b in itertools.pairwise(events)]
    if len(taken) < 4:
        raise VaeflowError(f"{run} has {len(events)} lines in its log, too few to time steps: take more steps.")
    return statistics.median(taken[2:])


def measure_link(num_bytes: int, processes: int, device: str, repeats: int = 21) -> Link:
    """Bandwidth and latency of an all-reduce between processes on this machine, of a float32 array of so many bytes
    and of a single number."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (processes, device, num_bytes, repeats, folder)
        torch.multiprocessing.spawn(_all_reduce, arguments, nprocs=processes)
        small, large = torch.load(Path(folder, "seconds"), weights_only=True)
    if large <= small:
        raise VaeflowError(f"an all-reduce of {num_bytes:,} bytes takes no longer than one of 4: give --within.")
    latency = small / (2 * (processes - 1).bit_length())
    return Link(2 * (processes - 1) / processes * num_bytes / (large - small), latency)


def _all_reduce(rank: int, processes: int, device: str, num_bytes: int, repeats: int, folder: str) -> None:
    """One of the processes; the first one writes the medians of both sizes."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "nccl" if device == "cuda" else "gloo", f"file://{folder}/meeting", timedelta(minutes=2), processes, rank
    )
    where = torch.device(device, rank) if device == "cuda" else torch.device(device)
    medians = []
    for count in (1, max(1, num_bytes // 4)):
        values: Any = torch.zeros(count, device=where)
        taken = []
        for _ in range(repeats + 3):
            distributed.barrier()
            start = time.perf_counter()
            distributed.all_reduce(values)
            values[0].item()  # waits for a GPU
            taken.append(time.perf_counter() - start)
        medians.append(statistics.median(taken[3:]))
    if rank == 0:
        torch.save(medians, Path(folder, "seconds"))
    distributed.destroy_process_group()
