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

SLOWER = {
    "numba": "autoregressive flows take up to 3 times longer to train, and sampling from them up to 20 times",
    "triton": "sampling from autoregressive flows takes up to 90 times longer",
}
"""What it means that a library is not there."""
_unusable: set[str] = set()


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
