"""The command line, used as its users do."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vaeflow
from vaeflow.commands.configs import CONFIGS, config_names
from vaeflow.commands.messages import Parser
from vaeflow.data import MNIST, FreyFaces
from vaeflow.evaluation import LogLikelihood
from vaeflow.latents import has_codes
from vaeflow.models import VAE, LikelihoodModel
from vaeflow.records.checkpoint import read

Run = Callable[..., tuple[int, str]]
SHORT = ("--trainer.max_epochs", 1, "--trainer.limit_train_batches", 2, "--trainer.limit_val_batches", 1,
         "--trainer.check_val_every_n_epoch", 1)  # fmt: skip
ROOT = CONFIGS.parent


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


@pytest.fixture(autouse=True)
def _small_data(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEFLOW_DATA", str(data_root))


FURTHER = {
    *(f"freyfaces/vae_{flow}" for flow in ("2d", "planar", "radial", "iaf")),
    *(f"mnist/vae_{flow}" for flow in ("2d", "planar", "radial", "sylvester")),
    *(f"energies/u{i}_planar" for i in (2, 3, 4)), "toys/realnvp", "toys/iaf", "toys/made", "vae_radial",
}  # fmt: skip
"""Configs that differ from others in what others of the same data have tried."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in FURTHER else name for name in config_names()]
)
def test_every_config_trains(name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start: dict[str, torch.Tensor] = {}
    keep = lambda self: start.update({n: p.detach().clone() for n, p in self.named_parameters()})  # noqa: E731
    monkeypatch.setattr(LikelihoodModel, "on_train_start", keep)
    for data, n in ((MNIST, 60), (FreyFaces, 20)):
        few = lambda self, n=n, read=data.read: {s: (x[:n], y[:n]) for s, (x, y) in read(self).items()}  # noqa: E731
        monkeypatch.setattr(data, "read", few)
    small: list[object] = ["--data.batch_size", 20] if "/" in name else []
    if name == "vdvae":  # its top prior starts as a constant, of which nothing but the last bias has a gradient
        small += ["--trainer.limit_train_batches", 8]
    if name == "mnist/spline":
        small += ["--model.hidden", "[8]"]
    if name in ("mnist/made", "mnist/maf"):  # a sample takes 784 passes
        small += ["--model.hidden", "[8]", "--pictures.every", 0]
    if name == "mnist/gaussian":
        small += ["--model.covariance", "diagonal"]  # of 60 images
    if name.startswith(("energies", "toys")):
        small += ["--data.num_train", 100, "--data.num_val", 100, "--data.num_test", 100]
    code, output = run("train", "--config", name, *SHORT, "--num_samples", 2, *small)
    assert code == 0, output
    folder = tmp_path / "runs" / name / "version_0"
    results = json.loads((folder / "results.json").read_text())
    trained, logged = vaeflow.load(results["checkpoint"]), events(folder)
    images, scalars = set(logged.Tags().get("images", [])), set(logged.Tags()["scalars"])
    score = "kl" if results["measure"] == "energy" else "nll"
    assert math.isfinite(results[score])
    digits = 3 if score == "nll" else 4
    assert f"{results[score]:,.{digits}f} ± {results[f'{score}_stderr']:,.{digits}f}" in output
    expected = {f"val/{term}" for term in ("objective", *trained.logged)}
    if results["measure"].startswith(("binary", "discrete")):
        assert results["bpd"] == pytest.approx(results["nll"] / (math.prod(trained.shape) * math.log(2)))
        expected |= {"val/bpd", "test/bpd"}
    assert {*expected, f"test/{score}"} <= scalars
    for parameter, value in trained.named_parameters():
        assert torch.isfinite(value).all()
        if value.requires_grad:
            assert not torch.equal(value, start[parameter]), parameter
    if len(trained.shape) == 3 and "--pictures.every" not in small:
        assert "samples" in images
        assert ({"reconstructions", "interpolation"} <= images) == has_codes(trained)
    assert ("latents" in images) == name.endswith("2d")
    assert ("density" in images) == (trained.shape == (2,))
    assert (folder / "config.yaml").is_file()
    assert (folder / "checkpoints" / "last.ckpt").is_file()


def test_train_evaluate_resume(run: Run, tmp_path: Path) -> None:
    """One run, and all that its user does next."""
    code, output = run("train", "--config", "vae_iaf.yaml", "--trainer.max_epochs", 3, "--num_samples", 10)
    assert code == 0, output
    folder = tmp_path / "runs/vae_iaf/version_0"
    results = json.loads((folder / "results.json").read_text())
    assert set(results) >= {
        "model", "data", "split", "measure", "protocol", "test_fingerprint", "kind", "objective", "num_samples", "nll",
        "nll_stderr", "bpd", "elbo", "kl", "reconstruction", "active_units", "effective_sample_size", "num_examples",
        "num_parameters", "checkpoint", "seed", "git_commit", "world_size", "training_seconds", "evaluation_seconds",
    }  # fmt: skip
    assert (results["kind"], results["measure"], results["num_examples"]) == ("importance-sampled", "discrete-17", 300)
    assert results["elbo"] == pytest.approx(-results["kl"] - results["reconstruction"])
    assert results["nll"] < -results["elbo"]
    by_example = np.load(folder / "results.npy")
    assert by_example.shape == (300,)
    assert by_example.mean() == pytest.approx(results["nll"])
    for line in (
        "nll",
        "bits/dim",
        "ELBO",
        "KL",
        "reconstruction",
        "active units",
        "parameters",
        "training",
        "evaluation",
    ):
        assert re.search(rf"^  {line} +[-\d]", output, re.MULTILINE), line
    best = folder / "checkpoints/best.ckpt"
    assert f"evaluate.py --ckpt {best.relative_to(tmp_path)}" in output
    hparams = events(folder).summary_metadata  # the hparams tab's row
    assert any("_hparams_" in tag for tag in hparams)

    code, output = run("evaluate", "--ckpt", best, "--num-samples", 10, "--json", "out.json")
    assert code == 0, output
    again = json.loads((tmp_path / "out.json").read_text())
    for key in ("nll", "nll_stderr", "elbo", "test_fingerprint", "protocol", "context"):
        assert again[key] == results[key], key
    assert 0 < again["training_seconds"] <= results["training_seconds"]  # until the last checkpoint
    code, _ = run(
        "evaluate", "--ckpt", best, "--num-samples", 10, "--batch-size", 7, "--memory-mb", 1, "--json", "b.json"
    )
    assert json.loads((tmp_path / "b.json").read_text())["nll"] == pytest.approx(results["nll"], rel=1e-6)
    code, output = run(
        "evaluate", "--ckpt", best, "--num-samples", 3, "--split", "val", "--limit", 5, "--json", "c.json"
    )
    assert json.loads((tmp_path / "c.json").read_text())["num_examples"] == 5

    # a config that a run has left is accepted back, and starts a run of its own
    code, output = run("train", "--config", folder / "config.yaml", "--trainer.max_epochs", 1, "--num_samples", 1)
    assert code == 0, output
    assert (folder.parent / "version_1/results.json").is_file()


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the next training stop at the end of the given step, by a signal or because Lightning was told to."""

    def stop_at(step: int, by: str = "SIGINT") -> None:
        losses, stopped = VAE.losses, []

        def interrupted(self: VAE, *arguments: Any) -> Any:
            if self.training and self.global_step == step - 1 and not stopped:
                stopped.append(step)
                if by == "should_stop":
                    self.trainer.should_stop = True
                else:
                    signal.raise_signal(signal.Signals[by])
            return losses(self, *arguments)

        monkeypatch.setattr(VAE, "losses", interrupted)

    return stop_at


@pytest.mark.parametrize(
    ("step", "by", "every"),
    [
        (15, "SIGINT", 1),
        (15, "SIGTERM", 2),
        (20, "SIGINT", 1),
        (15, "should_stop", 2),
        (30, "should_stop", 2),
    ],
)
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    step: int, by: str, every: int, run: Run, tmp_path: Path, stop_at: Callable[..., None]
) -> None:
    """Stopped within an epoch of ten steps, or at its end: order, noise, optimizer, schedule and curves go on as they
    were."""
    arguments = ("train", "--config", "vae_planar", "--num_samples", 0, "--trainer.max_epochs", 4,
                 "--trainer.check_val_every_n_epoch", every, "--trainer.log_every_n_steps", 5)  # fmt: skip
    assert run(*arguments, "--experiment", "whole")[0] == 0
    stop_at(step, by)
    code, output = run(*arguments, "--experiment", "cut")
    if by != "should_stop":
        assert code == {"SIGINT": 130, "SIGTERM": 143}[by]
        assert (
            f"stopped after step {step}; to go on, add --ckpt_path runs/cut/version_0/checkpoints/last.ckpt" in output
        )
    assert read(tmp_path / "runs/cut/version_0/checkpoints/last.ckpt")["global_step"] == step
    code, output = run(*arguments, "--experiment", "cut", "--ckpt_path", "last")
    assert code == 0, output
    assert [p.name for p in (tmp_path / "runs/cut").iterdir()] == ["version_0"]
    for name in ("last", "best"):
        whole, cut = (read(tmp_path / f"runs/{run}/version_0/checkpoints/{name}.ckpt") for run in ("whole", "cut"))
        assert whole["global_step"] == cut["global_step"]
        for key, value in whole["state_dict"].items():
            assert torch.equal(value, cut["state_dict"][key]), key
    curves = [events(tmp_path / f"runs/{run}/version_0").Scalars("train/objective") for run in ("whole", "cut")]
    assert {e.step for e in curves[0]} == {e.step for e in curves[1]}


def test_last_is_the_last_whatever_was_best(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation gets worse from the second epoch on; a resumed run that had finished trains no more."""
    losses = VAE.losses

    def worse(self: VAE, *arguments: Any) -> Any:
        loss, values = losses(self, *arguments)
        penalty = 0 if self.training else 1000 * abs(self.current_epoch - 1)
        return loss, {**values, "objective": values["objective"] + penalty}

    monkeypatch.setattr(VAE, "losses", worse)
    arguments = ("train", "--config", "vae", "--num_samples", 1, "--trainer.max_epochs", 5)
    assert run(*arguments)[0] == 0
    steps = {
        name: read(tmp_path / f"runs/vae/version_0/checkpoints/{name}.ckpt")["global_step"] for name in ("best", "last")
    }
    assert steps == {"best": 20, "last": 50}
    results = json.loads((tmp_path / "runs/vae/version_0/results.json").read_text())
    assert results["checkpoint"].endswith("best.ckpt")
    code, output = run(*arguments, "--ckpt_path", "last")
    assert code == 0, output
    assert "is at step 50, the end of this run: there was nothing left to train" in output
    again = json.loads((tmp_path / "runs/vae/version_0/results.json").read_text())
    assert (again["nll"], again["checkpoint"]) == (results["nll"], results["checkpoint"])


def test_a_run_that_is_stopped_within_an_epoch_keeps_all_of_it(run: Run, tmp_path: Path) -> None:
    code, output = run("train", "--config", "vae", "--num_samples", 0, "--trainer.max_steps", 17)
    assert code == 0, output
    assert read(tmp_path / "runs/vae/version_0/checkpoints/last.ckpt")["global_step"] == 17


def test_a_run_is_resumed_with_what_it_was_trained_with(
    run: Run, tmp_path: Path, stop_at: Callable[[int], None]
) -> None:
    stop_at(15)
    run("train", "--config", "vae", "--trainer.max_epochs", 4)
    last = tmp_path / "runs/vae/version_0/checkpoints/last.ckpt"
    config = tmp_path / "runs/vae/version_0/config.yaml"
    written = config.read_text()
    for change, message in {
        ("--model.optimizer.lr", "0.5"): "was trained with model.optimizer.lr = 0.003, now it is 0.5",
        ("--model.objective.free_bits", "3"): "was trained with model.objective.free_bits = 0.0, now it is 3.0",
        ("--data.split_seed", "5"): "was trained with data.split_seed = 0, now it is 5",
        ("--seed_everything", "7"): "was trained with data.seed = 0, now it is 7",
        ("--trainer.max_epochs", "8"): "schedule was made for 40 steps, but this run has 80",
    }.items():
        code, output = run("train", "--config", "vae", "--trainer.max_epochs", 4, "--ckpt_path", "last", *change)
        assert code == 1
        assert message in output
        assert config.read_text() == written
    # from another experiment's checkpoint a run of its own goes on, and nobody's files are touched
    before = last.read_bytes()
    code, output = run(
        "train", "--config", "vae", "--trainer.max_epochs", 4, "--ckpt_path", last, "--experiment", "new"
    )
    assert code == 0, output
    assert (tmp_path / "runs/new/version_0/results.json").is_file()
    assert last.read_bytes() == before


def test_ctrl_c_while_evaluating(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LogLikelihood, "update", interrupted)
    code, output = run("train", "--config", "vae", *SHORT)
    assert code == 130
    best = "runs/vae/version_0/checkpoints/best.ckpt"
    last = best.replace("best", "last")
    assert f"stopped while evaluating; to do it, add --ckpt_path {last} to the same command" in output
    assert vaeflow.load(tmp_path / best.replace("best", "last")).shape == (1, 8, 8)
    assert run("evaluate", "--ckpt", best)[0] == 130


def test_mixed_precision_is_for_training_alone(run: Run, tmp_path: Path) -> None:
    mixed = ("--trainer.precision", "bf16-mixed", "--trainer.gradient_clip_val", 1)
    code, output = run("train", "--config", "vae_iaf", *SHORT, "--num_samples", 5, *mixed)
    assert code == 0, output
    folder = tmp_path / "runs/vae_iaf/version_0"
    run("evaluate", "--ckpt", folder / "checkpoints/best.ckpt", "--num-samples", 5, "--json", "out.json")
    results, again = (json.loads(path.read_text()) for path in (folder / "results.json", tmp_path / "out.json"))
    assert again["nll"] == results["nll"]


@pytest.mark.parametrize(
    "options",
    [
        ["--config", "realnvp"],
        pytest.param(["--config", "vae", "--model.objective.free_bits", "0.1"], marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_and_evaluate_as_one(options: list[str], run: Run, tmp_path: Path) -> None:
    """Noise, order, averages and batch normalisation are those of the global batch, so the numbers agree up to
    rounding. Validation is one batch, so that the second process has none, and of test it has the second."""
    options = [*options, "--trainer.max_epochs", "1", "--num_samples", "8", "--data.batch_size", "200",
               "--trainer.accelerator", "cpu"]  # fmt: skip
    code, output = run("train", *options, "--trainer.devices", 1, "--experiment", 1)
    assert code == 0, output
    command = [sys.executable, str(ROOT / "scripts/train.py"), *options, "--trainer.devices", "2", "--experiment", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (json.loads((tmp_path / f"runs/{n}/version_0/results.json").read_text()) for n in ("1", "2"))
    assert (one["world_size"], two["world_size"]) == (1, 2)
    assert one["num_examples"] == two["num_examples"] == 300
    ours, theirs = (np.load(tmp_path / f"runs/{n}/version_0/results.npy") for n in ("1", "2"))
    np.testing.assert_allclose(theirs, ours, rtol=1e-3)
    for name in ("nll", "nll_stderr", "elbo", "kl", "reconstruction", "effective_sample_size", "nll_preprocessed"):
        assert (two[name] is None) == (one[name] is None)
        assert one[name] is None or two[name] == pytest.approx(one[name], rel=1e-4), name


def test_words_after_two_hyphens_are_no_options() -> None:
    parser = Parser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--memory-mb", type=int)
    assert parser.parse_args(["--memory_mb=4", "--", "--memory_mb=8"]).as_dict() == {
        "names": ["--memory_mb=8"],
        "memory_mb": 4,
    }


def test_last_begins_a_run_where_there_is_none(run: Run, tmp_path: Path) -> None:
    """And options may be typed with hyphens."""
    options = ("train", "--config", "vae", "--trainer.max-steps", 2, "--num-samples", 0, "--pictures.every", 0)
    code, output = run(*options, "--ckpt-path", "last")
    assert code == 0, output
    assert "there is no last.ckpt in runs/vae to go on from: the run begins anew." in output
    code, output = run(*options, "--ckpt-path", "last")
    assert "there was nothing left to train" in output
    assert [path.name for path in (tmp_path / "runs/vae").iterdir()] == ["version_0"]


def test_max_time_stops_the_run(run: Run, tmp_path: Path) -> None:
    code, output = run("train", "--config", "vae", "--trainer.max_time", "00:00:00:01", "--num_samples", 2)
    assert code == 0, output
    assert 0 < read(tmp_path / "runs/vae/version_0/checkpoints/last.ckpt")["global_step"] < 1550


def test_the_data_can_be_switched_with_no_other_change(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "faces.npy", np.random.default_rng(0).integers(0, 256, (40, 9, 7, 3)).astype(np.uint8))
    np.savetxt(tmp_path / "table.csv", np.random.default_rng(0).normal(size=(40, 3)) * [1, 10, 100], delimiter=",")
    switches = {
        "mnist": ["--data", "MNIST"],
        "grey": ["--data", "MNIST", "--data.binarise", "none"],
        "frey": ["--data", "FreyFaces"],
        "own": ["--data", "Arrays", "--data.path", "faces.npy"],
        "table": ["--data", "Arrays", "--data.path", "table.csv"],
    }
    for experiment, switch in switches.items():
        code, output = run(
            "train", "--config", "vae_iaf", *switch, *SHORT, "--num_samples", 1, "--experiment", experiment
        )
        assert code == 0, output
    results = json.loads((tmp_path / "runs/table/version_0/results.json").read_text())
    assert (results["measure"], results["bpd"]) == ("continuous", None)
    assert results["nll_preprocessed"] < results["nll"]


def test_class_conditional_models_and_trailing_options(run: Run) -> None:
    code, output = run("train", "--config", "vae_iaf", *SHORT, "--num_samples", 1, "--model.class_conditional", "true")
    assert code == 0, output
    assert "given the class" in output


def test_parts_can_be_switched_on_the_command_line(run: Run, tmp_path: Path) -> None:
    for flow in ("null", "Radial", "Sylvester"):
        code, output = run(
            "train",
            "--config",
            "vae_iaf",
            *SHORT,
            "--num_samples",
            0,
            "--model.flow",
            flow,
            "--experiment",
            f"with_{flow}",
        )
        assert code == 0, output
        posterior = vaeflow.load(tmp_path / f"runs/with_{flow}/version_0/checkpoints/best.ckpt").posterior
        assert type(getattr(posterior, "flow", posterior)).__name__ == ("DiagonalGaussian" if flow == "null" else flow)


ERRORS: dict[str, tuple[list[str], int, str]] = {
    "two configs": (["--config", "vae", "--config", "vae_iaf"], 2, "there are two configs, expected one"),
    "samples": (["--num_samples", "-1"], 2, "`num_samples` is -1, expected 0 or more."),
    "large seed": (["--seed_everything", str(2**32)], 2, "`seed_everything` is 4294967296, expected 0 to 4294967295."),
    "seed": (["--seed_everything", "-1"], 2, "`seed_everything` is -1, expected 0 to 4294967295."),
    "learning rate": (["--model.optimizer.lr", "-1"], 1, "model.optimizer cannot be made: Invalid learning rate: -1.0"),
    "no epochs": (["--trainer.max_epochs", "0"], 1, "trainer.max_epochs is 0, expected at least 1"),
    "nothing": ([], 2, "there is no model to train: give --config with one of deep_gmm"),
    "no config": (
        ["--config", "vae_iff"],
        2,
        "there is no config vae_iff: expected a path, or one of deep_gmm, ",
    ),
    "trainer's key": (
        ["--trainer.max_epoch", "3"],
        2,
        "there is no key `trainer.max_epoch`; did you mean `max_epochs`?",
    ),
    "model's key": (["--model.latent_feature", "3"], 2, "`model.latent_feature`; did you mean `latent_features`?"),
    "part's key": (["--model.flow.stepz", "3"], 2, "there is no key `model.flow.stepz`; did you mean `steps`?"),
    "own key": (["--experimnt", "a"], 2, "there is no key `experimnt`; did you mean `experiment`?"),
    "class": (["--data", "Digit"], 2, "`data` is Digit, which is no class known here; did you mean `Digits`?"),
    "callback": (["--trainer.callbacks", "EarlyStoping"], 2, "no callback of Lightning; did you mean `EarlyStopping`?"),
    "case": (["--data", "mnist"], 2, "`data` is mnist, which is no class known here; did you mean `MNIST`?"),
    "no class yet": (["--config", "vae", "--model.flow.steps", "4"], 2, "name its class first, --model.flow CLASS"),
    "no config yet": (["--model.latent_features", "3"], 2, "`model` has no key `latent_features`: name its class"),
    "module": (
        ["--model.flow", "my_flaws.Mine"],
        2,
        "`model.flow` names the module my_flaws, which",
    ),
    "attribute": (["--model.flow", "vaeflow.bijections.Planr"], 2, "has no Planr; did you mean `Planar`?"),
    "kind": (["--model.flow", "vaeflow.nets.MLP"], 2, "`model.flow` is vaeflow.nets.MLP, which is no Bijection."),
    "required": (["--data", "Arrays"], 2, "`data` needs `path`: add --data.path VALUE."),
    "prior": (["--model.prior", "FlowDensity"], 2, "`model.prior` needs `flow`: add --model.prior.flow VALUE."),
    "list": (["--model.encoder.hidden", "64"], 2, "`model.encoder.hidden` is 64, expected a list, such as [200, 200]."),
    "type": (["--model.latent_features", "a"], 2, "`model.latent_features` is a, expected int."),
    "float": (["--model.optimizer.lr", "a"], 2, "`model.optimizer.lr` is a, expected float."),
    "choice": (
        ["--data", "MNIST", "--data.binarise", "x"],
        2,
        "`data.binarise` is x, expected 'dynamic', 'threshold', 'none'.",
    ),
    "head": (
        ["--model.likelihood", "Bernoulli"],
        1,
        "Bernoulli is a likelihood of binary data, but the data are integers",
    ),
    "nets": (
        ["--data", "Arrays", "--data.path", "v.npy", "--model.encoder", "GatedConvEncoder"],
        1,
        "nets take images",
    ),
    "missing data": (["--data", "Arrays", "--data.path", "nowhere.npy"], 1, "there is no file"),
    "experiment": (["--experiment", "a/../../b"], 1, "expected a name, or a path below the runs' folder"),
    "pictures": (["--pictures.count", "0"], 1, "pictures.count is 0, expected at least 1"),
    "learnt preprocessing": (
        ["--model", "MAF", "--model.preprocess", "LULinear", "--data", "Digits"],
        1,
        "preprocess is LULinear, which learns: it belongs into the flow",
    ),
    "odd image": (
        ["--config", "realnvp_image", "--model.scales", "5"],
        1,
        "take fewer (--model.scales 3), or pictures of another --data.size",
    ),
    "empty folder": (["--data", "ImageFolder", "--data.root", "."], 1, "there are no pictures in"),
    "no checkpoint": (["--ckpt_path", "no.ckpt"], 1, "there is no checkpoint no.ckpt"),
    "precision": (["--trainer.precision", "bf16-true"], 1, "trainer.precision is bf16-true, too coarse for"),
    "batch": (["--data.batch_size", "0"], 1, "batch_size is 0, expected at least 1"),
    "steps": (["--model.flow.steps", "0"], 1, "steps is 0, expected at least 1"),
    "latents": (["--model.latent_features", "0"], 1, "latent_features is 0, expected at least 1"),
    "hidden": (["--model.flow.hidden", "[]"], 1, "len(hidden) is 0, expected at least 1"),
    "accelerator": (["--trainer.accelerator", "gpu"], 1, "No supported gpu backend found"),
    "no accelerator": (["--trainer.accelerator", "quantum"], 1, "the trainer cannot be made: You selected an invalid"),
    "endless": (["--trainer.max_epochs", "-1"], 1, "a schedule of the learning rate needs an end"),
    "validation": (
        ["--trainer.check_val_every_n_epoch", "7"],
        1,
        "a multiple of trainer.check_val_every",
    ),
    "schedule": (["--model.lr_scheduler", "StepLR"], 1, "the second argument of StepLR is `step_size`"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_sentence(case: str, run: Run, tmp_path: Path) -> None:
    arguments, wanted_code, message = ERRORS[case]
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(30, 4)))
    config = [] if not arguments or "--config" in arguments or case == "no config yet" else ["--config", "vae_iaf"]
    code, output = run("train", *arguments, *config)
    assert code == wanted_code, output
    lines = [line for line in output.splitlines() if "error" in line]
    assert len(lines) == 1, output
    assert message in lines[0]
    assert "Traceback" not in output


OWN = """
from vaeflow.bijections import Bijection

class Mine(Bijection):
    def __init__(self, features, context_features=0):
        super().__init__()

    def forward(self, z, context=None):
        {body}

    inverse = forward
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "return z",
            "error: Mine returned (Tensor) for vectors (1, 128, 16), expected (1, 128, 16) and log_det (1, 128).",
        ),
        ("return z, z", "error: Mine returned (1, 128, 16) and (1, 128, 16) for vectors (1, 128, 16), expected"),
        ("return z, 0", "error: Mine returned (Tensor, int) for vectors (1, 128, 16), expected"),
        ("return z / nothing, 0", "error in own.py, line 9: NameError: name 'nothing' is not defined (--debug"),
        ("return z.view(3, 5), 0", "error in own.py, line 9: RuntimeError: shape '[3, 5]' is invalid"),
    ],
)
def test_a_mistake_in_your_own_flow_is_named(
    body: str, message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "own", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own.py").write_text(OWN.format(body=body))
    code, output = run("train", "--config", "vae_iaf", *SHORT, "--model.flow", "own.Mine")
    assert code == 1, output
    assert message in output


def test_an_error_while_your_own_flow_is_made_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "own", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own.py").write_text(OWN.format(body="return z").replace("super().__init__()", "raise ValueError(3)"))
    code, output = run("train", "--config", "vae_iaf", *SHORT, "--model.flow", "own.Mine")
    assert (code, "error in own.py, line 6: ValueError: 3 (--debug" in output) == (1, True)


def test_misspelt_keys_in_a_file_are_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "model:\n  class_path: VAE\n  init_args:\n    latent_feature: 3\ndata: Digits\n"
    )
    code, output = run("train", "--config", "mine.yaml")
    assert code == 2
    assert "there is no key `model.latent_feature`; did you mean `latent_features`?" in output
    (tmp_path / "mine.yaml").write_text("model:\n  class_path: VAE\n init_args: {\n")
    code, output = run("train", "--config", "mine.yaml")
    assert code == 2
    assert re.search(r"mine\.yaml is no YAML: .* in line 3", output)
    (tmp_path / "mine.yaml").write_text(
        "model: {class_path: VAE, init_args: {flow: {class_path: IAF}}}\ndata: Digits\n"
    )
    code, output = run("train", "--config", "mine.yaml")
    assert code == 2
    assert "`model.flow` is IAF, which is no class known here" in output


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = VAE.losses

    def spoilt(self: VAE, *arguments: Any) -> Any:
        loss, values = losses(self, *arguments)
        return (
            (loss * math.nan, {**values, "kl": values["kl"] * math.nan}) if self.global_step == 25 else (loss, values)
        )

    monkeypatch.setattr(VAE, "losses", spoilt)
    code, output = run("train", "--config", "vae", "--trainer.max_epochs", 9, "--num_samples", 0)
    assert code == 1
    assert re.search(
        r"the loss became nan at step 25, epoch 3, of examples \d+, .* and 120 more \(.*kl nan, reconstruction \d.*\); "
        r"all modules' outputs are finite: lower the learning",
        output,
    )
    last = tmp_path / "runs/vae/version_0/checkpoints/last.ckpt"
    assert read(last)["global_step"] == 20
    assert all(torch.isfinite(p).all() for p in vaeflow.load(last).parameters())


def test_checkpoints_of_other_models_and_damaged_ones_are_refused(run: Run, tmp_path: Path) -> None:
    run("train", "--config", "vae", *SHORT, "--num_samples", 0)
    last = tmp_path / "runs/vae/version_0/checkpoints/last.ckpt"
    code, output = run("train", "--config", "vae_iaf", *SHORT, "--ckpt_path", last)
    assert code == 1
    assert "is a checkpoint of a VAE with other sizes or parts" in output
    last.write_bytes(last.read_bytes()[:5000])
    for script, flag in (("train", "--ckpt_path"), ("evaluate", "--ckpt")):
        code, output = run(script, *(["--config", "vae"] if script == "train" else []), flag, last)
        assert code == 1
        assert "is damaged" in output


def test_evaluation_refuses_what_it_cannot_do(run: Run, tmp_path: Path) -> None:
    run("train", "--config", "vae", *SHORT, "--num_samples", 0)
    best = tmp_path / "runs/vae/version_0/checkpoints/best.ckpt"
    code, output = run("evaluate", "--ckpt", best, "--num-samples", 0)
    assert (code, "`num-samples` is 0, expected more than 0." in output) == (2, True)
    code, output = run("evaluate", "--ckpt", best, "--split", "testing")
    assert (code, "expected train, val or test" in output) == (1, True)
    code, output = run("evaluate", "--ckpt", best.parent)
    assert (code, "checkpoints is a folder, expected a checkpoint, such as" in output) == (1, True)
    code, output = run("evaluate", "--ckpt", best, "--json", tmp_path)
    assert (code, "expected a file whose name ends in .json" in output) == (1, True)
    code, output = run("evaluate", "--ckpt", best, "--limit", 0)
    assert (code, "`limit` is 0, expected more than 0" in output) == (2, True)
    code, output = run("evaluate", "--ckpt", best, "--root", ".")
    assert (code, "Digits, which the model was trained on, has no `root`" in output) == (1, True)
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(30, 4)))
    run("train", "--config", "vae", *SHORT, "--num_samples", 0, "--data", "Arrays", "--data.path", "v.npy")
    (tmp_path / "v.npy").rename(tmp_path / "moved.npy")
    moved = ("evaluate", "--ckpt", tmp_path / "runs/vae/version_1/checkpoints/best.ckpt", "--num-samples", 2)
    code, output = run(*moved)
    assert (code, "there is no file" in output) == (1, True)
    assert run(*moved, "--path", "moved.npy")[0] == 0
    assert run("evaluate", "--ckpt", best, "--num_samples", 3)[0] == 0  # as with a hyphen
    code, output = run("evaluate", "--ckpt", best, "--num_sample", 3)
    assert (code, "there is no key `num_sample`; did you mean `num-samples`?" in output) == (2, True)


def test_help_is_short_and_speaks_of_configs(run: Run) -> None:
    code, output = run("train", "--help")
    assert code == 0
    assert len(output.splitlines()) < 155
    for word in ("vae_iaf", "--ckpt_path", "--trainer.max_epochs", "--experiment"):
        assert word in output


def test_ctrl_c_leaves_a_checkpoint_that_resumes(tmp_path: Path) -> None:
    """In a process of its own, at an arbitrary moment of training."""
    command = [sys.executable, str(ROOT / "scripts/train.py"), "--config", "vae", "--trainer.max_epochs", "5000"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    last = tmp_path / "runs/vae/version_0/checkpoints/last.ckpt"
    try:
        for _ in range(600):
            if last.is_file() or process.poll() is not None:
                break
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert f"--ckpt_path {last.relative_to(tmp_path)}" in error
    checkpoint = read(last)
    assert checkpoint["global_step"] > 0
    assert vaeflow.load(last).shape == (1, 8, 8)


def test_importing_vaeflow_is_cheap() -> None:
    code = "import sys, vaeflow; print('torch' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ}
    )
    assert out.stdout.strip() == "False"


def test_compare_ranks_runs_of_all_families(run: Run, tmp_path: Path) -> None:
    for name in ("vae", "nice", "gaussian"):
        assert run("train", "--config", name, *SHORT, "--num_samples", 2)[0] == 0
    energy = ("--data.num_train", 600, "--data.num_val", 100, "--data.num_test", 100)
    assert run("train", "--config", "energies/u1_planar", *SHORT, *energy)[0] == 0
    code, output = run("compare", "runs")
    assert code == 0, output
    assert "1. Digits, discrete-17, 300 test examples" in output
    assert "2. U1, energy, 100 test examples" in output
    assert (
        "Not ranked with table 1: a KL to an energy is no nll of data; the measure is energy, not discrete-17" in output
    )
    assert (tmp_path / "runs/compare.md").is_file()
    assert (tmp_path / "runs/compare.png").is_file()
    assert run("compare", "nowhere")[0] == 1
    assert run("compare", "runs")[0] == 0  # its own TensorBoard run is no result


def test_push_forward(run: Run, tmp_path: Path) -> None:
    code, output = run("push_forward", "--steps", "[1,3]", "--out", "new/a.png")
    assert (code, (tmp_path / "new/a.png").is_file()) == (0, True), output
    code, output = run("push_forward", "--steps", "[1]", "--out", "a.txt")
    assert (code, "--out is a.txt, expected a name that ends in one of ." in output) == (1, True), output


def test_a_list_of_bijections_is_made_on_the_command_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "model:\n  class_path: Flow\n  init_args:\n    flow:\n      class_path: Chain\n      init_args:\n"
        "        bijections:\n        - {class_path: Coupling, init_args: {hidden: [8]}}\n        - Reversal\n"
        "        - class_path: MaskedAutoregressive\n          init_args:\n            steps: 2\n"
        "            transformer: {class_path: RationalQuadraticSpline, init_args: {bins: 4}}\ndata: Digits\n"
    )
    code, output = run("train", "--config", "mine.yaml", *SHORT)
    assert code == 0, output
    flow = vaeflow.load(tmp_path / "runs/mine/version_0/checkpoints/best.ckpt").density.flow
    assert [type(part).__name__ for part in flow.bijections] == ["Coupling", "Reversal", "MaskedAutoregressive"]
    assert flow.bijections[2].bijections[0].transformer.bins == 4


def test_what_makes_a_number_doubtful_is_said(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "own", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own.py").write_text(OWN.format(body="return -z, z.new_ones(z.shape[:-1])"))
    code, output = run("train", "--model", "Flow", "--model.flow", "own.Mine", "--data", "Digits", *SHORT)
    doubt = "the log_dets of Mine disagree: inverse's is 1, but minus forward's is -1: no likelihood that rests on it"
    assert f"warning: {doubt}" in output
    assert code == 0, output
    assert output.count(f"{doubt} can be believed.") == 2  # and below the results
    assert "best.ckpt --num-samples 100 --trust own\n" in output
    code, output = run("compare", "runs")
    assert "dequantised, K = 1, doubtful" in output
    assert f"unnamed: {doubt}" in output
    code, output = run("evaluate", "--ckpt", "runs/unnamed/version_0/checkpoints/best.ckpt", "--trust", "own")
    assert doubt in output
    late = (
        "self.late = getattr(self, 'late', 0.0) or float(self.training); return -z, z.new_full(z.shape[:-1], self.late)"
    )
    (tmp_path / "own.py").write_text(OWN.format(body=late))
    monkeypatch.delitem(sys.modules, "own", raising=False)
    code, output = run("train", "--model", "Flow", "--model.flow", "own.Mine", "--data", "Digits", *SHORT)
    assert (code, output.count(doubt), "warning" in output) == (0, 1, False)
    (tmp_path / "own.py").write_text(OWN.format(body="return z.nothing"))
    monkeypatch.delitem(sys.modules, "own", raising=False)
    code, output = run("train", "--config", "vae", "--model.flow", "own.Mine", *SHORT)
    assert "warning: Mine could not be checked (AttributeError: 'Tensor' object has no attribute 'nothing')." in output
    assert (code, "error in own.py, line 9: AttributeError" in output) == (1, True)
    np.save(tmp_path / "few.npy", np.random.default_rng(0).integers(0, 4, (300, 3), np.uint8))
    few = ("--data", "Arrays", "--data.path", "few.npy", "--experiment", "few")
    code, output = run("train", "--model", "MAF", *few, *SHORT)
    assert "warning: the training data go up to 3, but count as integers of 256 levels" in output
    assert json.loads((tmp_path / "runs/few/version_0/results.json").read_text())["doubts"] == []  # it is what it says
    dependent = np.random.default_rng(0).normal(size=(300, 3))
    dependent[:, 2] = 1e3 * (dependent[:, 0] - dependent[:, 1])
    np.save(tmp_path / "dependent.npy", dependent)
    code, output = run("train", "--model", "MAF", "--data", "Arrays", "--data.path", "dependent.npy", *SHORT)
    assert "warning: some dimensions of dependent.npy are a linear function of the others" in output
    np.save(tmp_path / "grey.npy", np.random.default_rng(0).integers(0, 17, (600, 4)) / 16)
    arrays = ("--data", "Arrays", "--data.path", "grey.npy")
    code, output = run("train", "--model", "MAF", "--model.hidden", "[8]", *arrays, *SHORT)
    assert code == 0, output
    assert "column 0 of grey.npy goes in steps of 0.0625 (17 distinct values in 480 examples) (likewise col" in output
    assert "give integers as integers, with --data.levels" in output
    assert "MAF on grey.npy, test split" in output
    code, output = run("train", "--config", "nice", "--data", "MNIST", *SHORT, "--num_samples", 0)
    assert "warning: the data are binary" in output
    code, output = run("train", "--config", "nice", *SHORT, "--num_samples", 0)
    assert "warning" not in output


def test_points_of_the_plane_have_pictures_where_they_can(run: Run, tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(60, 2))
    np.savez(tmp_path / "labelled.npz", x=points, y=np.arange(60) % 3)
    np.save(tmp_path / "counts.npy", np.random.default_rng(0).integers(0, 10, (60, 2)))
    for i, options in enumerate(
        (
            ["--data.path", "labelled.npz", "--model.class_conditional", "true"],
            ["--data.path", "labelled.npz"],
            ["--data.path", "counts.npy", "--data.levels", 10],
        )
    ):
        name = f"run{i}"
        code, output = run("train", "--model", "MAF", "--data", "Arrays", *options, *SHORT, "--experiment", name)
        assert code == 0, output
        images = events(tmp_path / f"runs/{name}/version_0").Tags()["images"]
        assert images == (["density"] if i == 1 else [])


def test_names_of_folders_are_drawn_as_they_stand(run: Run, tmp_path: Path) -> None:
    """While training and afterwards, whatever TeX or a legend would make of them."""
    generator = np.random.default_rng(0)
    for name in ("Ba$$in", "_$\\frac$", "a_b^{c} %"):
        folder = tmp_path / "$do_llars^{$" / name
        folder.mkdir(parents=True)
        for k in range(20):
            Image.fromarray(generator.integers(0, 256, (8, 8), np.uint8)).save(folder / f"{k}.png")
    options = ("--data", "ImageFolder", "--data.root", "$do_llars^{$", "--data.size", 8, "--pictures.every", 1)
    code, output = run("train", "--config", "vae_2d", *options, *SHORT, "--experiment", "_x^{y} %", "--num_samples", 2)
    assert code == 0, output
    assert "warning" not in output
    folder = tmp_path / "runs/_x^{y} %/version_0"
    assert set(events(folder).Tags()["images"]) == {"samples", "reconstructions", "interpolation", "latents"}
    chosen = ("--experiment", "_x^{y} %")
    for command in (
        ("manifold", *chosen),
        ("sample", *chosen),
        ("reconstruct", *chosen),
        ("attribute", *chosen, "--attribute", "Ba$$in"),
        ("compare", "runs"),
    ):
        code, output = run(*command)
        assert code == 0, output


def test_a_picture_never_ends_a_training(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise ValueError("this picture cannot be")

    monkeypatch.setattr("vaeflow.callbacks.pictures.manifold.scatter", fail)
    short = ("--trainer.max_epochs", 3, "--trainer.limit_train_batches", 1, "--num_samples", 2)
    validated = ("--trainer.check_val_every_n_epoch", 1, "--pictures.every", 1)
    code, output = run("train", "--config", "vae_2d", *short, *validated)
    assert code == 0, output
    assert output.count("cannot draw the picture latents (ValueError: this picture cannot be)") == 1
    folder = tmp_path / "runs/vae_2d/version_0"
    assert set(events(folder).Tags()["images"]) == {"samples", "reconstructions", "interpolation"}
    assert (folder / "checkpoints/best.ckpt").is_file()


def test_an_own_package_of_two_modules_loads(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_models").mkdir()
    (tmp_path / "my_models" / "__init__.py").write_text("")
    (tmp_path / "my_models" / "base.py").write_text("from vaeflow.models import Flow\nclass Base(Flow):\n    pass\n")
    (tmp_path / "my_models" / "mine.py").write_text(
        "from my_models.base import Base\n\n\nclass Mine(Base):\n    pass\n"
    )
    code, output = run(
        "train", "--model", "my_models.mine.Mine", "--model.flow", "Coupling", "--data", "Digits", *SHORT
    )
    assert code == 0, output
    best = tmp_path / "runs/unnamed/version_0/checkpoints/best.ckpt"
    assert type(vaeflow.load(best, trust=["my_models"])).__name__ == "Mine"


def test_what_is_fitted_in_closed_form_takes_one_process(run: Run) -> None:
    code, output = run("train", "--config", "gaussian", "--trainer.devices", 2, "--trainer.accelerator", "cpu")
    assert (code, "fitted in closed form, by one process" in output) == (1, True), output


@pytest.mark.parametrize(
    ("arguments", "mended"),
    [
        (("--config", "nice"), "--model.preprocess null"),
        (("--config", "vae", "--model.likelihood", "Bernoulli"), "--model.likelihood null"),
        (("--config", "vae", "--model.likelihood", "DiscretisedLogistic"), "--model.likelihood null"),
        (("--model", "RealNVP", "--model.preprocess", "UnitInterval"), "--model.preprocess null"),
    ],
)
def test_what_does_not_fit_real_numbers_is_told_with_the_option_that_mends_it(
    arguments: tuple[str, ...], mended: str, run: Run, tmp_path: Path
) -> None:
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(60, 4)))
    data = ("--data", "Arrays", "--data.path", "mine.npy", *SHORT)
    code, output = run("train", *arguments, *data)
    assert (code, output.count("error: ")) == (1, 1), output
    assert mended in output
    code, output = run("train", *arguments, *data, *mended.split())
    assert code == 0, output


def test_own_tables_and_labels_from_end_to_end(run: Run, tmp_path: Path) -> None:
    """A table with pandas' index, and labels with gaps, trained, evaluated and sampled."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(60, 2)).tolist()
    (tmp_path / "t.csv").write_text(";u;v\r\n" + "".join(f"{i};{u};{v}\r\n" for i, (u, v) in enumerate(rows)))
    code, output = run("train", "--model", "MAF", "--data", "Arrays", "--data.path", "t.csv", *SHORT)
    assert code == 0, output
    assert output.count("column 1 of 3 in t.csv has no name and numbers the rows: it was left out") == 1
    assert vaeflow.load(tmp_path / "runs/unnamed/version_0/checkpoints/best.ckpt").shape == (2,)
    images = generator.integers(0, 256, (60, 4, 4)).astype(np.uint8)
    np.savez(tmp_path / "few.npz", x=images, y=np.where(np.arange(60) % 2, 3, 8))
    few = ("--data", "Arrays", "--data.path", "few.npz", "--model.class_conditional", "true", "--experiment", "few")
    code, output = run("train", "--config", "vae", *few, *SHORT, "--num_samples", 2)
    assert code == 0, output
    for label, classes in (([], {3, 8}), (["--label", "3"], {3})):
        code, output = run("sample", "--experiment", "few", "--num", 6, "--npz", "--force", "--out", "s.png", *label)
        assert code == 0, output
        with np.load("s.npz") as arrays:
            assert set(arrays["y"].tolist()) == classes
    code, output = run("sample", "--experiment", "few", "--out", "t.png", "--label", "0")
    assert (code, "few.npz has labels 3, 8, and none called 0" in output) == (1, True)
    picture = events(tmp_path / "runs/few/version_0").Images("samples")[0]
    assert picture.width < picture.height / 10  # a column for each of two classes
    data = vaeflow.load_data(tmp_path / "runs/few/version_0/checkpoints/best.ckpt")
    rare = data.examples("test", torch.tensor([0]))[0].numpy()[0, 0]
    labels = np.where((images == rare).all((1, 2)), 9, 3)
    np.savez(tmp_path / "few.npz", x=images, y=labels)
    code, output = run("train", "--config", "vae", *few, *SHORT)
    assert (code, "test split of few.npz has examples with the label 9, but the training split has none" in output) == (
        1,
        True,
    )


def test_too_little_memory_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        torch.empty(2**55)

    monkeypatch.setattr("vaeflow.commands.training.check_fits", refuse)
    code, output = run("train", "--config", "vae")
    assert code == 1, output
    assert "error: there is not enough memory for another 144115188075855872 bytes: take smaller batches" in output


def test_why_a_training_has_ended_is_said(run: Run) -> None:
    short = ("train", "--config", "vae", "--pictures.every", 0, "--num_samples", 0, "--trainer.max_epochs", 60,
             "--trainer.check_val_every_n_epoch", 1)  # fmt: skip
    code, output = run(*short, "--trainer.max_time", "00:00:00:02")
    assert code == 0, output
    assert re.search(r"^training ended after epoch \d+, step \d+: the time limit was reached\.$", output, re.MULTILINE)
    assert re.search(r"^checkpoint  runs/vae/version_0/checkpoints/(best|last)\.ckpt$", output, re.MULTILINE)
    stopping = {"monitor": "val/nll", "stopping_threshold": 1e9, "check_on_train_epoch_end": "false"}
    options = [word for name, value in stopping.items() for word in (f"--trainer.callbacks.{name}", value)]
    code, output = run(*short, "--trainer.callbacks", "EarlyStopping", *options, "--trainer.min_epochs", 2)
    assert code == 0, output
    assert "training ended after epoch 2, step 20: EarlyStopping: Stopping threshold reached: val/nll = " in output
    code, output = run(*short, "--trainer.max_epochs", 2, "--trainer.callbacks", "EarlyStopping", *options,
                       "--trainer.min_epochs", 2)  # fmt: skip
    assert (code, "training ended" in output) == (0, False), output
    code, output = run(*short, "--trainer.callbacks", "EarlyStopping", *options)
    assert (code, "training ended after epoch 1, step 10: EarlyStopping: Stopping" in output) == (0, True), output
