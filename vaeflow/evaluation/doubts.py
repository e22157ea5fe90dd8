"""Reasons not to believe a number: what is wrong with the data or the model before training, or with the results."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from vaeflow.bijections.check import check_bijection
from vaeflow.distributions import FlowDensity
from vaeflow.evaluation.data_doubts import doubts_about_data
from vaeflow.noise import Noise

Results = dict[str, Any]
_of_data = WeakKeyDictionary[Any, list[str]]()  # a training asks before and after
COPIES = {
    "num_in_training": "are training examples as well",
    "num_in_validation": "are validation examples as well, by which the best checkpoint is chosen",
    "num_repeated": "repeat others, so that fewer are independent than the standard error takes for granted",
}
"""What results count of examples that are others as well, and what is said of them."""
MOVED = 500
"""Examples whose density is compared with that of points nearby."""


def hints_before(model: Any, data: Any) -> Iterator[str]:
    """Sentences on what is unusual in a model and its data; the number at the end is what it says it is."""
    if model.kind == "dequantised" and model.levels == 2:
        yield (
            f"the data are binary ({data.protocol}), and this model is of the density of 0 and 1 with noise added: "
            f"grey levels are what such models are usually trained on{_option(data, 'binarise', 'none')}."
        )
    if not data.has_examples:
        return
    data.setup("")
    if data.levels is not None:
        yield from _hints_on_levels(data)
    yield from _hints_on_row_numbers(data)
    trained = set(data.trained_classes())
    untrained = [name for i, name in enumerate(data.class_names) if i not in trained]
    if untrained:
        yield f"no training example has the label {', '.join(untrained)}."


def _option(data: Any, key: str, value: object) -> str:
    """An option of the data in brackets, if they have it."""
    return f" (--data.{key} {value})" if key in inspect.signature(type(data)).parameters else ""


def _hints_on_levels(data: Any) -> Iterator[str]:
    """Sentences on levels that do not occur, in data as they are in memory."""
    x, levels = data.splits["train"][0], data.raw_levels
    most = int(x.max())
    values, counts = x[:20_000].long().unique(return_counts=True)
    found, step = len(values), int(np.gcd.reduce(values.numpy()))
    shared = "and their likelihood is shared out among all of them"
    if most < levels // 4:
        highest = max(int(x.max()) for x, _ in data.splits.values())
        fewer = highest + 1 if highest < 255 else 2 ** highest.bit_length()
        yield (
            f"the training data go up to {most}, but count as integers of {levels} levels, {shared}: perhaps they have "
            f"{fewer}{_option(data, 'levels', fewer)}."
        )
    elif found > 1 and levels > 2 and (step > 1 or (4 * found < levels and counts.sum() > 16 * levels)):
        multiples = f", all multiples of {step}" if step > 1 else ""
        yield (
            f"the training data have {found} different values{multiples}, but count as integers of {levels} levels, "
            f"{shared}: if there are no others, number them from 0 to {found - 1}."
        )


def _hints_on_row_numbers(data: Any) -> Iterator[str]:
    """Sentences on columns that number the examples, or have them at equal steps, as times do."""
    if len(data.shape) != 1:
        return
    x = torch.cat([data.splits[name][0] for name in ("train", "val", "test")]).double()
    steps = x.sort(dim=0).values.diff(dim=0)
    low, high = steps.min(dim=0).values, steps.max(dim=0).values
    for i in ((low > 0) & (high - low <= 1e-6 * high)).nonzero().flatten().tolist():
        yield (
            f"{data.dimension_name(i)} of {data.label} numbers the examples (no value comes twice, and all are equally "
            "far apart): if it means nothing else, leave it out."
        )


def doubts_before(model: Any, data: Any) -> Iterator[str]:
    """Sentences on a model and its data, before an evaluation: why not to believe the number at its end."""
    for part in model.modules():
        if isinstance(part, FlowDensity) and _is_foreign(part.flow):
            yield from _doubts_of_flow(part.flow, part.features, part.context_features)
    if difference := data.difference_from(model.trained_on or data.trained_on):
        yield f"{difference[:1].upper()}{difference[1:]}, and the model may have seen these test examples."
    if model.kind != "reverse-kl" and model.levels is None:
        if data not in _of_data:
            _of_data[data] = list(doubts_about_data(data))
        yield from _of_data[data]


@torch.no_grad()
def doubts_about_density(model: Any, data: Any) -> Iterator[str]:
    """A sentence if an exact density of real numbers is concentrated on the very values that the examples have, as
    where it falls without bound: moving the examples by a thousandth of a standard deviation, which changes nothing of
    the data, lowers the density of a few per cent of them by more than 1 + D/100 nats."""
    if model.kind != "exact" or model.levels is not None:
        return
    split = data.evaluation_split
    index = torch.arange(min(MOVED, data.num_evaluated))
    x, y = (part.to(model.device) for part in data.examples(split, index))
    scale = data.examples("train", torch.arange(min(1000, data.count("train"))))[0].double().std(0).to(x.device)
    noise = Noise(0, "moved", 0, index.to(x.device)).normal("moved", 1, (model.dimension,), torch.float64)[0]
    moved = x.double() + 1e-3 * scale * noise.view(x.shape)
    context = model.context_of(y)
    lower = model.log_prob(x.double(), context, 1) - model.log_prob(moved, context, 1)
    share = (lower > 1 + model.dimension / 100).double().mean().item()
    if share > 0.03:
        yield (
            f"The density of {share:.0%} of the examples falls by {lower[lower > 1].median().item():.3g} nats, in the "
            "median, if they are moved by a thousandth of a standard deviation: it can grow without bound, since the "
            "data repeat values or lie on a curve or surface, and the nll means nothing."
        )


def doubts_about_copies(model: Any, results: Results) -> Iterator[str]:
    """Sentences if many of the examples that were evaluated are training or validation examples as well, or repeat each
    other: more than 1 % of real numbers, which a density does not repeat, or 5 % of integers of more than 32 bits; few
    bits repeat by themselves."""
    is_real = model.levels is None
    if not is_real and model.dimension * math.log2(model.levels) <= 32:
        return
    for copies, sentence in _copies(results):
        if copies > (0.01 if is_real else 0.05) * results["num_examples"]:
            yield sentence


def dominant_example(nll: np.ndarray | None) -> int | None:
    """The one of at least 20 examples that has more than half of the variance of their nll, and is 40 times as far from
    the median as half of them are, if there is one: such as one far from all others."""
    if nll is None or len(nll) < 20:
        return None
    squares, distances = np.square(nll - nll.mean()), np.abs(nll - np.median(nll))
    i = int(squares.argmax())
    is_far = distances[i] > max(40 * np.median(distances), 1e-3 * np.abs(nll).max())
    return i if squares[i] > 0.5 * squares.sum() and is_far else None


def describe_example(data: Any, results: Results, i: int) -> Results:
    """What results say of an example: its index, its nll, the mean nll of the others, and, of real numbers, the value
    that is the most standard deviations of the training data from their mean."""
    nll = results["nll_by_example"]
    found = {"index": i, "nll": float(nll[i]), "nll_of_others": float(np.delete(nll, i).mean())}
    if data.levels is not None:
        return found
    mean, scale = (part.flatten() for part in data.statistics())
    x = data.examples(results["split"], torch.tensor([i]))[0].flatten().double()
    deviations = ((x - mean) / scale).abs().nan_to_num()
    column = int(deviations.argmax())
    return {**found, "dimension": data.dimension_name(column), "value": x[column].item(),
            "deviations": deviations[column].item()}  # fmt: skip


def doubts_about_outliers(results: Results) -> Iterator[str]:
    """A sentence if an example that dominates the nll is 100 standard deviations from the training data, or more."""
    one = results["dominant_example"]
    if one and one.get("deviations", 0) > 100:
        yield _dominance(results)


def _dominance(results: Results) -> str:
    one = results["dominant_example"]
    far = f", {one['deviations']:.3g} standard deviations of the training data from their mean"
    value = f" and whose {one['dimension']} is {one['value']:g}{far}," if one.get("deviations", 0) > 10 else ""
    return (
        f"Example {one['index']} of the {results['split']} split, whose nll is {one['nll']:.4g}{value or ','} has more "
        f"than half of the variance: without it the nll would be {one['nll_of_others']:.4g}, not {results['nll']:.4g}."
    )


def remarks_on(results: Results) -> Iterator[str]:
    """Sentences on results: why not to believe them, and whether they are loose."""
    yield from doubts_about(results)
    yield from (sentence for copies, sentence in _copies(results) if copies and sentence not in results["doubts"])
    if results.get("dominant_example") and (sentence := _dominance(results)) not in results["doubts"]:
        yield sentence
    samples = results.get("effective_sample_size")
    if results["kind"] == "importance-sampled" and samples is not None and samples < 2:
        yield "Fewer than two effective samples for each example: the bound is loose, take more samples."


def doubts_about(results: Results) -> Iterator[str]:
    """Sentences on why not to believe results, those of before training among them."""
    yield from results.get("doubts") or ()
    entropy = results.get("entropy")
    bounds = [("nll", "entropy", entropy)] if entropy is not None else []
    bounds += [("nll", "zero of integers", 0.0)] if results["measure"] not in ("continuous", "energy") else []
    bounds += [("kl", "zero", 0.0)] if results["kind"] == "reverse-kl" else []
    for score, called, least in bounds:
        stderr = results.get(f"{score}_stderr")
        if stderr and results["num_examples"] >= 100 and (below := (least - results[score]) / stderr) > 4:
            yield (
                f"The {score} is {below:.0f} standard errors below the {called}, where none can be: log-determinants "
                "are wrong, or the model has seen the test data."
            )


def _copies(results: Results) -> Iterator[tuple[int, str]]:
    """How many of the examples that were evaluated are others as well, and a sentence on it."""
    count = results["num_examples"]
    for name, what in COPIES.items():
        copies = results.get(name) or 0
        yield copies, f"{copies:,} of the {count:,} {results['split']} examples ({copies / count:.1%}) {what}."


def _is_foreign(flow: nn.Module) -> bool:
    return any(not type(part).__module__.startswith(("vaeflow.", "torch.nn.")) for part in flow.modules())


def _doubts_of_flow(flow: Any, features: int, context_features: int) -> Iterator[str]:
    try:
        yield from check_bijection(flow, features, context_features)
    except Exception as error:  # of code that is not ours; where it matters, training says it again
        yield f"{type(flow).__name__} could not be checked ({type(error).__name__}: {error})."
