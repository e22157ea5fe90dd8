"""What all machine code shares: threads, and doing without numba."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import vaeflow.bijections as B
from vaeflow import compiled
from vaeflow.compiled import kernels, threads


@pytest.fixture
def usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machine code has not failed yet."""
    monkeypatch.setattr(compiled, "_usable", True)


@pytest.mark.parametrize("missing", [True, False])
@torch.no_grad()
def test_without_numba_one_warning_says_so(missing: bool, usable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    step = B.MaskedAutoregressiveStep(200, hidden=[500])
    value = torch.randn(64, 200)
    expected = step(value)[0], step.inverse(value)[0]

    def broken(*arguments: Any) -> None:
        raise kernels.NumbaError("no LLVM today\nand more lines")

    if missing:
        for name in ("solve", "masked"):
            monkeypatch.setitem(sys.modules, f"vaeflow.compiled.{name}", None)
    else:
        monkeypatch.setattr(kernels, "solve", broken)
        monkeypatch.setattr(kernels, "masked_product", broken)
    with pytest.warns(UserWarning, match=r"numba cannot be used \(.*\), so that .* up to 20 times") as caught:
        got = step(value)[0], step.inverse(value)[0]
    assert len(caught) == 1
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(value)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("has_openmp", [True, False])
def test_threads_share_tasks_and_pass_on_errors(
    has_openmp: bool, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_openmp:
        monkeypatch.setattr(threads, "_start_team", None)
    met, done = threading.Barrier(2, timeout=20), list[tuple[int, int]]()

    def work(task: int) -> None:
        done.append((task, threading.get_ident()))
        if task < 2:
            met.wait()

    threads.together(work, range(5))
    assert sorted(task for task, _ in done) == list(range(5))
    assert len({thread for _, thread in done}) == 2
    with pytest.raises(ZeroDivisionError):
        threads.together(lambda task: print(1 / task), range(2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_forked_process_has_threads_of_its_own(two_threads: None) -> None:
    threads.together(lambda task: None, range(2))
    child = os.fork()
    if not child:
        signal.alarm(20)
        threads.together(lambda task: None, range(2))
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
