"""A GPU gives what the CPU gives, within rounding: run with CUDA_VISIBLE_DEVICES=0, left out without one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer

import vaeflow
import vaeflow.bijections as B
from vaeflow.commands.configs import config_names
from vaeflow.evaluation.evaluate import evaluate
from vaeflow.evaluation.results import score_of
from vaeflow.noise import Noise

Run = Callable[..., tuple[int, str]]
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU, or none was named")
NAMES = [name for name in config_names() if not name.startswith(("mnist", "freyfaces"))]  # of data that come with it
STEPS = ("--trainer.max_steps", 10, "--num_samples", 8, "--pictures.every", 0)


def trainer(accelerator: str) -> Trainer:
    return Trainer(
        accelerator=accelerator, devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip


def train(run: Run, folder: Path, name: str, *arguments: object) -> tuple[dict, Path]:
    """Results and checkpoint of the next run."""
    version = len(list((folder / "runs" / name).glob("version_*"))) if (folder / "runs" / name).is_dir() else 0
    small = ["--data.num_train", 2000, "--data.num_val", 500, "--data.num_test", 500] if "toys" in name else []
    code, output = run("train", "--config", name, *STEPS, *small, *arguments)
    assert code == 0, output
    results = json.loads((folder / "runs" / name / f"version_{version}" / "results.json").read_text())
    return results, Path(results["checkpoint"])


@pytest.mark.parametrize("name", NAMES)
def test_a_config_trains_and_evaluates_alike(
    name: str, run: Run, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Ten steps of training, and the evaluation of one checkpoint, example by example."""
    trained = {device: train(run, tmp_path, name, "--trainer.accelerator", device)[0] for device in ("cpu", "gpu")}
    score = score_of(trained["cpu"])
    model, data = (f(trained["gpu"]["checkpoint"]) for f in (vaeflow.load, vaeflow.load_data))
    found = {device: evaluate(model, data, 8, limit=100, trainer=trainer(device)) for device in ("cpu", "gpu")}
    scale = 1 + abs(found["cpu"][score])
    of_training = abs(trained["gpu"][score] - trained["cpu"][score]) / (1 + abs(trained["cpu"][score]))
    of_evaluation = abs(found["gpu"][score] - found["cpu"][score]) / scale
    record_property("of training", of_training)
    record_property("of evaluation", of_evaluation)
    print(f"\nGPU {name}: training {of_training:.1e}, evaluation {of_evaluation:.1e}")
    assert math.isfinite(trained["gpu"][score])
    assert of_training < 1e-3
    assert of_evaluation < 1e-5
    if score == "nll":
        by_example = [found[device]["nll_by_example"] for device in ("cpu", "gpu")]
        assert np.abs(by_example[0] - by_example[1]).max() < 1e-4 * scale


@pytest.mark.parametrize("name", ["vae_iaf", "maf", "realnvp_image"])
@pytest.mark.parametrize("extra", [("--trainer.precision", "bf16-mixed"), ("--compile",)])
def test_fast_training_stays_near(name: str, extra: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    """bfloat16 and compiled losses, against plain training on the same GPU."""
    plain, _ = train(run, tmp_path, name, "--trainer.accelerator", "gpu")
    fast, _ = train(run, tmp_path, name, "--trainer.accelerator", "gpu", *extra)
    difference = abs(fast["nll"] - plain["nll"]) / (1 + abs(plain["nll"]))
    print(f"\nGPU {name} {extra}: {difference:.1e}")
    assert difference < (0.02 if "precision" in extra[0] else 1e-3)


def test_noise_is_that_of_the_cpu() -> None:
    index = torch.tensor([5, 0, 2**40])
    here, there = Noise(3, "train", 2, index), Noise(3, "train", 2, index.cuda())
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(here.uniform("u", 4, (7,), dtype), there.uniform("u", 4, (7,), dtype).cpu())
        torch.testing.assert_close(here.normal("z", 4, (7,), dtype), there.normal("z", 4, (7,), dtype).cpu())


def test_a_sample_of_a_maf_in_single_precision_comes_back() -> None:
    """At a size of use: 784 features, a net of 1024."""
    torch.manual_seed(0)
    flow = B.MaskedAutoregressive(784, steps=5, hidden=[1024]).cuda()
    z = torch.randn(130, 784, device="cuda")
    with torch.no_grad():
        x, log_det = flow(z)
        back, log_det_back = flow.inverse(x)
        of_cpu, log_det_of_cpu = flow.cpu()(z.cpu())
    torch.testing.assert_close(back, z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(x.cpu(), of_cpu, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_det.cpu(), log_det_of_cpu, rtol=1e-4, atol=1e-2)
