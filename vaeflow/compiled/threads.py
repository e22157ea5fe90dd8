"""Tasks shared out to threads."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def together(work: Callable[[T], None], tasks: Sequence[T]) -> None:
    """Do the work of all tasks in as many threads as torch uses, and wait for it.

    They are threads of torch's own OpenMP: those go on spinning for some milliseconds after an operation of torch, and
    would keep any others from running. Where torch has another OpenMP than GNU's, it is a pool of our own.
    """
    threads = min(torch.get_num_threads(), len(tasks))
    left = iter(tasks)
    errors = []

    def member(_: Any = None) -> None:
        try:
            for task in left:
                work(task)
        except BaseException as error:
            errors.append(error)

    if threads < 2:
        member()
    elif _start_team is not None:
        _start_team(_Member(member), None, threads, 0)
    else:
        helpers = [_pool(threads).submit(member) for _ in range(threads - 1)]
        member()
        for helper in helpers:
            helper.result()
    if errors:
        raise errors[0]


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "vaeflow")


_Member = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
try:
    _start_team: Any = ctypes.CDLL(None).GOMP_parallel
    _start_team.argtypes = [_Member, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
except (AttributeError, OSError, TypeError):  # LLVM's OpenMP, or Windows
    _start_team = None


def _after_fork() -> None:
    """Threads do not survive a fork, and GNU's OpenMP would wait for them for ever."""
    global _start_team
    _start_team = None
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
