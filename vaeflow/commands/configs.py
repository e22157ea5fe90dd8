"""Configs have names: where they are found, and how the runs of one are called; and values that are paths."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import yaml

from vaeflow.errors import VaeflowError
from vaeflow.files import expanded

CONFIGS = Path(__file__).parents[2] / "configs"
DIGITS = CONFIGS / "digits"
BASE = "base"
PATHS = (
    "ckpt", "ckpt_path", "default_root_dir", "dir", "dirpath", "file", "folders", "json", "out", "path", "pretrained",
    "root", "root_dir", "runs", "save_dir", "sub_dir",
)  # fmt: skip
"""Options and keys of configs whose values are files and folders."""


def config_names() -> list[str]:
    """The names that ``--config`` takes; what several configs share, in files called ``base.yaml``, is none."""
    return sorted(_name_of(path) for path in CONFIGS.rglob("*.yaml") if path.stem != BASE)


def _name_of(path: Path) -> str:
    """The name of a config of ours: ``mnist/vae``, and ``vae`` of the digits'."""
    return str(path.relative_to(DIGITS if path.is_relative_to(DIGITS) else CONFIGS).with_suffix(""))


def find_config(name: str) -> Path:
    """The config at a path, or of a name in ``configs/``, where a bare name is the digits' one.

    Raises:
        TypeError: if there is none, with the names that there are; a usage error for jsonargparse.
    """
    for path in (expanded(name), *(folder / f"{name}{end}" for folder in (DIGITS, CONFIGS) for end in ("", ".yaml"))):
        is_base = path.stem == BASE and path.is_relative_to(CONFIGS) and name != str(path)
        if path.is_file() and not is_base:
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
    path = Path(str(configs[0])).resolve()
    return _name_of(path) if path.is_relative_to(CONFIGS) else path.with_suffix("").name


def read_config(path: Path) -> Any:
    """What a config says, with what it does not say from the file that its key ``base`` names, beside it.

    Raises:
        VaeflowError: if a file is no YAML, or a base is not there or leads back to the config.
    """
    return _read(path, ())


def _read(path: Path, above: tuple[Path, ...]) -> Any:
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
        place = "" if mark is None else f" in line {mark.line + 1}"
        raise VaeflowError(f"{path} is no YAML: {problem or str(error).splitlines()[0]}{place}.") from None
    if not isinstance(config, dict):
        if above:
            raise VaeflowError(f"{path} is a base, and holds no keys and values.")
        return config
    if BASE not in config:
        return config
    base = _base_of(path, config.pop(BASE))
    if base.resolve() in (path.resolve(), *above):
        raise VaeflowError(f"{path} has the base {base}, of which it is the base itself.")
    return _merged(_read(base, (*above, path.resolve())), config)


def _base_of(path: Path, name: Any) -> Path:
    """The file that a config names as its base: beside it, or a config of ours by its name."""
    if not isinstance(name, str):
        raise VaeflowError(f"{path} has the base {name!r}, expected one file beside it, or the name of a config.")
    base = path.parent / expanded(name)
    if base.is_file():
        return base
    try:
        return find_config(name)
    except TypeError:
        raise VaeflowError(f"{path} has the base {name}, which is no file beside it, and no config's name.") from None


def _merged(base: Any, own: Any) -> Any:
    """``own`` with what is in ``base`` alone; a part of another class has nothing of the base's."""
    if isinstance(base, str) and isinstance(own, dict) and "init_args" in own:
        base = {"class_path": base}
    if not isinstance(base, dict) or not isinstance(own, dict):
        return own
    if own.get("class_path", base.get("class_path")) != base.get("class_path", own.get("class_path")):
        return own
    return {**base, **{key: _merged(base[key], value) if key in base else value for key, value in own.items()}}


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
