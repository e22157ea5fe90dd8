"""The gated PixelCNN: a probability of images that is one, and that of its samples."""

from __future__ import annotations

import contextlib
import functools
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from tests.conftest import redraw
from tests.test_cli import Run
from vaeflow.distributions import Bernoulli, Categorical, DiscretisedLogistic, DiscretisedLogisticMixture, Gaussian
from vaeflow.errors import VaeflowError
from vaeflow.models import GatedPixelCNN
from vaeflow.nets.dropout import Dropout, dropout_layers
from vaeflow.noise import Noise
from vaeflow.records.checkpoint import read

SMALL: dict[str, Any] = {"channels": 4, "layers": 3, "first_kernel": 3, "head_channels": 6}
MIXTURE = functools.partial(DiscretisedLogisticMixture, components=2)
SPACES = {
    "3 × 3, binary": ((1, 3, 3), 2, Bernoulli),
    "3 × 3, binary, softmax": ((1, 3, 3), 2, Categorical),
    "2 × 2, five levels": ((1, 2, 2), 5, Categorical),
    "2 × 2, five levels, mixture": ((1, 2, 2), 5, MIXTURE),
    "2 channels": ((2, 2, 1), 3, Categorical),
    "2 channels, mixture": ((2, 1, 2), 3, MIXTURE),
    "1 × 4": ((1, 1, 4), 3, DiscretisedLogistic),
}


def make(space: str, **arguments: Any) -> GatedPixelCNN:
    """Far from its start, in float64."""
    shape, levels, head = SPACES[space]
    torch.manual_seed(1)
    return redraw(GatedPixelCNN(shape, levels, likelihood=head, **SMALL, **arguments).double(), 1.0).eval()


def all_images(model: GatedPixelCNN) -> Tensor:
    """Every image there is, ``(levels ** D, *shape)``."""
    assert model.levels is not None
    rows = itertools.product(range(model.levels), repeat=model.dimension)
    return torch.tensor(list(rows), dtype=torch.float64).view(-1, *model.shape)


@pytest.mark.parametrize("space", SPACES)
def test_the_probabilities_of_all_images_sum_to_one(space: str) -> None:
    model = make(space)
    p = model.log_prob(all_images(model)).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-10)
    assert p.max() > 3 * p.min()  # else any net would do


def test_they_sum_to_one_for_every_class_and_classes_differ() -> None:
    model = make("2 × 2, five levels", num_classes=3, class_conditional=True)
    x = all_images(model)
    of_classes = [model.log_prob(x, model.context_of(torch.full((len(x),), label))).exp() for label in range(3)]
    for p in of_classes:
        assert p.sum().item() == pytest.approx(1, abs=1e-10)
    assert not torch.allclose(of_classes[0], of_classes[1], rtol=0.01)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("context_features", [0, 2])
def test_no_number_reaches_the_parameters_of_one_that_comes_before_it(channels: int, context_features: int) -> None:
    """Of the whole model, by derivatives in float64: exactly zero for all that come later and the number itself, not
    zero for all that come before, so that there is no blind spot."""
    by_x = torch.zeros(20 * channels, 20 * channels, dtype=torch.float64)
    for seed in range(4):  # a ReLU may be shut at one point
        torch.manual_seed(seed)
        model = GatedPixelCNN((channels, 5, 4), 7, num_classes=context_features, class_conditional=context_features > 0,
                              channels=6, layers=6, first_kernel=5, head_channels=8)  # fmt: skip
        redraw(model.double(), 1.0).eval()
        context = torch.randn(1, context_features, dtype=torch.float64) if context_features else None
        x = torch.randint(0, 7, (1, channels, 5, 4)).double()
        one = torch.autograd.functional.jacobian(lambda x, m=model, c=context: m.distribution.parameters_of(x, c), x)
        one = one.view(7, channels, 20, channels, 20).abs().sum(0)  # (channel, pixel) of the output, of the input
        by_x += one.transpose(0, 1).transpose(2, 3).flatten(0, 1).flatten(1)  # numbers in the order of the model
    place = torch.arange(20 * channels)
    before = place < place[:, None]
    assert not by_x[~before].any()
    assert by_x[before].gt(0).all()


def chi_squared(model: GatedPixelCNN, x: Tensor, p: Tensor) -> float:
    """The p-value of samples x of images with the probabilities p; images expected less than five times are one."""
    assert model.levels is not None
    powers = model.levels ** torch.arange(model.dimension - 1, -1, -1)
    found = torch.bincount((x.flatten(1).long() * powers).sum(1), minlength=len(p)).double()
    expected, often = len(x) * p, len(x) * p > 5
    found, expected = (torch.cat([counts[often], counts[~often].sum().view(1)]) for counts in (found, expected))
    if expected[-1] < 1:  # too little for a class of its own: such images must be next to never
        assert found[-1] <= 5
        found, expected = found[:-1], expected[:-1] * (found[:-1].sum() / expected[:-1].sum())
    return 1.0 if len(found) == 1 else float(stats.chisquare(found.numpy(), expected.numpy()).pvalue)


def test_samples_have_the_probabilities_that_the_model_says() -> None:
    """Chi-squared, at fixed seeds, over all images of small spaces."""
    for space in ("2 × 2, five levels, mixture", "2 channels", "2 channels, mixture", "3 × 3, binary", "1 × 4"):
        model = make(space)
        assert chi_squared(model, model.sample(20_000, Noise(seed=3)), model.log_prob(all_images(model)).exp()) > 1e-3


def model_order(model: GatedPixelCNN) -> list[int]:
    """The places of the numbers ``(channels, height, width)``, flattened, in the order in which they are modelled."""
    return torch.arange(model.dimension).view(model.shape).permute(1, 2, 0).flatten().tolist()


def chain_rule(model: GatedPixelCNN) -> Tensor:
    """log P(x_i = l | x_<i) ``(D, levels ** D, levels)`` of all numbers of all images, from the probabilities of whole
    images: sums over all that comes later."""
    assert model.levels is not None
    order = model_order(model)
    p = model.log_prob(all_images(model)).exp().view([model.levels] * model.dimension).permute(order)
    logs = []
    for i in range(model.dimension):
        of_prefixes = p.reshape(*p.shape[: i + 1], -1).sum(-1)
        log_p = (of_prefixes / of_prefixes.sum(-1, keepdim=True)).log()
        log_p = log_p.view(*p.shape[:i], *[1] * (model.dimension - i), -1).expand(*p.shape, -1)
        logs.append(log_p.permute(*torch.tensor(order).argsort().tolist(), -1).flatten(0, -2))
    return torch.stack(logs)


@pytest.mark.parametrize("space", ["2 × 2, five levels, mixture", "2 channels", "3 × 3, binary"])
def test_conditionals_one_at_a_time_obey_the_chain_rule(space: str) -> None:
    """Each is computed with nonsense in place of all that comes later."""
    model = make(space)
    x, order, by_sums = all_images(model), model_order(model), chain_rule(model)
    generator, log_p = torch.Generator().manual_seed(0), torch.zeros(len(x), dtype=torch.float64)
    for i, place in enumerate(order):
        given = torch.randint(0, model.levels, x.shape, generator=generator).double()
        given.flatten(1)[:, order[:i]] = x.flatten(1)[:, order[:i]]
        channel, row, column = torch.unravel_index(torch.tensor(place), model.shape)
        conditional = model.distribution.log_conditional(given, None, int(channel), int(row), int(column))
        torch.testing.assert_close(conditional, by_sums[i], rtol=0, atol=1e-10)
        log_p += conditional.gather(1, x.flatten(1)[:, place, None].long()).squeeze(1)
    torch.testing.assert_close(log_p, model.log_prob(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("space", ["2 × 2, five levels, mixture", "2 channels", "3 × 3, binary"])
def test_a_temperature_sharpens_or_flattens_every_conditional(space: str, temperature: float) -> None:
    """P(x_i|x_<i)^(1/T), normalised; at 0 the most probable level each time."""
    model, n = make(space), 20_000
    log_p = chain_rule(model)
    sharpened = log_p / temperature if temperature else torch.where(log_p == log_p.amax(-1, keepdim=True), 0.0, -1e9)
    x, order = all_images(model), model_order(model)
    chosen = x.flatten(1)[:, order].T.unsqueeze(-1).long()
    p = sharpened.log_softmax(-1).gather(-1, chosen).sum((0, -1)).exp()
    assert p.sum().item() == pytest.approx(1)
    assert chi_squared(model, model.sample(n, Noise(seed=4), temperature=temperature), p) > 1e-3


def test_samples_are_a_function_of_noise_and_class() -> None:
    model = make("2 × 2, five levels", num_classes=3, class_conditional=True)
    context = model.context_of(torch.arange(30) % 3)
    x = model.sample(30, Noise(seed=1), context)
    assert torch.equal(x, model.sample(30, Noise(seed=1), context))
    assert not torch.equal(x, model.sample(30, Noise(seed=2), context))
    part = model.sample(3, Noise(seed=1, index=torch.arange(10, 13)), context[10:13])
    assert torch.equal(part, x[10:13])
    assert len(model.sample(30, Noise(seed=1), context[:1].expand(30, -1), temperature=0.0).unique(dim=0)) == 1


def test_samples_have_no_dropout() -> None:
    """Also of a model that is being trained, which remains so."""
    model = make("2 × 2, five levels", dropout=0.5)
    x = model.sample(200, Noise(seed=1))
    assert torch.equal(model.train().sample(200, Noise(seed=1)), x)
    assert all(module.training for module in model.modules())


def test_draws_of_one_distribution_under_one_name_are_refused() -> None:
    """As those of all others are: two images would be the same."""
    distribution, noise = make("2 × 2, five levels").distribution, Noise(index=torch.arange(3)).watched()
    distribution.sample(1, noise=noise)
    with pytest.raises(VaeflowError, match="would get the same numbers"):
        distribution.sample(1, noise=noise)


@pytest.mark.parametrize("head", [Categorical, MIXTURE])
def test_a_training_step_waits_for_no_value(head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU would have to finish its queue first. Tensors without values refuse to be read."""
    monkeypatch.setattr("vaeflow.distributions.causal.full_precision", lambda like: contextlib.nullcontext())
    model = GatedPixelCNN((2, 3, 3), 5, 3, True, likelihood=head, dropout=0.2, **SMALL).to("meta").train()
    for layer in dropout_layers(model):
        layer.source = Noise(index=torch.arange(4, device="meta")).watched()
    x, context = torch.zeros(4, 2, 3, 3, device="meta"), torch.zeros(4, 3, device="meta")
    loss = model.distribution.log_prob(x, context).mean()
    loss.backward()
    with pytest.raises(RuntimeError, match="meta"):
        loss.item()


def test_a_resumed_run_drops_what_an_uninterrupted_one_does(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within the second of three epochs of six steps."""
    arguments = ("train", "--config", "gated_pixelcnn", "--num_samples", 0, "--trainer.max_epochs", 3,
                 "--data.batch_size", 216, "--model.channels", 4, "--pictures.every", 0)  # fmt: skip
    assert run(*arguments, "--experiment", "whole")[0] == 0
    losses = GatedPixelCNN.losses

    def stopping(self: GatedPixelCNN, *given: Any) -> Any:
        self.trainer.should_stop |= self.training and self.global_step == 7
        return losses(self, *given)

    monkeypatch.setattr(GatedPixelCNN, "losses", stopping)
    assert run(*arguments, "--experiment", "cut")[0] == 0
    monkeypatch.setattr(GatedPixelCNN, "losses", losses)
    checkpoints = [tmp_path / f"runs/{name}/version_0/checkpoints/last.ckpt" for name in ("whole", "cut")]
    assert [read(path)["global_step"] for path in checkpoints] == [18, 8]
    code, output = run(*arguments, "--experiment", "cut", "--ckpt_path", "last")
    assert code == 0, output
    whole, cut = (read(path)["state_dict"] for path in checkpoints)
    for name, value in whole.items():
        assert torch.equal(value, cut[name]), name


def test_the_module_that_is_not_finite_is_named_with_dropout_too(run: Run) -> None:
    """Its losses are computed once more, from the same masks."""
    code, output = run("train", "--config", "gated_pixelcnn", "--trainer.max_steps", 20, "--pictures.every", 0,
                       "--model.optimizer.lr", 1e12, "--trainer.gradient_clip_val", "null")  # fmt: skip
    assert code == 1
    assert "the first output that is not finite is that of distribution.net" in output


def test_as_a_decoder_it_takes_a_context_of_many_draws() -> None:
    """z ``(num_samples, batch, D)`` for each x ``(batch, …)``."""
    model = make("2 × 2, five levels", num_classes=3, class_conditional=True)
    z, x = torch.randn(4, 5, 3, dtype=torch.float64), torch.randint(0, 5, (5, 1, 2, 2)).double()
    log_p = model.distribution.log_prob(x, z)
    assert log_p.shape == (4, 5)
    torch.testing.assert_close(log_p[2], model.distribution.log_prob(x, z[2]))
    assert model.distribution.mean(z) is None


def test_what_it_cannot_be_of_or_answer() -> None:
    for arguments, message in (
        ({"shape": (1, 3, 3), "likelihood": Gaussian}, "takes integers .*, but the data are continuous"),
        ({"shape": (1, 3, 3)}, "Categorical is a likelihood of integers, but the data are continuous"),
        ({"shape": (9,), "levels": 2}, r"takes integers .*, but the data are of shape \(9,\)"),
        ({"shape": (1, 3, 3), "levels": 2, "kernel": 4}, "kernel is 4, expected an odd number of at least 3"),
        ({"shape": (1, 3, 3), "levels": 2, "layers": 0}, "layers is 0, expected at least 1"),
        ({"shape": (1, 3, 3), "levels": 2, "dropout": 1.0}, "dropout is 1.0, expected a probability"),
        ({"shape": (1, 3, 3), "levels": 5, "likelihood": Gaussian}, "Gaussian is a density: take a head of integers"),
    ):
        with pytest.raises(VaeflowError, match=message):
            GatedPixelCNN(**arguments)
    model = make("3 × 3, binary")
    for name in ("encode", "decode", "reconstruct", "posterior_of"):
        assert not hasattr(model, name)
        with pytest.raises(VaeflowError, match="GatedPixelCNN has no"):
            getattr(model, name)
    with pytest.raises(VaeflowError, match=r"x has shape \(2, 1, 3, 2\), expected \(batch, 1, 3, 3\)"):
        model.log_prob(torch.zeros(2, 1, 3, 2))
    with pytest.raises(VaeflowError, match="x has values from 0 to 2, expected integers 0 to 1"):
        model.log_prob(2 * torch.eye(3).view(1, 1, 3, 3))


def test_mixtures_of_logistics_sum_to_one_and_know_their_mean_and_start() -> None:
    for levels in (2, 17, 256):
        head = DiscretisedLogisticMixture((2, 1, 1), levels, components=3)
        output = torch.randn(4, 18, 1, 1, dtype=torch.float64) * 2
        x = torch.arange(levels, dtype=torch.float64).view(-1, 1, 1, 1, 1).expand(-1, 4, 2, 1, 1)
        single = DiscretisedLogisticMixture((1, 1, 1), levels, components=3)
        for channel in range(2):
            parameters = output[:, channel::2]
            p = torch.stack([single.log_prob(v[:, channel : channel + 1], parameters[None])[0].exp() for v in x])
            torch.testing.assert_close(p.sum(0), torch.ones(4, dtype=torch.float64))
            mean = (p * torch.arange(levels)[:, None]).sum(0)
            torch.testing.assert_close(head.mean(output)[:, channel, 0, 0], mean)
    head = DiscretisedLogisticMixture((1, 1, 1), 17, components=5)
    head.start(torch.full((1, 1, 1), 6.0), torch.full((1, 1, 1), 3.0), bias := torch.zeros(15, 1, 1))
    draws = head.sample(bias.expand(20_000, -1, -1, -1), Noise(index=torch.arange(20_000)))
    assert draws.mean().item() == pytest.approx(6, abs=0.3)
    assert draws.std().item() == pytest.approx(3, abs=0.5)


def test_dropout_is_a_function_of_its_noise() -> None:
    net = torch.nn.Sequential(Dropout(0.3, 3), torch.nn.Identity(), Dropout(0.3, 3))
    x = torch.ones(40, 2, 5, 5)  # two samples of twenty examples
    noise = Noise(index=torch.arange(20))
    for layer in dropout_layers(net):
        layer.source = noise
    out = net(x)
    assert torch.equal(out, net(x))
    assert sorted(out.unique().tolist()) == pytest.approx([0, 1 / 0.49])
    assert (out > 0).double().mean().item() == pytest.approx(0.49, abs=0.05)
    assert not torch.equal(net[0](x), net[2](x))
    part = Noise(index=torch.arange(3, 7))
    for layer in dropout_layers(net):
        layer.source = part
    assert torch.equal(net(x[:4]), out[3:7])
    assert torch.equal(net.eval()(x), x)
