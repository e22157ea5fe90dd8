"""Reasons not to believe a number: what is wrong with the data or the model before training, or with the results."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vaeflow.bijections.check import check_bijection
from vaeflow.distributions import FlowDensity, Posterior

Results = dict[str, Any]


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
    untrained = [name for i, name in enumerate(data.class_names) if i not in set(data.trained_classes())]
    if untrained:
        yield f"no training example has the label {', '.join(untrained)}."


def _option(data: Any, key: str, value: object) -> str:
    """An option of the data in brackets, if they have it."""
    return f" (--data.{key} {value})" if key in inspect.signature(type(data)).parameters else ""


def _hints_on_levels(data: Any) -> Iterator[str]:
    """Sentences on levels that do not occur, in data as they are in memory."""
    x, levels = data.splits["train"][0], data.raw_levels
    most = int(x.max())
    counts = torch.stack([part.flatten().long().bincount(minlength=most + 1) for part in x[:20_000].split(1000)]).sum(0)
    values = counts.nonzero().flatten()
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
        if isinstance(part, Posterior) and part.flow is not None and _is_foreign(part.flow):
            yield from _doubts_of_flow(part.flow, part.gaussian.out_features // 2, part.gaussian.in_features)
    if model.kind == "reverse-kl" or model.levels is not None:
        return
    data.setup("")
    first = data.examples("train", torch.arange(min(20_000, data.count("train"))))[0].flatten(1).double()
    if repeated := _repeated_dimensions(first[:1000]):
        yield (
            f"{repeated} of the {model.dimension} dimensions of {data.label} take the same values again and again: a "
            "density of real numbers can grow there without bound, and then its nll means nothing. Of integers, or of "
            "integers that were divided by something, give the integers, with --data.levels."
        )
    if _are_dependent(first):
        yield (
            f"some dimensions of {data.label} are a linear function of the others: the density of such data has no "
            "bound and their nll means nothing; leave those dimensions out."
        )


def remarks_on(results: Results) -> Iterator[str]:
    """Sentences on results: why not to believe them, and whether they are loose."""
    yield from doubts_about(results)
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


def _repeated_dimensions(x: Tensor) -> int:
    """In how many dimensions at least half of the examples ``(N, D)`` have a value that an earlier one has."""
    ordered = x.sort(0).values
    return int(((ordered[1:] == ordered[:-1]).sum(0) >= len(x) / 2).sum())


def _are_dependent(x: Tensor) -> bool:
    """Whether some dimensions of examples ``(N, D)`` are a linear function of the others, to 6 digits."""
    if not 1 < x.shape[1] < min(len(x), 1024) or not bool((x.std(0) > 0).all()):  # a constant is refused elsewhere
        return False
    return bool(torch.linalg.eigvalsh(torch.corrcoef(x.T))[0] < 1e-12)


def _is_foreign(flow: nn.Module) -> bool:
    return any(not type(part).__module__.startswith(("vaeflow.", "torch.nn.")) for part in flow.modules())


def _doubts_of_flow(flow: Any, features: int, context_features: int) -> Iterator[str]:
    try:
        yield from check_bijection(flow, features, context_features)
    except Exception as error:  # of code that is not ours; where it matters, training says it again
        yield f"{type(flow).__name__} could not be checked ({type(error).__name__}: {error})."
