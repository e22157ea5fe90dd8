"""Models with an exact likelihood: what their numbers are of, and that integers come back."""

from __future__ import annotations

import copy
import functools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.func import jacfwd, jacrev, jvp, vmap

import vaeflow
from tests.conftest import differences, quiet_trainer, redraw
from vaeflow import models
from vaeflow.bijections import (
    ActNorm,
    BatchNorm,
    Bijection,
    Chain,
    Coupling,
    Inverse,
    Logit,
    Planar,
    Standardise,
    UnitInterval,
)
from vaeflow.callbacks import Checkpoints
from vaeflow.data import Digits, Toy
from vaeflow.distributions import FlowDensity, GaussianDensity, GaussianMixture, StandardNormal
from vaeflow.errors import VaeflowError
from vaeflow.estimate import log_mean_exp, rows_within
from vaeflow.evaluation import evaluate
from vaeflow.nets.initialisation import initialising
from vaeflow.noise import Noise

IMAGE: dict[str, Any] = {"shape": (1, 4, 4), "levels": 17}
MODELS: dict[str, functools.partial] = {
    "NICE": functools.partial(models.NICE, hidden=[16]),
    "RealNVP": functools.partial(models.RealNVP, hidden=[16]),
    "ImageRealNVP": functools.partial(models.ImageRealNVP, channels=8, couplings=1, residual_blocks=1),
    "Glow": functools.partial(models.Glow, scales=1, steps=2, channels=8),
    "MADE": functools.partial(models.MADE, hidden=[32]),
    "MADE, mixture": functools.partial(models.MADE, hidden=[32], components=3),
    "MAF": functools.partial(models.MAF, steps=2, hidden=[32]),
    "MAF, mixture": functools.partial(models.MAF, steps=2, hidden=[32], components=3),
    "IAF": functools.partial(models.IAF, steps=2, hidden=[32]),
    "NeuralSplineFlow": functools.partial(models.NeuralSplineFlow, steps=2, hidden=[16]),
    "NeuralSplineFlow, autoregressive": functools.partial(
        models.NeuralSplineFlow, steps=2, hidden=[16], variant="autoregressive"
    ),
    "Flow": functools.partial(models.Flow, flow=functools.partial(Planar, steps=3)),
    "Uniform": functools.partial(models.UniformModel),
    "Gaussian": functools.partial(models.GaussianModel),
    "GaussianMixture": functools.partial(models.GaussianMixtureModel, components=3),
    "DeepGMM": functools.partial(models.DeepGMM, components=(2, 2)),
}
TAKE_A_CLASS = sorted(set(MODELS) - {"Uniform", "Gaussian", "GaussianMixture", "DeepGMM"})
every = pytest.mark.parametrize("name", MODELS)


def images(n: int = 40) -> Tensor:
    return torch.randint(0, 17, (n, 1, 4, 4), generator=torch.Generator().manual_seed(0)).float()


class Stub(SimpleNamespace):
    """What a model asks of a data module."""

    def statistics(self) -> tuple[Tensor, Tensor]:
        return self.x.double().mean(0), self.x.double().std(0, correction=0)

    def dimension_name(self, i: int) -> str:
        return f"column {i}"

    def first_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.x, torch.zeros(len(self.x)), torch.arange(len(self.x))

    def batches_of_process(self, split: str) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [self.first_batch()]


def make(name: str, **arguments: Any) -> Any:
    torch.manual_seed(0)
    model = MODELS[name](**{**IMAGE, **arguments})
    redraw(model, 0.3)
    x = images(200) if model.levels else torch.randn(200, *model.shape)
    if not model.context_features:
        model.initialise(Stub(x=x))
        model.refresh(Stub(x=x))
    return model.eval()


@every
def test_subclasses_are_all_here(name: str) -> None:
    named = {cls for cls in vars(models).values() if isinstance(cls, type) and issubclass(cls, models.DensityModel)}
    assert named - {models.DensityModel} == {partial.func for partial in MODELS.values()}


@every
def test_four_questions(name: str) -> None:
    model, x = make(name), images()
    noise = Noise(index=torch.arange(40))
    log_weights = model.log_weights(x, noise, 3)
    assert log_weights.shape == (3, 40)
    assert (log_weights <= 0).float().mean() > 0.9  # of integers
    again = torch.cat([model.log_weights(x[:7], noise.at(torch.arange(7)).skip(k), 1) for k in range(3)])
    torch.testing.assert_close(log_weights[:, :7], again, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(
        model.log_prob(x, num_samples=3), log_mean_exp(log_weights.double()), rtol=1e-4, atol=1e-3
    )
    samples = model.sample(5, Noise(seed=2), temperature=0.7)
    assert samples.shape == (5, 1, 4, 4)
    assert torch.equal(samples, samples.floor().clamp(0, 16))
    assert not torch.equal(samples, model.sample(5, Noise(seed=3), temperature=0.7)) or name == "Uniform"
    if model.latent_slices:
        z = model.encode(x)
        assert z.shape == (40, 16) == (40, max(part.stop for part in model.latent_slices.values()))
        assert torch.equal(model.decode(z), x)  # exactly
        value = model.decode(z, floor=False)
        torch.testing.assert_close(value, x + 0.5, rtol=0, atol=0.2)
    else:
        with pytest.raises(VaeflowError, match="has no latent space"):
            model.encode(x)


WITH_CODES = sorted(set(MODELS) - {"MADE, mixture", "MAF, mixture", "GaussianMixture", "DeepGMM"})


@pytest.mark.parametrize("name", WITH_CODES)
@pytest.mark.parametrize("levels", [17, None])
def test_codes_have_their_jacobians(name: str, levels: int | None) -> None:
    """Those of finite differences, however they are asked for; log |det| is what the likelihood says. By integers x the
    derivative is that by a real number in the middle of the cell."""
    if name == "Uniform" and levels is None:
        return
    model = make(name, levels=levels).double()
    x = images(2).double() if levels else torch.randn(2, 1, 4, 4, dtype=torch.float64)
    rounding = {"floor": False} if levels else {}

    def by_definition(x: Tensor) -> Tensor:
        y = model.preprocess.inverse(x.flatten()[None] + (0.5 if levels else 0.0))[0]
        return model.density.encode(y.unflatten(-1, model.density.event_shape))[0]

    def encode(x: Tensor) -> Tensor:
        return model.encode(x[None])[0]

    def decode(z: Tensor) -> Tensor:
        return model.decode(z[None], **rounding)[0]

    def last_layers(z: Tensor) -> Tensor:
        return torch.stack(list(model.trajectory(z[None]))[-2:])

    z = model.encode(x).detach()
    for f, exact, points in ((encode, by_definition, x), (decode, decode, z), (last_layers, last_layers, z)):
        wanted = torch.stack([differences(exact, point) for point in points])
        found = {
            "reverse": jacobian(f, points[0]),
            "many cotangents at once": jacobian(f, points[0], vectorize=True),
            "jacrev": jacrev(f)(points[0]),
            "jacfwd": jacfwd(f)(points[0]),
            "mapped": vmap(jacrev(f))(points),
        }
        for how, value in found.items():
            ours = value.reshape(-1, *wanted.shape[1:])
            torch.testing.assert_close(ours, wanted[: len(ours)], rtol=1e-5, atol=1e-6, msg=how)
        _, along = jvp(f, (points[0],), (torch.ones_like(points[0]),))
        torch.testing.assert_close(along.flatten(), wanted[0].sum(1), rtol=1e-5, atol=1e-6)
    if levels is None:
        log_det = torch.stack([jacobian(encode, point).reshape(16, 16) for point in x]).slogdet().logabsdet
        base = model.density.base if isinstance(model.density, FlowDensity) else StandardNormal(16)
        torch.testing.assert_close(model.log_prob(x), base.log_prob(z) + log_det)


@pytest.mark.parametrize("name", ["NICE", "MAF", "Uniform"])
def test_integers_that_are_decoded_have_no_derivative(name: str) -> None:
    """Neither zeros nor an error where none is asked for: codes carry a graph of the parameters."""
    model, x = make(name), images(2)
    z = model.encode(x)
    assert torch.equal(model.decode(z), x)
    assert torch.equal(model.reconstruct(x, Noise()), x)
    z = z.detach()
    assert torch.equal(vmap(lambda z: model.decode(z[None])[0])(z), x)
    for ask in (
        lambda: jacobian(model.decode, z),
        lambda: jacrev(model.decode)(z),
        lambda: jacfwd(model.decode)(z),
        lambda: jvp(model.decode, (z,), (z,)),
        lambda: jacrev(lambda z: model.latent_spaces["z"].decode(z, None))(z),
        lambda: model.decode(z.clone().requires_grad_()).sum().backward(),
        lambda: jacobian(lambda x: model.reconstruct(x, Noise()), x),
    ):
        with pytest.raises(VaeflowError, match="floor=False"):
            ask()


@pytest.mark.parametrize("name", ["NICE", "MAF", "MAF, mixture", "IAF", "DeepGMM"])
@pytest.mark.parametrize("levels", [17, None])
def test_the_likelihood_has_its_derivative_by_x(name: str, levels: int | None) -> None:
    model = make(name, levels=levels).double()
    x = images(2).double() if levels else torch.randn(2, 1, 4, 4, dtype=torch.float64)
    weights = torch.autograd.grad(
        model.log_weights(y := x.clone().requires_grad_(), Noise(index=torch.arange(2)), 1).sum(), y
    )[0]
    assert weights.abs().min() > 0
    torch.testing.assert_close(torch.autograd.grad(model.log_prob(y).sum(), y)[0], weights)
    torch.testing.assert_close(jacrev(lambda x: model.log_prob(x).sum())(x), weights)
    torch.testing.assert_close(jacfwd(lambda x: model.log_prob(x).sum())(x), weights)
    assert not model.log_prob(x).requires_grad  # in chunks


@pytest.mark.parametrize("name", TAKE_A_CLASS)
def test_class_conditional(name: str) -> None:
    model = make(name, num_classes=3, class_conditional=True)
    x, noise = images(6), Noise(index=torch.arange(6))
    one, other = (model.log_weights(x, noise, 1, model.context_of(torch.full((6,), y))) for y in (0, 1))
    assert (one != other).all()
    assert model.sample(3, Noise(), model.context_of(torch.arange(3))).shape == (3, 1, 4, 4)
    with pytest.raises(VaeflowError, match="conditioned on a context of 3 features, but got none"):
        model.log_weights(x, noise, 1)


@pytest.mark.parametrize("name", ["Uniform", "Gaussian", "GaussianMixture", "DeepGMM"])
def test_baselines_take_no_class(name: str) -> None:
    if name != "Uniform":
        with pytest.raises(VaeflowError, match="takes no context"):
            make(name, num_classes=3, class_conditional=True)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_uniform_is_log_2_of_the_levels(levels: int) -> None:
    model = models.UniformModel(shape=(3, 5), levels=levels)
    x = torch.randint(0, levels, (4, 3, 5)).float()
    nll = -model.log_weights(x, Noise(index=torch.arange(4)), 2)
    torch.testing.assert_close(nll / (15 * math.log(2)), torch.full((2, 4), math.log2(levels)))


def test_the_bound_of_integers_tightens_to_their_probability() -> None:
    """P(x) = ∫ p(x + u) du, here in one dimension by the trapezoidal rule; and one draw bounds it from below."""
    model = models.Flow(shape=(1,), levels=5, flow=functools.partial(Planar, steps=3))
    redraw(model, 1.5).eval()
    x = torch.arange(5.0)[:, None]
    u = torch.linspace(0, 1, 2001, dtype=torch.float64)[1:-1]
    y, log_det = model.preprocess.inverse((x + u).double().T.unsqueeze(-1))
    exact = (model.density.double().log_prob(y) + log_det).exp().mean(0)
    model.density.float()
    log_weights = model.log_weights(x, Noise(index=torch.arange(5)), 20_000).double().detach()
    estimate = torch.logsumexp(log_weights, 0).exp() / 20_000
    torch.testing.assert_close(estimate, exact, rtol=0.02, atol=0)
    assert (log_weights.mean(0) < exact.log()).all()
    assert exact.sum() < 1  # the rest lies outside [0, L)


def test_logit_nats_and_bits_per_dimension() -> None:
    """The offset of MAF's experiments: log p(image) = log p(y) + D log(1 − 2λ) − Σ log v(1 − v), v = sigmoid(y), and
    bits/dim = 8 − log p(image)/(D ln 2), with v = λ + (1 − 2λ)(x + u)/256."""
    alpha = 1e-6
    torch.manual_seed(0)
    model = models.MADE(
        shape=(1, 4, 4), levels=256, hidden=[16], preprocess=functools.partial(Logit, alpha=alpha)
    ).eval()
    x = torch.randint(0, 256, (50, 1, 4, 4)).float()
    x[:10] = torch.tensor([0.0, 255.0])[torch.randint(0, 2, (10, 1, 4, 4))]
    noise = Noise(index=torch.arange(50))
    nll = -model.log_weights(x, noise, 1)[0].double()
    in_logits = nll + model.draws_of(x)(noise, 1).reported["log_det"][0].double()  # −log p(y)
    u = noise.uniform("dequantisation", 1, (16,))[0].double()
    v = alpha + (1 - 2 * alpha) * (x.flatten(1) + u) / 256
    y = torch.logit(v)
    torch.testing.assert_close(-in_logits, model.density.log_prob(y.float()).double(), rtol=1e-4, atol=1e-2)
    log_p_image = -in_logits + 16 * math.log(1 - 2 * alpha) - (v.log() + torch.log1p(-v)).sum(1)
    bits = 8 - log_p_image / (16 * math.log(2))
    torch.testing.assert_close(nll / (16 * math.log(2)), bits, rtol=1e-5, atol=1e-4)


def test_evaluation_reports_nats_before_and_after_preprocessing() -> None:
    toy = Toy("moons", num_train=500, num_val=100, num_test=300)
    toy.setup("fit")
    model = models.GaussianModel(shape=(2,))
    model.initialise(toy)
    results = evaluate(model, toy)
    mean, scale = toy.statistics()
    x = toy.splits["test"][0].double()
    normal = torch.distributions.MultivariateNormal(mean, torch.cov(toy.splits["train"][0].double().T, correction=0))
    assert results["nll"] == pytest.approx(-normal.log_prob(x).mean().item(), abs=1e-4)
    assert results["nll_preprocessed"] == pytest.approx(results["nll"] - scale.log().sum().item(), abs=1e-5)
    assert results["nll_preprocessed_stderr"] == pytest.approx(results["nll_stderr"], rel=1e-9)  # of a constant shift
    assert (results["kind"], results["measure"], results["num_samples"]) == ("exact", "continuous", 1)


def test_the_error_of_what_is_preprocessed_is_its_own() -> None:
    data = Digits()
    model = models.GaussianModel(shape=data.shape, levels=data.levels, preprocess=Logit)
    model.initialise(data)
    results = evaluate(model, data)
    x, _ = data.examples("test", torch.arange(300))
    y, *_ = model._extended(x, None, Noise(0, "test", 0, torch.arange(300)), 1)
    nll = -model.density.log_prob(y)[0].double()
    assert results["nll_preprocessed"] == pytest.approx(nll.mean().item(), rel=1e-6)
    assert results["nll_preprocessed_stderr"] == pytest.approx(nll.std().item() / 300**0.5, rel=1e-5)
    assert abs(results["nll_preprocessed_stderr"] / results["nll_stderr"] - 1) > 0.02  # here the shifts differ


def test_the_training_split_is_evaluated_with_noise_that_training_has_not_seen() -> None:
    data = Digits()
    model = models.GaussianModel(shape=data.shape, levels=data.levels, noise_once=True)
    model.initialise(data)
    index = torch.arange(data.count("train"))
    x, _ = data.examples("train", index)
    trained = model.losses(x, Noise(0, "train", 3, index), None)[1]["nll"].mean().item()
    assert 0.3 < evaluate(model, data, split="train")["nll"] - trained < 2  # it was fitted to that noise


def test_the_number_of_noise_samples_is_a_setting_and_reported() -> None:
    data = Digits()
    model = models.GaussianModel(shape=data.shape, levels=data.levels)
    model.initialise(data)
    one, many = evaluate(model, data), evaluate(model, data, num_samples=20)
    assert (one["num_samples"], many["num_samples"], one["kind"]) == (1, 20, "dequantised")
    assert many["nll"] < one["nll"]
    assert -many["elbo"] == pytest.approx(one["nll"], abs=0.5)
    assert many["elbo_gap"] == pytest.approx(-many["elbo"] - many["nll"])
    assert one["elbo"] is None  # it is the nll
    assert one["nll_preprocessed"] > 0
    assert many["nll_preprocessed"] is None  # of twenty different y


def test_statistics_are_those_of_the_whole_training_set() -> None:
    """Batch normalisation in evaluation: not of the batch; and ActNorm starts on the first batch, once."""
    flow = functools.partial(Chain, bijections=[Coupling, BatchNorm, ActNorm])
    model = models.Flow(shape=(2,), flow=flow)
    data = Toy("moons", batch_size=50, num_train=500, num_val=100, num_test=100)
    quiet_trainer(2, num_sanity_val_steps=2).fit(model, data)
    model.eval()
    x = data.splits["train"][0].double()
    y = model.preprocess.inverse(x)[0].float()
    _, norm, act = model.density.flow.bijections
    seen = act.inverse(y)[0].double()
    torch.testing.assert_close(norm.mean.double(), seen.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.variance.double(), seen.var(0, correction=0), rtol=1e-4, atol=1e-4)
    assert act.started
    noise = Noise(index=torch.arange(10))
    whole, alone = model.log_weights(x[:10], noise, 1), model.log_weights(x[:1], noise.at(torch.arange(1)), 1)
    torch.testing.assert_close(whole[:, :1], alone)


def test_actnorm_starts_at_zero_mean_and_unit_variance() -> None:
    act = ActNorm(3)
    x = torch.randn(100, 3) * torch.tensor([1e-3, 1.0, 1e3]) + torch.tensor([0.0, 5.0, -1e4])
    with initialising(act):
        z, _ = act.inverse(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(3), rtol=1e-3, atol=0)
    before = copy.deepcopy(act.state_dict())
    with initialising(act):
        act.inverse(2 * x)
    assert all(torch.equal(value, before[key]) for key, value in act.state_dict().items())


def test_checkpoints_keep_the_likelihood(tmp_path: Path) -> None:
    """Lists of bijections, batch norm's and ActNorm's states included."""
    flow = functools.partial(Chain, bijections=[Coupling, functools.partial(Coupling, swap=True), BatchNorm, ActNorm])
    model = models.Flow(shape=(1, 8, 8), levels=17, flow=flow, preprocess=functools.partial(Logit, alpha=0.01))
    trainer = quiet_trainer(1)
    data = Digits()
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = vaeflow.load(tmp_path / "a.ckpt")
    assert again.preprocess.alpha == 0.01
    x, _ = data.examples("test", index := torch.arange(20))
    torch.testing.assert_close(
        again.log_weights(x, Noise(index=index), 2), model.eval().log_weights(x, Noise(index=index), 2)
    )


def test_data_outside_their_levels_are_refused() -> None:
    model = models.RealNVP(**IMAGE)
    for bad, message in ((-1.0, "expected integers 0 to 16"), (17.0, "integers 0 to 16"), (math.nan, "example 1 of x")):
        x = images(3)
        x[1, 0, 2, 2] = bad
        with pytest.raises(VaeflowError, match=message):
            model.log_weights(x, Noise(index=torch.arange(3)), 1)
    with pytest.raises(VaeflowError, match="expected more than 0 and less than 17"):
        Logit(2, 17).inverse(torch.tensor([[3.0, 19.0]]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: models.RealNVP(shape=(1,)), "a coupling of 1 feature leaves nothing to determine it by"),
        (lambda: models.ImageRealNVP(shape=(16,)), "but this flow takes images"),
        (lambda: models.ImageRealNVP(shape=(1, 7, 7), levels=17), r"images of 7 × 7 pixels cannot be halved 1 times"),
        (lambda: models.ImageRealNVP(shape=(1, 2, 2), levels=17, scales=3), "cannot be halved 2 times"),
        (lambda: models.ImageRealNVP(shape=(1, 1, 1), levels=17, scales=1), "leaves nothing to transform"),
        (lambda: models.UniformModel(shape=(3,)), "Uniform is for integer data"),
        (lambda: models.NICE(shape=(3,), preprocess=UnitInterval), "UnitInterval is for integer data"),
        (lambda: models.MAF(shape=(3,), preprocess=Logit), "Logit is for integer data"),
        (lambda: models.MAF(shape=(3,), steps=0), "steps is 0"),
        (lambda: models.NeuralSplineFlow(shape=(3,), bins=0), "bins is 0"),
        (lambda: models.NeuralSplineFlow(shape=(3,), bound=0), "bound is 0, expected a positive number"),
        (lambda: Logit(2, 4, alpha=0.5), "alpha is 0.5"),
    ],
)
def test_what_cannot_be_made_is_said(wrong: Any, message: str) -> None:
    with pytest.raises(VaeflowError, match=message):
        wrong()


@pytest.mark.parametrize("name", ["NICE", "RealNVP", "MAF", "NeuralSplineFlow", "DeepGMM"])
@pytest.mark.parametrize("features", [2, 3, 7])
def test_odd_dimensions(name: str, features: int) -> None:
    model = make(name, shape=(features,), levels=None)
    x = torch.randn(5, features)
    assert torch.isfinite(model.log_weights(x, Noise(index=torch.arange(5)), 1)).all()
    if model.latent_slices:
        torch.testing.assert_close(model.decode(model.encode(x)), x.double(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["MADE", "MAF", "IAF", "NeuralSplineFlow, autoregressive", "GaussianMixture"])
def test_one_dimension(name: str) -> None:
    model = make(name, shape=(1,), levels=None)
    x = torch.linspace(-30, 30, 20_001)[:, None]
    p = model.log_weights(x, Noise(index=torch.arange(len(x))), 1)[0].exp()
    assert p.sum().item() * 60 / 20_000 == pytest.approx(1, abs=2e-3)


def test_standardised_integers() -> None:
    model = make("MAF", preprocess=Standardise)
    x = images(200)
    y = model._extended(x, None, Noise(index=torch.arange(200)), 50)[0].flatten(0, 1)
    torch.testing.assert_close(y.mean(0), torch.zeros(16), rtol=0, atol=0.02)
    torch.testing.assert_close(y.std(0), torch.ones(16), rtol=0.02, atol=0)


def test_autoregressive_garbage_cannot_poison() -> None:
    """Weights four times their start: the peers' inverses give NaN for nearly every row, the strict one none."""
    torch.manual_seed(0)
    model = models.MADE(shape=(64,), hidden=[64, 64])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "weight" in name:
                parameter.mul_(8)
    z = torch.randn(50, 64)
    x = model.density.decode(z)
    assert torch.isfinite(x).all()


@pytest.mark.parametrize("ending", ["max_steps", "no validation"])
def test_a_checkpoint_has_the_statistics_of_its_weights(ending: str, tmp_path: Path) -> None:
    """However training ends, batch normalisation is that of the whole training set under the weights that are kept."""
    model = MODELS["MAF"](shape=(1, 8, 8), levels=17)
    data = Digits()
    arguments = {"max_steps": 25, "check_val_every_n_epoch": 100} if ending == "max_steps" else {"limit_val_batches": 0}
    trainer = quiet_trainer(3, **arguments, default_root_dir=tmp_path)
    trainer.callbacks.append(Checkpoints(tmp_path))
    trainer.fit(model, data)
    again = vaeflow.load(tmp_path / "last.ckpt")
    x, _ = data.examples("test", index := torch.arange(50))
    kept = again.log_weights(x, Noise(index=index), 1)
    again.refresh(data)
    torch.testing.assert_close(again.log_weights(x, Noise(index=index), 1), kept)


def test_batch_normalisation_where_nothing_fits_it_is_refused() -> None:
    prior = functools.partial(FlowDensity, flow=functools.partial(Chain, bijections=[Coupling, BatchNorm]))
    with pytest.raises(VaeflowError, match="BatchNorm takes statistics of a training set"):
        models.VAE(**IMAGE, prior=prior)
    with pytest.raises(VaeflowError, match="GaussianDensity takes statistics"):
        models.VAE(**IMAGE, prior=GaussianDensity)
    with pytest.raises(VaeflowError, match="BatchNorm takes statistics"):
        models.ReverseKL(flow=BatchNorm)
    with pytest.raises(VaeflowError, match="BatchNorm takes statistics of a training set, and cannot be turned round"):
        Inverse(3, 0, BatchNorm)
    with pytest.raises(VaeflowError, match="batches of at least 2"):
        BatchNorm(3).inverse(torch.zeros(1, 3))


class Mine(Bijection):
    """A user's own map with statistics."""

    takes_training_set = True

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__()
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return z, z.new_zeros(z.shape[:-1])

    def inverse(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(x.shape[:-1])

    def refresh(self, x: list[Tensor], context: Any) -> list[Tensor]:
        self.seen = torch.tensor(sum(map(len, x)))
        return super().refresh(x, context)


def test_your_own_statistics_are_fitted() -> None:
    model = models.Flow(shape=(2,), flow=functools.partial(Chain, bijections=[Mine, Planar]))
    quiet_trainer(1).fit(model, Toy("moons", num_train=700, num_val=100, num_test=100))
    assert model.density.flow.bijections[0].seen == 700


def test_mixtures_start_with_components_of_their_own() -> None:
    for components in (20, 70):
        mixture = GaussianMixture(2, components=components)
        with initialising(mixture):
            mixture.log_prob(torch.randn(50, 2))
        assert len(mixture.means.unique(dim=0)) == components


def test_densities_far_from_zero_keep_their_digits() -> None:
    model = models.GaussianModel(shape=(1,))
    x = 1.7e9 + torch.randn(500, 1, dtype=torch.float64)
    model.initialise(Stub(x=x))
    torch.testing.assert_close(model.decode(model.encode(x)), x, rtol=0, atol=1e-5)
    assert model.sample(500, Noise()).std() == pytest.approx(1, abs=0.15)


def test_a_memory_budget_counts_for_exact_models_too() -> None:
    model = redraw(models.MAF(shape=(2,)), 0.1).eval()
    rows = rows_within(1.0, model, torch.zeros(1, 2), Noise(index=torch.arange(1)))
    assert rows < 2000
