"""The gated convolutional encoder and decoder of van den Berg et al. (2018), for images of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaeflow.errors import VaeflowError, check_positive
from vaeflow.nets.base import Decoder, Encoder

CHANNELS = (32, 32, 64, 64, 64)
STRIDES = (1, 2, 1, 2, 1)


class GatedLayer(nn.Module):
    """h(x) · sigmoid(g(x)) for two copies of a layer, computed as one layer with twice the outputs.

    Args:
        layer: a convolution, possibly transposed, with an even number of output channels; its first half is h.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        h, g = self.layer(x).chunk(2, dim=1)
        return h * torch.sigmoid(g)


class GatedConvEncoder(Encoder):
    """Five gated 5 × 5 convolutions, two of stride 2, and one over all that is left:
    ``(batch, channels, height, width)`` → ``(batch, features)``.

    Source: van den Berg, Hasenclever, Tomczak & Welling 2018, arXiv 1803.05649; 32, 32, 64, 64, 64 channels and
    256 features. A context enters as constant channels.

    Args:
        shape: of one image, (channels, height, width); any height and width from 1 on.
        context_features: dimension of the context; 0 for none.
        features: size of the result.
    """

    def __init__(self, shape: Sequence[int], context_features: int = 0, features: int = 256) -> None:
        super().__init__()
        check_positive(features=features)
        channels, sizes = _check_image(shape)
        channels += context_features
        layers: list[nn.Module] = []
        for out, stride in zip(CHANNELS, STRIDES, strict=True):
            layers.append(GatedLayer(nn.Conv2d(channels, 2 * out, 5, stride, padding=2)))
            channels = out
        layers.append(GatedLayer(nn.Conv2d(channels, 2 * features, sizes[-1])))
        self.net = nn.Sequential(*layers)
        self.features = features
        self.to(memory_format=torch.channels_last)  # 1.1 to 1.4 times faster on a CPU

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if context is not None:
            x = torch.cat([x, context[..., None, None].expand(-1, -1, *x.shape[-2:])], dim=1)
        return self.net(x).flatten(1)


class GatedConvDecoder(Decoder):
    """The encoder's mirror image: ``(..., batch, features)`` → ``(..., batch, channels, height, width)``.

    One gated transposed convolution to a quarter of the size, five of 5 × 5 with two of stride 2, and a 1 × 1
    convolution; where the likelihood has many parameters for each pixel (``shape[0]`` ≥ 64, a categorical one), a
    5 × 5 convolution to that many channels before it, as the paper has for Frey Faces.

    Source: van den Berg, Hasenclever, Tomczak & Welling 2018, arXiv 1803.05649.

    Args:
        features: dimension of z.
        shape: of the output for one image, (channels, height, width).
    """

    def __init__(self, features: int, shape: Sequence[int]) -> None:
        super().__init__()
        out_channels, sizes = _check_image(shape)
        (*_, quarter), self.shape = sizes, tuple(shape)
        channels = CHANNELS[-1]
        layers: list[nn.Module] = [
            GatedLayer(nn.ConvTranspose2d(features, 2 * channels, quarter)),
            GatedLayer(nn.Conv2d(channels, 2 * channels, 5, padding=2)),
        ]
        for before, after in zip(sizes[::-1], sizes[-2::-1], strict=False):
            extra = (after[0] - 2 * before[0] + 1, after[1] - 2 * before[1] + 1)
            layers.append(GatedLayer(nn.ConvTranspose2d(channels, 64, 5, stride=2, padding=2, output_padding=extra)))
            layers.append(GatedLayer(nn.Conv2d(32, 64, 5, padding=2)))
            channels = 32
        if out_channels >= 64:
            layers.append(nn.Conv2d(channels, out_channels, 5, padding=2))
            channels = out_channels
        self.net = nn.Sequential(*layers)
        self.out = nn.Conv2d(channels, out_channels, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor) -> Tensor:
        flat = z.reshape(-1, z.shape[-1], 1, 1)
        return self.out(self.net(flat)).reshape(*z.shape[:-1], *self.shape)

    @property
    def output_bias(self) -> Tensor:
        """Bias of the output, ``(channels, 1, 1)``, for a data-dependent start."""
        return self.out.bias.view(-1, 1, 1)  # type: ignore[union-attr]


def _check_image(shape: Sequence[int]) -> tuple[int, list[tuple[int, int]]]:
    """Channels, and height and width of the image at full, half and quarter size."""
    if len(shape) != 3 or math.prod(shape) == 0:
        raise VaeflowError(
            f"the data have shape {tuple(shape)}, but convolutional nets take images (channels, height, width): "
            "use MLPEncoder and MLPDecoder for vectors."
        )
    channels, height, width = shape
    return channels, [(math.ceil(height / s), math.ceil(width / s)) for s in (1, 2, 4)]
