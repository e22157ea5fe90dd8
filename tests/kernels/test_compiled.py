"""What all machine code shares: threads, and doing without numba."""

from __future__ import annotations

import math
import os
import signal
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from numba import njit
from numba.core.errors import NumbaError
from torch import Tensor

import vaeflow.bijections as B
from vaeflow import kernels
from vaeflow.kernels import cpu, threads


@pytest.fixture
def usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machine code has not failed yet."""
    monkeypatch.setattr(kernels, "_unusable", set())


@pytest.mark.parametrize("missing", [True, False])
@torch.no_grad()
def test_without_numba_one_warning_says_so(missing: bool, usable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    step = B.MaskedAutoregressiveStep(200, hidden=[500])
    value = torch.randn(64, 200)
    expected = step(value)[0], step.inverse(value)[0]

    def broken(*arguments: Any) -> None:
        raise NumbaError("no LLVM today\nand more lines")

    if missing:
        for name in ("sequential_solve", "masked_pass"):
            monkeypatch.setitem(sys.modules, f"vaeflow.kernels.{name}", None)
    else:
        monkeypatch.setattr(threads, "_member", broken)
    with pytest.warns(UserWarning, match=r"numba cannot be used \(.*\), so that .* up to 20 times") as caught:
        got = step(value)[0], step.inverse(value)[0]
    assert len(caught) == 1
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(value)


def bernoulli(rows: int = 1000) -> Tensor:
    """A job of eight tasks: log ½ for each of twenty numbers."""
    out = torch.full((rows,), torch.nan)
    threads.run("bernoulli", 8, (), (torch.zeros(1, 20), torch.zeros(rows, 20), out))
    return out


@pytest.mark.parametrize("has_openmp", [True, False])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_threads_share_all_tasks(has_openmp: bool, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_openmp:
        monkeypatch.setattr(threads, "_start_team", None)
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        torch.testing.assert_close(bernoulli(), torch.full((1000,), -20 * math.log(2)))
    finally:
        torch.set_num_threads(before)


def test_what_was_not_done_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python is not told of an exception in machine code."""
    monkeypatch.setattr(threads, "_member", lambda kernel, size: threads._Member(lambda job: None))
    with pytest.raises(MemoryError, match="not enough memory for the work space of bernoulli"):
        bernoulli()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_forked_process_has_threads_of_its_own() -> None:
    bernoulli()
    child = os.fork()
    if not child:
        signal.alarm(20)
        os._exit(7 if bernoulli().isfinite().all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize(("real", "ulp"), [(np.float32, 1.0), (np.float64, 2.0)])
def test_exp(real: Any, ulp: float) -> None:
    """Over the whole range, at its ends, where the result is below the smallest normal number, and for what is none."""

    @njit(**cpu.FAST)
    def exp(x: Any, out: Any) -> None:
        for i in range(len(x)):
            out[i] = cpu._exp(x[i])

    most = 88.7 if real == np.float32 else 709.7
    x = np.concatenate([np.linspace(-most, most, 100_001), np.linspace(-1, 1, 100_001)]).astype(real)
    out = np.empty_like(x)
    exp(x, out)
    wide = np.exp(x.astype(np.longdouble))
    assert (np.abs(out - wide) / np.spacing(wide.astype(real))).max() < ulp
    with np.errstate(over="ignore"):
        for special in (0.0, np.inf, -np.inf, np.nan, 1e30, -1e30, 89.0, 710.0, -88.5, -100.0, -104.5, -745.0, -746.0):
            value = np.array([special], real)
            exp(value, out)
            np.testing.assert_allclose(out[0], np.exp(value)[0], rtol=1e-3, atol=2 * np.finfo(real).smallest_subnormal)
