"""Several processes give the numbers of one, however they share the work, and an evaluation that is stopped goes on."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vaeflow.errors import VaeflowError
from vaeflow.machine.launch import as_launched
from vaeflow.records.checkpoint import read

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.xdist_group("processes")  # they share a run
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.preloaded"])


def _process(
    folder: str, script: str, arguments: Sequence[object], environment: dict[str, str], slow: float, room: int
) -> None:
    """One process of a command, as torchrun would start it; ``slow`` seconds for each batch that is evaluated, and
    ``room`` bytes for a file of the first one."""
    from lightning_fabric.utilities import rank_zero
    from pytorch_lightning.utilities import rank_zero_only

    from vaeflow.commands.evaluation import evaluate_checkpoint
    from vaeflow.commands.messages import main
    from vaeflow.commands.training import train
    from vaeflow.evaluation import partial
    from vaeflow.evaluation.metrics import LogLikelihood

    os.environ.update(environment, XDG_CACHE_HOME=f"{folder}/cache")
    rank = int(environment.get("RANK", environment.get("SLURM_PROCID", 0)))
    rank_zero.rank_zero_only.rank = rank_zero_only.rank = rank
    torch.set_num_threads(1)
    os.chdir(folder)
    descriptor = os.open(f"{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if room and rank == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    if slow:
        partial.SECONDS = 0.0
        update = LogLikelihood.update

        def slowly(self: LogLikelihood, *batch: Any) -> None:
            update(self, *batch)
            print("batch", flush=True)
            time.sleep(slow)

        LogLikelihood.update = slowly  # type: ignore[method-assign]
    sys.argv = [f"{script}.py", *map(str, arguments)]
    main({"train": train, "evaluate": evaluate_checkpoint}[script])


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _environments(world_size: int, launcher: str = "torchrun") -> list[dict[str, str]]:
    """What torchrun, or SLURM, tells its processes."""
    if world_size == 1:
        return [{}]
    port = _free_port()
    if launcher == "SLURM":
        return [
            {"SLURM_NTASKS": f"{world_size}", "SLURM_NTASKS_PER_NODE": f"{world_size}", "SLURM_PROCID": f"{rank}",
             "SLURM_LOCALID": f"{rank}", "SLURM_NODEID": "0", "SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "train",
             "SLURM_NODELIST": "localhost", "SLURM_NNODES": "1", "MASTER_PORT": f"{port}"}
            for rank in range(world_size)
        ]  # fmt: skip
    shared = {
        "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    return [
        {name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
        for rank in range(world_size)
    ]


def start(
    folder: Path,
    script: str,
    *arguments: object,
    world_size: int = 1,
    launcher: str = "torchrun",
    slow: float = 0.0,
    room: int = 0,
) -> list[Any]:
    processes = [
        context.Process(target=_process, args=(str(folder), script, arguments, environment, slow, room))
        for environment in _environments(world_size, launcher)
    ]
    for process in processes:
        process.start()
    return processes


def finish(folder: Path, processes: list[Any]) -> str:
    """Wait for all; what the first one printed."""
    try:
        for process in processes:
            process.join(120)
    finally:
        for process in processes:
            process.kill()
    for rank, process in enumerate(processes):
        assert process.exitcode == 0, (folder / f"{rank}.txt").read_text()
    return (folder / "0.txt").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a run whose model is trained a little."""
    folder = tmp_path_factory.mktemp("processes")
    arguments = ("--config", "vae_iaf", "--trainer.max_epochs", 2, "--num_samples", 0, "--pictures.every", 0)
    finish(folder, start(folder, "train", *arguments, "--trainer.accelerator", "cpu"))
    return folder


CKPT = ("--ckpt", "runs/vae_iaf/version_0/checkpoints/last.ckpt", "--accelerator", "cpu")
SMALL = (*CKPT, "--num-samples", 60, "--limit", 101, "--batch-size", 10, "--memory-mb", 0.5, "--json", "out.json")


@pytest.fixture(scope="module")
def evaluated(folder: Path) -> Callable[..., dict[str, Any]]:
    def evaluated(*arguments: object, world_size: int = 1) -> dict[str, Any]:
        finish(folder, start(folder, "evaluate", *SMALL, *arguments, world_size=world_size))
        results = json.loads((folder / "out.json").read_text())
        assert results["world_size"] == world_size
        assert not list(folder.rglob("*.part"))
        return results

    return evaluated


NUMBERS = ("nll", "nll_stderr", "elbo", "kl", "reconstruction", "effective_sample_size", "bpd")


@pytest.fixture(scope="module")
def of_one(evaluated: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return evaluated()


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("shard", ["examples", "samples"])
def test_any_number_of_processes_gives_the_same_ten_digits(
    world_size: int, shard: str, evaluated: Callable[..., dict[str, Any]], of_one: dict[str, Any]
) -> None:
    results = evaluated("--shard", shard, world_size=world_size)
    assert results["num_examples"] == 101
    assert results["active_units"] == of_one["active_units"]
    for name in NUMBERS:
        assert f"{results[name]:.10g}" == f"{of_one[name]:.10g}", name


def test_more_processes_than_batches(evaluated: Callable[..., dict[str, Any]]) -> None:
    few = ("--limit", 15, "--batch-size", 10)
    one = evaluated(*few)
    for shard in ("examples", "samples"):
        three = evaluated(*few, "--shard", shard, "--num-samples", 60, world_size=3)
        assert three["num_examples"] == 15
        for name in NUMBERS:
            assert f"{three[name]:.10g}" == f"{one[name]:.10g}", name


@pytest.mark.parametrize(("precision", "tolerance"), [(32, 1e-6), (64, 1e-12)])
def test_other_batches_and_chunks_differ_by_rounding(
    precision: int, tolerance: float, evaluated: Callable[..., dict[str, Any]]
) -> None:
    one = evaluated("--precision", precision)
    others = (("--batch-size", 7, "--memory-mb", 50), ("--batch-size", 101, "--memory-mb", 50, "--shard", "samples"))
    for other, world_size in zip(others, (1, 2), strict=True):
        results = evaluated("--precision", precision, *other, world_size=world_size)
        for name in NUMBERS:
            assert results[name] == pytest.approx(one[name], rel=tolerance, abs=0), name


@pytest.mark.parametrize(("world_size", "shard"), [(1, "examples"), (2, "examples"), (2, "samples")])
def test_an_evaluation_that_is_killed_goes_on(
    world_size: int, shard: str, folder: Path, of_one: dict[str, Any]
) -> None:
    """Some batches are done already, and the numbers are those of one that was not stopped."""
    arguments = (*SMALL, "--shard", shard)
    processes = start(folder, "evaluate", *arguments, world_size=world_size, slow=0.1)
    kept: list[Path] = []
    deadline = time.monotonic() + 60
    while len(kept) < world_size and time.monotonic() < deadline:
        kept = list(folder.rglob("*.part"))
        time.sleep(0.01)
    time.sleep(0.25)
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    output = finish(folder, start(folder, "evaluate", *arguments, world_size=world_size, slow=0.001))
    batches = 11 if shard == "samples" else len(range(0, 11, world_size))
    assert 0 < output.count("batch\n") < batches or (shard == "samples" and output.count("batch\n") <= batches)
    results = json.loads((folder / "out.json").read_text())
    for name in NUMBERS:
        assert f"{results[name]:.10g}" == f"{of_one[name]:.10g}", name
    assert not list(folder.rglob("*.part"))


def test_sums_of_another_evaluation_or_spoilt_ones_are_not_taken_up(
    folder: Path, evaluated: Callable[..., dict[str, Any]]
) -> None:
    processes = start(folder, "evaluate", *SMALL, slow=0.1)
    deadline = time.monotonic() + 60
    while not list(folder.rglob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    processes[0].kill()
    processes[0].join()
    (part,) = folder.rglob("*.part")
    other = ("--seed", 1)
    finish(folder, start(folder, "evaluate", *SMALL, *other))
    with_it = json.loads((folder / "out.json").read_text())
    assert part.is_file()
    part.write_bytes(part.read_bytes()[:100])
    evaluated()  # removes it
    assert evaluated(*other)["nll"] == with_it["nll"]


def test_an_error_of_one_process_ends_the_others(tmp_path: Path) -> None:
    """The first one has no room for a checkpoint; the second one, which waits for it, says why it ends."""
    arguments = ("--config", "vae", "--pictures.every", 0, "--trainer.accelerator", "cpu", "--trainer.max_epochs", 2)
    processes = start(tmp_path, "train", *arguments, world_size=2, room=20_000)
    try:
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [1, 1]
    finally:
        for process in processes:
            process.kill()
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in range(2))
    assert re.findall("^error: .*", first, re.MULTILINE) == [
        "error: runs/vae/version_0/checkpoints/best.ckpt cannot be written (File too large)."
    ]
    (said,) = re.findall("^.*error:.*", second, re.MULTILINE)
    assert said.startswith("error: another process has ended, as it says, or cannot be reached (")


def test_an_error_ends_the_processes_that_lightning_started(tmp_path: Path) -> None:
    """And is said once."""
    command = [sys.executable, str(ROOT / "scripts/train.py"), "--config", "vae", "--trainer.devices", "2",
               "--trainer.accelerator", "cpu", "--pictures.every", "0"]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    (said,) = re.findall("^.*error.*", done.stderr, re.MULTILINE)
    assert "best.ckpt cannot be written (File too large)" in said


def test_two_processes_stop_together(tmp_path: Path) -> None:
    """At the same line of the log, whichever hears of it first."""
    arguments = ("--config", "vae", "--pictures.every", 0, "--trainer.accelerator", "cpu", "--trainer.max_epochs", 5000,
                 "--trainer.check_val_every_n_epoch", 5000)  # fmt: skip
    processes = start(tmp_path, "train", *arguments, world_size=2)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/vae/version_0/config.yaml")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)
    os.kill(processes[1].pid, signal.SIGTERM)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [143, 143], (tmp_path / "0.txt").read_text()
    step = read(tmp_path / "runs/vae/version_0/checkpoints/last.ckpt")["global_step"]
    assert step % 10 == 0
    assert step > 0
    assert f"stopped after step {step}; to go on" in (tmp_path / "0.txt").read_text()


class Gradients(Callback):
    """Keeps the gradient of every step, and what the model holds before it."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.is_global_zero:
            named = {name: p.grad for name, p in pl_module.named_parameters()}
            torch.save((named, pl_module.state_dict()), f"step_{trainer.global_step}")


BN_AND_ACTNORM = """
model:
  class_path: Flow
  init_args:
    flow:
      class_path: Chain
      init_args:
        bijections:
        - ActNorm
        - {class_path: MaskedAutoregressive, init_args: {hidden: [16], steps: 2}}
        - BatchNorm
"""


@pytest.mark.parametrize("config", ["vae_iaf", "realnvp", "normalised.yaml"])
def test_two_processes_have_the_gradients_of_one(config: str, tmp_path: Path) -> None:
    """Of half a batch each, in double precision: order, noise, statistics of the batch and the start of ActNorm are
    those of the whole one. (Adam would divide what is zero but for rounding by itself.)"""
    gradients = []
    for world_size in (1, 2):
        folder = tmp_path / str(world_size)
        folder.mkdir()
        (folder / "normalised.yaml").write_text(BN_AND_ACTNORM)
        arguments = ("--config", config, "--data", "Digits", "--num_samples", 0, "--pictures.every", 0,
                     "--trainer.accelerator", "cpu", "--trainer.precision", "64-true", "--trainer.max_steps", 4,
                     "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 1e-3,
                     "--trainer.callbacks+=tests.test_processes.Gradients")  # fmt: skip
        finish(folder, start(folder, "train", *arguments, world_size=world_size))
        gradients.append([torch.load(folder / f"step_{step}", weights_only=True) for step in range(4)])
    for (one, state), (two, of_two) in zip(*gradients, strict=True):
        assert one.keys() == two.keys()
        for name, gradient in one.items():
            torch.testing.assert_close(two[name], gradient, rtol=1e-6, atol=1e-9, msg=name)
        for name, value in state.items():
            torch.testing.assert_close(of_two[name], value, rtol=1e-6, atol=1e-9, equal_nan=True, msg=name)
    (first, before), (_, after) = gradients[0][0], gradients[0][-1]
    assert max(gradient.abs().max() for gradient in first.values()) > 1e-2
    assert any(not torch.equal(before[name], after[name]) for name in first)


def test_two_processes_resume_before_a_line_of_the_log(tmp_path: Path) -> None:
    """The sums since the last line are with the first one alone, and both have to ask for them."""
    arguments = ("--config", "vae", "--model.lr_scheduler", "null", "--num_samples", 0, "--pictures.every", 0,
                 "--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", 10)  # fmt: skip
    finish(tmp_path, start(tmp_path, "train", *arguments, "--trainer.max_steps", 9, world_size=2))
    resumed = ("--ckpt_path", "last", "--trainer.max_steps", 12)
    finish(tmp_path, start(tmp_path, "train", *arguments, *resumed, world_size=2))
    run = tmp_path / "runs/vae/version_0"
    assert read(run / "checkpoints/last.ckpt")["global_step"] == 12
    logged = EventAccumulator(str(run)).Reload()
    for tag in ("train/objective", "train/gradient_norm"):
        (point,) = logged.Scalars(tag)
        assert point.step == 9
        assert math.isfinite(point.value)


def test_two_processes_evaluate_an_energy(tmp_path: Path) -> None:
    arguments = ("--config", "energies/u1_planar", "--trainer.max_steps", 5, "--num_samples", 1, "--pictures.every", 0,
                 "--trainer.accelerator", "cpu", "--data.num_test", 4000)  # fmt: skip
    finish(tmp_path, start(tmp_path, "train", *arguments, world_size=2))
    results = json.loads((tmp_path / "runs/energies/u1_planar/version_0/results.json").read_text())
    assert (results["num_examples"], results["world_size"]) == (4000, 2)


def test_processes_of_slurm_make_one_run(tmp_path: Path) -> None:
    """Told of each other by its variables."""
    arguments = ("--config", "vae", "--trainer.max_epochs", 1, "--num_samples", 5, "--pictures.every", 0,
                 "--trainer.accelerator", "cpu", "--trainer.devices", 2)  # fmt: skip
    finish(tmp_path, start(tmp_path, "train", *arguments, world_size=2, launcher="SLURM"))
    assert [path.name for path in (tmp_path / "runs/vae").iterdir()] == ["version_0"]
    results = json.loads((tmp_path / "runs/vae/version_0/results.json").read_text())
    assert (results["world_size"], results["num_examples"]) == (2, 300)


def test_torchrun_makes_one_run(tmp_path: Path) -> None:
    """Without a word about devices: as many as processes, and one folder."""
    arguments = ("--config", "vae", "--trainer.max_epochs", "1", "--num_samples", "5", "--pictures.every", "0",
                 "--trainer.accelerator", "cpu", "--data.batch_size", "200")  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(ROOT / "scripts/train.py"), *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in (tmp_path / "runs/vae").iterdir()] == ["version_0"]
    results = json.loads((tmp_path / "runs/vae/version_0/results.json").read_text())
    assert (results["world_size"], results["num_examples"]) == (2, 300)
    (begun,) = json.loads((tmp_path / "runs/vae/version_0/run.json").read_text())
    assert begun["world_size"] == 2


def test_devices_that_torchrun_did_not_start_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_launched(3) == (3, 1)
    with pytest.raises(VaeflowError, match="num_nodes is 2, but nothing has started this on other machines"):
        as_launched(3, 2)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(VaeflowError, match="but RANK is no number: start this with torchrun, or unset"):
        as_launched(3)
    for name, value in {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert as_launched(1) == as_launched("auto") == as_launched(4, 2) == (4, 2)
    assert as_launched([0, 1, 2, 3]) == ([0, 1, 2, 3], 2)
    with pytest.raises(VaeflowError, match="torchrun has started 4 processes on this machine, but devices is 2"):
        as_launched(2)
    with pytest.raises(VaeflowError, match="processes on 2 machines, but num_nodes is 3"):
        as_launched(1, 3)
