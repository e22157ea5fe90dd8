"""Posteriors and densities know the density of what they draw."""

from __future__ import annotations

import functools

import pytest
import torch

from tests.conftest import redraw
from vaeflow.bijections import Inverse, InverseAutoregressive, Planar, Radial, Sylvester
from vaeflow.distributions import FlowDensity, Posterior, StandardNormal
from vaeflow.noise import Noise

FLOWS = {
    "planar": functools.partial(Planar, steps=3),
    "radial": functools.partial(Radial, steps=3),
    "iaf": functools.partial(InverseAutoregressive, steps=2, hidden=[16]),
    "sylvester": functools.partial(Sylvester, steps=2, bottleneck=2),
}


@pytest.mark.parametrize("flow", [None, *FLOWS])
def test_log_prob_of_draws_is_that_of_the_inverse(flow: str | None) -> None:
    """log q(z|x) = log N(f⁻¹(z); μ, σ²) + log |det ∂f⁻¹/∂z|, with torch's own normal density."""
    posterior = redraw(Posterior(4, 3, FLOWS[flow] if flow else None).double(), 1.0)
    q = posterior(torch.randn(5, 4, dtype=torch.float64))
    z, log_q = q.rsample_with_log_prob(Noise(index=torch.arange(5)), 7)
    assert z.shape == (7, 5, 3)
    assert log_q.shape == (7, 5)
    z_0, log_det = (z, 0) if q.flow is None else q.flow.inverse(z, q.context)
    normal = torch.distributions.Normal(q.mean, q.log_scale.exp())
    torch.testing.assert_close(log_q, normal.log_prob(z_0).sum(-1) + log_det, rtol=1e-7, atol=1e-7)


def test_analytic_kl_is_the_monte_carlo_kl() -> None:
    q = redraw(Posterior(4, 3).double(), 1.0)(torch.randn(6, 4, dtype=torch.float64))
    z, log_q = q.rsample_with_log_prob(Noise(index=torch.arange(6)), 20_000)
    ratio = log_q - StandardNormal(3).double().log_prob(z)
    stderr = ratio.std(0) / len(ratio) ** 0.5
    assert ((ratio.mean(0) - q.kl_to_standard_normal().sum(-1)).abs() < 4 * stderr).all()


def test_kl_of_the_prior_itself_is_zero_and_of_a_flow_unknown() -> None:
    posterior = Posterior(4, 3)
    with torch.no_grad():
        posterior.gaussian.weight.zero_()
    assert not posterior(torch.randn(2, 4)).kl_to_standard_normal().any()
    with pytest.raises(TypeError, match="no closed form"):
        Posterior(4, 3, FLOWS["iaf"])(torch.randn(2, 4)).kl_to_standard_normal()


@pytest.mark.parametrize("flow", FLOWS)
def test_flow_density_integrates_to_one(flow: str) -> None:
    """On a grid in the plane; for the inverse direction too."""
    axis = torch.linspace(-12, 12, 481, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    for make in (FLOWS[flow], functools.partial(Inverse, bijection=FLOWS[flow])):
        density = redraw(FlowDensity(2, 0, make).double(), 0.5)
        with torch.no_grad():
            total = density.log_prob(points).exp().sum() * (axis[1] - axis[0]) ** 2
        assert total.item() == pytest.approx(1, abs=2e-3)


def test_standard_normal_is_torchs_and_temperature_scales_it() -> None:
    density, noise = StandardNormal(3).double(), Noise(index=torch.arange(100))
    z = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(density.log_prob(z), torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1))
    assert torch.equal(density.sample(noise, temperature=0.5), 0.5 * density.sample(noise))
    assert density.sample(noise).dtype == torch.float64
