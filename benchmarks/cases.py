"""All cases of the benchmark by name; the data and the start-up are here, the models in files of their own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.autoencoders import vae
from benchmarks.flows import couplings, maf, planar
from benchmarks.work import OURS, Goal, Work
from vaeflow.data import MNIST
from vaeflow.errors import VaeflowError
from vaeflow.models import VAE
from vaeflow.noise import Noise

IMPORT = "import pytorch_lightning.cli"


def data(device: torch.device, batch: int = 128) -> Iterator[Work]:
    """An epoch of MNIST through the data module, beside one of the smallest of the models that are trained on it."""
    mnist = MNIST(batch_size=batch)
    try:
        mnist.setup("fit")
    except VaeflowError as error:
        yield Work("MNIST", "an epoch", {}, failed={OURS: str(error)})
        return
    torch.manual_seed(0)
    shape = mnist.shape
    model = VAE(shape=shape, levels=2, latent_features=2).to(device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    x, _ = mnist.splits["train"]
    order = torch.randperm(len(x)).split(batch)

    def epoch() -> Iterator[tuple[Tensor, Noise]]:
        for part in mnist.train_dataloader():
            x, y, index = (value.to(device) for value in part)
            x, y, index = mnist.on_after_batch_transfer((x, y, index), 0)
            yield x, Noise(0, "train", 0, index)

    def through_module() -> None:
        for _ in epoch():
            pass

    def copy() -> None:
        for index in order:
            x[index].to(device).float()

    def with_model() -> None:
        for x, noise in epoch():
            optimizer.zero_grad()
            model.losses(x, noise, None)[0].backward()
            optimizer.step()

    contenders: dict[str, Callable[[], object]]
    contenders = {OURS: through_module, "memory copy": copy, "VAE with 2 latents, trained": with_model}
    goals = [Goal(OURS, "VAE with 2 latents, trained", 0.05)]
    yield Work(f"MNIST, binarised anew, batch {batch}", "an epoch of data", contenders, goals, items=len(x))


def start_up(device: torch.device) -> Iterator[Work]:
    """From the command line to the help text, and to the end of the first training step."""
    script = Path(__file__).parents[1] / "scripts" / "train.py"

    def run(*arguments: str) -> Callable[[], object]:
        command = [sys.executable, *arguments]

        def start() -> None:
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run(command, check=True, capture_output=True, cwd=folder)

        return start

    step = ["--config", "vae", "--trainer.max_steps", "1", "--num_samples", "0", "--trainer.accelerator", device.type]
    contenders = {
        "train.py --help": run(str(script), "--help"),
        "train.py, first step": run(str(script), *step),
        IMPORT: run("-c", "import pytorch_lightning.cli"),
    }
    goals = [Goal("train.py --help", IMPORT, 0.7, True), Goal("train.py, first step", IMPORT, 3.0, True)]
    yield Work("start-up", "a process", contenders, goals)


CASES: dict[str, Callable[[torch.device], Iterator[Work]]] = {
    "maf64": lambda device: maf(64, [512, 512], device),
    "maf784": lambda device: maf(784, [1024], device),
    "realnvp": lambda device: couplings("RealNVP", 64, 8, [256, 256], 256, True, device),
    "nice": lambda device: couplings("NICE", 784, 4, [1000] * 5, 128, False, device),
    "planar": planar,
    "vae": vae,
    "data": data,
    "startup": start_up,
}
