"""Densities integrate to one, their samples are theirs, and closed forms are what they should be."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

import vaeflow.bijections as B
from tests.conftest import redraw
from vaeflow.data.toys import moons
from vaeflow.distributions import (
    AutoregressiveMixture,
    DeepGaussianMixture,
    Distribution,
    FlowDensity,
    GaussianDensity,
    GaussianMixture,
    StandardLogistic,
    StandardNormal,
    Uniform,
)
from vaeflow.errors import VaeflowError
from vaeflow.nets.initialisation import initialising
from vaeflow.noise import Noise

C = 3
spline = functools.partial(B.RationalQuadraticSpline, bins=5, bound=3.0)


def flow(*bijections: Callable[[int, int], B.Bijection], **arguments: Any) -> Callable[[int, int], Distribution]:
    return functools.partial(FlowDensity, flow=functools.partial(B.Chain, bijections=bijections), **arguments)


mixture = functools.partial(AutoregressiveMixture, components=3, hidden=[16])
DENSITIES: dict[str, Callable[[int, int], Distribution]] = {
    "normal": StandardNormal,
    "logistic": StandardLogistic,
    "uniform": Uniform,
    "Gaussian": GaussianDensity,
    "mixture": GaussianMixture,
    "deep mixture": functools.partial(DeepGaussianMixture, components=(2, 3)),
    "autoregressive mixture": mixture,
    "planar": flow(functools.partial(B.Planar, steps=4)),
    "NICE": flow(B.Rescaling, functools.partial(B.Coupling, transformer=B.Additive), base=StandardLogistic),
    "RealNVP": flow(B.Coupling, B.BatchNorm, functools.partial(B.Coupling, swap=True)),
    "MAF": flow(B.BatchNorm, functools.partial(B.MaskedAutoregressive, steps=2, hidden=[32]), base=mixture),
    "IAF": flow(functools.partial(B.InverseAutoregressive, steps=2, hidden=[16])),
    "spline, coupling": flow(B.LULinear, functools.partial(B.Coupling, transformer=spline), B.Permutation, B.ActNorm),
    "spline, autoregressive": flow(
        B.Rotation, functools.partial(B.MaskedAutoregressive, transformer=spline, hidden=[16])
    ),
}
CONDITIONAL = ["planar", "MAF", "IAF", "spline, autoregressive", "autoregressive mixture", "NICE", "RealNVP"]
every = pytest.mark.parametrize("name", DENSITIES)


@functools.cache
def make(name: str, context_features: int = 0) -> Distribution:
    """A density trained for a moment on two moons; where there is a context, its first number shifts them."""
    torch.manual_seed(0)
    density = DENSITIES[name](2, context_features).double()
    x = torch.from_numpy(moons(np.random.default_rng(0), 8000))
    context = torch.randn(len(x), context_features, dtype=torch.float64) if context_features else None
    if context is not None:
        x = x + context[:, :1]
    with initialising(density):
        density.log_prob(x[:500], None if context is None else context[:500])
    if any(p.requires_grad for p in density.parameters()):
        optimizer = torch.optim.Adam(density.parameters(), lr=1e-2)
        for step in range(120):
            part = slice(step % 32 * 250, (step % 32 + 1) * 250)
            optimizer.zero_grad()
            (-density.log_prob(x[part], None if context is None else context[part]).mean()).backward()
            optimizer.step()
    density.eval().refresh([x], [context])
    return density.requires_grad_(False)


def grid(points: int) -> tuple[Tensor, float]:
    axis = torch.linspace(-9, 9, points, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), (18 / (points - 1)) ** 2


def log_prob(density: Distribution, x: Tensor, context: Tensor | None = None) -> Tensor:
    return torch.cat([density.log_prob(part, context) for part in x.split(200_000)])


@every
def test_density_integrates_to_one_and_has_the_samples_entropy(name: str) -> None:
    """∫ p = 1, and the mean of log p over samples is ∫ p log p, by two independent ways."""
    density = make(name)
    x, cell = grid(701)
    log_p = log_prob(density, x)
    within = {"logistic": 2e-3, "uniform": 0.05}.get(name, 1e-3)  # tails beyond the grid; an edge through its cells
    assert (log_p.exp().sum() * cell).item() == pytest.approx(1, abs=within)
    p = log_p.exp()
    wanted = (p * log_p.where(p > 0, 0.0)).sum() * cell
    n = 20_000
    samples = density.sample(noise=Noise(seed=3).at(torch.arange(n)))[0].double()
    assert samples.shape == (n, 2)
    got = log_prob(density, samples)
    assert (got.mean() - wanted).abs() < 4 * got.std() / n**0.5 + 10 * within


@pytest.mark.parametrize("name", CONDITIONAL)
def test_conditional_densities_integrate_to_one_for_every_context(name: str) -> None:
    density = make(name, C)
    x, cell = grid(501)
    densities = [log_prob(density, x, context).exp() for context in torch.randn(2, 1, C, dtype=torch.float64)]
    assert [(p.sum() * cell).item() for p in densities] == pytest.approx([1, 1], abs=2e-3)
    assert (densities[0] - densities[1]).abs().sum() * cell > 0.1
    contexts = torch.randn(5, C, dtype=torch.float64)
    samples = density.sample(1, contexts, Noise().at(torch.arange(5)))[0].double()
    one = torch.cat([density.log_prob(samples[i : i + 1], contexts[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(density.log_prob(samples, contexts), one)


def two_sample_p_value(density: Distribution, x: Tensor, y: Tensor) -> float:
    """Hotelling's test of equal means, in two samples, of x₁, x₂, x₁², x₂², x₁x₂ and log p(x)."""

    def features(x: Tensor) -> Tensor:
        return torch.cat([x, x.square(), x.prod(-1, keepdim=True), log_prob(density, x).unsqueeze(-1)], dim=-1)

    f, g = features(x), features(y)
    difference = f.mean(0) - g.mean(0)
    covariance = torch.cov(f.T) / len(f) + torch.cov(g.T) / len(g)
    return float(chi2.sf(float(difference @ torch.linalg.solve(covariance, difference)), len(difference)))


def draws_by_rejection(density: Distribution, n: int, half: float = 8.0) -> Tensor:
    """Samples that owe nothing to ``sample``: uniform points, kept with probability p(x)/max p."""
    generator = torch.Generator().manual_seed(7)
    x = half * (2 * torch.rand(200 * n, 2, generator=generator, dtype=torch.float64) - 1)
    log_p = log_prob(density, x)
    kept = torch.rand(len(x), generator=generator, dtype=torch.float64).log() < log_p - log_p.max()
    assert kept.sum() >= n
    return x[kept][:n]


@pytest.mark.parametrize("name", [name for name in DENSITIES if name not in ("normal", "logistic", "uniform")])
def test_samples_and_density_agree_by_a_two_sample_test(name: str) -> None:
    """At a level of 1 %; samples that are scaled by 1.1 or turned by 10° are told apart."""
    density = make(name)
    n = 3000
    ours = density.sample(noise=Noise(seed=1).at(torch.arange(n)))[0].double()
    theirs = draws_by_rejection(density, n)
    angle = math.radians(10)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    assert two_sample_p_value(density, ours, theirs) > 0.01
    assert two_sample_p_value(density, ours @ turn.T, theirs) <= 0.01
    assert two_sample_p_value(density, 1.1 * ours, theirs) <= 0.01


def test_gaussian_is_of_maximum_likelihood() -> None:
    generator = torch.Generator().manual_seed(0)
    data = (
        torch.randn(500, 4, generator=generator, dtype=torch.float64) @ torch.randn(4, 4, generator=generator).double()
    )
    for covariance in ("full", "diagonal"):
        density = GaussianDensity(4, covariance=covariance)  # type: ignore[arg-type]
        density.refresh(list(data.split(120)), [None] * 5)
        sigma = torch.cov(data.T, correction=0)
        if covariance == "diagonal":
            sigma = torch.diag(sigma.diagonal())
        wanted = torch.distributions.MultivariateNormal(data.mean(0), sigma).log_prob(data)
        torch.testing.assert_close(density.log_prob(data), wanted)
        torch.testing.assert_close(density.decode(density.encode(data)), data)
        assert sum(p.numel() for p in density.parameters()) == (14 if covariance == "full" else 8)


def test_a_singular_covariance_is_refused() -> None:
    data = torch.randn(100, 3, dtype=torch.float64)
    data[:, 2] = data[:, 0] + data[:, 1]
    with pytest.raises(VaeflowError, match="the covariance of the training data is singular"):
        GaussianDensity(3).refresh([data], [None])
    with pytest.raises(VaeflowError, match="singular"):
        GaussianDensity(3).refresh([data[:2]], [None])


def test_deep_mixture_is_the_sum_over_its_paths() -> None:
    torch.manual_seed(0)
    density = redraw(DeepGaussianMixture(3, components=(2, 3)).double(), 0.7)
    x = torch.randn(5, 3, dtype=torch.float64)
    total = []
    for i in range(2):
        for j in range(3):
            matrices = [
                (lower @ upper)[c] for (lower, upper, _), c in ((density._factors(0), i), (density._factors(1), j))
            ]
            mean = matrices[1] @ density.biases[0][i] + density.biases[1][j]
            matrix = matrices[1] @ matrices[0]
            weight = density.logits[0].log_softmax(0)[i] + density.logits[1].log_softmax(0)[j]
            gaussian = torch.distributions.MultivariateNormal(mean, matrix @ matrix.T)
            total.append(weight + gaussian.log_prob(x))
    torch.testing.assert_close(density.log_prob(x), torch.logsumexp(torch.stack(total), 0))


def test_too_many_paths_are_refused() -> None:
    assert DeepGaussianMixture(2, components=(64, 64)).paths == 4096
    with pytest.raises(VaeflowError, match=r"4 × 1025 components have 4,100 paths, expected at most 4,096"):
        DeepGaussianMixture(2, components=(4, 1025))


def test_autoregressive_mixture_with_one_component_is_a_flow() -> None:
    density = AutoregressiveMixture(4, components=1, hidden=[16]).double()
    step = B.MaskedAutoregressiveStep(4, hidden=[16], activation="relu").double()
    step.made.load_state_dict(
        {k: v for k, v in density.made.state_dict().items() if not k.startswith("out")}, strict=False
    )
    with torch.no_grad():
        for part in ("weight", "bias"):  # of logits, mean and log-scale; the flow has log-scale, then mean
            _, mean, log_scale = getattr(density.made.out, part).chunk(3)
            getattr(step.made.out, part).copy_(torch.cat([log_scale, mean]))
    z, log_det = step.inverse(x := torch.randn(7, 4, dtype=torch.float64))
    torch.testing.assert_close(density.log_prob(x), StandardNormal(4).log_prob(z) + log_det)


def test_autoregressive_mixture_begins_near_the_product_of_the_marginals() -> None:
    """Of an exponential with an edge, and of two narrow Gaussians far apart."""
    torch.manual_seed(0)
    exponential = -6 - torch.empty(4000, dtype=torch.float64).exponential_()
    two = torch.where(torch.rand(4000) < 0.25, -5.0, 5.0).double() + 0.1 * torch.randn(4000).double()
    x = torch.stack([exponential, two], -1)
    density = AutoregressiveMixture(2, components=10, hidden=[16]).double()
    assert -density.log_prob(x).mean() > 20
    with initialising(density):
        density.log_prob(x[:500])
    entropy = 1 + 0.5 * math.log(2 * math.pi * math.e * 0.01) - 0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    nll = -density.log_prob(x[500:]).mean()
    assert entropy < nll < entropy + 0.5
    before = copy.deepcopy(density.state_dict())
    with initialising(density):
        density.log_prob(2 * x)
    assert all(torch.equal(value, before[key]) for key, value in density.state_dict().items())


@pytest.mark.parametrize("shape", [(50, 1), (50, 3), (2, 3), (1, 3)])
def test_autoregressive_mixture_learns_what_its_first_batch_did_not_show(shape: tuple[int, int]) -> None:
    """That was constant, or of few examples; the components that begin alike part."""
    torch.manual_seed(0)
    size, features = shape
    density = AutoregressiveMixture(features, components=4, hidden=[16])
    with initialising(density):
        density.log_prob(torch.ones(1, features) if features == 1 else torch.randn(1, features).expand(size, -1))
    x = 2 * torch.randn(500, features) - 1
    assert -density.log_prob(x).mean() < 12 * features
    optimizer = torch.optim.Adam(density.parameters(), lr=1e-2)
    for _ in range(600):
        optimizer.zero_grad()
        loss = -density.log_prob(x).mean()
        loss.backward()
        optimizer.step()
    assert loss < features * (0.5 * math.log(2 * math.pi * math.e * 4) + 0.05)
    mu = density.made.out.bias.view(3, 4, features)[1].sort(0).values
    assert (mu.diff(dim=0) > 1e-3).all()


@pytest.mark.parametrize("make_one", [GaussianDensity, GaussianMixture, DeepGaussianMixture])
def test_what_takes_no_context_says_so(make_one: Callable[..., Distribution]) -> None:
    with pytest.raises(VaeflowError, match="takes no context"):
        make_one(2, 3)


def test_no_gradient_goes_through_a_component_that_is_picked() -> None:
    with pytest.raises(VaeflowError, match="GaussianMixture picks at random"):
        GaussianMixture(2).rsample_with_log_prob()


@every
def test_temperature_zero_is_the_mode_of_the_noise(name: str) -> None:
    density = make(name)
    cold = density.sample(noise=Noise().at(torch.arange(50)), temperature=0.0)[0]
    assert len(cold.unique(dim=0)) <= 10  # one for each way through the components
    with pytest.raises(VaeflowError, match="temperature is -1"):
        density.sample(noise=Noise().at(torch.arange(2)), temperature=-1)
