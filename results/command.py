"""``reproduce.py``: train what a table of ``RESULTS.md`` holds, and write it."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from filelock import FileLock, Timeout

from results.report import Outcome, markdown, outcome_of, samples_of
from results.tables import TABLES
from vaeflow.commands.arguments import check_known, parser_of, say, words_of
from vaeflow.commands.configs import find_config, read_config
from vaeflow.errors import Stopped, VaeflowError
from vaeflow.figures.style import check_outputs
from vaeflow.files import whole
from vaeflow.records.checkpoint import keep_weights
from vaeflow.records.runs import BEST, LAST, runs_of

TRAIN = Path(__file__).parents[1] / "scripts" / "train.py"
RESULTS = "results.json"
ROOT, SAMPLES = "--trainer.default_root_dir", "--num_samples"


def reproduce() -> None:
    """Train and evaluate the rows of a table of RESULTS.md, each seed a run, and write the table. Runs that are done
    are kept, and one that was stopped goes on. Started twice, the two share the rows."""
    parser = parser_of("reproduce.py", reproduce)
    add = parser.add_argument
    add("--table", type=str, required=True, help=f"one of {', '.join(TABLES)}")
    add("--row", type=str, nargs="+", default=[], help="only these, such as vae,vae_iaf; by default all")
    seeds_help = "such as 123,321,231; by default the table's, whose finished runs are averaged with any others"
    add("--seeds", type=str, nargs="+", default=[], help=seeds_help)
    k = "of the evaluation, by default the table's; fewer is a looser bound, and a later call with more evaluates again"
    add("--num_samples", type=int | None, default=None, help=k)
    add("--runs", type=str, default="runs", help="folder of all runs")
    add("--out", type=str, default="RESULTS.md", help="the file whose section of this table is written anew")
    add("--pretrained", type=str | None, default=None, help="folder to keep each row's weights in, of the first seed")
    add("--write_only", action="store_true", help="write what there is, and train nothing")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args()
    check_known("table", [args.table], TABLES)
    table, runs, out = TABLES[args.table], Path(args.runs), Path(args.out)
    check_outputs([out], force=True)
    if out.is_file() and (text := out.read_text().strip()) and not any(f"<!-- {name} -->" in text for name in TABLES):
        raise VaeflowError(f"--out is {out}, a file that has no table of this kind, expected RESULTS.md or a new name.")
    rows, failed = words_of(args.row) or list(table.rows), list[str]()
    _check_rows(args.table, rows)
    seeds = _seeds(args.seeds) if args.seeds else table.seeds
    num_samples = table.num_samples if args.num_samples is None else args.num_samples
    if not 1 <= num_samples <= table.num_samples:
        raise VaeflowError(f"--num_samples is {num_samples}, expected 1 to {table.num_samples}, which is the table's.")
    for option, folder in {"runs": args.runs, "pretrained": args.pretrained}.items():
        _check_folder(option, folder)
    for row in [] if args.write_only else rows:
        _check_samples(runs, args.table, row, seeds, num_samples)
    for row in [] if args.write_only else rows:
        for seed in seeds:
            if code := _train(runs, args.table, row, seed, num_samples):
                failed.append(f"{row} with seed {seed} (exit code {code})")
            _write(out, args.table, runs, rows, seeds)
    notes = _write(out, args.table, runs, rows, seeds)
    say(table=out)
    for note in notes:
        print(note)
    for row in rows if args.pretrained is not None else []:
        for run in _finished(runs, args.table, row, seeds[0])[-1:]:
            keep_weights(run / BEST, Path(args.pretrained, f"{row}.ckpt"))
            say(weights=Path(args.pretrained, f"{row}.ckpt"))
    if failed:
        raise VaeflowError(f"these did not come to their end: {', '.join(failed)}.")


def _check_folder(option: str, path: str | None) -> None:
    if path is None:
        return
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise VaeflowError(f"--{option} is {path}, expected a folder to write in ({reason}).") from None


def _check_samples(runs: Path, table: str, row: str, seeds: Sequence[int], num_samples: int) -> None:
    """Raise a :class:`VaeflowError` if a row were evaluated with fewer samples than another seed's run has."""
    found = {seed: _finished(runs, table, row, seed) for seed in dict.fromkeys([*TABLES[table].seeds, *seeds])}
    there = {seed: _samples_of(done[-1]) for seed, done in found.items() if done}
    most = min(max(there.values(), default=0), TABLES[table].num_samples)  # of which there may be more, by hand
    missing = [seed for seed in seeds if there.get(seed, 0) < num_samples]
    if missing and num_samples < most:
        raise VaeflowError(
            f"--num_samples is {num_samples} for {row} with seed {missing[0]}, but another seed has {most:,.0f}, and a "
            f"bound that falls with K has no mean over both: expected {most:.0f}."
        )


def _samples_of(run: Path) -> float:
    return samples_of(json.loads((run / RESULTS).read_text()))


def _check_rows(table: str, rows: Sequence[str]) -> None:
    there = TABLES[table].rows
    for row in rows:
        if row not in there:
            other = next((name for name in TABLES if row in TABLES[name].rows), None)
            known = f"--table {other} has it" if other else f"there are {', '.join(there)}"
            raise VaeflowError(f"there is no row {row} in {table}: {known}.")


def _seeds(given: Sequence[str]) -> tuple[int, ...]:
    words = words_of(given)
    if not all(word.isdecimal() and int(word) < 2**32 for word in words):
        raise VaeflowError(f"--seeds is '{' '.join(given)}', expected whole numbers below 2³², such as 123,321,231.")
    return tuple(dict.fromkeys(map(int, words)))


def _experiment(table: str, row: str, seed: int) -> str:
    return f"paper/{table}/{row}/seed_{seed}"


def _options(table: str, row: str, seed: int) -> list[str]:
    """Of train.py, for the training."""
    return [
        *shlex.split(TABLES[table].rows[row].options.format(seed=seed)), "--experiment", _experiment(table, row, seed),
        "--seed_everything", str(seed),
    ]  # fmt: skip


def _begun(runs: Path, table: str, row: str, seed: int) -> list[Path]:
    """The runs that were begun by these options and what their config holds now, the newest last."""
    options = _options(table, row, seed)
    config = read_config(find_config(options[options.index("--config") + 1]))

    def is_begun_so(run: Path) -> bool:
        start = json.loads((run / "run.json").read_text())[0]
        words = start["command"][1:]
        for option in {ROOT, SAMPLES} & set(words):  # the folder may be named otherwise now, and evaluated anew
            place = words.index(option)
            del words[place : place + 2]
        return sorted(words) == sorted(options) and start.get("config", [config]) == [config]

    return [run for run in runs_of(runs, _experiment(table, row, seed), "run.json") if is_begun_so(run)]


def _finished(runs: Path, table: str, row: str, seed: int, num_samples: int = 1) -> list[Path]:
    """Those that were evaluated, with so many samples or more; last that of most, and the newest of such."""
    evaluated = [run for run in _begun(runs, table, row, seed) if (run / RESULTS).is_file()]
    return sorted((run for run in evaluated if _samples_of(run) >= num_samples), key=_samples_of)


def _train(runs: Path, table: str, row: str, seed: int, num_samples: int) -> int:
    """Train and evaluate a row with a seed, unless that is done, or another process is at it; a run that was stopped
    goes on.

    Returns:
        The exit code.

    Raises:
        Stopped: by a signal, once the run has written its checkpoint.
    """
    experiment = runs / _experiment(table, row, seed)
    experiment.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(experiment / ".lock", timeout=0):
            if done := _finished(runs, table, row, seed, num_samples):
                print(f"kept        {done[-1]}")
                return 0
            options = [*_options(table, row, seed), SAMPLES, str(num_samples), ROOT, str(runs)]
            if begun := [run for run in _begun(runs, table, row, seed) if (run / LAST).is_file()]:
                options += ["--ckpt_path", str(begun[-1] / LAST)]
            print(f"$ python scripts/train.py {shlex.join(options)}", flush=True)
            return _wait_for([sys.executable, str(TRAIN), *options])
    except Timeout:
        print(f"busy        {experiment}, another process trains it")
        return 0


def _wait_for(command: Sequence[str]) -> int:
    """Run a command that is told of the signals that this process gets, and waited for when it stops.

    Returns:
        Its exit code.

    Raises:
        Stopped: if a signal has ended it.
    """
    process = subprocess.Popen(command, start_new_session=True)  # else a terminal's Ctrl-C reached it twice
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: process.send_signal(number)) for number in numbers]
    try:
        code = process.wait()
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    for number in numbers:
        if code in (-number, 128 + number):
            raise Stopped("stopped; the same line of reproduce.py goes on by itself.", number)
    return code


def _write(out: Path, name: str, runs: Path, rows: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """The section of a table, in place of the one that is there, or after all others. A line has the finished runs of
    these seeds and of the table's that have the most samples; rows that were not asked for, or have none, keep theirs.

    Returns:
        What the user should know: of rows that were asked for and have none, of runs that have fewer samples.

    Raises:
        VaeflowError: if it cannot be told where the one that is there ends.
    """
    table, found = TABLES[name], dict[str, list[Outcome]]()
    for row in rows:
        for seed in dict.fromkeys([*table.seeds, *seeds]):
            if done := _finished(runs, name, row, seed):
                found.setdefault(row, []).append(outcome_of(done[-1], seed))
    notes = []
    for row, outcomes in found.items():  # a bound falls with K, so that there is no mean over several
        most = max(samples_of(outcome.results) for outcome in outcomes)
        for outcome in [o for o in outcomes if samples_of(o.results) < most]:
            outcomes.remove(outcome)
            fewer = f"K = {samples_of(outcome.results):,.0f}, where another seed has {most:,.0f}"
            notes.append(f"left out    {row} with seed {outcome.seed}: {fewer}")
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    (runs / "paper").mkdir(parents=True, exist_ok=True)
    with FileLock(runs / "paper" / ".lock"):
        text = out.read_text() if out.is_file() else "# Results\n"
        before, there, rest = text.partition(begin)
        old, ends, after = rest.partition(end)
        if there and not ends:
            raise VaeflowError(f"{out} has a line {begin.strip()}, but none {end.strip()} where the table ends.")
        with whole(out) as file:
            file.write(f"{before.rstrip()}\n\n{begin}{markdown(name, table, found, old)}{end}{after}".encode())
    if without := [row for row in rows if row not in found]:
        notes.append(f"as it was   {', '.join(without)}: in {runs} no run has finished with what its config holds now")
    return notes
