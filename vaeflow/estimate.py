"""Estimates of log p(x) from log-weights, streamed, and means over examples: nothing here knows what it evaluates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from vaeflow.noise import Noise

LogWeights: TypeAlias = Callable[[Noise, int], Tensor]
"""(noise, num_samples) → log-weights ``(num_samples, batch)`` in nats, of examples that are fixed."""


@dataclass(frozen=True)
class Group:
    """Draws of one group of latents, z ~ q(z|x, groups before it), and their log-densities.

    Args:
        z: ``(num_samples, batch, *event_shape)``.
        log_q, log_p: log q(z|x, …) and log p(z|…), ``(num_samples, batch)`` in nats.
        kl: KL(q ‖ p) of each dimension in closed form, ``(num_samples or 1, batch, *event_shape)``, given the draws of
            the groups before; None where there is none. It is for objectives and reports, never for weights.
    """

    z: Tensor
    log_q: Tensor
    log_p: Tensor
    kl: Tensor | None = None

    @property
    def mean_kl(self) -> Tensor:
        """KL(q ‖ p) averaged over draws: of each dimension ``(batch, *event_shape)`` in closed form, or ``(batch,)``
        the mean of log q − log p, which may come out below zero for an example though its expectation cannot."""
        return (self.log_q - self.log_p if self.kl is None else self.kl).mean(0)


@dataclass(frozen=True)
class Terms:
    """What K draws say of each example of a batch.

    Args:
        log_likelihood: log p(x|z), or log p(x) where there are no latents, ``(num_samples, batch)`` in nats.
        groups: of latents, by name.
        reported: further terms that an evaluation averages, ``(num_samples, batch)`` by name.
    """

    log_likelihood: Tensor
    groups: Mapping[str, Group] = field(default_factory=dict)
    reported: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def log_weights(self) -> Tensor:
        """log w = log p(x|z) + Σ_groups (log p − log q), ``(num_samples, batch)``."""
        total = self.log_likelihood
        for group in self.groups.values():
            total = total - (group.log_q - group.log_p)
        return total

    @property
    def means(self) -> dict[str, Tensor]:
        """Averages over the draws, ``(batch,)`` in nats: of models with latents the elbo = −(reconstruction + kl) and
        both of them, each group's KL as ``kl/NAME`` if there are several, and what is in ``reported``."""
        means = {name: value.mean(0) for name, value in self.reported.items()}
        if not self.groups:
            return means
        reconstruction = -self.log_likelihood.mean(0)
        kls = {
            name: group.mean_kl.flatten(1).sum(1) if group.mean_kl.dim() > 1 else group.mean_kl
            for name, group in self.groups.items()
        }
        kl = torch.stack(list(kls.values())).sum(0) if len(kls) > 1 else next(iter(kls.values()))
        if len(kls) > 1:
            means |= {f"kl/{name}": value for name, value in kls.items()}
        return {"elbo": -reconstruction - kl, "kl": kl, "reconstruction": reconstruction, **means}


Draw: TypeAlias = Callable[[Noise, int], Terms]
"""(noise, num_samples) → the terms of so many draws, of examples that are fixed."""
Combining: TypeAlias = Literal["exact", "log_mean_exp", "mean"]
"""How the log-weights of K draws become one estimate. ``exact``: there is one row, log p(x) itself. ``log_mean_exp``:
weights w with E w = p(x); the logarithm of their mean bounds log p(x) from below in expectation. ``mean``: numbers
whose expectation is log p(x) or a bound of it, such as terms at random times of a diffusion; their exponentials mean
nothing."""


class HasDraws(Protocol):
    """All that an estimate of log p(x) asks of a model."""

    @property
    def combining(self) -> Combining: ...

    def draws_of(self, x: Tensor, context: Tensor | None = None) -> Draw: ...


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """log (1/K) Σ_k w_k over the first dimension: ``(K, batch)`` → ``(batch,)``."""
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


def combined(log_weights: Tensor, combining: Combining) -> Tensor:
    """The estimate ``(batch,)`` of log p(x) that log-weights ``(K, batch)`` make."""
    return log_weights.mean(0) if combining == "mean" else log_mean_exp(log_weights)


class RunningEstimate:
    """log Σ w, log Σ w² and Σ log w of draws that come in chunks, and sums of their further terms, in float64.

    The result does not depend on how the draws are cut into chunks, beyond rounding.

    Args:
        combining: how the log-weights become an estimate.
    """

    def __init__(self, combining: Combining = "log_mean_exp") -> None:
        self.combining = combining
        self.num_samples = 0
        self._log_sum: Tensor | None = None
        self._log_squares: Tensor
        self._totals: dict[str, Tensor]

    @classmethod
    def cat(cls, parts: Sequence[RunningEstimate]) -> RunningEstimate:
        """The sums of several batches, each of the same number of samples, as those of one."""
        joined = cls(parts[0].combining)
        joined.num_samples = parts[0].num_samples
        joined._log_sum = torch.cat([part._log_sum for part in parts if part._log_sum is not None])
        joined._log_squares = torch.cat([part._log_squares for part in parts])
        joined._totals = {name: torch.cat([part._totals[name] for part in parts]) for name in parts[0]._totals}
        return joined

    def over_processes(self, num_samples: int) -> RunningEstimate:
        """The sums of the samples of all processes, ``num_samples`` together; all have to ask for them.

        log Σ_r exp(log Σ_k w_rk) is exact: it takes no average of logarithms.
        """
        assert self._log_sum is not None
        parts = gather_all_tensors(torch.stack([self._log_sum, self._log_squares, *self._totals.values()]))
        log_sums, log_squares, *totals = torch.stack(parts).unbind(1)
        joined = type(self)(self.combining)
        joined.num_samples = num_samples
        joined._log_sum, joined._log_squares = torch.logsumexp(log_sums, 0), torch.logsumexp(log_squares, 0)
        joined._totals = {name: total.sum(0) for name, total in zip(self._totals, totals, strict=True)}
        return joined

    def add(self, terms: Terms) -> None:
        """Take in a chunk."""
        w = terms.log_weights.double()
        log_sum, log_squares = torch.logsumexp(w, 0), torch.logsumexp(2 * w, 0)
        totals = {name: len(w) * mean.double() for name, mean in terms.means.items()} if len(w) else {}
        totals["log w"] = w.sum(0)
        if self._log_sum is not None:
            log_sum = torch.logaddexp(self._log_sum, log_sum)
            log_squares = torch.logaddexp(self._log_squares, log_squares)
            totals = {name: self._totals[name] + total for name, total in totals.items()}
        self._log_sum, self._log_squares, self._totals = log_sum, log_squares, totals
        self.num_samples += len(w)

    @property
    def log_likelihood(self) -> Tensor:
        """The estimate of log p(x), ``(batch,)``: log (1/K) Σ_k w_k, a lower bound in expectation, or of a ``mean``
        (1/K) Σ_k log w_k."""
        assert self._log_sum is not None
        return self.mean_log_weight if self.combining == "mean" else self._log_sum - math.log(self.num_samples)

    @property
    def mean_log_weight(self) -> Tensor:
        """(1/K) Σ_k log w_k, ``(batch,)``: the bound of one sample, averaged over K of them."""
        return self._totals["log w"] / self.num_samples

    @property
    def means(self) -> dict[str, Tensor]:
        """The averages of :attr:`Terms.means` over all K draws, ``(batch,)`` by name."""
        return {name: total / self.num_samples for name, total in self._totals.items() if name != "log w"}

    @property
    def effective_sample_size(self) -> Tensor:
        """(Σ w)² / Σ w², ``(batch,)``, between 1 and K; NaN of a ``mean``, which has no weights."""
        assert self._log_sum is not None
        ratio = torch.exp(2 * self._log_sum - self._log_squares)
        return torch.full_like(ratio, torch.nan) if self.combining == "mean" else ratio


@torch.no_grad()
def log_likelihood(
    model: HasDraws,
    x: Tensor,
    noise: Noise,
    num_samples: int,
    context: Tensor | None = None,
    rows: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    look: Callable[[Draw, RunningEstimate], None] | None = None,
) -> RunningEstimate:
    """Estimate log p(x), such as by log (1/K) Σ_k p(x, z_k)/q(z_k|x), in chunks.

    Args:
        x: ``(batch, *shape)``. What depends on x alone (an encoder, amortised parameters) is computed once.
        num_samples: K, exact.
        rows: how many (sample, example) pairs are held at once; the memory in use grows with it, not with K.
            None for all.
        rank, world_size: which process of how many share the samples: chunks go to them by turns.
        look: is shown each part of the batch: its draws, with what was computed of x alone, and its estimate.
    """
    rows = rows or max(1, num_samples * len(x))
    pieces = []
    for start in range(0, max(1, len(x)), rows):
        part = slice(start, start + rows)
        assert noise.index is not None
        draw = model.draws_of(x[part], None if context is None else context[part])
        source = noise.at(noise.index[part])
        running = RunningEstimate(model.combining)
        chunk = max(1, rows // max(1, len(x[part])))
        if num_samples <= chunk * (world_size - 1):  # some would have none
            chunk = -(-num_samples // world_size)
        for done in range(rank * chunk, num_samples, world_size * chunk):
            running.add(draw(source.skip(done).watched(), min(chunk, num_samples - done)))
        if not running.num_samples:
            running.add(Terms(x.new_empty(0, len(x[part]))))
        pieces.append(running if world_size == 1 else running.over_processes(num_samples))
        if look is not None:
            look(draw, pieces[-1])
    return RunningEstimate.cat(pieces)


@torch.no_grad()
def rows_within(memory_mb: float, model: HasDraws, x: Tensor, noise: Noise, context: Tensor | None = None) -> int:
    """How many (sample, example) pairs of one chunk stay within a budget of memory.

    One example is weighed with one and with three samples, and every byte that any operation puts out is counted;
    the difference is what one pair costs if nothing were ever freed, so the true peak is lower.

    Args:
        memory_mb: the budget, in MiB, for what a chunk computes.
        x: ``(batch, *shape)``, of which the first example is used.
    """
    one = slice(0, 1)
    assert noise.index is not None
    draw = model.draws_of(x[one], None if context is None else context[one])
    counts = []
    for num_samples in (1, 3):
        # in inference mode operations are made of others, and on several processes Lightning has none
        with torch.inference_mode(False), torch.no_grad(), _CountBytes() as counter:
            draw(noise.at(noise.index[one]), num_samples)
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


class Means(Metric):
    """Means and standard errors over examples of several named values.

    Args:
        names: of the values, each of which :meth:`update` takes as ``(batch,)``; a batch of no examples is no matter.

    >>> metric = Means(["nll"])
    >>> metric.update(nll=torch.tensor([1.0, 2.0]))
    >>> metric.update(nll=torch.tensor([6.0]))
    >>> mean, stderr = metric.compute()["nll"]
    >>> mean.item()
    3.0
    """

    full_state_update = False
    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        for state in ("total", "squares"):
            self.add_state(state, torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, **values: Tensor) -> None:
        """Take in one ``(batch,)`` for each name. NaN stays NaN in the mean."""
        rows = torch.stack([values[name].detach().double() for name in self.names])
        self.total += rows.sum(1)
        self.squares += rows.square().sum(1)
        self.count += rows.shape[1]

    def compute(self) -> dict[str, tuple[Tensor, Tensor]]:
        """name → (mean, standard error of the mean), the latter NaN of a single example."""
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0) * self.count / (self.count - 1)
        return dict(zip(self.names, zip(mean, (variance / self.count).sqrt(), strict=True), strict=True))

    def state(self) -> dict[str, Tensor]:
        """The sums of all processes; all have to ask for them."""
        with self.sync_context():
            return {name: getattr(self, name).clone() for name in ("total", "squares", "count")}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from such sums."""
        for name, value in state.items():
            getattr(self, name).copy_(value)
        self._update_count = int(self.count > 0)


def stderr(values: Tensor) -> Tensor:
    """The standard error of a mean of values ``(size,)``, NaN of a single one."""
    size = len(values)
    return ((values - values.mean()).square().sum() / (size - 1) / size).sqrt()


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of the processes' values, all of one shape; the value itself where there is one process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    return torch.stack(gather_all_tensors(values)).mean(0)
