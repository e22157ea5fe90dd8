"""Describing models in plain words, and building them again from those words without running a stranger's code.

A part of a model (a flow, an encoder, an optimizer) is given as a class or as a ``functools.partial`` of one; a
checkpoint keeps it as ``{class_path, init_args}``. Building it imports an allowed module and reads one class that is
defined there and is of the kind that the parameter asks for. Nothing else in a checkpoint is ever called.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import io
import pickle
import re
import typing
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.plugins.io import TorchCheckpointIO

import vaeflow
from vaeflow.errors import VaeflowError, VaeflowWarning
from vaeflow.files import expanded, whole
from vaeflow.records.identity import Identity

TRUSTED = ("vaeflow", "torch.nn", "torch.optim")
LIGHTNING_PACKAGES = tuple(
    f"pytorch_lightning.{part}" for part in ("callbacks", "loggers", "plugins", "profilers", "strategies")
)
"""Whose classes the config of a run may name as well."""
NO_CLASSES = (
    "path", "root", "default_root_dir", "ckpt_path", "experiment", "dirpath", "filename", "save_dir", "name", "monitor",
    "trust",
)  # fmt: skip
"""Keys of a config whose values are files, folders and names, which look like modules at times."""
KEY = "vaeflow"
PREVIOUS = "previous.ckpt"
PRETRAINED = Path(__file__).parents[2] / "pretrained"
"""Checkpoints that come with the code."""


def describe(value: Any) -> Any:
    """A part as plain data: a class or a partial of one becomes ``{class_path, init_args}``, other values stay.

    Raises:
        VaeflowError: for a lambda, a function or an object, which no checkpoint could rebuild.
    """
    if inspect.isclass(value):
        return {"class_path": f"{value.__module__}.{value.__qualname__}", "init_args": {}}
    if isinstance(value, functools.partial):
        if not inspect.isclass(value.func) or value.args:
            raise VaeflowError(
                f"{value} cannot be stored in a checkpoint: give a class, or functools.partial(Class, name=value)."
            )
        described = describe(value.func)
        return {**described, "init_args": {k: describe(v) for k, v in value.keywords.items()}}
    if isinstance(value, Mapping):
        return {k: describe(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(describe(v) for v in value)
    if isinstance(value, Path):
        return str(value)
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise VaeflowError(
            f"{value} cannot be stored in a checkpoint: give a class, or functools.partial(Class, name=value)."
        )
    return value


def foreign_packages(description: Any) -> list[str]:
    """The packages that ``trust`` must have for what :func:`describe` described."""
    if isinstance(description, (list, tuple)):
        return list(dict.fromkeys(package for part in description for package in foreign_packages(part)))
    if not isinstance(description, Mapping):
        return []
    module = str(description.get("class_path", "vaeflow.")).rpartition(".")[0]
    below = foreign_packages(list(description.values()))
    return below if _inside(module, TRUSTED) else list(dict.fromkeys([module.split(".")[0], *below]))


def class_of(factory: Callable[..., Any]) -> Any:
    """The class that a factory makes: itself, or what a partial is of, jsonargparse's own wrapping included."""
    parts = (factory, getattr(factory, "func", None), *getattr(factory, "args", ()))
    return next(part for part in parts if inspect.isclass(part))


def resolve(class_path: str, kind: type, trust: Sequence[str] = (), source: str = "the checkpoint") -> type:
    """The class at a dotted path, if it may be used: defined in a trusted package, and a subclass of ``kind``.

    Args:
        source: what names it.

    Raises:
        VaeflowError: naming the path and the reason for any other.
    """
    if isinstance(trust, str):
        raise VaeflowError(f"trust is {trust!r}, expected a list of packages, such as [{trust!r}].")
    module_name, _, name = class_path.rpartition(".")
    allowed = (*TRUSTED, *trust)
    if not _inside(module_name, allowed):
        raise VaeflowError(
            f"{source} names {class_path}, which is not in {', '.join(allowed)}: "
            f"if you trust its author, add --trust {module_name.split('.')[0]} to a command, or "
            f"trust=[{module_name.split('.')[0]!r}] to a call."
        )
    try:
        found = vars(importlib.import_module(module_name))[name]
    except (ImportError, KeyError):
        raise VaeflowError(f"{source} names {class_path}, which does not exist in this installation.") from None
    if not (inspect.isclass(found) and issubclass(found, kind) and _inside(found.__module__, allowed)):
        raise VaeflowError(f"{source} names {class_path} where a {kind.__name__} is expected.")
    return found


def check_config(config: Any, source: str, trust: Sequence[str] = ()) -> None:
    """Refuse the config of a run's folder, which may be a stranger's, if it names anything but classes of vaeflow,
    torch and Lightning, or another file with more of it.

    Args:
        config: what the YAML holds.
        source: what it is called in errors.

    Raises:
        VaeflowError: naming what it names.
    """
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == "class_path" and isinstance(value, str) and "." in value:
                resolve(value, object, (*LIGHTNING_PACKAGES, *trust), source)
            elif key not in NO_CLASSES or isinstance(value, Mapping):
                check_config(value, source, trust)
    elif isinstance(config, (list, tuple)):
        for value in config:
            check_config(value, source, trust)
    elif isinstance(config, str):
        if any(Path(folder, config).is_file() for folder in (".", Path(source).parent)) or "class_path" in config:
            raise VaeflowError(
                f"{source} is continued in {config[:60]!r}: put it into one YAML yourself if you trust its author."
            )
        if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", config.strip()):
            resolve(config.strip(), object, (*LIGHTNING_PACKAGES, *trust), source)
        elif re.search(r"[\[{\t\n]", config):
            raise VaeflowError(f"{source} has {config[:60]!r}, which may be more of a config in a text: write it out.")


def _inside(module: str, packages: Sequence[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def factory(description: Mapping[str, Any], kind: type, trust: Sequence[str] = ()) -> Callable[..., Any]:
    """The class or partial that :func:`describe` described, each part checked against its parameter's annotation."""
    unknown = set(description) - {"class_path", "init_args"}
    if unknown or not isinstance(description.get("class_path"), str):
        raise VaeflowError(
            f"the checkpoint describes a {kind.__name__} as {dict(description)}, which is no description."
        )
    cls = resolve(description["class_path"], kind, trust)
    parts = _part_kinds(cls, trust)
    init_args = {}
    for name, value in dict(description.get("init_args") or {}).items():
        if name in parts and value is not None:
            several = isinstance(value, (list, tuple))
            for part in value if several else [value]:
                if not isinstance(part, Mapping):
                    raise VaeflowError(
                        f"the checkpoint has {part!r} for `{name}` of {cls.__name__}, expected a class path."
                    )
            made = [factory(part, parts[name], trust) for part in (value if several else [value])]
            value = made if several else made[0]
        init_args[name] = value
    return functools.partial(cls, **init_args)


def _part_kinds(cls: type, trust: Sequence[str]) -> dict[str, type]:
    """The constructor parameters that take a factory, or a list of them, with what each must make; those of base
    classes too, since a subclass may pass on what it does not name."""
    kinds = {}
    for ancestor in reversed(cls.__mro__):
        if "__init__" not in vars(ancestor) or not _inside(ancestor.__module__, (*TRUSTED, *trust)):
            continue
        for name, hint in typing.get_type_hints(ancestor.__init__).items():  # type: ignore[misc]
            for option in (hint, *typing.get_args(hint)):
                if typing.get_origin(option) is Callable:
                    kinds[name] = typing.get_args(option)[-1]
    return kinds


class Files(TorchCheckpointIO):
    """Lightning's checkpoints as files that are there whole or not at all; of ``last.ckpt`` the one before stays, as
    ``previous.ckpt``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if "://" in str(path):  # no file of this machine
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path, content = Path(path), io.BytesIO()
        torch.save(checkpoint, content)  # which would hide the reason why a file cannot be written
        with whole(path, path.with_name(PREVIOUS) if path.name == "last.ckpt" else None) as file:
            file.write(content.getbuffer())


def named(path: str | Path) -> Path:
    """The checkpoint of that path, or of that name without its ending, here or among those that come with the code:
    ``pretrained/vae_iaf``. The path itself where there is none."""
    path = expanded(path)
    candidates = (path, Path(f"{path}.ckpt"), PRETRAINED.parent / f"{path}.ckpt")
    return next((candidate for candidate in candidates if candidate.exists()), path)


def keep_weights(source: Path, target: Path) -> None:
    """Write the model of a checkpoint to another, with its data and how long it was trained, but without what only
    its training needs: a third of the size. Nothing can be resumed from it."""
    checkpoint = read(source)
    kept = {name: checkpoint[name] for name in ("state_dict", "epoch", "global_step", "pytorch-lightning_version", KEY)}
    if identity := Identity.from_description(kept[KEY].get("identity")):  # whose path is of this machine
        kept[KEY] = {**kept[KEY], "identity": replace(identity, source=None).describe()}
    kept["callbacks"] = {name: state for name, state in checkpoint["callbacks"].items() if name == "Timer"}
    with whole(target) as file:
        torch.save(kept, file)


def read(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint file, tensors and plain values only, on the CPU.

    Args:
        path: of the file, or a name: see :func:`named`.

    Raises:
        VaeflowError: if there is no such file, or if it is not a checkpoint, or damaged, which names those beside it
            that are whole.
    """
    path = named(path)
    if path.is_dir():
        raise VaeflowError(f"{path} is a folder, expected a checkpoint, such as version_0/checkpoints/best.ckpt in it.")
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PRETRAINED.glob("*.ckpt")))
        known = f"Pretrained are {known}." if known else "Pretrained weights come with a clone of the repository."
        within = f" {known}" if path.parent.name == PRETRAINED.name else ""
        raise VaeflowError(f"there is no checkpoint {path}.{within}")
    reason = damage(path)
    if not reason:
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            reason = str(error).splitlines()[0][:100]
    if reason:
        beside = [path.with_name(name) for name in ("last.ckpt", PREVIOUS, "best.ckpt")]
        others = [str(other) for other in beside if other != path and other.is_file() and not damage(other)]
        offer = f"; whole are {' and '.join(others)}" if others else ""
        raise VaeflowError(f"the checkpoint {path} is damaged, or no checkpoint ({reason}){offer}.") from None
    if not isinstance(checkpoint, dict) or KEY not in checkpoint:
        raise VaeflowError(f"{path} is not a checkpoint of vaeflow{_whose(checkpoint)}.")
    version = _version_of(checkpoint)
    if version is not None and re.match(r"0\.[01]\.", version):
        raise VaeflowError(
            f"{path} was written by vaeflow {version}, whose models {vaeflow.__version__} cannot load: train it again, "
            f"or load it with vaeflow {version}."
        )
    return checkpoint


def _version_of(checkpoint: Mapping[str, Any]) -> str | None:
    """The version of vaeflow that wrote a checkpoint, where it says so."""
    version = checkpoint[KEY].get("version") if isinstance(checkpoint[KEY], Mapping) else None
    return version if isinstance(version, str) else None


def weights_of(path: str | Path, checkpoint: Mapping[str, Any]) -> str:
    """Which weights a checkpoint holds, in words: its file, the epoch that they were trained in, what averaged them."""
    epoch = checkpoint["epoch"] + 1
    if "loops" in checkpoint:  # which tell the end of an epoch from its middle
        epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["ready"]
    averaged_by = checkpoint[KEY].get("averaged_by")
    return f"{Path(path).name}, epoch {epoch}" + (f", averaged by {averaged_by}" if averaged_by else "")


def damage(path: Path) -> str:
    """What is wrong with a file, by the checksums in it, which torch does not look at; nothing of a whole one."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                return "it is compressed, which torch's never are"
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError, ValueError, zlib.error) as error:
        return (str(error) or type(error).__name__).splitlines()[0][:100]
    return f"checksum of {damaged}" if damaged else ""


def _whose(checkpoint: Any) -> str:
    """What a file of torch that is none of ours seems to be."""
    if not isinstance(checkpoint, Mapping):
        return f", but holds a {type(checkpoint).__name__}"
    if "pytorch-lightning_version" in checkpoint:
        return f", but of another class, saved by Lightning {checkpoint['pytorch-lightning_version']}"
    return f", but holds {', '.join(map(str, list(checkpoint)[:3]))}{', …' if len(checkpoint) > 3 else ''}"


def load(path: str | Path, trust: Sequence[str] = ()) -> Any:
    """The model in a checkpoint, ready for evaluation: its class, parts and weights are all in the file.

    Loading runs no code but vaeflow's and torch's own classes, whoever wrote the file.

    Args:
        path: of a ``.ckpt`` file.
        trust: further packages whose classes the checkpoint may name, such as the one with your own bijection.

    Raises:
        VaeflowError: if the file is missing, damaged, or names what is not trusted.
    """
    checkpoint = read(path)
    version = _version_of(checkpoint)
    try:
        model = factory(checkpoint[KEY]["model"], LightningModule, trust)()
        load_weights(model, checkpoint, path)
        model.trained_on = Identity.from_description(checkpoint[KEY].get("identity"))
    except Exception as error:
        if isinstance(error, VaeflowError) and version == vaeflow.__version__:
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        if version != vaeflow.__version__:
            raise VaeflowError(
                f"{path} was written by vaeflow {version}, and this is {vaeflow.__version__}, where it cannot be "
                f"loaded: {reason}"
            ) from error
        raise VaeflowError(f"{path} holds no model that can be made ({type(error).__name__}: {reason}).") from error
    return model.eval()


def load_weights(model: LightningModule, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Put a checkpoint's weights into a model of the same architecture; anything else is refused in one sentence."""
    wanted = describe(type(model))["class_path"]
    found = checkpoint[KEY]["model"]["class_path"]
    if wanted != found:
        raise VaeflowError(f"{path} is a checkpoint of {found}, but the config asks for {wanted}.")
    state, own = checkpoint["state_dict"], model.state_dict()
    differing = sorted(k for k in {*state, *own} if k not in state or k not in own or state[k].shape != own[k].shape)
    if differing:
        raise VaeflowError(
            f"{path} is a checkpoint of a {wanted.rpartition('.')[2]} with other sizes or parts "
            f"({len(differing)} tensors differ, the first is {differing[0]})."
        )
    model.load_state_dict(state)


def load_data(path: str | Path, /, trust: Sequence[str] = (), **overrides: Any) -> Any:
    """The data module that a checkpoint's model was trained on, with some of its arguments replaced. When it is set up
    it warns if its examples differ from those that the model was trained on.

    A path that was relative to the folder of the training is looked for there, and then here."""
    contents = read(path)[KEY]
    description, identity = contents["data"], Identity.from_description(contents.get("identity"))
    if description is None:
        raise VaeflowError(f"{path} does not say what data it was trained on: give the data.")
    make = factory(description, LightningDataModule, trust)
    cls = description["class_path"].rpartition(".")[2]
    for name in overrides:
        if name not in inspect.signature(make).parameters:
            raise VaeflowError(f"{cls}, which the model was trained on, has no `{name}`.")
    data = make(**{**_original(description, identity, overrides), **overrides})
    data.trained_on, data.is_moved = identity, bool({"path", "root"} & overrides.keys())
    return data


def _original(
    description: Mapping[str, Any], identity: Identity | None, overrides: Mapping[str, Any]
) -> dict[str, str]:
    """The absolute path of the data that a checkpoint names by a relative one, if it is still there."""
    given = dict(description.get("init_args") or {})
    key = next((name for name in ("path", "root") if isinstance(given.get(name), str)), None)
    source = None if identity is None or identity.source is None else Path(identity.source)
    if key is None or key in overrides or source is None or not source.exists():
        return {}
    here = expanded(given[key])
    if not here.is_absolute() and here.exists() and not here.samefile(source):
        warnings.warn(
            f"the data are read from {source}, which the model was trained on, and not from {here.resolve()}: "
            f"to use other data, pass --{key}.",
            VaeflowWarning,
            stacklevel=3,
        )
    return {key: str(source)}


def differences(description: Any, other: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The keys in which two descriptions differ, with both values."""
    if isinstance(description, Mapping) and isinstance(other, Mapping):
        for name in sorted({*description, *other}):
            below = name if not key else key if name == "init_args" else f"{key}.{name}"
            yield from differences(description.get(name), other.get(name), below)
    elif description != other:
        yield key, description, other
