"""``benchmark.py``: time vaeflow beside other libraries and beside plain dense nets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from tqdm import tqdm

from benchmarks import growth
from benchmarks.cases import CASES
from benchmarks.report import machine, markdown, result_of
from benchmarks.timing import take_turns
from vaeflow.commands.arguments import check_known, parser_of, say, words_of
from vaeflow.errors import VaeflowError
from vaeflow.figures.style import save_figure


def benchmark() -> None:
    """Time vaeflow beside other libraries and beside plain dense nets of the same sizes, all taking turns."""
    parser = parser_of("benchmark.py", benchmark)
    add = parser.add_argument
    known = [*CASES, "growth"]
    add("--cases", type=str, nargs="+", default=known, help=f"which of {', '.join(known)}")
    add("--repeats", type=PositiveInt, default=31, help="turns; fewer of what takes over a second")
    add("--only", type=str, nargs="+", default=[], help="contenders, such as vaeflow,floor; by default all")
    add("--device", type=str, default="cpu", help="cpu or cuda")
    add("--out", type=str, default="benchmark", help="folder of benchmark.json, benchmark.md and growth.png")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args()
    cases, only = words_of(args.cases), words_of(args.only)
    check_known("case", cases, known)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise VaeflowError("--device is cuda, but there is no GPU that torch can use.")
    device, out = torch.device(args.device), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": machine(device), "repeats": args.repeats, "results": []}
    text = []
    there: dict[str, None] = {}
    for name in cases:
        if name == "growth":
            continue
        for work in CASES[name](device):
            there |= dict.fromkeys([*work.contenders, *work.failed])
            if only:
                work.contenders = {k: run for k, run in work.contenders.items() if k in only}
                work.goals = [goal for goal in work.goals if {goal.who, goal.than} <= {*only}]
            with tqdm(bar_format=f"{work.case}: {work.name} ({{desc}})", leave=False) as bar:
                timings = take_turns(work.contenders, args.repeats, device, bar.set_description_str)
            result = result_of(work, timings)
            report["results"].append(result)
            text.append(markdown(result))
            print(text[-1], flush=True)
            _write(out, report, text)
    unknown = [name for name in only if name not in there]
    if unknown and there:
        raise VaeflowError(f"there is no contender {unknown[0]} in these cases: there are {', '.join(there)}.")
    if "growth" in cases:
        with tqdm(bar_format="{desc}", leave=False) as bar:
            report["growth"] = growth.measure(device, args.repeats, bar.set_description_str)
        text.append(growth.markdown(report["growth"]))
        print(text[-1])
        save_figure(out / "growth.png", growth.draw(report["growth"]))
        say(picture=out / "growth.png")
        _write(out, report, text)
    missed = [goal for result in report["results"] for goal in result["goals"] if not goal["met"]]
    print(f"{sum(len(result['goals']) for result in report['results']) - len(missed)} goals met, {len(missed)} not met")
    say(numbers=out / "benchmark.json", table=out / "benchmark.md")


def _write(out: Path, report: dict[str, Any], text: list[str]) -> None:
    (out / "benchmark.json").write_text(json.dumps(report, indent=1))
    (out / "benchmark.md").write_text("\n".join(text))
