"""Hierarchies of latents: a linear-Gaussian one whose posterior is known, and the very deep VAE."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import redraw
from vaeflow.distributions import Bernoulli, Categorical, Normal
from vaeflow.errors import VaeflowError
from vaeflow.estimate import Group, Terms
from vaeflow.models import VDVAE, LatentVariableModel
from vaeflow.noise import Noise
from vaeflow.objectives import ELBO, IWAE

NOISE = Noise(index=torch.arange(16))


class LinearHierarchy(LatentVariableModel):
    """z_L ~ N(0, I), z_l = W_l z_{l+1} + b_l + s_l ε, x = z_0, with the exact posteriors q(z_l|x, z_{l+1}), each a
    Gaussian whose covariance is made diagonal by W's that act on each coordinate alone.

    Args:
        depth: L.
        widen: what the standard deviation of every q is multiplied by.
    """

    def __init__(self, depth: int = 3, widen: float = 1.0, **shared: Any) -> None:
        super().__init__(shape=(2,), **shared)
        generator = torch.Generator().manual_seed(depth)
        self.w, self.b = (torch.randn(depth, 2, generator=generator, dtype=torch.float64) for _ in range(2))
        self.s = torch.rand(depth, 2, generator=generator, dtype=torch.float64) + 0.3
        self.depth, self.widen = depth, widen
        self.declare_groups({f"z{level}": (2,) for level in range(depth, 0, -1)})
        self.double()

    def prior_of(self, level: int, above: Tensor | None, like: Tensor) -> Normal:
        if above is None:
            return Normal(torch.zeros_like(like), torch.zeros_like(like))
        return Normal(self.w[level] * above + self.b[level], self.s[level].log().expand_as(above))

    def posterior_of_level(self, level: int, x: Tensor, p: Normal) -> Normal:
        """x = A z_l + m + noise of variance S, so the precision is p's and A²/S."""
        a, m, s = torch.ones(2).double(), torch.zeros(2).double(), torch.zeros(2).double()
        for below in range(level):
            m, s = m + a * self.b[below], s + (a * self.s[below]).square()
            a = a * self.w[below]
        precision = (-2 * p.log_scale).exp() + a.square() / s
        mean = (p.mean * (-2 * p.log_scale).exp() + a * (x - m) / s) / precision
        return Normal(mean, -0.5 * precision.log() + math.log(self.widen))

    def infer(self, x: Tensor, context: Tensor | None) -> Tensor:
        return x.double()

    def terms(self, inferred: Tensor, noise: Noise, num_samples: int) -> Terms:
        groups: dict[str, Group] = {}
        above, like = None, inferred.expand(num_samples, -1, -1)
        for level in range(self.depth, 0, -1):
            name = f"z{level}"
            p = self.prior_of(level, above, like)
            q = self.posterior_of_level(level, inferred, p)
            epsilon = noise.within(name).normal("z", num_samples, (2,), torch.float64)
            above = q.at(epsilon)
            groups[name] = Group(above, q.log_prob_at(epsilon), p.log_prob(above), q.kl(p))
        return Terms(self.prior_of(0, above, like).log_prob(inferred), groups)

    def generate(
        self,
        noise: Noise,
        context: Tensor | None,
        given: Mapping[str, Tensor],
        temperature: float = 1.0,
        mean: bool = False,
    ) -> Tensor:
        above = None
        for level in range(self.depth, -1, -1):
            epsilon = noise.within(f"z{level}").normal("z", 1, (2,), torch.float64)[0]
            p = self.prior_of(level, above, epsilon)
            above = given.get(f"z{level}", p.at(temperature * epsilon * (level > 0 or not mean)))
        assert above is not None
        return above

    def log_prob_in_closed_form(self, x: Tensor) -> Tensor:
        mean, variance = torch.zeros(2).double(), torch.ones(2).double()
        for level in range(self.depth - 1, -1, -1):
            mean = self.w[level] * mean + self.b[level]
            variance = self.w[level].square() * variance + self.s[level].square()
        return torch.distributions.Normal(mean, variance.sqrt()).log_prob(x).sum(-1)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_at_the_exact_posterior_every_weight_is_p(depth: int) -> None:
    model = LinearHierarchy(depth).eval()
    x = 3 * torch.randn(16, 2, dtype=torch.float64)
    wanted = model.log_prob_in_closed_form(x)
    weights = model.log_weights(x, NOISE, 50)
    torch.testing.assert_close(weights, wanted.expand(50, -1), rtol=0, atol=1e-10)
    model.objective = IWAE(k=7)
    _, values = model.losses(x, NOISE, None) if "iwae" in model.logged else (None, model.objective(
        model.draws_of(x).draw, NOISE, False, model.epochs_done)[1])  # fmt: skip
    torch.testing.assert_close(values["iwae"], wanted, rtol=0, atol=1e-10)


def test_the_closed_form_kls_are_what_the_draws_say() -> None:
    """Of a posterior that is too wide: the ELBO by closed forms given the draws above, and by single draws."""
    model = LinearHierarchy(3, widen=1.4).eval()
    x = torch.randn(16, 2, dtype=torch.float64)
    terms = model.draws_of(x)(NOISE, 20_000)
    for group in terms.groups.values():
        ratio = group.log_q - group.log_p - group.kl.sum(-1)  # type: ignore[union-attr]
        assert (ratio.mean(0).abs() < 4.5 * ratio.std(0) / len(ratio) ** 0.5).all()
    gap = model.log_prob_in_closed_form(x) - terms.means["elbo"]
    assert (gap > 0).all()
    torch.testing.assert_close(terms.means["elbo"], terms.log_weights.mean(0), rtol=0, atol=0.1)


def test_log_p_of_a_hierarchy_is_its_estimate() -> None:
    model = LinearHierarchy(3, widen=1.4).eval()
    x = torch.randn(16, 2, dtype=torch.float64)
    weights = model.log_weights(x, NOISE, 20_000)
    ratio = (weights - model.log_prob_in_closed_form(x)).exp()
    assert ((ratio.mean(0) - 1).abs() < 4.5 * ratio.std(0) / len(ratio) ** 0.5).all()


def make(shape: tuple[int, int, int] = (1, 2, 2), levels: int = 2, gain: float = 0.7, **arguments: Any) -> VDVAE:
    torch.manual_seed(0)
    head = Bernoulli if levels == 2 else Categorical
    settings = {"width": 6, "middle": 4, "latent_channels": 1, "layers": (2, 1), "likelihood": head, **arguments}
    return redraw(VDVAE(shape, levels, **settings).double(), gain).eval()


def test_the_weights_of_all_images_sum_to_one() -> None:
    model = make(gain=0.4)
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=torch.float64).view(-1, 1, 2, 2)
    with torch.no_grad():
        totals = model.log_weights(x, NOISE, 40_000).exp().sum(1)
    stderr = totals.std() / len(totals) ** 0.5
    assert stderr < 0.03
    assert (totals.mean() - 1).abs() < 4 * stderr


@pytest.mark.parametrize("size", [(5, 3), (8, 8), (1, 1), (7, 4)])
def test_images_of_any_size_and_any_scales(size: tuple[int, int]) -> None:
    model = make((2, *size), 5, layers=(1, 2, 1), strides=(2, 3), encoder_blocks=(1, 1, 2))
    x = torch.randint(0, 5, (16, 2, *size)).double()
    assert torch.isfinite(model.log_weights(x, NOISE, 3)).all()
    assert model.encode(x).shape == (16, model.code_features)
    assert model.sample(3, Noise()).shape == (3, 2, *size)


def test_generation_is_the_walk_of_inference() -> None:
    """All groups given, it gives what inference thinks of x, from z alone; noise matters only where some is drawn."""
    model = make((1, 4, 4), 5)
    x = torch.randint(0, 5, (16, 1, 4, 4)).double()
    terms = model.draws_of(x)(NOISE, 1)
    given = {name: group.z[0] for name, group in terms.groups.items()}
    mean = model.sample(16, NOISE, given=given, mean=True)
    assert torch.equal(mean, model.sample(16, Noise(seed=5), given=given, mean=True))
    codes = torch.cat([z.flatten(1) for z in given.values()], dim=-1)
    torch.testing.assert_close(model.decode(codes), mean)
    p = model.head.log_prob(x, model._walk(16, None, lambda name, *_: given[name]).unsqueeze(0))[0]
    torch.testing.assert_close(p, terms.log_likelihood[0])
    top, *_, last = given
    partly = {top: given[top]}
    assert not torch.allclose(
        model.sample(16, NOISE, given=partly, mean=True), model.sample(16, Noise(seed=5), given=partly, mean=True)
    )
    upper = model.draws_of(x)(Noise(seed=9, index=torch.arange(16)), 1).groups[top]
    changed = {**given, last: given[last] + 1}
    assert not torch.allclose(model.sample(16, NOISE, given=changed, mean=True), mean)
    assert not torch.allclose(upper.z[0], given[top])


def test_codes_are_the_middle_of_the_posterior_and_levels_have_names() -> None:
    model = make((1, 4, 4), 5)
    x = torch.randint(0, 5, (16, 1, 4, 4)).double()
    assert list(model.latent_slices) == ["2x2.0", "4x4.0", "4x4.1"]
    assert torch.equal(model.encode(x), model.encode(x))
    torch.testing.assert_close(model.reconstruct(x, NOISE), model.decode(model.encode(x)))
    assert not torch.allclose(model.reconstruct(x, NOISE, temperature=1.0), model.reconstruct(x, NOISE))


def test_layers_have_noise_of_their_own() -> None:
    groups = make((1, 4, 4), 5).draws_of(torch.zeros(16, 1, 4, 4))(NOISE.watched(), 2).groups
    drawn = [group.z.flatten(2) for group in groups.values()]
    assert not torch.isclose(drawn[1], drawn[2]).any()


def test_the_prior_starts_as_a_standard_normal_that_knows_nothing_of_z() -> None:
    model = VDVAE((1, 4, 4), 5, width=6, middle=4, latent_channels=2, layers=(2, 1)).double()
    x = torch.randint(0, 5, (16, 1, 4, 4)).double()
    for group in model.draws_of(x)(NOISE, 3).groups.values():
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(group.z).flatten(2).sum(-1)
        torch.testing.assert_close(group.log_p, normal)


def test_labels_change_what_is_imagined() -> None:
    model = make((1, 4, 4), 5, num_classes=3, class_conditional=True)
    context = model.context_of(torch.zeros(16, dtype=torch.int64))
    other = model.context_of(torch.ones(16, dtype=torch.int64))
    x = torch.randint(0, 5, (16, 1, 4, 4)).double()
    assert not torch.allclose(model.log_weights(x, NOISE, 2, context), model.log_weights(x, NOISE, 2, other))
    assert not torch.allclose(model.sample(16, NOISE, context, mean=True), model.sample(16, NOISE, other, mean=True))


@pytest.mark.parametrize(("per", "units"), [("group", 3), ("channel", 6), ("dimension", 8 + 32 + 32)])
def test_free_bits_of_groups_channels_and_dimensions(per: str, units: int) -> None:
    objective = functools.partial(ELBO, free_bits=1000.0, free_bits_per=per)
    model = VDVAE((1, 4, 4), 5, width=6, middle=4, latent_channels=2, layers=(2, 1), objective=objective).double()
    x = torch.randint(0, 5, (16, 1, 4, 4)).double()
    loss, values = model.losses(x, NOISE, None)
    torch.testing.assert_close(loss, values["reconstruction"].mean() + 1000 * units)
    assert {f"kl/{name}" for name in model.event_shapes} <= set(values)
    torch.testing.assert_close(values["kl"], sum(values[f"kl/{name}"] for name in model.event_shapes))


def test_what_it_cannot_be_of() -> None:
    for arguments, message in (
        ({"levels": None}, "VDVAE is a model of images of integers"),
        ({"shape": (16,)}, "VDVAE is a model of images of integers"),
        ({"strides": (2, 2)}, "layers has 2 entries, strides 2 and encoder_blocks 2: expected one of layers"),
        ({"layers": (1, 0)}, r"layers\[1\] is 0, expected at least 1"),
        ({"objective": functools.partial(IWAE, doubly_reparameterised=True)}, "is not defined for VDVAE"),
    ):
        with pytest.raises(VaeflowError, match=message):
            VDVAE(**{"shape": (1, 4, 4), "levels": 5, "layers": (1, 1), **arguments})
    model = make((1, 4, 4), 5)
    for given, message in (
        ({"8x8.0": torch.zeros(3, 1, 8, 8)}, "there is no group '8x8.0' of latents: there are 2x2.0, 4x4.0, 4x4.1"),
        ({"4x4.0": torch.zeros(3, 1, 2, 2)}, r"the group '4x4.0' is given as \(3, 1, 2, 2\), expected \(3, 1, 4, 4\)"),
    ):
        with pytest.raises(VaeflowError, match=message):
            model.sample(3, Noise(), given=given)
    with pytest.raises(VaeflowError, match="VDVAE has no latent space with a cumulative distribution"):
        model.icdf(torch.full((1, model.code_features), 0.5))


def test_the_published_configuration_has_the_published_number_of_parameters() -> None:
    """CIFAR-10: 43 layers, 39.15 million, with a mixture head of 10 × 10 numbers instead of ours."""
    with torch.device("meta"):
        model = VDVAE((3, 32, 32), 256, width=384, middle=96, latent_channels=16, layers=(22, 11, 6, 3, 1),
                      strides=(2, 2, 2, 4), encoder_blocks=(12, 7, 7, 4, 3), likelihood=Categorical)  # fmt: skip
    theirs = sum(p.numel() for p in model.parameters()) - 385 * 768 + 385 * 100
    assert theirs == pytest.approx(39.15e6, rel=5e-3)
