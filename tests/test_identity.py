"""A checkpoint knows the data it was trained on, and no other data pass for them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import vaeflow
from tests.test_cli import Run
from vaeflow.data import Arrays, Digits, EnergyData
from vaeflow.errors import VaeflowWarning
from vaeflow.records.checkpoint import KEY, keep_weights, read
from vaeflow.records.identity import Identity, count_shared, fingerprint_of

MAF = ("--model", "MAF", "--model.hidden", "[8]", "--data", "Arrays", "--data.path", "mine.npy", "--experiment", "mine",
       "--trainer.accelerator", "cpu", "--pictures.every", 0, "--num_samples", 1)  # fmt: skip
BEST = "runs/mine/version_0/checkpoints/best.ckpt"


def points(count: int = 200, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3))


@pytest.fixture
def trained(run: Run, tmp_path: Path) -> Path:
    """A run of one epoch on ``mine.npy``."""
    np.save(tmp_path / "mine.npy", points())
    code, output = run("train", *MAF, "--trainer.max_epochs", 1)
    assert code == 0, output
    return tmp_path


def nll_of(path: Path) -> float:
    return json.loads(path.read_text())["nll"]


def test_a_fingerprint_is_of_values_and_their_order() -> None:
    x, y = torch.randn(5000, 3), torch.zeros(5000, dtype=torch.int64)
    same = fingerprint_of(x, y)
    assert fingerprint_of(x.double(), y) == same
    assert fingerprint_of(x.flip(0), y) != same
    assert fingerprint_of(x.T.reshape(5000, 3), y) != same
    assert fingerprint_of(x, y + 1) != same
    up = x.clone()
    up[4999, 2] = torch.nextafter(up[4999, 2], torch.tensor(torch.inf))
    assert fingerprint_of(up, y) != same
    integers = torch.arange(12).view(4, 3)
    assert fingerprint_of(integers, y[:4]) == fingerprint_of(integers.to(torch.uint8), y[:4])
    assert fingerprint_of(integers, y[:4]) != fingerprint_of(integers.view(2, 6), y[:4])
    assert fingerprint_of(integers, y[:4]) == fingerprint_of(integers.float(), y[:4])
    assert fingerprint_of(integers + 0.5, y[:4]) != fingerprint_of(integers, y[:4])
    assert fingerprint_of(torch.tensor([[0.0]]), y[:1]) == fingerprint_of(torch.tensor([[-0.0]]), y[:1])


def test_shared_examples_are_counted_value_by_value() -> None:
    x = torch.randn(9000, 4)
    others = torch.cat([torch.randn(5000, 4), x[100:350]])
    assert count_shared(x, others) == 250
    assert count_shared(x[:100], others) == 0
    assert count_shared(-x, others) == 0
    images = torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8)
    assert count_shared(images, images[:20]) == 20
    assert count_shared(torch.tensor([[0.0], [1.0]]), torch.tensor([[-0.0]])) == 1


def test_a_checkpoint_knows_its_data(trained: Path) -> None:
    identity = Identity.from_description(read(trained / BEST)[KEY]["identity"])
    assert identity is not None
    assert identity.source == str(trained / "mine.npy")
    assert identity.counts == {"train": 160, "val": 20, "test": 20}
    assert identity == Arrays(str(trained / "mine.npy")).identity
    keep_weights(trained / BEST, trained / "shared.ckpt")
    shared = Identity.from_description(read(trained / "shared.ckpt")[KEY]["identity"])
    assert shared is not None
    assert (shared.fingerprints, shared.source) == (identity.fingerprints, None)  # whose path is nobody else's business
    assert Identity.from_description({"fingerprints": {}}) is None
    assert EnergyData().identity is None


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "reordered": lambda x: x[np.random.default_rng(1).permutation(len(x))],
    "grown": lambda x: np.concatenate([x, points(50, seed=1)]),
    "one digit": lambda x: x + np.eye(len(x), 3) * 1e-15,
    "others": lambda x: points(len(x), seed=2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_replaced_data_are_not_evaluated_in_silence(change: str, run: Run, trained: Path) -> None:
    np.save(trained / "mine.npy", CHANGES[change](points()))
    code, output = run("evaluate", "--ckpt", BEST, "--json", "out.json")
    assert code == 0, output
    assert "warning: these are not the data that the model was trained on" in output
    assert "to use other data, pass --path" in output
    assert ("(160, 20 and 20 examples then, 200, 25 and 25 now)" in output) == (change == "grown")
    doubts = json.loads((trained / "out.json").read_text())["doubts"]
    assert any("not the data that the model was trained on" in doubt for doubt in doubts)
    code, output = run("train", *MAF, "--trainer.max_epochs", 2, "--ckpt_path", "last")
    assert (code, "cannot be resumed: these are not the data" in output) == (1, True), output
    with pytest.warns(VaeflowWarning, match="not the data that the model was trained on"):
        vaeflow.load_data(trained / BEST).setup("")


def test_the_same_data_are_themselves_wherever_they_lie(run: Run, trained: Path) -> None:
    code, output = run("evaluate", "--ckpt", BEST, "--json", "out.json")
    assert (code, "not the data" in output) == (0, False), output
    same = nll_of(trained / "out.json")
    assert same == nll_of(trained / "runs/mine/version_0/results.json")
    (trained / "mine.npy").rename(trained / "moved.npy")
    np.savetxt(trained / "text.csv", points(), delimiter=",", fmt="%.17g")
    for name in ("moved.npy", "text.csv"):
        code, output = run("evaluate", "--ckpt", BEST, "--path", name, "--json", "out.json")
        assert (code, "not the data" in output, nll_of(trained / "out.json")) == (0, False, same), output
    code, output = run("evaluate", "--ckpt", BEST)
    assert (code, "there is no file" in output) == (1, True), output
    (trained / "moved.npy").rename(trained / "mine.npy")
    code, output = run("train", *MAF, "--trainer.max_epochs", 2, "--ckpt_path", "last")
    assert code == 0, output


def test_another_file_of_that_name_is_not_read(run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (trained / "elsewhere").mkdir()
    np.save(trained / "elsewhere" / "mine.npy", 1000 * points(seed=3))
    monkeypatch.chdir(trained / "elsewhere")
    code, output = run("evaluate", "--ckpt", trained / BEST, "--json", "out.json")
    assert code == 0, output
    assert f"read from {trained / 'mine.npy'}, which the model was trained on, and not from" in output
    assert nll_of(trained / "elsewhere/out.json") == nll_of(trained / "runs/mine/version_0/results.json")
    (trained / "mine.npy").unlink()
    code, output = run("evaluate", "--ckpt", trained / BEST, "--json", "out.json")
    assert "these are not the data that the model was trained on" in output
    assert "to use other data, pass --path" in output


def test_from_python_a_result_has_its_doubts(trained: Path) -> None:
    np.save(trained / "mine.npy", points(seed=5))
    model = vaeflow.load(trained / BEST)
    results = vaeflow.evaluate(model, Arrays(str(trained / "mine.npy")))
    assert any("not the data that the model was trained on" in doubt for doubt in results["doubts"])


def test_generated_data_have_an_identity_too() -> None:
    one, other = Digits().identity, Digits(split_seed=1).identity
    assert one is not None
    assert other is not None
    assert one == Digits(batch_size=7, seed=3).identity
    assert one.source is None
    assert "the training, validation and test examples differ" in (one.difference_from(other) or "")


def test_copies_of_training_examples_are_counted(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.repeat(points(60), 5, axis=0))
    code, output = run("train", *MAF, "--trainer.max_epochs", 1)
    assert code == 0, output
    results = json.loads((tmp_path / "runs/mine/version_0/results.json").read_text())
    assert results["num_in_training"] > 20
    assert f"{results['num_in_training']} of the 30 test examples" in output
    assert "doubtful" in run("compare", "runs")[1]
    images = np.random.default_rng(0).integers(0, 256, (100, 6, 6)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", train=images[:80], val=images[80:], test=np.concatenate([images[70:80], images]))
    data = Arrays(str(tmp_path / "images.npz"))
    data.evaluate_on("test")
    assert data.count_copies() == {"num_in_training": 90, "num_in_validation": 20, "num_repeated": 10}
    data.evaluate_on("test", limit=10)
    assert data.count_copies() == {"num_in_training": 10, "num_in_validation": 0, "num_repeated": 0}
    data.evaluate_on("train")
    assert data.count_copies() == {"num_in_training": None, "num_in_validation": 0, "num_repeated": 0}


def test_validation_data_that_are_the_test_data(run: Run, tmp_path: Path) -> None:
    """By which the best checkpoint would be chosen on the test data."""
    values = np.random.default_rng(0).normal(size=(200, 2))
    np.savez(tmp_path / "mine.npz", train=values[:120], val=values[120:], test=values[120:])
    code, output = run("train", *MAF, "--data.path", "mine.npz", "--trainer.max_epochs", 1)
    assert code == 0, output
    assert "80 of the 80 test examples (100.0%) are validation examples as well" in output
    assert "doubtful" in run("compare", "runs")[1]


def test_test_examples_that_repeat_each_other(run: Run, tmp_path: Path) -> None:
    """The standard error would be too small."""
    values = np.random.default_rng(0).normal(size=(200, 2))
    np.savez(tmp_path / "mine.npz", train=values[:120], val=values[120:160], test=np.tile(values[160:], (3, 1)))
    code, output = run("train", *MAF, "--data.path", "mine.npz", "--trainer.max_epochs", 1)
    assert code == 0, output
    assert "80 of the 120 test examples (66.7%) repeat others" in output
    assert "doubtful" in run("compare", "runs")[1]


def test_an_example_that_dominates_is_named(run: Run, tmp_path: Path) -> None:
    """Far from the others, but heavy tails have such, too, so it keeps its rank."""
    values = np.random.default_rng(0).normal(size=(400, 2))
    values[-1] = 60.0
    np.savez(tmp_path / "mine.npz", train=values[:200], val=values[200:300], test=values[300:])
    code, output = run("train", *MAF, "--data.path", "mine.npz", "--trainer.max_epochs", 1)
    assert code == 0, output
    assert "Example 99 of the test split, whose nll is " in output
    compared = run("compare", "runs")[1]
    assert "Example 99 of the test split" in compared
    assert "doubtful" not in compared


def test_few_bits_repeat_by_themselves(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).integers(0, 3, (300, 2)))
    code, output = run("train", *MAF, "--data.levels", 3, "--trainer.max_epochs", 1)
    assert (code, "30 of the 30 test examples (100.0%) are training examples as well." in output) == (0, True), output
    assert json.loads((tmp_path / "runs/mine/version_0/results.json").read_text())["doubts"] == []
    assert "doubtful" not in run("compare", "runs")[1]


def test_data_that_the_model_is_not_of_are_refused_by_all_commands(run: Run, trained: Path) -> None:
    np.save(trained / "wide.npy", np.random.default_rng(0).normal(size=(50, 4)))
    for command in ("evaluate", "sample", "interpolate"):
        code, output = run(command, "--ckpt", BEST, "--path", "wide.npy")
        assert (code, r"made for data of shape (3,), but these have (4,)" in output) == (1, True), output


def test_what_is_doubted_before_a_training_is_doubted_after_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter([["one", "two"], ["two", "three"]])
    monkeypatch.setattr("vaeflow.commands.training.doubts_before", lambda *_: iter(next(said)))
    evaluation = importlib.import_module("vaeflow.evaluation.evaluate")
    monkeypatch.setattr(evaluation, "doubts_before", lambda *_: iter(next(said)))
    np.save(tmp_path / "mine.npy", points())
    code, output = run("train", *MAF, "--trainer.max_epochs", 1)
    assert code == 0, output
    assert json.loads((tmp_path / "runs/mine/version_0/results.json").read_text())["doubts"] == ["two", "three", "one"]


def test_data_are_looked_through_once(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = list[object]()
    monkeypatch.setattr("vaeflow.evaluation.doubts.doubts_about_data", lambda data: looks.append(data) or iter(["odd"]))
    np.save(tmp_path / "mine.npy", points())
    code, output = run("train", *MAF, "--trainer.max_epochs", 1)
    assert (code, output.count("odd"), len(looks)) == (0, 2, 1), output
