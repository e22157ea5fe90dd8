"""Machine code for the CPU, compiled by numba: what torch would do in many small steps, or twice over.

Every function here has a definition in torch beside its caller, which gives the same numbers, serves everywhere else
and is what the tests compare with.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

import torch
from torch.autograd import forward_ad

_usable = True


def is_eager() -> bool:
    """Whether operations run as they are called: nothing compiles them, maps them over a dimension or differentiates
    them forwards, all of which take a definition in torch."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


def attempt(module: str, function: str, *arguments: Any) -> Any:
    """What a function of one of these modules returns; None where numba is missing or does not build, of which one
    warning tells."""
    global _usable
    if not _usable:
        return None
    try:
        imported = importlib.import_module(f"{__name__}.{module}")
    except (ImportError, OSError, RuntimeError) as error:
        trouble = error
    else:
        try:
            return getattr(imported, function)(*arguments)
        except (sys.modules["numba.core.errors"].NumbaError, OSError) as error:  # such as a full disk of its cache
            trouble = error
    _usable = False
    warnings.warn(
        f"numba cannot be used ({str(trouble).strip().partition(chr(10))[0]}), so that autoregressive flows take up to "
        "3 times longer to train, and sampling from them up to 20 times.",
        stacklevel=2,
    )
    return None
