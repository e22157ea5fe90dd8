"""The observation p(x|z) of latent-variable models: a distribution of data whose context is z."""

from __future__ import annotations

from torch import Tensor

from vaeflow.distributions.base import Distribution, full_precision
from vaeflow.distributions.heads import Likelihood
from vaeflow.errors import check_context, check_shape
from vaeflow.nets.base import Decoder
from vaeflow.nets.conditioner import Conditioned, Context, lead_of
from vaeflow.noise import Noise


class Factorised(Distribution):
    """p(x|z) = Π_i p(x_i|z): a decoder computes the parameters of all x_i from z alone, a head says what they mean.

    Args:
        decoder: z → parameters, ``(..., batch, context_features)`` → ``(..., batch, *head.decoder_shape)``.
        head: of the data's shape and levels.
        context_features: dimension of z, and of labels where there are any.
    """

    is_reparameterised = False

    def __init__(self, decoder: Decoder, head: Likelihood, context_features: int) -> None:
        super().__init__(head.shape, context_features)
        self.decoder, self.head = decoder, head

    def condition(self, context: Context) -> Conditioned:
        """The decoder's output, which mixed precision may compute; all logarithms are in the model's number type."""
        if isinstance(context, Conditioned):
            return context
        check_context(context, self.context_features)
        return Conditioned(self.decoder(context).to(self.zero.dtype), lead_of(context))

    def log_prob(self, y: Tensor, context: Context = None) -> Tensor:
        """``(..., batch, *event_shape)``, and z ``(num_samples, batch, D)`` → ``(num_samples, batch)``."""
        check_shape("x", y, *self.event_shape)
        parameters = self.condition(context).value
        with full_precision(y):
            return self.head.log_prob(y, parameters)

    def sample(
        self, num_samples: int = 1, context: Context = None, noise: Noise | None = None, temperature: float = 1.0
    ) -> Tensor:
        """The noise of data has no temperature."""
        conditioned = self.condition(context)
        return self.head.sample(conditioned.value, self._source(noise, conditioned, num_samples), num_samples)

    def mean(self, context: Context = None) -> Tensor:
        return self.head.mean(self.condition(context).value)
