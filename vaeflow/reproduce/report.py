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


def markdown(name: str, table: Table, found: Mapping[str, Sequence[Outcome]], old: str = "") -> str:
    """The section of a table: one line for each row, and the commands behind them. A row that nothing was found of
    keeps its line of the old section, if that had the same columns and the same command."""
    columns = [(column, _figures(table, column)) for column in table.columns]
    header = ["row"]
    for column, figures in columns:
        header += [column.title, "published"] if figures else [column.title]
    header += ["reached", "parameters", "seeds", "trained in", "on"]
    lines = [_line(header), _line(["---", *["---:"] * (len(header) - 2), "---"])]
    stood = {line.split("`")[1]: line for line in old.splitlines() if line.startswith("| `")} if lines[0] in old else {}
    for row in table.rows:
        outcomes = found.get(row, [])
        if not outcomes and row in stood and _command(table, row) in old.splitlines():
            lines.append(stood[row])
            continue
        cells = [f"`{row}`"]
        for column, figures in columns:
            cells.append(_measured(column, outcomes))
            if figures:
                cells.append(f"{figures[row].value:.{column.digits}f}" if row in figures else "–")
        if outcomes:
            results = [outcome.results for outcome in outcomes]
            cells += [
                _reached(table, row, outcomes),
                f"{results[0]['num_parameters']:,}",
                ", ".join(str(outcome.seed) for outcome in outcomes),
                _duration(statistics.mean(r["training_seconds"] for r in results)),
                ", ".join(dict.fromkeys(outcome.device for outcome in outcomes)),
            ]
        else:
            cells += ["not run", "–", "–", "–", "–"]
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
    parts += [f"`{row}`: {table.rows[row].note}" for row in table.rows if table.rows[row].note]
    listing = "\n".join([f"SEED={table.seeds[0]}", *(_command(table, row) for row in table.rows)])
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
