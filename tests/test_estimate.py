"""The estimator of log p(x), against models whose log p(x) is known."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor

from tests.distributions.test_posteriors import FLOWS
from tests.evaluation.linear_gaussian import LinearGaussian, all_binary, binary_vae
from vaeflow.bijections import Inverse, InverseAutoregressive, Planar
from vaeflow.distributions import FlowDensity
from vaeflow.estimate import (
    Combining,
    Draw,
    Means,
    RunningEstimate,
    Terms,
    combined,
    log_likelihood,
    log_mean_exp,
    rows_within,
)
from vaeflow.evaluation import ActiveUnits, LogLikelihood
from vaeflow.noise import Noise
from vaeflow.objectives import ELBO


def noise_for(n: int, seed: int = 0) -> Noise:
    return Noise(seed, "test", 0, torch.arange(n))


def test_one_sample_of_the_exact_posterior_gives_the_exact_likelihood() -> None:
    truth = LinearGaussian()
    x = truth.sample(50)
    estimate = log_likelihood(truth.vae, x, noise_for(50), 1)
    torch.testing.assert_close(estimate.log_likelihood, truth.log_prob(x), rtol=0, atol=1e-9)
    assert estimate.effective_sample_size.min() == 1
    many = log_likelihood(truth.vae, x, noise_for(50), 20)
    torch.testing.assert_close(many.effective_sample_size, torch.full((50,), 20.0, dtype=torch.float64))


def test_a_wider_proposal_rises_to_the_truth_from_below() -> None:
    """The mean over 200 repetitions rises with K and stays below log p within 3 standard errors."""
    truth = LinearGaussian(widen=2.0)
    x = truth.sample(1).expand(200, -1)  # 200 repetitions: examples of their own noise
    means, stderr = [], []
    for k in (1, 10, 100, 1000):
        estimates = log_likelihood(truth.vae, x, noise_for(200), k).log_likelihood
        means.append(estimates.mean().item())
        stderr.append(estimates.std().item() / 200**0.5)
    log_p = truth.log_prob(x[:1]).item()
    assert means == sorted(means)
    assert means[0] < log_p - 0.3
    for mean, error in zip(means, stderr, strict=True):
        assert mean < log_p + 3 * error
    assert means[-1] > log_p - 3 * stderr[-1] - 0.005


def test_the_elbo_of_the_model_is_that_of_its_log_weights() -> None:
    """With the analytic KL, and by Monte Carlo; both below log p by KL(q ‖ posterior)."""
    truth = LinearGaussian(widen=1.5)
    x = truth.sample(20)
    weights = truth.vae.log_weights(x, noise_for(20), 40_000)
    _, values = truth.vae.losses(x, noise_for(20), None)
    many = LinearGaussian(widen=1.5).vae
    many.objective = ELBO(num_samples=40_000)
    _, values = many.losses(x, noise_for(20), None)
    stderr = weights.std(0) / weights.shape[0] ** 0.5
    assert ((values["elbo"] - weights.mean(0)).abs() < 4 * stderr).all()
    gap = 2 * (0.5 * (1.5**2 - 1) - math.log(1.5))  # KL of N(μ, (1.5 s)²) to N(μ, s²), twice
    assert ((truth.log_prob(x) - gap - weights.mean(0)).abs() < 4 * stderr).all()


PRIORS = {
    "standard": {},
    "flow": {
        "prior": functools.partial(
            FlowDensity, flow=functools.partial(Inverse, bijection=functools.partial(InverseAutoregressive, hidden=[8]))
        )
    },
}


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("flow", [None, *FLOWS])
def test_p_of_all_x_sums_to_one(flow: str | None, prior: str) -> None:
    """Of a binary VAE, with every posterior and prior: a wrong log-determinant anywhere shows here."""
    vae = binary_vae(FLOWS[flow] if flow else None, **PRIORS[prior])
    chunks = 40
    with torch.no_grad():
        log_weights = vae.log_weights_of(all_binary())
        weights = torch.stack(
            [log_weights(noise_for(8).skip(5000 * c), 5000).exp().mean(0).sum() for c in range(chunks)]
        )
    stderr = weights.std() / chunks**0.5
    assert stderr < 0.01
    assert (weights.mean() - 1).abs() < 4 * stderr


def test_class_conditional_p_of_all_x_sums_to_one() -> None:
    """For every class, and the classes differ, since prior, encoder and decoder see the label."""
    flow = functools.partial(FlowDensity, flow=functools.partial(Planar, steps=2))
    vae = binary_vae(FLOWS["iaf"], num_classes=2, class_conditional=True, prior=flow)
    p_of_x = []
    for label in (0, 1):
        context = vae.context_of(torch.full((8,), label))
        with torch.no_grad():
            weights = vae.log_weights(all_binary(), noise_for(8), 100_000, context).exp()
        stderr = (weights.var(0) / len(weights)).sum().sqrt()
        assert stderr < 0.01
        assert (weights.mean(0).sum() - 1).abs() < 4 * stderr
        p_of_x.append(weights.mean(0))
    assert not torch.allclose(p_of_x[0], p_of_x[1], atol=0.02)


class Counted:
    """Log-weights 0, −1, −2, … for every example; remembers how it was asked."""

    combining: Combining

    def __init__(self, combining: Combining = "log_mean_exp") -> None:
        self.combining = combining
        self.examples: list[int] = []
        self.chunks: list[tuple[int, int]] = []  # samples, examples

    def draws_of(self, x: Tensor, context: Tensor | None = None) -> Draw:
        self.examples.append(len(x))

        def draw(noise: Noise, num_samples: int) -> Terms:
            self.chunks.append((num_samples, len(x)))
            samples = torch.arange(noise.first_sample, noise.first_sample + num_samples)
            return Terms(-samples.float()[:, None].expand(-1, len(x)))

        return draw


@pytest.mark.parametrize(("num_samples", "rows"), [(10, None), (10, 12), (10, 7), (10, 2), (1, 1), (5000, 300)])
def test_k_is_exact_however_it_is_cut(num_samples: int, rows: int | None) -> None:
    model = Counted()
    estimate = log_likelihood(model, torch.zeros(3, 1), noise_for(3), num_samples, rows=rows)
    wanted = log_mean_exp(-torch.arange(num_samples).double()[:, None].expand(-1, 3))
    torch.testing.assert_close(estimate.log_likelihood, wanted)
    assert sum(n * e for n, e in model.chunks) == num_samples * 3
    assert sum(model.examples) == 3
    assert max(n * e for n, e in model.chunks) <= (rows or 10**9)


@pytest.mark.parametrize("rows", [None, 12, 7, 2])
def test_a_mean_is_never_exponentiated(rows: int | None) -> None:
    """0, −1, … −9: their mean is −4.5, the logarithm of the mean of their exponentials −1.84."""
    estimate = log_likelihood(Counted("mean"), torch.zeros(3, 1), noise_for(3), 10, rows=rows)
    torch.testing.assert_close(estimate.log_likelihood, torch.full((3,), -4.5, dtype=torch.float64))
    torch.testing.assert_close(estimate.mean_log_weight, estimate.log_likelihood)
    assert estimate.effective_sample_size.isnan().all()
    log_weights = -torch.arange(10.0)[:, None]
    assert combined(log_weights, "mean").item() == -4.5
    assert combined(log_weights, "log_mean_exp").item() == pytest.approx(log_mean_exp(log_weights).item())
    assert combined(log_weights[3:4], "exact").item() == -3.0


def test_the_estimate_does_not_depend_on_chunks_or_batches() -> None:
    vae = binary_vae(FLOWS["iaf"])
    whole = log_likelihood(vae, all_binary(), noise_for(8), 100)
    cut = log_likelihood(vae, all_binary(), noise_for(8), 100, rows=17)
    torch.testing.assert_close(cut.log_likelihood, whole.log_likelihood, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(cut.effective_sample_size, whole.effective_sample_size, rtol=1e-10, atol=1e-10)
    parts = [
        log_likelihood(
            vae, all_binary()[i : i + 3], Noise(0, "test", 0, torch.arange(8)[i : i + 3]), 100
        ).log_likelihood
        for i in range(0, 8, 3)
    ]
    torch.testing.assert_close(torch.cat(parts), whole.log_likelihood, rtol=1e-12, atol=1e-12)


def test_the_encoder_sees_each_row_once_and_the_flow_is_conditioned_once() -> None:
    vae = binary_vae(FLOWS["planar"])
    amortised = []
    vae.posterior.flow.amortise.register_forward_hook(lambda *args: amortised.append(len(args[1][0])))  # type: ignore[union-attr]
    log_likelihood(vae, all_binary(), noise_for(8), 100, rows=80)
    assert vae.encoder.rows == 8
    assert sum(amortised) == 8
    assert vae.observation.decoder.rows == 800


def test_no_graph_is_kept() -> None:
    estimate = log_likelihood(binary_vae(), all_binary(), noise_for(8), 3)
    assert not estimate.log_likelihood.requires_grad


def test_sums_of_float32_weights_are_in_float64() -> None:
    running = RunningEstimate()
    for _ in range(1000):
        running.add(Terms(torch.full((1000, 1), 90.1)))
    assert running.log_likelihood.dtype == torch.float64
    assert running.log_likelihood.item() == pytest.approx(float(torch.tensor(90.1)), abs=1e-10)
    assert running.effective_sample_size.item() == pytest.approx(1e6, rel=1e-9)


def test_far_apart_weights_neither_overflow_nor_vanish() -> None:
    running = RunningEstimate()
    for value in (-1e5, 3e4, -1e5):
        running.add(Terms(torch.tensor([[value]])))
    assert running.log_likelihood.item() == pytest.approx(3e4 - math.log(3))
    assert running.effective_sample_size.item() == pytest.approx(1)


def test_memory_grows_with_the_budget_not_with_k() -> None:
    vae, x = binary_vae(FLOWS["iaf"]), all_binary()
    small, large = (rows_within(mb, vae, x, noise_for(8)) for mb in (0.1, 1.0))
    assert small > 1
    assert 8 < large / small < 12
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.no_grad(), torch.profiler.profile(profile_memory=True, activities=cpu) as profile:
        vae.log_weights_of(x)(noise_for(8), small // 8)
    allocated = sum(e.self_cpu_memory_usage for e in profile.key_averages() if e.self_cpu_memory_usage > 0)
    assert 0.3 * 0.1 * 2**20 < allocated < 1.5 * 0.1 * 2**20


def test_active_units_vary_with_x() -> None:
    codes = torch.randn(5000, 4) * torch.tensor([1.0, 0.2, 0.05, 0.0]) + 7
    metric = ActiveUnits(4)
    for part in codes.split(700):
        metric.update(part)
    assert metric.compute() == 2  # variances 1 and 0.04 exceed 0.01, 0.0025 and 0 do not


def test_metrics_are_means_over_examples_of_unequal_batches() -> None:
    values = torch.randn(10, dtype=torch.float64)
    metric = Means(["a", "b"])
    for part in values.split([1, 6, 0, 3]):
        metric.update(a=part, b=2 * part)
    mean, stderr = metric.compute()["a"]
    torch.testing.assert_close(mean, values.mean())
    torch.testing.assert_close(stderr, values.std() / 10**0.5)
    torch.testing.assert_close(metric.compute()["b"][0], 2 * values.mean())
    single = Means(["a"])
    single.update(a=values[:1])
    assert single.compute()["a"][1].isnan()  # one example has no standard error
    metric.update(a=torch.tensor([math.nan]), b=torch.zeros(1))
    assert metric.compute()["a"][0].isnan()
    metric.reset()
    metric.update(a=torch.ones(1), b=torch.ones(1))
    assert metric.compute()["a"][0] == 1


def test_the_log_likelihood_metric_is_the_estimator() -> None:
    vae, x = binary_vae(), all_binary()
    metric = LogLikelihood(num_samples=7, size=8, reported=vae.reported, rows=10)
    for i in (0, 5):
        metric.update(vae, x[i : i + 5], Noise(0, "test", 0, torch.arange(8)[i : i + 5]))
    wanted = log_likelihood(vae, x, noise_for(8), 7).log_likelihood
    values = metric.compute()
    torch.testing.assert_close(values["nll_by_example"], -wanted)
    torch.testing.assert_close(values["nll"], -wanted.mean())
    weights = vae.log_weights(x, noise_for(8), 7).double()
    torch.testing.assert_close(values["mean_log_weight"], weights.mean(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(values["elbo"], -values["reconstruction"] - values["kl"])
    terms = vae.draws_of(x)(noise_for(8), 7)
    torch.testing.assert_close(values["reconstruction"], -terms.log_likelihood.mean().double())
    torch.testing.assert_close(values["kl"], terms.groups["z"].kl.sum(-1).mean().double())
    torch.testing.assert_close(values["nll_stderr"], wanted.std() / 8**0.5)
    assert 1 <= values["effective_sample_size"] <= 7
