"""Which data a model was trained on: fingerprints of its splits, so that no other data pass for them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SPLITS = {"train": "training", "val": "validation", "test": "test"}
ROWS = 4096
"""Examples that are hashed at once."""


@dataclass(frozen=True)
class Identity:
    """What tells one data set from all others.

    Args:
        fingerprints: SHA-256 of each split, ``train``, ``val`` and ``test``; see :func:`fingerprint_of`.
        counts: examples of each split.
        source: absolute path of the file or folder they were read from; None of data that come from none.
    """

    fingerprints: dict[str, str]
    counts: dict[str, int]
    source: str | None = None

    @classmethod
    def of(cls, splits: Mapping[str, tuple[Tensor, Tensor]], source: Path | None = None) -> Identity:
        """The identity of splits of examples ``(N, *shape)`` and labels ``(N,)``."""
        fingerprints = {name: fingerprint_of(*splits[name]) for name in SPLITS}
        counts = {name: len(splits[name][0]) for name in SPLITS}
        return cls(fingerprints, counts, None if source is None else str(source.expanduser().resolve()))

    @classmethod
    def from_description(cls, description: Any) -> Identity | None:
        """What :meth:`describe` gave; None of anything else, such as what older checkpoints hold."""
        if not isinstance(description, Mapping) or set(description) != {"fingerprints", "counts", "source"}:
            return None
        fingerprints, counts = description["fingerprints"], description["counts"]
        if not all(isinstance(part, Mapping) and set(part) == set(SPLITS) for part in (fingerprints, counts)):
            return None
        return cls(dict(fingerprints), dict(counts), description["source"])

    def describe(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self)

    def difference_from(self, other: Identity) -> str | None:
        """In what other data differ from these, on which a model was trained, as half a sentence; None if in nothing.
        Where they were read from does not matter."""
        differing = [name for name in SPLITS if self.fingerprints[name] != other.fingerprints[name]]
        if not differing:
            return None
        then, now = (tuple(identity.counts[name] for name in SPLITS) for identity in (self, other))
        sizes = f" ({_joined(then)} examples then, {_joined(now)} now)" if then != now else ""
        source = f", which came from {self.source}" if self.source else ""
        return (
            f"these are not the data that the model was trained on{source}: the "
            f"{_joined([SPLITS[name] for name in differing])} examples differ{sizes}"
        )


def fingerprint_of(x: Tensor, y: Tensor) -> str:
    """SHA-256 of the shape and values of examples ``(N, *shape)`` and labels ``(N,)``, in this order. The type does not
    matter: whole numbers are hashed as uint8 where they fit, else as int64, all others as float64."""
    digest = hashlib.sha256()
    for values in (x, y):
        dtype = torch.float64
        if all(map(_are_whole, values.split(ROWS))):
            is_small = not values.numel() or (int(values.min()) >= 0 and int(values.max()) <= 255)
            dtype = torch.uint8 if is_small else torch.int64
        digest.update(f"{tuple(values.shape)} {dtype}".encode())
        for rows in values.split(ROWS):
            digest.update((rows.to(dtype) + 0).contiguous().numpy().tobytes())  # + 0 makes −0 a 0
    return digest.hexdigest()


def _are_whole(x: Tensor) -> bool:
    return not x.is_floating_point() or bool(((x == x.floor()) & (x.abs() < 2**53)).all())


def count_shared(x: Tensor, others: Tensor) -> int:
    """How many of the examples ``x (N, *shape)`` are, value by value, among the ``others (M, *shape)``."""
    seen = {digest for rows in others.split(ROWS) for digest in _row_digests(rows)}
    return sum(digest in seen for rows in x.split(ROWS) for digest in _row_digests(rows))


def count_repeated(x: Tensor) -> int:
    """How many of the examples ``(N, *shape)`` are, value by value, one of those before them."""
    return len(x) - len({digest for rows in x.split(ROWS) for digest in _row_digests(rows)})


def _row_digests(x: Tensor) -> list[bytes]:
    rows = (x.flatten(1).to(torch.float64 if x.is_floating_point() else x.dtype) + 0).contiguous().numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def _joined(words: Sequence[Any]) -> str:
    *first, last = (f"{word:,}" if isinstance(word, int) else str(word) for word in words)
    return f"{', '.join(first)} and {last}" if first else last
