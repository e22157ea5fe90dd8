"""The sequential solve of an autoregressive map in machine code, for the CPU.

:mod:`vaeflow.bijections.sequential` says what is computed. Here the features are taken in blocks. What a block reads of
the blocks before it is a product of matrices; what it reads of itself is a small triangle, taken feature by feature for
all samples of a chunk at once. Every chunk is a task of its own, so that threads never wait for each other, and holds
its numbers unit by unit, the samples side by side.

numba compiles it at the first call for each number of layers and number type, and keeps the result on disk.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numba import njit
from numba.core.errors import NumbaError as NumbaError
from torch import Tensor, nn

from vaeflow.bijections.elementwise import LOG_SCALE_BOUND
from vaeflow.bijections.transformers import Additive, Affine, Gated, Transformer
from vaeflow.nets.made import MADE

ACTIVATIONS = (nn.ReLU, nn.ELU, nn.SiLU, nn.Tanh, nn.Softplus, nn.LeakyReLU, nn.GELU)
RELU, ELU, SILU, TANH, SOFTPLUS, LEAKY_RELU, GELU = range(7)
TRANSFORMERS = (Additive, Affine, Gated)
ADDITIVE, AFFINE, GATED = range(3)
BLOCK = 16  # features in a block
CHUNK, FEW = 64, 16  # samples in a chunk, and lanes for it where there are few
PANEL = 128  # columns, of which those of a chunk stay in the nearest cache
ROUND = {"contract"}  # never fast where there are infinities and NaN


def is_able(made: MADE, transformer: Transformer, value: Tensor) -> bool:
    """Whether the solve of these is in here."""
    return (
        type(transformer) in TRANSFORMERS
        and type(made.activation) in ACTIVATIONS
        and value.dtype in (torch.float32, torch.float64)
        and value.device.type == "cpu"
        and made.out.weight.dtype == value.dtype
    )


def solve(
    made: MADE, transformer: Transformer, inverse: bool, value: Tensor, conditioned: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The image y of v, and log |det ∂y/∂v|; see :func:`vaeflow.bijections.sequential.solve`.

    Args:
        value: v ``(..., batch, D)``.
        conditioned: the context's part of the first layer, ``(batch, hidden[0])``, or with more of the dimensions of v.
    """
    lead = value.shape[:-1]
    v = value.detach().flatten(0, -2).contiguous().numpy()
    y, log_det = np.empty_like(v), np.empty(len(v), v.dtype)
    if conditioned is None:
        context = np.zeros((0, 0), v.dtype)
    else:  # sample n of all has row n modulo the number of rows
        if conditioned.shape[:-1] != lead[len(lead) + 1 - conditioned.dim() :]:
            conditioned = conditioned.expand(*lead, -1)
        context = conditioned.detach().flatten(0, -2).contiguous().numpy()
    stages = made.stages
    weights, biases = (
        tuple(getattr(stage, name).detach().contiguous().numpy() for stage in stages) for name in ("weight", "bias")
    )
    added = np.array([made.is_added(k) for k in range(len(stages))])
    net = (weights, biases, made.table, added, made.reverse)
    codes = (ACTIVATIONS.index(type(made.activation)), TRANSFORMERS.index(type(transformer)), inverse)
    threads = torch.get_num_threads()
    chunk = min(CHUNK, max(1, -(-len(v) // threads)))
    starts = iter(range(0, len(v), chunk))

    def work() -> None:
        for start in starts:
            part = slice(start, start + chunk)
            _solve(v[part], context, start, *net, *codes, y[part], log_det[part])

    _together(work, min(threads, -(-len(v) // chunk)))
    return torch.from_numpy(y).view(value.shape), torch.from_numpy(log_det).view(lead)


def _together(work: Callable[[], None], threads: int) -> None:
    """Do the same work in so many threads, those of torch's own OpenMP: they go on spinning for some milliseconds after
    an operation of torch, and would keep any others from running. A pool of our own where torch has another OpenMP."""
    if threads < 2:
        return work()
    if _start_team is None:
        helpers = [_pool(threads).submit(work) for _ in range(threads - 1)]
        work()
        for helper in helpers:
            helper.result()
        return None
    errors = []

    def member(_: Any) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    _start_team(_Member(member), None, threads, 0)
    if errors:
        raise errors[0]
    return None


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


@njit(nogil=True, forceinline=True, fastmath=ROUND)
def _add_product(
    lanes: int, out: Any, to: int, weight: Any, first: int, last: int, known: Any, shift: int, columns: Any
) -> None:
    """out[to + r] += Σ_c weight[first + r, c] known[shift + c] for c in range(*columns), as long as first + r < last.

    A unit has ``lanes`` numbers, one of each sample. How many is known when this is compiled, so that the inner loops
    have no remainder, and four units read four columns with all that is in flight held in registers.
    """
    for begin in range(columns[0], columns[1], PANEL):
        end = min(begin + PANEL, columns[1])
        r = first
        while r + 4 <= last:
            o = out[(to + r - first) * lanes : (to + r - first + 4) * lanes]
            c = begin
            while c + 4 <= end:
                x = known[(shift + c) * lanes : (shift + c + 4) * lanes]
                a0, a1, a2, a3 = weight[r, c], weight[r, c + 1], weight[r, c + 2], weight[r, c + 3]
                b0, b1, b2, b3 = weight[r + 1, c], weight[r + 1, c + 1], weight[r + 1, c + 2], weight[r + 1, c + 3]
                c0, c1, c2, c3 = weight[r + 2, c], weight[r + 2, c + 1], weight[r + 2, c + 2], weight[r + 2, c + 3]
                d0, d1, d2, d3 = weight[r + 3, c], weight[r + 3, c + 1], weight[r + 3, c + 2], weight[r + 3, c + 3]
                for s in range(lanes):
                    x0, x1, x2, x3 = x[s], x[lanes + s], x[2 * lanes + s], x[3 * lanes + s]
                    o[s] = o[s] + a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                    o[lanes + s] = o[lanes + s] + b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                    o[2 * lanes + s] = o[2 * lanes + s] + c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                    o[3 * lanes + s] = o[3 * lanes + s] + d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3
                c += 4
            while c < end:
                x = known[(shift + c) * lanes : (shift + c + 1) * lanes]
                a0, b0, c0, d0 = weight[r, c], weight[r + 1, c], weight[r + 2, c], weight[r + 3, c]
                for s in range(lanes):
                    o[s] += a0 * x[s]
                    o[lanes + s] += b0 * x[s]
                    o[2 * lanes + s] += c0 * x[s]
                    o[3 * lanes + s] += d0 * x[s]
                c += 1
            r += 4
        while r < last:
            o = out[(to + r - first) * lanes : (to + r - first + 1) * lanes]
            c = begin
            while c + 4 <= end:
                x = known[(shift + c) * lanes : (shift + c + 4) * lanes]
                a0, a1, a2, a3 = weight[r, c], weight[r, c + 1], weight[r, c + 2], weight[r, c + 3]
                for s in range(lanes):
                    o[s] = o[s] + a0 * x[s] + a1 * x[lanes + s] + a2 * x[2 * lanes + s] + a3 * x[3 * lanes + s]
                c += 4
            while c < end:
                x = known[(shift + c) * lanes : (shift + c + 1) * lanes]
                a0 = weight[r, c]
                for s in range(lanes):
                    o[s] += a0 * x[s]
                c += 1
            r += 1


@njit(nogil=True, cache=True, fastmath=ROUND)
def _activate(activation: int, sums: Any, out: Any) -> None:
    """out = the activation of sums, elementwise, as torch defines it."""
    zero, one, half = sums.dtype.type(0), sums.dtype.type(1), sums.dtype.type(0.5)
    slope, root, linear = sums.dtype.type(0.01), sums.dtype.type(math.sqrt(0.5)), sums.dtype.type(20)
    for s in range(len(sums)):
        a = sums[s]
        if activation == RELU:
            out[s] = zero if a < zero else a
        elif activation == ELU:
            out[s] = math.expm1(a) if a < zero else a
        elif activation == SILU:
            out[s] = a / (one + math.exp(-a))
        elif activation == TANH:
            out[s] = math.tanh(a)
        elif activation == SOFTPLUS:
            out[s] = a if a > linear else math.log1p(math.exp(a))
        elif activation == LEAKY_RELU:
            out[s] = slope * a if a < zero else a
        else:
            out[s] = half * a * (one + math.erf(a * root))


@njit(nogil=True, forceinline=True, fastmath=ROUND)
def _transform(
    transformer: int, inverse: bool, lanes: int, value: Any, theta: Any, apart: int, out: Any, log_det: Any
) -> None:
    """out = τ(value; θ) or its inverse, for all samples; the logarithm of the slope is added to log_det.

    Args:
        theta: θ, its numbers ``apart`` from each other.
    """
    one, two, bound = value.dtype.type(1), value.dtype.type(2), value.dtype.type(LOG_SCALE_BOUND)
    for s in range(lanes):
        v = value[s]
        if transformer == ADDITIVE:
            out[s] = v - theta[s] if inverse else v + theta[s]
            continue
        raw = theta[s] if transformer == AFFINE else theta[apart + s]
        scale = bound - two * bound / (math.exp(two * raw / bound) + one)  # B tanh(raw/B), in a quarter of the time
        if transformer == AFFINE:
            t = theta[apart + s]
            out[s] = (v - t) * math.exp(-scale) if inverse else v * math.exp(scale) + t
        else:
            m = theta[s]
            odds = math.exp(-scale - two)
            out[s] = v + (v - m) * odds if inverse else m + (v - m) / (one + odds)
            scale = -math.log1p(odds)
        log_det[s] += -scale if inverse else scale


@njit(nogil=True, cache=True, fastmath=ROUND)
def _solve(
    value: Any, context: Any, start: int, weights: Any, biases: Any, counts: Any, added: Any, reverse: bool,
    activation: int, transformer: int, inverse: bool, image: Any, log_det: Any,
) -> None:  # fmt: skip
    """The samples ``start``, start + 1, … of one chunk."""
    arguments = (value, context, start, weights, biases, counts, added, reverse, activation, transformer, inverse)
    if len(value) <= FEW:
        _solve_in_lanes(FEW, *arguments, image, log_det)
    else:
        _solve_in_lanes(CHUNK, *arguments, image, log_det)


@njit(nogil=True, forceinline=True, fastmath=ROUND)
def _solve_in_lanes(
    lanes: int, value: Any, context: Any, start: int, weights: Any, biases: Any, counts: Any, added: Any, reverse: bool,
    activation: int, transformer: int, inverse: bool, image: Any, log_det: Any,
) -> None:  # fmt: skip
    """The same, of at most ``lanes`` samples.

    ``known`` holds all that is finished, the features first and then the activations of stage after stage; ``sums``
    those of the units of one block, and ``thetas`` its outputs. They are unit by unit, each of so many lanes.
    """
    samples, features = image.shape
    dtype = value.dtype
    hidden = len(weights) - 1
    outputs = weights[hidden].shape[0] // features
    shifts = np.zeros(hidden + 1, np.int64)  # where the input of each stage begins among what is known
    width, widest = features, 0
    for k in range(hidden):
        shifts[k + 1] = width
        width += weights[k].shape[0]
        for t in range(0, features, BLOCK):
            before = counts[k + 1, t - 1] if t else 0
            widest = max(widest, counts[k + 1, min(t + BLOCK, features) - 1] - before)
    known = np.empty(width * lanes, dtype)
    sums, thetas = np.empty(hidden * widest * lanes, dtype), np.empty(outputs * BLOCK * lanes, dtype)
    v, total = np.zeros(lanes, dtype), np.zeros(lanes, np.float64)
    begin = np.zeros(hidden + 1, np.int64)  # units of each stage, the features first, in the blocks before
    for t0 in range(0, features, BLOCK):
        t1 = min(t0 + BLOCK, features)
        for k in range(hidden + 1):
            begin[k] = counts[k, t0 - 1] if t0 and k else t0
        lowest = features - t1 if reverse else t0  # feature of the block

        # What the blocks before contribute
        for k in range(hidden):
            first, last = begin[k + 1], counts[k + 1, t1 - 1]
            for r in range(first, last):
                row = sums[(k * widest + r - first) * lanes :][:lanes]
                row[:] = biases[k][r]
                if k == 0 and len(context):
                    for s in range(samples):
                        row[s] += context[(start + s) % len(context), r]
            columns = (features - t0, features) if k == 0 and reverse else (0, begin[k])
            _add_product(lanes, sums, k * widest, weights[k], first, last, known, shifts[k], columns)
        for p in range(outputs):
            first = p * features + lowest
            for r in range(t1 - t0):
                thetas[(p * BLOCK + r) * lanes :][:lanes] = biases[hidden][first + r]
            last, columns = first + t1 - t0, (0, begin[hidden])
            _add_product(lanes, thetas, p * BLOCK, weights[hidden], first, last, known, shifts[hidden], columns)

        # What it contributes to itself
        for t in range(t0, t1):
            for k in range(hidden):
                first, last = counts[k + 1, t - 1] if t else 0, counts[k + 1, t]
                to = k * widest + first - begin[k + 1]
                columns = (features - t, features - t0) if k == 0 and reverse else (begin[k], counts[k, t])
                _add_product(lanes, sums, to, weights[k], first, last, known, shifts[k], columns)
                if first < last:
                    row = sums[to * lanes : (to + last - first) * lanes]
                    if added[k]:
                        row += sums[(to - 2 * widest) * lanes :][: len(row)]
                    _activate(activation, row, known[(shifts[k + 1] + first) * lanes :])
            i = features - 1 - t if reverse else t
            columns = (begin[hidden], counts[hidden, t])
            for p in range(outputs):
                row, to = p * features + i, p * BLOCK + i - lowest
                _add_product(lanes, thetas, to, weights[hidden], row, row + 1, known, shifts[hidden], columns)
            v[:samples] = value[:, i]
            theta, out = thetas[(i - lowest) * lanes :], known[i * lanes :]
            _transform(transformer, inverse, lanes, v, theta, BLOCK * lanes, out, total)
    for i in range(features):
        for s in range(samples):
            image[s, i] = known[i * lanes + s]
    log_det[:] = total[:samples]
