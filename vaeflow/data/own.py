"""The user's own pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaeflow.data.arrays import Arrays
from vaeflow.data.base import DataModule, Split, shuffled_split
from vaeflow.errors import VaeflowError

__all__ = ["Arrays", "ImageFolder"]  # checkpoints of earlier versions look for both here
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
        self.root, self.size, self.grey, self.split_seed = Path(root).expanduser(), size, grey, split_seed
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
