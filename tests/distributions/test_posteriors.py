"""Posteriors and densities know the density of what they draw."""

from __future__ import annotations

import functools

import pytest
import torch

from tests.conftest import redraw
from vaeflow.bijections import Inverse, InverseAutoregressive, Planar, Radial, Sylvester
from vaeflow.distributions import DiagonalGaussian, Distribution, FlowDensity, Normal, StandardNormal
from vaeflow.distributions.base import Given
from vaeflow.errors import VaeflowError
from vaeflow.noise import Noise

FLOWS = {
    "planar": functools.partial(Planar, steps=3),
    "radial": functools.partial(Radial, steps=3),
    "iaf": functools.partial(InverseAutoregressive, steps=2, hidden=[16]),
    "sylvester": functools.partial(Sylvester, steps=2, bottleneck=2),
}


def posterior(flow: str | None) -> Distribution:
    """Of three latents, with four features of x as its context."""
    made = FlowDensity(3, 4, FLOWS[flow], DiagonalGaussian) if flow else DiagonalGaussian(3, 4)
    return redraw(made.double(), 1.0)


@pytest.mark.parametrize("flow", [None, *FLOWS])
def test_log_prob_of_draws_is_that_of_the_inverse(flow: str | None) -> None:
    """log q(z|x) = log N(f⁻¹(z); μ, σ²) + log |det ∂f⁻¹/∂z|, with torch's own normal density."""
    q, features = posterior(flow), torch.randn(5, 4, dtype=torch.float64)
    z, log_q = q.rsample_with_log_prob(7, features, Noise(index=torch.arange(5)))
    assert z.shape == (7, 5, 3)
    assert log_q.shape == (7, 5)
    z_0, log_det = (z, 0) if flow is None else q.flow.inverse(z, features)
    gaussian = getattr(q, "base", q).condition(features).value
    normal = torch.distributions.Normal(gaussian.mean, gaussian.log_scale.exp())
    torch.testing.assert_close(log_q, normal.log_prob(z_0).sum(-1) + log_det, rtol=1e-7, atol=1e-7)
    if flow != "planar":  # whose inverse is to single digits of its own
        torch.testing.assert_close(log_q, q.log_prob(z, features), rtol=1e-7, atol=1e-7)
    given = Given(q, q.condition(features))
    assert torch.equal(given.rsample_with_log_prob(7, Noise(index=torch.arange(5)))[0], z)


def test_analytic_kl_is_the_monte_carlo_kl() -> None:
    q, features = posterior(None), torch.randn(6, 4, dtype=torch.float64)
    normal = q.condition(features).value
    z, log_q = q.rsample_with_log_prob(20_000, features, Noise(index=torch.arange(6)))
    other = Normal(torch.full((3,), 0.3).double(), torch.tensor([-0.2, 0.1, 0.5]).double())
    for prior, kl in ((StandardNormal(3).double(), normal.kl()), (other, normal.kl(other))):
        ratio = log_q - prior.log_prob(z)
        stderr = ratio.std(0) / len(ratio) ** 0.5
        assert ((ratio.mean(0) - kl.sum(-1)).abs() < 4 * stderr).all()
    assert not other.kl(other).any()


def test_normals_of_images_are_those_of_vectors() -> None:
    mean, log_scale, y = torch.randn(3, 4, 2, 2, 2).unbind(0)
    image, vector = Normal(mean, log_scale, 3), Normal(mean.flatten(1), log_scale.flatten(1))
    torch.testing.assert_close(image.log_prob(y), vector.log_prob(y.flatten(1)))
    torch.testing.assert_close(image.kl().flatten(1), vector.kl())


def test_a_context_of_each_draw_is_of_as_many_draws_as_are_asked_for() -> None:
    """Else all would quietly share the noise of one."""
    q, features, noise = posterior("iaf"), torch.randn(7, 5, 4, dtype=torch.float64), Noise(index=torch.arange(5))
    z, log_q = q.rsample_with_log_prob(7, features, noise)
    torch.testing.assert_close(log_q[3], q.log_prob(z[3], features[3]))
    assert not torch.allclose(*q.sample(2, features[:1].expand(2, -1, -1), noise))
    with pytest.raises(VaeflowError, match="the context is of 7 draws for each example, and num_samples is 1"):
        q.sample(1, features, noise)


def test_without_noise_draws_come_from_torchs_generator() -> None:
    features = torch.randn(5, 4, dtype=torch.float64)
    q = posterior("iaf")
    torch.manual_seed(0)
    a, b = q.sample(2, features), q.sample(2, q.condition(features))
    torch.manual_seed(0)
    assert torch.equal(q.sample(2, features), a)
    assert a.shape == b.shape == (2, 5, 3)
    assert not torch.equal(a, b)
    assert StandardNormal(3).sample(2).shape == (2, 1, 3)


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
    warm, cold = (density.sample(2, None, noise, temperature) for temperature in (1.0, 0.5))
    assert torch.equal(cold, 0.5 * warm)
    assert warm.shape == (2, 100, 3)
    assert warm.dtype == torch.float64
