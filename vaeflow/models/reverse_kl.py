"""Flows fitted to an unnormalised density by reverse KL (Rezende & Mohamed 2015, arXiv 1505.05770, section 6.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vaeflow.bijections import Bijection, Planar
from vaeflow.distributions import Distribution, FlowDensity, StandardNormal
from vaeflow.distributions.energies import U1, Energy
from vaeflow.errors import VaeflowError
from vaeflow.estimate import LogWeights
from vaeflow.models.base import refuse_statistics
from vaeflow.models.coded import CodedModel
from vaeflow.noise import Noise


class ReverseKL(CodedModel):
    """q(z), the density of a flow, fitted to p(z) = exp(−U(z))/Z from its own samples alone.

        KL(q ‖ p) = E_q[log q(z) + U(z)] + log Z,    z = f(z₀),    log q(z) = log q₀(z₀) − log |det ∂f/∂z₀|,

    log Z by quadrature, so that the KL is a number that reaches 0. In training U is multiplied by
    β_t = min(1, 0.01 + t/annealing_steps) at step t, so that q spreads over all modes before it settles; nothing that
    is logged is. Evaluation and validation draw noise that training has not seen.

    Args:
        energy: makes U; comes from the data.
        flow: makes f of 2 and 0; one whose ``forward`` is fast.
        base: makes the density of z₀, through whose samples gradients go, so no mixture.
        annealing_steps: how long β_t rises; 0 for β = 1 from the start.
    """

    kind = "reverse-kl"
    combining = "exact"
    objective_name = "reverse KL"
    evaluation_samples = 1
    logged = ("objective", "kl")
    reported = ("kl",)

    def __init__(
        self,
        shape: tuple[int, ...] = (2,),
        levels: int | None = None,
        num_classes: int = 0,
        class_conditional: bool = False,
        energy: Callable[[], Energy] = U1,
        flow: Callable[[int, int], Bijection] = Planar,
        base: Callable[[int, int], Distribution] = StandardNormal,
        annealing_steps: int = 10_000,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.Adam,
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(shape, levels, num_classes, class_conditional, optimizer, lr_scheduler, seed)
        if self.shape != (2,) or levels is not None:
            raise VaeflowError("ReverseKL fits a density of the plane: take --data EnergyData.")
        if annealing_steps < 0:
            raise VaeflowError(f"annealing_steps is {annealing_steps}, expected 0 or more.")
        self.energy, self.annealing_steps = energy(), annealing_steps
        self.log_normaliser = energy().log_normaliser()
        self.density = FlowDensity(self.dimension, 0, flow, base)
        refuse_statistics(self.density)
        for part in self.density.modules():
            if isinstance(part, Distribution) and not part.is_reparameterised and not isinstance(part, FlowDensity):
                raise VaeflowError(
                    f"{type(part).__name__} picks a component for each sample, through which no gradient goes, and "
                    "ReverseKL learns from samples alone: take another base."
                )

    @property
    def beta(self) -> float:
        """β_t, the weight of U in the training loss; 1 outside training."""
        if not self.training or not self.annealing_steps:
            return 1.0
        return min(1.0, 0.01 + self.global_step / self.annealing_steps)

    def losses(self, x: Tensor, noise: Noise, context: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        log_q, energy = self.terms(noise)
        kl = log_q + energy + self.log_normaliser
        return (log_q + self.beta * energy).mean(), {"objective": kl, "kl": kl}

    def terms(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """log q(z) and U(z) at one z for each example of the noise source, both ``(batch,)``."""
        with torch.autocast(self.device.type, enabled=False):
            z, log_q = self.density.rsample_with_log_prob(1, None, noise)
            return log_q[0], self.energy(z[0])

    def log_weights_of(self, x: Tensor, context: Tensor | None = None) -> LogWeights:
        """log q(x), exact."""
        x = self._checked(x)
        return lambda noise, num_samples: self.density.log_prob(x).unsqueeze(0)

    @torch.no_grad()
    def sample(
        self, n: int, noise: Noise, context: Tensor | None = None, temperature: float = 1.0, mean: bool = False
    ) -> Tensor:
        noise, _ = self._checked_draw(n, noise, context)
        return self.density.sample(1, None, noise, temperature)[0]

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.density.encode(self._checked(x))

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.density.decode(self._checked_code(z, self.dimension))

    def trajectory(self, z: Tensor, context: Tensor | None = None) -> Iterator[Tensor]:
        return self.density.trajectory(self._checked_code(z, self.dimension))

    def icdf(self, u: Tensor) -> Tensor:
        return self.density.icdf(self._checked_cube(u))

    @property
    def latent_slices(self) -> dict[str, slice]:
        return self.density.latent_slices
