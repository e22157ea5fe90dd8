"""Fitting an energy: log Z, the annealing, and a KL that is what quadrature says."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import quiet_trainer
from vaeflow.bijections import Chain, LULinear, Planar, Radial
from vaeflow.data import EnergyData, Toy
from vaeflow.distributions import (
    AutoregressiveMixture,
    DeepGaussianMixture,
    FlowDensity,
    GaussianMixture,
)
from vaeflow.distributions.energies import U1, U2, U3, U4, Energy
from vaeflow.errors import VaeflowError
from vaeflow.evaluation import evaluate
from vaeflow.models import MAF, ReverseKL
from vaeflow.noise import Noise

LOG_Z = {U1: 1.8775, U2: 2.1129, U3: 2.6726, U4: 2.7416}


@pytest.mark.parametrize("energy", LOG_Z)
def test_log_normaliser(energy: type[Energy]) -> None:
    assert energy().log_normaliser() == pytest.approx(LOG_Z[energy], abs=6e-5)


class Normal(Energy):
    """½ ‖(z − m)/s‖²."""

    def forward(self, z: Tensor) -> Tensor:
        m, s = (torch.tensor(v, dtype=z.dtype) for v in ((1.0, -0.5), (0.7, 1.5)))
        return 0.5 * ((z - m) / s).square().sum(-1)


def test_kl_of_a_normal_is_in_closed_form() -> None:
    """KL(N(0, I) ‖ N(m, s²)) = Σ [log s + (1 + m²)/(2 s²) − ½], of a flow that is the identity."""
    model = ReverseKL(energy=Normal, flow=LULinear)
    m, s = torch.tensor([1.0, -0.5]), torch.tensor([0.7, 1.5])
    wanted = (s.log() + (1 + m.square()) / (2 * s.square()) - 0.5).sum().item()
    results = evaluate(model, EnergyData(Normal, num_test=200_000))
    assert abs(results["kl"] - wanted) < 4 * results["kl_stderr"]
    assert results["kl_stderr"] < 0.01
    assert (results["kind"], results["measure"], results["nll"]) == ("reverse-kl", "energy", None)


def test_mixed_precision_changes_nothing() -> None:
    model = ReverseKL(flow=functools.partial(Planar, steps=8))
    noise = Noise(index=torch.arange(100))
    wanted = model.terms(noise)
    with torch.autocast("cpu", torch.bfloat16):
        for under_autocast, plain in zip(model.terms(noise), wanted, strict=True):
            torch.testing.assert_close(under_autocast, plain, rtol=0, atol=0)


def test_annealing_multiplies_the_energy_in_training_alone() -> None:
    model = ReverseKL(energy=U1, flow=Planar, annealing_steps=200)
    noise = Noise(index=torch.arange(1000))
    log_q, energy = model.terms(noise)
    for step, beta in ((0, 0.01), (50, 0.26), (500, 1.0)):
        model.__class__ = type("At", (ReverseKL,), {"global_step": step})
        model.train()
        loss, values = model.losses(torch.zeros(1000, 2), noise, None)
        torch.testing.assert_close(loss, (log_q + beta * energy).mean())
        torch.testing.assert_close(values["kl"], log_q + energy + model.log_normaliser)
    assert model.eval().beta == 1


@pytest.mark.parametrize("energy", LOG_Z)
def test_kl_agrees_with_quadrature(energy: type[Energy]) -> None:
    """∫ q (log q − log p) on a grid, against the mean over samples; after a short training."""
    torch.manual_seed(0)
    flow = functools.partial(Chain, bijections=[functools.partial(Planar, steps=4), functools.partial(Radial, steps=2)])
    model = ReverseKL(energy=energy, flow=flow, annealing_steps=100,
                      optimizer=functools.partial(torch.optim.Adam, lr=1e-2))  # fmt: skip
    data = EnergyData(energy, batch_size=256, num_train=256 * 300, num_val=1000, num_test=50_000)
    quiet_trainer(1, gradient_clip_val=10).fit(model, data)
    results = evaluate(model.eval(), data)
    assert results["kl"] > -3 * results["kl_stderr"]
    model = model.double()
    axis = torch.linspace(-12, 12, 801, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        log_q = model.log_weights(z, Noise(), 1)[0]
        assert (log_q.exp().sum() * 0.03**2).item() == pytest.approx(1, abs=1e-3)
        kl = (log_q.exp() * (log_q + model.energy(z) + model.log_normaliser)).sum().item() * 0.03**2
    assert abs(results["kl"] - kl) < 4 * results["kl_stderr"] + 1e-3


def test_data_of_the_wrong_kind_are_refused() -> None:
    plain = MAF(shape=(2,))
    for model, data in ((ReverseKL(), Toy(num_test=10)), (plain, EnergyData(num_test=10))):
        with pytest.raises(VaeflowError, match="an energy has no examples"):
            evaluate(model, data)
    with pytest.raises(VaeflowError, match="the model was fitted to U1, but the data are U2"):
        evaluate(ReverseKL(energy=U1), EnergyData(U2, num_test=10))
    wrong: list[dict[str, Any]] = [{"shape": (3,)}, {"shape": (2,), "levels": 4}]
    for arguments in wrong:
        with pytest.raises(VaeflowError, match="take --data EnergyData"):
            ReverseKL(**arguments)
    for base in (GaussianMixture, DeepGaussianMixture, AutoregressiveMixture):
        with pytest.raises(VaeflowError, match=f"{base.__name__} picks a component"):
            ReverseKL(base=base)
    with pytest.raises(VaeflowError, match="GaussianMixture picks a component"):
        ReverseKL(base=functools.partial(FlowDensity, flow=Planar, base=GaussianMixture))


def test_energies_are_told_apart_by_their_fingerprint() -> None:
    assert len({EnergyData(energy).fingerprint() for energy in LOG_Z}) == 4
    assert EnergyData(U1, num_test=10).fingerprint() == EnergyData(U1, num_test=20).fingerprint()
    assert "U1, log Z = 1.8775 by quadrature" in EnergyData(U1, num_test=10).protocol
