"""Reasons not to believe a number: what is wrong with the data or the model before training, or with the results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
            "grey levels are what such models are usually trained on (--data.binarise none)."
        )
    data.setup("")
    if model.levels is not None and (most := int(data.splits["train"][0].max())) < model.levels // 4:
        yield (
            f"the training data go up to {most}, but count as integers of {model.levels} levels, and their "
            f"likelihood is shared out among all of them: perhaps --data.levels {most + 1}."
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
