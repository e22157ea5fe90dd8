"""Jobs of machine code, their tasks shared out to threads."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaeflow.kernels import cpu


def tasks_for(parts: int) -> int:
    """How many tasks share so many equal parts: four for each thread, so that a late one does not leave others idle."""
    return min(parts, 4 * torch.get_num_threads())


def run(kernel: str, tasks: int, scalars: Sequence[int], arrays: Sequence[Tensor | np.ndarray]) -> None:
    """Do all tasks of a job in as many threads as torch uses, and wait for it.

    They are threads of torch's own OpenMP: those go on spinning for some milliseconds after an operation of torch, and
    would keep any others from running. Where torch has another OpenMP than GNU's, it is a pool of our own. Python's
    lock has no part in it.

    Args:
        kernel: name of a function of a job in :mod:`vaeflow.kernels.cpu`.
        arrays: contiguous, tables of int64 or numbers of the type of the last one.
    """
    numbers = [0, tasks, 0, *scalars] + [0] * (cpu.ARRAYS - cpu.SCALARS - len(scalars))
    real = arrays[-1].dtype
    for array in arrays:
        if isinstance(array, Tensor):
            right = array.is_contiguous() and array.device.type == "cpu" and array.dtype == real
        else:
            right = array.flags.c_contiguous and array.dtype == np.int64
        if not right:
            raise TypeError(f"{kernel} takes contiguous arrays of {real} on the CPU, and tables of int64.")
        address = array.data_ptr() if isinstance(array, Tensor) else array.ctypes.data
        numbers += [address, *array.shape] + [0] * (3 - array.ndim)
    job = np.array(numbers, np.int64)
    member, pointer = _member(kernel, arrays[-1].itemsize), job.ctypes.data
    threads = min(torch.get_num_threads(), tasks)
    if threads < 2:
        member(pointer)
    elif _start_team is not None:
        _start_team(member, pointer, threads, 0)
    else:
        helpers = [_pool(threads).submit(member, pointer) for _ in range(threads - 1)]
        try:
            member(pointer)
        finally:
            wait(helpers)  # whatever happens here, as they write to these arrays
    if job[cpu.DONE] != tasks:
        raise MemoryError(f"not enough memory for the work space of {kernel}.")


@functools.cache
def _member(kernel: str, size: int) -> Any:
    return _Member(cpu.member(kernel, size).address)


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
