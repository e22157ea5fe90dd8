"""The multi-scale architecture of image flows: a part of the image is done, and leaves, after each scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaeflow.bijections.base import Bijection, Composition
from vaeflow.errors import VaeflowError, check_shape
from vaeflow.functional import bounded
from vaeflow.nets.conditioner import Context
from vaeflow.nets.glow_conditioner import ZeroConv2d


class GaussianPart(nn.Module):
    """p(z|h) = N(z; μ(h), σ(h)²) of the part z that leaves a scale, h being the part that stays, as the map of standard
    normal ε that it is:

        z = μ(h) + σ(h) ⊙ ε,    log |det ∂z/∂ε| = Σ log σ(h),

    so that log N(z; μ, σ²) = log N(ε; 0, I) − Σ log σ, and a temperature multiplies ε. μ and log σ, bounded smoothly
    to ±7, come from one 3 × 3 convolution that starts at zero. At the last scale nothing stays, and they depend on the
    labels and on the distance from the border alone.

    Source: Kingma & Dhariwal 2018, "Glow", arXiv 1807.03039, and its released code.

    Args:
        stays: how many channels stay; 0 at the last scale.
        leaves: ``(channels, height, width)`` of what leaves.
        context_features: dimension of the context; 0 for none.
    """

    def __init__(self, stays: int, leaves: Sequence[int], context_features: int = 0) -> None:
        super().__init__()
        outputs = 2 * leaves[0]
        self.net = ZeroConv2d(stays, outputs)
        self.context = nn.Linear(context_features, outputs, bias=False) if context_features else None
        if self.context is not None:
            nn.init.zeros_(self.context.weight)

    def forward(self, epsilon: Tensor, h: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """z and log |det ∂z/∂ε|, ``(rows,)``."""
        mu, log_sigma = self.moments_given(h, context)
        return mu + log_sigma.exp() * epsilon, log_sigma.flatten(1).sum(1)

    def inverse(self, z: Tensor, h: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """ε and log |det ∂ε/∂z|, ``(rows,)``."""
        mu, log_sigma = self.moments_given(h, context)
        return (z - mu) * (-log_sigma).exp(), -log_sigma.flatten(1).sum(1)

    def moments_given(self, h: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """μ(h) and log σ(h), of the shape of what leaves."""
        values = self.net(h)
        if self.context is not None:
            values = values + self.context(context)[..., None, None]
        mu, log_sigma = values.chunk(2, dim=1)
        return mu, bounded(log_sigma)


@dataclass(frozen=True)
class Scale:
    """One scale of a multi-scale flow.

    Args:
        maps: in the order of normalising. They may change the shape, as a squeeze does.
        leaves: ``(channels, height, width)`` of what leaves after them, the last channels; at the last scale all.
        prior: of what leaves; None where it is that of the base.
    """

    maps: Sequence[Bijection]
    leaves: tuple[int, int, int]
    prior: GaussianPart | None = None


class MultiScale(Bijection):
    """An image ``(rows, channels, height, width)`` ↔ a vector ``(rows, channels · height · width)``.

    Normalising, the maps of the first scale are applied, and the last of the channels are done and leave; what stays
    goes on to the next scale, at the last of which everything leaves. z holds the scales one after the other, the
    first to leave, of the finest detail, first; :attr:`slices` names them.

    Sources: Dinh, Sohl-Dickstein & Bengio 2017, arXiv 1605.08803, section 3.6; Kingma & Dhariwal 2018, arXiv
    1807.03039.

    Args:
        shape: of one image.
        scales: the maps of each, and what leaves.
    """

    def __init__(self, shape: Sequence[int], scales: Iterable[Scale]) -> None:
        super().__init__()
        scales = list(scales)
        self.shape = tuple(shape)
        self.leaves = [scale.leaves for scale in scales]
        self.scales = nn.ModuleList(Composition(reversed(scale.maps)) for scale in scales)
        self.priors = nn.ModuleDict({str(k): scale.prior for k, scale in enumerate(scales) if scale.prior is not None})
        if sum(map(math.prod, self.leaves)) != math.prod(shape):
            raise VaeflowError(f"what leaves, {self.leaves}, is not all of an image of shape {self.shape}.")

    @property
    def slices(self) -> dict[str, slice]:
        """The places of the scales in z, from the finest to the coarsest."""
        ends = torch.tensor([math.prod(part) for part in self.leaves]).cumsum(0).tolist()
        return {
            f"scale_{k + 1}": slice(end - math.prod(part), end)
            for k, (end, part) in enumerate(zip(ends, self.leaves, strict=True))
        }

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("z", z, math.prod(self.shape))
        parts = z.split([math.prod(part) for part in self.leaves], -1)
        x, total = z.new_zeros(0), z.new_zeros(())
        for k in reversed(range(len(self.scales))):
            part = parts[k].unflatten(-1, self.leaves[k])
            if x.dim() == 1:  # the last scale, where nothing stays
                x = part[:, :0]
            if str(k) in self.priors:
                part, log_det = self.priors[str(k)](part, x, context)
                total = total + log_det
            x, log_det = self.scales[k](torch.cat([x, part], dim=1), context)
            total = total + log_det
        return x, total

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("x", x, *self.shape)
        total, parts = x.new_zeros(()), []
        for k, scale in enumerate(self.scales):
            x, log_det = scale.inverse(x, context)  # type: ignore[operator]
            total = total + log_det
            x, part = self._split(x, k)
            if str(k) in self.priors:
                part, log_det = self.priors[str(k)].inverse(part, x, context)  # type: ignore[operator]
                total = total + log_det
            parts.append(part.flatten(1))
        return torch.cat(parts, dim=1), total

    def refresh(self, x: list[Tensor], context: Sequence[Context]) -> list[Tensor]:
        done: list[list[Tensor]] = [[] for _ in x]
        for k, scale in enumerate(self.scales):
            x = scale.refresh(x, context)  # type: ignore[operator]
            for i, image in enumerate(x):
                x[i], part = self._split(image, k)
                if str(k) in self.priors:
                    part, _ = self.priors[str(k)].inverse(part, x[i], context[i])  # type: ignore[operator]
                done[i].append(part.flatten(1))
        return [torch.cat(parts, dim=1) for parts in done]

    def _split(self, x: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        """What goes on to the next scale, and what leaves."""
        stays = x.shape[1] - self.leaves[scale][0]
        return x[:, :stays], x[:, stays:]


def check_scales(shape: Sequence[int], scales: int, last_halves: bool) -> None:
    """Raise a :class:`VaeflowError` if height or width of an image cannot be halved as often as so many scales ask for.

    Args:
        last_halves: whether the last scale halves as well.
    """
    _, height, width = shape

    def halvings(scales: int) -> int:
        return scales if last_halves else scales - 1

    def is_possible(scales: int) -> bool:
        return height % 2 ** halvings(scales) == width % 2 ** halvings(scales) == 0

    if is_possible(scales):
        return
    most = max((fewer for fewer in range(1, scales) if is_possible(fewer)), default=0)
    while most > 1 and not last_halves and height * width <= 4 ** (most - 1):
        most -= 1  # the last scale has more than one pixel, for its checkerboard
    advice = f"take fewer (--model.scales {most})" if most else "pad them to an even size"
    raise VaeflowError(
        f"images of {height} × {width} pixels cannot be halved {halvings(scales)} times, which {scales} scales ask "
        f"for: {advice}, or pictures of another --data.size."
    )
