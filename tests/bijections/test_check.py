"""The check of a user's own map passes every one of ours, and finds each kind of mistake."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.bijections.test_bijections import EXAMPLES, FEATURES, PREPROCESSING, UNCONDITIONAL, C, D
from vaeflow.bijections import Bijection, Composition, Coupling, check_bijection
from vaeflow.errors import VaeflowError


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - PREPROCESSING))
def test_ours_pass(name: str, conditional: bool) -> None:
    context_features = C if conditional and name not in UNCONDITIONAL else 0
    features = FEATURES.get(name, D)
    torch.manual_seed(0)
    assert check_bijection(EXAMPLES[name][1](features, context_features), features, context_features) == []


@pytest.mark.parametrize("seed", range(3))
def test_deep_flows_pass(seed: int) -> None:
    flow = Composition([Coupling(64, hidden=[128], swap=k % 2 == 1) for k in range(16)])
    assert check_bijection(flow, 64, seed=seed) == []


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
        wrong = {"sign": -log_det, "factor": 0.5 * log_det, "none": 0 * log_det, "one": s[..., 1:].sum(-1)}
        if self.mistake == "in place":
            z *= s.exp()
            return z, log_det
        if self.mistake == "singular":
            return torch.cat([z[..., :1], z[..., :-1]], -1), log_det
        if self.mistake == "nan":
            return z.log(), log_det
        if self.mistake == "order of samples":
            return z * s.exp() * torch.arange(1, 1 + z[..., 0].numel()).view(*z.shape[:-1], 1), log_det
        return z * s.exp(), wrong.get(self.mistake, log_det).expand(z.shape[:-1])

    def inverse(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        if self.mistake in ("one way", "singular"):
            raise NotImplementedError
        s = self.log_scale(context)
        log_det = -s.sum(-1).expand(x.shape[:-1])
        if self.mistake == "solver":
            with torch.no_grad():
                return x * (-s).exp(), log_det
        if self.mistake == "wrong solver":
            with torch.no_grad():
                return x * (-s).exp(), log_det - 100
        if self.mistake == "inverse":
            return x * s.exp(), log_det
        return x * (-s).exp(), -log_det if self.mistake == "sign of the inverse" else log_det


@pytest.mark.parametrize("context_features", [0, 3])
@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("sign", "the log_dets of Scale disagree: "),
        ("factor", "the log_dets of Scale disagree: "),
        ("none", "the log_dets of Scale disagree: "),
        ("one", "the log_dets of Scale disagree: "),
        ("sign of the inverse", "the log_dets of Scale disagree: "),
        ("wrong solver", "the log_dets of Scale disagree: "),
        ("inverse", "inverse(forward(z)) of Scale is"),
        ("order of samples", "Scale.forward of several samples is"),
        ("singular", "Scale has a singular Jacobian by autograd, so its log_det could not be checked."),
        ("nan", "Scale.forward gives NaN or infinity"),
        ("", None),
        ("one way", None),
        ("solver", None),
        ("in place", None),
    ],
)
def test_mistakes_are_found(mistake: str, message: str | None, context_features: int) -> None:
    scale = Scale(256 if mistake == "one" else 4, context_features, mistake)
    before = {name: value.clone() for name, value in scale.state_dict().items()}
    problems = check_bijection(scale, 256 if mistake == "one" else 4, context_features)
    assert bool(problems) == (message is not None), problems
    assert message is None or problems[0].startswith(message)
    assert all(torch.equal(value, before[name]) for name, value in scale.state_dict().items())
    assert scale.s.dtype == torch.float32
    assert scale.training


@pytest.mark.parametrize("mistake", ["sign", "none"])
def test_the_direction_that_is_there_is_checked(mistake: str) -> None:
    scale = Scale(4, 0, mistake)
    scale.inverse = lambda x, context=None: (_ for _ in ()).throw(NotImplementedError)  # type: ignore[method-assign]
    assert check_bijection(scale, 4)[0].startswith("log_det of Scale.forward is")


def test_shapes_are_errors() -> None:
    scale = Scale(4, 0, "")
    scale.forward = lambda z, context=None: (z, z)  # type: ignore[method-assign]
    with pytest.raises(VaeflowError, match="Scale returned"):
        check_bijection(scale, 4)
    assert scale.s.dtype == torch.float32
