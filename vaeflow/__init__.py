"""Likelihood-based generative models, trained, evaluated and compared under one protocol."""

from typing import Any

__version__ = "0.2.0"
__all__ = ["Noise", "VaeflowError", "evaluate", "initialising", "load", "load_data"]

_HOME = {
    "Noise": "vaeflow.noise",
    "VaeflowError": "vaeflow.errors",
    "evaluate": "vaeflow.evaluation",
    "initialising": "vaeflow.nets.initialisation",
    "load": "vaeflow.records.checkpoint",
    "load_data": "vaeflow.records.checkpoint",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import vaeflow`` costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'vaeflow' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
