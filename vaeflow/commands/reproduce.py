"""``reproduce.py``: train what a table of ``RESULTS.md`` holds, and write it."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from jsonargparse.typing import NonNegativeInt

from vaeflow.checkpoint import keep_weights
from vaeflow.commands.arguments import check_known, parser_of, say, versions
from vaeflow.configs import find_config
from vaeflow.errors import Stopped, VaeflowError
from vaeflow.files import whole
from vaeflow.reproduce.report import Outcome, markdown, outcome_of
from vaeflow.reproduce.tables import TABLES

TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"


def reproduce() -> None:
    """Train and evaluate the rows of a table of RESULTS.md, each seed a run, and write the table. Runs that are done
    are kept, and one that was stopped goes on."""
    parser = parser_of("reproduce.py", reproduce)
    add = parser.add_argument
    add("--table", type=str, required=True, help=f"one of {', '.join(TABLES)}")
    add("--row", type=str, nargs="+", default=[], help="only these; by default all")
    add("--seeds", type=list[NonNegativeInt] | None, default=None, help="by default the table's own")
    add("--runs", type=str, default="runs", help="folder of all runs")
    add("--out", type=str, default="RESULTS.md", help="the file whose section of this table is written anew")
    add("--pretrained", type=str | None, default=None, help="folder to keep the weights of the first seed in as well")
    add("--write_only", action="store_true", help="write what there is, and train nothing")
    add("--more", type=str, default="", help='further options of train.py, such as "--trainer.accelerator cpu"')
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args()
    check_known("table", [args.table], TABLES)
    table = TABLES[args.table]
    check_known("row", args.row, table.rows)
    seeds, out, more = args.seeds or table.seeds, Path(args.out), shlex.split(args.more)
    for name in [] if args.write_only else args.row or table.rows:
        for seed in seeds:
            _train(Path(args.runs), args.table, name, seed, more)
            _write(out, args.table, Path(args.runs), seeds, more)
    _write(out, args.table, Path(args.runs), seeds, more)
    say(table=out)
    for name in (args.row or table.rows) if args.pretrained is not None else []:
        for best in versions(Path(args.runs), _experiment(args.table, name, seeds[0]))[-1:]:
            keep_weights(best, Path(args.pretrained, f"{name}.ckpt"))
            say(weights=Path(args.pretrained, f"{name}.ckpt"))


def _experiment(table: str, row: str, seed: int) -> str:
    return f"paper/{table}/{row}/seed_{seed}"


def _options(runs: Path, table: str, row: str, seed: int, more: Sequence[str]) -> list[str]:
    """Of train.py."""
    return [
        *shlex.split(TABLES[table].rows[row].options.format(seed=seed)), "--experiment", _experiment(table, row, seed),
        "--seed_everything", str(seed), "--num_samples", str(TABLES[table].num_samples),
        "--trainer.default_root_dir", str(runs), *more,
    ]  # fmt: skip


def _train(runs: Path, table: str, row: str, seed: int, more: Sequence[str]) -> None:
    """Train and evaluate a row with a seed, unless its newest run was begun by the same options, and a config that held
    the same, and has results; one that has none yet goes on.

    Raises:
        VaeflowError: if it does not come to its end.
    """
    options = _options(runs, table, row, seed, more)
    begun = [path.parents[1] for path in versions(runs, _experiment(table, row, seed))]
    if begun and _is_begun_by(begun[-1], options):
        if (begun[-1] / "results.json").is_file():
            print(f"kept        {begun[-1]}")
            return
        options += ["--ckpt_path", str(begun[-1] / "checkpoints" / "last.ckpt")]
    print(f"$ python scripts/train.py {shlex.join(options)}", flush=True)
    code = subprocess.run([sys.executable, str(TRAIN), *options]).returncode
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise Stopped("stopped; the same command goes on.", code - 128)
    if code:
        raise VaeflowError(f"row {row} ended with exit code {code}.")


def _is_begun_by(run: Path, options: Sequence[str]) -> bool:
    """Whether a run was begun by these options, in any order, and what their config holds now."""
    start = json.loads((run / "run.json").read_text())[0]
    config = yaml.safe_load(find_config(options[options.index("--config") + 1]).read_text())
    return sorted(start["command"][1:]) == sorted(options) and start.get("config", [config]) == [config]


def _write(out: Path, name: str, runs: Path, seeds: Sequence[int], more: Sequence[str]) -> None:
    """The section of a table, in place of the one that is there, or after all others. Rows without a run that these
    options began keep the line that is there."""
    table = TABLES[name]
    found: dict[str, list[Outcome]] = {}
    for row in table.rows:
        for seed in seeds:
            done = [
                p.parents[1]
                for p in versions(runs, _experiment(name, row, seed))
                if (p.parents[1] / "results.json").is_file()
                and _is_begun_by(p.parents[1], _options(runs, name, row, seed, more))
            ]
            if done:
                found.setdefault(row, []).append(outcome_of(done[-1], seed))
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    text = out.read_text() if out.is_file() else "# Results\n"
    before, _, rest = text.partition(begin)
    old, _, after = rest.partition(end)
    section = f"{begin}{markdown(name, table, found, old)}{end}"
    with whole(out) as file:
        file.write((before.rstrip("\n") + "\n\n" + section + after).encode())
