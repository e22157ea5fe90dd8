"""Numbers that mean nothing are doubted, and clean data are not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.test_cli import Run
from vaeflow.data import Arrays, Toy
from vaeflow.data.toys import TOYS
from vaeflow.evaluation import evaluate
from vaeflow.evaluation.data_doubts import doubts_about_data, lie_on_a_surface
from vaeflow.evaluation.doubts import dominant_example, doubts_about_density, remarks_on
from vaeflow.models import GaussianModel, NeuralSplineFlow

RNG = np.random.default_rng


def doubts(tmp_path: Path, x: np.ndarray) -> list[str]:
    np.save(tmp_path / "mine.npy", x)
    return list(doubts_about_data(Arrays(str(tmp_path / "mine.npy"))))


CLEAN = {
    "normal": RNG(0).normal(size=(2000, 4)),
    "correlated": RNG(0).multivariate_normal([0, 0], [[1, 0.9999], [0.9999, 1]], 2000),
    "heavier tails": np.exp(2.5 * RNG(0).normal(size=(5000, 8))),
    "large float32": 1e6 * np.exp(2 * RNG(0).normal(size=(5000, 2))).astype(np.float32),
    "heavy tails": RNG(0).standard_t(3, size=(3000, 3)),
    "log-normal": np.exp(2 * RNG(0).normal(size=(2000, 2))),
    "uniform": RNG(0).uniform(size=(3000, 2)).astype(np.float32),
    "two digits": RNG(0).normal(size=(2000, 2)).round(3),
    "thin ring": np.exp(1j * RNG(0).uniform(0, 7, 9000)).view(float).reshape(-1, 2) + RNG(1).normal(0, 0.01, (9000, 2)),
    "few": RNG(0).normal(size=(12, 3)),
    "dates": 1.7e9 + RNG(0).normal(size=(1000, 2)),
    "seconds": np.column_stack([(1.7e9 + 1e7 * RNG(0).uniform(size=1000)).round(), RNG(0).normal(size=1000)]),
}  # fmt: skip


@pytest.mark.parametrize("name", CLEAN)
def test_clean_data_are_not_doubted(name: str, tmp_path: Path) -> None:
    assert doubts(tmp_path, CLEAN[name]) == []


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_not_doubted(name: str) -> None:
    assert list(doubts_about_data(Toy(name, num_train=5000, num_val=500, num_test=500))) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("value", [0.0123, 0.0, -999.0])
def test_an_atom_is_doubted_with_column_and_value(share: float, value: float, tmp_path: Path) -> None:
    x = RNG(0).normal(size=(2000, 3))
    x[RNG(1).random(2000) < share, 1] = value
    (doubt, *_) = doubts(tmp_path, x)
    assert "column 1 of mine.npy" in doubt
    assert f"has the value {value:g} in" in doubt or share == 0.9  # which are few values first of all


def test_clipped_values_are_atoms(tmp_path: Path) -> None:
    (doubt,) = doubts(tmp_path, RNG(0).normal(size=(2000, 2)).clip(-1, 3))
    assert "of mine.npy has the value -1 in 1" in doubt
    assert "% of the training examples (likewise column " in doubt


def test_many_small_atoms_are_doubted(tmp_path: Path) -> None:
    x = RNG(0).normal(size=(4000, 2))
    at = RNG(1).random(4000) < 0.4
    x[at, 0] = RNG(2).normal(size=20)[RNG(3).integers(0, 20, at.sum())]
    (doubt,) = doubts(tmp_path, x)
    assert ", or one of 19 others that stand as often, in 4" in doubt
    low, high = np.quantile(RNG(0).normal(size=4000), [0.02, 0.98])
    assert (
        ", or one of 1 other that stands as often, in 4%"
        in doubts(tmp_path, RNG(0).normal(size=(4000, 2)).clip(low, high))[0]
    )


def test_few_values_are_doubted_by_name(tmp_path: Path) -> None:
    x = RNG(0).normal(size=(1000, 2))
    x[:, 1] = RNG(0).integers(0, 5, 1000) / 4
    (doubt,) = doubts(tmp_path, x)
    assert "column 1 of mine.npy takes only 5 distinct values in 800 examples" in doubt


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("count", [500, 4000, 20_000, 30_000])
@pytest.mark.parametrize("step", [0.5, 0.1, 0.02])
def test_rounded_columns_are_doubted_with_their_step(step: float, count: int, dtype: type, tmp_path: Path) -> None:
    """However many examples there are, in either precision, and wherever zero is."""
    x = RNG(0).normal(size=(count, 2))
    x[:, 1] = 273.15 + step * (RNG(1).normal(size=count) / step).round()
    (doubt,) = doubts(tmp_path, x.astype(dtype))
    assert f"column 1 of mine.npy goes in steps of {step:g} (" in doubt
    assert f"Add noise between 0 and {step:g} to it" in doubt


def test_columns_are_rounded_to_steps_of_their_own(tmp_path: Path) -> None:
    x = RNG(0).normal(size=(20_000, 4))
    x[:, 0], x[:, 2:] = x[:, 0].round(1), x[:, 2:].round(2)
    first, second = doubts(tmp_path, x)
    assert "column 0 of mine.npy goes in steps of 0.1 (" in first
    assert "likewise" not in first
    assert "column 2 of mine.npy goes in steps of 0.01 (" in second
    assert "(likewise column 3)" in second


def test_missing_values_among_rounded_ones_are_doubted(tmp_path: Path) -> None:
    x = RNG(0).normal(size=(4000, 2))
    x[:, 1] = np.where(RNG(1).random(4000) < 0.3, -999.0, x[:, 1].round(1))
    found = doubts(tmp_path, x)
    assert any("column 1 of mine.npy has the value -999" in doubt for doubt in found)


def test_fine_steps_change_nothing(tmp_path: Path) -> None:
    """The nll of a thousandth of a standard deviation is that of real numbers."""
    x = RNG(0).normal(size=(30_000, 3))
    assert doubts(tmp_path, x.round(3)) == []
    nlls = []
    for values in (x, x.round(3)):
        np.save(tmp_path / "mine.npy", values)
        data, model = Arrays(str(tmp_path / "mine.npy")), GaussianModel(shape=(3,)).eval()
        model.initialise(data)
        nlls.append(-model.log_prob(data.examples("test", torch.arange(3000))[0]).mean().item())
    assert nlls[1] == pytest.approx(nlls[0], abs=1e-3)


@pytest.mark.parametrize("count", [50, 200, 1000])
def test_a_dominant_example_is_one_far_from_all_others(count: int) -> None:
    for seed in range(50):
        nll = 3 + RNG(seed).chisquare(4, size=count) / 2
        assert dominant_example(nll) is None
        nll[7] = 300
        assert dominant_example(nll) == 7
    assert dominant_example(np.full(count, 181.326) + 1e-13 * RNG(0).normal(size=count)) is None


@pytest.mark.parametrize("levels", [30, 1000, 20_000])
def test_a_column_of_whole_numbers_is_doubted_by_name(levels: int, tmp_path: Path) -> None:
    x = RNG(0).normal(size=(300, 2))
    x[:, 1] = RNG(0).integers(0, levels, 300)
    (tmp_path / "mine.csv").write_text("height,age\n" + "".join(f"{a},{b}\n" for a, b in x.tolist()))
    (doubt,) = doubts_about_data(Arrays(str(tmp_path / "mine.csv")))
    few = "takes only 30 distinct values" if levels == 30 else "holds whole numbers alone"
    assert f"column 'age' of mine.csv {few}" in doubt


@pytest.mark.parametrize("value", [1e9, -3e12, 1e30])
def test_an_outlier_in_training_is_doubted_with_its_value(value: float, tmp_path: Path) -> None:
    x = RNG(0).normal(size=(3000, 2))
    np.savez(tmp_path / "mine.npz", train=np.concatenate([x[:2000], [[0.0, value]]]), val=x[2000:2500], test=x[2500:])
    (doubt,) = doubts_about_data(Arrays(str(tmp_path / "mine.npz")))
    assert f"column 1 of mine.npz has the value {value:g}, so far from the others that of 2,001 distinct" in doubt


def test_an_outlier_is_found_beside_others_that_are_farther_out(tmp_path: Path) -> None:
    x = RNG(0).normal(size=(3000, 2))
    x[[5, 800], 0], x[9, 1] = 1e12, 1000
    np.savez(tmp_path / "mine.npz", train=x[:2000], val=x[2000:2500], test=x[2500:])
    (doubt,) = doubts_about_data(Arrays(str(tmp_path / "mine.npz")))
    assert "column 0 of mine.npz has the value 1e+12, so far from the others that of 1,999 distinct values 2" in doubt


@pytest.mark.parametrize(("value", "is_doubted"), [(-1e7, True), (300.0, True), (60.0, False)])
def test_an_outlier_in_the_test_split_is_named(value: float, is_doubted: bool, tmp_path: Path) -> None:
    x = RNG(0).normal(size=(3000, 2))
    x[2700, 0] = value
    np.savez(tmp_path / "mine.npz", train=x[:2000], val=x[2000:2500], test=x[2500:])
    data, model = Arrays(str(tmp_path / "mine.npz")), GaussianModel(shape=(2,))
    assert list(doubts_about_data(data)) == []
    model.initialise(data)
    results = evaluate(model, data)
    (sentence,) = remarks_on(results)
    assert "Example 200 of the test split, whose nll is " in sentence
    assert f" and whose column 0 is {value:g}, " in sentence
    assert results["doubts"] == ([sentence] if is_doubted else [])


def test_sums_of_rounded_readings_are_no_outliers(tmp_path: Path) -> None:
    x = RNG(0).normal(size=(5000, 3))
    x[:, 0] = np.round(20 + RNG(1).normal(size=(3, 5000)), 1).mean(0)
    (doubt,) = doubts(tmp_path, x)
    assert "column 0 of mine.npy goes in steps of 0.0333" in doubt


def test_significant_digits_are_no_steps(tmp_path: Path) -> None:
    """Noise of the size of the smallest would leave the others."""
    x = RNG(0).normal(size=(5000, 2))
    x[:, 0] = [float(f"{value:.2g}") for value in np.exp(RNG(1).normal(size=5000))]
    (doubt,) = doubts(tmp_path, x)
    assert "column 0 of mine.npy takes only " in doubt
    assert "add noise of the size of their rounding" in doubt


def test_numbers_that_are_mostly_whole_are_doubted(tmp_path: Path) -> None:
    x = RNG(0).normal(size=(5000, 2))
    x[:, 1] = np.where(RNG(1).random(5000) < 0.5, np.round(1000 * x[:, 1]), 1000 * x[:, 1])
    (doubt,) = doubts(tmp_path, x)
    assert "column 1 of mine.npy holds whole numbers in 5" in doubt


def test_copies_of_examples_are_no_columns_of_few_values(tmp_path: Path) -> None:
    assert not any(
        "distinct values" in doubt for doubt in doubts(tmp_path, np.tile(RNG(0).normal(size=(500, 3)), (6, 1)))
    )


def test_measurements_of_four_digits_have_no_missing_values(tmp_path: Path) -> None:
    values = np.round(12 + 3 * RNG(0).normal(size=(500, 3)), 2)
    assert doubts(tmp_path, values) == []


SURFACES = {
    "circle": lambda t, z: np.stack([np.cos(t), np.sin(t)], 1),
    "graph": lambda t, z: np.stack([t, t**2], 1),
    "helix": lambda t, z: np.stack([np.cos(3 * t), np.sin(3 * t), t], 1),
    "sphere": lambda t, z: z[:, :3] / np.linalg.norm(z[:, :3], axis=1, keepdims=True),
    "product": lambda t, z: np.column_stack([z[:, :3], z[:, 0] * z[:, 1]]),
    "two curves": lambda t, z: np.stack([t, np.sin(t) + 3 * (z[:, 0] > 0)], 1),
    "half of a curve": lambda t, z: np.where(z[:, 3:] > 0, np.stack([np.cos(t), np.sin(t)], 1), z[:, :2]),
}


@pytest.mark.parametrize("name", SURFACES)
@pytest.mark.parametrize("count", [300, 1000, 6000])
def test_curves_and_surfaces_are_doubted(name: str, count: int, tmp_path: Path) -> None:
    rng = RNG(0)
    x = SURFACES[name](rng.uniform(0, 2 * math.pi, count), rng.normal(size=(count, 4)))
    (doubt,) = doubts(tmp_path, x)
    assert "lie on a curve or surface of fewer than" in doubt
    assert not lie_on_a_surface(torch.from_numpy(x + 0.05 * rng.normal(size=x.shape)))


def test_dimensions_that_are_equal_in_many_examples_are_doubted(tmp_path: Path) -> None:
    x = RNG(0).normal(size=(4000, 2))
    ties = RNG(1).random(4000) < 0.3
    x[ties, 1] = 3 * x[ties, 0] - 1
    (doubt,) = doubts(tmp_path, x)
    assert "lie on a curve or surface" in doubt


def test_an_nll_that_falls_without_bound_is_doubted(tmp_path: Path) -> None:
    """A density that has learned the circle; one that has not, and a Gaussian of Gaussian data, are what they say."""
    t = torch.rand(3000, generator=torch.Generator().manual_seed(0)) * 2 * math.pi
    np.save(tmp_path / "circle.npy", torch.stack([t.cos(), t.sin()], 1).double().numpy())
    data = Arrays(str(tmp_path / "circle.npy"))
    data.evaluate_on("test")
    smooth = GaussianModel(shape=(2,)).eval()
    smooth.initialise(data)
    assert list(doubts_about_density(smooth, data)) == []
    sharp = NeuralSplineFlow(shape=(2,), hidden=[8]).eval()
    sharp.initialise(data)
    sharp.log_prob = lambda x, *_: -0.5 * ((x.norm(dim=-1) - 1) / 1e-4).square()  # type: ignore[method-assign]
    (doubt,) = doubts_about_density(sharp, data)
    assert "if they are moved by a thousandth of a standard deviation" in doubt


def test_a_doubtful_number_has_no_rank(run: Run, tmp_path: Path) -> None:
    x = RNG(0).normal(size=(400, 2))
    x[:100, 0] = 0.5
    np.save(tmp_path / "atom.npy", x)
    for model in ("GaussianModel", "GaussianMixtureModel"):
        code, output = run("train", "--model", model, "--data", "Arrays", "--data.path", "atom.npy",
                           "--trainer.max_epochs", 1, "--pictures.every", 0, "--experiment", model)  # fmt: skip
        assert code == 0, output
        assert output.count("column 0 of atom.npy has the value 0.5") == 2  # before training, and with the results
        results = json.loads((tmp_path / f"runs/{model}/version_0/results.json").read_text())
        assert any("has the value 0.5" in doubt for doubt in results["doubts"])
    assert run("compare", "runs")[1].count("doubtful") == 2


def test_an_outlier_among_the_validation_data_is_doubted(tmp_path: Path) -> None:
    x = RNG(0).normal(size=(300, 2))
    x[210, 1] = 2.1e14
    np.savez(tmp_path / "mine.npz", train=x[:200], val=x[200:250], test=x[250:])
    (doubt,) = doubts_about_data(Arrays(str(tmp_path / "mine.npz")))
    assert "column 1 of mine.npz has the value 2.1e+14 in the validation split" in doubt
    assert "it alone decides which checkpoint is the best" in doubt


def test_an_atom_among_few_examples_is_doubted(tmp_path: Path) -> None:
    x = RNG(0).normal(size=(100, 2))
    x[RNG(1).permutation(100)[:7], 0] = 0.0123
    (doubt,) = doubts(tmp_path, x)
    assert "column 0 of mine.npy has the value 0.0123 in" in doubt
