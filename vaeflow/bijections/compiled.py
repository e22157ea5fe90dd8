"""The sequential solve of an autoregressive map in machine code, for the CPU.

:mod:`vaeflow.bijections.sequential` says what is computed. Here the features are taken in blocks. What a block reads of
the blocks before it is a product of matrices, whose inner loop runs along the columns of a weight with sixteen sums in
registers; what it reads of itself is a small triangle, taken feature by feature for all samples of a chunk at once.
Every chunk of samples is a task of its own, so that threads never wait for each other.

numba compiles it at the first call for each number of layers and number type, and keeps the result on disk.
"""

from __future__ import annotations

import functools
import math
import os
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
CHUNK = 64  # samples in a chunk
SUM, ROUND = {"contract", "reassoc"}, {"contract"}  # never fast where there are infinities and NaN


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
    chunk = min(CHUNK, max(4, -(-len(v) // threads)))
    starts = iter(range(0, len(v), chunk))

    def work() -> None:
        for start in starts:
            part = slice(start, start + chunk)
            _solve(v[part], context, start, *net, *codes, y[part], log_det[part])

    helpers = [_pool(threads).submit(work) for _ in range(min(threads, -(-len(v) // chunk)) - 1)]
    work()
    for helper in helpers:
        helper.result()
    return torch.from_numpy(y).view(value.shape), torch.from_numpy(log_det).view(lead)


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "vaeflow")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


@njit(nogil=True, cache=True, fastmath=SUM)
def _add_product(out: Any, top: int, weight: Any, rows: Any, known: Any, columns: Any, shift: int) -> None:
    """out[top + r] += Σ_c weight[rows[0] + r, c] known[:, shift + c] for c in range(*columns).

    Four samples and four rows at a time, and one by one the rows that remain.
    """
    first, last = columns
    zero = weight.dtype.type(0)
    for s in range(0, known.shape[0], 4):
        x0 = known[s, shift + first : shift + last]
        x1 = known[s + 1, shift + first : shift + last]
        x2 = known[s + 2, shift + first : shift + last]
        x3 = known[s + 3, shift + first : shift + last]
        r = rows[0]
        while r + 4 <= rows[1]:
            w0, w1 = weight[r, first:last], weight[r + 1, first:last]
            w2, w3 = weight[r + 2, first:last], weight[r + 3, first:last]
            a00 = a01 = a02 = a03 = a10 = a11 = a12 = a13 = zero
            a20 = a21 = a22 = a23 = a30 = a31 = a32 = a33 = zero
            for c in range(last - first):
                p, q, t, u = w0[c], w1[c], w2[c], w3[c]
                g, h, i, j = x0[c], x1[c], x2[c], x3[c]
                a00, a01, a02, a03 = a00 + p * g, a01 + p * h, a02 + p * i, a03 + p * j
                a10, a11, a12, a13 = a10 + q * g, a11 + q * h, a12 + q * i, a13 + q * j
                a20, a21, a22, a23 = a20 + t * g, a21 + t * h, a22 + t * i, a23 + t * j
                a30, a31, a32, a33 = a30 + u * g, a31 + u * h, a32 + u * i, a33 + u * j
            to = top + r - rows[0]
            _add_four(out[to], s, a00, a01, a02, a03)
            _add_four(out[to + 1], s, a10, a11, a12, a13)
            _add_four(out[to + 2], s, a20, a21, a22, a23)
            _add_four(out[to + 3], s, a30, a31, a32, a33)
            r += 4
        while r < rows[1]:
            w0 = weight[r, first:last]
            a00 = a01 = a02 = a03 = zero
            for c in range(last - first):
                p = w0[c]
                a00, a01, a02, a03 = a00 + p * x0[c], a01 + p * x1[c], a02 + p * x2[c], a03 + p * x3[c]
            _add_four(out[top + r - rows[0]], s, a00, a01, a02, a03)
            r += 1


@njit(nogil=True, cache=True, inline="always")
def _add_four(row: Any, s: int, a0: Any, a1: Any, a2: Any, a3: Any) -> None:
    row[s] += a0
    row[s + 1] += a1
    row[s + 2] += a2
    row[s + 3] += a3


@njit(nogil=True, cache=True, fastmath=ROUND)
def _add_columns(out: Any, weight: Any, columns: Any, values: Any, shift: int) -> None:
    """out += Σ_c weight[c] values[c − shift] for c in range(*columns)."""
    c, last = columns
    while c + 4 <= last:
        w0, w1, w2, w3 = weight[c], weight[c + 1], weight[c + 2], weight[c + 3]
        v0, v1, v2, v3 = values[c - shift], values[c + 1 - shift], values[c + 2 - shift], values[c + 3 - shift]
        for s in range(len(out)):
            out[s] += w0 * v0[s] + w1 * v1[s] + w2 * v2[s] + w3 * v3[s]
        c += 4
    while c < last:
        w0, v0 = weight[c], values[c - shift]
        for s in range(len(out)):
            out[s] += w0 * v0[s]
        c += 1


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


@njit(nogil=True, cache=True, fastmath=ROUND)
def _transform(transformer: int, inverse: bool, value: Any, theta: Any, out: Any, log_det: Any) -> None:
    """out = τ(value; theta) or its inverse, for all samples; the logarithm of the slope is added to log_det."""
    one, two, bound = value.dtype.type(1), value.dtype.type(2), value.dtype.type(LOG_SCALE_BOUND)
    for s in range(len(value)):
        v = value[s]
        if transformer == ADDITIVE:
            out[s] = v - theta[0, s] if inverse else v + theta[0, s]
            continue
        raw = theta[0, s] if transformer == AFFINE else theta[1, s]
        scale = bound - two * bound / (math.exp(two * raw / bound) + one)  # B tanh(raw/B), in a quarter of the time
        if transformer == AFFINE:
            t = theta[1, s]
            out[s] = (v - t) * math.exp(-scale) if inverse else v * math.exp(scale) + t
        else:
            m = theta[0, s]
            odds = math.exp(-scale - two)
            out[s] = v + (v - m) * odds if inverse else m + (v - m) / (one + odds)
            scale = -math.log1p(odds)
        log_det[s] += -scale if inverse else scale


@njit(nogil=True, cache=True, fastmath=ROUND)
def _solve(
    value: Any, context: Any, start: int, weights: Any, biases: Any, counts: Any, added: Any, reverse: bool,
    activation: int, transformer: int, inverse: bool, image: Any, log_det: Any,
) -> None:  # fmt: skip
    """The samples ``start``, start + 1, … of one chunk.

    Arrays of sums and activations are unit by unit and hold the units of one block; ``known`` is sample by sample and
    holds all that is finished: the features, then the activations of stage after stage.
    """
    samples, features = image.shape
    n = (samples + 3) // 4 * 4  # the last ones are made up
    dtype = value.dtype
    hidden = len(weights) - 1
    outputs = weights[hidden].shape[0] // features
    shifts = np.zeros(hidden + 1, np.int64)  # where the input of each stage begins in a row of `known`
    width, widest = features, 0
    for k in range(hidden):
        shifts[k + 1] = width
        width += weights[k].shape[0]
        for t in range(0, features, BLOCK):
            before = counts[k + 1, t - 1] if t else 0
            widest = max(widest, counts[k + 1, min(t + BLOCK, features) - 1] - before)
    known = np.empty((n, width), dtype)
    sums, active = np.empty((hidden, widest, n), dtype), np.empty((hidden, widest, n), dtype)
    block = np.empty((BLOCK, n), dtype)
    thetas, theta = np.empty((outputs * BLOCK, n), dtype), np.empty((outputs, n), dtype)
    v, total = np.zeros(n, dtype), np.zeros(n, np.float64)
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
                sums[k, r - first] = biases[k][r]
                if k == 0 and len(context):
                    for s in range(samples):
                        sums[0, r - first, s] += context[(start + s) % len(context), r]
            columns = (features - t0, features) if k == 0 and reverse else (0, begin[k])
            _add_product(sums[k], 0, weights[k], (first, last), known, columns, shifts[k])
        for p in range(outputs):
            first = p * features + lowest
            for r in range(t1 - t0):
                thetas[p * BLOCK + r] = biases[hidden][first + r]
            rows = (first, first + t1 - t0)
            _add_product(thetas, p * BLOCK, weights[hidden], rows, known, (0, begin[hidden]), shifts[hidden])

        # What it contributes to itself
        for t in range(t0, t1):
            for k in range(hidden):
                first = begin[k + 1]
                below = block if k == 0 else active[k - 1]
                columns = (begin[k], t if k == 0 else counts[k, t])
                if k == 0 and reverse:
                    columns = (features - t, features - t0)
                shift = lowest if k == 0 else begin[k]
                for r in range(counts[k + 1, t - 1] if t else 0, counts[k + 1, t]):
                    _add_columns(sums[k, r - first], weights[k][r], columns, below, shift)
                    if added[k]:
                        sums[k, r - first] += sums[k - 2, r - first]
                    _activate(activation, sums[k, r - first], active[k, r - first])
            i = features - 1 - t if reverse else t
            columns = (begin[hidden], counts[hidden, t])
            for p in range(outputs):
                row = thetas[p * BLOCK + i - lowest]
                _add_columns(row, weights[hidden][p * features + i], columns, active[hidden - 1], begin[hidden])
                theta[p] = row
            v[:samples] = value[:, i]
            _transform(transformer, inverse, v, theta, block[i - lowest], total)

        # It is finished
        for r in range(t1 - t0):
            known[:, lowest + r] = block[r]
        for k in range(hidden):
            for r in range(begin[k + 1], counts[k + 1, t1 - 1]):
                known[:, shifts[k + 1] + r] = active[k, r - begin[k + 1]]
    image[:] = known[:samples, :features]
    log_det[:] = total[:samples]
