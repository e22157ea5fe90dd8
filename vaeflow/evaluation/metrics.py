"""torchmetrics that sum values and counts in float64, so that any number of processes gives the same mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torchmetrics import Metric

from vaeflow.estimate import Draw, HasDraws, Means, RunningEstimate, log_likelihood, stderr
from vaeflow.noise import Noise


class ByExample(Metric):
    """One value of each example.

    Args:
        size: how many examples there are.
    """

    full_state_update = False
    values: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.add_state("values", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, index: Tensor, values: Tensor) -> None:
        """Take in the values ``(batch,)`` of the examples ``index``, each of them once."""
        self.values[index] = values.double()

    def compute(self) -> Tensor:
        """``(size,)``."""
        return self.values.clone()


class LogLikelihood(Metric):
    """−log p̂(x), importance-sampled with K samples, its standard error over examples, how good the proposal was, and
    the further terms of the same draws.

    Args:
        num_samples: K.
        reported: names of the further terms; see :attr:`vaeflow.estimate.Terms.means`.
        size: how many examples there are; the noise's indices say which of them a batch holds.
        rows: (sample, example) pairs in one chunk, None for all at once.
        rank, world_size: which process of how many share the samples of each example; all see all examples then,
            and the first one adds up.
    """

    full_state_update = False
    count: Tensor
    by_example: Tensor

    def __init__(
        self,
        num_samples: int,
        size: int,
        reported: Iterable[str] = (),
        rows: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        self.num_samples, self.rows, self.rank, self.world_size = num_samples, rows, rank, world_size
        self.means = Means(["mean_log_weight", "effective_sample_size", *reported])
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("by_example", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(
        self,
        model: HasDraws,
        x: Tensor,
        noise: Noise,
        context: Tensor | None = None,
        look: Callable[[Draw, RunningEstimate], None] | None = None,
    ) -> None:
        """Weigh one batch ``(batch, *shape)``; ``look`` is that of :func:`~vaeflow.estimate.log_likelihood`."""
        estimate = log_likelihood(
            model, x, noise, self.num_samples, context, self.rows, self.rank, self.world_size, look
        )
        if self.rank:
            return
        self.count += len(x)
        self.by_example[noise.index] = -estimate.log_likelihood
        self.means.update(
            mean_log_weight=estimate.mean_log_weight,
            effective_sample_size=estimate.effective_sample_size,
            **estimate.means,
        )

    def compute(self) -> dict[str, Tensor]:
        """nll and nll_stderr in nats for each example; the means of log w, of the effective sample size, between 1 and
        K, and of the further terms; num_examples, on all processes, and nll_by_example ``(size,)``."""
        return {
            "nll": self.by_example.mean(),
            "nll_stderr": stderr(self.by_example),
            **{name: mean for name, (mean, _) in self.means.compute().items()},
            "num_examples": self.count.clone(),
            "nll_by_example": self.by_example.clone(),
        }

    def reset(self) -> None:
        super().reset()
        self.means.reset()


class ActiveUnits(Metric):
    """How many dimensions of a code vary with x: those whose variance over the data exceeds 0.01.

    Source: Burda et al. 2016, arXiv 1509.00519, whose code is the posterior mean; for a flow posterior here it is
    the mean pushed through the flow.

    Args:
        features: dimension of the code.
    """

    full_state_update = False
    threshold = 0.01
    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        for state in ("total", "squares"):
            self.add_state(state, torch.zeros(features, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, codes: Tensor) -> None:
        """Take in codes ``(batch, features)``."""
        codes = codes.detach().double()
        self.total += codes.sum(0)
        self.squares += codes.square().sum(0)
        self.count += len(codes)

    def compute(self) -> Tensor:
        mean = self.total / self.count
        return (self.squares / self.count - mean.square() > self.threshold).sum()
