"""Paths through latent space start and end where they say, and stay on the sphere where they should."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import redraw
from vaeflow import models
from vaeflow.bijections import InverseAutoregressive, Planar
from vaeflow.errors import VaeflowError
from vaeflow.figures.images import limits_of
from vaeflow.figures.interpolation import Interpolation, animation, draw, interpolate, linear, path, spherical
from vaeflow.latents import LatentSpace

VAE = functools.partial(models.VAE, latent_features=4)
FAMILIES: dict[str, Any] = {
    "VAE": VAE,
    "VAE, planar": functools.partial(VAE, flow=functools.partial(Planar, steps=3)),
    "VAE, IAF": functools.partial(VAE, flow=functools.partial(InverseAutoregressive, steps=2, hidden=[16])),
    "VAE, of a class": functools.partial(VAE, num_classes=10, class_conditional=True),
    "NICE": functools.partial(models.NICE, hidden=[16]),
    "RealNVP": functools.partial(models.RealNVP, hidden=[16]),
    "ImageRealNVP": functools.partial(models.ImageRealNVP, channels=8, couplings=1, residual_blocks=1),
    "MAF": functools.partial(models.MAF, steps=2, hidden=[32]),
    "IAF": functools.partial(models.IAF, steps=2, hidden=[32]),
    "Gaussian": models.GaussianModel,
}


def make(name: str) -> Any:
    torch.manual_seed(0)
    model = FAMILIES[name](shape=(1, 4, 4), levels=17)
    redraw(model, 0.5)
    return model.eval()


def images(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(17, (n, 1, 4, 4), generator=generator).float(), torch.arange(n) % 10


@pytest.mark.parametrize("method", ["linear", "spherical"])
@pytest.mark.parametrize("name", FAMILIES)
def test_paths_end_at_the_reconstructions_and_of_flows_at_the_very_integers(name: str, method: Any) -> None:
    model = make(name)
    x, y = images(6)
    assert model.latent_spaces.keys() == ({"z", "z0"} if name in ("VAE, planar", "VAE, IAF") else {"z"})
    again = model.decode(model.encode(x, model.context_of(y)), model.context_of(y)).detach()
    for space in model.latent_spaces.values():
        walk = interpolate(model, space, x, y, steps=5, method=method, rows=7)
        assert walk.x.shape == (3, 17, 1, 4, 4)
        assert walk.codes.shape[:2] == (3, 17)
        ends = torch.stack([walk.x[:, 0], walk.x[:, -1]], dim=1).flatten(0, 1)
        torch.testing.assert_close(ends, again, rtol=1e-4, atol=1e-4)
        if not name.startswith("VAE"):
            assert torch.equal(ends, x)
        context = None if not model.context_features else 0.5 * (model.context_of(y[::2]) + model.context_of(y[1::2]))
        middle = space.decode(walk.codes[:, 8], context).detach()
        torch.testing.assert_close(walk.x[:, 8], middle, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(middle, walk.x[:, 0])
        assert torch.equal(walk.ends.flatten(0, 1), x)


def test_a_line_and_a_great_circle() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 1, 20, generator=generator, dtype=torch.float64)
    t = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    for along in (linear, spherical):
        points = along(a, b, t)
        assert torch.equal(points[:, 0], a[:, 0])
        assert torch.equal(points[:, -1], b[:, 0])
    torch.testing.assert_close(linear(a, b, t)[:, 4], (a[:, 0] + b[:, 0]) / 2)
    units = [v / v.norm(dim=-1, keepdim=True) for v in (a, b)]
    arc = spherical(*units, t)
    torch.testing.assert_close(arc.norm(dim=-1), torch.ones(5, 9, dtype=torch.float64))
    steps = (arc[:, 1:] * arc[:, :-1]).sum(-1).acos()  # equal angles, in the plane of both ends
    torch.testing.assert_close(steps, steps[:, :1].expand(-1, 8))
    torch.testing.assert_close(steps.sum(1), (units[0] * units[1]).sum((-1, -2)).acos())


@pytest.mark.parametrize("b", [[2.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 1e-12]])
def test_vectors_without_an_angle_are_joined_by_a_line(b: list[float]) -> None:
    a, other = torch.tensor([1.0, 0.0]), torch.tensor(b)
    t = torch.linspace(0, 1, 5)[:, None]
    torch.testing.assert_close(spherical(a, other, t), linear(a, other, t))


def space_of(model: Any, straight: tuple[str, ...] = ()) -> LatentSpace:
    slices = {"one": slice(0, 2), "two": slice(2, 5)}
    return LatentSpace("z", model, model, slices, straight)


def test_levels_move_alone_and_straight_ones_never_on_a_circle() -> None:
    a, b = torch.tensor([[1.0, 0, 1, 0, 0]]), torch.tensor([[0.0, 1, 0, 1, 0]])
    half = torch.tensor([[0.5]])
    both = path(a, b, half, space_of(None), "spherical")
    torch.testing.assert_close(both, torch.tensor([[0.7071, 0.7071, 0.7071, 0.7071, 0]]), rtol=0, atol=1e-4)
    straight = path(a, b, half, space_of(None, ("two",)), "spherical")
    torch.testing.assert_close(straight, torch.tensor([[0.7071, 0.7071, 0.5, 0.5, 0]]), rtol=0, atol=1e-4)
    alone = path(a, b, torch.tensor([[0.0], [1.0]])[:, None], space_of(None), "linear", ["two"])
    assert torch.equal(alone[0, 0], a[0])
    assert torch.equal(alone[1, 0], torch.tensor([1.0, 0, 0, 1, 0]))
    with pytest.raises(VaeflowError, match=r"there is no level three in this latent space: it has one, two."):
        path(a, b, half, space_of(None), "linear", ["three"])


def test_levels_of_a_multi_scale_model() -> None:
    model = make("ImageRealNVP")
    x, y = images(2)
    space = model.latent_spaces["z"]
    assert list(space.slices) == ["scale_1", "scale_2"]
    walk = interpolate(model, space, x, y, steps=3, levels=["scale_2"])
    first, second = model.encode(x)
    last = walk.codes[0, -1]
    assert torch.equal(last[space.slices["scale_1"]], first[space.slices["scale_1"]])
    assert torch.equal(last[space.slices["scale_2"]], second[space.slices["scale_2"]])


@pytest.mark.parametrize("method", ["linear", "spherical"])
def test_corners(method: Any) -> None:
    model = make("MAF")
    x, y = images(4)
    walk = interpolate(model, model.latent_spaces["z"], x, y, steps=4, method=method, corners=True)
    assert walk.codes.shape == (4, 4, 16)
    for corner, (row, column) in enumerate([(0, 0), (0, -1), (-1, 0), (-1, -1)]):
        assert torch.equal(walk.x[row, column], x[corner])
    if method == "linear":
        codes = model.encode(x)
        middle = walk.codes[1, 2]  # s = 1/3, t = 2/3
        weights = torch.tensor([2 / 9, 4 / 9, 1 / 9, 2 / 9])
        torch.testing.assert_close(middle, (weights[:, None] * codes).sum(0))
    assert len(animation(walk, 17)) == 12  # the four sides


def test_the_context_of_a_class_moves_along() -> None:
    model = make("VAE, of a class")
    x, y = images(2)
    seen = []

    def decode(z: Tensor, context: Tensor | None) -> Tensor:
        seen.append(context)
        return model.decode(z, context)

    space = LatentSpace("z", model.encode, decode, model.latent_slices)
    interpolate(model, space, x, y, steps=3, frames=1)
    assert torch.equal(torch.cat(seen)[:, :2], torch.tensor([[1, 0], [0.5, 0.5], [0, 1]]))


def test_what_cannot_be_walked_is_said() -> None:
    model = make("NICE")
    x, y = images(4)
    space = model.latent_spaces["z"]
    with pytest.raises(VaeflowError, match="there are 3 examples, expected pairs"):
        interpolate(model, space, x[:3], y[:3])
    with pytest.raises(VaeflowError, match="corners are four examples, but there are 2"):
        interpolate(model, space, x[:2], y[:2], corners=True)
    with pytest.raises(VaeflowError, match="steps is 1, expected at least 2"):
        interpolate(model, space, x, y, steps=1)


def test_the_picture_has_a_tile_for_every_step_and_the_examples_at_both_ends() -> None:
    model = make("NICE")
    x, y = images(4)
    walk = interpolate(model, model.latent_spaces["z"], x, y, steps=3)
    figure = draw(walk, "a title", 17)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["example", "0", "0.5", "1", "example"]
    page = np.asarray(axes.images[0].get_array())
    tile = 34  # of 32 pixels and a gap
    assert page.shape[0] == 2 * tile + 2
    shown = page[2:34:8, 2:34:8, 0].astype(float) / 255 * 16  # the first tile is the first example
    np.testing.assert_allclose(shown, x[0, 0].numpy(), atol=0.1)
    frames = animation(walk, 17)
    assert len(frames) == 9
    assert all(frame.shape == frames[0].shape and frame.dtype == np.uint8 for frame in frames)
    assert limits_of(x, 17) == (0.0, 16.0)


def test_arrays_for_a_file() -> None:
    x = torch.zeros(1, 2, 3)
    walk = Interpolation(x, torch.zeros(1, 5, 3), torch.zeros(1, 5, 3))
    assert {name: a.shape for name, a in walk.arrays().items()} == {
        "ends": (1, 2, 3), "codes": (1, 5, 3), "x": (1, 5, 3), "t": (5,)
    }  # fmt: skip
    assert math.isclose(walk.arrays()["t"][1], 0.25)
