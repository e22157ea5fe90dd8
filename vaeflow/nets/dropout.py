"""Dropout whose masks are counter-based noise, so that a resumed run drops what an uninterrupted one would have."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vaeflow.errors import VaeflowError
from vaeflow.noise import Noise


class Dropout(nn.Module):
    """Each number is 0 with probability p in training, and divided by 1 − p otherwise.

    A training step sets ``source``, from which the masks come; without it they come from torch's generator.

    Args:
        p: the probability of 0.
        event_dims: the number of dimensions of one event, 1 of vectors and 3 of images; the others are samples and
            examples.
    """

    source: Noise | None = None
    name = ""

    def __init__(self, p: float, event_dims: int = 1) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise VaeflowError(f"dropout is {p}, expected a probability of 0 or more and less than 1.")
        self.p, self.event_dims = p, event_dims

    def forward(self, x: Tensor) -> Tensor:
        """``(..., *event)`` of the same shape, the leading dimensions samples times examples."""
        if not self.training or not self.p:
            return x
        if self.source is None or self.source.index is None:
            return nn.functional.dropout(x, self.p)
        lead, event = x.shape[: -self.event_dims], x.shape[-self.event_dims :]
        num_samples = math.prod(lead) // max(1, len(self.source.index))
        u = self.source.uniform(self.name, num_samples, event, torch.float32)
        return x * (u.reshape(x.shape) >= self.p).to(x.dtype) * (1 / (1 - self.p))


def dropout_layers(model: nn.Module) -> list[Dropout]:
    """The dropout layers of a model; the noise of each has the layer's name from now on."""
    layers = []
    for name, module in model.named_modules():
        if isinstance(module, Dropout):
            module.name = f"dropout/{name}"
            layers.append(module)
    return layers
