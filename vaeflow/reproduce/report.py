"""A table of ``RESULTS.md``, out of the ``results.json`` of its runs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaeflow.reproduce.tables import Column, Published, Table


@dataclass(frozen=True)
class Outcome:
    """One run of a row, to its end.

    Args:
        seed: it was trained with.
        results: what ``results.json`` holds.
        device: that it was trained on.
    """

    seed: int
    results: Mapping[str, Any]
    device: str


def outcome_of(run: Path, seed: int) -> Outcome:
    """Of a run's folder."""
    start = json.loads((run / "run.json").read_text())[-1]
    threads = f"{start['threads']} thread{'s' * (start['threads'] > 1)}"
    return Outcome(seed, json.loads((run / "results.json").read_text()), f"{start['device']}, {threads}")


def markdown(name: str, table: Table, seeds: Sequence[int], found: Mapping[str, Sequence[Outcome]]) -> str:
    """The section of a table: one line for each row, whether it has been run or not, and the commands behind them."""
    columns = [(column, _figures(table, column)) for column in table.columns]
    header = ["row"]
    for column, figures in columns:
        header += [column.title, "published"] if figures else [column.title]
    header += ["reached", "parameters", "trained in"]
    lines = [_line(header), _line(["---", *["---:"] * (len(header) - 1)])]
    for row in table.rows:
        outcomes = found.get(row, [])
        cells = [f"`{row}`"]
        for column, figures in columns:
            cells.append(_measured(column, outcomes))
            if figures:
                cells.append(f"{figures[row].value:.{column.digits}f}" if row in figures else "–")
        results = [outcome.results for outcome in outcomes]
        cells.append(_reached(table, row, outcomes) if results else "not run")
        cells.append(f"{results[0]['num_parameters']:,}" if results else "–")
        cells.append(_duration(statistics.mean(r["training_seconds"] for r in results)) if results else "–")
        lines.append(_line(cells))
    samples = f"K = {table.num_samples:,} in evaluation, " if table.num_samples > 1 else ""
    parts = [
        f"## {table.title}",
        f"{table.protocol} Here {samples}{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))} of "
        f"training; `python scripts/reproduce.py --table {name}` rebuilds it, `--row ROW` one line of it.",
        "\n".join(lines),
    ]
    if found:
        parts.append(f"Trained on {_devices(found)}.")
    sources = dict.fromkeys(
        f"{column.title}: {figure.source}" for column, figures in columns for figure in figures.values()
    )
    if sources:
        parts.append(f"Published: {'; '.join(sources)}.")
    parts += [f"`{row}`: {table.rows[row].note}" for row in table.rows if table.rows[row].note]
    parts.append(_commands(table, seeds))
    return "\n\n".join(parts) + "\n"


def _devices(found: Mapping[str, Sequence[Outcome]]) -> str:
    """What all rows were trained on, or which on what."""
    rows: dict[str, list[str]] = {}
    for row, outcomes in found.items():
        for device in dict.fromkeys(outcome.device for outcome in outcomes):
            rows.setdefault(device, []).append(f"`{row}`")
    if len(rows) == 1:
        return next(iter(rows))
    return "; ".join(f"{device}: {', '.join(names)}" for device, names in rows.items())


def _commands(table: Table, seeds: Sequence[int]) -> str:
    """What each row is trained and evaluated by, folded up."""
    seed = str(seeds[0]) if len(seeds) == 1 else "$SEED"
    lines = [
        f"python scripts/train.py {row.options.format(seed=seed)} --seed_everything {seed} "
        f"--num_samples {table.num_samples}  # {name}"
        for name, row in table.rows.items()
    ]
    listing = "\n".join(lines)
    return f"<details><summary>The command of each row</summary>\n\n```bash\n{listing}\n```\n\n</details>"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _figures(table: Table, column: Column) -> dict[str, Published]:
    """What was published of a column, by row."""
    return {name: row.published[column.title] for name, row in table.rows.items() if column.title in row.published}


def _measured(column: Column, outcomes: Sequence[Outcome]) -> str:
    """The mean over seeds ± their standard deviation; of a single run ± the standard error over examples."""
    values = [value for outcome in outcomes if (value := column.of(outcome.results)) is not None]
    if not values:
        return "–"
    digits = column.digits
    if len(values) > 1:
        return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"
    stderr = column.stderr(outcomes[0].results)
    return f"{values[0]:.{digits}f}" + (f" ± {stderr:.{digits}f}" if stderr is not None else "")


def _reached(table: Table, row: str, outcomes: Sequence[Outcome]) -> str:
    """Whether every published figure of a row is met, in the digits that are printed; if not, by how much it is
    missed, and whether that is less than the ±."""
    judged = []
    for column in table.columns:
        values = [value for outcome in outcomes if (value := column.of(outcome.results)) is not None]
        if values and row in (figures := _figures(table, column)):
            behind = round(round(statistics.mean(values), column.digits) - figures[row].value, column.digits)
            error = statistics.stdev(values) if len(values) > 1 else column.stderr(outcomes[0].results)
            within = ", less than ±" if error is not None and behind < error else ""
            judged.append("yes" if behind <= 0 else f"no, {behind:.{column.digits}f} more{within}")
    return " / ".join(judged) or "–"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
