"""Configs have names: where they are found, and how the runs of one are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parent.parent / "configs"


def config_names() -> list[str]:
    """The names that ``--config`` takes."""
    return sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.yaml"))


def find_config(name: str) -> Path:
    """The config at a path, or of a name in ``configs/``.

    Raises:
        TypeError: if there is none, with the names that there are; a usage error for jsonargparse.
    """
    for path in (Path(name), CONFIGS / name, CONFIGS / f"{name}.yaml"):
        if path.is_file():
            return path
    raise TypeError(f"there is no config {name}: expected a path, or one of {', '.join(config_names())}.")


def experiment_of(configs: Any) -> str:
    """The first config's name, by which its runs are kept."""
    if not configs:
        return "unnamed"
    path = Path(str(configs[0])).resolve().with_suffix("")
    return str(path.relative_to(CONFIGS)) if path.is_relative_to(CONFIGS) else path.name
