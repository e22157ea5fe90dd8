"""``fuzz.py``: look for what goes wrong quietly, or ends neither in a trained step nor in one clear sentence."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shlex import quote
from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveInt
from tqdm import tqdm

from vaeflow.commands.arguments import check_known, parser_of, words_of
from vaeflow.errors import VaeflowError

NUMBERS = {
    "configs": 1000,
    "checkpoints": 500,
    "arrays": 500,
    "paths": 500,
    "replaced": 500,
    "tables": 500,
    "pictures": 500,
    "trainer": 500,
}


def fuzz() -> None:
    """Try random config overrides, damaged checkpoints and odd arrays, paths, tables, pictures and arguments of the
    Trainer, and data that change after training. Each has to end in a trained step (finite parameters, changed) or in
    one sentence with exit code 1 or 2; no file may be lost, no value misread, and no doubtful number reported without
    a doubt."""
    parser = parser_of("fuzz.py", fuzz)
    add = parser.add_argument
    add("--kinds", type=str, nargs="+", default=list(NUMBERS), help=f"which of {', '.join(NUMBERS)}")
    add("--number", type=PositiveInt | None, default=None, help=f"of each; by default {NUMBERS}")
    add("--seed", type=NonNegativeInt, default=0, help="of what is tried")
    add("--only", type=NonNegativeInt, nargs="+", default=[], help="try only the cases with these numbers")
    add("--processes", type=PositiveInt, default=2, help="trials at once")
    add("--out", type=str, default="fuzz.json", help="where what failed is written, with what was typed")
    add("--keep", type=str | None, default=None, help="a new folder in which the files of each trial stay")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args()
    kinds = words_of(args.kinds)
    check_known("kind", kinds, NUMBERS)
    keep = None if args.keep is None else Path(args.keep)
    if keep is not None and keep.exists():
        raise VaeflowError(f"--keep is {keep}, which exists already, expected a new folder.")
    failed: list[dict[str, Any]] = []
    for kind in kinds:
        number = args.number or NUMBERS[kind]
        found, trained = try_all(kind, number, args.seed, args.processes, args.only, keep)
        failed += found
        print(f"{kind:<12}{len(args.only) or number} tried, {trained} trained a model, {len(found)} failed")
    if failed:
        Path(args.out).write_text(json.dumps(failed, indent=1))
        print(f"{'failures':<12}{args.out}")
        raise VaeflowError(f"{len(failed)} failed: {dict(Counter(case['kind'] for case in failed))}.")


def try_all(
    kind: str, number: int, seed: int, processes: int = 2, only: Sequence[int] = (), keep: Path | None = None
) -> tuple[list[dict[str, Any]], int]:
    """Try so many cases of a kind: those that failed, with what was typed and what was wrong; and how many trained a
    model, without which nothing else would have been tested.

    Args:
        only: the numbers of the cases that are tried; by default all.
        keep: a folder in which their files stay, each case in one of its own.
    """
    from tests.fuzz.case import Case
    from tests.fuzz.trial import Verdict, verdict

    chosen = only or range(number)
    cases = draw(strategy_of(kind), chosen, seed)

    def verdict_of(place: int, case: Case) -> Verdict:
        return verdict(case, keep and keep / f"{kind}_{place}")

    with ThreadPoolExecutor(processes) as pool:
        verdicts = list(tqdm(pool.map(verdict_of, chosen, cases), total=len(cases), desc=kind))
    failed = [
        {
            "kind": kind,
            "number": place,
            "typed": [str(step) for step in case.steps],
            "files": case.recipe or sorted(case.files),
            "wrong": found.wrong,
            "again": f"python scripts/fuzz.py --kinds {kind} --seed {seed} --only {place} "
            f"--keep {quote(f'fuzz_{kind}_{place}')}",
        }
        for place, case, found in zip(chosen, cases, verdicts, strict=True)
        if found.wrong is not None
    ]
    return failed, sum(found.trained for found in verdicts)


def strategy_of(kind: str) -> Any:
    """The strategy of hypothesis that draws cases of a kind."""
    from tests.fuzz import inputs, paths, pictures, replaced, tables, trainer

    if kind == "checkpoints":
        return inputs.checkpoints(_checkpoint())
    strategies = {
        "configs": inputs.configs,
        "arrays": inputs.arrays,
        "paths": paths.paths,
        "replaced": replaced.replaced,
        "tables": tables.tables,
        "pictures": pictures.pictures,
        "trainer": trainer.trainer,
    }
    return strategies[kind]()


def draw(strategy: Any, places: Iterable[int], seed: int) -> list[Any]:
    """The cases of a strategy with these numbers, the same for the same seed.

    Each has a run of hypothesis to itself, in which the first example is always the simplest, the second has another
    first choice (a number that is not used) and is drawn at random, and later ones would repeat parts of those before.
    """
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    quiet: Any = {"suppress_health_check": list(HealthCheck), "deadline": None, "database": None}

    def drawn(place: int) -> Any:
        found: list[Any] = []

        @seeded(f"{seed}, {place}")
        @settings(max_examples=2, phases=[Phase.generate], **quiet)
        @given(st.integers(0, 2**32), strategy)
        def collect(_: int, case: Any) -> None:
            found.append(case)

        collect()
        return found[-1]

    return list(map(drawn, places))


def _checkpoint() -> bytes:
    """A whole one, of a run of a few steps."""
    from tests.fuzz.case import Command
    from tests.fuzz.inputs import ONE_STEP
    from tests.fuzz.trial import run_command

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve() / "trial"
        run_command(Command("train", ("--config", "vae", *ONE_STEP)), folder)
        return Path(folder, "runs/vae/version_0/checkpoints/last.ckpt").read_bytes()
