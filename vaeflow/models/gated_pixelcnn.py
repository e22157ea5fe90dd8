"""The gated PixelCNN (van den Oord et al. 2016, arXiv 1606.05328)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vaeflow.distributions import Categorical, Likelihood
from vaeflow.distributions.causal import CausalImages
from vaeflow.errors import VaeflowError, check_positive
from vaeflow.estimate import LogWeights
from vaeflow.models.base import LikelihoodModel
from vaeflow.nets.dropout import Dropout
from vaeflow.nets.masked_conv import MaskedConv2d
from vaeflow.noise import Noise


class GatedLayer(nn.Module):
    """One layer of both stacks, v of the rows above a pixel, h of the pixels to its left as well:

        v′ = tanh(a) ⊙ σ(b),   (a, b) = W_v ∗ v + V_v c,
        h′ = h + W ∗ [tanh(a) ⊙ σ(b)],   (a, b) = W_h ∗ h + U ∗ (W_v ∗ v) + V_h c,

    with c the context, masked along the row and over channels. The first layer's v does not see its own row, and its h
    not its own pixel; then later layers may.

    Args:
        in_channels: of v and h.
        channels: of v′ and h′.
        kernel: side of the window, odd.
        context_features: dimension of c; 0 for none.
        groups: of channels, one for each channel of the data.
        dropout: of what the gates let through.
        is_first: whether it is the first layer.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int,
        context_features: int,
        groups: int,
        dropout: float,
        is_first: bool,
    ) -> None:
        super().__init__()
        self.reach, self.is_first, self.groups = kernel // 2, is_first, groups
        self.vertical = nn.Conv2d(in_channels, 2 * channels, (self.reach + 1, kernel))
        self.horizontal = MaskedConv2d(in_channels, 2 * channels, self.reach + 1, "A" if is_first else "B", groups)
        self.link = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.out = MaskedConv2d(channels, channels, 1, "B", groups)
        self.context = nn.Linear(context_features, 4 * channels) if context_features else None
        self.dropout_of_v, self.dropout_of_h = (Dropout(dropout, event_dims=3) for _ in range(2))

    def forward(self, v: Tensor, h: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        height = v.shape[-2]
        above = F.pad(v, (self.reach, self.reach, self.reach + self.is_first, 0))
        of_v = self.vertical(above)[..., :height, :]
        of_h = self.horizontal(h) + self.link(of_v)
        if self.context is not None:
            by_v, by_h = self.context(context)[..., None, None].chunk(2, dim=1)
            of_v, of_h = of_v + by_v, of_h + by_h
        gated = self.out(self.dropout_of_h(self.gate(of_h)))
        return self.dropout_of_v(self.gate(of_v)), gated if self.is_first else h + gated

    def gate(self, x: Tensor) -> Tensor:
        """tanh(a) ⊙ σ(b); every group of channels has its a and its b side by side."""
        a, b = x.unflatten(1, (self.groups, 2, -1)).unbind(2)
        return (torch.tanh(a) * torch.sigmoid(b)).flatten(1, 2)


class GatedPixelCNNNet(nn.Module):
    """Parameters of each pixel from the pixels before it: gated layers, and two 1 × 1 convolutions.

    A channel of ones beside the data tells the edge of an image from zeros.

    Args:
        in_channels: of the data.
        out_channels: of the parameters, ``parameters · in_channels``, the channels of the data innermost.
        context_features: dimension of the context; 0 for none.
        channels: of the hidden layers for each channel of the data.
        layers: how many gated layers.
        first_kernel, kernel: sides of the windows of the first layer and of all others, odd.
        head_channels: of the layer before the last, for each channel of the data.
        dropout: of what the gates let through.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        context_features: int,
        channels: int,
        layers: int,
        first_kernel: int,
        kernel: int,
        head_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        check_positive(channels=channels, layers=layers, head_channels=head_channels)
        for name, value in (("first_kernel", first_kernel), ("kernel", kernel)):
            if value < 3 or value % 2 == 0:
                raise VaeflowError(f"{name} is {value}, expected an odd number of at least 3.")
        self.groups = in_channels
        hidden = channels * in_channels
        sizes = [2 * in_channels, *[hidden] * layers]
        self.layers = nn.ModuleList(
            GatedLayer(size, hidden, kernel if k else first_kernel, context_features, in_channels, dropout, not k)
            for k, size in enumerate(sizes[:-1])
        )
        self.inner = MaskedConv2d(hidden, head_channels * in_channels, 1, "B", in_channels)
        self.out = MaskedConv2d(head_channels * in_channels, out_channels, 1, "B", in_channels)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(rows, in_channels, height, width)`` → ``(rows, out_channels, height, width)``."""
        with_ones = torch.stack([x, torch.ones_like(x)], dim=2).flatten(1, 2)  # in the group of each channel
        v = h = with_ones
        for layer in self.layers:
            v, h = layer(v, h, context)
        out = self.out(F.relu(self.inner(F.relu(h))))
        return out.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


class GatedPixelCNN(LikelihoodModel):
    """P(x) = Π_i P(x_i | x_<i) of images of integers, exact, by the gated PixelCNN; it has no latents.

    Two stacks of convolutions read all that comes before a pixel: one without a blind spot. Source: van den Oord,
    Kalchbrenner, Vinyals, Espeholt, Graves & Kavukcuoglu 2016, arXiv 1606.05328; a channel of ones beside the data, and
    dropout, are of Salimans et al. 2017, arXiv 1701.05517.

    Args:
        likelihood: makes the conditionals of the data's shape and levels: a softmax over all levels, as the paper has,
            or another head for integers, such as DiscretisedLogisticMixture.
        channels: of the hidden layers, for each channel of the data.
        layers: how many gated layers.
        first_kernel, kernel: sides of the windows of the first layer and of all others, odd.
        head_channels: of the layer before the last, for each channel of the data.
        dropout: of what the gates let through.
    """

    kind = "exact"
    combining = "exact"
    objective_name = "log-likelihood"
    evaluation_samples = 1

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int | None = None,
        num_classes: int = 0,
        class_conditional: bool = False,
        likelihood: Callable[[Sequence[int], int | None], Likelihood] = Categorical,
        channels: int = 32,
        layers: int = 6,
        first_kernel: int = 5,
        kernel: int = 3,
        head_channels: int = 64,
        dropout: float = 0.0,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.Adam,
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(shape, levels, num_classes, class_conditional, optimizer, lr_scheduler, seed)
        net = functools.partial(
            GatedPixelCNNNet,
            channels=channels,
            layers=layers,
            first_kernel=first_kernel,
            kernel=kernel,
            head_channels=head_channels,
            dropout=dropout,
        )
        self.distribution = CausalImages(likelihood(self.shape, levels), self.context_features, net)

    def log_weights_of(self, x: Tensor, context: Tensor | None = None) -> LogWeights:
        x, context = self._checked_given(x, context)
        return lambda noise, num_samples: self.distribution.log_prob(x, context).unsqueeze(0)

    def losses(self, x: Tensor, noise: Noise, context: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        nll = -self.distribution.log_prob(*self._checked_given(x, context))
        return nll.mean(), {"objective": nll, "nll": nll}

    @torch.no_grad()
    def sample(
        self, n: int, noise: Noise, context: Tensor | None = None, temperature: float = 1.0, mean: bool = False
    ) -> Tensor:
        """Draws x ``(n, *shape)``, one pass of the net for each of its numbers.

        Args:
            noise: such as ``Noise(seed=1)``; the same noise gives the same samples.
            context: ``(n, context_features)``; :meth:`context_of` makes it of labels.
            temperature: see :meth:`~vaeflow.distributions.causal.CausalImages.sample`.
            mean: changes nothing, as there is no closed form of the mean.
        """
        noise, context = self._checked_draw(n, noise, context)
        training = self.training
        self.eval()  # samples have no dropout
        try:
            return self.distribution.sample(1, context, noise, temperature)[0]
        finally:
            self.train(training)

    def initialise(self, data: Any) -> None:
        """Start at the histogram's mean and width: the last layer is all bias, and its bias that of the data."""
        mean, scale = data.statistics()
        out: Any = self.distribution.net.out
        bias = out.bias.detach().new_zeros(len(out.bias), 1, 1)
        self.distribution.head.start(mean, scale, bias)
        with torch.no_grad():
            out.weight.mul_(0.1)
            out.bias.copy_(bias.view(-1, self.shape[0]).T.flatten())  # of each channel side by side
        super().initialise(data)
