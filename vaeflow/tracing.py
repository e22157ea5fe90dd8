"""Under what an operation runs: as it is called, or inside a transform, a compilation or a backward pass.

torch has no public way to ask for most of it, so its private members are used here, and nowhere else for this.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_eager() -> bool:
    """Whether operations run as they are called: nothing compiles them, maps them over a dimension or differentiates
    them forwards, all of which take a definition in torch."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


def is_batched(*cotangents: Tensor) -> bool:
    """Whether a backward pass is given many cotangents at once, as by ``is_grads_batched`` or ``vectorize=True``: they
    have no memory of their own that machine code, or an assignment to parts of a tensor, could take."""
    return any(map(torch._C._functorch.is_legacy_batchedtensor, cotangents))


def is_in_backward() -> bool:
    """Whether autograd is running a backward pass, in which checkpoints compute their forward pass again."""
    return torch._C._current_graph_task_id() != -1


def unwrapped(value: Tensor) -> Tensor:
    """A tensor without the wrappers of torch.func's transforms: its numbers, which a check of values may read where
    vmap forbids branches. What vmap maps over is a further dimension of it."""
    while not torch.compiler.is_compiling() and torch._C._functorch.is_functorch_wrapped_tensor(value):
        value = torch._C._functorch.get_unwrapped(value)
    return value
