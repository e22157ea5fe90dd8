"""Data sets that torchvision reads, and downloads where they are missing."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from vaeflow.data.base import DataModule, Split, data_root, not_found
from vaeflow.errors import VaeflowError
from vaeflow.noise import Noise


class MNIST(DataModule):
    """70,000 handwritten digits of 28 × 28 pixels (LeCun et al. 1998), split 50,000 / 10,000 / 10,000 in file order.

    Args:
        root: folder that holds ``MNIST/raw``; default the environment variable VAEFLOW_DATA, else ``data``.
        batch_size: of all processes together.
        binarise: dynamic draws every pixel from Bernoulli(grey/255), training images anew in each epoch, validation
            and test images once; threshold takes grey ≥ 128; none leaves 256 levels.
        binarise_seed: of the one draw for validation and test images.
        num_val: how many of the 60,000 that are no test images, the last ones, are for validation.
        seed: of order and binarisation of training examples; comes from seed_everything.
    """

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 128,
        binarise: Literal["dynamic", "threshold", "none"] = "dynamic",
        binarise_seed: int = 0,
        num_val: int = 10_000,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        if not 1 <= num_val < 60_000:
            raise VaeflowError(f"num_val is {num_val}, of 60,000 images: expected at least 1, and some to train on.")
        self.num_val = num_val
        self.source = self.root = data_root(root)
        self.binarise, self.protocol_seed = binarise, binarise_seed
        self.shape, self.num_classes = (1, 28, 28), 10
        self.levels = 256 if binarise == "none" else 2

    @property
    def protocol(self) -> str:
        how = {
            "dynamic": f"dynamic binarisation, validation and test drawn once with seed {self.protocol_seed}",
            "threshold": "binarised at 128",
            "none": "not binarised",
        }[self.binarise]
        return f"{super().protocol}, {how}"

    def read(self) -> dict[str, Split]:
        (x, y), test = (_read(self, "MNIST", train) for train in (True, False))
        n = len(x) - self.num_val
        return {"train": (x[:n], y[:n]), "val": (x[n:], y[n:]), "test": test}

    def finish(self, x: Tensor, noise: Noise) -> Tensor:
        if self.binarise == "none":
            return super().finish(x, noise)
        if self.binarise == "threshold":
            return (x >= 128).float()
        draw = noise.uniform("binarisation", 1, self.shape)[0]
        return draw.lt_(x / 255)  # 1 where it is less, else 0

    @property
    def raw_levels(self) -> int:
        return 256


class CIFAR10(DataModule):
    """60,000 colour photographs of 32 × 32 pixels in ten classes, split 45,000 / 5,000 / 10,000 in file order.

    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".

    Args:
        root: folder that holds ``cifar-10-batches-py``; default the environment variable VAEFLOW_DATA, else ``data``.
        batch_size: of all processes together.
        flip: mirror training images at random, anew in each epoch.
        seed: of order and mirroring of training examples; comes from seed_everything.
    """

    def __init__(self, root: str | None = None, batch_size: int = 128, flip: bool = False, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        self.source = self.root = data_root(root)
        self.flip = flip
        self.shape, self.levels, self.num_classes = (3, 32, 32), 256, 10

    @property
    def class_names(self) -> list[str]:
        return ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

    def read(self) -> dict[str, Split]:
        (x, y), test = (_read(self, "CIFAR10", train) for train in (True, False))
        return {"train": (x[:45_000], y[:45_000]), "val": (x[45_000:], y[45_000:]), "test": test}

    def finish(self, x: Tensor, noise: Noise) -> Tensor:
        x = super().finish(x, noise)
        if not self.flip or noise.stage != "train":
            return x
        mirrored = noise.uniform("flip", 1, (1,))[0] < 0.5
        return torch.where(mirrored[..., None, None], x.flip(-1), x)


def _read(data: Any, name: str, train: bool) -> Split:
    """Images ``(N, channels, height, width)`` uint8 and labels; downloaded if they are not under the root."""
    import torchvision.datasets

    dataset_class = getattr(torchvision.datasets, name)
    try:
        try:
            dataset = dataset_class(data.root, train=train)
        except RuntimeError:  # torchvision's word for: not found
            dataset = dataset_class(data.root, train=train, download=True)
    except (RuntimeError, OSError) as error:
        raise not_found(name, data.root, error) from None
    images = torch.as_tensor(dataset.data)  # a tensor of MNIST, an array of CIFAR-10
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
    return images, torch.as_tensor(dataset.targets)
