"""Inverse autoregressive flow (Kingma et al. 2016, arXiv 1606.04934)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeflow.bijections.base import Bijection, Chain, Context
from vaeflow.bijections.elementwise import bounded
from vaeflow.bijections.solve import solve_autoregressive
from vaeflow.errors import check_positive, check_shape
from vaeflow.nets.made import MADE


class InverseAutoregressive(Chain):
    """K gated autoregressive steps, the order of the features reversed between them.

        x = σ ⊙ z + (1 − σ) ⊙ m,    σ = sigmoid(s + 2),    (m, s) = MADE(z, context),
        log |det ∂x/∂z| = Σ_i log σ_i.

    m_i and s_i depend on z_<i and on the context. The shift of 2 opens the gates at the start, whatever the data, as
    the paper advises (a bias of 1 to 2); s is bounded smoothly to ±7, so that no gate closes for good.

    | direction | cost |
    |---|---|
    | ``forward``, z → x: sampling, with the density of the sample | one pass of K nets |
    | ``inverse``, x → z: the density of a point from outside | features × K passes |

    For a cheap density, as of a learned prior, wrap it in :class:`~vaeflow.bijections.base.Inverse`.

    Source: Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling 2016, "Improving Variational Inference with
    Inverse Autoregressive Flow", arXiv 1606.04934, algorithm 1 and equations 13–14.

    Args:
        features: D, the dimension of z.
        context_features: dimension of the context; 0 for none.
        steps: K.
        hidden: sizes of the hidden layers of each step's MADE.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.

    >>> flow = InverseAutoregressive(features=3, context_features=8, steps=2, hidden=[32])
    >>> x, log_det = flow(torch.randn(100, 5, 3), torch.randn(5, 8))  # 100 samples for each of 5 contexts
    >>> log_det.shape
    torch.Size([100, 5])
    """

    def __init__(
        self,
        features: int,
        context_features: int = 0,
        steps: int = 1,
        hidden: Sequence[int] = (320,),
        activation: str = "elu",
    ) -> None:
        check_positive(features=features, steps=steps)
        super().__init__(
            GatedAutoregressiveStep(features, context_features, hidden, activation, reverse=k % 2 == 1)
            for k in range(steps)
        )


class GatedAutoregressiveStep(Bijection):
    """One step of :class:`InverseAutoregressive`.

    Args:
        features, context_features, hidden, activation: see there.
        reverse: take the features from the last to the first.
    """

    def __init__(
        self,
        features: int,
        context_features: int = 0,
        hidden: Sequence[int] = (320,),
        activation: str = "elu",
        reverse: bool = False,
    ) -> None:
        super().__init__()
        self.made = MADE(features, 2, hidden, context_features, activation, reverse)

    def forward(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("z", z, self.made.features)
        m, s = self.made(z, context).unbind(-2)
        s = bounded(s) + 2
        return m + torch.sigmoid(s) * (z - m), F.logsigmoid(s).sum(-1)

    def inverse(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        check_shape("x", x, self.made.features)
        context = self.condition(context)
        return solve_autoregressive(lambda z: self.made(z, context), self._inverse_of_one, x, self.made.order)

    def condition(self, context: Context) -> Context:
        return self.made.condition(context)

    @staticmethod
    def _inverse_of_one(x_i: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        m, s = parameters.unbind(-1)
        s = bounded(s) + 2
        return x_i + (x_i - m) * torch.exp(-s), -F.logsigmoid(s)  # (x − m)/σ + m, where 1/σ = 1 + exp(−s)
