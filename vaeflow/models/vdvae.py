"""The very deep VAE (Child 2021, arXiv 2011.10650): a hierarchy of latents from one pixel to the whole image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vaeflow.distributions import Likelihood, Normal
from vaeflow.distributions.base import check_temperature, full_precision
from vaeflow.distributions.heads import likelihood_for
from vaeflow.errors import VaeflowError, check_positive
from vaeflow.estimate import Group, Terms
from vaeflow.functional import bounded
from vaeflow.models.latent import LatentVariableModel
from vaeflow.noise import Noise
from vaeflow.objectives import ELBO, Objective


def bottleneck(in_channels: int, middle: int, out_channels: int, size: tuple[int, int], scale: float) -> nn.Sequential:
    """Four convolutions, GELU before each: 1 × 1, two of 3 × 3 (1 × 1 on maps of two pixels or less), 1 × 1.

    Args:
        in_channels, middle, out_channels: of the maps.
        size: height and width of the maps.
        scale: what the last weights are multiplied by at the start; 0 for an output that starts at zero.
    """
    kernel = 3 if min(size) > 2 else 1
    sizes = [(in_channels, middle, 1), (middle, middle, kernel), (middle, middle, kernel), (middle, out_channels, 1)]
    layers: list[nn.Module] = []
    for before, after, k in sizes:
        layers += [nn.GELU(), nn.Conv2d(before, after, k, padding=k // 2)]
        nn.init.zeros_(layers[-1].bias)  # type: ignore[arg-type]
    with torch.no_grad():
        layers[-1].weight.mul_(scale)  # type: ignore[operator]
    return nn.Sequential(*layers)


class TopDownLayer(nn.Module):
    """One layer of latents, all of the maps of a size:

        p(z|h) = N(μ_p, σ_p²),  q(z|x, h) = N(μ_q, σ_q²),    (μ_p, σ_p, d) = f_p(h),  (μ_q, σ_q) = f_q(h, e(x)),
        h ← h + d + W z,    h ← h + f(h),

    with h the state, made of all layers above, and e(x) the encoder's maps of that size. p starts at N(0, I).

    Args:
        width: channels of h and e(x).
        middle: channels inside the bottlenecks.
        latent_channels: of z.
        size: height and width of the maps.
        scale: of the last layers at the start, 1/√(number of layers).
    """

    def __init__(self, width: int, middle: int, latent_channels: int, size: tuple[int, int], scale: float) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.prior = bottleneck(width, middle, 2 * latent_channels + width, size, scale=0.0)
        self.posterior = bottleneck(2 * width, middle, 2 * latent_channels, size, scale=1.0)
        self.latents = nn.Conv2d(latent_channels, width, 1)
        self.residual = bottleneck(width, middle, width, size, scale)
        with torch.no_grad():
            self.latents.weight.mul_(scale)
            self.latents.bias.zero_()  # type: ignore[union-attr]

    def prior_of(self, h: Tensor) -> tuple[Normal, Tensor]:
        """p(z|h), and h + d."""
        out = self.prior(h)
        return self._normal(out), h + out[:, 2 * self.latent_channels :]

    def posterior_of(self, h: Tensor, encoded: Tensor) -> Normal:
        """q(z|x, h)."""
        return self._normal(self.posterior(torch.cat([h, encoded], dim=1)))

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """The state once z is known, ``(rows, width, height, width)``."""
        h = h + self.latents(z)
        return h + self.residual(h)

    def _normal(self, out: Tensor) -> Normal:
        mean, raw = out[:, : 2 * self.latent_channels].to(self.latents.weight.dtype).chunk(2, dim=1)
        return Normal(mean, bounded(raw), 3)


class VDVAE(LatentVariableModel):
    """p(x) = ∫ p(x|z) Π_l p(z_l|z_<l) dz of images, with q(z|x) = Π_l q(z_l|x, z_<l) in the same order, coarse to fine.

    Trained by the ELBO, the KL of each layer in closed form given the draws of the layers above it.

    Source: Child 2021, "Very deep VAEs generalize autoregressive models and can outperform them on images",
    arXiv 2011.10650, and its released code, without which it differs in this: log σ is bounded smoothly to ±7; data are
    scaled to [−1, 1]; the likelihood is any head. Steps with a large gradient are clipped (``gradient_clip_val``), not
    left out; averages of the weights are Lightning's (``EMAWeightAveraging``).

    Args:
        width: channels of the state and of the encoder.
        middle: channels inside the bottlenecks.
        latent_channels: of each layer's z.
        layers: numbers of layers of latents, from the full size to the coarsest.
        strides: by what each size is divided to give the next one; by default 2.
        encoder_blocks: numbers of residual blocks of the encoder at each size; by default as many as layers.
        likelihood: makes p(x|z) of the data's shape and levels; by default Bernoulli for binary, discretised logistic
            for integer data.
        objective: makes what it is trained by.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int | None = None,
        num_classes: int = 0,
        class_conditional: bool = False,
        width: int = 32,
        middle: int = 16,
        latent_channels: int = 4,
        layers: Sequence[int] = (1, 1, 1, 1),
        strides: Sequence[int] | None = None,
        encoder_blocks: Sequence[int] | None = None,
        likelihood: Callable[[Sequence[int], int | None], Likelihood] | None = None,
        objective: Callable[[], Objective] = ELBO,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.Adam,
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(shape, levels, num_classes, class_conditional, objective, optimizer, lr_scheduler, seed)
        self.head = (likelihood or likelihood_for(levels))(self.shape, levels)
        if levels is None or len(self.shape) != 3 or self.head.dequantises:
            raise VaeflowError("VDVAE is a model of images of integers, by a head of integers.")
        check_positive(width=width, middle=middle, latent_channels=latent_channels)
        self.strides = [2] * (len(layers) - 1) if strides is None else list(strides)
        blocks = list(layers) if encoder_blocks is None else list(encoder_blocks)
        if not layers or len(self.strides) != len(layers) - 1 or len(blocks) != len(layers):
            raise VaeflowError(
                f"layers has {len(layers)} entries, strides {len(self.strides)} and encoder_blocks {len(blocks)}: "
                "expected one of layers and of blocks for each size, and a stride between two of them."
            )
        check_positive(**{f"layers[{i}]": n for i, n in enumerate(layers)})
        check_positive(**{f"strides[{i}]": n for i, n in enumerate(self.strides)})
        sizes = [(self.shape[1], self.shape[2])]
        for stride in self.strides:
            sizes.append((math.ceil(sizes[-1][0] / stride), math.ceil(sizes[-1][1] / stride)))
        scale = 1 / math.sqrt(sum(layers))
        self.stem = nn.Conv2d(self.shape[0], width, 3, padding=1)
        self.encoder = nn.ModuleList(
            nn.ModuleList(bottleneck(width, middle, width, size, 1 / math.sqrt(sum(blocks))) for _ in range(n))
            for size, n in zip(sizes, blocks, strict=True)
        )
        self.starts = nn.ParameterList(torch.zeros(width, *size) for size in sizes)
        self.decoder = nn.ModuleList(
            nn.ModuleList(TopDownLayer(width, middle, latent_channels, size, scale) for _ in range(n))
            for size, n in zip(sizes, layers, strict=True)
        )
        self.labels = nn.Linear(self.context_features, width) if self.context_features else None
        self.gain, self.shift = nn.Parameter(torch.ones(width, 1, 1)), nn.Parameter(torch.zeros(width, 1, 1))
        self.out = nn.Conv2d(width, self.head.decoder_shape[0], 1)
        groups: dict[str, tuple[int, ...]] = {}
        for (h, w), n in list(zip(sizes, layers, strict=True))[::-1]:
            for _ in range(n):
                number = sum(shape[1:] == (h, w) for shape in groups.values())
                groups[f"{h}x{w}.{number}"] = (latent_channels, h, w)
        self.declare_groups(groups)

    def infer(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """x, its context, and the encoder's maps of each size, ``(batch, width, height, width)``."""
        h, maps = self.stem(x.to(self.dtype) * (2 / (self.head.levels - 1)) - 1), []  # type: ignore[operator]
        for k, blocks in enumerate(self.encoder):
            if k:
                h = F.avg_pool2d(h, self.strides[k - 1], ceil_mode=True, count_include_pad=False)
            for block in blocks:  # type: ignore[attr-defined]
                h = h + block(h)
            maps.append(h)
        return x, context, maps

    def terms(self, inferred: tuple[Tensor, Tensor | None, list[Tensor]], noise: Noise, num_samples: int) -> Terms:
        x, context, maps = inferred
        groups: dict[str, Group] = {}

        def draw(name: str, k: int, layer: TopDownLayer, h: Tensor, p: Normal) -> Tensor:
            encoded = maps[k].expand(num_samples, -1, -1, -1, -1).flatten(0, 1)
            q = layer.posterior_of(h, encoded)
            epsilon = noise.within(name).normal("z", num_samples, self.event_shapes[name], self.dtype).flatten(0, 1)
            with full_precision(x):
                z = q.at(epsilon)
                values = z, q.log_prob_at(epsilon), p.log_prob(z), q.kl(p)
            groups[name] = Group(*(value.unflatten(0, (num_samples, len(x))) for value in values))
            return z

        parameters = self._walk(num_samples * len(x), _repeated(context, num_samples), draw)
        with full_precision(x):
            return Terms(self.head.log_prob(x, parameters.unflatten(0, (num_samples, len(x)))), groups)

    def generate(
        self,
        noise: Noise,
        context: Tensor | None,
        given: Mapping[str, Tensor],
        temperature: float = 1.0,
        mean: bool = False,
    ) -> Tensor:
        assert noise.index is not None
        rows = len(noise.index)

        def draw(name: str, k: int, layer: TopDownLayer, h: Tensor, p: Normal) -> Tensor:
            if name in given:
                return given[name]
            epsilon = noise.within(name).normal("z", 1, self.event_shapes[name], self.dtype)[0]
            return p.at(check_temperature(temperature) * epsilon)

        parameters = self._walk(rows, context, draw)
        return self.head.mean(parameters) if mean else self.head.sample(parameters, noise)[0]

    def _walk(
        self, rows: int, context: Tensor | None, draw: Callable[[str, int, TopDownLayer, Tensor, Normal], Tensor]
    ) -> Tensor:
        """The head's parameters ``(rows, *decoder_shape)``, from the coarsest layer to the finest; each z is drawn by
        (name, index of the size, layer, h, p(z|h))."""
        h: Tensor | None = None
        names = iter(self.event_shapes)
        for k, layers in list(enumerate(self.decoder))[::-1]:
            start = self.starts[k].expand(rows, -1, -1, -1)
            if self.labels is not None:
                start = start + self.labels(context)[..., None, None]
            if h is not None:
                stride = self.strides[k]
                up = h.repeat_interleave(stride, dim=2).repeat_interleave(stride, dim=3)
                start = start + up[..., : start.shape[-2], : start.shape[-1]]
            h = start
            for layer in layers:  # type: ignore[attr-defined]
                p, after = layer.prior_of(h)
                h = layer(after, draw(next(names), k, layer, h, p))
        assert h is not None
        return self.out(self.gain * h + self.shift).to(self.dtype)

    def initialise(self, data: Any) -> None:
        """The head starts at the mean and the width of the training data."""
        mean, scale = data.statistics()
        bias = self.out.bias.detach().new_zeros(len(self.out.bias), 1, 1)  # type: ignore[union-attr, arg-type]
        self.head.start(mean, scale, bias)
        with torch.no_grad():
            self.out.bias.copy_(bias.flatten())  # type: ignore[union-attr]
        super().initialise(data)


def _repeated(context: Tensor | None, num_samples: int) -> Tensor | None:
    return None if context is None else context.repeat(num_samples, 1)
