"""Single examples of the user's own, as a model of other data sees them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaeflow.data.array_files import load_arrays
from vaeflow.data.pictures import Background, read_picture, scale_picture
from vaeflow.errors import VaeflowError, check_values


def own_examples(
    paths: Sequence[Path],
    shape: tuple[int, ...],
    levels: int | None,
    background: Background = "white",
    as_they_are: bool = False,
) -> Tensor:
    """Examples ``(N, *shape)`` from files: pictures, scaled to the size and the levels of the data; or arrays ``.npy``
    and ``.npz`` (``x``, or the only one), of one example or many, whose values stay as they are, as do 16-bit greys
    where the data have more than 256 levels.

    Args:
        shape, levels: of the data, which the model knows.
        background: what lies below transparent pixels.
        as_they_are: whether the values of pictures are those of the data, as in a folder of pictures.
    """
    is_array = [path.suffix.lower() in (".npy", ".npz") for path in paths]
    x = torch.cat(
        [
            _array(path, shape) if array else _picture(path, shape, levels, background, as_they_are)
            for path, array in zip(paths, is_array, strict=True)
        ]
    )
    where = " and ".join(map(str, paths))
    check_values(where, x, levels)
    return x if levels is None else x.float()


def _picture(
    path: Path, shape: tuple[int, ...], levels: int | None, background: Background, as_they_are: bool
) -> Tensor:
    if len(shape) != 3 or shape[0] not in (1, 3) or levels is None:
        raise VaeflowError(f"{path} is a picture, but the data are no grey or coloured ones: give a .npy of them.")
    values, white, is_transparent = read_picture(path, shape[0] == 1, background)
    if is_transparent:
        print(f"{path} is laid on {background}", file=sys.stderr)
    if (as_they_are and levels > 2) or (white > 255 and levels > 256):
        white = levels - 1  # values as they are
    elif white > 255:
        if values.max() <= white / 2:
            raise VaeflowError(
                f"{path} holds greys up to {values.max()} of {white}, which would be dark among the {levels} levels of "
                "the data: save it with 8 bits."
            )
        print(f"{path} is rounded from {white + 1} levels to {levels}", file=sys.stderr)
    elif levels > 256:
        print(f"{path} has {white + 1} levels, which are spread over {levels}", file=sys.stderr)
    _, height, width = values.shape
    if (height, width) != shape[1:]:
        change = f"from {width} × {height} to {shape[2]} × {shape[1]} pixels"
        print(f"{path} is scaled and cut {change}", file=sys.stderr)
        values = scale_picture(values, (shape[2], shape[1]), max(white, int(values.max())))
    return torch.from_numpy(values.astype(np.float32)).mul((levels - 1) / white).round().unsqueeze(0)


def _array(path: Path, shape: tuple[int, ...]) -> Tensor:
    arrays = load_arrays(path)
    name = "x" if "x" in arrays else next(iter(arrays)) if len(arrays) == 1 else None
    if name is None:
        raise VaeflowError(f"{path} holds arrays {', '.join(arrays)}: expected one of them called x.")
    found = arrays[name]
    if found.dtype.kind not in "fiub":
        raise VaeflowError(f"{path} holds an array of type {found.dtype}, expected numbers.")
    if not found.size:
        raise VaeflowError(f"{path} holds an array of shape {found.shape}, expected at least one example.")
    x = torch.from_numpy(np.ascontiguousarray(found).astype(np.float64))
    events = [shape]  # as they are kept here, or with the channels last, or left out
    if len(shape) == 3:
        events += [(*shape[1:], shape[0])] + ([shape[1:]] if shape[0] == 1 else [])
    for event in events:
        if tuple(x.shape[x.dim() - len(event) :]) == event and x.dim() - len(event) in (0, 1):
            x = x.reshape(-1, *event)
            return x if event == shape else x.reshape(-1, *shape[1:], shape[0]).permute(0, 3, 1, 2)
    raise VaeflowError(f"{path} holds an array of shape {tuple(x.shape)}, expected {shape} or (N, {str(shape)[1:]}.")
