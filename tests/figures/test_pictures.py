"""What the numbers behind the pictures are: directions, posteriors, neighbours, layers, quantiles, pixels."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger
from scipy.io import savemat
from torch import Tensor, nn

from tests.conftest import redraw
from tests.evaluation.linear_gaussian import LinearGaussian, all_binary, binary_vae
from tests.evaluation.test_compare import BASE
from vaeflow import models
from vaeflow.bijections import BatchNorm, Composition, InverseAutoregressive, MaskedAutoregressive, Planar
from vaeflow.callbacks import Pictures
from vaeflow.commands.latent import strengths
from vaeflow.data import Digits, FreyFaces
from vaeflow.data.examples import own_examples
from vaeflow.distributions import FlowDensity, Gaussian, GaussianDensity, StandardLogistic, StandardNormal, Uniform
from vaeflow.errors import VaeflowError
from vaeflow.evaluation.compare import Run
from vaeflow.figures import attributes, comparison, density_plot, interpolation, layers, manifold, posteriors, samples
from vaeflow.figures.images import check_drawable, grid, limits_of, mosaic, rows_in_turn, tiles
from vaeflow.figures.plane import Plane
from vaeflow.figures.streaming import streamed
from vaeflow.figures.style import check_outputs, literal, pixels, save_animation
from vaeflow.noise import Noise

CPU = torch.device("cpu")


# ------------------------------------------------------------------------------------------------------ attributes


def test_the_direction_of_means_leads_from_one_mean_to_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    lacking, having = torch.randn(2, 50, 4, generator=generator) + torch.tensor([[[0.0]], [[3.0]]])
    found = attributes.direction(having, lacking)
    torch.testing.assert_close(lacking.mean(0) + found.vector, having.mean(0))
    assert found.accuracy is None


def test_a_probe_sees_what_tells_the_attribute_and_not_what_comes_along() -> None:
    """x₁ tells it; x₂ = x₁/2 + noise differs in the mean only by way of x₁. The optimal plane's normal is e₁."""
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    x_1 = torch.randn(n, generator=generator, dtype=torch.float64)
    having = torch.rand(n, generator=generator) < torch.sigmoid(3 * x_1)
    x_2 = 0.5 * x_1 + torch.randn(n, generator=generator, dtype=torch.float64)
    codes = torch.stack([x_1, x_2], dim=1)
    means, probe = (attributes.direction(codes[having], codes[~having], method) for method in ("means", "probe"))
    assert means.vector[1] / means.vector[0] == pytest.approx(0.5, abs=0.05)
    assert abs(probe.vector[1] / probe.vector[0]) < 0.05
    assert probe.vector[0] > 0
    assert probe.vector[0] == pytest.approx(means.vector[0].item(), rel=0.05)  # as far as the means are apart
    assert 0.75 < probe.accuracy < 0.9


def test_an_attribute_is_added_along_its_direction() -> None:
    """At strength 0 the reconstruction; at 1 the mean code of those without it moves to that of those with it."""
    vae, data = models.VAE(shape=(1, 8, 8), levels=17, latent_features=3), Digits()
    redraw(vae, 0.5)
    vae.eval()
    x, y = data.examples("test", torch.arange(3))
    sets = (data.of_class("train", "3"), data.of_class("train", "8"))
    strength = torch.tensor([-1.0, 0.0, 2.0])
    changed, found = attributes.resynthesise(vae, vae.latent_spaces["z"], x, y, sets, data, strength, rows=50)
    three, eight = (vae.encode(data.examples("train", index)[0]).detach().mean(0) for index in sets)
    torch.testing.assert_close(found.vector, three - eight)
    codes = vae.encode(x).detach()
    for k, s in enumerate(strength):
        torch.testing.assert_close(changed[:, k], vae.decode(codes + s * (three - eight)).detach())


@pytest.mark.parametrize("text", ["3", "-3:3", "a:b:c", "0:1:0", "0:inf:3", "0:1:1", "1:2:3:4", "0:1:2.5", ""])
def test_strengths_that_do_not_parse(text: str) -> None:
    with pytest.raises(VaeflowError, match=r"--strength is .*, expected .*such as -3:3:7"):
        strengths(text)


def test_strengths() -> None:
    assert strengths("-3:3:7").tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert strengths("1:1:1").tolist() == [1]
    assert strengths("2:-2:3").tolist() == [2, 0, -2]


def test_too_few_examples_of_an_attribute() -> None:
    with pytest.raises(VaeflowError, match="no training example has the attribute"):
        attributes.direction(torch.zeros(0, 2), torch.zeros(5, 2))
    with pytest.raises(VaeflowError, match="no training example lacks the attribute"):
        attributes.direction(torch.zeros(5, 2), torch.zeros(0, 2))
    with pytest.raises(VaeflowError, match=r"at least 10 examples .* not 5 and 30: take --method means"):
        attributes.direction(torch.zeros(5, 2), torch.zeros(30, 2), "probe")


def test_frames_of_the_film_are_found_in_the_training_split(tmp_path: Path) -> None:
    frames = np.zeros((560, 1965), np.uint8)
    frames[0], frames[1] = np.arange(1965) // 256, np.arange(1965) % 256  # every frame says its number
    savemat(tmp_path / "frey_rawface.mat", {"ff": frames})
    for seed in (123, 321):
        data = FreyFaces(str(tmp_path), split_seed=seed)
        having, lacking = data.attribute("smile")
        for index, runs, least in ((having, ((724, 768), (803, 858), (1125, 1187), (1226, 1256)), 130),
                                   (lacking, ((30, 112), (140, 221), (270, 321), (330, 400)), 180)):  # fmt: skip
            x = data.examples("train", index)[0].flatten(1)
            numbers = (256 * x[:, 0] + x[:, 1]).long()
            assert len(numbers.unique()) == len(index) > least
            inside = torch.zeros(len(numbers), dtype=torch.bool)
            for first, last in runs:
                inside |= (numbers >= first) & (numbers <= last)
            assert inside.all()
        one = data.in_training(torch.arange(1965))
        assert sorted(one.tolist()) == list(range(1565))
    with pytest.raises(VaeflowError, match="frame 1965 is outside the film, which has frames 0 to 1964"):
        data.in_training(torch.tensor([3, 1965]))
    with pytest.raises(VaeflowError, match="one attribute, smile, and not grin"):
        data.attribute("grin")


def test_labels_by_name() -> None:
    data = Digits()
    index = data.of_class("test", "3")
    assert (data.examples("test", index)[1] == 3).all()
    having, lacking = data.attribute("3")
    assert sorted([*having.tolist(), *lacking.tolist()]) == list(range(1297))
    with pytest.raises(VaeflowError, match=r"Digits has labels 0, 1, .*, 9, and none called 11"):
        data.of_class("test", "11")
    with pytest.raises(VaeflowError, match="index 300 is outside the test split, which has 300 examples, 0 to 299"):
        data.examples("test", torch.tensor([0, 300]))
    with pytest.raises(VaeflowError, match="index -1 is outside the test split"):
        data.examples("test", torch.tensor([-1]))


# ------------------------------------------------------------------------------------------------------ posteriors

FLOWS: dict[str, Any] = {
    "none": None,
    "planar": functools.partial(Planar, steps=2),
    "iaf": functools.partial(InverseAutoregressive, steps=2, hidden=[16]),
}


@pytest.mark.parametrize("flow", FLOWS)
def test_posteriors_on_a_grid(flow: str) -> None:
    """Both integrate to 1; the gap is the KL by quadrature; log p(x) that of importance sampling."""
    vae = binary_vae(FLOWS[flow])
    x = all_binary()[:5]
    found = posteriors.posteriors(vae, x, torch.zeros(5), "a", 20_000, points=241, half_width=9.0, rows=1000)
    cell = (found.axis[1] - found.axis[0]) ** 2
    for values in (found.q.exp(), found.p.exp()):
        assert values.shape == (5, 241, 241)
        torch.testing.assert_close(values.sum((1, 2)) * cell, torch.ones(5, dtype=torch.float64), rtol=0, atol=3e-3)
    quadrature = (found.q.exp() * (found.q - found.p)).sum((1, 2)) * cell
    torch.testing.assert_close(found.gap, quadrature, rtol=0.05, atol=0.02)
    assert (found.gap > 0).all()
    torch.testing.assert_close(found.nll, -vae.log_prob(x, num_samples=20_000), rtol=0.01, atol=0.01)
    mean = (found.q.exp() * found.axis).sum((1, 2)) * cell  # z₁ is along the columns
    torch.testing.assert_close(mean, found.samples[..., 0].mean(0), rtol=0, atol=0.05)
    assert posteriors.draw([found, found], "title").axes[1].get_title("left") == "a"


def test_the_gap_of_the_exact_posterior_is_zero() -> None:
    example = LinearGaussian()
    x = example.sample(3)
    found = posteriors.posteriors(example.vae, x, torch.zeros(3), "exact", 500, points=401, half_width=6.0)
    torch.testing.assert_close(found.gap, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.nll, -example.log_prob(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.q, found.p, rtol=0, atol=1e-6)


def test_a_grid_that_does_not_hold_the_posterior_is_refused() -> None:
    vae, x = binary_vae(), all_binary()[:3]
    with pytest.raises(VaeflowError, match=r"the posterior of example \d reaches beyond the grid: --half-width is 1"):
        posteriors.posteriors(vae, x, torch.zeros(3), "a", 10, half_width=1.0)
    vae.posterior.linear.bias.data[0] += 20  # q alone
    with pytest.raises(VaeflowError, match=r"example 1 reaches beyond the grid: --half-width is 9"):
        posteriors.posteriors(vae, x, torch.zeros(3), "a", 10, half_width=9.0)
    vae.posterior.linear.bias.data[0] -= 20
    with pytest.raises(VaeflowError, match=r"narrower than the steps of the grid: --points is 5, take more"):
        posteriors.posteriors(vae, x, torch.zeros(3), "a", 10, points=5, half_width=9.0)
    conditional = binary_vae(num_classes=2, class_conditional=True)
    with pytest.raises(VaeflowError, match="has another prior for each class"):
        posteriors.posteriors(conditional, x, torch.zeros(3), "a", 10)


def test_integers_with_noise_have_the_same_noise_at_every_point() -> None:
    """log p(x + u|z) is smooth in z, and the same in chunks of any size."""
    torch.manual_seed(0)
    vae = models.VAE(shape=(1, 4, 4), levels=17, latent_features=2, likelihood=Gaussian).double().eval()
    arguments = (vae, torch.randint(17, (2, 1, 4, 4)).double(), torch.zeros(2), "a", 50, 121, 6.0)
    found = [posteriors.posteriors(*arguments, rows=rows) for rows in (90, 9999)]
    torch.testing.assert_close(found[0].p, found[1].p)
    torch.testing.assert_close(found[0].nll, found[1].nll)
    assert found[0].p.diff(n=2, dim=-1).abs().max() < 0.1  # with a u for each point it is 8 nats


def test_contours_hold_the_mass_they_say() -> None:
    vae = binary_vae()
    found = posteriors.posteriors(vae, all_binary()[:1], torch.zeros(1), "a", 10, points=321, half_width=8.0)
    outer, inner = posteriors._levels(found.prior, found)  # of N(0, I): exp(−r²/2) of the density lies outside r
    assert outer == pytest.approx(0.1 / (2 * math.pi), rel=0.05)
    assert inner == pytest.approx(0.5 / (2 * math.pi), rel=0.05)


def test_a_flow_has_no_posterior() -> None:
    with pytest.raises(VaeflowError, match="NICE has no approximate posterior"):
        models.NICE(shape=(2,), hidden=[8]).posterior_of(torch.zeros(1, 2))


# --------------------------------------------------------------------------------------------- quantiles and planes


def test_inverse_cumulative_distributions() -> None:
    u = torch.tensor([[0.5, 0.5], [0.1, 0.975]], dtype=torch.float64)
    normal = torch.tensor([[0, 0], [-1.2815515655, 1.9599639845]], dtype=torch.float64)
    torch.testing.assert_close(StandardNormal(2).icdf(u), normal)
    logistic = StandardLogistic(2).icdf(u)
    torch.testing.assert_close(torch.sigmoid(logistic), u)
    torch.testing.assert_close(Uniform(2, low=-2.0, high=2.0).icdf(u), 4 * u - 2)
    torch.testing.assert_close(FlowDensity(2, 0, Planar).icdf(u), normal)
    torch.testing.assert_close(models.GaussianModel(shape=(2,)).icdf(u), normal)
    vae = models.VAE(shape=(1, 4, 4), levels=17, latent_features=2).double()
    torch.testing.assert_close(vae.icdf(u), normal)
    with pytest.raises(VaeflowError, match="has no latent space"):
        models.GaussianMixtureModel(shape=(2,)).icdf(u)


def test_the_codes_of_a_learned_prior_are_its_own() -> None:
    """Uniform points become draws of the prior: their density by a histogram is that of the prior."""
    prior = functools.partial(FlowDensity, flow=functools.partial(MaskedAutoregressive, steps=2, hidden=[8]))
    vae = redraw(models.VAE(shape=(1, 4, 4), levels=17, latent_features=2, prior=prior), 1.0)
    u = Noise().at(torch.arange(40_000)).uniform("u", 1, (2,))[0]
    z = vae.icdf(u).detach()
    draws = vae.prior.sample(noise=Noise(seed=3).at(torch.arange(40_000)))[0].detach()
    edges = torch.quantile(draws, torch.linspace(0, 1, 11), dim=0)
    for i in range(2):
        inside = torch.bucketize(z[:, i].contiguous(), edges[1:-1, i].contiguous()).bincount(minlength=10) / 4000
        assert (inside - 1).abs().max() < 0.08


def test_the_manifold_is_laid_out_as_the_plane_is() -> None:
    vae = models.VAE(shape=(1, 4, 4), levels=17, latent_features=2)
    manifold.check_plane(vae)
    z = manifold.plane_of_codes(vae, 4).unflatten(0, (4, 4))
    middles = torch.tensor([0.125, 0.375, 0.625, 0.875], dtype=torch.float64)
    assert (z[:, 1:, 0] > z[:, :-1, 0]).all()  # z₁ rises to the right
    assert (z[:-1, :, 1] > z[1:, :, 1]).all()  # z₂ rises upwards
    torch.testing.assert_close(torch.special.ndtr(z[0, :, 0]).double(), middles, rtol=0, atol=1e-6)
    with pytest.raises(VaeflowError, match="VAE has a latent space of 16 dimensions, expected one of two"):
        manifold.check_plane(models.VAE(shape=(1, 4, 4), levels=17))
    with pytest.raises(VaeflowError, match="GaussianMixtureModel has no latent space, expected one of two"):
        manifold.check_plane(models.GaussianMixtureModel(shape=(2,)))


# ---------------------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (models.NICE(shape=(1, 4, 4), levels=17, couplings=3, hidden=[16]), 5),
        (models.RealNVP(shape=(1, 4, 4), levels=17, couplings=3, hidden=[16]), 7),
        (models.MAF(shape=(1, 4, 4), levels=17, steps=2, hidden=[16]), 5),
        (models.ImageRealNVP(shape=(1, 4, 4), levels=17, channels=8), 2),
        (models.GaussianModel(shape=(1, 4, 4), levels=17), 2),
    ],
)
def test_layers_lead_from_the_code_to_what_is_decoded(model: Any, count: int) -> None:
    redraw(model, 0.5)
    model.eval()
    z = torch.randn(3, 16)
    values = list(model.trajectory(z))
    assert len(values) == count
    torch.testing.assert_close(values[0], model.preprocess(z)[0].unflatten(-1, (1, 4, 4)))
    torch.testing.assert_close(values[-1], model.decode(z, floor=False))
    chosen, passed, last = layers.layers(model, z, torch.zeros(3), 3, rows=2)
    assert (len(chosen), passed[0], passed[-1], last) == (min(3, count), 0, count - 1, count - 1)
    torch.testing.assert_close(chosen[-1], values[-1])
    torch.testing.assert_close(chosen[0], values[0])


def test_every_layer_is_one_map() -> None:
    model = models.RealNVP(shape=(2,), couplings=2, hidden=[8]).double().eval()
    redraw(model, 0.5)
    z = torch.randn(4, 2, dtype=torch.float64)
    _, *values = model.trajectory(z)
    flow = model.density.flow
    assert isinstance(flow, Composition)
    assert any(isinstance(bijection, BatchNorm) for bijection in flow.bijections)
    for k in range(1, len(values) + 1):
        part = Composition(list(flow.bijections)[:k])
        torch.testing.assert_close(values[k - 1], model.preprocess(part(z)[0])[0])


def test_layers_of_a_base_that_is_a_flow_are_layers_too() -> None:
    planar = functools.partial(Planar, steps=2)
    nested = FlowDensity(2, 0, planar, base=functools.partial(FlowDensity, flow=functools.partial(Planar, steps=3)))
    z = torch.randn(4, 2)
    values = list(nested.trajectory(z))
    assert len(values) == 6
    assert torch.equal(values[0], z)
    torch.testing.assert_close(values[-1], nested.decode(z))
    on_gaussian = FlowDensity(2, 0, planar, base=GaussianDensity)
    nn.init.zeros_(on_gaussian.base.mu)
    on_gaussian.base.started.fill_(True)
    first, second, *_ = on_gaussian.trajectory(z)
    assert torch.equal(first, z)
    torch.testing.assert_close(second, z)  # of the standard Gaussian


def test_the_picture_of_layers_goes_from_data_to_noise_above_and_back_below() -> None:
    to_noise = torch.tensor([0.0, 128.0, 255.0]).view(3, 1, 1, 1, 1).expand(-1, 1, 1, 32, 32)  # from code to data
    figure = layers.draw(to_noise, to_noise / 5, [0, 1, 2], 2, "title", 256, None)
    above, below = (axes.images[0].get_array()[17, 17::34, 0].tolist() for axes in figure.axes)
    assert above == [255, 128, 0]
    assert below == [0, 26, 51]
    names = [[text.get_text() for text in axes.get_xticklabels()] for axes in figure.axes]
    assert names == [["$x$", "layer 1", "$z$"], ["$z$", "layer 1", "$x$"]]


def test_the_picture_of_a_density_is_the_right_way_round() -> None:
    """Of a Gaussian at (1, −2) and narrow in x₂."""
    model = models.GaussianModel(shape=(2,))
    model.preprocess.set(torch.zeros(2), torch.ones(2))
    with torch.no_grad():
        model.density.mu.copy_(torch.tensor([1.0, -2.0]))
        model.density.entries.copy_(torch.tensor([1.0, 0.0, 0.2]))
    data = SimpleNamespace(
        window=lambda: ((-4.0, 4.0), (-4.0, 4.0)), log_density=lambda plane: -plane[:, 1].abs(), label="a", splits={}
    )
    theirs, ours = (axes.images[0] for axes in density_plot.draw(model, data, 81).axes[:2])
    assert np.unravel_index(ours.get_array().argmax(), (81, 81)) == (20, 50)  # rows are x₂, from below
    assert ours.origin == "lower"
    assert (theirs.get_array().argmax(0) == 40).all()


def test_a_decoder_is_no_layer() -> None:
    with pytest.raises(VaeflowError, match="VAE has no layers that lead from noise to data"):
        models.VAE(shape=(1, 4, 4), levels=17).trajectory(torch.zeros(1, 16))


# ------------------------------------------------------------------------------------------ samples and neighbours


def test_samples_do_not_depend_on_the_batch_and_never_exceed_it() -> None:
    class Counting(models.VAE):
        largest = 0

        def sample(self, n: int, *rest: Any, **more: Any) -> Tensor:
            self.largest = max(self.largest, n)
            return super().sample(n, *rest, **more)

    model = Counting(shape=(1, 4, 4), levels=17).eval()
    few = samples.sample(model, 10_000, Noise(1), temperature=0.7, rows=300)
    assert (few.shape, model.largest) == ((10_000, 1, 4, 4), 300)
    torch.testing.assert_close(few[:10], model.sample(10, Noise(1), temperature=0.7))
    assert not torch.equal(few, samples.sample(model, 10_000, Noise(2), temperature=0.7))


@pytest.mark.parametrize("rows", [7, 1000])
def test_nearest_training_examples_are_those_of_brute_force(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    train = torch.randint(17, (50, 1, 4, 4), generator=generator)
    data = SimpleNamespace(splits={"train": (train, None)}, examples=lambda split, index: (train[index].float(), None))
    x = torch.cat([train[[3, 17]], torch.randint(17, (4, 1, 4, 4), generator=generator)]).float()
    distances, index = samples.nearest(x, data, 3, rows)
    expected = (x.flatten(1)[:, None] - train.flatten(1).float()).square().sum(-1).sqrt().sort(dim=1)
    torch.testing.assert_close(distances.float(), expected.values[:, :3], rtol=0, atol=1e-4)
    assert torch.equal(index[:, 0], expected.indices[:, 0])
    assert index[:2, 0].tolist() == [3, 17]
    assert samples.nearest(x, data, 80, rows)[0].shape == (6, 50)  # no more than there are


def test_reconstructions_are_of_the_code_or_of_draws_around_it() -> None:
    vae = binary_vae(FLOWS["iaf"])
    x = all_binary()
    noise = Noise(index=torch.arange(8))
    torch.testing.assert_close(vae.reconstruct(x, noise), vae.decode(vae.encode(x)).detach())
    one, two = (vae.reconstruct(x, noise, temperature=t) for t in (1.0, 1e-4))
    torch.testing.assert_close(two, vae.reconstruct(x, noise), rtol=0, atol=1e-3)
    assert not torch.allclose(one, two, atol=1e-2)
    q = vae.posterior_of(x)
    torch.testing.assert_close(q.sample(1, noise), q.rsample_with_log_prob(1, noise)[0])
    nice = models.NICE(shape=(3, 1, 1), levels=2, hidden=[8])
    assert torch.equal(nice.reconstruct(x.float(), noise), x.float())
    with pytest.raises(VaeflowError, match="NICE draws no codes, they are functions of x: leave temperature at 0"):
        nice.reconstruct(x.float(), noise, temperature=1.0)


def test_streams_on_one_device_in_batches() -> None:
    sizes = []

    def double(x: Tensor, nothing: None) -> Tensor:
        sizes.append(len(x))
        assert nothing is None
        return 2 * x

    assert torch.equal(streamed(double, torch.arange(10), None, device=CPU, rows=4), 2 * torch.arange(10))
    assert sizes == [4, 4, 2]


# ---------------------------------------------------------------------------------------------------------- pixels


def test_images_of_any_number_of_channels() -> None:
    x = torch.arange(2 * 3 * 2 * 2).view(2, 3, 2, 2).float()
    coloured = tiles(x, (0, 255))
    assert coloured.shape == (2, 2, 2, 3)
    assert coloured[1, 0, 1].tolist() == [13, 17, 21]
    for channels in (1, 2, 4, 5):
        grey = tiles(torch.arange(channels * 4).view(1, channels, 2, 2).float(), (0, 255))
        assert grey.shape == (1, 2, 2 * channels, 3)
        assert grey[0, 0, :, 0].tolist() == [v for c in range(channels) for v in (4 * c, 4 * c + 1)]
    assert tiles(torch.tensor([[[[-1.0, 0.5, 9.0]]]]), (0, 1))[0, 0, :, 0].tolist() == [0, 128, 255]


def test_a_mosaic_keeps_every_tile_in_its_place() -> None:
    x = torch.arange(6).view(6, 1, 1, 1).expand(-1, -1, 40, 40) * 10
    page = mosaic(tiles(x, (0, 255)).reshape(2, 3, 40, 40, 3))
    assert page.shape == (2 * 42 + 2, 3 * 42 + 2, 3)
    assert page[20::42, 20::42, 0].tolist() == [[0, 10, 20], [30, 40, 50]]
    assert page[0, 0, 0] == page[-1, -1, 0] == 128
    filled = grid(x[:5], (0, 255), 3)
    assert filled[20::42, 20::42, 0].tolist() == [[0, 10, 20], [30, 40, 128]]


def test_reconstructions_are_shown_in_the_scale_of_the_examples() -> None:
    x = torch.linspace(-16, 16, 32 * 32).view(1, 1, 32, 32)
    page = rows_in_turn(x, 0.1 * x, limits_of(x, None))
    assert np.ptp(page[2:34, 2:34]) == 255
    assert np.ptp(page[38:70, 2:34]) < 30


@pytest.mark.parametrize("value", [math.nan, math.inf, 7.0])
def test_images_that_are_constant_or_no_numbers_have_a_picture(value: float) -> None:
    x = torch.full((2, 1, 3, 3), value)
    assert grid(x, limits_of(x, None), 2).shape[-1] == 3
    x[0, 0, 0] = torch.tensor([-1.0, 0.0, 3.0])
    assert limits_of(x, None) == (-1, 7 if value == 7 else 3)
    assert tiles(x, (-1, 3))[0, 0, :, 0].tolist() == [0, 64, 255]
    assert tiles(x, (-1, 3))[1].max() == (0 if math.isnan(value) else 255)


@pytest.mark.parametrize("value", [math.nan, -math.inf, 7.0])
def test_points_that_are_constant_or_no_numbers_have_a_picture(value: float) -> None:
    z = torch.full((4, 2), value)
    plane = Plane((-1.0, 1.0), (0.0, 1.0), z)
    drawn = [
        samples.draw_samples(z, "title", (0, 1), plane),
        layers.draw(z.expand(3, 4, 2), z.expand(3, 4, 2), [0, 1, 2], 2, "title", None, plane),
        manifold.draw(z.view(4, 1, 1, 2), z, torch.tensor([0, 1, 0, 1]), ["a", "b"], (0, 1), "title", "codes"),
    ]
    for figure in drawn:
        assert pixels(figure).std() > 0


# ----------------------------------------------------------------------------------------------------------- names

NAMES = [
    "Ba$$in",
    "$\\frac$",
    "_under",
    "$x_1$",
    "a_b^{c}",
    "100 % {0}",
    "back\\slash\\$",
    "two\nlines",
    "\udcff",
    "n" * 300,
]


def texts_of(figure: Figure) -> list[str]:
    """All texts of a figure without mathematics, as they are read once it has been drawn."""
    pixels(figure)
    texts = [text.get_text() for text in figure.findobj(Text)]
    return [text.replace(r"\$", "$").replace("\n", " ") for text in texts if not is_math_text(text)]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_drawn_literally(name: str) -> None:
    """In titles, legends, ticks and notes of all pictures; of long ones the beginning, of unprintable ones the rest."""
    shown = "two lines" if "\n" in name else "\N{REPLACEMENT CHARACTER}" if name == "\udcff" else name[:39]
    image, code, y = torch.zeros(2, 1, 4, 4), torch.rand(2, 2), torch.arange(2)
    plane = Plane((-1.0, 1.0), (0.0, 1.0), None)
    walk = interpolation.Interpolation(image[None], code[None], image[None])
    through = interpolation.Interpolation(code[None], code[None], code[None])
    grid = torch.linspace(-1, 1, 5)
    bell = -(grid[:, None].square() + grid.square())
    found = posteriors.ModelPosteriors(
        name, torch.rand(9, 1, 2), torch.rand(9, 2), grid, bell[None], bell[None], bell, torch.ones(1), torch.ones(1)
    )
    points, images, passed = torch.rand(3, 4, 2), torch.zeros(3, 2, 1, 4, 4), [0, 1, 2]
    results = {**BASE, "model": name, "data": name}
    model, data = (
        models.NICE(shape=(2,)),
        SimpleNamespace(
            window=lambda: ((-4.0, 4.0), (-4.0, 4.0)),
            log_density=lambda plane: -plane[:, 1].abs(),
            label=name,
            splits={},
        ),
    )
    model.preprocess.set(torch.zeros(2), torch.ones(2))
    pictures = {
        "samples": samples.draw_samples(image, name, (0, 1), None),
        "points": samples.draw_samples(code, name, (0, 1), plane),
        "reconstructions": samples.draw_reconstructions(image, image, name, None, None),
        "neighbours": samples.draw_neighbours(image, image[:, None], name, (0, 1)),
        "side by side": samples.draw_side_by_side({name: image}, name, (0, 1)),
        "manifold": manifold.draw(image[:1], code, y, [name, name], (0, 1), name, name),
        "layers": layers.draw(points, points, passed, 2, name, None, plane),
        "layers of images": layers.draw(images, images, passed, 2, name, 2, None),
        "interpolation": interpolation.draw(walk, name, None),
        "paths": interpolation.draw(through, name, None, plane),
        "attributes": attributes.draw(image, image[:, None], torch.zeros(1), name, None),
        "posteriors": posteriors.draw([found], name, [name, name]),
        "comparison": comparison.draw([[Run(name, results)]]),
        "density": density_plot.draw(model, data, 5, name),
    }
    times = {"side by side": 2, "manifold": 4, "posteriors": 4, "comparison": 2, "density": 2}
    for picture, figure in pictures.items():
        assert sum(shown in text for text in texts_of(figure)) >= times.get(picture, 1), picture


def test_our_own_mathematics_is_still_drawn() -> None:
    walk = interpolation.Interpolation(*[torch.rand(1, 2, 2)] * 3)
    texts = interpolation.draw(walk, "Ba$$in", None, Plane((-1.0, 1.0), (0.0, 1.0), None)).findobj(Text)
    assert {"$x_1$", "$x_2$", "$t$"} <= {t.get_text() for t in texts if is_math_text(t.get_text())}


def test_a_leading_underscore_does_not_keep_a_label_out_of_a_legend() -> None:
    axes = Figure().subplots()
    axes.plot([0], [0], label=literal("_under"))
    (text,) = axes.legend().get_texts()
    assert text.get_text().endswith("_under")


def test_what_has_no_picture_is_said() -> None:
    check_drawable((2,))
    check_drawable((5, 4, 4))
    with pytest.raises(VaeflowError, match=r"no picture of data of shape \(13,\)"):
        check_drawable((13,))


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_an_animation_runs_there_and_back(tmp_path: Path, ending: str) -> None:
    frames = [np.full((8, 8, 3), 60 * k, np.uint8) for k in range(4)]
    save_animation(tmp_path / f"a.{ending}", frames)
    with Image.open(tmp_path / f"a.{ending}") as film:
        assert film.n_frames == 6
        seen = []
        for k in range(6):
            film.seek(k)
            seen.append(round(float(np.asarray(film.convert("RGB")).mean())))
    assert seen == [0, 60, 120, 180, 120, 60]
    assert [p.name for p in tmp_path.iterdir()] == [f"a.{ending}"]


def test_a_long_animation_is_as_fast_as_a_browser_shows_it(tmp_path: Path) -> None:
    frames = [np.full((8, 8, 3), k // 2, np.uint8) for k in range(401)]
    save_animation(tmp_path / "a.gif", frames)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 198
        assert film.info["duration"] == 20
        film.seek(99)
        assert np.asarray(film.convert("RGB")).max() == 200  # the last frame is among them


def test_outputs_are_looked_at_before_the_work(tmp_path: Path) -> None:
    check_outputs([tmp_path / "new" / "a.png"], force=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "b.png").write_text("old")
    with pytest.raises(VaeflowError, match=r"b.png exists already: --force overwrites it"):
        check_outputs([tmp_path / "b.png"], force=False)
    check_outputs([tmp_path / "b.png"], force=True)
    assert (tmp_path / "b.png").read_text() == "old"
    with pytest.raises(VaeflowError, match="is a folder, expected the name of a file"):
        check_outputs([tmp_path], force=True)
    with pytest.raises(VaeflowError, match=r"c.png cannot be written"):
        check_outputs([tmp_path / "b.png" / "c.png"], force=False)
    with pytest.raises(VaeflowError, match=r"c.png cannot be written"):
        check_outputs([Path("/proc/c.png")], force=False)


# ------------------------------------------------------------------------------------------------ one's own examples


def test_examples_of_ones_own(tmp_path: Path) -> None:
    shape = (1, 4, 6)
    values = np.arange(24, dtype=np.uint8).reshape(4, 6) % 17
    for name, array in (
        ("one", values),
        ("float", values / 1.0),
        ("many", values[None].repeat(3, 0)),
        ("last", values[None, :, :, None]),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        x = own_examples([tmp_path / f"{name}.npy"], shape, 17)
        assert x.shape[1:] == shape
        assert x.dtype == torch.float32
        assert torch.equal(x[0, 0], torch.from_numpy(values).float())
    np.savez(tmp_path / "x.npz", x=values[None, None], y=np.zeros(1))
    assert own_examples([tmp_path / "x.npz", tmp_path / "many.npy"], shape, 17).shape == (4, *shape)
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey).resize((12, 8)).save(tmp_path / "large.png")
    assert torch.equal(own_examples([tmp_path / "a.png"], shape, 256)[0, 0], torch.from_numpy(grey).float())
    assert torch.equal(own_examples([tmp_path / "a.png"], shape, 2)[0, 0], torch.from_numpy(grey > 127).float())
    assert own_examples([tmp_path / "large.png"], (3, 4, 6), 17).shape == (1, 3, 4, 6)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert torch.equal(own_examples([tmp_path / "deep.png"], shape, 256)[0, 0], torch.from_numpy(grey).float())
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    Image.fromarray(grey).save(tmp_path / "turned.png", exif=turned)
    assert torch.equal(
        own_examples([tmp_path / "turned.png"], shape, 256)[0, 0].flip(0, 1), torch.from_numpy(grey).float()
    )


def test_examples_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((2, 4, 6), 17))
    (tmp_path / "b.npy").write_bytes(b"nothing")
    (tmp_path / "b.png").write_bytes(b"nothing")
    np.savez(tmp_path / "c.npz", a=np.zeros(3), b=np.zeros(3))
    np.save(tmp_path / "d.npy", np.array([["a"]]))
    np.save(tmp_path / "e.npy", np.full((1, 4, 6), np.nan))
    shape = (1, 4, 6)
    for name, fits, message in (
        ("a.npy", shape, "has values from 17 to 17, expected integers 0 to 16"),
        ("a.npy", (1, 5, 5), r"array of shape \(2, 4, 6\), expected \(1, 5, 5\) or \(N, 1, 5, 5\)"),
        ("b.npy", shape, "cannot be read as arrays"),
        ("b.png", shape, "cannot be read as a picture"),
        ("b.png", (4,), "is a picture, but the data are no grey or coloured ones"),
        ("c.npz", shape, "holds arrays a, b: expected one of them called x"),
        ("d.npy", shape, "expected numbers"),
        ("e.npy", shape, "holds NaN or infinity"),
        ("none.npy", shape, "there is no file"),
        ("none.png", shape, "there is no file"),
    ):
        with pytest.raises(VaeflowError, match=message):
            own_examples([tmp_path / name], fits, 17)


# -------------------------------------------------------------------------------------------------- while training


class Trained(SimpleNamespace):
    """What the callback asks of a trainer: it keeps what is written down."""

    is_global_zero, sanity_checking, global_step = True, False, 5

    def __init__(self, folder: Path, model: Any, data: Any) -> None:
        super().__init__(loggers=[TensorBoardLogger(folder)], datamodule=data)
        self.shown = list[str]()
        self.loggers[0].experiment.add_image = lambda tag, *arguments, **options: self.shown.append(tag)


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*arguments: Any, **options: Any) -> Any:
        torch.rand(3)
        raise error

    return fail


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Trained, Any]:
    data = Digits()
    data.setup("fit")
    model = models.VAE(shape=data.shape, levels=data.levels, latent_features=2)
    return Trained(tmp_path, model, data), model.train()


@pytest.mark.parametrize("broken", ["encode", "decode", "sample", "latent_spaces", "data"])
def test_a_picture_that_fails_is_a_warning(
    broken: str, trained: tuple[Trained, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """One each, however often; the others are drawn; modes and random numbers go on as if nothing had been."""
    trainer, model = trained
    if broken == "data":
        trainer.datamodule = None
    elif broken == "latent_spaces":
        monkeypatch.setattr(type(model), broken, property(failing(ValueError("no $pace\nat all"))))
    else:
        monkeypatch.setattr(model, broken, failing(ValueError("no $pace\nat all")))
    model.observation.decoder.eval()
    pictures = Pictures(every=1)
    state = torch.get_rng_state()
    for _ in range(3):
        pictures.on_validation_end(trainer, model)
        trainer.global_step += 1
    pictures.on_train_end(trainer, model)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert model.posterior.training
    assert not model.observation.decoder.training
    lost = {
        "encode": ["interpolation", "latents"],
        "decode": ["reconstructions", "interpolation"],
        "sample": ["samples"],
        "latent_spaces": ["interpolation"],
    }
    tags = ["samples", "reconstructions", "interpolation", "latents"]
    left = [tag for tag in tags if tag not in lost.get(broken, tags)]
    assert trainer.shown == 4 * left
    said = capsys.readouterr().err
    assert said.count("warning: cannot draw") == len(lost.get(broken, ["pictures"]))
    for tag in lost.get(broken, []):
        assert f"the picture {tag} (ValueError: no $pace at all)" in said


def test_ctrl_c_ends_a_picture(trained: tuple[Trained, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, model = trained
    monkeypatch.setattr(model, "sample", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        Pictures(every=1).on_validation_end(trainer, model)
    assert model.training


def test_only_the_first_process_draws(trained: tuple[Trained, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, model = trained
    trainer.is_global_zero = False
    monkeypatch.setattr(model, "sample", failing(AssertionError()))
    Pictures(every=1).on_validation_end(trainer, model)
    assert trainer.shown == []


def test_a_model_that_has_learned_nothing_has_pictures(
    trained: tuple[Trained, Any], capsys: pytest.CaptureFixture
) -> None:
    trainer, model = trained
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    Pictures(every=1).on_validation_end(trainer, model)
    assert len(trainer.shown) == 4
    assert "warning" not in capsys.readouterr().err


def test_codes_that_are_no_numbers_have_no_pictures(
    trained: tuple[Trained, Any], capsys: pytest.CaptureFixture
) -> None:
    trainer, model = trained
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    pictures = Pictures(every=1)
    for _ in range(2):
        pictures.on_validation_end(trainer, model)
    assert trainer.shown == 2 * ["samples", "latents"]
    said = capsys.readouterr().err
    assert said.count("warning") == 2
    assert "cannot draw the picture interpolation (example 0 of z holds NaN or infinity (" in said
