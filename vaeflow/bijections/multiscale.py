"""Maps of images, and the multi-scale architecture that is made of them (RealNVP)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from vaeflow.bijections.base import Bijection, Composition
from vaeflow.bijections.coupling import ImageCoupling, channelwise, checkerboard
from vaeflow.bijections.normalisation import BatchNorm
from vaeflow.bijections.transformers import Affine, Transformer
from vaeflow.errors import VaeflowError, check_positive, check_shape
from vaeflow.nets.conditioner import Context


class Squeeze(Bijection):
    """Normalising, each 2 × 2 block of pixels becomes one pixel of four times the channels; log |det| = 0.

    ``inverse``: ``(batch, channels, height, width)`` → ``(batch, 4 channels, height/2, width/2)``; ``forward`` is the
    way back. All channels of a block's first pixel come first, so that the half which leaves a scale holds half of the
    pixels in every colour. An odd height or width is refused.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, arXiv 1605.08803, section 3.6.
    """

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return rearrange(z, "b (i j c) h w -> b c (h i) (w j)", i=2, j=2), z.new_zeros(len(z))

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        if x.shape[-1] % 2 or x.shape[-2] % 2:
            raise VaeflowError(
                f"an image of {x.shape[-2]} × {x.shape[-1]} pixels cannot be cut into 2 × 2 blocks: take fewer scales."
            )
        return rearrange(x, "b c (h i) (w j) -> b (i j c) h w", i=2, j=2), x.new_zeros(len(x))


class EachPixel(Bijection):
    """A map of vectors applied to the channels of every pixel: ActNorm per channel, a linear map as 1 × 1 convolution.

        log |det ∂x/∂z| = Σ over pixels of that of the map.

    Args:
        bijection: of vectors ``(..., batch, channels)``.
    """

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        self.bijection = bijection

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        x, log_det = self.bijection(_channels_last(z), context)
        return _channels_first(x), log_det.sum((0, 1))

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.bijection.inverse(_channels_last(x), context)
        return _channels_first(z), log_det.sum((0, 1))

    def condition(self, context: Context) -> Context:
        return self.bijection.condition(context)

    def refresh(self, x: list[Tensor], context: Sequence[Context]) -> list[Tensor]:
        return [_channels_first(z) for z in self.bijection.refresh([_channels_last(part) for part in x], context)]


def _most_scales(height: int, width: int) -> int:
    """As many as leave more than one pixel, for the last checkerboard."""
    scales = 1
    while height % 2**scales == width % 2**scales == 0 and height * width > 4**scales:
        scales += 1
    return scales


def _channels_last(x: Tensor) -> Tensor:
    return rearrange(x, "b c h w -> h w b c")


def _channels_first(x: Tensor) -> Tensor:
    return rearrange(x, "h w b c -> b c h w")


class MultiScale(Bijection):
    """RealNVP's architecture for images, which come and go as vectors ``(..., batch, channels · height · width)``.

    Normalising, each scale but the last is three couplings with a checkerboard mask, a squeeze, three couplings with
    a channel-wise mask, after which the second half of the channels is done and leaves; the last scale is four
    couplings with a checkerboard mask. Batch normalisation follows every coupling.

    z holds the scales one after the other, the first to leave, of the finest detail, first; :attr:`slices` names them.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation using Real NVP", arXiv 1605.08803, section 3.6
    and figure 4b.

    Args:
        shape: of one image; height and width divisible by 2 as often as there are squeezes.
        context_features: dimension of the context; 0 for none.
        scales: at least 1.
        couplings: of each mask in each scale, 3 in the paper; the last scale has one more.
        transformer: makes the map of one value.
        channels, residual_blocks: of the nets; each squeeze doubles the channels.
    """

    def __init__(
        self,
        shape: Sequence[int],
        context_features: int = 0,
        scales: int = 2,
        couplings: int = 3,
        transformer: Callable[[], Transformer] = Affine,
        channels: int = 64,
        residual_blocks: int = 2,
    ) -> None:
        super().__init__()
        check_positive(scales=scales, couplings=couplings)
        self.shape, self.context_features = tuple(shape), context_features
        c, h, w = shape
        blocks = 2 ** (scales - 1)
        if h % blocks or w % blocks:
            raise VaeflowError(
                f"images of {h} × {w} pixels cannot be halved {scales - 1} times, which {scales} scales ask "
                f"for: take fewer (--model.scales {_most_scales(h, w)}), or pictures of another --data.size."
            )

        def steps(mask: Callable[..., Tensor], count: int, widen: int) -> list[Bijection]:
            maps: list[Bijection] = []
            for k in range(count):
                coupling = ImageCoupling(
                    mask((c, h, w), k % 2 == 1), context_features, transformer, widen * channels, residual_blocks
                )
                maps += [coupling, EachPixel(BatchNorm(c))]
            return maps

        self.scales: Any = nn.ModuleList()
        self.parts: list[tuple[int, int, int]] = []  # what leaves at each scale
        for scale in range(scales - 1):
            maps = [*steps(checkerboard, couplings, 2**scale), Squeeze()]
            c, h, w = 4 * c, h // 2, w // 2
            maps += steps(channelwise, couplings, 2 ** (scale + 1))
            self.scales.append(Composition(reversed(maps)))
            self.parts.append((c - c // 2, h, w))
            c = c // 2
        self.scales.append(Composition(reversed(steps(checkerboard, couplings + 1, 2 ** (scales - 1)))))
        self.parts.append((c, h, w))

    @property
    def slices(self) -> dict[str, slice]:
        """The places of the scales in z, from the finest to the coarsest."""
        ends = torch.tensor([math.prod(part) for part in self.parts]).cumsum(0).tolist()
        return {
            f"scale_{k + 1}": slice(end - math.prod(part), end)
            for k, (end, part) in enumerate(zip(ends, self.parts, strict=True))
        }

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("z", z, math.prod(self.shape))
        rows, context = self._rows(z, context)
        *leaving, x = [
            part.unflatten(1, shape)
            for part, shape in zip(rows.split([math.prod(p) for p in self.parts], 1), self.parts, strict=True)
        ]
        x, total = self.scales[-1](x, context)
        for scale, part in reversed(list(zip(list(self.scales)[:-1], leaving, strict=True))):
            x, log_det = scale(torch.cat([x, part], dim=1), context)
            total = total + log_det
        return x.reshape(z.shape), total.reshape(z.shape[:-1])

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("x", x, math.prod(self.shape))
        rows, context = self._rows(x, context)
        h, total, parts = rows.unflatten(1, self.shape), x.new_zeros(()), []
        for k, scale in enumerate(self.scales):
            h, log_det = scale.inverse(h, context)
            total = total + log_det
            h, part = self._split(h, k)
            parts.append(part.flatten(1))
        return torch.cat(parts, dim=1).reshape(x.shape), total.reshape(x.shape[:-1])

    def refresh(self, x: list[Tensor], context: Sequence[Context]) -> list[Tensor]:
        images = [part.unflatten(-1, self.shape) for part in x]
        done: list[list[Tensor]] = [[] for _ in x]
        for k, scale in enumerate(self.scales):
            images = scale.refresh(images, context)
            for i, image in enumerate(images):
                images[i], part = self._split(image, k)
                done[i].append(part.flatten(1))
        return [torch.cat(parts, dim=1) for parts in done]

    def _split(self, h: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        """What goes on to the next scale, and what leaves; at the last scale all of it."""
        keep = h.shape[1] - self.parts[scale][0]
        return h[:, :keep], h[:, keep:]

    def _rows(self, vectors: Tensor, context: Context) -> tuple[Tensor, Context]:
        """Samples and examples in one dimension, and the context of each."""
        if isinstance(context, Tensor):
            context = context.expand(*vectors.shape[:-1], -1).flatten(0, -2)
        return vectors.flatten(0, -2), context
