"""Toys have the shapes and the entropies that they are known by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import make_circles, make_moons, make_swiss_roll

from vaeflow.data import Toy
from vaeflow.data.toys import ENTROPIES, TOYS


@pytest.mark.parametrize("name", TOYS)
def test_splits_are_drawn_once_and_apart(name: Any) -> None:
    toy, again = (Toy(name, num_train=300, num_val=100, num_test=200) for _ in range(2))
    toy.setup("fit")
    again.setup("fit")
    assert [len(toy.splits[s][0]) for s in ("train", "val", "test")] == [300, 100, 200]
    assert torch.equal(toy.splits["test"][0], again.splits["test"][0])
    assert not torch.equal(toy.splits["train"][0][:100], toy.splits["val"][0])
    assert name in toy.protocol
    assert toy.label == name
    assert Toy(name, num_train=50, num_val=70, num_test=200).fingerprint() == toy.fingerprint()
    other = Toy(name, num_train=300, num_val=100, num_test=200, draw_seed=1)
    assert other.fingerprint() != toy.fingerprint()


def moments(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x.mean(0), np.cov(x.T).flatten()[[0, 1, 3]], (x**3).mean(0), (x**4).mean(0)])


REFERENCES = {  # scikit-learn's generators, scaled as FFJORD does
    "moons": lambda n: make_moons(n, noise=0.1, random_state=0)[0] * 2 + [-1, -0.2],
    "circles": lambda n: make_circles(n, factor=0.5, noise=0.08, random_state=0)[0] * 3,
    "swissroll": lambda n: make_swiss_roll(n, noise=1.0, random_state=0)[0][:, [0, 2]] / 5,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_scikit_learns_generators_give_the_same_moments(name: str) -> None:
    ours, theirs = TOYS[name](np.random.default_rng(0), 200_000), REFERENCES[name](200_000)
    scale = np.abs(moments(theirs)) + 1
    assert (np.abs(moments(ours) - moments(theirs)) / scale).max() < 0.03


def test_entropies() -> None:
    axis = np.linspace(-6, 6, 1501)
    x, y = np.meshgrid(axis, axis)
    angle = np.arange(8) * math.pi / 4
    s = 0.5 / 1.414
    p = sum(
        np.exp(-((x - 4 / 1.414 * np.cos(a)) ** 2 + (y - 4 / 1.414 * np.sin(a)) ** 2) / (2 * s**2)) for a in angle
    ) / (8 * 2 * math.pi * s**2)
    entropy = -(p * np.log(p + 1e-300)).sum() * (axis[1] - axis[0]) ** 2
    assert ENTROPIES["8gaussians"] == pytest.approx(entropy, abs=1e-4)
    assert ENTROPIES["checkerboard"] == pytest.approx(math.log(32))
    assert ENTROPIES["parabola"] == pytest.approx(3.5310, abs=1e-4)


def test_checkerboard_fills_every_second_square() -> None:
    points = TOYS["checkerboard"](np.random.default_rng(0), 80_000)
    squares, counts = np.unique(np.floor(points / 2).astype(int), axis=0, return_counts=True)
    assert len(squares) == 8
    assert len({int(row.sum()) % 2 for row in squares}) == 1
    assert counts.min() > 0.9 * counts.max()
    assert np.abs(points).max() <= 4


def test_parabola_and_pinwheel_and_spirals() -> None:
    rng = np.random.default_rng(0)
    x_1, x_2 = TOYS["parabola"](rng, 200_000).T
    assert x_2.var() == pytest.approx(4, rel=0.02)
    assert (x_1 - x_2**2 / 4).var() == pytest.approx(1, rel=0.02)
    radius = np.linalg.norm(TOYS["pinwheel"](rng, 100_000), axis=1)
    assert radius.mean() == pytest.approx(2.02, abs=0.02)
    spirals = TOYS["2spirals"](rng, 100_000)
    assert np.abs(spirals.mean(0)).max() < 0.03
    assert np.linalg.norm(spirals, axis=1).max() < 3 * math.pi / 3 + 1
    rings = np.linalg.norm(TOYS["rings"](rng, 100_000), axis=1)
    counts, _ = np.histogram(rings, bins=[0.375, 1.125, 1.875, 2.625, 3.375])
    assert counts == pytest.approx([25_000] * 4, rel=0.05)
