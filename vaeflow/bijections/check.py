"""Whether a map is what it says it is: for your own, before a likelihood that rests on it is believed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vaeflow.bijections.base import Bijection
from vaeflow.errors import check_mapped

MOST_FEATURES = 1024
Map = Callable[[Tensor], tuple[Tensor, Tensor]]


def check_bijection(bijection: Bijection, features: int, context_features: int = 0, seed: int = 0) -> list[str]:
    """What is wrong with a map of vectors, a sentence each; nothing, if at random points

        f⁻¹(f(z)) = z,    log_det = log |det ∂x/∂z| by autograd,    log_det of f⁻¹ at x = −log_det of f at z,

    and if samples ``(2, 3, features)`` are mapped as each of them is. All is in float64, away from where the parameters
    start, and afterwards they are as before. The determinant is that of the faster direction, and is left out above
    1,024 features; a direction that raises NotImplementedError is passed over.

    Args:
        bijection: of vectors ``(..., batch, features)``.
        features, context_features: what it was made with.
        seed: of the points, and of what is added to the parameters.

    Raises:
        VaeflowError: if what it returns has not the shapes of an image and its log_det.
        Exception: whatever the map itself raises.
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(2, 3, features, generator=generator, dtype=torch.float64)
    context = torch.randn(3, context_features, generator=generator, dtype=torch.float64) if context_features else None
    with _moved(bijection, generator), torch.random.fork_rng(devices=[]):
        return list(_problems(bijection, z, context))


@contextmanager
def _moved(bijection: Bijection, generator: torch.Generator) -> Iterator[None]:
    """The map in float64 and in evaluation, with noise on its parameters, and with the statistics of N(0, I) where it
    has none of training data yet; afterwards as it was."""
    values = [*bijection.parameters(), *bijection.buffers()]
    kept = [value.data.clone() for value in values]
    training = bijection.training
    bijection.double().eval()
    try:
        with torch.no_grad():
            for parameter in bijection.parameters():
                fan_in = max(1, parameter.shape[-1]) if parameter.dim() > 1 else 1  # none without a context
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(noise, alpha=0.3 / fan_in**0.5)
            for name, statistic in bijection.named_buffers():
                if statistic.is_floating_point() and bool(statistic.isnan().any()):
                    statistic.fill_(0.0 if name.endswith("mean") else 1.0)
                if name.rpartition(".")[2] == "started":
                    statistic.fill_(True)
        yield
    finally:
        for value, data in zip(values, kept, strict=True):
            value.data = data
        bijection.train(training)


def _problems(f: Bijection, z: Tensor, context: Tensor | None) -> Iterator[str]:
    name = type(f).__name__
    conditioned = f.condition(context)
    maps: dict[str, Map] = {"forward": lambda v: f(v, conditioned), "inverse": lambda v: f.inverse(v, conditioned)}
    points, log_dets, seconds = {"forward": z, "inverse": z}, {}, {}
    for direction, apply in maps.items():
        began = time.perf_counter()
        try:
            with torch.no_grad():
                image, log_det = check_mapped(name, apply(points[direction].clone()), z)
        except NotImplementedError:
            continue
        seconds[direction] = time.perf_counter() - began
        if not bool(torch.isfinite(image).all() & torch.isfinite(log_det).all()):
            yield f"{name}.{direction} gives NaN or infinity for points of N(0, I), and could not be checked."
            return
        log_dets[direction] = log_det
        with torch.no_grad():
            single = [apply(point.clone())[0] for point in points[direction]]
        yield from _differences(f"{name}.{direction} of several samples is", image, "of each", torch.stack(single))
        if direction == "forward":
            points["inverse"] = image
        elif "forward" in log_dets:
            another = list(_differences(f"inverse(forward(z)) of {name} is", image, "z is", z))
            disagree = _differences(
                f"the log_dets of {name} disagree: inverse's is", log_det, "minus forward's is", -log_dets["forward"]
            )
            yield from another or disagree  # of another map it may be right
    if z.shape[-1] > MOST_FEATURES:
        return
    for direction in sorted(seconds, key=seconds.__getitem__):
        at = points[direction][0]
        jacobian = torch.autograd.functional.jacobian(lambda v, g=maps[direction]: g(v.clone())[0].sum(0), at)
        exact = torch.linalg.slogdet(jacobian.transpose(0, 1))[1]
        if bool(torch.isfinite(exact).all()):
            yield from _differences(
                f"log_det of {name}.{direction} is", log_dets[direction][0], "by autograd it is", exact
            )
            return
    yield f"{name} has a singular Jacobian by autograd, so its log_det could not be checked."


def _differences(what: str, found: Tensor, where: str, expected: Tensor) -> Iterator[str]:
    wrong = ~((found - expected).abs() <= 1e-3 + 1e-5 * expected.abs().max())
    if bool(wrong.any()):
        yield (
            f"{what} {found[wrong][0].item():.4g}, but {where} {expected[wrong][0].item():.4g}: "
            "no likelihood that rests on it can be believed."
        )
