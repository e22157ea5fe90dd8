"""``fuzz.py``: look for what ends neither in a trained step nor in one clear sentence."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveInt
from tqdm import tqdm

from vaeflow.commands.arguments import check_known, parser_of, words_of
from vaeflow.errors import VaeflowError

NUMBERS = {"configs": 1000, "checkpoints": 500, "arrays": 500}


def fuzz() -> None:
    """Try random config overrides, damaged checkpoints and odd data: each has to end in a trained step (finite
    parameters, changed) or in one sentence with exit code 1 or 2."""
    parser = parser_of("fuzz.py", fuzz)
    add = parser.add_argument
    add("--kinds", type=str, nargs="+", default=list(NUMBERS), help=f"which of {', '.join(NUMBERS)}")
    add("--number", type=PositiveInt | None, default=None, help=f"of each; by default {NUMBERS}")
    add("--seed", type=NonNegativeInt, default=0, help="of what is tried")
    add("--processes", type=PositiveInt, default=2, help="trials at once")
    add("--out", type=str, default="fuzz.json", help="where what failed is written, with what was typed")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args()
    kinds = words_of(args.kinds)
    check_known("kind", kinds, NUMBERS)
    failed: list[dict[str, Any]] = []
    for kind in kinds:
        number = args.number or NUMBERS[kind]
        found = try_all(kind, number, args.seed, args.processes)
        failed += found
        print(f"{kind:<12}{number} tried, {len(found)} failed")
    if failed:
        Path(args.out).write_text(json.dumps(failed, indent=1))
        print(f"{'failures':<12}{args.out}")
        raise VaeflowError(f"{len(failed)} failed: {dict(Counter(case['kind'] for case in failed))}.")


def try_all(kind: str, number: int, seed: int, processes: int = 2) -> list[dict[str, Any]]:
    """Try so many cases of a kind; those that failed, with what was typed and what was wrong."""
    from vaeflow.fuzz.trial import verdict

    cases = draw(kind, number, seed)
    with ThreadPoolExecutor(processes) as pool:
        verdicts = list(tqdm(pool.map(verdict, cases), total=len(cases), desc=kind))
    return [
        {"kind": kind, "typed": [case.script, *case.arguments], "files": sorted(case.files), "wrong": wrong}
        for case, wrong in zip(cases, verdicts, strict=True)
        if wrong is not None
    ]


def draw(kind: str, number: int, seed: int) -> list[Any]:
    """So many cases of a kind, the same for the same seed."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    from vaeflow.fuzz import cases

    strategy = {"configs": cases.configs, "arrays": cases.arrays}.get(kind)
    drawn = strategy() if strategy is not None else cases.checkpoints(_checkpoint())
    found: list[Any] = []

    quiet: Any = {"suppress_health_check": list(HealthCheck), "deadline": None, "database": None}

    @seeded(seed)
    @settings(max_examples=number, phases=[Phase.generate], **quiet)
    @given(drawn)
    def collect(case: Any) -> None:
        found.append(case)

    collect()
    return found[:number]


def _checkpoint() -> bytes:
    """A whole one, of a run of a few steps."""
    from vaeflow.fuzz.cases import ONE_STEP, Case
    from vaeflow.fuzz.trial import run_in

    with tempfile.TemporaryDirectory() as folder:
        run_in(folder, Case("train", ("--config", "vae", *ONE_STEP)))
        return Path(folder, "runs/vae/version_0/checkpoints/last.ckpt").read_bytes()
