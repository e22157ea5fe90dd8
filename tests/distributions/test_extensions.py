"""Dequantisation and augmentation, each with its own log-density."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import quiet_trainer, redraw
from vaeflow import models
from vaeflow.bijections import Affine, Chain, Coupling, InverseAutoregressive, UnitInterval
from vaeflow.data import Digits
from vaeflow.distributions import FlowDensity, GaussianMixture
from vaeflow.distributions.extensions import Augmentation, LearnedDequantisation, UniformDequantisation
from vaeflow.errors import VaeflowError
from vaeflow.evaluation import evaluate
from vaeflow.nets import MLPEncoder
from vaeflow.noise import Noise

small = functools.partial(MLPEncoder, hidden=[8])
learned = functools.partial(LearnedDequantisation, encoder=small)
flow = functools.partial(Chain, bijections=[Coupling, functools.partial(Coupling, swap=True)])


def make(shape: tuple[int, ...] = (2,), gain: float = 0.3, **arguments: Any) -> models.Flow:
    torch.manual_seed(0)
    return redraw(models.Flow(shape=shape, flow=flow, **arguments).double(), gain).eval()  # type: ignore[return-value]


def test_learned_dequantisation_set_to_uniform_gives_the_uniform_bound_term_by_term() -> None:
    """Where its flow is the identity q(u|x) = 1 to the last digits, and the log-weights are log p(x + u)."""
    torch.manual_seed(0)
    affine = functools.partial(learned, flow=functools.partial(InverseAutoregressive, transformer=Affine))
    model = models.Flow(shape=(3,), levels=5, flow=flow, dequantisation=affine, preprocess=UnitInterval).double()
    redraw(model.density, 0.3)
    redraw(model.dequantisation, 0.0)  # type: ignore[arg-type]
    x = torch.randint(5, (7, 3)).double()
    noise = Noise(seed=1).at(torch.arange(7))
    u, log_q = model.dequantisation.draw(x, None, noise, 4)  # type: ignore[union-attr]
    assert log_q.abs().max() < 1e-12
    uniform = noise.within("dequantisation").uniform("base", 4, (3,), torch.float64)
    torch.testing.assert_close(u, uniform, rtol=1e-12, atol=1e-12)
    wanted = model.density.log_prob((x + uniform) / 5) - 3 * math.log(5)
    torch.testing.assert_close(model.log_weights(x, noise, 4), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dequantisation", [UniformDequantisation, learned])
def test_probabilities_of_integers_sum_to_one(dequantisation: Any) -> None:
    """Whatever q(u|x), Σ_x E_q[p(x + u)/q(u|x)] = ∫ p over the square that the cells cover, here by quadrature."""
    model = make(levels=3, dequantisation=dequantisation, preprocess=UnitInterval)
    x = torch.cartesian_prod(torch.arange(3), torch.arange(3)).double()
    weights = model.log_weights(x, Noise(seed=1).at(torch.arange(9)), 20_000).exp()
    total, stderr = weights.mean(0).sum(), (weights.var(0) / len(weights)).sum().sqrt()
    axis = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    grid = torch.cartesian_prod(axis, axis)
    wanted = model.density.log_prob(grid).exp().mean()
    assert stderr < 0.02 * wanted
    assert abs(total - wanted) < 4 * stderr


def test_the_density_of_learned_noise_integrates_to_one() -> None:
    """As E over uniform u' of q(u'|x) is 1, the mean of 1/q over u ~ q is the volume of the cube, 1."""
    torch.manual_seed(0)
    part = redraw(LearnedDequantisation((2,), 4, encoder=small).double(), 0.4)
    x = torch.tensor([[0.0, 3.0], [2.0, 1.0]], dtype=torch.float64)
    u, log_q = part.draw(x, None, Noise(seed=1).at(torch.arange(2)), 50_000)  # type: ignore[operator]
    assert ((u > 0) & (u < 1)).all()
    inverse = (-log_q).exp()
    stderr = inverse.std(0) / math.sqrt(len(u))
    assert ((inverse.mean(0) - 1).abs() < 4 * stderr).all()
    assert (log_q.abs().mean(0) > 0.05).all()


def test_noise_knows_the_integers_and_not_other_images() -> None:
    torch.manual_seed(0)
    part: Any = redraw(LearnedDequantisation((3,), 4, encoder=small).double(), 0.4)
    x = torch.randint(4, (5, 3)).double()
    noise = Noise(seed=1).at(torch.arange(5))
    u, log_q = part.draw(x, None, noise, 2)
    other = x.clone()
    other[1, 2] = 3 - other[1, 2]
    u_other, log_q_other = part.draw(other, None, noise, 2)
    same = torch.arange(5) != 1
    assert torch.equal(u[:, same], u_other[:, same])
    assert torch.equal(log_q[:, same], log_q_other[:, same])
    assert not torch.isclose(u[:, 1], u_other[:, 1]).any()


@pytest.mark.parametrize("encoder", [None, small], ids=["noise", "encoder"])
@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)])
def test_augmented_densities_have_the_marginal_of_x(encoder: Any, shape: tuple[int, ...]) -> None:
    """E_q[p(x, e)/q(e|x)] = p(x), which integrates to one over x, by importance sampling from a wide normal."""
    augmentation = functools.partial(Augmentation, size=1, encoder=encoder)
    model = make(shape, 0.3 if len(shape) == 1 else 0.15, augmentation=augmentation)
    model.preprocess.set(torch.zeros(math.prod(shape)), torch.ones(math.prod(shape)))
    x = 2 * torch.randn(50_000, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    log_weights = model.log_weights(x, Noise(seed=1).at(torch.arange(len(x))), 4)
    proposal = torch.distributions.Normal(0.0, 2.0).log_prob(x).flatten(1).sum(1)
    ratios = (log_weights - proposal).exp().mean(0)
    stderr = ratios.std() / math.sqrt(len(x))
    assert stderr < 0.05
    assert abs(ratios.mean() - 1) < 4 * stderr
    assert (model.kind, model.combining) == ("importance-sampled", "log_mean_exp")


def test_an_exact_posterior_makes_every_weight_log_p() -> None:
    """(x, e) = A ε with ε ~ N(0, I): p(x) = N(0, A_x A_xᵀ), and q(e|x) = p(e|x) leaves nothing to chance."""
    torch.manual_seed(0)
    joint = torch.randn(3, 3, dtype=torch.float64)
    cov = joint @ joint.mT
    weight = (cov[2:, :2] @ torch.linalg.inv(cov[:2, :2]))[0]
    scale = (cov[2, 2] - weight @ cov[:2, 2]).sqrt()

    class Exact(torch.nn.Module):
        extended_shape = (3,)

        def __init__(self, shape: Any, context_features: int) -> None:
            super().__init__()

        def draw(self, y: Tensor, context: Tensor | None, noise: Noise, num_samples: int) -> tuple[Tensor, Tensor]:
            epsilon = noise.normal("e", num_samples, (1,), torch.float64)
            log_q = -0.5 * (epsilon.square().sum(-1) + math.log(2 * math.pi)) - scale.log()
            return (y @ weight)[..., None] + scale * epsilon, log_q

    model = models.Flow(shape=(2,), flow=flow, augmentation=Exact).double()
    normal = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), cov)
    model.density.log_prob = lambda y, context=None: normal.log_prob(y)  # type: ignore[method-assign]
    model.preprocess.set(torch.zeros(2), torch.ones(2))
    x = torch.randn(6, 2, dtype=torch.float64)
    marginal = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), cov[:2, :2])
    log_weights = model.log_weights(x, Noise(seed=1).at(torch.arange(6)), 5)
    torch.testing.assert_close(log_weights, marginal.log_prob(x).expand(5, -1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["Flow", "Glow"])
def test_augmented_and_dequantised_models_train_and_answer(name: str) -> None:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"shape": (1, 8, 8), "levels": 17, "dequantisation": learned}
    arguments["augmentation"] = functools.partial(Augmentation, encoder=small)
    made: Any = {
        "Flow": lambda: models.Flow(flow=flow, **arguments),
        "Glow": lambda: models.Glow(scales=2, steps=1, channels=8, **arguments),
    }
    model, data = made[name](), Digits()
    quiet_trainer(1, limit_val_batches=2).fit(model, data)
    results = evaluate(model, data, num_samples=3)
    assert results["kind"] == "importance-sampled"
    assert math.isfinite(results["nll"])
    assert results["bpd"] == pytest.approx(results["nll"] / (64 * math.log(2)))  # of x alone
    x, _ = data.examples("test", torch.arange(3))
    z = model.encode(x)
    assert z.shape == (3, 128)
    assert torch.equal(model.decode(z), x.to(model.dtype))
    assert model.sample(4, Noise()).shape == (4, 1, 8, 8)
    model.losses(x, Noise(index=torch.arange(3)), None)[0].backward()
    assert sum(p.grad is not None and bool(p.grad.any()) for p in model.dequantisation.parameters()) > 2
    assert sum(p.grad is not None and bool(p.grad.any()) for p in model.augmentation.parameters()) > 2


def test_a_posterior_that_no_gradient_passes_is_refused() -> None:
    with pytest.raises(VaeflowError, match="GaussianMixture picks at random"):
        Augmentation((2,), posterior=GaussianMixture, encoder=None)
    with pytest.raises(VaeflowError, match="size is 0"):
        Augmentation((2,), size=0)


def test_continuous_data_are_not_dequantised() -> None:
    with pytest.raises(VaeflowError, match="dequantisation makes real numbers of integers, and these data are real"):
        models.Flow(shape=(2,), flow=flow, dequantisation=learned)


def test_flows_refine_the_posterior_of_the_augmentation() -> None:
    posterior = functools.partial(FlowDensity, flow=flow)
    augmentation = functools.partial(Augmentation, size=2, encoder=small, posterior=posterior)
    model = make((2,), augmentation=augmentation)
    model.preprocess.set(torch.zeros(2), torch.ones(2))
    assert torch.isfinite(model.log_prob(torch.randn(5, 2), num_samples=3)).all()
