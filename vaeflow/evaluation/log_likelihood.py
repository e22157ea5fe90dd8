"""log p(x) from log-weights, streamed: nothing here knows what kind of model it evaluates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.utilities.distributed import gather_all_tensors

from vaeflow.noise import Noise

LogWeights: TypeAlias = Callable[[Noise, int], Tensor]
"""(noise, num_samples) → log-weights ``(num_samples, batch)`` in nats, of examples that are fixed."""


class HasLogWeights(Protocol):
    """All that an estimate of log p(x) asks of a model."""

    def log_weights_of(self, x: Tensor, context: Tensor | None = None) -> LogWeights: ...


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """log (1/K) Σ_k w_k over the first dimension: ``(K, batch)`` → ``(batch,)``."""
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


class RunningLogSum:
    """log Σ w, log Σ w² and Σ log w of log-weights that come in chunks, in float64.

    Chunks are ``(samples, batch)``; the result does not depend on how the samples are cut into chunks, beyond
    rounding.
    """

    def __init__(self) -> None:
        self.num_samples = 0
        self._log_sum: Tensor | None = None
        self._log_squares: Tensor
        self._total: Tensor

    @classmethod
    def cat(cls, parts: Sequence[RunningLogSum]) -> RunningLogSum:
        """The sums of several batches, each of the same number of samples, as those of one."""
        joined = cls()
        joined.num_samples = parts[0].num_samples
        joined._log_sum = torch.cat([part._log_sum for part in parts if part._log_sum is not None])
        joined._log_squares = torch.cat([part._log_squares for part in parts])
        joined._total = torch.cat([part._total for part in parts])
        return joined

    def over_processes(self, num_samples: int) -> RunningLogSum:
        """The sums of the samples of all processes, ``num_samples`` together; all have to ask for them.

        log Σ_r exp(log Σ_k w_rk) is exact: it takes no average of logarithms.
        """
        assert self._log_sum is not None
        parts = gather_all_tensors(torch.stack([self._log_sum, self._log_squares, self._total]))
        log_sums, log_squares, totals = torch.stack(parts).unbind(1)
        joined = type(self)()
        joined.num_samples = num_samples
        joined._log_sum, joined._log_squares = torch.logsumexp(log_sums, 0), torch.logsumexp(log_squares, 0)
        joined._total = totals.sum(0)
        return joined

    def add(self, log_weights: Tensor) -> None:
        """Take in a chunk."""
        w = log_weights.double()
        log_sum, log_squares, total = torch.logsumexp(w, 0), torch.logsumexp(2 * w, 0), w.sum(0)
        if self._log_sum is not None:
            log_sum = torch.logaddexp(self._log_sum, log_sum)
            log_squares = torch.logaddexp(self._log_squares, log_squares)
            total = self._total + total
        self._log_sum, self._log_squares, self._total = log_sum, log_squares, total
        self.num_samples += len(w)

    @property
    def log_likelihood(self) -> Tensor:
        """log (1/K) Σ_k w_k, ``(batch,)``: the estimate of log p(x), a lower bound in expectation."""
        assert self._log_sum is not None
        return self._log_sum - math.log(self.num_samples)

    @property
    def elbo(self) -> Tensor:
        """(1/K) Σ_k log w_k, ``(batch,)``: the bound of one sample, averaged over K of them."""
        return self._total / self.num_samples

    @property
    def effective_sample_size(self) -> Tensor:
        """(Σ w)² / Σ w², ``(batch,)``, between 1 and K."""
        assert self._log_sum is not None
        return torch.exp(2 * self._log_sum - self._log_squares)


@torch.no_grad()
def log_likelihood(
    model: HasLogWeights,
    x: Tensor,
    noise: Noise,
    num_samples: int,
    context: Tensor | None = None,
    rows: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> RunningLogSum:
    """Estimate log p(x) = log (1/K) Σ_k p(x, z_k)/q(z_k|x), in chunks.

    Args:
        x: ``(batch, *shape)``. What depends on x alone (an encoder, amortised parameters) is computed once.
        num_samples: K, exact.
        rows: how many (sample, example) pairs are held at once; the memory in use grows with it, not with K.
            None for all.
        rank, world_size: which process of how many share the samples: chunks go to them by turns.
    """
    rows = rows or max(1, num_samples * len(x))
    pieces = []
    for start in range(0, max(1, len(x)), rows):
        part = slice(start, start + rows)
        assert noise.index is not None
        log_weights = model.log_weights_of(x[part], None if context is None else context[part])
        source = noise.at(noise.index[part])
        running = RunningLogSum()
        chunk = max(1, rows // max(1, len(x[part])))
        if num_samples <= chunk * (world_size - 1):  # some would have none
            chunk = -(-num_samples // world_size)
        for done in range(rank * chunk, num_samples, world_size * chunk):
            running.add(log_weights(source.skip(done), min(chunk, num_samples - done)))
        if not running.num_samples:
            running.add(x.new_empty(0, len(x[part])))
        pieces.append(running if world_size == 1 else running.over_processes(num_samples))
    return RunningLogSum.cat(pieces)


@torch.no_grad()
def rows_within(memory_mb: float, model: HasLogWeights, x: Tensor, noise: Noise, context: Tensor | None = None) -> int:
    """How many (sample, example) pairs of one chunk stay within a budget of memory.

    One example is weighed with one and with three samples, and every byte that any operation puts out is counted;
    the difference is what one pair costs if nothing were ever freed, so the true peak is lower.

    Args:
        memory_mb: the budget, in MiB, for what a chunk computes.
        x: ``(batch, *shape)``, of which the first example is used.
    """
    one = slice(0, 1)
    assert noise.index is not None
    log_weights = model.log_weights_of(x[one], None if context is None else context[one])
    counts = []
    for num_samples in (1, 3):
        # in inference mode operations are made of others, and on several processes Lightning has none
        with torch.inference_mode(False), torch.no_grad(), _CountBytes() as counter:
            log_weights(noise.at(noise.index[one]), num_samples)
        counts.append(counter.total)
    each = (counts[1] - counts[0]) / 2 or counts[0]  # an exact likelihood takes no more for more samples
    return max(1, int(memory_mb * 2**20 / max(1.0, each)))


class _CountBytes(TorchDispatchMode):
    """Adds up the sizes of all new tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.total += sum(t.numel() * t.element_size() for t in _tensors(out))
        return out


def _tensors(out: Any) -> Iterator[Tensor]:
    for value in out if isinstance(out, (tuple, list)) else (out,):
        if isinstance(value, Tensor):
            yield value
