"""The examples of docs/: whole models of a user's own, from training to pictures."""

from __future__ import annotations

import importlib
import itertools
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from tests.test_cli import Run
from vaeflow.errors import VaeflowError
from vaeflow.noise import Noise

EXAMPLES = Path(__file__).parent.parent / "docs/examples"
NAMES = {"two_level_vae": "importance-sampled", "causal_conv": "exact"}


@pytest.fixture(autouse=True)
def _in_a_folder_of_ones_own(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEFLOW_DATA", str(data_root))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in NAMES:
        for suffix in (".py", ".yaml"):
            shutil.copy(EXAMPLES / f"{name}{suffix}", tmp_path)
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("name", "kind"), NAMES.items())
def test_a_model_of_ones_own_is_trained_evaluated_compared_and_sampled(
    name: str, kind: str, run: Run, tmp_path: Path
) -> None:
    short = ("--trainer.max_steps", 2, "--num_samples", 3, "--trainer.accelerator", "cpu", "--data.batch_size", 20)
    code, output = run("train", "--config", f"{name}.yaml", *short)
    assert code == 0, output
    results = json.loads((tmp_path / f"runs/{name}/version_0/results.json").read_text())
    assert results["kind"] == kind
    code, output = run("evaluate", "--ckpt", results["checkpoint"], "--num-samples", 3)
    assert code == 1
    assert f"--trust {name}" in output
    for command in ("evaluate", "--num-samples", 3), ("sample", "--num", 4, "--out", "samples.png"):
        code, output = run(command[0], "--ckpt", results["checkpoint"], "--trust", name, *command[1:])
        assert code == 0, output
    assert (tmp_path / "samples.png").is_file()
    code, output = run("compare", "runs")
    assert code == 0, output
    assert name in output


def test_the_probabilities_of_the_convolution_sum_to_one() -> None:
    model = importlib.import_module("causal_conv").CausalConv(shape=(1, 3, 3), levels=2, reach=1)
    torch.nn.init.normal_(model.conv.weight)
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9))).view(-1, 1, 3, 3)
    p = model.log_prob(x).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    drawn = model.sample(4000, Noise())
    assert (drawn.mean(0) - (p[:, None, None, None] * x).sum(0)).abs().max() < 0.04


def test_the_levels_of_the_vae() -> None:
    """What it draws from is p(x): weights of all images sum to one; and each level may be given."""
    torch.manual_seed(0)
    model = importlib.import_module("two_level_vae").TwoLevelVAE(2, 2, 8, shape=(3,), levels=2).double().eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.7 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.3)
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)
    with torch.no_grad():
        weights = model.log_weights(x, Noise(seed=1, index=torch.arange(8)), 20_000).exp().sum(1)
    assert (weights.mean() - 1).abs() < 4 * weights.std() / len(weights) ** 0.5 < 0.1
    assert model.latent_slices == {"upper": slice(0, 2), "lower": slice(2, 4)}
    z = model.encode(x)
    torch.testing.assert_close(model.decode(z), model.decode(z + torch.tensor([1.0, -1.0, 0.0, 0.0])))  # p(x|z₁)
    assert not torch.allclose(model.decode(z), model.decode(z + torch.tensor([0.0, 0.0, 1.0, 1.0])))
    _, values = model.losses(x, Noise(index=torch.arange(8)), None)
    torch.testing.assert_close(values["kl"], values["kl/upper"] + values["kl/lower"])
    with pytest.raises(VaeflowError, match="has no latent space with a cumulative distribution"):
        model.icdf(torch.full((1, 4), 0.5))
