"""A small autoregressive model of binary images: each pixel is a coin whose logit one causal convolution computes."""

import torch
from torch import nn

from vaeflow.models import LikelihoodModel


class CausalConv(LikelihoodModel):
    """P(x) = Π_i P(x_i | x_<i), the pixels before i in a window around it."""

    kind, combining, objective_name, evaluation_samples = "exact", "exact", "log-likelihood", 1

    def __init__(self, reach: int = 3, **shared) -> None:
        super().__init__(**shared)
        self.conv = nn.Conv2d(self.shape[0], 1, 2 * reach + 1, padding=reach)
        before = torch.arange((2 * reach + 1) ** 2) < (2 * reach + 1) ** 2 // 2
        self.register_buffer("mask", before.float().view(2 * reach + 1, -1))

    def logits(self, x):
        return nn.functional.conv2d(x, self.conv.weight * self.mask, self.conv.bias, padding=self.conv.padding)

    def log_weights_of(self, x, context=None):
        x, context = self._checked_given(x, context)
        log_p = -nn.functional.binary_cross_entropy_with_logits(self.logits(x), x, reduction="none").flatten(1).sum(1)
        return lambda noise, num_samples: log_p.unsqueeze(0)

    def losses(self, x, noise, context):
        nll = -self.log_weights_of(x, context)(noise, 1)[0]
        return nll.mean(), {"objective": nll, "nll": nll}

    @torch.no_grad()
    def sample(self, n, noise, context=None, temperature=1.0, mean=False):
        noise, context = self._checked_draw(n, noise, context)
        u, x = noise.uniform("pixels", 1, self.shape)[0], torch.zeros(n, *self.shape, device=self.device)
        for i in range(x[0].numel()):
            x.flatten(1)[:, i] = (u.flatten(1)[:, i] < torch.sigmoid(self.logits(x)).flatten(1)[:, i]).float()
        return x
