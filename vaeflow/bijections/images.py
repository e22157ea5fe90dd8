"""Maps of images: ``(rows, channels, height, width)``, rows being examples, or samples and examples together."""

from __future__ import annotations

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor

from vaeflow.bijections.base import Bijection
from vaeflow.errors import VaeflowError
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


def _channels_last(x: Tensor) -> Tensor:
    return rearrange(x, "b c h w -> h w b c")


def _channels_first(x: Tensor) -> Tensor:
    return rearrange(x, "h w b c -> b c h w")
