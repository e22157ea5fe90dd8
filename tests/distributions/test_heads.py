"""Likelihood heads are probabilities of the user's data: of integers they sum to 1, their means and draws agree."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vaeflow.distributions import Bernoulli, Categorical, DiscretisedLogistic, Gaussian, Likelihood, heads
from vaeflow.distributions.heads import sum_of_sigmoids
from vaeflow.errors import VaeflowError
from vaeflow.noise import Noise

SHAPE = (2, 3, 1)
INTEGER_HEADS = [(Bernoulli, 2), (Categorical, 5), (DiscretisedLogistic, 5), (DiscretisedLogistic, 256)]


def output_of(head: Likelihood, batch: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(batch, *head.decoder_shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("cls", "levels"), INTEGER_HEADS)
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_integer_heads_sum_to_one_in_every_dimension(cls: type[Likelihood], levels: int, scale: float) -> None:
    head = cls((1,), levels)
    output = output_of(head, 20, scale)
    x = torch.arange(levels, dtype=torch.float64)
    total = torch.zeros(20, dtype=torch.float64)
    for value in x:
        total += head.log_prob(value.expand(20, 1), output.unsqueeze(0)).exp()[0]
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("features", [1, 95, 97, 784, 5000])
@pytest.mark.parametrize("lead", [(0,), (1,), (3, 7)])
def test_bernoulli_in_machine_code(
    lead: tuple[int, ...], features: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its values and derivatives, of logits about zero and far out, against the definition in float64."""
    monkeypatch.setattr(heads, "LEAST", 0)
    head, generator = Bernoulli((features,), 2), torch.Generator().manual_seed(0)
    x = torch.rand(lead[-1], features, generator=generator, dtype=dtype).round()
    logits = torch.randn(*lead, features, generator=generator, dtype=dtype)
    logits = (logits * torch.tensor([1e-3, 1.0, 30.0])[torch.arange(features) % 3]).to(dtype).requires_grad_()
    got = head.log_prob(x, logits if len(lead) > 1 else logits.unsqueeze(0)).view(lead)
    wide = logits.detach().double().requires_grad_()
    expected = (x.double() * wide - torch.logaddexp(wide, torch.zeros_like(wide))).sum(-1)
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(got.double(), expected, rtol=4 * tolerance, atol=tolerance * features)
    g = torch.randn(lead, generator=generator, dtype=dtype)
    (by_logits,), (by_wide,) = torch.autograd.grad(got, logits, g), torch.autograd.grad(expected, wide, g.double())
    torch.testing.assert_close(by_logits.double(), by_wide, rtol=tolerance, atol=tolerance)


def test_derivatives_of_derivatives_of_bernoulli(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "LEAST", 0)
    x, logits = (torch.rand(2, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def log_prob(x: Tensor, logits: Tensor) -> Tensor:
        return Bernoulli((5,), 2).log_prob(x, logits.unsqueeze(0))

    assert torch.autograd.gradcheck(log_prob, (x, logits), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(log_prob, (x, logits))
    by_x, by_logits = torch.autograd.functional.jacobian(log_prob, (x, logits), vectorize=True)
    torch.testing.assert_close((by_x, by_logits), torch.autograd.functional.jacobian(log_prob, (x, logits)))


def test_an_index_has_no_derivative() -> None:
    head = Categorical((1,), 5)
    x, output = torch.ones(3, 1, dtype=torch.float64), output_of(head, 3).unsqueeze(0)
    assert head.log_prob(x, output).shape == (1, 3)
    for ask in (
        torch.autograd.functional.jacobian,
        lambda f, x: torch.func.jacrev(f)(x),
        lambda f, x: torch.func.jacfwd(f)(x),
        lambda f, x: torch.func.jvp(f, (x,), (x,)),
    ):
        with pytest.raises(VaeflowError, match="Categorical has no derivative by x"):
            ask(lambda x: head.log_prob(x, output), x)


@pytest.mark.parametrize(("cls", "levels"), INTEGER_HEADS)
def test_dimensions_are_independent_and_add_up(cls: type[Likelihood], levels: int) -> None:
    """The whole is the sum of its dimensions, each read with its own part of the output."""
    head, single = cls(SHAPE, levels), cls((1,), levels)
    output = output_of(head, 4)
    x = torch.randint(0, levels, (4, *SHAPE)).double()
    parts = torch.stack(head.split(output) if head.parameters_per_dimension > 1 else [output], 1).flatten(2)
    total = sum(single.log_prob(x.flatten(1)[:, d : d + 1], parts[None, :, :, d])[0] for d in range(math.prod(SHAPE)))
    torch.testing.assert_close(head.log_prob(x, output.unsqueeze(0))[0], total)


@pytest.mark.parametrize(("cls", "levels"), INTEGER_HEADS)
def test_mean_and_draws_agree_with_the_probabilities(cls: type[Likelihood], levels: int) -> None:
    head = cls((1,), levels)
    output = output_of(head, 3)
    x = torch.arange(levels, dtype=torch.float64)
    p = torch.stack([head.log_prob(v.expand(3, 1), output.unsqueeze(0)).exp()[0] for v in x])
    torch.testing.assert_close(head.mean(output)[:, 0], (p * x[:, None]).sum(0))
    n = 20_000
    for row in range(3):
        draws = head.sample(output[row].expand(n, *output.shape[1:]), Noise(index=torch.arange(n)))[0]
        assert set(draws.unique().tolist()) <= set(x.tolist())
        variance = (p[:, row] * (x - head.mean(output)[row]).square()).sum()
        assert (draws.mean() - head.mean(output)[row, 0]).abs() < 4 * (variance / n).sqrt()


@pytest.mark.parametrize("levels", [256, 4096, 65536])
def test_the_mean_of_many_levels_is_the_sum_over_them(levels: int) -> None:
    """With its derivatives, wherever μ lies, and however steep the steps are: two ways of summing meet at s = 3."""
    n = levels - 1
    scales = torch.tensor([1e-3, 0.1, 0.7, 2.999, 3.0, 3.001, 8.0, 100.0, n, 100 * n], dtype=torch.float64)
    places = torch.tensor(
        [-9 * n, -300, -3, 0, 0.2, 0.5, 40, n / 2 + 0.1, n - 30, n - 0.5, n, n + 7, 2 * n], dtype=torch.float64
    )
    inputs = [value.requires_grad_() for value in torch.cartesian_prod(places, scales).T.contiguous().unbind()]
    found = sum_of_sigmoids(*inputs, n)
    mu, s = inputs
    k = torch.arange(1, levels, dtype=torch.float64)
    wanted = torch.stack([torch.sigmoid((m - k + 0.5) / w).sum() for m, w in zip(mu, s, strict=True)])
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad(found.sum(), inputs), torch.autograd.grad(wanted.sum(), inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    single = sum_of_sigmoids(mu.detach().float(), s.detach().float(), n)
    torch.testing.assert_close(single.double(), wanted.detach(), rtol=1e-5, atol=1e-30 + 1e-7 * n)


def test_the_mean_takes_no_time_for_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added up of 65,536 levels is nothing, of 4,096 what lies around μ; of few, as ever, all."""
    counts = list[int]()

    def counted(mu: Tensor, s: Tensor, n: int) -> Tensor:
        counts.append(n)
        return added_up(mu, s, n)

    added_up = heads._added_up
    monkeypatch.setattr(heads, "_added_up", counted)
    for levels in (65536, 4096, 17):
        head = DiscretisedLogistic((1,), levels)
        output = output_of(head, 5).float()
        mean = head.mean(output)
        assert ((mean >= 0) & (mean <= levels - 1)).all()
    assert counts == [103, 16]
    mu, s = head._location_and_scale(output)
    assert torch.equal(mean, sum(torch.sigmoid((mu - k + 0.5) / s) for k in range(1, 17)))


def test_a_uniform_model_over_l_levels_has_log2_l_bits() -> None:
    for levels in (2, 17, 256):
        head = Bernoulli(SHAPE, 2) if levels == 2 else Categorical(SHAPE, levels)
        x = torch.randint(0, levels, (3, *SHAPE)).double()
        nll = -head.log_prob(x, torch.zeros(1, 3, *head.decoder_shape, dtype=torch.float64))
        bits = nll / (math.prod(SHAPE) * math.log(2))
        torch.testing.assert_close(bits, torch.full_like(bits, math.log2(levels)))


def test_the_edges_of_a_discretised_logistic_take_the_tails() -> None:
    """However far out μ lies, in float32 too, the nearest edge keeps its mass and no logarithm is of zero."""
    head = DiscretisedLogistic((1,), 256)
    for location in (-50.0, 50.0):
        output = torch.tensor([[[location, -3.0]]])
        near, far = (0.0, 255.0) if location < 0 else (255.0, 0.0)
        assert head.log_prob(torch.tensor([[near]]), output).item() == pytest.approx(0.0, abs=1e-6)
        assert -math.inf < head.log_prob(torch.tensor([[far]]), output).item() < -100


def test_gaussian_of_continuous_data_is_torchs() -> None:
    head = Gaussian(SHAPE, None)
    output = output_of(head, 4)
    mu, sigma = head._location_and_scale(output)
    x = torch.randn(4, *SHAPE, dtype=torch.float64)
    wanted = torch.distributions.Normal(mu, sigma).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(head.log_prob(x, output.unsqueeze(0))[0], wanted)


@pytest.mark.parametrize("levels", [None, 256])
def test_sigma_has_a_floor(levels: int | None) -> None:
    head = Gaussian((1,), levels)
    output = torch.tensor([[0.0, -1e6]])
    assert head._location_and_scale(output)[1].item() >= 0.01
    assert math.isfinite(head.log_prob(torch.zeros(1, 1), output.unsqueeze(0)))


def test_gaussian_mass_of_integers_is_a_lower_bound() -> None:
    """exp E_u log p(x + u) ≤ ∫ p(x + u) du, so the bounds of all integers sum to at most 1."""
    head = Gaussian((1,), 8)
    output = output_of(head, 5)
    u = Noise(index=torch.arange(5)).uniform("dequantisation", 4000, (1,), torch.float64)
    total = sum(head.log_prob(v + u, output.expand(4000, -1, -1)).mean(0).exp() for v in range(8))
    assert isinstance(total, Tensor)
    assert (total <= 1).all()
    assert (total > 0.05).all()


class TestConstantPixel:
    """One pixel that is always 7: why a Gaussian of integers needs a floor for σ, and noise both times."""

    X = torch.full((200, 1), 7.0)

    def fit(self, head: Gaussian, steps: int = 1500, dequantise: bool = True) -> Tensor:
        """The output that maximises the likelihood in training, with or without noise."""
        output = torch.zeros(1, 2)
        head.start(torch.tensor([7.0]), torch.tensor([0.0]), output[0])
        output = output.unsqueeze(0).requires_grad_()
        optimizer = torch.optim.Adam([output], lr=0.01)
        for step in range(steps):
            noise = Noise(0, "train", step, torch.arange(len(self.X)))
            loss = self.nll(head, output, noise, dequantise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return output.detach()

    def nll(self, head: Gaussian, output: Tensor, noise: Noise, dequantise: bool) -> Tensor:
        if dequantise:
            return -head.log_prob(
                self.X + noise.uniform("dequantisation", 1, (1,)), output.expand(1, len(self.X), 2)
            ).mean()
        mu, sigma = head._location_and_scale(output)
        return -torch.distributions.Normal(mu, sigma).log_prob(self.X + 0.5).mean()

    def test_the_three_failures_and_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        head, test_noise = Gaussian((1,), 16), Noise(0, "test", 0, torch.arange(len(self.X)))
        monkeypatch.setattr("vaeflow.distributions.heads.bounded", lambda log_scale: log_scale)  # the floor alone
        # neither noise nor floor: the density diverges, the longer it is trained
        monkeypatch.setattr(Gaussian, "min_scale", 0.0)
        short, long = (self.nll(head, self.fit(head, steps, False), test_noise, False).item() for steps in (200, 1500))
        assert long < short - 3
        # a floor alone: the nll is that of the floor
        by_floor = {}
        for floor in (0.1, 0.01):
            monkeypatch.setattr(Gaussian, "min_scale", floor)
            by_floor[floor] = self.nll(head, self.fit(head, dequantise=False), test_noise, False).item()
        assert by_floor[0.1] - by_floor[0.01] == pytest.approx(math.log(10), abs=0.05)
        # noise in evaluation only: the nll explodes
        assert self.nll(head, self.fit(head, dequantise=False), test_noise, True) > 100
        # ours: the density of a Gaussian fitted to the unit box, ½ log(2πe/12), and the floor plays no part
        ours = {}
        for floor in (0.1, 0.01):
            monkeypatch.setattr(Gaussian, "min_scale", floor)
            ours[floor] = self.nll(head, self.fit(head), test_noise, True).item()
        assert ours[0.01] == pytest.approx(0.5 * math.log(2 * math.pi * math.e / 12), abs=0.03)
        assert ours[0.1] == pytest.approx(ours[0.01], abs=0.01)


@pytest.mark.parametrize(("cls", "levels"), [*INTEGER_HEADS, (Gaussian, 256)])
def test_the_start_explains_the_mean(cls: type[Likelihood], levels: int) -> None:
    head = cls(SHAPE, levels)
    mean = torch.linspace(0.2, 0.8, 6).view(SHAPE) * (levels - 1)
    bias = torch.zeros(head.decoder_shape)
    head.start(mean, torch.full(SHAPE, levels / 8), bias)
    if cls is Categorical:
        assert not bias.any()
    else:
        assert (head.mean(bias.unsqueeze(0))[0] - mean).abs().max() < 0.06 * levels


@pytest.mark.parametrize(
    ("cls", "levels", "message"),
    [
        (Bernoulli, 17, "integers with 17 levels"),
        (Bernoulli, None, "the data are continuous"),
        (Categorical, None, "likelihood of integers, but the data are continuous"),
        (DiscretisedLogistic, None, "likelihood of integers, but the data are continuous"),
    ],
)
def test_a_head_refuses_other_data(cls: type[Likelihood], levels: int | None, message: str) -> None:
    with pytest.raises(VaeflowError, match=message):
        cls(SHAPE, levels)
