"""Whatever starts from the first batch does, wherever in a model it stands."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vaeflow
from tests.conftest import quiet_trainer
from vaeflow import models
from vaeflow.bijections import ActNorm, Bijection, Chain, Coupling, Inverse
from vaeflow.data import Digits, EnergyData
from vaeflow.distributions import FlowDensity, GaussianMixture
from vaeflow.errors import VaeflowError
from vaeflow.nets.initialisation import DataDependent, initialising
from vaeflow.noise import Noise

IMAGE = {"shape": (1, 8, 8), "levels": 17}
flow = functools.partial(Chain, bijections=[Coupling, ActNorm])


class Container(Bijection):
    """A user's own, which knows nothing of starts."""

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__()
        self.parts = nn.ModuleList([ActNorm(features), Coupling(features, context_features, hidden=[8])])

    def forward(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        z, first = self.parts[0](z)
        z, second = self.parts[1](z, context)
        return z, first + second

    def inverse(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        x, second = self.parts[1].inverse(x, context)
        x, first = self.parts[0].inverse(x)
        return x, first + second


PLACES: dict[str, Any] = {
    "a density": lambda: models.Flow(**IMAGE, flow=flow),
    "a prior": lambda: models.VAE(**IMAGE, latent_features=4, prior=functools.partial(FlowDensity, flow=flow)),
    "a posterior": lambda: models.VAE(**IMAGE, latent_features=4, flow=flow),
    "a prior that is a mixture": lambda: models.VAE(**IMAGE, latent_features=4, prior=GaussianMixture),
    "a user's container": lambda: models.Flow(**IMAGE, flow=Container),
    "a map turned round": lambda: models.Flow(**IMAGE, flow=functools.partial(Inverse, bijection=flow)),
    "a flow fitted to an energy": lambda: models.ReverseKL(flow=flow),
}


def parts_of(model: nn.Module) -> list[DataDependent]:
    return [part for part in model.modules() if isinstance(part, DataDependent)]


@pytest.mark.parametrize("name", PLACES)
def test_what_starts_from_data_does_wherever_it_stands(name: str, tmp_path: Path) -> None:
    """In training, of which nothing but the start is left by a learning rate of 0."""
    torch.manual_seed(0)
    model, data = PLACES[name](), EnergyData(num_train=300) if "energy" in name else Digits()
    model.optimizer = functools.partial(torch.optim.SGD, lr=0.0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    (part,) = parts_of(model)
    quiet_trainer(1, limit_val_batches=0).fit(model, data)
    assert part.started
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    assert any(key.endswith(("log_scale", "log_scales")) for key in changed), changed
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@pytest.mark.parametrize("is_generating", [False, True])
def test_what_comes_out_of_actnorm_has_zero_mean_and_unit_variance(is_generating: bool) -> None:
    act = ActNorm(3)
    x = torch.randn(4, 100, 3) * torch.tensor([1e-2, 1.0, 1e2]) + torch.tensor([0.0, 5.0, -1e3])
    with initialising(act):
        y, log_det = act(x) if is_generating else act.inverse(x)
    torch.testing.assert_close(y.flatten(0, 1).mean(0), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(y.flatten(0, 1).std(0, correction=0), torch.ones(3), rtol=1e-3, atol=0)
    torch.testing.assert_close(log_det[0, 0], -x.flatten(0, 1).std(0, correction=0).log().sum(), rtol=1e-3, atol=1e-3)
    again, _ = act.inverse(y) if is_generating else act(y)
    torch.testing.assert_close(again, x, rtol=1e-3, atol=1e-3)


def test_a_deep_chain_starts_layer_by_layer() -> None:
    """Each from what those before it, started already, make of the batch."""
    torch.manual_seed(0)
    chain = Chain(4, 0, [ActNorm, Coupling, ActNorm, Coupling, ActNorm])
    for coupling in chain.bijections[1::2]:
        nn.init.normal_(coupling.net.out.weight, std=0.3)
    x = 3 * torch.randn(200, 4) + 7
    with initialising(chain):
        z, _ = chain.inverse(x)
    h = x
    for bijection in reversed(chain.bijections):
        h, _ = bijection.inverse(h)
        if isinstance(bijection, ActNorm):
            torch.testing.assert_close(h.mean(0), torch.zeros(4), rtol=0, atol=1e-4)
            torch.testing.assert_close(h.std(0, correction=0), torch.ones(4), rtol=1e-4, atol=0)
    torch.testing.assert_close(h, z)


def test_a_start_is_kept_and_never_made_again(tmp_path: Path) -> None:
    model = models.Flow(**IMAGE, flow=flow)
    model.initialise(data := Digits())
    (part,) = parts_of(model)
    state = {key: value.clone() for key, value in part.state_dict().items()}
    with initialising(model):
        model.losses(torch.zeros(5, 1, 8, 8), Noise(), None)
    other = models.Flow(**IMAGE, flow=flow)
    other.load_state_dict(model.state_dict())
    other.initialise(data)
    for key, value in state.items():
        assert torch.equal(part.state_dict()[key], value)
        assert torch.equal(parts_of(other)[0].state_dict()[key], value)
    assert model.training
    assert not part.is_initialising


@pytest.mark.parametrize("name", ["a density", "a prior", "a posterior", "a prior that is a mixture"])
def test_evaluation_before_the_start_is_refused(name: str) -> None:
    model = PLACES[name]()
    x, _ = Digits().examples("test", torch.arange(3))
    with pytest.raises(
        VaeflowError, match=r"starts from training data, and has seen none: .*model\.initialise\(data\)"
    ):
        model.log_prob(x, num_samples=2)
    with vaeflow.initialising(model):
        model.losses(x, Noise(index=torch.arange(3)), None)
    assert torch.isfinite(model.log_prob(x, num_samples=2)).all()
