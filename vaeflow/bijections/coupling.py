"""Coupling maps: one part of a vector, or of an image, is mapped with parameters that the other part determines."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vaeflow.bijections.base import Bijection
from vaeflow.bijections.transformers import Affine, Transformer
from vaeflow.errors import VaeflowError, check_shape
from vaeflow.nets.conditioner import Conditioner, Context, ConvConditioner, MLPConditioner


class AnyCoupling(Bijection):
    """What couplings of vectors and of images share: in both directions one part is kept and determines the map of the
    other. A subclass sets the transformer and the net, and maps with them."""

    transformer: Transformer
    net: Conditioner

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self.map(self.transformer.forward, z, context)

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self.map(self.transformer.inverse, x, context)

    @abstractmethod
    def map(
        self, transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], value: Tensor, context: Context
    ) -> tuple[Tensor, Tensor]:
        """The image of a vector or an image under the transformer's one direction or the other, and its log-det."""

    def condition(self, context: Context) -> Context:
        return self.net.condition(context)


class Coupling(AnyCoupling):
    """Every second feature is mapped, the others stay and say how.

        x_A = z_A,    x_B = τ(z_B; θ(z_A, context)),    log |det ∂x/∂z| = Σ_{i ∈ B} log ∂x_i/∂z_i.

    A are the features 0, 2, 4, … and B the others, or the other way round; of an odd number A has one more, or one
    less. Both directions cost one pass of the net, which begins as the identity. One feature alone leaves nothing to
    determine it by, and is refused.

    Sources: Dinh, Krueger & Bengio 2014, arXiv 1410.8516 (additive); Dinh, Sohl-Dickstein & Bengio 2017,
    arXiv 1605.08803 (affine); Durkan et al. 2019, arXiv 1906.04032 (splines).

    Args:
        features: D, at least 2.
        context_features: dimension of the context; 0 for none.
        transformer: makes τ, the map of one feature.
        hidden: sizes of the hidden layers of the net θ.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
        residual_blocks: of the net.
        swap: A are the odd features.

    >>> x, log_det = Coupling(features=5, hidden=[32])(torch.randn(7, 5))
    >>> x.shape, log_det.shape
    (torch.Size([7, 5]), torch.Size([7]))
    """

    def __init__(
        self,
        features: int,
        context_features: int = 0,
        transformer: Callable[[], Transformer] = Affine,
        hidden: Sequence[int] = (128, 128),
        activation: str = "relu",
        residual_blocks: int = 0,
        swap: bool = False,
    ) -> None:
        super().__init__()
        if features < 2:
            raise VaeflowError(
                f"a coupling of {features} feature leaves nothing to determine it by: take an autoregressive flow."
            )
        self.features, self.swap = features, swap
        self.transformer = transformer()
        self.moved = (features + swap) // 2
        outputs = self.transformer.num_parameters * self.moved
        self.net = MLPConditioner(features - self.moved, outputs, hidden, context_features, activation, residual_blocks)

    def map(
        self, transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], value: Tensor, context: Context
    ) -> tuple[Tensor, Tensor]:
        check_shape("the vector", value, self.features)
        kept, moved = value[..., self.swap :: 2], value[..., 1 - self.swap :: 2]
        theta = self.net(kept, context).unflatten(-1, (-1, self.moved)).movedim(-2, -1)
        image, log_slopes = transform(moved, theta)
        even, odd = (image, kept) if self.swap else (kept, image)
        pairs = torch.stack([even[..., : self.features // 2], odd], dim=-1).flatten(-2)
        whole = torch.cat([pairs, even[..., -1:]], dim=-1) if self.features % 2 else pairs
        return whole, log_slopes.sum(-1)


class ImageCoupling(AnyCoupling):
    """x = b ⊙ z + (1 − b) ⊙ τ(z; θ(b ⊙ z, context)) of images, with a mask b of zeros and ones.

        log |det ∂x/∂z| = Σ over masked-out pixels of log ∂x/∂z.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation using Real NVP", arXiv 1605.08803, section 3.4.

    Args:
        mask: b, ``(channels, height, width)``: true where a value stays and says how the others are mapped, as
            :func:`checkerboard` and :func:`channelwise` make it. All true or all false is refused.
        context_features: dimension of the context; 0 for none.
        transformer: makes τ.
        net: makes θ of the numbers of its input and output channels, and of the context's dimension.
    """

    mask: Tensor

    def __init__(
        self,
        mask: Tensor,
        context_features: int = 0,
        transformer: Callable[[], Transformer] = Affine,
        net: Callable[[int, int, int], Conditioner] = ConvConditioner,
    ) -> None:
        super().__init__()
        if mask.all() or not mask.any():
            what = "transform" if mask.all() else "determine the rest by"
            raise VaeflowError(f"a mask of the shape {tuple(mask.shape)} leaves nothing to {what}.")
        self.register_buffer("mask", mask.contiguous(), persistent=False)  # which can be written to, as averages are
        self.transformer = transformer()
        self.net = net(len(mask), self.transformer.num_parameters * len(mask), context_features)

    def map(
        self, transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], value: Tensor, context: Context
    ) -> tuple[Tensor, Tensor]:
        check_shape("the image", value, *self.mask.shape)
        kept = torch.where(self.mask, value, 0.0)
        theta = self.net(kept, context).unflatten(1, (-1, len(self.mask))).movedim(1, -1)
        image, log_slopes = transform(value, theta)
        return torch.where(self.mask, value, image), torch.where(self.mask, 0.0, log_slopes).flatten(1).sum(-1)


class ChannelCoupling(AnyCoupling):
    """The second half of an image's channels is mapped, the first stays and says how, both ``(rows, channels, height,
    width)``.

        x_A = z_A,    x_B = τ(z_B; θ(z_A, context)),    log |det ∂x/∂z| = Σ over B of log ∂x/∂z.

    Of an odd number of channels A has one more. One channel alone leaves nothing to determine it by, and is refused.

    Source: Kingma & Dhariwal 2018, "Glow", arXiv 1807.03039.

    Args:
        channels: at least 2.
        context_features: dimension of the context; 0 for none.
        transformer: makes τ.
        net: makes θ of the numbers of its input and output channels, and of the context's dimension.
    """

    def __init__(
        self,
        channels: int,
        context_features: int = 0,
        transformer: Callable[[], Transformer] = Affine,
        net: Callable[[int, int, int], Conditioner] = ConvConditioner,
    ) -> None:
        super().__init__()
        if channels < 2:
            raise VaeflowError("a coupling of one channel leaves nothing to determine it by: squeeze the image first.")
        self.moved = channels // 2
        self.kept = channels - self.moved
        self.transformer = transformer()
        self.net = net(self.kept, self.transformer.num_parameters * self.moved, context_features)

    def map(
        self, transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], value: Tensor, context: Context
    ) -> tuple[Tensor, Tensor]:
        check_shape("the image", value, self.kept + self.moved, *value.shape[-2:])
        kept, moved = value.split([self.kept, self.moved], dim=1)
        theta = self.net(kept, context).unflatten(1, (-1, self.moved)).movedim(1, -1)
        image, log_slopes = transform(moved, theta)
        return torch.cat([kept, image], dim=1), log_slopes.flatten(1).sum(-1)


def checkerboard(shape: Sequence[int], swap: bool = False) -> Tensor:
    """True where row + column is even, or where it is odd: ``(channels, height, width)``."""
    channels, height, width = shape
    board = (torch.arange(height)[:, None] + torch.arange(width)) % 2 == int(swap)
    return board.expand(channels, height, width)


def channelwise(shape: Sequence[int], swap: bool = False) -> Tensor:
    """True in the first half of the channels, or in the second: ``(channels, height, width)``."""
    channels, height, width = shape
    first = (torch.arange(channels) < (channels + 1) // 2) != swap
    return first[:, None, None].expand(channels, height, width)
