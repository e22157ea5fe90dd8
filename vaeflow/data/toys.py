"""Two-dimensional toy densities, with the generators of FFJORD (Grathwohl et al. 2019, arXiv 1810.01367)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch

from vaeflow.data.base import DataModule, Split
from vaeflow.errors import check_positive

Points = np.ndarray


def eight_gaussians(rng: np.random.Generator, n: int) -> Points:
    """Eight Gaussians of standard deviation ½ on a circle of radius 4, all divided by 1.414."""
    angle = rng.integers(8, size=n) * math.pi / 4
    return (4 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.5 * rng.standard_normal((n, 2))) / 1.414


def checkerboard(rng: np.random.Generator, n: int) -> Points:
    """Uniform on eight of the sixteen squares of side 2 in [−4, 4]²."""
    x = rng.uniform(-2, 2, n)
    y = rng.uniform(0, 1, n) - 2 * rng.integers(2, size=n) + np.floor(x) % 2
    return 2 * np.stack([x, y], 1)


def parabola(rng: np.random.Generator, n: int) -> Points:
    """x₂ ~ N(0, 4), x₁ ~ N(x₂²/4, 1): figure 1 of MAF (Papamakarios et al. 2017, arXiv 1705.07057)."""
    x_2 = 2 * rng.standard_normal(n)
    return np.stack([x_2**2 / 4 + rng.standard_normal(n), x_2], 1)


def moons(rng: np.random.Generator, n: int) -> Points:
    """Two interleaving half circles of radius 2, noise 0.2."""
    angle, lower = rng.uniform(0, math.pi, n), rng.integers(2, size=n)
    upper = np.stack([np.cos(angle), np.sin(angle)], 1)
    points = np.where(lower[:, None], [1, 0.5] - upper, upper)
    return 2 * (points + 0.1 * rng.standard_normal((n, 2))) + [-1, -0.2]


def rings(rng: np.random.Generator, n: int) -> Points:
    """Four concentric circles of radius 0.75, 1.5, 2.25 and 3, noise 0.08."""
    angle, radius = rng.uniform(0, 2 * math.pi, n), 0.75 * rng.integers(1, 5, size=n)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.08 * rng.standard_normal((n, 2))


def circles(rng: np.random.Generator, n: int) -> Points:
    """Two concentric circles of radius 1.5 and 3, noise 0.24."""
    angle, radius = rng.uniform(0, 2 * math.pi, n), 0.5 * rng.integers(1, 3, size=n)
    return 3 * (radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.08 * rng.standard_normal((n, 2)))


def pinwheel(rng: np.random.Generator, n: int) -> Points:
    """Five arms, Gaussians of standard deviations 0.3 and 0.1 that are bent the more, the further out."""
    arm = rng.standard_normal((n, 2)) * [0.3, 0.1] + [1, 0]
    angle = rng.integers(5, size=n) * 2 * math.pi / 5 + 0.25 * np.exp(arm[:, 0])
    cos, sin = np.cos(angle), np.sin(angle)
    return 2 * np.stack([arm[:, 0] * cos + arm[:, 1] * sin, -arm[:, 0] * sin + arm[:, 1] * cos], 1)


def two_spirals(rng: np.random.Generator, n: int) -> Points:
    """Two spirals of one and a half turns, the second the first turned by 180°."""
    t = np.sqrt(rng.uniform(0, 1, n)) * 3 * math.pi
    one = np.stack([-np.cos(t) * t, np.sin(t) * t], 1) + 0.5 * rng.uniform(0, 1, (n, 2))
    sign = 1 - 2 * rng.integers(2, size=n)
    return sign[:, None] * one / 3 + 0.1 * rng.standard_normal((n, 2))


def swiss_roll(rng: np.random.Generator, n: int) -> Points:
    """One spiral of one and a half turns, noise 0.2."""
    t = 1.5 * math.pi * (1 + 2 * rng.uniform(0, 1, n))
    return (np.stack([t * np.cos(t), t * np.sin(t)], 1) + rng.standard_normal((n, 2))) / 5


TOYS: dict[str, Callable[[np.random.Generator, int], Points]] = {
    "8gaussians": eight_gaussians,
    "checkerboard": checkerboard,
    "parabola": parabola,
    "moons": moons,
    "rings": rings,
    "circles": circles,
    "pinwheel": pinwheel,
    "2spirals": two_spirals,
    "swissroll": swiss_roll,
}
ENTROPIES = {"8gaussians": 2.8319, "checkerboard": 5 * math.log(2), "parabola": math.log(2) + math.log(2 * math.pi) + 1}
"""In nats, where they are known: no density has a lower expected nll. Of the eight Gaussians by quadrature."""


class Toy(DataModule):
    """Points in the plane from a density of one's choice, drawn once with a seed.

    The generators are FFJORD's, and so are their scales; that of the parabola is MAF's.

    Args:
        name: 8gaussians, checkerboard, parabola, moons, rings, circles, pinwheel, 2spirals or swissroll.
        batch_size: of all processes together.
        num_train, num_val, num_test: how many points of each split.
        draw_seed: of the points; a number is comparable only under the same one.
        seed: of the order of training points; comes from seed_everything.
    """

    def __init__(
        self,
        name: Literal[
            "8gaussians", "checkerboard", "parabola", "moons", "rings", "circles", "pinwheel", "2spirals", "swissroll"
        ] = "8gaussians",
        batch_size: int = 512,
        num_train: int = 100_000,
        num_val: int = 20_000,
        num_test: int = 50_000,
        draw_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        check_positive(num_train=num_train, num_val=num_val, num_test=num_test)
        self.toy, self.draw_seed = name, draw_seed
        self.sizes = {"train": num_train, "val": num_val, "test": num_test}
        self.shape, self.levels = (2,), None
        self.entropy = ENTROPIES.get(name)

    @property
    def label(self) -> str:
        return self.toy

    @property
    def protocol(self) -> str:
        return f"{self.toy}, {'/'.join(map(str, self.sizes.values()))} points drawn with seed {self.draw_seed}"

    def read(self) -> dict[str, Split]:
        points = {}
        for i, (name, n) in enumerate(self.sizes.items()):  # each of its own stream: sizes of others change nothing
            rng = np.random.default_rng([self.draw_seed, i])
            points[name] = torch.from_numpy(TOYS[self.toy](rng, n)).float()
        return {name: (x, torch.zeros(len(x), dtype=torch.int64)) for name, x in points.items()}
