"""VAEs whose likelihood is known: a linear-Gaussian one in closed form, a tiny binary one that sums to 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tests.conftest import redraw
from vaeflow.bijections import Bijection
from vaeflow.models import VAE
from vaeflow.nets import Decoder, Encoder

D, LATENT = 4, 2


class Identity(Encoder):
    """x itself and its context."""

    def __init__(self, shape: Sequence[int], context_features: int = 0) -> None:
        super().__init__()
        self.features = math.prod(shape) + context_features
        self.rows = 0

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.rows += len(x)
        return x.flatten(1) if context is None else torch.cat([x.flatten(1), context], -1)


class Affine(Decoder):
    """A linear map of z."""

    def __init__(self, features: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.map = nn.Linear(features, math.prod(shape))
        self.rows = 0

    def forward(self, z: Tensor) -> Tensor:
        self.rows += z[..., 0].numel()
        return self.map(z).unflatten(-1, self.shape)


def gaussian_of(vae: VAE) -> nn.Linear:
    """The layer that makes μ and σ of the encoder's features."""
    return getattr(vae.posterior, "base", vae.posterior).linear


def unbounded(log_scale: Tensor) -> Tensor:
    """What :func:`vaeflow.bijections.elementwise.bounded` maps to ``log_scale``."""
    return 7 * torch.atanh(log_scale / 7)


class LinearGaussian:
    """z ~ N(0, I), x = m + s ⊙ (W z + b + 0.5 ε), in float64; the columns of W are orthogonal, so that the posterior
    N(S Wᵀ(x̃ − b)/0.25, S), S = (I + WᵀW/0.25)⁻¹, is a diagonal Gaussian and q can be exactly it.

    Args:
        widen: what the standard deviation of q is multiplied by; 1 for the exact posterior.
    """

    noise_scale = 0.5

    def __init__(self, widen: float = 1.0, flow: Callable[[int, int], Bijection] | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        q, _ = torch.linalg.qr(torch.randn(D, LATENT, generator=generator, dtype=torch.float64))
        self.w = q * torch.tensor([1.5, 0.7], dtype=torch.float64)
        self.b = torch.linspace(-1, 1, D, dtype=torch.float64)
        self.mean, self.scale = torch.arange(D).double(), torch.linspace(0.5, 3, D).double()
        self.vae = VAE(shape=(D,), latent_features=LATENT, encoder=Identity, decoder=Affine, flow=flow).double().eval()
        s_posterior = 1 / (1 + self.w.square().sum(0) / self.noise_scale**2)
        to_mean = s_posterior[:, None] * self.w.T / self.noise_scale**2
        assert self.vae.standardise is not None
        self.vae.standardise.set(self.mean, self.scale)
        with torch.no_grad():
            gaussian, decoder = gaussian_of(self.vae), self.vae.observation.decoder.map
            gaussian.weight.copy_(torch.cat([to_mean, torch.zeros_like(to_mean)]))
            log_scale = unbounded(0.5 * s_posterior.log() + math.log(widen))
            gaussian.bias.copy_(torch.cat([-to_mean @ self.b, log_scale]))
            decoder.weight.copy_(torch.cat([self.w, torch.zeros_like(self.w)]))
            log_sigma = unbounded(torch.tensor(self.noise_scale - 0.01, dtype=torch.float64).log())
            decoder.bias.copy_(torch.cat([self.b, log_sigma.expand(D)]))

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in closed form."""
        covariance = self.w @ self.w.T + self.noise_scale**2 * torch.eye(D, dtype=torch.float64)
        marginal = torch.distributions.MultivariateNormal(self.b, covariance)
        return marginal.log_prob((x - self.mean) / self.scale) - self.scale.log().sum()

    def sample(self, n: int) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        z, epsilon = (torch.randn(n, d, generator=generator, dtype=torch.float64) for d in (LATENT, D))
        return self.mean + self.scale * (z @ self.w.T + self.b + self.noise_scale * epsilon)


def binary_vae(flow: Callable[[int, int], Bijection] | None = None, **arguments: object) -> VAE:
    """A VAE of three binary pixels with parameters far from their start, in float64.

    Its posterior is wider than its prior, so that the weights p(x, z)/q(z|x) have a variance.
    """
    parts = {"encoder": Identity, "decoder": Affine, "flow": flow, **arguments}
    vae = VAE(shape=(3, 1, 1), levels=2, latent_features=LATENT, **parts)
    redraw(vae.double(), 0.5)
    with torch.no_grad():
        vae.observation.decoder.map.weight.mul_(4)
        gaussian_of(vae).weight.mul_(0.5)
        gaussian_of(vae).bias.copy_(torch.tensor([0.1, -0.1, 0.7, 0.7]))
    return vae.eval()


def all_binary() -> Tensor:
    """The eight images of three binary pixels, ``(8, 3, 1, 1)``."""
    bits = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return torch.cartesian_prod(bits, bits, bits).view(8, 3, 1, 1)
