"""The user's own pictures, in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vaeflow.data.base import DataModule, Split, shuffled_split
from vaeflow.data.pictures import PICTURE_ENDINGS, Background, DecodedPicture, read_picture, scale_picture
from vaeflow.data.splits import check_classes, complete_splits, describe_cut, missing_splits, split_called
from vaeflow.errors import VaeflowError, check_positive
from vaeflow.files import expanded


class ImageFolder(DataModule):
    """A folder of pictures, all of them in subfolders, whose names are the labels, or none of them.

    Hidden files and folders, and what archives of macOS hold beside the pictures (``__MACOSX``), are left out.

    If it holds nothing but folders ``train``, ``val`` and ``test`` (or ``valid``, ``validation``, ``dev``,
    ``training``, ``testing``), these are the splits, and the labels are the folders in them; where val or test is
    missing, a tenth of train, drawn with ``split_seed``, takes its place. Other pictures are shuffled with
    ``split_seed`` and split 80 / 10 / 10 %.

    Args:
        root: the folder.
        size: edge in pixels that pictures are scaled to (the shorter edge, then the middle is cut out); None leaves
            them as they are, and then they must have one size.
        grey: one grey channel instead of red, green and blue.
        levels: L, for values 0 … L − 1, such as 4096 for greys of 12 bits; 2 for pictures in black and white, which
            become 0 and 1. Default 256, or 65,536 for greys of 16 bits.
        background: white or black, which lies below transparent pixels.
        batch_size: of all processes together.
        split_seed: of the split.
        seed: of the order of training examples; comes from seed_everything.
    """

    def __init__(
        self,
        root: str,
        size: int | None = None,
        grey: bool = False,
        levels: int | None = None,
        background: Background = "white",
        batch_size: int = 128,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        if size is not None:
            check_positive(size=size)
        if levels is not None and not 2 <= levels <= 65_536:
            raise VaeflowError(f"levels is {levels}, expected at least 2 and at most 65,536.")
        self.source = self.root = expanded(root)
        self.size, self.grey, self.background = size, grey, background
        self.paths = self._find_pictures()
        self.given = self._find_splits()
        self.split_seed = None if self.given and not missing_splits(self.given) else split_seed
        self.classes = self._find_classes()
        self.num_classes = len(self.classes)
        first = self._picture(self.paths[0])
        self.is_deep = first.values.dtype == np.uint16
        self.levels = levels or (65_536 if self.is_deep else 256)
        self.shape = (len(first.values), *(first.values.shape[1:] if size is None else (size, size)))
        self.is_transparent: bool | None = None

    @property
    def label(self) -> str:
        return self.root.resolve().name

    @property
    def class_names(self) -> list[str]:
        return self.classes

    @property
    def protocol(self) -> str:
        splits = f", splits of the folders{describe_cut(self.given)}" if self.given else ""
        pictures = f", size {self.size}, {'grey' if self.grey else 'RGB'}"
        return super().protocol + splits + pictures + (f", on {self.background}" if self.is_transparent else "")

    def read(self) -> dict[str, Split]:
        from tqdm import tqdm

        pictures, self.is_transparent = [], False
        for path in tqdm(self.paths, desc="Reading pictures", disable=len(self.paths) < 2000):
            picture = self._picture(path)
            self.is_transparent |= picture.is_transparent
            values = self._values(path, picture)
            pictures.append(torch.from_numpy(values.astype(np.int32) if self.is_deep else np.ascontiguousarray(values)))
        x, labels = torch.stack(pictures), torch.tensor([self._class_of(path) for path in self.paths])
        if not self.given:
            return shuffled_split(x, labels, (len(x) // 10, len(x) // 10), self.split_seed)
        of_picture = [split_called(self._parts(path)[0]) for path in self.paths]
        splits = {}
        for split in self.given:
            index = torch.tensor([i for i, name in enumerate(of_picture) if name == split])
            splits[split] = (x[index], labels[index])
        check_classes({name: y for name, (_, y) in splits.items()}, self.classes, self.root)
        return complete_splits(splits, self.root, self.split_seed)

    # ---------------------------------------------------------------------------------------------------- folders

    def _find_pictures(self) -> list[Path]:
        paths = sorted(
            p for p in self.root.rglob("*") if p.suffix.lower() in PICTURE_ENDINGS and not self._is_hidden(p)
        )
        if not paths:
            raise VaeflowError(f"there are no pictures in {self.root.resolve()} ({', '.join(PICTURE_ENDINGS)}).")
        if len(paths) < 10:
            raise VaeflowError(f"{self.root.resolve()} holds {len(paths)} pictures, expected at least 10.")
        return paths

    def _find_splits(self) -> dict[str, str]:
        """The folders that are splits, by the name of the split; none if the folders are classes."""
        folders = sorted({parts[0] for parts in map(self._parts, self.paths) if len(parts) > 1})
        loose = [path.name for path in self.paths if path.parent == self.root]
        splits = {split: folder for folder in folders if (split := split_called(folder)) is not None}
        found = [folder for folder in folders if split_called(folder) is not None]
        if "train" in splits and (len(splits) > 1 or folders == found):
            others = [f for f in folders if f not in splits.values()] + loose
            if others:
                raise VaeflowError(
                    f"{self.root.resolve()} holds the splits {', '.join(splits.values())}, and beside them {others[0]} "
                    f"({len(others)} such in all), expected nothing else: move the splits into a folder of their own."
                )
            if len(splits) == 1:
                raise VaeflowError(
                    f"{self.root.resolve()} holds no folder but {folders[0]}, expected val or test beside it: set "
                    f"--data.root to {self.root / folders[0]}."
                )
            return splits
        if folders and not loose and folders == found:
            raise VaeflowError(
                f"{self.root.resolve()} holds {', '.join(folders)}, expected a folder train beside them."
            )
        self._check_no_splits_below(folders)
        return {}

    def _check_no_splits_below(self, folders: list[str]) -> None:
        inside: dict[str, set[str]] = {folder: set() for folder in folders}
        for parts in map(self._parts, self.paths):
            if len(parts) > 2 and parts[0] in inside:
                inside[parts[0]].add(parts[1])
        for folder, below in inside.items():
            if {"train", "test"} <= (splits := {split_called(name) for name in below}) or {"train", "val"} <= splits:
                raise VaeflowError(
                    f"{self.root / folder} holds {', '.join(sorted(below))}: expected splits above the classes, as in "
                    f"train/{folder}, or --data.root {self.root / folder}."
                )

    def _find_classes(self) -> list[str]:
        """The names of the folders right below the root, or below those of the splits."""
        place = bool(self.given)
        inner = [self._parts(path)[place:] for path in self.paths]
        classes = sorted({parts[0] for parts in inner if len(parts) > 1})
        loose = [path for path, parts in zip(self.paths, inner, strict=True) if len(parts) == 1]
        if classes and loose:
            raise VaeflowError(
                f"{self.root.resolve()} holds folders of classes, {', '.join(classes)}, and beside them "
                f"{loose[0].relative_to(self.root)} ({len(loose)} such in all), which has no class: move them into "
                "folders."
            )
        return classes

    def _is_hidden(self, path: Path) -> bool:
        return any(part.startswith(".") or part == "__MACOSX" for part in self._parts(path))

    def _parts(self, path: Path) -> tuple[str, ...]:
        return path.relative_to(self.root).parts

    def _class_of(self, path: Path) -> int:
        return self.classes.index(self._parts(path)[bool(self.given)]) if self.classes else 0

    # --------------------------------------------------------------------------------------------------- pictures

    def _picture(self, path: Path) -> DecodedPicture:
        return read_picture(path, self.grey, self.background)

    def _values(self, path: Path, picture: DecodedPicture) -> np.ndarray:
        """The values of a picture ``shape``, if it is like the first."""
        values, first = picture.values, self.paths[0].name
        assert self.levels is not None
        if (values.dtype == np.uint16) != self.is_deep:
            bits = (8, 16) if self.is_deep else (16, 8)
            raise VaeflowError(f"{path.name} has {bits[0]} bits but {first} has {bits[1]}: convert all to the same.")
        if self.levels == 2 and np.isin(values, (0, picture.white)).all():
            values = (values > 0).astype(values.dtype)
        if values.max() >= self.levels:
            raise VaeflowError(
                f"{path.name} has values up to {values.max()}, expected integers 0 to {self.levels - 1}: set "
                "--data.levels to their number, or leave it out."
            )
        if self.size is not None:
            return scale_picture(values, (self.size, self.size), self.levels - 1)
        if values.shape != self.shape:
            raise VaeflowError(
                f"{path.name} is {values.shape[2]} × {values.shape[1]} pixels but {first} is "
                f"{self.shape[2]} × {self.shape[1]}: set --data.size to scale all to one size."
            )
        return values
