"""Maps that bring data to zero mean and unit variance: once for all, by training, or for each batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from vaeflow.bijections.base import Bijection
from vaeflow.errors import VaeflowError, check_positive, check_shape
from vaeflow.functional import bounded, unbounded
from vaeflow.nets.conditioner import Context
from vaeflow.nets.initialisation import DataDependent
from vaeflow.tracing import is_eager


class Standardise(Bijection):
    """x = μ + σ ⊙ z, log |det ∂x/∂z| = Σ log σ, with μ and σ the mean and standard deviation of the training set.

    It is the first map of a model of continuous data, inside the likelihood: the data stay in the user's units and
    the density is a density of those units. μ and σ are buffers, which checkpoints keep; they, and the arithmetic with
    them, are in float64, since data may lie far from zero (dates, say). Until :meth:`set` is called there is no map.

    Args:
        features: D, or the whole shape of one example.
        context_features: unused; every bijection has it.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int | Sequence[int], context_features: int = 0) -> None:
        super().__init__()
        shape = (features,) if isinstance(features, int) else tuple(features)
        self.register_buffer("mean", torch.full(shape, torch.nan, dtype=torch.float64))
        self.register_buffer("scale", torch.full(shape, torch.nan, dtype=torch.float64))

    def set(self, mean: Tensor, scale: Tensor, name: Callable[[int], str] = "dimension {}".format) -> None:
        """Set μ and σ, each of the shape of one example. Raises where σ is 0: a constant has no density.

        Args:
            name: what errors call a dimension, by its index.
        """
        constant = (scale <= 0).flatten().nonzero().flatten().tolist()
        if constant:
            count = len(constant) - 1
            others = f", and so {'are' if count > 1 else 'is'} {count:,} other{'s' * (count > 1)}" if count else ""
            raise VaeflowError(
                f"{name(constant[0])} is constant in the training data{others}: a constant has no density, so leave it "
                "out, or give integers (images as uint8), whose likelihood is of integers."
            )
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        self._require_statistics()
        return (self.mean + self.scale * z.double()).to(z.dtype), self._log_det(z)

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        self._require_statistics()
        return ((x.double() - self.mean) / self.scale).to(x.dtype), -self._log_det(x)

    def _require_statistics(self) -> None:
        """Without them the number that comes out would be of no data at all."""
        is_queued = self.scale.device.type != "cpu" and self.training  # a GPU would wait for it at each step
        if is_eager() and not is_queued and math.isnan(self.scale.view(-1)[0].item()):
            raise VaeflowError(
                f"the statistics of the training data that {type(self).__name__} needs were never set: train the model "
                "with a Trainer, or call model.initialise(data) with a data module before training."
            )

    def _log_det(self, like: Tensor) -> Tensor:
        return self.scale.double().log().sum().to(like.dtype).expand(like.shape[: like.dim() - self.scale.dim()])


class Rescaling(DataDependent, Bijection):
    """z = exp(s) ⊙ x, log |det ∂z/∂x| = Σ s, with trained s, bounded smoothly to ±20.

    It starts with unit variance of the first batch, of z, or of x where it generates: from s = 0 the scales of pixels
    that hardly vary take Adam thousands of steps to reach.

    Source: Dinh, Krueger & Bengio 2014, "NICE", arXiv 1410.8516, section 3.3.

    Args:
        features: D.
        context_features: unused; every bijection has it.
    """

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__()
        check_positive(features=features)
        self.features = features
        self.log_scale = nn.Parameter(torch.zeros(features))

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("z", z, self.features)
        if self.see(z):
            self.turn_round()
        s = bounded(self.log_scale, 20)
        return z * (-s).exp(), -s.sum().expand(z.shape[:-1])

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("x", x, self.features)
        self.see(x)
        s = bounded(self.log_scale, 20)
        return x * s.exp(), s.sum().expand(x.shape[:-1])

    def start(self, x: Tensor) -> None:
        _, variance = moments([x])
        self.log_scale.copy_(unbounded(-0.5 * (variance + 1e-12).log(), 20))

    def turn_round(self) -> None:
        """Make of the map its inverse: a start from what passes in the other direction."""
        self.log_scale.neg_()


class ActNorm(Rescaling):
    """z = (x − t) ⊙ exp(s), log |det ∂z/∂x| = Σ s, with trained s and t, s bounded smoothly to ±20.

    It starts with zero mean and unit variance of the first batch, of z, or of x where it generates. Until then the map
    is the identity.

    Source: Kingma & Dhariwal 2018, "Glow", arXiv 1807.03039, section 3.1.

    Args:
        features: D.
        context_features: unused; every bijection has it.
    """

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__(features)
        self.shift = nn.Parameter(torch.zeros(features))

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        x, log_det = super().forward(z)
        return x + self.shift, log_det

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("x", x, self.features)
        self.see(x)  # before it is shifted
        return super().inverse(x - self.shift)

    def start(self, x: Tensor) -> None:
        self.shift.copy_(moments([x])[0])
        super().start(x)

    def turn_round(self) -> None:
        self.shift.mul_(-bounded(self.log_scale, 20).exp())
        super().turn_round()


class BatchNorm(DataDependent, Bijection):
    """z = (x − m) ⊙ exp(γ)/√(v + ε) + β, log |det ∂z/∂x| = Σ (γ − ½ log(v + ε)), ε = 10⁻⁵.

    In training, normalising takes mean m and variance v of the batch (over all processes); everything else, and
    evaluation, those of the whole training set, which :meth:`refresh` sets, so that no number that is reported depends
    on how examples are put into batches. The model calls it before each validation and before a checkpoint is written.
    The likelihood of a training batch is of the batch as a whole, and no number to compare.

    Sources: Papamakarios et al. 2017, arXiv 1705.07057, appendix B; Dinh et al. 2017, arXiv 1605.08803, section 3.7.

    Args:
        features: D.
        context_features: unused; every bijection has it.
    """

    takes_training_set = True
    epsilon = 1e-5
    mean: Tensor
    variance: Tensor

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__()
        check_positive(features=features)
        self.features = features
        self.gamma = nn.Parameter(torch.zeros(features))
        self.beta = nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.full((features,), torch.nan))
        self.register_buffer("variance", torch.full((features,), torch.nan))

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("z", z, self.features)
        self.require_started()
        s = self._log_scale(self.variance)
        return (z - self.beta) * (-s).exp() + self.mean, -s.sum().expand(z.shape[:-1])

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("x", x, self.features)
        self.see(x)
        mean, variance = _moments_of_batch(x) if self.training else (self.mean, self.variance)
        s = self._log_scale(variance)
        return (x - mean) * s.exp() + self.beta, s.sum().expand(x.shape[:-1])

    def _log_scale(self, variance: Tensor) -> Tensor:
        return bounded(self.gamma, 20) - 0.5 * (variance + self.epsilon).log()

    def start(self, x: Tensor) -> None:
        self._set([x])

    @torch.no_grad()
    def refresh(self, x: list[Tensor], context: Sequence[Context]) -> list[Tensor]:
        self._set(x)
        self.started.fill_(True)
        training, self.training = self.training, False
        z = super().refresh(x, context)
        self.training = training
        return z

    def _set(self, batches: list[Tensor]) -> None:
        mean, variance = moments(batches)
        self.mean.copy_(mean)
        self.variance.copy_(variance)


def moments(batches: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance ``(features,)`` over all but the last dimension of batches of all processes, in float64."""
    features = batches[0].shape[-1]
    count = torch.tensor(sum(b.numel() // features for b in batches), dtype=torch.float64, device=batches[0].device)
    total = sum_over_processes(torch.stack([_sum(b.double()) for b in batches]).sum(0))
    count = sum_over_processes(count)
    mean = total / count
    squares = torch.stack([_sum((b.double() - mean).square()) for b in batches]).sum(0)
    return mean, sum_over_processes(squares) / count


def _moments_of_batch(x: Tensor) -> tuple[Tensor, Tensor]:
    """The same of one global batch, differentiable; every process has its equal part."""
    processes = dist.get_world_size() if _many() else 1
    count = processes * (x.numel() // x.shape[-1])
    if count < 2:
        raise VaeflowError("batch normalisation needs batches of at least 2 in training: take a larger batch_size.")
    mean = (all_reduce(_sum(x)) if processes > 1 else _sum(x)) / count
    squares = _sum((x - mean).square())
    return mean, (all_reduce(squares) if processes > 1 else squares) / count


def _sum(x: Tensor) -> Tensor:
    return x.flatten(0, -2).sum(0)


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of the processes' values, all of one shape; the value itself where there is one process."""
    if _many():
        dist.all_reduce(value)
    return value


def _many() -> bool:
    return dist.is_available() and dist.is_initialized()
