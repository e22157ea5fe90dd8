"""What tests share: parameters far from their start, and small files in the real data sets' formats."""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # tests of GPUs are asked for by naming one
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of each of the processes that share the tests
if not os.environ["CUDA_VISIBLE_DEVICES"]:
    os.environ["TRITON_INTERPRET"] = "1"  # its kernels run in Python, on the CPU

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from scipy.io import savemat
from torch import Tensor, nn


def redraw(module: nn.Module, gain: float, seed: int = 0) -> nn.Module:
    """Every parameter from N(0, 1/fan_in), times ``gain``: near the identity of their start maps hide their errors.
    Statistics of training data that were not set become those of N(0, I), and nothing will start from data."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, statistic in module.named_buffers():
            if statistic.is_floating_point() and bool(statistic.isnan().any()):
                statistic.fill_(0.0 if name.endswith("mean") else 1.0)
            if name.rpartition(".")[2] == "started":
                statistic.fill_(True)
        for parameter in module.parameters():
            fan_in = parameter.shape[-1] if parameter.dim() > 1 else 1
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(gain * draw / fan_in**0.5)
    return module


def differences(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The Jacobian ``(outputs, inputs)`` of f at x by central differences."""
    steps = 1e-5 * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
    with torch.no_grad():
        return torch.stack([(f(x + step) - f(x - step)).flatten() / 2e-5 for step in steps], dim=1)


def quiet_trainer(epochs: int, **arguments: Any) -> Trainer:
    """A trainer on the CPU that writes nothing."""
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **arguments,
    )


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MNIST, the Frey Faces and CIFAR-10 in their own formats, the pixels invented."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 60_000), ("t10k", 10_000)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 6:22, 6:22] = generator.integers(0, 256, (count, 16, 16), np.uint8)
        header = np.array([0x803, count, 28, 28], ">i4").tobytes()
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = generator.integers(0, 10, count).astype(np.uint8)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(np.array([0x801, count], ">i4").tobytes() + labels.tobytes())
    (root / "freyfaces").mkdir()
    savemat(root / "freyfaces" / "frey_rawface.mat", {"ff": generator.integers(0, 256, (560, 500)).astype(np.uint8)})
    return root


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Serves a folder to this machine alone, and says under which address."""
    servers = []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

    def serve(folder: Path) -> str:
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def cifar_download(tmp_path: Path, serve: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a CIFAR-10 archive with ten images in each part what torchvision downloads."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "served" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    train = [f"data_batch_{i}" for i in range(1, 6)]
    for name in (*train, "test_batch"):
        images = generator.integers(0, 256, (10, 3072)).astype(np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": images, "labels": list(range(10))}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    archive = folder.with_name("cifar-10-python.tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    monkeypatch.setattr(CIFAR10, "url", f"{serve(archive.parent)}/{archive.name}")
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5(folder / name)] for name in train])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(folder / "test_batch")]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(folder / "batches.meta")})


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture
) -> Callable[..., tuple[int, str]]:
    """Runs a script of the command line in this process, in an empty folder: its exit code, and what it printed."""
    from benchmarks.scaling_command import scaling
    from results.command import reproduce
    from tests.fuzz.command import fuzz
    from vaeflow.commands import compare_runs, evaluate_checkpoint, figures
    from vaeflow.commands.gallery import COMMANDS
    from vaeflow.commands.messages import main

    scripts = {
        **COMMANDS,
        "evaluate": evaluate_checkpoint,
        "compare": compare_runs,
        "figures": figures,
        "fuzz": fuzz,
        "reproduce": reproduce,
        "scaling": scaling,
    }

    monkeypatch.chdir(tmp_path)

    def run(script: str, *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", [f"{script}.py", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            main(scripts[script])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return code, out + err

    return run
