"""Machine code for the CPU, compiled by numba, and for GPUs, by Triton: what torch would do in many small steps, or
twice over.

Every function here has a definition in torch beside its caller, which gives the same numbers, serves everywhere else
and is what the tests compare with.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

SLOWER = {
    "numba": "autoregressive flows take up to 3 times longer to train, and sampling from them up to 20 times",
    "triton": "sampling from autoregressive flows takes up to 90 times longer",
}
"""What it means that a library is not there."""
_unusable: set[str] = set()


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


def attempt(module: str, function: str, *arguments: Any) -> Any:
    """What a function of one of these modules returns; None where its library is missing or does not build, of which
    one warning tells."""
    library = "triton" if module.endswith("_gpu") else "numba"
    if library in _unusable:
        return None
    try:
        imported = importlib.import_module(f"{__name__}.{module}")
    except (ImportError, OSError, RuntimeError) as error:
        trouble: Exception = error
    else:
        try:
            return getattr(imported, function)(*arguments)
        except torch.OutOfMemoryError:
            raise
        except _failures(library) as error:
            trouble = error
    _unusable.add(library)
    reason = str(trouble).strip().partition("\n")[0]
    warnings.warn(f"{library} cannot be used ({reason}), so that {SLOWER[library]}.", stacklevel=2)
    return None


def _failures(library: str) -> tuple[type[Exception], ...]:
    """What is raised when something cannot be compiled, or kept, as on a full disk."""
    if library == "numba":
        return sys.modules["numba.core.errors"].NumbaError, OSError
    triton = sys.modules["triton.errors"].TritonError
    return triton, OSError, subprocess.SubprocessError, RuntimeError  # of the C compiler that a launch asks for
