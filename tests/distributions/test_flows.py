"""One flow as a model, a prior, a posterior, and a density of its own."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from tests.conftest import redraw
from vaeflow import models
from vaeflow.distributions import MAFDensity, SplineDensity
from vaeflow.errors import VaeflowError
from vaeflow.noise import Noise
from vaeflow.objectives import IWAE

IMAGE = {"shape": (1, 2, 2), "levels": 17}
DENSITIES: dict[str, Any] = {
    "MAF": functools.partial(MAFDensity, steps=2, hidden=[8]),
    "spline": functools.partial(SplineDensity, steps=2, hidden=[8]),
    "spline, autoregressive": functools.partial(SplineDensity, steps=2, hidden=[8], variant="autoregressive"),
}


@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.parametrize("place", ["prior", "posterior"])
def test_a_flow_is_a_prior_and_a_posterior(name: str, place: str) -> None:
    torch.manual_seed(0)
    model = redraw(models.VAE(**IMAGE, latent_features=3, **{place: DENSITIES[name]}).double(), 0.3).eval()
    x = torch.randint(17, (5, 1, 2, 2)).double()
    assert torch.isfinite(model.log_prob(x, num_samples=4)).all()  # type: ignore[operator]
    noise = Noise(index=torch.arange(5))
    terms = model.draws_of(x)(noise, 4)  # type: ignore[operator]
    group = terms.groups["z"]
    part = getattr(model, place)
    features = model._features(x, None) if place == "posterior" else None  # type: ignore[operator]
    torch.testing.assert_close(part.log_prob(group.z, features), group.log_q if place == "posterior" else group.log_p)
    loss, _ = model.losses(x, noise, None)  # type: ignore[operator]
    loss.backward()
    assert all(parameter.grad is not None for parameter in part.parameters())


def test_a_gradient_that_a_posterior_does_not_have_is_refused() -> None:
    objective = functools.partial(IWAE, k=2, doubly_reparameterised=True)
    with pytest.raises(VaeflowError, match=r"is that of a Gaussian posterior.* this is on StandardNormal"):
        models.VAE(**IMAGE, latent_features=3, posterior=DENSITIES["MAF"], objective=objective)


def test_a_model_that_names_no_groups_is_refused() -> None:
    class Nameless(models.VAE):
        def declare_groups(self, event_shapes: Any) -> None:
            """Forgotten."""

    with pytest.raises(VaeflowError, match="Nameless names no groups of latents: call declare_groups"):
        Nameless(**IMAGE).losses(torch.zeros(2, 1, 2, 2), Noise(), None)


@pytest.mark.parametrize(
    ("model", "density"),
    [
        (models.MAF(shape=(3,), steps=2, hidden=[8], batch_norm=False), DENSITIES["MAF"](3, 0)),
        (models.NeuralSplineFlow(shape=(3,), steps=2, hidden=[8]), DENSITIES["spline"](3, 0)),
    ],
    ids=["MAF", "spline"],
)
def test_the_model_is_the_density_of_the_data(model: Any, density: Any) -> None:
    redraw(density.double(), 0.5)
    model.double().density.load_state_dict(density.state_dict())
    model.preprocess.set(torch.zeros(3), torch.ones(3))
    y = torch.randn(6, 3, dtype=torch.float64)
    torch.testing.assert_close(model.log_prob(y), density.log_prob(y))
