"""The plain torch nets whose time nothing of the same sizes can be below, if it multiplies all that they multiply."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Dense layers of these sizes, activations between them."""
    layers = [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), activation())]
    return nn.Sequential(*layers[:-1])


def log_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I), summed over the last dimension."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))


class DenseAutoregressive(nn.Module):
    """The nets of a MAF without masks: it is no density, but takes what one costs that computes all products."""

    def __init__(self, features: int, steps: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(mlp([features, *hidden, 2 * features]) for _ in range(steps))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(())
        for net in self.nets:
            log_scale, shift = net(x).chunk(2, -1)
            x = ((x - shift) * torch.exp(-log_scale)).flip(-1)
            log_det = log_det - log_scale.sum(-1)
        return x, log_det


class DenseCouplings(nn.Module):
    """A real coupling flow in as few operations as it can be written in: halves, kept and mapped by turns."""

    def __init__(self, features: int, steps: int, hidden: Sequence[int], affine: bool) -> None:
        super().__init__()
        self.kept, self.affine = features // 2, affine
        outputs = (2 if affine else 1) * self.kept
        self.nets = nn.ModuleList(mlp([self.kept, *hidden, outputs]) for _ in range(steps))

    def to_noise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x[:, : self.kept], x[:, self.kept :]
        log_det = x.new_zeros(())
        for net in self.nets:
            if self.affine:
                log_scale, shift = net(a).chunk(2, -1)
                log_scale = torch.tanh(log_scale)
                a, b = (b - shift) * torch.exp(-log_scale), a
                log_det = log_det - log_scale.sum(-1)
            else:
                a, b = b - net(a), a
        return torch.cat([a, b], -1), log_det

    def to_data(self, z: Tensor) -> Tensor:
        a, b = z[:, : self.kept], z[:, self.kept :]
        for net in reversed(self.nets):
            if self.affine:
                log_scale, shift = net(b).chunk(2, -1)
                a, b = b, a * torch.exp(torch.tanh(log_scale)) + shift
            else:
                a, b = b, a + net(b)
        return torch.cat([a, b], -1)


class GramPlanar(nn.Module):
    """K planar steps without a context by products of matrices alone: wᵀz of all steps, and wᵀû between them."""

    def __init__(self, features: int, steps: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(steps, features) / features**0.5)
        self.u = nn.Parameter(0.1 * torch.randn(steps, features))
        self.b = nn.Parameter(torch.zeros(steps))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        wu = (self.w * self.u).sum(-1, keepdim=True)
        u = self.u + (F.softplus(wu) - 1 - wu) * self.w / self.w.square().sum(-1, keepdim=True)
        gram = self.w @ u.T
        start = z @ self.w.T + self.b
        h = start.new_empty(len(z), 0)
        for k in range(len(self.b)):
            a = start[:, k : k + 1]
            if k:
                a = a + (h @ gram[k, :k]).unsqueeze(-1)
            h = torch.cat([h, torch.tanh(a)], -1)
        return z + h @ u, torch.log1p((1 - h * h) * gram.diagonal()).sum(-1)


class DenseVAE(nn.Module):
    """Encoder, the unmasked nets of an IAF, and decoder."""

    def __init__(self, pixels: int, hidden: Sequence[int], latent: int, steps: int, width: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(mlp([pixels, *hidden], nn.Tanh), nn.Tanh(), nn.Linear(hidden[-1], 2 * latent))
        self.nets = nn.ModuleList(mlp([latent, width, 2 * latent]) for _ in range(steps))
        self.decoder = mlp([latent, *hidden[::-1], pixels], nn.Tanh)

    def log_weights(self, x: Tensor, num_samples: int, rows: int) -> Tensor:
        """log p(x, z)/q(z|x), ``(num_samples, batch)``, so many rows at once."""
        mean, log_scale = self.encoder(x).chunk(2, -1)
        log_weights = []
        for part in [num_samples] if not rows else [rows // len(x)] * (num_samples * len(x) // rows):
            noise = torch.randn(part, *mean.shape, device=x.device)
            z, log_q = mean + log_scale.exp() * noise, log_normal(noise) - log_scale.sum(-1)
            for net in self.nets:
                m, s = net(z).chunk(2, -1)
                gate = torch.sigmoid(s + 2)
                z, log_q = gate * z + (1 - gate) * m, log_q - gate.log().sum(-1)
            log_weights.append(self.log_likelihood(x, z) + log_normal(z) - log_q)
        return torch.cat(log_weights)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        logits = self.decoder(z)
        return -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
