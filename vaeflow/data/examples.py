"""Single examples of the user's own, as a model of other data sees them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaeflow.data.files import load_arrays
from vaeflow.data.own import read_picture
from vaeflow.errors import VaeflowError, check_values


def own_examples(paths: Sequence[Path], shape: tuple[int, ...], levels: int | None) -> Tensor:
    """Examples ``(N, *shape)`` from files: pictures, scaled to the size and the levels of the data; or arrays ``.npy``
    and ``.npz`` (``x``, or the only one), of one example or many, whose values stay as they are.

    Args:
        shape, levels: of the data, which the model knows.
    """
    x = torch.cat([_array(p, shape) if p.suffix in (".npy", ".npz") else _picture(p, shape, levels) for p in paths])
    where = " and ".join(map(str, paths))
    check_values(where, x, levels)
    return x if levels is None else x.float()


def _picture(path: Path, shape: tuple[int, ...], levels: int | None) -> Tensor:
    modes = {1: "L", 3: "RGB"}
    if len(shape) != 3 or shape[0] not in modes or levels is None:
        raise VaeflowError(f"{path} is a picture, but the data are no grey or coloured ones: give a .npy of them.")
    picture = read_picture(path, modes[shape[0]])
    _, height, width = picture.shape
    if (height, width) != shape[1:]:
        change = f"from {width} × {height} to {shape[2]} × {shape[1]} pixels"
        print(f"{path} is scaled and cut {change}", file=sys.stderr)
        picture = read_picture(path, modes[shape[0]], (shape[2], shape[1]))
    return picture.float().mul((levels - 1) / 255).round().unsqueeze(0)


def _array(path: Path, shape: tuple[int, ...]) -> Tensor:
    arrays = load_arrays(path)
    name = "x" if "x" in arrays else next(iter(arrays)) if len(arrays) == 1 else None
    if name is None:
        raise VaeflowError(f"{path} holds arrays {', '.join(arrays)}: expected one of them called x.")
    found = arrays[name]
    if found.dtype.kind not in "fiub":
        raise VaeflowError(f"{path} holds an array of type {found.dtype}, expected numbers.")
    x = torch.from_numpy(np.ascontiguousarray(found).astype(np.float64 if found.dtype.kind == "f" else np.float32))
    events = [shape]  # as they are kept here, or with the channels last, or left out
    if len(shape) == 3:
        events += [(*shape[1:], shape[0])] + ([shape[1:]] if shape[0] == 1 else [])
    for event in events:
        if tuple(x.shape[x.dim() - len(event) :]) == event and x.dim() - len(event) in (0, 1):
            x = x.reshape(-1, *event)
            return x if event == shape else x.reshape(-1, *shape[1:], shape[0]).permute(0, 3, 1, 2)
    raise VaeflowError(f"{path} holds an array of shape {tuple(x.shape)}, expected {shape} or (N, {str(shape)[1:]}.")
