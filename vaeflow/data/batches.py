"""Which examples a batch holds: on any number of processes, in an order that is a function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, SequentialSampler

from vaeflow.errors import VaeflowError


class Slices(Dataset):
    """Whole batches by a tensor of indices."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __getitem__(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.x[index], self.y[index], index

    def __len__(self) -> int:
        return len(self.x)


class TrainingBatches(SequentialSampler):  # by its name: Lightning replaces all others where overfit_batches is set
    """Index tensors of one process's part of every training batch, in an order that is a function of (seed, epoch).

    The last examples of an epoch that fill no batch are left out; the next epoch leaves out others.

    Args:
        size: number of examples.
        batch_size: of all processes together; less where there are fewer examples.
        seed: of the order.
        rank, world_size: which process of how many.
        done: says, when an epoch begins, how many of its first batches to leave out.
        repeats: every epoch has the order of the first.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        done: Callable[[], int] = int,
        repeats: bool = False,
    ) -> None:
        if batch_size % world_size:
            raise VaeflowError(
                f"data.batch_size is {batch_size}, the batch of all processes together, and cannot be shared by "
                f"{world_size} of them: take a multiple of {world_size}."
            )
        if size < world_size:
            raise VaeflowError(f"{size} training examples cannot be shared by {world_size} processes.")
        self.size, self.seed, self.rank, self.world_size = size, seed, rank, world_size
        self.batch_size = min(batch_size, size - size % world_size)
        self.epoch = 0
        self.done, self.repeats = done, repeats

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = 0 if self.repeats else epoch

    def __len__(self) -> int:
        return self.size // self.batch_size

    def __iter__(self) -> Iterator[Any]:  # tensors of indices
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.size, generator=generator)
        for batch in order[: len(self) * self.batch_size].split(self.batch_size)[self.done() :]:
            yield batch[self.rank :: self.world_size]


class EvaluationBatches(SequentialSampler):
    """Index tensors 0 … size − 1 in order; process r of W gets batches r, r + W, …, so that every example is seen once.

    A process without a batch gets one of no rows, since Lightning cannot run an empty loader.
    """

    def __init__(self, size: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.batches = torch.arange(size).split(min(batch_size, max(1, size)))[rank::world_size] or (torch.arange(0),)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:  # tensors of indices
        return iter(self.batches)
