"""The user's own data: a folder of pictures, or a file of arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaeflow.data.base import DataModule, Split, check_finite, shuffled_split
from vaeflow.data.files import load_arrays
from vaeflow.errors import VaeflowError
from vaeflow.files import expanded

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


class ImageFolder(DataModule):
    """A folder of pictures, all in subfolders, whose names are the labels, or none. Hidden files and folders, and what
    archives of macOS hold beside the pictures (``__MACOSX``), are none of them.

    Shuffled with ``split_seed`` and split 80 / 10 / 10 %.

    Args:
        root: the folder.
        size: edge in pixels that pictures are scaled to (the shorter edge, then the middle is cut out); None leaves
            them as they are, and then they must have one size.
        grey: one grey channel instead of red, green and blue.
        batch_size: of all processes together.
        split_seed: of the split.
        seed: of the order of training examples; comes from seed_everything.
    """

    def __init__(
        self,
        root: str,
        size: int | None = None,
        grey: bool = False,
        batch_size: int = 128,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        self.root, self.size, self.grey, self.split_seed = expanded(root), size, grey, split_seed
        self.paths = sorted(p for p in self.root.rglob("*") if p.suffix.lower() in PICTURES and not self._hidden(p))
        if not self.paths:
            raise VaeflowError(f"there are no pictures in {self.root.resolve()} ({', '.join(PICTURES)}).")
        if len(self.paths) < 10:
            raise VaeflowError(f"{self.root.resolve()} holds {len(self.paths)} pictures, expected at least 10.")
        classes = sorted({p.relative_to(self.root).parts[0] for p in self.paths if p.parent != self.root})
        loose = [p.name for p in self.paths if p.parent == self.root]
        if classes and loose:
            raise VaeflowError(
                f"{self.root.resolve()} holds folders of classes, {', '.join(classes)}, and beside them {loose[0]} "
                f"({len(loose)} such in all), which has no class: move them into folders."
            )
        self.classes, self.num_classes = classes, len(classes)
        self.levels = 256
        self.shape = tuple(self._picture(self.paths[0]).shape)

    @property
    def label(self) -> str:
        return self.root.resolve().name

    @property
    def class_names(self) -> list[str]:
        return self.classes

    @property
    def protocol(self) -> str:
        return f"{super().protocol}, size {self.size}, {'grey' if self.grey else 'RGB'}"

    def read(self) -> dict[str, Split]:
        from tqdm import tqdm

        pictures = []
        for path in tqdm(self.paths, desc="Reading pictures", disable=len(self.paths) < 2000):
            picture = self._picture(path)
            if tuple(picture.shape) != self.shape:
                raise VaeflowError(
                    f"{path.name} is {picture.shape[2]} × {picture.shape[1]} pixels but {self.paths[0].name} is "
                    f"{self.shape[2]} × {self.shape[1]}: set --data.size to scale all to one size."
                )
            pictures.append(picture)
        parts = [p.relative_to(self.root).parts for p in self.paths]
        labels = [self.classes.index(p[0]) if len(p) > 1 else 0 for p in parts]
        tenth = len(pictures) // 10
        return shuffled_split(torch.stack(pictures), torch.tensor(labels), (tenth, tenth), self.split_seed)

    def _hidden(self, path: Path) -> bool:
        return any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(self.root).parts)

    def _picture(self, path: Path) -> Tensor:
        return read_picture(path, "L" if self.grey else "RGB", None if self.size is None else (self.size, self.size))


def read_picture(path: Path, mode: str, size: tuple[int, int] | None = None) -> Tensor:
    """A picture as ``(channels, height, width)`` of uint8, the right way up.

    Args:
        mode: L for grey, RGB for colours.
        size: width and height that it is scaled to, what is over at two sides cut off; None leaves it as it is.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I;16"):  # Pillow would make all above 255 white
                image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
            image = image.convert(mode)
    except FileNotFoundError:
        raise VaeflowError(f"there is no file {path.resolve()}.") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise VaeflowError(f"{path} cannot be read as a picture ({error}).") from None
    array = torch.from_numpy(np.array(image if size is None else ImageOps.fit(image, size)))
    return array.unsqueeze(0) if array.dim() == 2 else array.permute(2, 0, 1)


class Arrays(DataModule):
    """Vectors ``(N, D)`` or images ``(N, height, width[, channels])`` from a ``.npy``, ``.npz`` or ``.csv`` file.

    A ``.npz`` holds either ``train``, ``val`` and ``test``, perhaps with labels ``y_train``, ``y_val`` and ``y_test``,
    or one array (``x``, or the only one), perhaps with labels ``y``. Other data are shuffled with ``split_seed`` and
    split 80 / 10 / 10 %. Values stay as they are: real numbers are standardised by the model, inside the likelihood;
    images of uint8 have 256 levels.

    Args:
        path: the file.
        levels: L, for integer data 0 … L − 1, at least 2; default 256 for uint8, else none: a continuous density.
        batch_size: of all processes together.
        split_seed: of the split.
        seed: of the order of training examples; comes from seed_everything.
    """

    def __init__(
        self, path: str, levels: int | None = None, batch_size: int = 128, split_seed: int = 0, seed: int = 0
    ) -> None:
        super().__init__(batch_size, seed)
        self.path = expanded(path)
        if levels is not None and levels < 2:
            raise VaeflowError(f"levels is {levels}, expected at least 2.")
        arrays = dict(self._arrays())
        names = ("train", "val", "test")
        self.fixed = all(name in arrays for name in names)
        labels = {name: arrays.pop(f"y_{name}") for name in names if f"y_{name}" in arrays and self.fixed}
        if "y" in arrays:
            labels["x"] = arrays.pop("y")
        self.split_seed = None if self.fixed else split_seed
        if not self.fixed and len(arrays) != 1 and "x" not in arrays:
            raise VaeflowError(
                f"{self.path} holds arrays {', '.join(arrays)}: expected train, val and test, or x (and labels y)."
            )
        chosen = {n: arrays[n] for n in names} if self.fixed else {"x": arrays.get("x", next(iter(arrays.values())))}
        first = next(iter(chosen.values()))
        if labels and labels.keys() != chosen.keys():
            raise VaeflowError(
                f"{self.path} has labels of {', '.join(labels)}, expected labels of {', '.join(chosen)} "
                f"({', '.join(f'y_{name}' for name in names) if self.fixed else 'y'})."
            )
        self._labels = {name: self._checked_labels(y, len(chosen[name])) for name, y in labels.items()}
        self._tensors = {name: self._tensor(array) for name, array in chosen.items()}
        for name, tensor in self._tensors.items():  # by their place in the file: later they are shuffled
            check_finite(f"{name} in {self.path}" if self.path.suffix == ".npz" else str(self.path), tensor)
        shapes = {tuple(tensor.shape[1:]) for tensor in self._tensors.values()}
        if len(shapes) > 1:
            raise VaeflowError(f"{self.path} holds splits of different shapes: {', '.join(map(str, sorted(shapes)))}.")
        self.levels = levels if levels is not None or first.dtype != np.uint8 else 256
        if levels is None and (first.dtype.kind == "b" or (first.dtype == np.uint8 and first.max(initial=0) <= 1)):
            raise VaeflowError(
                f"{self.path} holds 0 and 1 alone: set --data.levels 2 (or 256, if they are grey levels)."
            )
        if self.levels is None and all(np.array_equal(array, np.round(array)) for array in chosen.values()):
            raise VaeflowError(
                f"{self.path} holds integers alone: set --data.levels to their number L (they go from 0 to L − 1), or "
                "add noise between 0 and 1 to make them continuous."
            )
        self.shape = tuple(next(iter(self._tensors.values())).shape[1:])
        self.num_classes = 1 + max((int(y.max()) for y in self._labels.values() if len(y)), default=-1)

    @property
    def label(self) -> str:
        return self.path.name

    def read(self) -> dict[str, Split]:
        splits = {
            name: (x, self._labels.get(name, torch.zeros(len(x), dtype=torch.int64)))
            for name, x in self._tensors.items()
        }
        if self.fixed:
            return splits
        x, y = splits["x"]
        if len(x) < 10:
            raise VaeflowError(f"{self.path} holds {len(x)} examples, expected at least 10.")
        return shuffled_split(x, y, (len(x) // 10, len(x) // 10), self.split_seed)

    def _arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        if not self.path.is_file():
            raise VaeflowError(f"there is no file {self.path.resolve()}.")
        try:
            if self.path.suffix == ".csv":
                with self.path.open() as file:
                    header = any(c.isalpha() and c not in "eEnaifNAIF" for c in file.readline())
                yield "x", np.loadtxt(self.path, delimiter=",", skiprows=int(header), ndmin=2)
            elif self.path.suffix in (".npz", ".npy"):
                yield from load_arrays(self.path).items()
            else:
                raise VaeflowError(f"{self.path} is no .npy, .npz or .csv file.")
        except (ValueError, OSError) as error:
            raise VaeflowError(f"{self.path} cannot be read as arrays ({str(error).splitlines()[0][:120]}).") from None

    def _tensor(self, array: np.ndarray) -> Tensor:
        if array.dtype.kind not in "fiub" or array.ndim < 2 or array.ndim > 4 or 0 in array.shape[1:]:
            raise VaeflowError(
                f"{self.path} holds an array of shape {array.shape} and type {array.dtype}, "
                "expected numbers (N, D) or (N, height, width[, channels])."
            )
        if array.dtype != np.uint8:  # torch knows neither all integers nor the other byte order
            array = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
        if array.ndim == 4 and array.shape[-1] > 4:
            raise VaeflowError(
                f"{self.path} holds images of shape {array.shape[1:]}, expected (height, width, channels) with at most "
                "4 channels: move the axis of the channels to the end."
            )
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if tensor.dim() == 3:
            return tensor.unsqueeze(1)
        return tensor.permute(0, 3, 1, 2).contiguous() if tensor.dim() == 4 else tensor

    def _checked_labels(self, labels: np.ndarray, size: int) -> Tensor:
        if labels.shape != (size,) or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
            raise VaeflowError(
                f"{self.path} holds labels y of shape {labels.shape} and type {labels.dtype}, "
                f"expected ({size},) integers from 0 on."
            )
        return torch.from_numpy(labels.astype(np.int64))
