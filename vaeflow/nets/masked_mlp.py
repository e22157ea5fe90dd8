"""MADE, the masked net behind every autoregressive map (Germain et al. 2015, arXiv 1502.03509)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from vaeflow.errors import check_positive
from vaeflow.nets.conditioner import Conditioner, Context
from vaeflow.nets.masked import MaskedLinear
from vaeflow.nets.mlp import name_of_activation
from vaeflow.nets.parallel import is_able, parallel
from vaeflow.noise import Noise


class MaskedMLP(Conditioner):
    """θ_i = θ_i(x_<i, context): one net for all conditionals of an autoregressive model.

    Every unit has a degree: input i has i (1 … D), a hidden unit m may read what has a degree of at most m, and the
    outputs of feature i read hidden units of a degree below i. The context has degree 0, below every feature, so
    with a context there are hidden units of degree 0 as well, and every output depends on it, the first one too.

    Hidden units lie in the order of their degrees, so that each unit reads the first so many of the layer below.

    Sources: Germain, Gregor, Murray & Larochelle 2015, "MADE: Masked Autoencoder for Distribution Estimation",
    arXiv 1502.03509; residual blocks as in Nash & Durkan 2019, arXiv 1904.05626.

    Args:
        features: D.
        outputs: numbers of parameters of each feature, P.
        hidden: sizes of the hidden layers, at least one.
        context_features: dimension of the context; 0 for none.
        activation: relu, elu, silu, tanh, softplus, leaky_relu or gelu.
        reverse: the order is D … 1 instead of 1 … D.
        degrees: of hidden units, sequential (evenly spread) or random.
        residual_blocks: after the hidden layers, each of two more of the last one's size, added to their input.
        seed: of random degrees.

    >>> made = MaskedMLP(features=3, outputs=2, hidden=[16])
    >>> made(torch.randn(7, 3)).shape
    torch.Size([7, 3, 2])
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        hidden: Sequence[int],
        context_features: int = 0,
        activation: str = "elu",
        reverse: bool = False,
        degrees: Literal["sequential", "random"] = "sequential",
        residual_blocks: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(hidden, context_features, activation)
        check_positive(features=features)
        self.features, self.outputs, self.reverse = features, outputs, reverse
        self.order = list(range(features))[:: -1 if reverse else 1]
        lowest = 0 if context_features or features == 1 else 1
        noise = Noise(seed, "degrees", index=torch.zeros(1, dtype=torch.long))

        def degrees_of(layer: int, size: int) -> Tensor:
            """Ascending, the lowest one among them: of the first feature, or the context alone."""
            if degrees == "sequential":
                return lowest + torch.arange(size) * (features - lowest) // size
            drawn = noise.uniform(f"layer {layer}", 1, (size,), torch.float64)[0, 0] * max(1, features - lowest)
            drawn[0] = 0
            return lowest + drawn.long().sort().values

        of_layers = [degrees_of(k, size) for k, size in enumerate(hidden)]
        of_layers += [of_layers[-1]] * (2 * residual_blocks)
        counts = [torch.arange(features + 1)]
        for of_layer in of_layers:
            counts.append(torch.searchsorted(of_layer, counts[0], right=True))
        self.counts: list[list[int]] = [count.tolist() for count in counts]
        """How many units of each stage, the inputs first, have a degree of at most t, for t = 0 … D."""
        stages = [
            MaskedLinear(int(below[-1]), below[of_layer].tolist(), from_end=reverse and k == 0)
            for k, (below, of_layer) in enumerate(zip(counts[:-1], of_layers, strict=True))
        ]
        self.layers = nn.ModuleList(stages[: len(hidden)])
        blocks = zip(stages[len(hidden) :: 2], stages[len(hidden) + 1 :: 2], strict=True)
        self.blocks = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        reads = counts[-1][:-1].tolist()  # feature i of degree i reads the units of degrees below
        self.out = MaskedLinear(int(counts[-1][-1]), reads[:: -1 if reverse else 1], groups=outputs)
        self.stages = [*stages, self.out]
        """All layers, in the order in which they are applied."""
        self.num_weights = sum(stage.weight.numel() for stage in self.stages)
        self.ranges = np.concatenate([stage.ranges for stage in self.stages])
        """The columns that each unit of a group of each stage reads."""
        self.readers = np.concatenate([stage.readers for stage in self.stages])
        """The units of a group that read each column of each stage."""

    @property
    def stage_parameters(self) -> list[Tensor]:
        """Weight and bias of each stage."""
        return [parameter for stage in self.stages for parameter in (stage.weight, stage.bias)]

    @property
    def activation_name(self) -> str | None:
        """By which :func:`~vaeflow.nets.mlp.activation_named` makes its activation; None of others."""
        return name_of_activation(self.activation)

    def is_added(self, k: int) -> bool:
        """Whether stage k ends a residual block, and the sum of stage k − 2 is added to its own."""
        return len(self.layers) < k < len(self.stages) - 1 and (k - len(self.layers)) % 2 == 1

    def units(self, k: int, first: int, last: int) -> slice:
        """The units that stage k reads, which have degrees from ``first`` to ``last`` − 1; of stage 0, features."""
        counts = self.counts[k]
        start, stop = counts[first - 1] if first else 0, counts[last - 1] if last else 0
        return slice(self.features - stop, self.features - start) if self.reverse and k == 0 else slice(start, stop)

    def forward(self, x: Tensor, context: Context = None, by_layers: bool = False) -> Tensor:
        """``(..., batch, features)`` → ``(..., batch, features, outputs)``.

        Args:
            by_layers: apply layer after layer, instead of all at once in machine code where there is some.
        """
        if by_layers or not is_able(self, x):
            theta = self.out(self.hidden(x, context))
        else:
            theta, _ = parallel(self, None, False, x, context)
        return theta.unflatten(-1, (self.outputs, self.features)).movedim(-2, -1)
