"""scikit-learn's digits: real images that come with an installed package."""

from __future__ import annotations

import torch

from vaeflow.data.base import DataModule, Split, shuffled_split


class Digits(DataModule):
    """1,797 handwritten digits of 8 × 8 pixels with 17 grey levels, in scikit-learn; no download.

    They are the test set of the UCI "Optical Recognition of Handwritten Digits" data (Alpaydin & Kaynak 1998).
    Split 1,297 / 200 / 300, shuffled with ``split_seed``.

    Args:
        batch_size: of all processes together.
        split_seed: of the split; a number is comparable only under the same one.
        seed: of the order of training examples; comes from seed_everything.
    """

    def __init__(self, batch_size: int = 128, split_seed: int = 0, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        self.shape, self.levels, self.num_classes = (1, 8, 8), 17, 10
        self.split_seed = split_seed

    def read(self) -> dict[str, Split]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        x = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)
        return shuffled_split(x, torch.from_numpy(digits.target), (200, 300), self.split_seed)
