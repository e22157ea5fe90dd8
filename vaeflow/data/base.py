"""What all data modules share: tensors in memory, batches by slicing, an order that is a function of (seed, epoch)."""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from vaeflow.data.batches import EvaluationBatches, Slices, TrainingBatches
from vaeflow.errors import VaeflowError, VaeflowWarning, check_positive, check_values
from vaeflow.files import expanded
from vaeflow.noise import Noise
from vaeflow.records.checkpoint import describe
from vaeflow.records.identity import Identity, count_repeated, count_shared

Split = tuple[Tensor, Tensor]
"""Examples ``(N, *shape)`` as they are kept in memory, and labels ``(N,)``, zeros where there are none."""


class DataModule(LightningDataModule, ABC):
    """Batches ``(x, y, index)`` of a data set that is held in memory.

    x is ``(batch, *shape)``, as the user gave it: integers 0 … levels − 1 or real numbers, in floating point; y are
    labels ``(batch,)``, index the examples' indices in their split. All that is random or arithmetic is done on the
    batch, on the device, by :meth:`finish`.

    A subclass sets ``shape`` and ``levels`` in its constructor and implements :meth:`read`; one that shuffles by a seed
    of its own sets ``split_seed``.

    Args:
        batch_size: of a training or evaluation batch, over all processes together: each of W takes its W-th part of a
            training batch, and every W-th evaluation batch.
        seed: of the order of training examples; comes from seed_everything.
    """

    shape: tuple[int, ...]
    levels: int | None
    split_seed: int | None = None
    entropy: float | None = None
    """Of the density that the data are drawn from, in nats, where it is known."""
    num_classes: int = 0
    shares_examples = True
    """Whether each process evaluates examples of its own."""
    has_examples = True
    """False of an energy, whose batches hold nothing but indices."""
    source: Path | None = None
    """The file or folder that the examples are read from."""
    trained_on: Identity | None = None
    """Of the data that a checkpoint's model was trained on, where these are loaded as such."""
    is_moved = False
    """Whether somebody has said where these are, instead of those that a checkpoint's model was trained on."""

    def __init__(self, batch_size: int = 128, seed: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        init_args = {k: describe(v) for k, v in self.hparams.items() if k not in ("_instantiator", "_class_path")}
        self.description = {**describe(type(self)), "init_args": init_args}
        check_positive(batch_size=batch_size)
        self.batch_size, self.seed = batch_size, seed
        self.splits: dict[str, Split] = {}
        self.evaluation_split = "test"
        self.limit: int | None = None

    @abstractmethod
    def read(self) -> dict[str, Split]:
        """The train, val and test splits.

        Raises:
            VaeflowError: if the data are not there, naming where they were looked for and what to do.
        """

    def finish(self, x: Tensor, noise: Noise) -> Tensor:
        """What a model sees of examples as they are kept in memory."""
        return x if x.is_floating_point() else x.to(torch.float32)

    @property
    def protocol(self) -> str:
        """All that the numbers depend on beside the data set: split sizes, seeds, binarisation."""
        self.setup("")
        sizes = "/".join(str(len(self.splits[name][0])) for name in ("train", "val", "test"))
        return f"split {sizes}" + ("" if self.split_seed is None else f", split seed {self.split_seed}")

    @property
    def label(self) -> str:
        """What the data are called in tables."""
        return type(self).__name__

    @property
    def measure(self) -> str:
        """What a likelihood of these data is of: binary, discrete-L or continuous."""
        return {None: "continuous", 2: "binary"}.get(self.levels, f"discrete-{self.levels}")

    # ---------------------------------------------------------------------------------------------- for Lightning

    def setup(self, stage: str) -> None:
        if self.splits:
            return
        splits = self.read()
        for name, (x, _) in splits.items():
            if not len(x):
                raise VaeflowError(f"the {name} split of {type(self).__name__} is empty.")
            check_values(f"the {name} split", x, None if self.levels is None else self.raw_levels)
        x = splits["train"][0]
        if self.has_examples and x.min() == x.max():
            raise VaeflowError(
                f"all values of the training split of {self.label} are {x.min().item():g}: there is nothing to learn "
                "from them."
            )
        if self.has_examples and self.levels is None:
            self._check_unit(x)
        self.splits = splits
        if difference := self.difference_from(self.trained_on):
            key = next((name for name in ("path", "root") if name in self.hparams and not self.is_moved), None)
            advice = f"; to use other data, pass --{key}" if key else ""
            warnings.warn(f"{difference}{advice}.", VaeflowWarning, stacklevel=2)

    def _check_unit(self, x: Tensor) -> None:
        """Refuse training data whose squares are beyond the range of float64."""
        largest = torch.zeros(self.shape, dtype=torch.float64)
        for rows in x.split(4096):
            largest = torch.maximum(largest, rows.double().abs().amax(0))
        largest = largest.flatten()
        for i in ((largest > 1e100) | ((largest > 0) & (largest < 1e-100))).nonzero().flatten().tolist()[:1]:
            raise VaeflowError(
                f"{self.dimension_name(i)} of {self.label} holds values of {largest[i]:.3g} at most, expected some "
                "between 1e-100 and 1e100: give it in another unit."
            )

    @functools.cached_property
    def identity(self) -> Identity | None:
        """What tells these data from all others; None where there are no examples."""
        self.setup("")
        return Identity.of(self.splits, self.source) if self.has_examples else None

    def difference_from(self, trained_on: Identity | None) -> str | None:
        """In what these data differ from those that a model was trained on, as half a sentence; None if in nothing, or
        if it is not known."""
        if trained_on is None or self.identity is None:
            return None
        return trained_on.difference_from(self.identity)

    def count_copies(self) -> dict[str, int | None]:
        """How many of the examples that the test loop sees are training examples or validation examples as well, and
        how many repeat one before them; None where it sees the split in question, or there are no examples."""
        names = {"train": "num_in_training", "val": "num_in_validation"}
        if not self.has_examples:
            return dict.fromkeys((*names.values(), "num_repeated"))
        evaluated = self._split(self.evaluation_split)[0][: self.num_evaluated]
        counts = {
            name: None if split == self.evaluation_split else count_shared(evaluated, self.splits[split][0])
            for split, name in names.items()
        }
        return {**counts, "num_repeated": count_repeated(evaluated)}

    def train_dataloader(self) -> DataLoader:
        trainer: Any = self.trainer
        repeats = trainer is not None and trainer.overfit_batches > 0
        size = len(self.splits["train"][0])
        batches = TrainingBatches(size, self.batch_size, self.seed, *_place(self), self._done, repeats)
        return self._loader("train", batches)

    def _done(self) -> int:
        """How many batches of the epoch have been trained on already: some where a run is resumed within an epoch."""
        trainer: Any = self.trainer
        return 0 if trainer is None else trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def val_dataloader(self) -> DataLoader:
        return self._loader("val", EvaluationBatches(len(self.splits["val"][0]), self.batch_size, *_place(self)))

    def test_dataloader(self) -> DataLoader:
        place = _place(self) if self.shares_examples else (0, 1)
        return self._loader(self.evaluation_split, EvaluationBatches(self.num_evaluated, self.batch_size, *place))

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor, Tensor], dataloader_idx: int) -> Any:
        x, y, index = batch
        trainer: Any = self.trainer
        if trainer is not None and trainer.training:
            noise = Noise(self.seed, "train", trainer.current_epoch, index)
        else:
            noise = self._noise(self.evaluation_split if trainer is not None and trainer.testing else "val", index)
        return self.finish(x, noise), y, index

    def _noise(self, split: str, index: Tensor) -> Noise:
        """Of what is drawn once and for all; the training split, too, has another stage here than in training."""
        return Noise(self.protocol_seed, {"train": "train, once"}.get(split, split), 0, index)

    protocol_seed = 0
    """Of what is drawn once and for all in validation and test data."""

    # --------------------------------------------------------------------------------------------- for evaluation

    def evaluate_on(self, split: str, limit: int | None = None) -> None:
        """Choose the split that the test loop sees, and how many examples of it: the first ``limit``."""
        if limit is not None:
            check_positive(limit=limit)
        self._split(split)
        self.evaluation_split, self.limit = split, limit

    @property
    def num_evaluated(self) -> int:
        """Number of examples that the test loop sees."""
        size = len(self._split(self.evaluation_split)[0])
        return size if self.limit is None else min(size, self.limit)

    def count(self, split: str) -> int:
        """Number of examples of a split."""
        return len(self._split(split)[0])

    def examples(self, split: str, index: Tensor) -> Split:
        """Examples and labels of a split by index, as the test loop sees them."""
        x, y = self._split(split)
        if not isinstance(index, Tensor) or index.dim() != 1 or index.dtype != torch.int64:
            try:
                index = torch.as_tensor(index, dtype=None if len(index) else torch.int64)
            except (TypeError, ValueError, RuntimeError):
                raise VaeflowError(f"index is {index!r}, expected a tensor of integers.") from None
            if index.dtype == torch.bool and index.shape == (len(x),):
                index = index.nonzero().flatten()
            if index.dim() != 1 or index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
                raise VaeflowError(
                    f"index is of {index.dtype} and shape {tuple(index.shape)}, expected integers (count,)."
                )
            index = index.long()
        outside = index[(index < 0) | (index >= len(x))].tolist()
        if outside:
            raise VaeflowError(
                f"index {outside[0]} is outside the {split} split, which has {len(x)} examples, 0 to {len(x) - 1}."
            )
        return self.finish(x[index], self._noise(split, index)), y[index]

    def dimension_name(self, dimension: int) -> str:
        """What a dimension of an example, flattened, is called: a column of vectors, a pixel of images, both counted
        from 0."""
        place = tuple(int(i) for i in np.unravel_index(dimension, self.shape))
        if len(place) == 1:
            return f"column {dimension}"
        return f"pixel {place[1:] if self.shape[0] == 1 else place}"

    @property
    def class_names(self) -> list[str]:
        """What the labels 0, 1, … are called."""
        return [str(label) for label in range(self.num_classes)]

    def labels_as_given(self, y: Tensor) -> np.ndarray:
        """Labels ``(N,)`` 0, 1, … as the data have them: whole numbers where all class names are, else names."""
        names = np.array(self.class_names)
        is_number = all(name.removeprefix("-").isdecimal() for name in self.class_names)
        return (names.astype(np.int64) if is_number else names)[y.numpy()]

    def trained_classes(self) -> list[int]:
        """The labels that some training example has."""
        return self._split("train")[1].unique().tolist()

    def check_classes(self) -> None:
        """Raise a :class:`VaeflowError` if an example has a label that no training example has: a class-conditional
        model knows nothing of it."""
        trained = torch.tensor(self.trained_classes())
        for split in ("val", "test"):
            unknown = ~torch.isin(self._split(split)[1], trained)
            if unknown.any():
                name = self.class_names[int(self._split(split)[1][unknown][0])]
                raise VaeflowError(
                    f"the {split} split of {self.label} has examples with the label {name}, but the training split has "
                    "none: leave them out, choose another --data.split_seed, or train without classes."
                )

    def label_of(self, name: str) -> int:
        """The label that is called so."""
        if name not in self.class_names:
            known = f"labels {', '.join(self.class_names)}" if self.num_classes else "no labels"
            raise VaeflowError(f"{self.label} has {known}, and none called {name}.")
        return self.class_names.index(name)

    def of_class(self, split: str, name: str) -> Tensor:
        """The indices of a split's examples with a label, given by name."""
        found = (self._split(split)[1] == self.label_of(name)).nonzero().flatten()
        if not len(found):
            raise VaeflowError(f"the {split} split of {self.label} has no example with the label {name}.")
        return found

    def attribute(self, name: str) -> tuple[Tensor, Tensor]:
        """The indices of the training examples that have an attribute, and of those that have not: by default having a
        label, given by name, and having another."""
        have = self.of_class("train", name)
        others = torch.ones(len(self.splits["train"][0]), dtype=torch.bool)
        others[have] = False
        return have, others.nonzero().flatten()

    def in_training(self, numbers: Tensor) -> Tensor:
        """Where in the training split the examples are that a user numbers so: by default, just there."""
        self.examples("train", numbers)
        return numbers

    def first_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """The first batch of training, of all processes together."""
        self.setup("")
        index = next(iter(TrainingBatches(len(self.splits["train"][0]), self.batch_size, self.seed)))
        return *self.examples("train", index), index

    def batches_of_process(self, split: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """This process's batches of a split in order; those of all processes are the whole split, once."""
        for index in EvaluationBatches(len(self._split(split)[0]), self.batch_size, *_place(self)):
            yield *self.examples(split, index), index

    def window(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Of data in the plane, the ranges of both coordinates in which nearly all of them lie."""
        x = self._split("val")[0].double()
        low, high = (torch.quantile(x, q, dim=0) for q in (0.001, 0.999))
        margin = 0.1 * (high - low)
        (left, right), (bottom, top) = torch.stack([low - margin, high + margin]).T.tolist()
        return (left, right), (bottom, top)

    def log_density(self, x: Tensor) -> Tensor | None:
        """log p(x) ``(batch,)`` of the density that the data are drawn from, in nats, where it is known."""
        return None

    def fingerprint(self) -> str:
        """SHA-256 of the tensor that the test loop evaluates: of its shape, and of its values as float64 bytes."""
        digest = hashlib.sha256(str((self.num_evaluated, *self.shape)).encode())
        for index in torch.arange(self.num_evaluated).split(1000):
            digest.update(self.examples(self.evaluation_split, index)[0].double().numpy().tobytes())
        return digest.hexdigest()

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the training data as a model sees them, ``shape`` each, in one pass; exactly 0
        of what has one value, whose mean may be rounded."""
        count, mean, squares = (
            0,
            torch.zeros(self.shape, dtype=torch.float64),
            torch.zeros(self.shape, dtype=torch.float64),
        )
        first = self.examples("train", torch.tensor([0]))[0].double()
        varies = torch.zeros(self.shape, dtype=torch.bool)
        for index in torch.arange(len(self.splits["train"][0])).split(4096):
            x = self.examples("train", index)[0].double()
            varies |= (x != first).any(0)
            delta = x.mean(0) - mean
            total = count + len(x)
            squares += (x - x.mean(0)).square().sum(0) + delta.square() * count * len(x) / total
            mean += delta * len(x) / total
            count = total
        return mean, (squares / count).sqrt() * varies

    # ----------------------------------------------------------------------------------------------------- inside

    def _split(self, name: str) -> Split:
        if name not in ("train", "val", "test"):
            raise VaeflowError(f"split is {name!r}, expected train, val or test.")
        self.setup("")
        return self.splits[name]

    @property
    def raw_levels(self) -> int:
        """Levels of the values in memory."""
        assert self.levels is not None
        return self.levels

    def _loader(self, split: str, sampler: Sampler) -> DataLoader:
        return DataLoader(
            Slices(*self.splits[split]),
            sampler=sampler,
            batch_size=None,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # so that the loader draws nothing from the global stream
        )


def _place(data: DataModule) -> tuple[int, int]:
    return (data.trainer.global_rank, data.trainer.world_size) if data.trainer is not None else (0, 1)


def data_root(root: str | None) -> Path:
    """Where data sets lie: the folder given, else the environment variable VAEFLOW_DATA, else ``data``."""
    return expanded(root or os.environ.get("VAEFLOW_DATA") or "data")


def not_found(name: str, root: Path, error: Exception) -> VaeflowError:
    """What to say of a data set that is neither there nor downloadable."""
    reason = str(error).splitlines()[0][:100]
    return VaeflowError(
        f"{name} was not found in {root.resolve()} and could not be downloaded ({reason}): "
        "set --data.root or VAEFLOW_DATA to the folder that holds it."
    )


def shuffled_split(x: Tensor, y: Tensor, sizes: tuple[int, int], seed: int | None) -> dict[str, Split]:
    """Shuffle with a seed of its own, and cut off ``sizes`` = (val, test) examples at the end."""
    assert seed is not None
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    x, y = x[order], y[order]
    val, test = sizes
    train = len(x) - val - test
    return {
        "train": (x[:train], y[:train]),
        "val": (x[train : train + val], y[train : train + val]),
        "test": (x[train + val :], y[train + val :]),
    }
