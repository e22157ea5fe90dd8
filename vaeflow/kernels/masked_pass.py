"""A parallel pass of an autoregressive map and its derivative in machine code, for the CPU.

Only what is not masked is multiplied: the products take half the multiplications of dense layers, in the pass and in
both parts of its derivative. A chunk of samples goes through the whole net and the map behind it at once, and stays in
the nearest caches meanwhile. The derivative by the weights comes last, every block of units in a task of its own, which
writes whole rows: column by column, a large weight would pass through the memory many times.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import chain, product

import numpy as np
import torch
from torch import Tensor

from vaeflow.kernels import cpu
from vaeflow.kernels.context import context_rows
from vaeflow.kernels.net import Net, codes, table
from vaeflow.kernels.threads import run, tasks_for


def forward(
    made: Net, transformer: object, inverse: bool, keep: bool, x: Tensor, conditioned: Tensor | None,
    *parameters: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The image of x, its log-determinant, and the sums of all units, which :func:`backward` asks for.

    Args:
        transformer: the map; without one the image is what the net puts out, ``(..., outputs · D)``.
        inverse: take the inverse of the map.
        keep: whether the sums are wanted.
        x: ``(..., D)``.
        conditioned: the context's part of the first layer, ``(..., hidden[0])``.
        parameters: weight and bias of each layer.
    """
    lead, rows = x.shape[:-1], context_rows(conditioned, x)
    x = x.detach().reshape(-1, made.features).contiguous()
    lanes = cpu.MANY if len(x) > cpu.FEW * torch.get_num_threads() else cpu.FEW
    chunks = -(-len(x) // lanes)
    net, layers = table(made, parameters)
    image = x.new_empty(len(x), made.features * (made.outputs if transformer is None else 1))
    log_det = x.new_empty(0 if transformer is None else len(x))
    kept = x.new_empty(chunks if keep else 0, sum(map(len, layers[1::2])), lanes)
    scalars = (*codes(made, transformer, inverse), lanes, chunks)
    run("forward", tasks_for(chunks), scalars, (net, made.ranges, x, rows, kept, image, log_det))
    return image.view(*lead, image.shape[-1]), log_det if transformer is None else log_det.view(lead), kept


def backward(
    made: Net, transformer: object, inverse: bool, x: Tensor, parameters: Sequence[Tensor], kept: Tensor,
    by_image: Tensor, by_log_det: Tensor, of_context: bool, of_weights: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Derivatives by x, by the context's part of each sample, and by the weight and bias of each layer.

    Args:
        x, parameters, kept: of :func:`forward`.
        of_context, of_weights: whether those are wanted.
    """
    lead = x.shape[:-1]
    x, by_image = (value.detach().reshape(-1, value.shape[-1]).contiguous() for value in (x, by_image))
    by_log_det = by_log_det.detach().flatten().contiguous()
    chunks, _, lanes = kept.shape
    net, layers = table(made, parameters)
    by_x, by_context = torch.empty_like(x), x.new_empty(len(x) if of_context else 0, len(layers[1]))
    sizes = tuple((len(stage.ranges), *stage.weight.shape) for stage in made.stages)
    blocks, panels = _blocks(sizes, made.reverse, torch.get_num_threads())
    turned = x.new_empty(panels if of_weights else 0, chunks * lanes, cpu.MANY)
    by_sums = torch.empty_like(kept)
    scalars = (*codes(made, transformer, inverse), lanes, chunks)
    given = (x, kept, by_image, by_log_det)
    run("backward", tasks_for(chunks), scalars, (net, made.readers, *given, turned, by_sums, by_context, by_x))
    found = by_x.view(*lead, made.features), by_context.view(*lead, by_context.shape[-1]) if of_context else None
    if not of_weights:
        return *found, *[None] * len(layers)
    by_weights = [torch.empty_like(weight) for weight in layers[::2]]
    by_biases = by_sums.sum((0, 2)).split([len(bias) for bias in layers[1::2]])
    run("gradient", len(blocks), (len(x),), (net, made.ranges, blocks, turned, by_sums, *by_weights))
    return *found, *chain.from_iterable(zip(by_weights, by_biases, strict=True))


@functools.cache
def _blocks(layers: Sequence[tuple[int, int, int]], reverse: bool, threads: int) -> tuple[np.ndarray, int]:
    """The tasks of the derivative by the weights, and how many panels the columns of all layers make.

    Args:
        layers: of each the units of a group, all units, and the columns.
        reverse: whether the first units of the last layer read most, which the last ones of any other do.

    Returns:
        tasks, those with the most to do first: layer, first unit, first unit behind it, first of the layer's panels.
    """
    few = sum(units for _, units, _ in layers) < 2 * threads * cpu.ROWS
    size, tasks, panel = cpu.ROWS // 4 if few else cpu.ROWS, [], 0
    for k, (of_group, units, columns) in enumerate(layers):
        for group, first in product(range(0, units, of_group), range(0, of_group, size)):
            end = min(first + size, of_group)
            most = of_group - first if reverse and k == len(layers) - 1 else end
            tasks.append((most / of_group * columns, (k, group + first, group + end, panel)))
        panel += -(-columns // cpu.MANY)
    tasks.sort(reverse=True)
    return np.array([task for _, task in tasks], np.int64), panel
