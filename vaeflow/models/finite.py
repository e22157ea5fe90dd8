"""Where numbers stop being numbers: what is said of a loss or a gradient that is NaN or infinite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

MOST_NAMED = 8
"""How many examples are named."""


def is_finite(value: Tensor) -> bool:
    """Whether all elements are, which waits for the device."""
    return bool(torch.isfinite(value).all())


def first_not_finite(model: nn.Module, compute: Callable[[], object]) -> str | None:
    """The first module whose output is not finite while something is computed, such as ``flow.net (MADE)``."""
    found: list[str] = []

    def look_at(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not all(map(is_finite, _tensors(output))):
                found.append(f"{name} ({type(module).__name__})")

        return look

    hooks = [module.register_forward_hook(look_at(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad(), suppress(Exception):  # it has been computed before, but not with such numbers
            compute()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def whose(values: Mapping[str, Tensor], index: Tensor) -> str:
    """The examples one of whose terms ``(batch,)`` is not finite, or else all of the batch, by their indices."""
    bad = torch.stack([~torch.isfinite(value.detach()) for value in values.values()]).any(0)
    found = (index[bad] if bad.any() else index).tolist()
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return f"example{'s' * (len(found) > 1)} {', '.join(map(str, found[:MOST_NAMED]))}{more}"


def where(model: nn.Module, compute: Callable[[], object]) -> str:
    """What was not finite first: an output, or else a parameter's gradient."""
    module = first_not_finite(model, compute)
    if module is not None:
        return f"the first output that is not finite is that of {module}"
    gradients = ((name, parameter.grad) for name, parameter in model.named_parameters() if parameter.grad is not None)
    name = next((name for name, gradient in gradients if not is_finite(gradient)), None)
    return "all modules' outputs are finite" + (f", but not the gradient of {name}" if name is not None else "")


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        yield from _tensors(list(output.values()))
    elif isinstance(output, (list, tuple)):
        for part in output:
            yield from _tensors(part)
