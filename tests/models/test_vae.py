"""The VAE: its losses, its four questions, its gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.func import jacfwd, jacrev, vmap

from tests.conftest import differences, redraw
from tests.distributions.test_posteriors import FLOWS
from tests.evaluation.linear_gaussian import LinearGaussian, all_binary, binary_vae, gaussian_of
from vaeflow.bijections import Bijection
from vaeflow.distributions import (
    Bernoulli,
    Categorical,
    DiscretisedLogistic,
    FlowDensity,
    Gaussian,
    Likelihood,
    StandardNormal,
)
from vaeflow.errors import VaeflowError
from vaeflow.estimate import log_mean_exp
from vaeflow.models import VAE
from vaeflow.nets import GatedConvDecoder, GatedConvEncoder
from vaeflow.noise import Noise
from vaeflow.objectives import ELBO, IWAE, _picked

NOISE = Noise(index=torch.arange(8))


@pytest.mark.parametrize("flow", [None, *FLOWS])
def test_logged_terms_add_up(flow: str | None) -> None:
    vae = binary_vae(FLOWS[flow] if flow else None, objective=functools.partial(ELBO, num_samples=3))
    loss, values = vae.losses(all_binary(), NOISE, None)
    torch.testing.assert_close(values["nll"], values["kl"] + values["reconstruction"])
    assert torch.equal(values["elbo"], -values["nll"])
    torch.testing.assert_close(loss, values["objective"].mean())


def test_iwae_of_more_samples_is_tighter_and_of_one_the_elbo() -> None:
    x = all_binary().repeat(500, 1, 1, 1)
    noise = Noise(index=torch.arange(len(x)))
    elbo = binary_vae(FLOWS["iaf"]).losses(x, noise, None)[1]["elbo"].mean().item()
    bounds = [elbo]
    for k in (2, 5, 50):
        vae = binary_vae(FLOWS["iaf"], objective=iwae(k))
        loss, values = vae.losses(x, noise, None)
        torch.testing.assert_close(loss, -values["iwae"].mean())
        bounds.append(values["iwae"].mean().item())
    assert bounds == sorted(bounds)
    weights = binary_vae(FLOWS["iaf"]).log_weights(x, noise, 1)  # of one sample the bound is the ELBO's estimate
    assert log_mean_exp(weights).mean().item() == pytest.approx(elbo, abs=1e-9)


def iwae(k: int, **arguments: object) -> Callable[[], IWAE]:
    return functools.partial(IWAE, k=k, **arguments)


def gradients_of_iwae(
    x: torch.Tensor, flow: str | None, gradient_samples: int | None = None, seed: int = 0, doubly: bool = False
) -> dict[str, torch.Tensor]:
    """Of the importance-weighted bound of four draws, by parameter. As many of them may be picked as one likes."""
    vae = binary_vae(FLOWS[flow] if flow else None, objective=iwae(4, doubly_reparameterised=doubly))
    vae.objective.gradient_samples = gradient_samples
    vae.losses(x, Noise(seed=seed, index=torch.arange(len(x))), None)[0].backward()
    return {name: p.grad for name, p in vae.named_parameters()}


@pytest.mark.parametrize("doubly", [False, True])
def test_picked_draws_have_the_gradient_of_all(doubly: bool) -> None:
    """m equally spaced points meet each of the k draws m w_k / Σ w times, give or take one."""
    wanted = gradients_of_iwae(all_binary(), "iaf", doubly=doubly)
    got = gradients_of_iwae(all_binary(), "iaf", 20_000, doubly=doubly)
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-3, atol=1e-3 * gradient.abs().max().item())


@pytest.mark.parametrize("m", [None, 3])
def test_the_bound_is_the_same_whatever_its_gradient(m: int | None) -> None:
    noise = Noise(index=torch.arange(8))
    usual, doubly = (
        binary_vae(objective=iwae(4, gradient_samples=m, doubly_reparameterised=doubly)) for doubly in (False, True)
    )
    wanted, values = usual.losses(all_binary(), noise, None)
    loss, values_of_doubly = doubly.losses(all_binary(), noise, None)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-12)
    assert loss.item() == pytest.approx(-values["iwae"].mean().item(), rel=1e-12)
    for name in values:
        torch.testing.assert_close(values_of_doubly[name], values[name])


def test_few_draws_are_in_memory_where_few_have_a_gradient() -> None:
    vae = binary_vae(objective=iwae(7, gradient_samples=3))
    rows = []
    vae.observation.decoder.register_forward_hook(lambda decoder, inputs, output: rows.append(len(inputs[0])))
    vae.losses(all_binary(), NOISE, None)
    assert rows == [3, 3, 1, 3]  # all seven for the bound, then those picked


def test_one_draw_is_picked_as_often_as_its_weight_says() -> None:
    k, batch = 3, 40_000
    shares = torch.tensor([0.2, 0.7, 0.1])
    picked = _picked(shares.unsqueeze(-1).expand(k, batch), 1, Noise(index=torch.arange(batch)))
    assert picked.shape == (1, batch)
    frequencies = torch.bincount(picked.flatten(), minlength=k) / batch
    torch.testing.assert_close(frequencies, shares, rtol=0, atol=0.01)  # four standard deviations


@pytest.mark.parametrize("flow", [None, "planar", "iaf"])
def test_the_doubly_reparameterised_gradient_is_its_equation(flow: str | None) -> None:
    """Of φ = (μ, σ): Σ_k w̃_k² (∂ log w_k/∂z₀) ∂z₀/∂φ, log w_k at constant φ. Of all else: the usual one."""
    x, noise = all_binary(), Noise(index=torch.arange(8))
    usual = gradients_of_iwae(x, flow)
    got = gradients_of_iwae(x, flow, doubly=True)
    vae = binary_vae(FLOWS[flow] if flow else None)
    features = vae._features(x, None)
    q = getattr(vae.posterior, "base", vae.posterior).condition(features).value
    z_0 = q.at(noise.normal("posterior", 4, (2,), torch.float64))
    at = z_0.detach().requires_grad_()
    z, log_det = at, 0.0
    if flow is not None:
        z, log_det = vae.posterior.flow(at, features)
    log_normal = torch.distributions.Normal(q.mean.detach(), q.log_scale.detach().exp()).log_prob(at).sum(-1)
    log_w = sum(vae.log_joint(x, z, noise)) - log_normal + log_det
    (by_z_0,) = torch.autograd.grad(log_w.sum(), at, retain_graph=True)
    shares = torch.softmax(log_w.detach(), 0)
    loss = -(shares.square() * (by_z_0 * z_0).sum(-1)).sum(0).mean()
    loss.backward()
    for name, gradient in got.items():
        if ".linear." in name:
            torch.testing.assert_close(gradient, vae.get_parameter(name).grad)
            assert (gradient - usual[name]).abs().max() > 0.01
        else:
            torch.testing.assert_close(gradient, usual[name])


def test_the_doubly_reparameterised_gradient_has_the_mean_of_the_usual() -> None:
    """Within four standard errors; and where q is about as wide as the posterior, with less variance."""
    x = all_binary().repeat(1000, 1, 1, 1)
    usual, doubly = (
        [gradients_of_iwae(x, "planar", seed=seed, doubly=doubly) for seed in range(60)] for doubly in (False, True)
    )
    for name in ("posterior.base.linear.weight", "posterior.base.linear.bias"):
        a, b = (torch.stack([gradients[name] for gradients in of]) for of in (usual, doubly))
        stderr = (b - a).std(0) / math.sqrt(len(a))
        assert ((b - a).mean(0).abs() <= 4 * stderr).all()
        assert stderr.max() < 0.02 * a.abs().max()  # else a wrong factor would pass
        assert (b.std(0) < a.std(0)).all()


@pytest.mark.parametrize("doubly", [False, True])
def test_at_the_exact_posterior_no_draw_has_a_doubly_reparameterised_gradient(doubly: bool) -> None:
    """There the weights are p(x) wherever z is, so none of them has a gradient by z; the usual one is noise."""
    truth = LinearGaussian()
    x = truth.sample(5)
    truth.vae.objective = IWAE(3, doubly_reparameterised=doubly)
    truth.vae.losses(x, Noise(index=torch.arange(len(x))), None)[0].backward()
    gradient = gaussian_of(truth.vae).weight.grad.abs().max().item()
    if doubly:
        assert gradient < 1e-10
    else:
        assert gradient > 0.01


def test_the_gradient_of_the_elbo_is_that_of_log_p_at_the_exact_posterior() -> None:
    """There the bound is tight whatever z is drawn, so each draw's gradient by the decoder averages to ∇ log p(x)."""
    truth = LinearGaussian()
    x = truth.sample(1)
    weight = truth.vae.observation.decoder.map.weight
    truth.vae.objective = ELBO(num_samples=200_000)
    loss, _ = truth.vae.losses(x, Noise(index=torch.arange(1)), None)
    (got,) = torch.autograd.grad(-loss, weight)
    truth.w.requires_grad_()
    (wanted,) = torch.autograd.grad(truth.log_prob(x).sum(), truth.w)
    torch.testing.assert_close(got[:4], wanted, rtol=0.02, atol=0.02)


def test_kl_warmup_weighs_the_loss_and_nothing_that_is_logged() -> None:
    vae = binary_vae(objective=functools.partial(ELBO, kl_warmup_epochs=4)).train()
    vae.trainer = SimpleNamespace(global_step=0, num_training_batches=10, accumulate_grad_batches=1)  # type: ignore[assignment]
    for step, beta in ((0, 0.0), (10, 0.25), (40, 1.0), (100, 1.0)):
        vae.trainer.global_step = step  # type: ignore[misc]
        vae.on_train_batch_start(None, 0)
        loss, values = vae.losses(all_binary(), NOISE, None)
        assert loss.item() == pytest.approx((values["reconstruction"] + beta * values["kl"]).mean().item())
        torch.testing.assert_close(values["objective"], values["kl"] + values["reconstruction"])
    vae.trainer.accumulate_grad_batches = 8  # type: ignore[misc]
    vae.trainer.global_step = 4  # of two steps an epoch, the second after two batches  # type: ignore[misc]
    vae.on_train_batch_start(None, 0)
    assert vae.epochs_done.item() == 2
    loss, values = vae.eval().losses(all_binary(), NOISE, None)
    torch.testing.assert_close(loss, values["objective"].mean())


@pytest.mark.parametrize(("flow", "groups"), [(None, 2), ("iaf", 1)])
def test_free_bits_count_at_least_lambda_for_each_group(flow: str | None, groups: int) -> None:
    """A group is a dimension where the KL is analytic and all of z where it is not; its mean is over the batch."""

    def make(**arguments: float) -> VAE:
        objective = functools.partial(ELBO, **arguments)
        return binary_vae(FLOWS[flow] if flow else None, objective=objective).train()

    loss, values = make(free_bits=100.0).losses(all_binary(), NOISE, None)
    assert loss.item() == pytest.approx(values["reconstruction"].mean().item() + 100 * groups)
    loss, values = make(free_bits=1e-6).losses(all_binary(), NOISE, None)
    assert loss.item() == pytest.approx(values["objective"].mean().item())
    # between the groups' means: a maximum of means, not a mean of maxima over examples
    vae = make()
    kl = vae.posterior_of(all_binary()).context.value.kl() if flow is None else values["kl"].detach().unsqueeze(-1)
    means = kl.mean(0)
    vae.objective.free_bits = means.mean().item() if groups > 1 else 0.5 * (means + kl.max()).item()
    assert (kl > vae.objective.free_bits).any()
    assert (kl < vae.objective.free_bits).any()
    loss, values = vae.losses(all_binary(), NOISE, None)
    torch.testing.assert_close(loss, values["reconstruction"].mean() + means.clamp(min=vae.objective.free_bits).sum())
    # outside training nothing changes, and no process waits for another
    loss, values = vae.eval().losses(all_binary(), NOISE, None)
    torch.testing.assert_close(loss, values["objective"].mean())


def test_below_lambda_the_kl_has_no_gradient() -> None:
    vae, reference = binary_vae(objective=functools.partial(ELBO, free_bits=100.0)).train(), binary_vae()
    loss, _ = vae.losses(all_binary(), NOISE, None)
    loss.backward()
    _, values = reference.losses(all_binary(), NOISE, None)
    values["reconstruction"].mean().backward()
    torch.testing.assert_close(gaussian_of(vae).bias.grad, gaussian_of(reference).bias.grad)


def test_integers_as_densities_draw_their_noise_again_for_picked_draws() -> None:
    vae = VAE((2,), 2, objective=iwae(5, gradient_samples=2), likelihood=Gaussian).double()
    redraw(vae, 0.5)
    vae.objective.gradient_samples = 5000
    loss, _ = vae.losses(x := all_binary().flatten(1)[:, :2], NOISE, None)
    got = torch.autograd.grad(loss, parameters := list(vae.parameters()))
    vae.objective.gradient_samples = None
    wanted = torch.autograd.grad(vae.losses(x, NOISE, None)[0], parameters)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2 * b.abs().max().item())


def test_objectives_refuse_what_would_change_nothing() -> None:
    for make, message in {
        lambda: IWAE(k=1): "of a single draw is the ELBO",
        lambda: IWAE(k=5, gradient_samples=6): "gradient_samples is 6, of k = 5 draws",
        lambda: IWAE(k=5, gradient_samples=0): "gradient_samples is 0",
        lambda: ELBO(free_bits=-1.0): "free_bits is -1.0, expected a number of 0 or more",
        lambda: VAE((2,), flow=FLOWS["iaf"], posterior=StandardNormal): "set one of them",
        lambda: VAE((2,), prior=ThreeDimensional): r"the prior is of \(3,\), expected latents \(16,\)",
    }.items():
        with pytest.raises(VaeflowError, match=message):
            make()


class ThreeDimensional(StandardNormal):
    """A prior of another shape than the latents have."""

    def __init__(self, features: int, context_features: int = 0) -> None:
        super().__init__(3)


IMAGE = {"shape": (1, 8, 8), "levels": 17}
VARIANTS = {
    "mlp": {},
    "conv": {"encoder": GatedConvEncoder, "decoder": GatedConvDecoder},
    "categorical": {"likelihood": Categorical},
    "gaussian": {"likelihood": Gaussian},
    "prior": {"prior": functools.partial(FlowDensity, flow=functools.partial(FLOWS["planar"]))},
    "conditional": {"num_classes": 3, "class_conditional": True, "flow": FLOWS["iaf"]},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_four_questions(variant: str) -> None:
    vae = VAE(**IMAGE, latent_features=3, **VARIANTS[variant])
    x = torch.randint(0, 17, (4, 1, 8, 8)).float()
    context = vae.context_of(torch.tensor([0, 1, 2, 0]))
    assert (context is None) == (variant != "conditional")
    noise = Noise(index=torch.arange(4))
    weights = vae.log_weights(x, noise, 5, context)
    assert weights.shape == (5, 4)
    assert weights.requires_grad
    code = vae.encode(x, context)
    assert code.shape == (4, 3)
    assert torch.equal(code, vae.encode(x, context))
    assert vae.latent_slices == {"z": slice(0, 3)}
    mean = vae.decode(code, context)
    assert mean.shape == x.shape
    assert mean.min() >= -0.5
    drawn = vae.sample(4, Noise(), context)
    assert torch.equal(drawn, drawn.round().clamp(0, 16))
    assert vae.sample(4, Noise(), context, temperature=0.5, mean=True).shape == x.shape
    same = vae.sample(4, Noise(), context, temperature=0.0, mean=True)
    if context is None:
        torch.testing.assert_close(same, same[:1].expand_as(same))


@pytest.mark.parametrize("flow", [None, *FLOWS])
@pytest.mark.parametrize("levels", [17, None])
def test_codes_and_reconstructions_have_their_jacobians(
    flow: str | None, levels: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all latent spaces; and the bound at fixed noise its derivative, within the first and the last level."""
    monkeypatch.setattr("vaeflow.models.training.check_values", lambda *_: None)  # differences leave the integers
    vae = VAE((1, 2, 2), levels, latent_features=3, flow=FLOWS[flow] if flow else None).double().eval()
    redraw(vae, 0.5)
    x = torch.tensor([[[[3.0, 8.0], [13.0, 1.0]]]], dtype=torch.float64)
    noise = Noise(index=torch.arange(1))
    maps = [
        (lambda x: vae.reconstruct(x, noise), x),
        (lambda x: vae.reconstruct(x, noise, temperature=0.5), x),
        (lambda x: vae.log_prob(x, num_samples=4), x),
    ]
    for space in vae.latent_spaces.values():
        maps += [
            (lambda x, space=space: space.encode(x, None), x),
            (lambda z, space=space: space.decode(z, None), space.encode(x, None).detach()),
        ]
    for f, point in maps:
        wanted = differences(f, point)
        assert wanted.abs().max() > 1e-4
        found = jacobian(f, point), jacobian(f, point, vectorize=True), jacrev(f)(point), jacfwd(f)(point)
        mapped = vmap(jacrev(lambda v, f=f: f(v[None])))(point)
        for value in (*found, mapped):
            torch.testing.assert_close(value.reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-6)


def test_continuous_data_come_back_in_their_units() -> None:
    truth = LinearGaussian()
    x = truth.sample(500)
    again = truth.vae.decode(truth.vae.encode(x))
    residual = (again - x) / truth.scale
    assert residual.std() < 0.6
    draws = truth.vae.sample(20_000, Noise())
    torch.testing.assert_close(draws.mean(0), truth.mean + truth.scale * truth.b, rtol=0, atol=0.1)


def statistics(mean: torch.Tensor, scale: torch.Tensor) -> SimpleNamespace:
    """What a data module knows of its training data."""
    return SimpleNamespace(statistics=lambda: (mean, scale), dimension_name="column {}".format)


def test_data_far_from_zero_keep_their_digits() -> None:
    """Dates in seconds, say: in float32 all of them are one number."""
    x = 1.6e9 + torch.randn(1000, 2, dtype=torch.float64)
    vae = VAE(shape=(2,), latent_features=1)
    near = VAE(shape=(2,), latent_features=1)
    near.load_state_dict(vae.state_dict())
    vae.initialise(statistics(x.mean(0), x.std(0)))
    near.initialise(statistics(x.mean(0) - 1.6e9, x.std(0)))
    noise = Noise(index=torch.arange(1000))
    with torch.no_grad():
        far_weights, near_weights = vae.log_weights(x, noise, 1), near.log_weights(x - 1.6e9, noise, 1)
    torch.testing.assert_close(far_weights, near_weights, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("likelihood", "levels"), [(Bernoulli, 2), (DiscretisedLogistic, 256), (Categorical, 8)])
def test_hessians_of_the_joint(likelihood: type[Likelihood], levels: int) -> None:
    """In single precision as in double, also where the logits are hundreds."""
    torch.manual_seed(0)
    vae = VAE((1, 2, 4), levels, latent_features=3, likelihood=likelihood).eval()
    x, z = torch.randint(0, levels, (1, 1, 2, 4)), 3e3 * torch.randn(3)

    def hessian(vae: VAE, z: Tensor) -> Tensor:
        return torch.autograd.functional.hessian(
            lambda z: sum(term.sum() for term in vae.log_joint(x, z[None, None], Noise(0))), z
        )

    single = hessian(vae, z)
    torch.testing.assert_close(single.double(), hessian(vae.double(), z.double()), rtol=1e-3, atol=1e-4)


def test_mixed_precision_is_for_the_nets_alone() -> None:
    """Under autocast every density is still added up in float32."""
    vae = VAE(**IMAGE, latent_features=3, flow=FLOWS["planar"])
    x, noise = torch.randint(0, 17, (4, 1, 8, 8)).float(), Noise(index=torch.arange(4))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        inferred = vae.infer(x, None)
        terms = vae.terms(inferred, noise, 5)
    group = terms.groups["z"]
    assert {value.dtype for value in (group.z, group.log_q, group.log_p, terms.log_likelihood)} == {torch.float32}
    with torch.no_grad():
        z, log_q = inferred.q.rsample_with_log_prob(5, noise)
        torch.testing.assert_close(group.log_q - group.log_p, log_q - vae.prior.log_prob(z))
        plain = vae.terms(inferred, noise, 5).log_likelihood
    torch.testing.assert_close(terms.log_likelihood, plain, rtol=0.02, atol=0)  # the decoder itself is in bfloat16


def test_shapes_are_checked() -> None:
    vae = VAE(**IMAGE)
    with pytest.raises(VaeflowError, match=r"x has shape \(2, 1, 8, 7\), expected \(batch, 1, 8, 8\)"):
        vae.log_weights(torch.zeros(2, 1, 8, 7), NOISE, 1)
    with pytest.raises(VaeflowError, match=r"z has shape \(2, 3\), expected \(..., batch, 16\)"):
        vae.decode(torch.zeros(2, 3))
    with pytest.raises(VaeflowError, match="needs labels"):
        VAE(**IMAGE, class_conditional=True)


def test_the_start_is_the_mean_image() -> None:
    vae = VAE(shape=(1, 4, 4), levels=2)
    mean = torch.linspace(0.05, 0.95, 16).view(1, 4, 4)
    vae.initialise(statistics(mean, (mean * (1 - mean)).sqrt()))
    torch.testing.assert_close(vae.decode(torch.zeros(1, 16))[0], mean, rtol=0, atol=0.02)


def test_a_schedule_that_knows_no_length_is_refused() -> None:
    vae = VAE(**IMAGE, lr_scheduler=functools.partial(torch.optim.lr_scheduler.StepLR))
    with pytest.raises(VaeflowError, match="second argument of StepLR is `step_size`"):
        vae.configure_optimizers()


def test_a_model_that_no_checkpoint_could_rebuild_is_refused() -> None:
    for flow in (lambda d, c: FLOWS["iaf"](d, c), math.sqrt):
        with pytest.raises(VaeflowError, match=r"give a class, or functools.partial\(Class, name=value\)"):
            VAE(**IMAGE, flow=flow)


def test_a_flow_that_cannot_be_made_is_named() -> None:
    with pytest.raises(VaeflowError, match="the flow cannot be made: Can't instantiate abstract class Bijection"):
        VAE(**IMAGE, flow=Bijection)


def test_a_class_conditional_model_asks_for_its_context() -> None:
    vae = VAE(**IMAGE, num_classes=3, class_conditional=True)
    for question in (lambda: vae.sample(2, Noise()), lambda: vae.encode(torch.zeros(2, *vae.shape))):
        with pytest.raises(VaeflowError, match="conditioned on a context of 3 features, but got none"):
            question()
