"""Glow: exact, of the published size, with priors of what leaves a scale."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import redraw
from vaeflow import models
from vaeflow.bijections import GaussianPart, InvertibleLinear
from vaeflow.data import Digits
from vaeflow.errors import VaeflowError
from vaeflow.nets.glow_conditioner import EdgeConv2d, NormalisedConv2d
from vaeflow.nets.initialisation import initialising
from vaeflow.noise import Noise


def make(shape: tuple[int, int, int] = (1, 4, 4), gain: float = 0.3, **arguments: Any) -> models.Glow:
    torch.manual_seed(0)
    model = models.Glow(**{"shape": shape, "scales": 2, "steps": 2, "channels": 6, **arguments}).double()
    redraw(model, gain)
    return model.eval()


@pytest.mark.parametrize(("shape", "scales"), [((1, 4, 4), 2), ((2, 4, 2), 1), ((3, 4, 4), 1)])
def test_the_log_determinant_is_that_of_autograd(shape: tuple[int, int, int], scales: int) -> None:
    """The priors of what leaves included: z is what the base is of."""
    density = make(shape, scales=scales).density
    x = torch.randn(3, *shape, dtype=torch.float64)
    z, log_det = density.normalise(x, None)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda v: density.encode(v.view(1, *shape))[0], x[i].flatten())
        torch.testing.assert_close(log_det[i], torch.linalg.slogdet(jacobian)[1], rtol=1e-8, atol=1e-8)
    again, log_det_back = density.generate(z, None)
    torch.testing.assert_close(again, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-9, atol=1e-9)


def test_what_leaves_has_the_density_of_its_gaussian() -> None:
    """log p(x) = Σ over scales of log N(z; μ(h), σ(h)²) + the log-determinants of the scales, each counted once."""
    density = make().density
    flow: Any = density.flow
    x = torch.randn(5, 1, 4, 4, dtype=torch.float64)
    h, total = x, torch.zeros(5, dtype=torch.float64)
    for k, scale in enumerate(flow.scales):
        h, log_det = scale.inverse(h)
        stays = h.shape[1] - flow.leaves[k][0]
        h, z = h[:, :stays], h[:, stays:]
        mu, log_sigma = flow.priors[str(k)].moments_given(h, None)
        normal = torch.distributions.Normal(mu.expand_as(z), log_sigma.exp().expand_as(z))
        total = total + log_det + normal.log_prob(z).flatten(1).sum(1)
    torch.testing.assert_close(density.log_prob(x), total)


def test_it_integrates_to_one() -> None:
    """Over images of 2 × 2 pixels, by importance sampling from a normal that is wider than its draws."""
    density = make((1, 2, 2), scales=1, steps=2).density
    generator = torch.Generator().manual_seed(1)
    proposal = torch.distributions.MultivariateNormal(
        *_moments(density.sample(4000, noise=Noise(seed=1).at(torch.arange(1)))[:, 0].flatten(1))
    )
    y = proposal.mean + torch.randn(400_000, 4, generator=generator, dtype=torch.float64) @ proposal.scale_tril.mT
    weights = (density.log_prob(y.view(-1, 1, 2, 2)) - proposal.log_prob(y)).exp()
    stderr = weights.std() / math.sqrt(len(weights))
    assert stderr < 0.01
    assert abs(weights.mean() - 1) < 4 * stderr


def _moments(draws: Tensor) -> tuple[Tensor, Tensor]:
    return draws.mean(0), 2 * torch.cov(draws.T)


def test_integers_have_the_probabilities_of_their_cells() -> None:
    """Σ_x P(x) = ∫ p over the cube that the cells cover: as many as there are among draws from p."""
    model = make((1, 2, 2), scales=1, steps=2, levels=2)
    actnorm: Any = model.density.flow.scales[0].bijections[3].bijection.bijections[1]
    with torch.no_grad():  # so that p lies about the cube
        actnorm.log_scale.fill_(1.5)
        actnorm.shift.fill_(0.5)
    images = torch.cartesian_prod(*[torch.arange(2)] * 4).view(-1, 1, 2, 2).double()
    weights = model.log_weights(images, Noise(seed=1).at(torch.arange(16)), 5000).exp()
    total, stderr = weights.mean(0).sum(), (weights.var(0) / 5000).sum().sqrt()
    draws = model.density.sample(40_000, noise=Noise(seed=3).at(torch.arange(1)))[:, 0]
    share = ((draws > 0) & (draws < 1)).flatten(1).all(1).double()
    assert share.mean() > 0.05
    assert abs(total - share.mean()) < 4 * (stderr.square() + share.var() / len(share)).sqrt()


@pytest.mark.parametrize("context_features", [0, 3])
def test_no_image_sees_another(context_features: int) -> None:
    density = make(num_classes=context_features, class_conditional=bool(context_features)).density
    x = torch.randn(4, 1, 4, 4, dtype=torch.float64)
    context = torch.randn(4, context_features, dtype=torch.float64) if context_features else None
    whole = density.log_prob(x, context)
    for i in range(4):
        alone = density.log_prob(x[i : i + 1], None if context is None else context[i : i + 1])
        torch.testing.assert_close(alone[0], whole[i])
    several = density.log_prob(torch.stack([x, 2 * x]), context)
    torch.testing.assert_close(several, torch.stack([whole, density.log_prob(2 * x, context)]))
    if context is not None:
        assert not torch.isclose(density.log_prob(x, context.roll(1, 0)), whole).any()


def test_the_published_configuration_has_the_published_size() -> None:
    """Kingma & Dhariwal's CIFAR-10 model has 44,603,604 parameters, of which 96 × 96 × 9 = 82,944 are weights of the
    last scale's zeros, which nothing depends on and which are not here."""
    with torch.device("meta"):
        model = models.Glow(shape=(3, 32, 32), levels=256)
    assert sum(parameter.numel() for parameter in model.parameters()) == 44_603_604 - 96 * 96 * 9


def test_the_first_batch_is_normalised_everywhere() -> None:
    model = models.Glow(shape=(1, 8, 8), levels=17, scales=2, steps=2, channels=8)
    data = Digits()
    model.initialise(data)
    seen: list[Tensor] = []
    nets = [part for part in model.modules() if isinstance(part, NormalisedConv2d)]
    hooks = [net.register_forward_hook(lambda module, inputs, output: seen.append(output)) for net in nets]
    x, _, index = data.first_batch()
    model.log_weights(x, Noise(0, "train, once", 0, index), 1)
    for hook in hooks:
        hook.remove()
    assert len(seen) == len(nets) == 8
    for output in seen:
        std, mean = torch.std_mean(output, dim=(0, 2, 3))
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-3)
        assert ((std - 1).abs() < 0.02).logical_or(std < 1e-3).all()


def test_a_convolution_knows_where_the_image_ends() -> None:
    """As with one more channel, of ones in the padding and zeros inside."""
    torch.manual_seed(0)
    convolution = EdgeConv2d(2, 3).double()
    torch.nn.init.normal_(convolution.bias)
    torch.nn.init.normal_(convolution.log_scale, std=0.1)
    x = torch.randn(5, 2, 4, 6, dtype=torch.float64)
    padded = torch.nn.functional.pad(torch.cat([x, torch.zeros(5, 1, 4, 6, dtype=torch.float64)], 1), (1, 1, 1, 1))
    padded[:, 2, [0, -1]] = 1
    padded[:, 2, :, [0, -1]] = 1
    weight = torch.cat([convolution.weight, convolution.edge.view(3, 1, 3, 3)], dim=1)
    wanted = torch.nn.functional.conv2d(padded, weight) + convolution.bias[:, None, None]
    torch.testing.assert_close(convolution(x), wanted * torch.exp(3 * convolution.log_scale)[:, None, None])


def test_the_matrix_starts_as_a_rotation() -> None:
    torch.manual_seed(0)
    linear = InvertibleLinear(7).double()
    matrix = linear.inverse(torch.eye(7, dtype=torch.float64))[0].mT
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(7, dtype=torch.float64), rtol=0, atol=1e-5)
    redraw(linear, 0.7)
    matrix = linear.inverse(torch.eye(7, dtype=torch.float64))[0].mT
    x = torch.randn(4, 7, dtype=torch.float64)
    z, log_det = linear.inverse(x)
    torch.testing.assert_close(z, x @ matrix.mT)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(matrix)[1].expand(4))


def test_temperature_multiplies_the_noise_of_every_scale() -> None:
    model = make()
    noise = Noise(seed=2).at(torch.arange(6))
    epsilon = noise.normal("base", 1, (16,), torch.float64)[0]
    wanted = model.density.decode(0.5 * epsilon)
    torch.testing.assert_close(model.density.sample(1, None, noise, temperature=0.5)[0], wanted)


def test_what_it_cannot_be_of_is_said() -> None:
    with pytest.raises(VaeflowError, match=r"data have shape \(16,\), but this flow takes images"):
        models.Glow(shape=(16,))
    with pytest.raises(
        VaeflowError,
        match=r"cannot be halved 2 times, which 2 scales ask for: take fewer \(--model.scales 1\)",
    ):
        models.Glow(shape=(1, 6, 6), scales=2)
    with pytest.raises(VaeflowError, match="leaves nothing to determine it by"):
        models.glow.ChannelCoupling(1)
    with pytest.raises(VaeflowError, match="expected"):
        make().log_prob(torch.zeros(2, 1, 5, 5))


def test_the_last_prior_depends_on_the_border_alone() -> None:
    part = GaussianPart(0, (2, 5, 5))
    redraw(part, 0.5)
    mu, _ = part.moments_given(torch.zeros(3, 0, 5, 5), None)
    assert torch.equal(mu[0], mu[2])
    inside = mu[0, :, 1:-1, 1:-1]
    torch.testing.assert_close(inside, inside[:, :1, :1].expand_as(inside))
    assert not torch.isclose(mu[0, :, 0, 0], mu[0, :, 2, 2]).any()


def test_a_small_one_learns() -> None:
    model = models.Glow(shape=(1, 4, 4), levels=None, scales=2, steps=2, channels=16)
    x = torch.rand(64, 1, 1, 1) + 0.1 * torch.randn(64, 1, 4, 4)  # pixels that agree
    model.preprocess.set(x.mean(0).flatten(), x.std(0).flatten())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    noise = Noise(index=torch.arange(64))
    with initialising(model):
        before, _ = model.losses(x, noise, None)
    for _ in range(60):
        optimizer.zero_grad()
        loss, _ = model.losses(x, noise, None)
        loss.backward()
        optimizer.step()
    assert loss < before - 5
