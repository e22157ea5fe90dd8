"""The Frey Faces: video frames of one face."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vaeflow.data.base import DataModule, Split, data_root, not_found
from vaeflow.errors import VaeflowError

URL = "https://cs.nyu.edu/~roweis/data/frey_rawface.mat"
MD5 = "4be395b3d4e559b3218d9834ee8d3370"
SMILING = ((724, 768), (803, 858), (1125, 1187), (1226, 1256))
SERIOUS = ((30, 84), (88, 112), (140, 167), (173, 221), (270, 321), (330, 354), (364, 400))
"""Runs of frames, first and last, chosen by eye: an open smile, and a face at rest, without blinking."""


class FreyFaces(DataModule):
    """1,965 video frames of Brendan Frey's face, 28 × 20 pixels, 256 grey levels; split 1,565 / 200 / 200.

    The frames are shuffled with ``split_seed``; the published figures (van den Berg et al. 2018, arXiv 1803.05649)
    are means over the seeds 123, 321 and 231, each of which has another test set.

    Args:
        root: folder that holds ``frey_rawface.mat`` or ``freyfaces/frey_rawface.mat``; default the environment variable
            VAEFLOW_DATA, else ``data``.
        batch_size: of all processes together.
        split_seed: of the split.
        seed: of the order of training examples; comes from seed_everything.
    """

    def __init__(self, root: str | None = None, batch_size: int = 100, split_seed: int = 123, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        self.source = self.root = data_root(root)
        self.split_seed = split_seed
        self.shape, self.levels = (1, 28, 20), 256

    def read(self) -> dict[str, Split]:
        from scipy.io import loadmat, whosmat

        name = "frey_rawface.mat"
        path = next((p for p in (self.root / name, self.root / "freyfaces" / name) if p.is_file()), None)
        if path is None:
            from torchvision.datasets.utils import download_url

            try:
                download_url(URL, str(self.root / "freyfaces"), name, MD5)
            except (RuntimeError, OSError) as error:
                raise not_found(name, self.root, error) from None
            path = self.root / "freyfaces" / name
        try:
            found = {name: (shape, kind) for name, shape, kind in whosmat(path)}  # which unpacks nothing
            shape, kind = found["ff"]
            if len(shape) != 2 or shape[0] != 560 or not 400 < shape[1] < 10_000 or kind not in ("uint8", "double"):
                raise VaeflowError(f"{path} holds {kind} of shape {shape}, expected uint8 of (560, 1965).")
            frames = loadmat(path, variable_names=["ff"])["ff"]
        except VaeflowError:
            raise
        except Exception as error:  # whatever scipy raises for what a stranger has written
            raise VaeflowError(f"{path} is damaged, or not the Frey Faces ({error}).") from None
        images = torch.from_numpy(np.ascontiguousarray(frames.T)).to(torch.uint8).reshape(-1, 1, 28, 20)
        images = images[self._order(len(images))]
        labels = torch.zeros(len(images), dtype=torch.int64)
        cuts = {"train": slice(0, -400), "val": slice(-400, -200), "test": slice(-200, None)}
        return {split: (images[cut], labels[cut]) for split, cut in cuts.items()}

    def _order(self, frames: int) -> Tensor:
        """Numbers of the frames in the film, in the order of the splits."""
        return torch.from_numpy(np.random.RandomState(self.split_seed).permutation(frames))

    def attribute(self, name: str) -> tuple[Tensor, Tensor]:
        """Of ``smile``; see the lists of frames above."""
        if name != "smile":
            raise VaeflowError(
                f"the Frey Faces have one attribute, smile, and not {name}: give two lists of frames, --positive and "
                "--negative, for one of your own."
            )
        smiling, serious = (
            torch.cat([torch.arange(first, last + 1) for first, last in runs]) for runs in (SMILING, SERIOUS)
        )
        return self.in_training(smiling), self.in_training(serious)

    def in_training(self, numbers: Tensor) -> Tensor:
        """Examples are numbered by their frame in the film, from 0 on; those of the other splits are left out."""
        self.setup("")
        frames = sum(len(x) for x, _ in self.splits.values())
        outside = numbers[(numbers < 0) | (numbers >= frames)].tolist()
        if outside:
            raise VaeflowError(f"frame {outside[0]} is outside the film, which has frames 0 to {frames - 1}.")
        places = torch.argsort(self._order(frames))[numbers]
        return places[places < len(self.splits["train"][0])]
