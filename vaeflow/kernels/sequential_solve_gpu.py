"""The sequential solve of an autoregressive map as one kernel of Triton, for GPUs.

:mod:`vaeflow.bijections.sequential` says what is computed. Here a program takes a few samples through all features, one
after the other, and its threads share every product out between them; programs never wait for each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaeflow.functional import LOG_SCALE_BOUND

if TYPE_CHECKING:
    from vaeflow.kernels.net import Net  # which needs numba

BOUND = tl.constexpr(LOG_SCALE_BOUND)
ENTRIES = tl.constexpr(6)  # of a layer in the table
PAIR = tl.constexpr(2)  # rows of a product
PANEL = 128  # columns that 32 threads take at once


def solve(made: Net, transformer: object, inverse: bool, v: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """The image y of v ``(samples, D)``, and log |det ∂y/∂v| ``(samples,)``; see
    :func:`vaeflow.bijections.sequential.solve`.

    Args:
        context: its part of the first layer, ``(rows, hidden[0])``: sample n has row n modulo ``rows``. No rows
            where there is no context.
    """
    y, log_det = torch.empty_like(v), v.new_empty(len(v))
    if not len(v):
        return y, log_det
    parameters = [parameter.detach().contiguous() for parameter in made.stage_parameters]
    begins = [0, made.features]  # of what each layer reads among all that is known: the features, and unit after unit
    for stage in made.stages[:-1]:
        begins.append(begins[-1] + stage.out_features)
    table = [
        [
            parameters[2 * k].data_ptr(), parameters[2 * k + 1].data_ptr(), stage.in_features,
            begins[k], begins[k + 1], begins[k - 1] if made.is_added(k) else -1,
        ]
        for k, stage in enumerate(made.stages)
    ]  # fmt: skip
    samples, warps = shape_of_program(len(v))
    programs = triton.cdiv(len(v), samples)
    known, sums = v.new_empty(2, programs, begins[-1], samples)
    tables = [torch.tensor(numbers, device=v.device) for numbers in (table, made.counts)]
    with torch.cuda.device_of(v):
        _solve[(programs,)](
            *tables, v, context, known, sums, y, log_det,
            len(v), len(context), context.shape[-1], made.features, begins[-1], len(table) - 1,
            OUTPUTS=made.outputs, REVERSE=made.reverse, CONDITIONAL=len(context) > 0,
            ACTIVATION=made.activation_name, TRANSFORMER=type(transformer).__name__, INVERSE=inverse,
            SAMPLES=samples, COLUMNS=warps * PANEL, num_warps=warps,
        )  # fmt: skip
    return y, log_det


def shape_of_program(samples: int) -> tuple[int, int]:
    """How many samples it takes, and how many times 32 threads share its products: while there are processors for all
    samples, one and many; then more, which read each weight once, and few."""
    return (1, 4) if samples <= 512 else (1, 2) if samples <= 4096 else (8, 1)


@triton.jit
def _product(weight, stride, row, is_row, known, many, SAMPLES: tl.constexpr, COLUMNS: tl.constexpr):
    """Σ_c weight[row, c] known[c] over the first ``many`` columns, ``(PAIR, SAMPLES)``."""
    at, lane = tl.arange(0, COLUMNS), tl.arange(0, SAMPLES)
    total = tl.zeros((PAIR, COLUMNS, SAMPLES), known.dtype.element_ty)
    for begin in range(0, many, COLUMNS):
        column = begin + at
        is_column = column < many
        of_weight = weight + row[:, None] * stride + column[None, :]
        a = tl.load(of_weight, mask=is_row[:, None] & is_column[None, :], other=0.0)
        x = tl.load(known + column[:, None] * SAMPLES + lane[None, :], mask=is_column[:, None], other=0.0)
        total += a[:, :, None] * x[None, :, :]
    return tl.sum(total, 1)


@triton.jit
def _tanh(x):
    return 1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0)


@triton.jit
def _activate(x, ACTIVATION: tl.constexpr):
    """As torch defines it."""
    if ACTIVATION == "relu":
        out = tl.where(x < 0.0, 0.0, x)
    elif ACTIVATION == "elu":
        out = tl.where(x < 0.0, tl.exp(x) - 1.0, x)
    elif ACTIVATION == "silu":
        out = x / (1.0 + tl.exp(-x))
    elif ACTIVATION == "tanh":
        out = _tanh(x)
    elif ACTIVATION == "softplus":
        out = tl.where(x > 20.0, x, tl.log(1.0 + tl.exp(x)))
    elif ACTIVATION == "leaky_relu":
        out = tl.where(x < 0.0, 0.01 * x, x)
    else:
        out = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    return out


@triton.jit
def _transform(z, first, second, TRANSFORMER: tl.constexpr, INVERSE: tl.constexpr):
    """τ(z; θ) or its inverse, and the logarithm of its slope."""
    if TRANSFORMER == "Additive":
        image = z - first if INVERSE else z + first
        log_slope = tl.zeros_like(z)
    elif TRANSFORMER == "Affine":
        s = _tanh(first / BOUND) * BOUND
        image = (z - second) * tl.exp(-s) if INVERSE else z * tl.exp(s) + second
        log_slope = -s if INVERSE else s
    else:
        rest = tl.exp(_tanh(second / BOUND) * -BOUND - 2.0)  # 1/σ = 1 + exp(−s)
        image = z + (z - first) * rest if INVERSE else first + (z - first) / (1.0 + rest)
        log_slope = tl.log(1.0 + rest) if INVERSE else -tl.log(1.0 + rest)
    return image, log_slope


@triton.jit(do_not_specialize=["samples", "rows", "width", "features", "all_units", "hidden"])
def _solve(
    table, counts, value, context, known, sums, image, log_det,
    samples, rows, width, features, all_units, hidden,
    OUTPUTS: tl.constexpr, REVERSE: tl.constexpr, CONDITIONAL: tl.constexpr, ACTIVATION: tl.constexpr,
    TRANSFORMER: tl.constexpr, INVERSE: tl.constexpr, SAMPLES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The images of SAMPLES samples, and their log-determinants.

    Args:
        table: of each layer the addresses of weight and bias, its number of columns, where its input, its units and the
            sums that are added to its own (−1: none) begin among what is known.
        counts: how many units of each layer, the features first, are known at each step, ``(hidden + 1, D + 1)``.
        context: ``(rows, width)``: sample n has row n modulo ``rows``.
        known: features and activations of each program, ``(programs, all_units, SAMPLES)``.
        sums: of the same units before their activation.
    """
    number = known.dtype.element_ty
    lane, pair = tl.arange(0, SAMPLES), tl.arange(0, PAIR)
    program = tl.program_id(0).to(tl.int64)
    sample = program * SAMPLES + lane
    is_sample = sample < samples
    known += program * all_units * SAMPLES
    sums += program * all_units * SAMPLES
    total = tl.zeros((SAMPLES,), tl.float64)
    for t in range(features):
        i = features - 1 - t if REVERSE else t
        for k in range(hidden):
            layer = table + k * ENTRIES
            weight = tl.load(layer).to(tl.pointer_type(number))
            bias = tl.load(layer + 1).to(tl.pointer_type(number))
            stride, input, output, added = (
                tl.load(layer + 2),
                tl.load(layer + 3),
                tl.load(layer + 4),
                tl.load(layer + 5),
            )
            of_layer = counts + k * (features + 1) + t
            many, last = tl.load(of_layer), tl.load(of_layer + features + 1)
            first = tl.load(of_layer + features, mask=t > 0, other=0)
            if REVERSE:  # the features that are known are the last ones
                input += tl.where(k == 0, features - many, 0)
                weight += tl.where(k == 0, features - many, 0)
            for begin in range(first, last, PAIR):
                unit = begin + pair
                is_unit = unit < last
                is_there = is_unit[:, None] & (lane >= 0)[None, :]
                total_of = _product(weight, stride, unit, is_unit, known + input * SAMPLES, many, SAMPLES, COLUMNS)
                total_of += tl.load(bias + unit, mask=is_unit, other=0.0)[:, None]
                if CONDITIONAL:
                    of_context = context + (sample % rows)[None, :] * width + unit[:, None]
                    total_of += tl.load(of_context, mask=is_there & (k == 0), other=0.0)
                at = (output + unit)[:, None] * SAMPLES + lane[None, :]
                of_added = sums + (added + unit)[:, None] * SAMPLES + lane[None, :]
                total_of += tl.load(of_added, mask=is_there & (added >= 0), other=0.0)
                tl.store(sums + at, total_of, mask=is_there)
                tl.store(known + at, _activate(total_of, ACTIVATION), mask=is_there)
            tl.debug_barrier()  # the units of this layer are there for all threads
        layer = table + hidden * ENTRIES
        weight = tl.load(layer).to(tl.pointer_type(number))
        bias = tl.load(layer + 1).to(tl.pointer_type(number))
        stride, input = tl.load(layer + 2), tl.load(layer + 3)
        many = tl.load(counts + hidden * (features + 1) + t)
        row, is_row = pair * features + i, pair < OUTPUTS
        theta = _product(weight, stride, row, is_row, known + input * SAMPLES, many, SAMPLES, COLUMNS)
        theta += tl.load(bias + row, mask=is_row, other=0.0)[:, None]
        first_of = tl.sum(tl.where((pair == 0)[:, None], theta, 0.0), 0)
        second_of = tl.sum(tl.where((pair == 1)[:, None], theta, 0.0), 0)
        v = tl.load(value + sample * features + i, mask=is_sample, other=0.0)
        y, log_slope = _transform(v, first_of, second_of, TRANSFORMER, INVERSE)
        total += log_slope.to(tl.float64)
        tl.store(image + sample * features + i, y, mask=is_sample)
        tl.store(known + i * SAMPLES + lane, y)
        tl.debug_barrier()
    tl.store(log_det + sample, total.to(number), mask=is_sample)
