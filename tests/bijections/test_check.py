"""The check of a user's own map passes every one of ours, and finds each kind of mistake."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.bijections.test_bijections import EXAMPLES, FEATURES, PREPROCESSING, UNCONDITIONAL, C, D
from vaeflow.bijections import Bijection, check_bijection
from vaeflow.errors import VaeflowError


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - PREPROCESSING))
def test_ours_pass(name: str, conditional: bool) -> None:
    context_features = C if conditional and name not in UNCONDITIONAL else 0
    features = FEATURES.get(name, D)
    torch.manual_seed(0)
    assert check_bijection(EXAMPLES[name][1](features, context_features), features, context_features) == []


class Scale(Bijection):
    """x = z exp(s + A c), the identity where it starts, with a mistake."""

    def __init__(self, features: int, context_features: int, mistake: str) -> None:
        super().__init__()
        self.mistake = mistake
        self.s = torch.nn.Parameter(torch.zeros(features))
        self.a = torch.nn.Parameter(torch.zeros(features, context_features))

    def log_scale(self, context: Tensor | None) -> Tensor:
        return self.s if context is None else self.s + context @ self.a.T

    def forward(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        s = self.log_scale(context)
        log_det = s.sum(-1).expand(z.shape[:-1])
        return z * s.exp(), {"sign": -log_det, "factor": 0.5 * log_det, "none": 0 * log_det}.get(self.mistake, log_det)

    def inverse(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        if self.mistake == "one way":
            raise NotImplementedError
        s = self.log_scale(context)
        log_det = -s.sum(-1).expand(x.shape[:-1])
        if self.mistake == "inverse":
            return x * s.exp(), -log_det
        return x * (-s).exp(), -log_det if self.mistake == "sign of the inverse" else log_det


@pytest.mark.parametrize("context_features", [0, 3])
@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("sign", "log_det of Scale.forward is"),
        ("factor", "log_det of Scale.forward is"),
        ("none", "log_det of Scale.forward is"),
        ("sign of the inverse", "log_det of Scale.inverse is"),
        ("inverse", "inverse(forward(z)) of Scale is"),
        ("", None),
        ("one way", None),
    ],
)
def test_mistakes_are_found(mistake: str, message: str | None, context_features: int) -> None:
    scale = Scale(4, context_features, mistake)
    before = {name: value.clone() for name, value in scale.state_dict().items()}
    problems = check_bijection(scale, 4, context_features)
    assert len(problems) == (message is not None)
    assert message is None or problems[0].startswith(message)
    assert all(torch.equal(value, before[name]) for name, value in scale.state_dict().items())


def test_shapes_are_errors() -> None:
    scale = Scale(4, 0, "")
    scale.forward = lambda z, context=None: (z, z)  # type: ignore[method-assign]
    with pytest.raises(VaeflowError, match="Scale returned"):
        check_bijection(scale, 4)
