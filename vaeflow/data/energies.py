"""No data but a density to fit: an energy, and how many draws an epoch has."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from vaeflow.data.base import DataModule, Split
from vaeflow.distributions.energies import U1, Energy
from vaeflow.errors import VaeflowError, check_positive
from vaeflow.records.checkpoint import class_of


class EnergyData(DataModule):
    """An unnormalised density exp(−U(z)) instead of examples: batches hold nothing but the indices of draws.

    Args:
        energy: makes U: U1, U2, U3, U4 or a subclass of Energy of your own.
        batch_size: draws in each step, of all processes together.
        num_train: draws in an epoch of training.
        num_val, num_test: draws that the KL is estimated with.
        seed: comes from seed_everything.
    """

    has_examples = False

    def __init__(
        self,
        energy: Callable[[], Energy] = U1,
        batch_size: int = 512,
        num_train: int = 512 * 500,
        num_val: int = 20_000,
        num_test: int = 100_000,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        check_positive(num_train=num_train, num_val=num_val, num_test=num_test)
        self.sizes = {"train": num_train, "val": num_val, "test": num_test}
        self.shape, self.levels = (2,), None
        self.energy = functools.partial(class_of(energy), **getattr(energy, "keywords", {}))
        """Goes to the model, too."""

    @property
    def label(self) -> str:
        return class_of(self.energy).__name__

    @property
    def measure(self) -> str:
        return "energy"

    @property
    def protocol(self) -> str:
        return f"{self.label}, log Z = {self.energy().log_normaliser():.4f} by quadrature, {self.sizes['test']} draws"

    def examples(self, split: str, index: Tensor) -> Split:
        raise VaeflowError(f"{self.label} is an energy, which has no examples.")

    def first_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Its indices, from which noise is drawn; there are no examples."""
        index = torch.arange(min(self.batch_size, self.sizes["train"]))
        return torch.zeros(len(index), 2), torch.zeros(len(index), dtype=torch.int64), index

    def window(self) -> tuple[tuple[float, float], tuple[float, float]]:
        return self.energy().box

    def log_density(self, x: Tensor) -> Tensor | None:
        return -self.energy().to(x.device)(x) - self.energy().log_normaliser()

    def fingerprint(self) -> str:
        """SHA-256 of U on a grid: the density that was fitted, whatever the draws."""
        energy = self.energy()
        axes = [torch.linspace(low, high, 101, dtype=torch.float64) for low, high in energy.box]
        values = energy.double()(torch.cartesian_prod(*axes)).mul(1e6).round()  # the last digits differ by machine
        return hashlib.sha256(values.numpy().tobytes()).hexdigest()

    def read(self) -> dict[str, Split]:
        return {name: (torch.zeros(n, 2), torch.zeros(n, dtype=torch.int64)) for name, n in self.sizes.items()}
