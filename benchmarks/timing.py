"""Times of several contenders that take turns, and ratios between them."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch

SLOW = 1.0
"""What takes longer, in seconds, is repeated less often than the others."""


@dataclass
class Timing:
    """Seconds of each turn of one contender, with what else is known of it.

    Args:
        seconds: NaN where it did not take part in a turn.
        memory_mb: peak of what torch allocates in one turn, in MiB.
        failed: why there is no time.
    """

    seconds: list[float] = field(default_factory=list)
    memory_mb: float = math.nan
    failed: str | None = None

    @property
    def median(self) -> float:
        taken = [s for s in self.seconds if not math.isnan(s)]
        return statistics.median(taken) if taken else math.nan


def take_turns(
    contenders: Mapping[str, Callable[[], object]], repeats: int, device: torch.device, say: Callable[[str], None]
) -> dict[str, Timing]:
    """Time every contender ``repeats`` times, each round in another order. Before, each runs four times, and the third
    time its memory is measured. One that raises is left out with its error; one that is slower than :data:`SLOW`
    takes part in three rounds; one slower than ten times that runs twice in all, and the second time counts."""
    timings = {name: Timing() for name in contenders}
    turns = dict.fromkeys(contenders, repeats)
    for name, run in contenders.items():
        say(f"{name}, first")
        try:
            _seconds(run, device)
            again = _seconds(run, device)  # what was compiled in the first time is there
            if again > 10 * SLOW:
                timings[name].seconds.append(again)
                turns[name] = 0
                continue
            timings[name].memory_mb = _memory_of(run, device)
            if _seconds(run, device) > SLOW:
                turns[name] = min(3, repeats)
        except Exception as error:
            timings[name].failed = failure(error)
    names = [name for name in contenders if timings[name].failed is None and turns[name]]
    for turn in range(repeats):
        say(f"turn {turn + 1} of {repeats}")
        for name in names[turn % len(names) :] + names[: turn % len(names)] if names else []:
            taken = _seconds(contenders[name], device) if turn < turns[name] else math.nan
            timings[name].seconds.append(taken)
    for timing in timings.values():
        timing.seconds += [math.nan] * (repeats - len(timing.seconds))
    return timings


def failure(error: Exception) -> str:
    """Why a contender has no time, in a few words."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    short_of = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
    return f"needs more memory than there is: {text}" if short_of else f"{type(error).__name__}: {text}"


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


_CPU = torch.profiler.ProfilerActivity.CPU


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's profiler writes to the process's standard error."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _memory_of(run: Callable[[], object], device: torch.device) -> float:
    """The peak of what torch allocates in one run, less what it frees, in MiB; NaN where it allocates nothing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with _quiet(), torch.profiler.profile(activities=[_CPU], profile_memory=True) as profile:
        run()
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(sizes)) / 2**20 if sizes else math.nan


@dataclass(frozen=True)
class Ratio:
    """Median of paired ratios and its 95 % interval, from as many turns."""

    median: float
    low: float
    high: float
    turns: int

    def __str__(self) -> str:
        interval = f"[{self.low:.2f}, {self.high:.2f}]" if self.turns > 1 else "(one turn)"
        return f"{self.median:.2f} {interval}"


def ratio(mine: Sequence[float], other: Sequence[float]) -> Ratio | None:
    """Of the turns that both took part in. The interval is the exact one for a median: between the order statistics
    whose ranks a binomial variable of as many fair tosses lies between with 95 %; all of them where there are few."""
    pairs = sorted(a / b for a, b in zip(mine, other, strict=True) if not math.isnan(a / b))
    n = len(pairs)
    if not n:
        return None
    if n == 1:  # what runs once is compared with all turns of the other
        only = statistics.median(a for a in mine if not math.isnan(a)) / statistics.median(
            b for b in other if not math.isnan(b)
        )
        return Ratio(only, only, only, 1)
    rank, total = 0, 0.025 * 2**n
    while rank < n // 2 and sum(math.comb(n, k) for k in range(rank + 1)) <= total:
        rank += 1
    rank = max(0, rank - 1)
    return Ratio(statistics.median(pairs), pairs[rank], pairs[n - 1 - rank], n)


def difference(mine: Sequence[float], other: Sequence[float]) -> float:
    """Median of paired differences in seconds."""
    return statistics.median(a - b for a, b in zip(mine, other, strict=True) if not math.isnan(a - b))


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """b of the least squares fit log y = a + b log x."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    return statistics.linear_regression(x, y).slope
