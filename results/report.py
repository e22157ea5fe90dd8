"""A table of ``RESULTS.md``, out of the ``results.json`` of its runs."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.tables import Column, Published, Table


@dataclass(frozen=True)
class Outcome:
    """One run of a row, to its end.

    Args:
        seed: it was trained with.
        results: what ``results.json`` holds.
        devices: that it was trained on.
        commits: of the code that trained it, from its begin on.
    """

    seed: int
    results: Mapping[str, Any]
    devices: Sequence[str]
    commits: Sequence[str]


def samples_of(results: Mapping[str, Any]) -> float:
    """K of an evaluation; ∞ of one that is exact."""
    return math.inf if results["kind"] in ("exact", "reverse-kl") else float(results["num_samples"])


def outcome_of(run: Path, seed: int) -> Outcome:
    """Of a run's folder."""
    starts = json.loads((run / "run.json").read_text())
    devices = [f"{s['device']}, {s['threads']} thread{'s' * (s['threads'] > 1)}" for s in starts]
    commits = [s["git_commit"][:7] + "+" * s["git_commit"].endswith("+") if s["git_commit"] else "?" for s in starts]
    return Outcome(seed, json.loads((run / "results.json").read_text()), devices, commits)


def markdown(name: str, table: Table, found: Mapping[str, Sequence[Outcome]], old: str = "") -> str:
    """The section of a table: one line for each row, and the commands behind them. A row that nothing was found of
    keeps its line of the old section, if that had the same columns, command and published figures."""
    columns = [(column, _figures(table, column)) for column in table.columns]
    header = ["row"]
    for column, figures in columns:
        header += [column.title, "published"] if figures else [column.title]
    header += ["reached", "parameters", "seeds", "trained in", "on", "commit"]
    lines = [_line(header), _line(["---", *["---:"] * (len(header) - 3), "---", "---"])]
    stood = {cells[0]: cells for line in old.splitlines() if len(cells := line.strip("| ").split(" | ")) == len(header)}
    for row in table.rows:
        outcomes = found.get(row, [])
        cells = [f"`{row}`"]
        for column, figures in columns:
            cells.append(_measured(table, column, outcomes))
            if figures:
                cells.append(str(figures.get(row, "–")))
        if outcomes:
            results = [outcome.results for outcome in outcomes]
            cells += [
                _reached(table, row, outcomes),
                f"{results[0]['num_parameters']:,}",
                ", ".join(str(outcome.seed) for outcome in outcomes),
                _duration(statistics.mean(r["training_seconds"] for r in results)),
                "; ".join(dict.fromkeys(device for outcome in outcomes for device in outcome.devices)),
                ", ".join(dict.fromkeys(commit for outcome in outcomes for commit in outcome.commits)),
            ]
        else:
            cells += ["not run", *["–"] * 5]
            kept = stood.get(cells[0], cells)
            published = [place for place, title in enumerate(header) if title == "published"]
            is_the_same = lines[0] in old and _command(table, row) in old.splitlines()
            if is_the_same and all(kept[place] == cells[place] for place in published):
                cells = kept
        lines.append(_line(cells))
    samples = f" K = {table.num_samples:,} in evaluation." if table.num_samples > 1 else ""
    parts = [
        f"## {table.title}",
        f"{table.protocol}{samples} `python scripts/reproduce.py --table {name}` rebuilds it, `--row ROW` one line.",
        "\n".join(lines),
    ]
    sources = dict.fromkeys(
        f"{column.title}: {figure.source}" for column, figures in columns for figure in figures.values()
    )
    if sources:
        parts.append(f"Published: {'; '.join(sources)}.")
    if any(not figure.is_verified for _, figures in columns for figure in figures.values()):
        parts.append("\\* From memory, unverified.")
    parts += [f"`{row}`: {table.rows[row].note}" for row in table.rows if table.rows[row].note]
    seed, *others = map(str, table.seeds)
    seeds = f"SEED={seed}" + (f"  # then {', '.join(others)}" if others else "")
    listing = "\n".join([seeds, *(_command(table, row) for row in table.rows)])
    parts.append(f"<details><summary>The command of each row</summary>\n\n```bash\n{listing}\n```\n\n</details>")
    return "\n\n".join(parts) + "\n"


def _command(table: Table, row: str) -> str:
    """What a row is trained and evaluated by."""
    options = table.rows[row].options.format(seed="$SEED")
    return f"python scripts/train.py {options} --seed_everything $SEED --num_samples {table.num_samples}  # {row}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _figures(table: Table, column: Column) -> dict[str, Published]:
    """What was published of a column, by row."""
    return {name: row.published[column.title] for name, row in table.rows.items() if column.title in row.published}


def _measured(table: Table, column: Column, outcomes: Sequence[Outcome]) -> str:
    """The mean over seeds ± their standard deviation; of a single run ± the standard error over examples. And K, where
    it is less than the table's."""
    values = [value for outcome in outcomes if (value := column.of(outcome.results)) is not None]
    if not values:
        return "–"
    spread = statistics.stdev(values) if len(values) > 1 else column.stderr(outcomes[0].results)
    cell = f"{statistics.mean(values):.{column.digits}f}"
    if spread is not None:
        cell += f" ± {spread:.{column.digits}f}"
    if (samples := _fewer_samples(table, column, outcomes)) is not None:
        cell += f", K = {samples:,.0f}"
    return cell


def _fewer_samples(table: Table, column: Column, outcomes: Sequence[Outcome]) -> float | None:
    """The K of a bound that has fewer samples than the table's, in any of its runs; else None."""
    samples = min(samples_of(outcome.results) for outcome in outcomes)
    return samples if column.falls_with_samples and samples < table.num_samples else None


def _reached(table: Table, row: str, outcomes: Sequence[Outcome]) -> str:
    """Whether each published figure of a row is met, in the digits that were published; if not, by how much it is
    missed, and whether more samples could meet it."""
    judged = {}
    for column in table.columns:
        values = [value for outcome in outcomes if (value := column.of(outcome.results)) is not None]
        if values and row in (figures := _figures(table, column)):
            figure, digits = float(figures[row].value), figures[row].digits
            behind = round(round(statistics.mean(values), digits) - figure, digits)
            missed = "no" if _fewer_samples(table, column, outcomes) is None else "open"
            judged[column.title] = "yes" if behind <= 0 else f"{missed}, {behind:.{digits}f} more"
    if len(judged) > 1:
        return "; ".join(f"{title.split(',')[0]} {verdict}" for title, verdict in judged.items())
    return next(iter(judged.values()), "–")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
