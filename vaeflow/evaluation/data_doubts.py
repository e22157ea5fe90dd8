"""Why a density of real-valued data may have no bound, or no digits: atoms, integers, outliers, curves and surfaces."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from scipy.spatial import cKDTree
from torch import Tensor

VALUES = 2 * 10**7
"""How many numbers are looked at, at most."""
COMMON, ATOMS = 0.005, 0.03
"""A value that more than the first share of the examples have is an atom; atoms of more than the second are doubted."""
COARSE = 0.01
"""Standard deviations between neighbouring values from which on a flow may put a peak on each."""
MOST_DEVIATIONS = 1e4
"""Standard deviations of the training data beyond which a value of the validation data is an outlier."""
NO_BOUND = "a density of real numbers has no bound there, and its nll means nothing"


def doubts_about_data(data: Any) -> Iterator[str]:
    """Sentences on why the nll of a density of these real-valued data would mean nothing.

    Args:
        data: a :class:`~vaeflow.data.base.DataModule` of continuous data.
    """
    data.setup("")
    count, dimension = data.count("train"), math.prod(data.shape)
    rows = min(count, 20_000, max(1000, VALUES // dimension))
    x = data.examples("train", torch.arange(rows))[0].flatten(1).double()
    if 1 < dimension <= 64:
        x = x.unique(dim=0)  # else copies of examples would pass for values that repeat
    repeated, atoms = _columns_that_repeat(x), _atoms(x)
    whole = [column for column in _columns_of_integers(x) if column not in repeated]
    partly = {c: share for c, share in _shares_of_integers(x).items() if c not in {*repeated, *whole, *atoms}}
    steps = {column: _step_of(x[:, column]) for column in repeated}
    coarse = {c: step for c, step in steps.items() if step not in (0.0, 1.0) and step >= COARSE * x[:, c].std()}
    few = [column for column in repeated if steps[column] in (0.0, 1.0)]
    rounded = [column for column in repeated if column not in few]
    atoms = {
        column: atom
        for column, atom in atoms.items()
        if column not in {*few, *whole} and (column not in rounded or _stands_out(x[:, column]))
    }
    if whole:
        yield (
            f"{data.dimension_name(whole[0])} of {data.label} holds whole numbers alone{_others(data, whole)}: "
            f"{NO_BOUND}. Leave it out, or add noise between 0 and 1 if it counts something."
        )
    if partly:
        column, share = max(partly.items(), key=lambda item: item[1])
        yield (
            f"{data.dimension_name(column)} of {data.label} holds whole numbers in {share:.0%} of the training examples"
            f"{_others(data, [column, *(i for i in partly if i != column)])}: {NO_BOUND}. Add noise between 0 and 1 to "
            "those, or leave the dimension out."
        )
    for step in dict.fromkeys(f"{step:.4g}" for step in coarse.values()):
        columns = [column for column in coarse if f"{coarse[column]:.4g}" == step]
        distinct = len(x[:, columns[0]].unique())
        are_grey = len(columns) == x.shape[1] and distinct <= 256
        yield (
            f"{data.dimension_name(columns[0])} of {data.label} goes in steps of {step} ({distinct:,} distinct values "
            f"in {rows:,} examples){_others(data, columns)}: {NO_BOUND}. Add noise between 0 and {step} to it, or "
            f"leave it out{'; give integers as integers, with --data.levels' if are_grey else ''}."
        )
    if few:
        yield (
            f"{data.dimension_name(few[0])} of {data.label} takes only {len(x[:, few[0]].unique()):,} distinct values "
            f"in {rows:,} examples{_others(data, few)}: {NO_BOUND}. Give integers as integers, with --data.levels; "
            "leave other such dimensions out, or add noise of the size of their rounding."
        )
    if atoms:
        column, (value, others, share) = max(atoms.items(), key=lambda item: item[1][2])
        also = f", or one of {others:,} other{'s' * (others > 1)} that stand{'s' * (others == 1)} as often,"
        yield (
            f"{data.dimension_name(column)} of {data.label} has the value {value:g}{also if others else ''} in "
            f"{share:.0%} of the training examples{_others(data, [column, *(i for i in atoms if i != column)])}: "
            f"{NO_BOUND}. If it stands for missing values, leave those examples or that dimension out."
        )
    outliers = list(_outliers(data, x))
    yield from outliers
    if _are_dependent(x):
        yield (
            f"some dimensions of {data.label} are a linear function of the others: {NO_BOUND}; leave those dimensions "
            "out."
        )
    elif not (repeated or whole or partly or atoms or outliers) and lie_on_a_surface(x):
        yield (
            f"the examples of {data.label} lie on a curve or surface of fewer than {dimension} dimensions: {NO_BOUND}; "
            "leave out what is a function of other dimensions, or add noise of the size of the measurements' error."
        )


def _others(data: Any, columns: list[int]) -> str:
    """That the same is true of other columns than the first."""
    names = [data.dimension_name(column) for column in columns[1:4]]
    if (more := len(columns) - 4) > 0:
        names.append(f"{more:,} more")
    return f" (likewise {', '.join(names)})" if names else ""


def _columns_that_repeat(x: Tensor) -> list[int]:
    """The columns of examples ``(N, D)`` in which at least half of the values occur before; no constants, which models
    refuse."""
    ordered = x.sort(0).values
    repeated = (ordered[1:] == ordered[:-1]).sum(0)
    return ((repeated >= len(x) / 2) & (repeated < len(x) - 1)).nonzero().flatten().tolist()


def _step_of(x: Tensor) -> float:
    """The step by whose multiples the values ``(N,)``, at least ten different ones, differ; 0 if there is none, or if
    values in the middle mostly lie farther apart, as of numbers with as many digits each."""
    values = x.unique()
    eps = torch.finfo(torch.float32 if torch.equal(values, values.float().double()) else torch.float64).eps
    error = 4 * eps * values.abs().max().item()
    values = values[torch.cat([values.diff() > error, torch.tensor([True])])]
    if len(values) < 10:
        return 0.0
    gaps, width = values.diff(), (values[-1] - values[0]).item()
    near = gaps[gaps < 1.5 * gaps.min()].mean().item()  # of neighbours, whose errors cancel
    step = width / round(width / near)
    off = ((values - values[0]) / step - ((values - values[0]) / step).round()).abs().max().item()
    middle = values[(values >= x.quantile(0.25)) & (values <= x.quantile(0.75))].diff()
    is_even = len(middle) == 0 or middle.median().item() < 1.5 * step
    return step if is_even and off < min(0.1, 1e-3 + error / step) else 0.0


def _stands_out(x: Tensor) -> bool:
    """Whether the most common of values ``(N,)`` stands more than three times as often as any other."""
    counts = x.unique(return_counts=True)[1].sort(descending=True).values
    return len(counts) > 1 and int(counts[0]) > 3 * int(counts[1])


def _columns_of_integers(x: Tensor) -> list[int]:
    """The columns of examples ``(N, D)`` that hold whole numbers alone, and so few different ones that a density could
    have a peak at each: at most 100 for each example."""
    spread = x.max(0).values - x.min(0).values
    return ((x == x.round()).all(0) & (spread < 100 * len(x))).nonzero().flatten().tolist()


def _shares_of_integers(x: Tensor) -> dict[int, float]:
    """Of the columns of examples ``(N, D)`` that hold more than ten whole numbers among others, in more than 3 % of the
    examples, this share; numbers so large that few fractions are left to them do not count."""
    is_float32 = (x == x.float().double()).all(0)
    largest = torch.where(is_float32, 2.0**13, 2.0**42)
    is_whole = (x == x.round()) & (x.abs() < largest) & (x != 0)
    shares = is_whole.double().mean(0)
    columns = ((shares > ATOMS) & (shares < 1)).nonzero().flatten().tolist()
    return {i: shares[i].item() for i in columns if len(x[is_whole[:, i], i].unique()) > 10}


def _atoms(x: Tensor) -> dict[int, tuple[float, int, float]]:
    """Of the columns of examples ``(N, D)`` that have atoms, the most common value, how many other atoms there are, and
    the share of examples that have any of them. Where other values repeat, too, as rounded ones do, it takes ten equal
    ones to make an atom."""
    ordered = x.sort(0).values
    apart = max(2, int(COMMON * len(x)))
    same = ordered[apart:] == ordered[:-apart]  # of a value that stands more than `apart` times
    found = {}
    for column in same.any(0).nonzero().flatten().tolist():
        values, counts = ordered[:, column].unique_consecutive(return_counts=True)
        others = counts[counts <= apart]
        repeat = others[others > 1].sum().item() > 0.01 * len(x)
        is_atom = counts > (max(9, apart) if repeat else apart)
        share = counts[is_atom].sum().item() / len(x)
        if share > ATOMS:
            found[column] = (values[counts.argmax()].item(), int(is_atom.sum()) - 1, share)
    return found


def _outliers(data: Any, train: Tensor) -> Iterator[str]:
    """Sentences on a value so far out that float32 tells others apart no longer, and on one among the validation data
    that alone decides which checkpoint is best; in the test data results name it.

    Args:
        train: training examples ``(N, D)``.
    """
    mean, scale = (part.flatten() for part in data.statistics())
    before, after = _count_distinct(train), _count_distinct(((train - mean) / scale).float())
    column = int((after / before).argmin())
    if after[column] < 0.9 * before[column]:
        _, value = _farthest(data, "train", mean)
        yield (
            f"{data.dimension_name(column)} of {data.label} has the value {value[column]:g}, so far from the others "
            f"that of {before[column]:,} distinct values {after[column]:,} are left in float32 once they are "
            "standardised: leave such examples out, or take logarithms."
        )
    distance, value = _farthest(data, "val", mean)
    deviations = (distance / scale).nan_to_num(0, 0)
    column = int(deviations.argmax())
    if deviations[column] > MOST_DEVIATIONS:
        yield (
            f"{data.dimension_name(column)} of {data.label} has the value {value[column]:g} in the validation split, "
            f"{deviations[column]:.3g} standard deviations of the training data from their mean: it alone decides "
            "which checkpoint is the best."
        )


def _farthest(data: Any, split: str, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Of each dimension, how far the farthest value of a split is from the mean, and that value, ``(D,)``."""
    farthest, value = torch.zeros_like(mean), mean.clone()
    for index in torch.arange(data.count(split)).split(4096):
        x = data.examples(split, index)[0].flatten(1).double()
        distance, row = (x - mean).abs().max(0)
        is_farther = distance > farthest
        farthest = torch.where(is_farther, distance, farthest)
        value = torch.where(is_farther, x.gather(0, row[None])[0], value)
    return farthest, value


def _count_distinct(x: Tensor) -> Tensor:
    """How many values each column of examples ``(N, D)`` has, ``(D,)``; those that differ in the last three of the 16
    digits of float64 are one, which sums of rounded numbers make several."""
    ordered = x.sort(0).values
    error = 1e-13 * ordered[1:].abs() if x.dtype == torch.float64 else 0.0
    return (ordered.diff(dim=0) > error).sum(0) + 1


def _are_dependent(x: Tensor) -> bool:
    """Whether some dimensions of examples ``(N, D)`` are a linear function of the others, to 6 digits."""
    if not 1 < x.shape[1] < min(len(x), 1024) or not bool((x.std(0) > 0).all()):  # a constant is refused elsewhere
        return False
    return bool(torch.linalg.eigvalsh(torch.corrcoef(x.T))[0] < 1e-12)


def lie_on_a_surface(x: Tensor, queries: int = 200) -> bool:
    """Whether examples ``(N, D)``, D up to 32, lie on curves or surfaces of fewer dimensions, a tenth of them at least.

    Nearest neighbours of a point of a density spread in all D directions alike, however near they are; on a surface
    they become the flatter, the nearer they are. So the ratio of the smallest to the largest singular value of 2 D + 4
    neighbours is small there, and smaller among all examples than among a quarter of them, while of noise around a
    surface it grows with their number. On 20,000 examples the lowest tenth of the ratios is above 0.2 for
    the toy densities, Gaussians of up to 20 dimensions and heavy tails, and 0.0002 for a circle, 0.008 for a sphere.
    """
    x = ((x - x.mean(0)) / x.std(0)).unique(dim=0)
    neighbours = 2 * x.shape[1] + 4
    if not 2 <= x.shape[1] <= 32 or len(x) < max(200, 16 * neighbours) or not bool(torch.isfinite(x).all()):
        return False
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    quarter, whole = (_flatness(part, neighbours, queries) for part in (x[: len(x) // 4], x))
    return whole < 1e-6 or (whole < 0.1 and whole < 0.75 * quarter)  # on lines and planes it is 0 however many


def _flatness(x: Tensor, neighbours: int, queries: int) -> float:
    """The lowest tenth of the ratios of singular values of points' neighbours, see :func:`lie_on_a_surface`."""
    _, index = cKDTree(x.numpy()).query(x[:queries].numpy(), neighbours + 1)
    near = x[torch.from_numpy(index)]
    values = torch.linalg.svdvals(near - near.mean(1, keepdim=True))
    return float((values[:, -1] / values[:, 0]).quantile(0.1))
