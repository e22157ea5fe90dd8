"""What was measured, as a table for a terminal or a Markdown file, and as JSON."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from benchmarks.timing import Ratio, Timing, difference, failure, ratio
from benchmarks.work import FLOOR, FUSED, Goal, Work
from vaeflow.records.provenance import name_of

LIBRARIES = ("torch", "numba", "nflows", "normflows", "zuko", "pyro-ppl", "FrEIA", "pythae")


def result_of(work: Work, timings: dict[str, Timing]) -> dict[str, Any]:
    """All that was measured of one work, in plain types."""
    best = best_peer(timings)
    rows = {}
    for name, timing in timings.items():
        to_floor = _ratio_of(timings, name, FLOOR + FUSED if name.endswith(FUSED) else FLOOR)
        rows[name] = {
            "median_seconds": timing.median,
            "seconds": timing.seconds,
            "memory_mb": timing.memory_mb,
            "failed": timing.failed,
            "to_floor": None if to_floor is None else vars(to_floor),
            "round_trip_error": None if timing.failed or name not in work.errors else _error(work.errors[name]),
            "per_second": work.items / timing.median if work.items else None,
        }
    rows |= {name: {"failed": why} for name, why in work.failed.items()}
    goals = [_goal(goal, timings, best) for goal in work.goals]
    return {"case": work.case, "work": work.name, "best_peer": best, "goals": goals, "contenders": rows}


def _error(round_trip: Callable[[], float]) -> float | str:
    try:
        return round_trip()
    except Exception as error:  # whatever a library raises in the direction that is not timed
        return f"failed: {failure(error)}"


def best_peer(timings: dict[str, Timing]) -> str | None:
    """The contender of another library with the least median."""
    peers = {name: timing.median for name, timing in timings.items() if _is_library(name)}
    known = {name: median for name, median in peers.items() if not math.isnan(median)}
    return min(known, key=known.__getitem__) if known else None


def _is_library(name: str) -> bool:
    return name in ("nflows", "normflows", "zuko", "pyro", "FrEIA", "pythae")


def _goal(goal: Goal, timings: dict[str, Timing], best: str | None) -> dict[str, Any]:
    than = best if goal.than == "best peer" else goal.than
    if goal.in_addition:
        seconds = difference(timings[goal.who].seconds, timings[goal.than].seconds)
        return {**vars(goal), "measured": seconds, "met": seconds <= goal.at_most}
    measured = _ratio_of(timings, goal.who, than)
    return {
        "who": goal.who,
        "than": f"{goal.than}, {than}" if goal.than == "best peer" else goal.than,
        "at_most": goal.at_most,
        "measured": None if measured is None else vars(measured),
        "met": measured is not None and measured.median <= goal.at_most,
    }


def _ratio_of(timings: dict[str, Timing], name: str, than: str | None) -> Ratio | None:
    if name == than or than not in timings or name not in timings or timings[name].failed or timings[than].failed:
        return None
    return ratio(timings[name].seconds, timings[than].seconds)


def markdown(result: dict[str, Any]) -> str:
    """One work as a heading, a table and its goals."""
    contenders = result["contenders"]
    with_errors = any(row.get("round_trip_error") is not None for row in contenders.values())
    with_rates = "importance" in result["work"]
    head = ["", "time", "of the floor [95 %]", "memory"]
    head += ["round trip"] * with_errors + ["per second"] * with_rates
    lines = [f"### {result['case']}: {result['work']}", "", _row(head), _row(["---", *["---:"] * (len(head) - 1)])]
    for name, row in contenders.items():
        if row.get("failed"):
            lines.append(_row([name, f"failed: {row['failed']}", *[""] * (len(head) - 2)]))
            continue
        cells = [name, duration(row["median_seconds"]), _interval(row["to_floor"]), mebibytes(row["memory_mb"])]
        if with_errors:
            error = row["round_trip_error"]
            cells.append("–" if error is None else error if isinstance(error, str) else f"{error:.1e}")
        if with_rates:
            cells.append(f"{row['per_second']:,.0f}")
        lines.append(_row(cells))
    for goal in result["goals"]:
        met = "met" if goal["met"] else "**not met**"
        if goal.get("in_addition"):
            said = f"{goal['who']} ≤ {goal['than']} + {goal['at_most']:.1f} s: {goal['measured']:+.2f} s"
        else:
            said = f"{goal['who']} ≤ {goal['at_most']:.2f} × {goal['than']}: {_interval(goal['measured'])}"
        lines += ["", f"{said}, {met}."]
    return "\n".join([*lines, ""])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _interval(measured: dict[str, Any] | None) -> str:
    return "–" if measured is None else str(Ratio(**measured))


def mebibytes(value: float) -> str:
    """A size of memory."""
    return "–" if math.isnan(value) else f"{value:.{0 if value >= 10 else 1}f} MiB"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if math.isnan(seconds):
        return "–"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.{1 if seconds >= 0.01 else 2}f} ms"


def machine(device: torch.device) -> dict[str, Any]:
    """Where it was measured, and with what."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "device": name_of(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        "system": platform.system(),
        "versions": versions,
    }
