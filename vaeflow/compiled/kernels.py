"""The functions that numba compiles, at their first call for each number type; the result is kept on disk.

All of them stand in this file, since numba's cache of a function knows changes of its own file alone.

A unit is held as so many numbers side by side, one of each sample of a chunk. How many, the *lanes*, is known when an
inner loop is compiled: so it has no remainder, and four units read four columns with everything in registers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numba.core.errors import NumbaError as NumbaError

from vaeflow.bijections.elementwise import LOG_SCALE_BOUND

RELU, ELU, SILU, TANH, SOFTPLUS, LEAKY_RELU, GELU = range(7)
ADDITIVE, AFFINE, GATED = range(3)
MANY, FEW = 64, 16  # lanes of a chunk, and of one with fewer samples
BLOCK = 16  # features in a block of the sequential solve
UNITS = 64  # units in a block of a masked layer
PANEL = 96  # columns, of which those of a chunk stay in the nearest cache
ROUND = {"contract"}  # never fast where there are infinities and NaN

# ---------------------------------------------------------------------------------------------------------- products


@njit(nogil=True, forceinline=True, fastmath=ROUND)
def _add_to_four(
    lanes: int, out: Any, to: int, weight: Any, r: int, known: Any, shift: int, begin: int, end: int
) -> None:
    """out[to + i] += Σ_c weight[r + i, c] known[shift + c] for c in range(begin, end) and i in range(4)."""
    o = out[to * lanes : (to + 4) * lanes]
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


@njit(nogil=True, forceinline=True, fastmath=ROUND)
def _add_to_one(
    lanes: int, out: Any, to: int, weight: Any, r: int, known: Any, shift: int, begin: int, end: int
) -> None:
    """out[to] += Σ_c weight[r, c] known[shift + c] for c in range(begin, end)."""
    o = out[to * lanes : (to + 1) * lanes]
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


@njit(nogil=True, forceinline=True, fastmath=ROUND)
def _add_product(
    lanes: int, out: Any, to: int, weight: Any, first: int, last: int, known: Any, shift: int, begin: int, end: int
) -> None:
    """out[to + r − first] += Σ_c weight[r, c] known[shift + c] for c in range(begin, end), r in range(first, last)."""
    for panel in range(begin, end, PANEL):
        stop = min(panel + PANEL, end)
        r = first
        while r + 4 <= last:
            _add_to_four(lanes, out, to + r - first, weight, r, known, shift, panel, stop)
            r += 4
        while r < last:
            _add_to_one(lanes, out, to + r - first, weight, r, known, shift, panel, stop)
            r += 1


@njit(nogil=True, forceinline=True, fastmath=ROUND)
def _add_masked_product(
    lanes: int, out: Any, weight: Any, ranges: Any, first: int, last: int, known: Any, shift: int
) -> None:
    """out[r − first] += Σ_c weight[r, c] known[shift + c] for c in range(*ranges[r]), r in range(first, last)."""
    least, most = ranges[first:last, 0].min(), ranges[first:last, 1].max()
    for panel in range(least, most, PANEL):
        stop = min(panel + PANEL, most)
        r = first
        while r + 4 <= last:
            # what all four read, and then what single ones read before and after it
            begin = max(panel, ranges[r, 0], ranges[r + 1, 0], ranges[r + 2, 0], ranges[r + 3, 0])
            end = max(begin, min(stop, ranges[r, 1], ranges[r + 1, 1], ranges[r + 2, 1], ranges[r + 3, 1]))
            _add_to_four(lanes, out, r - first, weight, r, known, shift, begin, end)
            for i in range(r, r + 4):
                before, after = max(panel, ranges[i, 0]), min(stop, ranges[i, 1])
                _add_to_one(lanes, out, i - first, weight, i, known, shift, before, min(begin, after))
                _add_to_one(lanes, out, i - first, weight, i, known, shift, max(end, before), after)
            r += 4
        while r < last:
            begin, end = max(panel, ranges[r, 0]), min(stop, ranges[r, 1])
            _add_to_one(lanes, out, r - first, weight, r, known, shift, begin, end)
            r += 1


@njit(nogil=True, forceinline=True)
def _pack(lanes: int, rows: Any, out: Any) -> None:
    """out[unit, s] = rows[s, unit], zero where there are fewer rows than lanes."""
    samples, units = rows.shape
    for first in range(0, units, 16):
        last = min(first + 16, units)
        for s in range(samples):
            for unit in range(first, last):
                out[unit * lanes + s] = rows[s, unit]
        for unit in range(first, last):
            for s in range(samples, lanes):
                out[unit * lanes + s] = 0


@njit(nogil=True, forceinline=True)
def _unpack(lanes: int, units: Any, out: Any) -> None:
    """out[s, unit] = units[unit, s]."""
    for first in range(0, out.shape[1], 16):
        last = min(first + 16, out.shape[1])
        for s in range(out.shape[0]):
            for unit in range(first, last):
                out[s, unit] = units[unit * lanes + s]


# ----------------------------------------------------------------------------------------------- masked linear layers


@njit(nogil=True, cache=True, fastmath=ROUND)
def masked_product(
    x: Any, weight: Any, bias: Any, ranges: Any, groups: int, groups_read: int, share: int, shares: int, out: Any
) -> None:
    """out[s, g R + r] = bias[g R + r] + Σ_h Σ_c weight[g R + r, h C + c] x[s, h C + c] for c in range(*ranges[r]).

    Args:
        x: ``(samples, groups_read · C)``, no more than MANY samples.
        bias: an empty array for zeros.
        ranges: ``(R, 2)``.
        share: which of the ``shares`` parts of the units to compute.
        out: ``(samples, groups · R)``.
    """
    lanes = MANY
    units, columns = len(ranges), x.shape[1] // groups_read
    known, sums = np.empty(x.shape[1] * lanes, x.dtype), np.empty(UNITS * lanes, x.dtype)
    _pack(lanes, x, known)
    blocks = -(-units // UNITS)
    for block in range(share, groups * blocks, shares):
        g, first = block // blocks * units, block % blocks * UNITS
        last = min(first + UNITS, units)
        sums[:] = 0
        if len(bias):
            for r in range(first, last):
                sums[(r - first) * lanes : (r - first + 1) * lanes] = bias[g + r]
        for h in range(0, x.shape[1], columns):
            part = weight[g : g + units, h : h + columns]
            _add_masked_product(lanes, sums, part, ranges, first, last, known, h)
        _unpack(lanes, sums, out[:, g + first : g + last])


@njit(nogil=True, cache=True, fastmath=ROUND)
def masked_gradient(
    g: Any, x: Any, ranges: Any, groups: int, panel: int, first: int, last: int, share: int, shares: int, out: Any
) -> None:
    """out[u, c] = Σ_s g[s, u] x[s, c] where unit u reads column c, zero elsewhere; MANY columns from ``panel`` on.

    Args:
        g: ``(units, samples)``.
        ranges: of the columns that each unit of a group reads, ``(R, 2)``.
        first, last: range of the units of a group that read any of these columns.
        out: ``(units, columns)``.
    """
    lanes = MANY
    units, samples, width = len(ranges), len(x), min(lanes, x.shape[1] - panel)
    known, sums = np.zeros(samples * lanes, x.dtype), np.empty(UNITS * lanes, x.dtype)
    for s in range(samples):
        known[s * lanes : s * lanes + width] = x[s, panel : panel + width]
    blocks = -(-units // UNITS)
    for block in range(share, groups * blocks, shares):
        at, start = block // blocks * units, block % blocks * UNITS
        stop = min(start + UNITS, units)
        out[at + start : at + stop, panel : panel + width] = 0
        start, stop = max(start, first), min(stop, last)
        if start >= stop:
            continue
        sums[:] = 0
        _add_product(lanes, sums, 0, g, at + start, at + stop, known, 0, 0, samples)
        for r in range(start, stop):
            for c in range(max(panel, ranges[r, 0]), min(panel + width, ranges[r, 1])):
                out[at + r, c] = sums[(r - start) * lanes + c - panel]


# -------------------------------------------------------------------------------------------------------------- noise

GOLDEN, MIX_1, MIX_2 = (np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@njit(nogil=True, forceinline=True)
def _mix(h: Any) -> Any:
    """SplitMix64's output function."""
    h = (h ^ (h >> np.uint64(30))) * MIX_1
    h = (h ^ (h >> np.uint64(27))) * MIX_2
    return h ^ (h >> np.uint64(31))


@njit(nogil=True, cache=True)
def random_bits(index: Any, key: Any, first_sample: Any, out: Any) -> None:
    """out[s, b, c]: number c of the stream of example index[b] and sample first_sample + s. All are uint64."""
    for s in range(out.shape[0]):
        for b in range(out.shape[1]):
            example = _mix(index[b] * GOLDEN + key + GOLDEN)
            stream = _mix(_mix(example + (first_sample + np.uint64(s + 1)) * GOLDEN))
            for c in range(out.shape[2]):
                out[s, b, c] = _mix(stream + np.uint64(c + 1) * GOLDEN)


# ----------------------------------------------------------------------------------------- the sequential solve


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
def solve(
    value: Any, context: Any, start: int, weights: Any, biases: Any, counts: Any, added: Any, reverse: bool,
    activation: int, transformer: int, inverse: bool, image: Any, log_det: Any,
) -> None:  # fmt: skip
    """The samples ``start``, start + 1, … of one chunk."""
    arguments = (value, context, start, weights, biases, counts, added, reverse, activation, transformer, inverse)
    if len(value) <= FEW:
        _solve_in_lanes(FEW, *arguments, image, log_det)
    else:
        _solve_in_lanes(MANY, *arguments, image, log_det)


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
            _add_product(lanes, sums, k * widest, weights[k], first, last, known, shifts[k], *columns)
        for p in range(outputs):
            first = p * features + lowest
            for r in range(t1 - t0):
                thetas[(p * BLOCK + r) * lanes :][:lanes] = biases[hidden][first + r]
            last, columns = first + t1 - t0, (0, begin[hidden])
            _add_product(lanes, thetas, p * BLOCK, weights[hidden], first, last, known, shifts[hidden], *columns)

        # What it contributes to itself
        for t in range(t0, t1):
            for k in range(hidden):
                first, last = counts[k + 1, t - 1] if t else 0, counts[k + 1, t]
                to = k * widest + first - begin[k + 1]
                columns = (features - t, features - t0) if k == 0 and reverse else (begin[k], counts[k, t])
                _add_product(lanes, sums, to, weights[k], first, last, known, shifts[k], *columns)
                if first < last:
                    row = sums[to * lanes : (to + last - first) * lanes]
                    if added[k]:
                        row += sums[(to - 2 * widest) * lanes :][: len(row)]
                    _activate(activation, row, known[(shifts[k + 1] + first) * lanes :])
            i = features - 1 - t if reverse else t
            columns = (begin[hidden], counts[hidden, t])
            for p in range(outputs):
                row, to = p * features + i, p * BLOCK + i - lowest
                _add_product(lanes, thetas, to, weights[hidden], row, row + 1, known, shifts[hidden], *columns)
            v[:samples] = value[:, i]
            theta, out = thetas[(i - lowest) * lanes :], known[i * lanes :]
            _transform(transformer, inverse, lanes, v, theta, BLOCK * lanes, out, total)
    for i in range(features):
        for s in range(samples):
            image[s, i] = known[i * lanes + s]
    log_det[:] = total[:samples]
