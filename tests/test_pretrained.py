"""The checkpoints that come with the code: loaded by name, and of the numbers that RESULTS.md says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vaeflow
from results.tables import TABLES
from tests.test_cli import Run
from tests.test_reproduce import cells
from vaeflow.records.checkpoint import PRETRAINED, keep_weights, named

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", TABLES["digits"].rows)
def test_they_load_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named(f"pretrained/{name}").stat().st_size < 2**20
    model = vaeflow.load(f"pretrained/{name}")
    data = vaeflow.load_data(f"pretrained/{name}")
    data.setup("test")
    x, _ = data.examples("test", torch.arange(3))
    assert torch.isfinite(model.log_prob(x, num_samples=2)).all()


@pytest.mark.parametrize("name", ["vae_iaf", "nice"])
def test_their_numbers_are_those_of_the_results(name: str) -> None:
    model, data = vaeflow.load(f"pretrained/{name}"), vaeflow.load_data(f"pretrained/{name}")
    results = vaeflow.evaluate(model, data, TABLES["digits"].num_samples)
    table = (ROOT / "RESULTS.md").read_text().partition("<!-- end of digits -->")[0]
    bpd, nll = cells(table, name)[1:3]
    assert bpd == f"{results['bpd']:.3f} ± {results['nll_stderr'] * results['bpd'] / results['nll']:.3f}"
    assert nll == f"{results['nll']:.2f} ± {results['nll_stderr']:.2f}"


def test_there_are_those_of_the_table_alone() -> None:
    assert {path.stem for path in PRETRAINED.glob("*.ckpt")} == set(TABLES["digits"].rows)


def test_pictures_come_without_training(run: Run, tmp_path: Path) -> None:
    code, output = run("sample", "--ckpt", "pretrained/vae", "--num", 4, "--out", "samples.png")
    assert code == 0, output
    assert (tmp_path / "samples.png").is_file()


def test_nothing_is_resumed_from_weights_alone(run: Run, tmp_path: Path) -> None:
    short = ("--config", "vae", "--trainer.max_steps", 1, "--trainer.accelerator", "cpu", "--pictures.every", 0)
    assert run("train", *short, "--num_samples", 2)[0] == 0
    last = tmp_path / "runs/vae/version_0/checkpoints/last.ckpt"
    keep_weights(last, tmp_path / "alone.ckpt")
    assert (tmp_path / "alone.ckpt").stat().st_size < 0.4 * last.stat().st_size
    code, output = run("train", *short, "--ckpt_path", "alone.ckpt")
    assert code == 1
    assert "alone.ckpt holds the weights alone, without the state of a training: nothing can be resumed." in output
