"""The cost of data-parallel training: its formula where it is known, and the measuring of its numbers."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from benchmarks.scaling import Cost, Link, fit, measure_link, median_step, time_training
from tests.test_cli import Run
from vaeflow.errors import VaeflowError

FREE = Link(float("inf"), 0.0)


def test_an_all_reduce_of_a_ring() -> None:
    """Each of W processes sends its part W − 1 times to add up, and W − 1 times to tell."""
    link = Link(bandwidth=100.0, latency=0.5)
    assert link.seconds(1000, 1) == 0
    for world_size, rounds in ((2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (1024, 10)):
        part = 1000 / world_size / 100.0
        assert link.seconds(1000, world_size) == pytest.approx(2 * (world_size - 1) * part + 2 * rounds * 0.5)


def test_efficiency_without_and_with_fixed_costs() -> None:
    """Compute that shrinks with the batch is shared out fully; what is fixed is not shared at all (Amdahl)."""
    ideal = Cost(0.0, 1e-3, 0.0, 10**6, FREE, FREE)
    amdahl = Cost(0.1, 1e-3, 0.0, 10**6, FREE, FREE)
    for devices in (1, 2, 8, 1024):
        assert ideal.strong(devices, 100) == pytest.approx(1)
        assert ideal.weak(devices, 100) == amdahl.weak(devices, 100) == pytest.approx(1)
        assert amdahl.strong(devices, 100) == pytest.approx(0.2 / (0.1 * devices + 0.1))
    assert ideal.pays_up_to(100) == 64  # more would have no example
    assert ideal.pays_up_to(5000) == 1024
    assert amdahl.pays_up_to(100) == 2  # 0.2 / 0.3 and, of four, 0.2 / 0.5
    slow = Cost(0.0, 1e-3, 0.004, 10**6, FREE, Link(1e6, 0.1), per_machine=4)
    assert slow.step(1, 25) == pytest.approx(0.025)
    assert slow.step(4, 25) == pytest.approx(0.029)
    assert slow.step(8, 25) == pytest.approx(0.029 + 2 * 7 / 8 + 2 * 3 * 0.1)
    assert slow.pays_up_to(100) == 4


@pytest.mark.parametrize(("a", "b"), [(0.01, 1e-4), (0.0, 1e-3), (0.02, 0.0)])
def test_the_line_through_times(a: float, b: float) -> None:
    sizes = [32, 64, 512]
    assert fit(sizes, [a + b * n for n in sizes]) == pytest.approx((a, b), abs=1e-9)


def test_the_line_has_no_part_below_zero() -> None:
    """The least squares of (a − t)/t and of (b n − t)/t, by hand."""
    assert fit([10, 20], [0.2, 0.1]) == (pytest.approx(15 / 125), 0.0)
    assert fit([10, 20], [0.1, 0.3]) == (0.0, pytest.approx((100 + 200 / 3) / (100**2 + (200 / 3) ** 2)))


def test_steps_are_timed_by_the_lines_of_a_log(tmp_path: Path) -> None:
    """The median time of a step; the first lines count for nothing."""
    moments = itertools.accumulate([0.0, 9.0, 5.0, 1.0, 1.5, 1.0, 9.0, 1.0])
    with SummaryWriter(str(tmp_path / "run")) as writer:
        for line, moment in enumerate(moments):
            writer.add_scalar("train/objective", 0.0, 5 * line + 4, walltime=1e9 + moment)
    assert median_step(tmp_path / "run") == pytest.approx(0.2, rel=1e-5)
    with SummaryWriter(str(tmp_path / "short")) as writer:
        writer.add_scalar("train/objective", 0.0, 4)
    with pytest.raises(VaeflowError, match="1 lines in its log, too few to time steps"):
        median_step(tmp_path / "short")


def test_an_all_reduce_is_timed() -> None:
    link = measure_link(4_000_000, 2, "cpu", repeats=5)
    assert 1e6 < link.bandwidth < 1e12
    assert 1e-7 < link.latency < 1


@pytest.mark.slow
def test_a_training_is_timed() -> None:
    seconds, parameters = time_training(["--config", "vae", "--trainer.accelerator", "cpu"], 100, 1, 40)
    assert 1e-4 < seconds < 1
    assert parameters > 10_000
    with pytest.raises(VaeflowError, match=r"train.py with a batch of 7 on 1 devices: .*no key `model.wrong`"):
        time_training(["--config", "vae", "--model.wrong", "1"], 7, 1, 40)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--batches", "[32, 32]"), "--batches needs two sizes or more"),
        (("--within", "[1]"), "--within is [1.0], expected GB/s and µs"),
        (("--between", "[0, 1]"), "--between is [0.0, 1.0], expected GB/s"),
    ],
)
def test_what_is_asked_wrongly_is_said(arguments: tuple[str, ...], said: str, run: Run) -> None:
    code, output = run("scaling", "--config", "vae", *arguments)
    assert code == 1
    assert said in output
