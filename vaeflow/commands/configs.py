"""Configs have names: where they are found, and how the runs of one are called; and values that are paths."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from vaeflow.files import expanded

CONFIGS = Path(__file__).parents[2] / "configs"
PATHS = (
    "ckpt", "ckpt_path", "default_root_dir", "dir", "dirpath", "file", "folders", "json", "out", "path", "pretrained",
    "root", "root_dir", "runs", "save_dir", "sub_dir",
)  # fmt: skip
"""Options and keys of configs whose values are files and folders."""


def config_names() -> list[str]:
    """The names that ``--config`` takes."""
    return sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.yaml"))


def find_config(name: str) -> Path:
    """The config at a path, or of a name in ``configs/``.

    Raises:
        TypeError: if there is none, with the names that there are; a usage error for jsonargparse.
    """
    for path in (expanded(name), CONFIGS / name, CONFIGS / f"{name}.yaml"):
        if path.is_file():
            return path
    if not CONFIGS.is_dir():
        raise TypeError(
            f"there is no config {name}: those that have names belong to the repository, and vaeflow is installed "
            "without it; give a path, or work in a clone."
        )
    raise TypeError(f"there is no config {name}: expected a path, or one of {', '.join(config_names())}.")


def experiment_of(configs: Any) -> str:
    """The first config's name, by which its runs are kept."""
    if not configs:
        return "unnamed"
    path = Path(str(configs[0])).resolve().with_suffix("")
    return str(path.relative_to(CONFIGS)) if path.is_relative_to(CONFIGS) else path.name


def expand_paths(config: Any) -> Any:
    """A config, or the options of a command, once all values of :data:`PATHS` in it are :func:`expanded`; but those of
    other protocols, such as ``s3://``, stay."""

    def expand(key: str, value: Any) -> Any:
        is_path = key in PATHS and isinstance(value, str) and "://" not in value
        is_spelt = is_path and ("$" in value or value[:1] == "~" or ".." in Path(value).parts)
        return str(expanded(value)) if is_spelt else value

    return _replace(config, expand)


def plain(config: Any) -> Any:
    """A config once it holds no defaults of Lightning's that no YAML can hold: enumerations and devices."""

    def name(key: str, value: Any) -> Any:
        return value.value if isinstance(value, Enum) else str(value) if isinstance(value, torch.device) else value

    return _replace(config, name)


def _replace(config: Any, change: Callable[[str, Any], Any]) -> Any:
    """A config once every value below it is what ``change`` makes of its key and value."""
    entries = vars(config) if isinstance(config, Namespace) else config
    for key, value in entries.items():
        parts = value if isinstance(value, list) else [value]
        parts = [_replace(part, change) if isinstance(part, (Namespace, dict)) else change(key, part) for part in parts]
        entries[key] = parts if isinstance(value, list) else parts[0]
    return config
