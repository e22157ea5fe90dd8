"""Autoregressive distributions of images of integers: a causal net, and a head that says what its output means."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor, nn

from vaeflow.distributions.base import Distribution, check_temperature, full_precision
from vaeflow.distributions.gaussians import pick
from vaeflow.distributions.heads import Likelihood
from vaeflow.errors import VaeflowError, check_context, check_shape
from vaeflow.nets.conditioner import Conditioned, Context, lead_of
from vaeflow.noise import Noise


class CausalImages(Distribution):
    """P(x|context) = Π_i P(x_i | x_<i, context), pixels row by row, and within a pixel channel by channel.

    The net computes the parameters of all conditionals in one pass; a sample takes a pass for each of them. It belongs
    to the head alone what a conditional is: a softmax, a mixture of discretised logistics, a coin.

    Args:
        head: of the data's shape and levels.
        context_features: dimension of the context, such as labels or, in a decoder, z; 0 for none.
        net: makes the causal net x, context → parameters of the head's number of input channels, output channels and
            the context's dimension: ``(rows, channels, height, width)`` in [−1, 1] and ``(rows, context_features)`` →
            ``(rows, parameters, height, width)``, where the parameters of channel c come last, ``(..., channels)``.
    """

    is_reparameterised = False

    def __init__(self, head: Likelihood, context_features: int, net: Callable[[int, int, int], nn.Module]) -> None:
        super().__init__(head.shape, context_features)
        if head.levels is None or len(head.shape) != 3:
            what = "continuous" if head.levels is None else f"of shape {head.shape}"
            raise VaeflowError(
                f"an autoregressive model of images takes integers (channels, height, width), but the data are {what}."
            )
        if head.dequantises:
            raise VaeflowError(f"{type(head).__name__} is a density: take a head of integers, such as Categorical.")
        self.head, self.levels = head, head.levels
        self.net = net(head.shape[0], head.decoder_shape[0], context_features)

    def condition(self, context: Context) -> Conditioned:
        if isinstance(context, Conditioned):
            return context
        check_context(context, self.context_features)
        return Conditioned(context, lead_of(context))

    def log_prob(self, y: Tensor, context: Context = None) -> Tensor:
        """``(..., batch, *event_shape)`` and a context ``(..., batch, context_features)`` → ``(..., batch)``."""
        check_shape("x", y, *self.event_shape)
        given = self.condition(context).value
        if given is None:
            lead = y.shape[:-3]
        else:
            lead = torch.broadcast_shapes(y.shape[:-3], given.shape[:-1])
            given = given.expand(*lead, -1).flatten(0, -2)
        rows = y.expand(*lead, *self.event_shape).flatten(0, -4)
        parameters = self.parameters_of(rows, given)
        with full_precision(y):
            return self.head.log_prob(rows, parameters.unsqueeze(0))[0].unflatten(0, lead)

    @torch.no_grad()
    def sample(
        self, num_samples: int = 1, context: Context = None, noise: Noise | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Draws ``(num_samples, batch, *event_shape)``, one number after the other.

        Args:
            temperature: T, of the conditionals: each number is drawn with probability P(x_i|x_<i)^(1/T), normalised; at
                0 it is the most probable one.
        """
        given = self.condition(context)
        sharpness = 1 / max(check_temperature(temperature), torch.finfo(self.zero.dtype).tiny)
        source = self._source(noise, given, num_samples)
        uniform = source.uniform("numbers", num_samples, self.event_shape, self.zero.dtype)
        rows, x = uniform.flatten(0, 1), torch.zeros_like(uniform).flatten(0, 1)
        labels = given.value
        if labels is not None:
            labels = labels.expand(*uniform.shape[:2], -1).flatten(0, 1)
        channels, height, width = self.event_shape
        for row, column, channel in product(range(height), range(width), range(channels)):
            place = (..., channel, row, column)
            log_p = self.log_conditional(x, labels, channel, row, column)
            log_p = (log_p - log_p.amax(-1, keepdim=True)) * sharpness
            x[place] = pick(log_p.softmax(-1), rows[place].unsqueeze(-1)).to(x.dtype)
        return x.view_as(uniform)

    def log_conditional(self, rows: Tensor, labels: Tensor | None, channel: int, row: int, column: int) -> Tensor:
        """log P(x_i = l | x_<i, context) of one number x_i for all levels l: ``(rows, levels)``.

        Args:
            rows: ``(rows, *event_shape)``, of which only what comes before x_i matters.
            labels: ``(rows, context_features)``; None without a context.
        """
        every = self.parameters_of(rows, labels)
        parameters = every[:, channel :: self.event_shape[0], row, column]
        levels = torch.arange(self.levels, dtype=every.dtype, device=every.device).view(-1, 1, 1, 1)
        with full_precision(rows):
            expanded = parameters[:, None, :, None, None].expand(-1, self.levels, -1, 1, 1)
            return self.head.of_one_number().log_prob(levels, expanded)

    def parameters_of(self, rows: Tensor, labels: Tensor | None) -> Tensor:
        """Parameters of all conditionals, ``(rows, *head.decoder_shape)``."""
        centred = rows.to(self.zero.dtype) * (2 / (self.levels - 1)) - 1
        return self.net(centred, labels).to(self.zero.dtype)
