"""The functions that numba compiles, at their first call for each number type; the result is kept on disk.

All of them stand in this file, since numba's cache of a function knows changes of its own file alone.

A unit is held as so many numbers side by side, one of each sample of a chunk. How many, the *lanes*, is known when the
inner loop of a product is compiled: so it has no remainder, and four units read four columns with everything in
registers.

A net comes as a table with a row for each layer: the addresses of weight and bias, how many units a group has, how many
groups there are, how many columns, and whether the sum of the layer before the last is added to its own. So it is one
function for nets of any depth.
"""

from __future__ import annotations

import functools
import math
from types import FunctionType
from typing import Any

import numpy as np
from numba import carray, cfunc, extending, njit, types
from numpy.lib.stride_tricks import as_strided

from vaeflow.functional import LOG_SCALE_BOUND

RELU, ELU, SILU, TANH, SOFTPLUS, LEAKY_RELU, GELU = range(7)
ADDITIVE, AFFINE, GATED, NONE = range(4)
BOUND = 7.0  # of log-scales
assert BOUND == LOG_SCALE_BOUND, "another file's constant would stay as it was in what is kept on disk"
WEIGHT, BIAS, UNITS, GROUPS, COLUMNS, ADDED = range(6)  # columns of the table
MANY, FEW = 64, 16  # lanes of a chunk, and of one with fewer samples
BLOCK = 16  # features in a block of the sequential solve
ROWS = 64  # units in a block of a masked layer
PANEL = 96  # columns, of which those of a chunk stay in the nearest cache
FAST: Any = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
"""Options of all functions: rounding is the one freedom taken, and infinities and NaN stay what they are."""
FAST_SUMS: Any = {**FAST, "fastmath": {"contract", "reassoc"}}
"""The same with sums in any order."""
intrinsic: Any = extending.intrinsic  # whose type counts the context of typing among the arguments

# ----------------------------------------------------------------------------------------------------- elementary


@intrinsic
def _bits_of(typing: Any, number: Any) -> Any:
    """A float as an integer of the same size."""
    return _cast(number, types.int32 if number == types.float32 else types.int64)


@intrinsic
def _of_bits(typing: Any, bits: Any) -> Any:
    """An integer as a float of the same size."""
    return _cast(bits, types.float32 if bits == types.int32 else types.float64)


def _cast(from_: Any, to: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(to))

    return to(from_), code


@njit(**FAST, forceinline=True)
def _exp_single(r: Any) -> Any:
    """exp r in float32 for r within ±½ log 2."""
    y = np.float32(1.98756915e-4)
    y = y * r + np.float32(1.39819995e-3)
    y = y * r + np.float32(8.33345191e-3)
    y = y * r + np.float32(4.16657959e-2)
    y = y * r + np.float32(1.66666655e-1)
    y = y * r + np.float32(5.00000012e-1)
    return y * (r * r) + r + np.float32(1)


@njit(**FAST, forceinline=True)
def _exp_double(r: Any) -> Any:
    """exp r in float64 for r within ±½ log 2."""
    rr = r * r
    p = r * ((1.26177193074810590878e-4 * rr + 3.02994407707441961300e-2) * rr + 9.99999999999999999910e-1)
    q = ((3.00198505138664455042e-6 * rr + 2.52448340349684104192e-3) * rr + 2.27265548208155028766e-1) * rr + 2.0
    return 1.0 + 2.0 * p / (q - p)


def _exp(x: float) -> float:
    """exp x to two units in the last place, without a branch or a call, so that it runs along the lanes.

    x = r + n log 2, and exp r is a polynomial, or a quotient of two, with the coefficients of Moshier's Cephes library.
    """
    return math.exp(x)


@extending.overload(_exp, jit_options={**FAST, "forceinline": True})
def _exp_of(x: Any) -> Any:
    single = x == types.float32
    real, whole, of_rest = (np.float32, np.int32, _exp_single) if single else (np.float64, np.int64, _exp_double)
    digits, bias, least, most = (23, 127, -104, 89) if single else (52, 1023, -746, 710)
    low, high = real(least), real(most)
    shift = real(1.5 * 2.0**digits)  # a float plus this is rounded to an integer, which then stands in its last bits
    shift_bits = whole(shift.view(whole))
    per_log_2, log_2, log_2_rest = real(1 / math.log(2)), real(0.693359375), real(-2.12194440054690583e-4)

    def exp(x: Any) -> Any:
        x = low if x < low else high if x > high else x
        shifted = x * per_log_2 + shift
        n = _bits_of(shifted) - shift_bits
        rounded = shifted - shift
        half = n >> 1  # in two steps, since 2ⁿ may be beyond the largest number, or below the smallest normal one
        y = of_rest(x - rounded * log_2 - rounded * log_2_rest)
        return y * _of_bits(whole((half + bias) << digits)) * _of_bits(whole((n - half + bias) << digits))

    return exp


# ---------------------------------------------------------------------------------------------------------- products


@njit(**FAST, forceinline=True)
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


@njit(**FAST, forceinline=True)
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


@njit(**FAST, forceinline=True)
def _add_product_in(
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


@njit(**FAST)
def _add_product(
    lanes: int, out: Any, to: int, weight: Any, first: int, last: int, known: Any, shift: int, begin: int, end: int
) -> None:
    """The same, compiled for either number of lanes."""
    if lanes == MANY:
        _add_product_in(MANY, out, to, weight, first, last, known, shift, begin, end)
    else:
        _add_product_in(FEW, out, to, weight, first, last, known, shift, begin, end)


@njit(**FAST, forceinline=True)
def _add_masked_product_in(
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


@njit(**FAST)
def _add_masked_product(
    lanes: int, out: Any, weight: Any, ranges: Any, first: int, last: int, known: Any, shift: int
) -> None:
    """The same, compiled for either number of lanes."""
    if lanes == MANY:
        _add_masked_product_in(MANY, out, weight, ranges, first, last, known, shift)
    else:
        _add_masked_product_in(FEW, out, weight, ranges, first, last, known, shift)


@njit(**FAST)
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


@njit(**FAST)
def _unpack(lanes: int, units: Any, out: Any) -> None:
    """out[s, unit] = units[unit, s]."""
    for first in range(0, out.shape[1], 16):
        last = min(first + 16, out.shape[1])
        for s in range(out.shape[0]):
            for unit in range(first, last):
                out[s, unit] = units[unit * lanes + s]


# -------------------------------------------------------------------------------------------------------------- nets


@intrinsic
def _pointer(typing: Any, address: Any, like: Any) -> Any:
    """To numbers of the type of those in an array."""
    to = types.CPointer(like.dtype)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(to))

    return to(address, like), code


@njit(**FAST)
def _weight(net: Any, k: int, like: Any) -> Any:
    """Of layer k, ``(groups · units, columns)``, of a type that its transposed has as well."""
    rows, columns, size = net[k, GROUPS] * net[k, UNITS], net[k, COLUMNS], like.itemsize
    flat = carray(_pointer(net[k, WEIGHT], like), (rows * columns,))
    return as_strided(flat, (rows, columns), (columns * size, size))


@njit(**FAST)
def _bias(net: Any, k: int, like: Any) -> Any:
    return carray(_pointer(net[k, BIAS], like), (net[k, GROUPS] * net[k, UNITS],))


@njit(**FAST)
def _begin_of(net: Any, k: int, column: int) -> int:
    """How many units or columns the layers before layer k have in all."""
    total = 0
    for j in range(k):
        total += net[j, UNITS] * net[j, GROUPS] if column == UNITS else net[j, column]
    return total


@njit(**FAST)
def _activate(activation: int, sums: Any, out: Any) -> None:
    """out = the activation of sums, elementwise, as torch defines it."""
    zero, one, half = sums.dtype.type(0), sums.dtype.type(1), sums.dtype.type(0.5)
    slope, root, linear = sums.dtype.type(0.01), sums.dtype.type(math.sqrt(0.5)), sums.dtype.type(20)
    many = len(sums)
    if activation == RELU:
        for s in range(many):
            out[s] = zero if sums[s] < zero else sums[s]
    elif activation == ELU:
        for s in range(many):
            out[s] = _exp(sums[s]) - one if sums[s] < zero else sums[s]
    elif activation == SILU:
        for s in range(many):
            out[s] = sums[s] / (one + _exp(-sums[s]))
    elif activation == TANH:
        for s in range(many):
            out[s] = math.tanh(sums[s])
    elif activation == SOFTPLUS:
        for s in range(many):
            out[s] = sums[s] if sums[s] > linear else math.log1p(_exp(sums[s]))
    elif activation == LEAKY_RELU:
        for s in range(many):
            out[s] = slope * sums[s] if sums[s] < zero else sums[s]
    else:
        for s in range(many):
            out[s] = half * sums[s] * (one + math.erf(sums[s] * root))


@njit(**FAST)
def _multiply_by_slope(activation: int, a: Any, out: Any) -> None:
    """out *= the derivative of the activation at a, elementwise."""
    zero, one, half = a.dtype.type(0), a.dtype.type(1), a.dtype.type(0.5)
    slope, root, linear = a.dtype.type(0.01), a.dtype.type(math.sqrt(0.5)), a.dtype.type(20)
    density = a.dtype.type(math.sqrt(0.5 / math.pi))
    many = len(a)
    if activation == RELU:
        for s in range(many):
            out[s] = zero if a[s] <= zero else out[s]
    elif activation == ELU:
        for s in range(many):
            out[s] = out[s] * _exp(a[s]) if a[s] < zero else out[s]
    elif activation == SILU:
        for s in range(many):
            gate = one / (one + _exp(-a[s]))
            out[s] *= gate * (one + a[s] * (one - gate))
    elif activation == TANH:
        for s in range(many):
            t = math.tanh(a[s])
            out[s] *= one - t * t
    elif activation == SOFTPLUS:
        for s in range(many):
            out[s] = out[s] if a[s] > linear else out[s] / (one + _exp(-a[s]))
    elif activation == LEAKY_RELU:
        for s in range(many):
            out[s] = out[s] * slope if a[s] <= zero else out[s]
    else:
        for s in range(many):
            below = half * (one + math.erf(a[s] * root))
            out[s] *= below + a[s] * density * _exp(-half * a[s] * a[s])


@njit(**FAST)
def _scale(raw: Any, out: Any) -> None:
    """out = tanh(raw/B): log-scales are B times it, with the bound B."""
    one, two, per_bound = raw.dtype.type(1), raw.dtype.type(2), raw.dtype.type(2 / BOUND)
    for s in range(len(out)):
        out[s] = one - two / (_exp(raw[s] * per_bound) + one)


@njit(**FAST)
def _transform(
    transformer: int, inverse: bool, value: Any, theta: Any, apart: int, work: Any, log_det: Any, odds: Any
) -> None:
    """value becomes τ(value; θ) or its inverse, for all samples; the logarithm of the slope is added to log_det.

    A loop here and below writes to one array and reads few, or it would not run along the lanes.

    Args:
        theta: θ, its numbers ``apart`` from each other.
        work: overwritten, as long as the value.
        odds: of gates, 1/σ = 1 + exp(−s) is multiplied to it instead: one logarithm then does for many features.
    """
    one, two, bound = value.dtype.type(1), value.dtype.type(2), value.dtype.type(BOUND)
    first, second, lanes = theta, theta[apart:], len(value)
    if transformer == ADDITIVE:
        for s in range(lanes):
            value[s] = value[s] - first[s] if inverse else value[s] + first[s]
    elif transformer == AFFINE:
        _scale(first, work)
        for s in range(lanes):
            log_det[s] += -bound * work[s] if inverse else bound * work[s]
        for s in range(lanes):
            slope = _exp(-bound * work[s] if inverse else bound * work[s])
            value[s] = (value[s] - second[s]) * slope if inverse else value[s] * slope + second[s]
    else:
        _scale(second, work)
        for s in range(lanes):
            work[s] = _exp(-bound * work[s] - two)
        for s in range(lanes):
            moved = value[s] - first[s]
            value[s] = value[s] + moved * work[s] if inverse else first[s] + moved / (one + work[s])
        for s in range(lanes):
            odds[s] *= one + work[s]


@njit(**FAST)
def _transform_back(
    transformer: int, inverse: bool, value: Any, theta: Any, apart: int, g: Any, by_log_det: Any, by_theta: Any,
    by_value: Any,
) -> None:  # fmt: skip
    """The derivatives of ``g · τ + by_log_det · log_det`` by θ and, added up, by the value."""
    one, two, bound = value.dtype.type(1), value.dtype.type(2), value.dtype.type(BOUND)
    lanes = len(by_value)
    if transformer == ADDITIVE:
        for s in range(lanes):
            by_theta[s] = -g[s] if inverse else g[s]
        for s in range(lanes):
            by_value[s] += g[s]
    elif transformer == AFFINE:
        by_scale, by_shift, shift = by_theta[:lanes], by_theta[apart : apart + lanes], theta[apart:]
        _scale(theta, by_scale)
        for s in range(lanes):
            by_shift[s] = g[s] * _exp(-bound * by_scale[s] if inverse else bound * by_scale[s])
        for s in range(lanes):
            by_value[s] += by_shift[s]
        for s in range(lanes):
            moved = value[s] - shift[s] if inverse else value[s]
            by = by_shift[s] * moved + by_log_det[s]
            by_scale[s] = (-by if inverse else by) * (one - by_scale[s] * by_scale[s])
        for s in range(lanes):
            by_shift[s] = -by_shift[s] if inverse else g[s]
    else:
        by_m, by_scale = by_theta[:lanes], by_theta[apart : apart + lanes]
        _scale(theta[apart:], by_scale)
        for s in range(lanes):
            by_m[s] = _exp(-bound * by_scale[s] - two)
        for s in range(lanes):
            rest, moved = by_m[s], value[s] - theta[s]
            gate = one / (one + rest)
            if inverse:
                by = -g[s] * moved * rest - by_log_det[s] * rest * gate
            else:
                by = (g[s] * moved * gate + by_log_det[s]) * rest * gate
            by_scale[s] = by * (one - by_scale[s] * by_scale[s])
        for s in range(lanes):
            by_value[s] += g[s] * (one + by_m[s]) if inverse else g[s] / (one + by_m[s])
        for s in range(lanes):
            by_m[s] = -g[s] * by_m[s] if inverse else g[s] * by_m[s] / (one + by_m[s])


@njit(**FAST)
def _add_logarithms(inverse: bool, odds: Any, log_det: Any) -> None:
    """What :func:`_transform` left over of gates."""
    for s in range(len(odds)):
        log_det[s] += math.log(odds[s]) if inverse else -math.log(odds[s])
        odds[s] = 1


# ------------------------------------------------------------------------------------------------- one parallel pass


@njit(**FAST)
def _masked_product(
    lanes: int, weight: Any, ranges: Any, groups: int, known: Any, groups_known: int, sums: Any
) -> None:
    """sums[g R + r] += Σ_h Σ_c weight[g R + r, h C + c] known[h C + c] for c in range(*ranges[r]).

    Args:
        weight: ``(groups · R, groups_known · C)``.
        ranges: ``(R, 2)``.
        known, sums: unit by unit, of so many lanes each.
    """
    units, columns = len(ranges), weight.shape[1] // groups_known
    for g in range(0, groups * units, units):
        for first in range(0, units, ROWS):
            last = min(first + ROWS, units)
            out = sums[(g + first) * lanes : (g + last) * lanes]
            for h in range(0, weight.shape[1], columns):
                part = weight[g : g + units, h : h + columns]
                _add_masked_product(lanes, out, part, ranges, first, last, known, h)


@njit(**FAST)
def _forward(
    net: Any, ranges: Any, activation: int, transformer: int, inverse: bool, lanes: int, first: int, last: int, x: Any,
    context: Any, kept: Any, image: Any, log_det: Any,
) -> None:  # fmt: skip
    """θ = MADE(x), and τ(x; θ) or its inverse, for the chunks ``range(first, last)``.

    Args:
        net: the table.
        ranges: of the columns that each unit of a group reads, layer after layer, ``(units, 2)``.
        transformer: τ; with NONE, the image is θ.
        lanes: samples in a chunk, MANY or FEW.
        x: ``(samples, D)``.
        context: ``(rows, hidden[0])``: sample n has row n modulo ``rows``; none without a context.
        kept: all sums of the net, ``(chunks, units, lanes)``, or none where they are not wanted.
        image, log_det: ``(samples, D)`` and ``(samples,)``.
    """
    samples, features = x.shape
    layers = len(net)
    units = _begin_of(net, layers, UNITS)
    own = np.empty(0 if len(kept) else units * lanes, x.dtype)
    v, active, work = np.empty(features * lanes, x.dtype), np.empty(units * lanes, x.dtype), np.empty(lanes, x.dtype)
    total, odds = np.empty(lanes, np.float64), np.empty(lanes, np.float64)
    for chunk in range(first, last):
        begin, end = chunk * lanes, min((chunk + 1) * lanes, samples)
        all_sums = kept[chunk].reshape(-1) if len(kept) else own
        _pack(lanes, x[begin:end], v)
        known, read, at, before = v, 0, 0, 0
        for k in range(layers):
            groups, many = net[k, GROUPS], net[k, GROUPS] * net[k, UNITS]
            sums, bias = all_sums[at * lanes : (at + many) * lanes], _bias(net, k, x)
            for u in range(many):
                sums[u * lanes : (u + 1) * lanes] = bias[u]
            if k == 0 and len(context):
                for s in range(end - begin):
                    for u in range(many):
                        sums[u * lanes + s] += context[(begin + s) % len(context), u]
            _masked_product(lanes, _weight(net, k, x), ranges[read : read + net[k, UNITS]], groups, known, 1, sums)
            if net[k, ADDED]:  # the sum of two layers before
                sums += all_sums[(before - net[k - 2, UNITS]) * lanes : before * lanes]
            if k < layers - 1:
                known = active[: many * lanes]
                _activate(activation, sums, known)
            read, before, at = read + net[k, UNITS], at, at + many
        thetas = all_sums[(units - many) * lanes :]
        if transformer == NONE:
            _unpack(lanes, thetas, image[begin:end])
            continue
        total[:] = 0
        odds[:] = 1
        for i in range(features):
            value, theta = v[i * lanes : (i + 1) * lanes], thetas[i * lanes :]
            _transform(transformer, inverse, value, theta, features * lanes, work, total, odds)
            if transformer == GATED and (i % BLOCK == BLOCK - 1 or i == features - 1):
                _add_logarithms(inverse, odds, total)
        _unpack(lanes, v, image[begin:end])
        log_det[begin:end] = total[: end - begin]


@njit(**FAST)
def _backward(
    net: Any, readers: Any, activation: int, transformer: int, inverse: bool, lanes: int, first: int, last: int, x: Any,
    kept: Any, by_image: Any, by_log_det: Any, turned: Any, by_sums: Any, by_context: Any, by_x: Any,
) -> None:  # fmt: skip
    """Derivatives by all sums of the net, and by x, for the chunks ``range(first, last)``.

    Args:
        readers: of the units of a group that read each column, layer after layer, ``(columns, 2)``.
        kept: of :func:`_forward`.
        by_image, by_log_det: ``(samples, D)`` and ``(samples,)``.
        turned: becomes what each layer reads, a panel of MANY columns after the other, ``(panels, chunks · lanes,
            MANY)``, or none where it is not wanted.
        by_sums: ``(chunks, units, lanes)``.
        by_context: ``(samples, hidden[0])``, or none where it is not wanted.
        by_x: ``(samples, D)``.
    """
    samples, features = x.shape
    layers = len(net)
    by_features, g = np.empty(features * lanes, x.dtype), np.empty(features * lanes, x.dtype)
    of_log_det, known = np.zeros(lanes, x.dtype), np.empty(_begin_of(net, layers, COLUMNS) * lanes, x.dtype)
    for chunk in range(first, last):
        begin, end = chunk * lanes, min((chunk + 1) * lanes, samples)
        sums, by = kept[chunk].reshape(-1), by_sums[chunk].reshape(-1)
        _pack(lanes, x[begin:end], known)
        at, read = _begin_of(net, layers - 1, UNITS), _begin_of(net, layers - 1, COLUMNS)
        by_features[:] = 0
        if transformer == NONE:
            _pack(lanes, by_image[begin:end], by[at * lanes :])
        else:
            _pack(lanes, by_image[begin:end], g)
            of_log_det[: end - begin] = by_log_det[begin:end]
            of_log_det[end - begin :] = 0
            for i in range(features):
                _transform_back(
                    transformer, inverse, known[i * lanes :], sums[(at + i) * lanes :], features * lanes,
                    g[i * lanes :], of_log_det, by[(at + i) * lanes :], by_features[i * lanes : (i + 1) * lanes],
                )  # fmt: skip
        for k in range(layers - 1, -1, -1):
            columns, groups = net[k, COLUMNS], net[k, GROUPS]
            of_layer = by[at * lanes : (at + groups * net[k, UNITS]) * lanes]
            if k < layers - 1:
                own = sums[at * lanes : (at + net[k, UNITS]) * lanes]
                _activate(activation, own, known[(read + columns) * lanes :])
                _multiply_by_slope(activation, own, of_layer)
                if k + 2 < layers and net[k + 2, ADDED]:
                    after = at + net[k, UNITS] + net[k + 1, UNITS]
                    of_layer += by[after * lanes : (after + net[k, UNITS]) * lanes]
            by_known = by_features
            if k:
                by_known = by[(at - columns) * lanes : at * lanes]
                by_known[:] = 0
            weight, of_layers = _weight(net, k, x).T, readers[read : read + columns]
            _masked_product(lanes, weight, of_layers, 1, of_layer, groups, by_known)
            if k:
                at, read = at - columns, read - net[k - 1, COLUMNS]
        _unpack(lanes, by_features, by_x[begin:end])
        if len(by_context):
            _unpack(lanes, of_layer, by_context[begin:end])
        panel, read = 0, 0
        for k in range(layers if len(turned) else 0):
            for begin in range(read, read + net[k, COLUMNS], MANY):
                tile = turned[panel, chunk * lanes : (chunk + 1) * lanes]
                for s in range(lanes):  # which writes side by side, as what is written lies farther than what is read
                    for c in range(begin, min(begin + MANY, read + net[k, COLUMNS])):
                        tile[s, c - begin] = known[c * lanes + s]
                panel += 1
            read += net[k, COLUMNS]


@njit(**FAST)
def _gradient(by_sums: Any, turned: Any, ranges: Any, samples: int, out: Any) -> None:
    """out[u, c] = Σ_s by_sums[u, s] known[c, s] for c in range(*ranges[u]), zero elsewhere; for at most ROWS units.

    Args:
        by_sums: ``(chunks, units, lanes)``.
        turned: what they read, ``(panels, chunks · lanes, MANY)``.
        ranges: ``(units, 2)``.
        out: ``(units, columns)``.
    """
    chunks, units, lanes = by_sums.shape
    least, most = ranges[:, 0].min(), ranges[:, 1].max()
    sums, zero = np.empty(ROWS * MANY, by_sums.dtype), by_sums.dtype.type(0)
    for panel in range(len(turned)):
        start, stop = panel * MANY, min((panel + 1) * MANY, out.shape[1])
        if most <= start or stop <= least:
            out[:, start:stop] = 0
            continue
        sums[:] = 0
        known = turned[panel].reshape(-1)
        for chunk in range(chunks):
            there, shift = min(lanes, samples - chunk * lanes), chunk * lanes
            _add_product(MANY, sums, 0, by_sums[chunk], 0, units, known, shift, 0, there)
        for u in range(units):
            row, of_row = out[u, start:stop], sums[u * MANY : (u + 1) * MANY]
            begin, end = ranges[u, 0] - start, ranges[u, 1] - start
            for c in range(len(row)):
                row[c] = of_row[c] if begin <= c < end else zero


# ----------------------------------------------------------------------------------------- the sequential solve


@njit(**FAST)
def _solve(
    net: Any, counts: Any, reverse: bool, activation: int, transformer: int, inverse: bool, value: Any, context: Any,
    start: int, image: Any, log_det: Any,
) -> None:  # fmt: skip
    """The image of the chunk of samples ``start``, start + 1, …, no more than MANY, and its log-determinant.

    ``known`` holds all that is finished, the features first and then the activations of stage after stage; ``sums``
    those of the units of one block, and ``thetas`` its outputs. They are unit by unit, each of so many lanes.
    """
    samples, features = image.shape
    lanes, dtype = MANY if samples > FEW else FEW, value.dtype
    hidden = len(net) - 1
    outputs = net[hidden, GROUPS]
    shifts = np.zeros(hidden + 1, np.int64)  # where the input of each stage begins among what is known
    width, widest = features, 0
    for k in range(hidden):
        shifts[k + 1] = width
        width += net[k, UNITS]
        for t in range(0, features, BLOCK):
            before = counts[k + 1, t - 1] if t else 0
            widest = max(widest, counts[k + 1, min(t + BLOCK, features) - 1] - before)
    known = np.empty(width * lanes, dtype)
    sums, thetas = np.empty(hidden * widest * lanes, dtype), np.empty(outputs * BLOCK * lanes, dtype)
    work, total, odds = np.empty(lanes, dtype), np.zeros(lanes, np.float64), np.ones(lanes, np.float64)
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
                row[:] = _bias(net, k, value)[r]
                if k == 0 and len(context):
                    for s in range(samples):
                        row[s] += context[(start + s) % len(context), r]
            columns = (features - t0, features) if k == 0 and reverse else (0, begin[k])
            _add_product(lanes, sums, k * widest, _weight(net, k, value), first, last, known, shifts[k], *columns)
        for p in range(outputs):
            first = p * features + lowest
            for r in range(t1 - t0):
                thetas[(p * BLOCK + r) * lanes :][:lanes] = _bias(net, hidden, value)[first + r]
            weight, last, columns = _weight(net, hidden, value), first + t1 - t0, (0, begin[hidden])
            _add_product(lanes, thetas, p * BLOCK, weight, first, last, known, shifts[hidden], *columns)

        # What it contributes to itself
        for t in range(t0, t1):
            for k in range(hidden):
                first, last = counts[k + 1, t - 1] if t else 0, counts[k + 1, t]
                to = k * widest + first - begin[k + 1]
                columns = (features - t, features - t0) if k == 0 and reverse else (begin[k], counts[k, t])
                _add_product(lanes, sums, to, _weight(net, k, value), first, last, known, shifts[k], *columns)
                if first < last:
                    row = sums[to * lanes : (to + last - first) * lanes]
                    if net[k, ADDED]:
                        row += sums[(to - 2 * widest) * lanes :][: len(row)]
                    _activate(activation, row, known[(shifts[k + 1] + first) * lanes :])
            i = features - 1 - t if reverse else t
            columns = (begin[hidden], counts[hidden, t])
            for p in range(outputs):
                weight, row, to = _weight(net, hidden, value), p * features + i, p * BLOCK + i - lowest
                _add_product(lanes, thetas, to, weight, row, row + 1, known, shifts[hidden], *columns)
            v, theta = known[i * lanes : (i + 1) * lanes], thetas[(i - lowest) * lanes :]
            v[:samples] = value[:, i]
            v[samples:] = 0
            _transform(transformer, inverse, v, theta, BLOCK * lanes, work, total, odds)
        if transformer == GATED:
            _add_logarithms(inverse, odds, total)
    for i in range(features):
        for s in range(samples):
            image[s, i] = known[i * lanes + s]
    log_det[:] = total[:samples]


# ---------------------------------------------------------------------------------------------------------- Bernoulli


@njit(**FAST_SUMS)
def _bernoulli(x: Any, logits: Any, first: int, last: int, out: Any) -> None:
    """out[n] = Σ_c x[n mod rows, c] a[n, c] − log(1 + exp a[n, c]) with the logits a, for n in ``range(first, last)``.

    One logarithm is taken of the product of 1 + exp −|a| over all columns, which is below 2 to their number.
    """
    zero, one, columns = logits.dtype.type(0), logits.dtype.type(1), logits.shape[1]
    for n in range(first, last):
        bits, a, total, product = x[n % len(x)], logits[n], 0.0, 1.0
        for begin in range(0, columns, PANEL):
            part, bits_of_part = a[begin : min(begin + PANEL, columns)], bits[begin : min(begin + PANEL, columns)]
            linear, factor = zero, one
            for c in range(len(part)):
                linear += bits_of_part[c] * part[c] - (zero if part[c] < zero else part[c])
                factor *= one + _exp(-abs(part[c]))
            total, product = total + linear, product * factor
            if product > 2.0**900:
                total, product = total - math.log(product), 1.0
        out[n] = total - math.log(product)


@njit(**FAST)
def _bernoulli_back(x: Any, logits: Any, g: Any, first: int, last: int, by_logits: Any) -> None:
    """by_logits[n, c] = g[n] (x[n mod rows, c] − sigmoid a[n, c])."""
    one = logits.dtype.type(1)
    for n in range(first, last):
        bits, a, out, by = x[n % len(x)], logits[n], by_logits[n], g[n]
        for c in range(len(a)):
            out[c] = by * (bits[c] - one / (one + _exp(-a[c])))


# --------------------------------------------------------------------------------------------------------------- jobs

TAKEN, WANTED, DONE, SCALARS, ARRAYS = 0, 1, 2, 3, 11
"""A job is an array of int64: how many of its tasks are taken, how many there are and how many are done, eight scalars,
and four numbers of each array: its address and its shape."""
MOST = 2**16  # numbers in a job


@intrinsic
def _add_one(typing: Any, job: Any, i: Any) -> Any:
    """job[i] += 1 at once for all threads; what it was."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = builder.gep(arguments[0], [arguments[1]])
        return builder.atomic_rmw("add", at, context.get_constant(types.int64, 1), "seq_cst")

    return types.int64(job, types.int64), code


@njit(**FAST)
def _scalar(job: Any, i: int) -> int:
    return job[SCALARS + i]


@njit(**FAST)
def _table(job: Any, i: int) -> Any:
    at = ARRAYS + 4 * i
    return carray(_pointer(job[at], job), (job[at + 1], job[at + 2]))


@njit(**FAST)
def _array_1(job: Any, i: int, like: Any) -> Any:
    at = ARRAYS + 4 * i
    return carray(_pointer(job[at], like), (job[at + 1],))


@njit(**FAST)
def _array_2(job: Any, i: int, like: Any) -> Any:
    at = ARRAYS + 4 * i
    return carray(_pointer(job[at], like), (job[at + 1], job[at + 2]))


@njit(**FAST)
def _array_3(job: Any, i: int, like: Any) -> Any:
    at = ARRAYS + 4 * i
    return carray(_pointer(job[at], like), (job[at + 1], job[at + 2], job[at + 3]))


@njit(**FAST)
def _part(job: Any, task: int, many: int) -> Any:
    """The share of one task in so many things."""
    return task * many // job[WANTED], (task + 1) * many // job[WANTED]


@njit(**FAST)
def forward(job: Any, task: int, like: Any) -> None:
    """Scalars: activation, transformer, inverse, lanes, chunks. Arrays: net, ranges, and those of :func:`_forward`."""
    first, last = _part(job, task, _scalar(job, 4))
    _forward(
        _table(job, 0), _table(job, 1), _scalar(job, 0), _scalar(job, 1), _scalar(job, 2) == 1, _scalar(job, 3), first,
        last, _array_2(job, 2, like), _array_2(job, 3, like), _array_3(job, 4, like), _array_2(job, 5, like),
        _array_1(job, 6, like),
    )  # fmt: skip


@njit(**FAST)
def backward(job: Any, task: int, like: Any) -> None:
    """Scalars: as those of :func:`forward`. Arrays: net, readers, and those of :func:`_backward`."""
    first, last = _part(job, task, _scalar(job, 4))
    _backward(
        _table(job, 0), _table(job, 1), _scalar(job, 0), _scalar(job, 1), _scalar(job, 2) == 1, _scalar(job, 3), first,
        last, _array_2(job, 2, like), _array_3(job, 3, like), _array_2(job, 4, like), _array_1(job, 5, like),
        _array_3(job, 6, like), _array_3(job, 7, like), _array_2(job, 8, like), _array_2(job, 9, like),
    )  # fmt: skip


@njit(**FAST)
def gradient(job: Any, task: int, like: Any) -> None:
    """By the weights of a block of units of a layer.

    Scalar: samples. Arrays: net, ranges, the tasks, turned, by_sums, and the derivative for each layer.
    """
    net, (k, first, last, panel) = _table(job, 0), _table(job, 2)[task]
    begin, panels = _begin_of(net, k, UNITS), -(-net[k, COLUMNS] // MANY)
    unit = begin + first % net[k, UNITS]  # of the first group, whose ranges are those of all
    _gradient(
        _array_3(job, 4, like)[:, begin + first : begin + last], _array_3(job, 3, like)[panel : panel + panels],
        _table(job, 1)[unit : unit + last - first], _scalar(job, 0), _array_2(job, 5 + k, like)[first:last],
    )  # fmt: skip


@njit(**FAST)
def solve(job: Any, task: int, like: Any) -> None:
    """Scalars: reverse, activation, transformer, inverse, samples in a chunk. Arrays: net, counts, and those of
    :func:`_solve`."""
    value, image, log_det = _array_2(job, 2, like), _array_2(job, 4, like), _array_1(job, 5, like)
    first = task * _scalar(job, 4)
    last = min(first + _scalar(job, 4), len(value))
    _solve(
        _table(job, 0), _table(job, 1), _scalar(job, 0) == 1, _scalar(job, 1), _scalar(job, 2), _scalar(job, 3) == 1,
        value[first:last], _array_2(job, 3, like), first, image[first:last], log_det[first:last],
    )  # fmt: skip


@njit(**FAST)
def bernoulli(job: Any, task: int, like: Any) -> None:
    """Arrays: x, logits, out."""
    logits = _array_2(job, 1, like)
    _bernoulli(_array_2(job, 0, like), logits, *_part(job, task, len(logits)), _array_1(job, 2, like))


@njit(**FAST)
def bernoulli_back(job: Any, task: int, like: Any) -> None:
    """Arrays: x, logits, g, by_logits."""
    logits = _array_2(job, 1, like)
    part, by_logits = _part(job, task, len(logits)), _array_2(job, 3, like)
    _bernoulli_back(_array_2(job, 0, like), logits, _array_1(job, 2, like), *part, by_logits)


@functools.cache
def member(kernel: str, size: int) -> Any:
    """What a thread runs: the function of that name for task after task of a job, with numbers of so many bytes.

    Each has a name of its own, by which, with the code of this file, numba finds it again on the disk; what is among
    its globals has no part in that. A closure would not be found, and takes seconds to put together."""
    name, real = f"{kernel}_{8 * size}", np.float32 if size == 4 else np.float64
    take_tasks = FunctionType(_take_tasks.__code__, {**globals(), "_run": globals()[kernel], "_real": real}, name)
    take_tasks.__qualname__ = name
    return cfunc(types.void(types.CPointer(types.int64)), cache=True)(take_tasks)


_run: Any = None
_real: Any = None


def _take_tasks(pointer: Any) -> None:
    job, like = carray(pointer, (MOST,)), np.empty(0, _real)
    task: int = _add_one(pointer, TAKEN)
    while task < job[WANTED]:
        _run(job, task, like)
        _add_one(pointer, DONE)
        task = _add_one(pointer, TAKEN)


# -------------------------------------------------------------------------------------------------------------- noise

GOLDEN, MIX_1, MIX_2 = (np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@njit(**FAST, forceinline=True)
def _mix(h: Any) -> Any:
    """SplitMix64's output function."""
    h = (h ^ (h >> np.uint64(30))) * MIX_1
    h = (h ^ (h >> np.uint64(27))) * MIX_2
    return h ^ (h >> np.uint64(31))


@njit(**FAST, cache=True)
def random_bits(index: Any, key: Any, first_sample: Any, out: Any) -> None:
    """out[s, b, c]: number c of the stream of example index[b] and sample first_sample + s. All are uint64."""
    for s in range(out.shape[0]):
        for b in range(out.shape[1]):
            example = _mix(index[b] * GOLDEN + key + GOLDEN)
            stream = _mix(_mix(example + (first_sample + np.uint64(s + 1)) * GOLDEN))
            for c in range(out.shape[2]):
                out[s, b, c] = _mix(stream + np.uint64(c + 1) * GOLDEN)
