"""The benchmark: what it makes of times, and that its contenders do the same work."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import pytest
import torch

import vaeflow.bijections as B
from benchmarks import floors, growth
from benchmarks.command import benchmark
from benchmarks.report import markdown, result_of
from benchmarks.timing import ratio, slope, take_turns
from benchmarks.work import FLOOR, OURS, Goal, Work
from vaeflow.errors import VaeflowError

CPU = torch.device("cpu")


def test_the_interval_of_a_median_covers_it() -> None:
    """In 95 of 100 draws, at least: the interval between order statistics is the exact one."""
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        draws = torch.randn(31, generator=generator, dtype=torch.float64).exp().tolist()
        found = ratio(draws, [1.0] * 31)
        assert found is not None
        assert found.median == statistics.median(draws)
        assert (found.low, found.high) == (sorted(draws)[9], sorted(draws)[21])
        covered += found.low <= 1.0 <= found.high
    assert covered >= 0.93 * 400


def test_turns_without_a_time_do_not_count() -> None:
    found = ratio([2.0, math.nan, 6.0], [1.0, 1.0, 2.0])
    assert found is not None
    assert (found.median, found.low, found.high, found.turns) == (2.5, 2.0, 3.0, 2)
    assert ratio([math.nan], [1.0]) is None
    assert str(ratio([6.0, math.nan, math.nan], [1.0, 3.0, 4.0])) == "2.00 (one turn)"


def test_an_exponent_is_found() -> None:
    assert slope([1, 10, 100], [3.0, 3e2, 3e4]) == pytest.approx(2.0)


def test_who_fails_is_reported_and_the_others_go_on() -> None:
    def broken() -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")

    contenders = {OURS: lambda: None, FLOOR: lambda: sum(range(10_000)), "nflows": broken}

    def no_way_back() -> float:
        raise ValueError("no way back")

    goals = [Goal(OURS, FLOOR, 0.5), Goal(FLOOR, OURS, 0.5)]
    work = Work("case", "work", contenders, goals, {"zuko": "is not here"}, {OURS: lambda: 1e-7, FLOOR: no_way_back})
    result = result_of(work, take_turns(contenders, 7, CPU, lambda text: None))
    assert [goal["met"] for goal in result["goals"]] == [True, False]
    assert len(result["contenders"][OURS]["seconds"]) == 7
    page = markdown(result)
    assert "failed: needs more memory than there is" in page
    assert "zuko | failed: is not here" in page
    assert "1.0e-07" in page
    assert "failed: ValueError: no way back" in page
    assert page.count("not met") == 1
    json.dumps(result)


def test_floors_are_flows_of_the_same_sizes() -> None:
    x = torch.randn(5, 6)
    couplings = floors.DenseCouplings(6, 3, [8], True)
    torch.testing.assert_close(couplings.to_data(couplings.to_noise(x)[0]), x)
    ours = B.Composition(B.Coupling(6, hidden=[8], swap=k % 2 == 1) for k in range(3))
    dense, made = floors.DenseAutoregressive(6, 2, [8]), B.MaskedAutoregressive(6, steps=2, hidden=[8])
    for floor, flow in ((couplings, ours), (dense, made), (floors.GramPlanar(6, 4), B.Planar(6, steps=4))):
        ours_has = sum(parameter.numel() for parameter in flow.parameters())
        assert sum(parameter.numel() for parameter in floor.parameters()) == ours_has


def test_the_textbook_samples_the_same() -> None:
    flow, z = B.MaskedAutoregressive(9, steps=3, hidden=[16]), torch.randn(7, 9)
    with torch.no_grad():
        torch.testing.assert_close(growth.by_textbook(flow, z), flow(z)[0], rtol=1e-4, atol=1e-5)


def test_growth_is_drawn_and_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(growth, "DIMENSIONS", [2, 4, 8])
    monkeypatch.setattr(growth, "STEPS", [1, 2, 3])
    monkeypatch.setattr(growth, "BATCHES", [2, 4, 8])
    monkeypatch.setattr(growth, "SAMPLES", [2, 4, 8])
    grown = growth.measure(CPU, 3, lambda text: None)
    assert grown["D"]["MAF, sampling"]["size"] == [2, 4, 8]
    assert growth.markdown(grown).count("\n| ") == 1 + 7 + 6 + 6 + 1
    assert len(growth.draw(grown).axes) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cases", "maf64,planet"], "there is no case planet: there are maf64, "),
        (
            ["--cases", "planar", "--only", "vaeflow,zukko"],
            "there is no contender zukko in these cases: there are ",
        ),
    ],
)
def test_unknown_names_are_said(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark.py", *arguments, "--repeats", "1", "--out", str(tmp_path)])
    with pytest.raises(VaeflowError, match=said):
        benchmark()
