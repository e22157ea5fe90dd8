"""A VAE whose posterior an IAF refines: a training step, and an importance-sampled likelihood."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import vaeflow.bijections as B
from benchmarks import floors, peers
from benchmarks.peers import AutoEncoder
from benchmarks.work import (
    COMPILED,
    FLOOR,
    FUSED,
    OURS,
    ROWS,
    Goal,
    Work,
    build,
    training_step,
    without_gradient,
)
from vaeflow.distributions.heads import Bernoulli
from vaeflow.estimate import log_likelihood
from vaeflow.models import VAE
from vaeflow.nets import MLPDecoder, MLPEncoder
from vaeflow.noise import Noise


class WithoutContext(B.InverseAutoregressive):
    """An IAF that leaves out the encoder's features, as those of the other libraries do."""

    def __init__(self, features: int, context_features: int, steps: int, hidden: Sequence[int]) -> None:
        super().__init__(features, 0, steps, hidden, activation="relu")

    def condition(self, context: Any) -> Any:
        return super().condition(None if isinstance(context, Tensor) else context)


def vae_model(
    pixels: int = 784, hidden: Sequence[int] = (200, 200), latent: int = 50, steps: int = 4, width: int = 320
) -> VAE:
    """A VAE of binary vectors with an IAF."""
    return VAE(
        shape=(pixels,),
        levels=2,
        latent_features=latent,
        encoder=functools.partial(MLPEncoder, hidden=list(hidden), activation="tanh"),
        decoder=functools.partial(MLPDecoder, hidden=list(hidden), activation="tanh"),
        flow=functools.partial(WithoutContext, steps=steps, hidden=[width]),
        likelihood=Bernoulli,
    )


def vae(device: torch.device, batch: int = 128) -> Iterator[Work]:
    """A VAE with an IAF: a step of training, and an importance-sampled likelihood."""
    pixels, hidden, latent, steps, width = sizes = (784, (200, 200), 50, 4, 320)

    def ours() -> AutoEncoder:
        model = vae_model(*sizes)

        def loss(x: Tensor) -> Tensor:
            noise = Noise(0, "train", 0, torch.arange(len(x), device=x.device))
            return model.losses(x, noise, None)[0]

        def estimate(x: Tensor, num_samples: int) -> Tensor:
            noise = Noise(0, "test", 0, torch.arange(len(x), device=x.device))
            return log_likelihood(model, x, noise, num_samples, rows=ROWS).log_likelihood

        return AutoEncoder(model, loss, estimate)

    def floor() -> AutoEncoder:
        nets = floors.DenseVAE(*sizes)
        return AutoEncoder(
            nets, lambda x: -nets.log_weights(x, 1, 0).mean(), lambda x, n: nets.log_weights(x, n, ROWS).logsumexp(0)
        )

    makers: dict[str, Callable[[], AutoEncoder]] = {OURS: ours, FLOOR: floor}
    makers |= {name: functools.partial(make, *sizes) for name, make in peers.VAE.items()}
    models, failed = build(makers)
    for model in models.values():
        model.module.to(device)
    x = torch.rand(batch, pixels, generator=torch.Generator().manual_seed(1)).round().to(device)
    case = f"VAE + IAF, {pixels}-{'-'.join(map(str, hidden))}-{latent}, K = {steps}, hidden {width}"
    train = {n: training_step(m.module, functools.partial(m.loss, x)) for n, m in models.items()}
    fused = {n + FUSED: training_step(m.module, functools.partial(m.loss, x), True) for n, m in models.items()}
    losses = torch.compile(models[OURS].loss)
    fused[OURS + COMPILED + FUSED] = training_step(models[OURS].module, functools.partial(losses, x), True)
    goals = [Goal(who, "best peer", 1 / 1.3) for who in (OURS, OURS + FUSED, OURS + COMPILED + FUSED)]
    yield Work(f"{case}, batch {batch}", "train step", train | fused, goals, failed, items=batch)

    examples, samples = x[:100], 500
    decoder = models[FLOOR].module
    rows = 500  # in which the decoder alone is at its fastest
    draws = torch.randn(rows // len(examples), len(examples), latent).to(device)

    def decoder_alone() -> None:
        for _ in range(samples * len(examples) // rows):
            decoder.log_likelihood(examples, draws)

    estimate: dict[str, Callable[[], object]]
    estimate = {n: functools.partial(m.log_likelihood, examples, samples) for n, m in models.items()}
    estimate["decoder + likelihood"] = decoder_alone
    yield Work(
        f"{case}, {len(examples)} examples × {samples} samples",
        "importance sampling",
        {name: without_gradient(run) for name, run in estimate.items()},
        [Goal(OURS, "decoder + likelihood", 1 / 0.65)],
        failed,
        items=len(examples) * samples,
    )
