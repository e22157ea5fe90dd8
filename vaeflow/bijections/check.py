"""Whether a map is what it says it is: for your own, before a likelihood that rests on it is believed."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from vaeflow.bijections.base import Bijection
from vaeflow.errors import check_mapped

MOST_FEATURES = 1024


def check_bijection(bijection: Bijection, features: int, context_features: int = 0, seed: int = 0) -> list[str]:
    """What is wrong with a map of vectors, a sentence each; nothing, if at three random points, to about one percent,

        f⁻¹(f(z)) = z,    log_det = log |det ∂x/∂z| forwards,    log_det = log |det ∂z/∂x| backwards,

    the determinants by autograd, and all of it away from where the parameters start. The map is left as it is. A
    direction that raises NotImplementedError is passed over, and so are determinants above 1,024 features.

    Args:
        bijection: of vectors ``(batch, features)``.
        features, context_features: what it was made with.
        seed: of the points, and of what is added to the parameters.

    Raises:
        VaeflowError: if what it returns has not the shapes of an image and its log_det.
    """
    generator = torch.Generator().manual_seed(seed)
    mine = copy.deepcopy(bijection).cpu().eval()
    with torch.no_grad():
        for parameter in mine.parameters():
            fan_in = max(1, parameter.shape[-1]) if parameter.dim() > 1 else 1  # none without a context
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3 / fan_in**0.5)
    z = torch.randn(3, features, generator=generator)
    context = torch.randn(3, context_features, generator=generator) if context_features else None
    return list(_problems(mine, z, context))


def _problems(f: Bijection, z: Tensor, context: Tensor | None) -> Iterator[str]:
    name, x = type(f).__name__, z
    for direction, apply in (("forward", f.forward), ("inverse", f.inverse)):
        at = x
        try:
            with torch.no_grad():
                image, log_det = check_mapped(name, apply(at, context), at)
        except NotImplementedError:
            continue
        if not bool(torch.isfinite(image).all()):  # the points are outside of where the map is defined
            continue
        if direction == "forward":
            x = image
        elif x is not z:
            yield from _differences(f"inverse(forward(z)) of {name} is", image, "where z is", z)
        if z.shape[-1] <= MOST_FEATURES:
            jacobian = torch.autograd.functional.jacobian(lambda v, g=apply: g(v, context)[0].sum(0), at)
            exact = torch.linalg.slogdet(jacobian.transpose(0, 1))[1]
            yield from _differences(f"log_det of {name}.{direction} is", log_det, "by autograd it is", exact)


def _differences(what: str, found: Tensor, where: str, expected: Tensor) -> Iterator[str]:
    wrong = ~((found - expected).abs() <= 0.01 * (1 + expected.abs()))
    if bool(wrong.any()):
        yield (
            f"{what} {found[wrong][0].item():.4g}, but {where} {expected[wrong][0].item():.4g}: "
            "no likelihood that rests on it can be believed."
        )
