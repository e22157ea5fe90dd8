"""Runs that are killed, stopped or left without room: nothing is lost, and they end as if nothing had been."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vaeflow
from tests.test_cli import Run
from vaeflow.errors import VaeflowError
from vaeflow.files import whole
from vaeflow.records.checkpoint import PREVIOUS, read
from vaeflow.records.runs import new_version

EVERY = 7
"""Steps from one checkpoint to the next."""
TRAINING = (
    "--config", "vae_planar", "--num_samples", 10, "--trainer.max_epochs", 5, "--data.batch_size", 40,
    "--checkpoint_every", EVERY, "--trainer.log_every_n_steps", 4, "--pictures.every", 0,
    "--model.objective.kl_warmup_epochs", 3,
    "--trainer.check_val_every_n_epoch", 1, "--trainer.accelerator", "cpu", "--trainer.gradient_clip_val", 30,
    "--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.9",
    "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/objective", "--trainer.callbacks.patience=4",
)  # fmt: skip
STEPS_IN_EPOCH, STEPS = 32, 160

pytestmark = pytest.mark.xdist_group("faults")  # they share a run
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.preloaded"])


def _train(folder: str, arguments: Sequence[object], steps: Any, fault: str, output: str) -> None:
    """A training process. ``steps`` are the first one that it trains and the last one that it began."""
    from vaeflow.commands.messages import main
    from vaeflow.commands.training import train
    from vaeflow.models import VAE

    torch.set_num_threads(1)
    os.chdir(folder)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["train.py", *map(str, arguments)]
    step, replace, saved = VAE.training_step, os.replace, [0]

    def counted(self: VAE, *batch: Any) -> Any:
        steps[1] = self.global_step
        if steps[0] < 0:
            steps[0] = self.global_step
        if fault == "no room" and self.global_step == 40:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        return step(self, *batch)

    def killed_at(name: str, number: int, before: bool) -> Callable[..., None]:
        def replaced(source: Any, target: Any) -> None:
            saved[0] += Path(target).name == name
            if before and saved[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)
            if saved[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)

        return replaced

    VAE.training_step = counted  # type: ignore[method-assign]
    if fault == "while writing":  # the new file is there in part, under its temporary name
        fsync = os.fsync

        def cut_short(descriptor: int) -> None:
            saved[0] += 1
            if saved[0] == 5:
                os.ftruncate(descriptor, 5000)
                os.kill(os.getpid(), signal.SIGKILL)
            fsync(descriptor)

        os.fsync = cut_short
    elif fault == "before the new name":
        os.replace = killed_at("last.ckpt", 2, before=True)
    elif fault == "after the old one is kept":
        os.replace = killed_at(PREVIOUS, 2, before=False)
    main(train)


class Training:
    """Runs of :data:`TRAINING` in a folder, each in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        experiment: str,
        *arguments: object,
        stop: Callable[[int], bool] = lambda step: False,
        by: int = signal.SIGKILL,
        fault: str = "",
    ) -> tuple[int, str, int, int]:
        """Exit code, output, first step and last step of a training that is sent a signal once ``stop(step)``."""
        steps = context.Array("i", [-1, -1], lock=False)
        output = str(self.folder / f"{experiment}.txt")
        command = (*TRAINING, "--experiment", experiment, *arguments)
        process = context.Process(target=_train, args=(str(self.folder), command, steps, fault, output))
        process.start()
        try:
            while process.is_alive():
                if stop(steps[1]):
                    os.kill(process.pid, by)
                    break
                time.sleep(0.0005)
            process.join(120)
        finally:
            process.kill()
            process.join()
        assert process.exitcode is not None
        return process.exitcode, Path(output).read_text(), steps[0], steps[1]

    def checkpoint(self, experiment: str, name: str = "last.ckpt") -> Path:
        return self.folder / "runs" / experiment / "version_0" / "checkpoints" / name


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """With one run that nothing happens to."""
    training = Training(tmp_path_factory.mktemp("faults"))
    code, output, first, last = training("whole")
    assert code == 0, output
    assert (first, last) == (0, STEPS - 1)
    return training


def equal(a: Any, b: Any) -> bool:
    """Whether plain values and tensors are the same, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def curves(folder: Path) -> dict[str, dict[int, float]]:
    logged = EventAccumulator(str(folder), {"scalars": 0}).Reload()
    return {tag: {e.step: e.value for e in logged.Scalars(tag)} for tag in logged.Tags()["scalars"]}


def assert_same_end(training: Training, experiment: str, uninterrupted: str = "whole") -> None:
    """Weights, averages, optimizer, schedules, early stopping, curves and results."""
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (read(training.checkpoint(run, name)) for run in (uninterrupted, experiment))
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step", "epoch"):
            assert equal(one[key], other[key]), key
        for key in one["callbacks"]:
            if not key.startswith(("Timer", "Checkpoints")):
                assert equal(one["callbacks"][key], other["callbacks"][key]), key
    runs = [training.folder / "runs" / run / "version_0" for run in (uninterrupted, experiment)]
    one, other = (json.loads((run / "results.json").read_text()) for run in runs)
    for key in ("nll", "elbo", "kl", "effective_sample_size", "active_units"):
        assert one[key] == other[key], key
    assert curves(runs[0]) == curves(runs[1])


def test_a_run_that_is_killed_ten_times_ends_as_if_it_had_not_been(training: Training) -> None:
    """Three times within the writing of a checkpoint, else at any moment. A resumed run goes on where the last
    checkpoint was, no more steps before the end than lie between two."""
    seed = time.time_ns()
    print(f"seed {seed}")
    generator = random.Random(seed)
    moments = sorted(generator.sample(range(10, 90), 4) + generator.sample(range(90, STEPS - 20), 3))
    faults = {2: "while writing", 4: "before the new name", 6: "after the old one is kept"}
    lasts, resume = [], ()
    for number in range(10):
        fault = faults.get(number, "")
        at = moments.pop(0) if not fault else STEPS
        code, output, first, last = training("killed", *resume, stop=lambda step, at=at: step >= at, fault=fault)
        assert code == -signal.SIGKILL, output
        if lasts:
            assert first > 0
            assert first >= lasts[-1] - EVERY, (first, lasts)
        lasts.append(last)
        resume = ("--ckpt_path", "last")
    assert any(last % STEPS_IN_EPOCH not in (0, STEPS_IN_EPOCH - 1) for last in lasts)
    code, output, first, last = training("killed", *resume)
    assert code == 0, output
    assert first >= lasts[-1] - EVERY
    assert last == STEPS - 1
    assert_same_end(training, "killed")
    starts = json.loads((training.folder / "runs/killed/version_0/run.json").read_text())
    assert len(starts) == 11
    assert starts[-1]["step"] == first


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_after_the_step(number: int, code: int, training: Training) -> None:
    name = signal.Signals(number).name
    found, output, _, last = training(name, stop=lambda step: step >= 60, by=number)
    assert found == code, output
    assert read(training.checkpoint(name))["global_step"] == last + 1
    assert f"stopped after step {last + 1}; to go on, add --ckpt_path runs/{name}/version_0" in output
    code, output, first, _ = training(name, "--ckpt_path", "last")
    assert code == 0, output
    assert first == last + 1
    assert_same_end(training, name)


def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(training: Training) -> None:
    code, output, _, _ = training("full", fault="no room")
    assert code == 1, output
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert "cannot be written (File too large)" in line
    assert "Traceback" not in output
    assert 40 - EVERY <= read(training.checkpoint("full"))["global_step"] <= 40
    assert not list(training.checkpoint("full").parent.glob(".*"))
    code, output, _, _ = training("full", "--ckpt_path", "last")
    assert code == 0, output
    assert_same_end(training, "full")


def test_a_damaged_checkpoint_is_refused_and_the_one_before_offered(training: Training, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("last.ckpt", PREVIOUS, "best.ckpt"):
        (folder / name).write_bytes(training.checkpoint("whole", name).read_bytes())
    content = (folder / "last.ckpt").read_bytes()
    for damaged in (content[: len(content) // 2], content[:1000] + bytes([content[1000] ^ 1]) + content[1001:], b""):
        (folder / "last.ckpt").write_bytes(damaged)
        with pytest.raises(VaeflowError, match=r"last.ckpt is damaged.*whole are .*previous.ckpt and .*best.ckpt"):
            vaeflow.load(folder / "last.ckpt")
    assert STEPS - EVERY <= read(folder / PREVIOUS)["global_step"] < STEPS
    (folder / PREVIOUS).write_bytes(b"nothing")
    with pytest.raises(VaeflowError, match=r"whole are [^ ]*best.ckpt\."):
        vaeflow.load(folder / "last.ckpt")


def test_a_config_that_was_kept_repeats_its_run(training: Training, run: Run, tmp_path: Path) -> None:
    version = training.folder / "runs" / "whole" / "version_0"
    code, output = run("train", "--config", version / "config.yaml", "--trainer.default_root_dir", tmp_path / "again")
    assert code == 0, output
    again = tmp_path / "again" / "whole" / "version_0"
    one, other = (read(folder / "checkpoints/last.ckpt")["state_dict"] for folder in (version, again))
    assert equal(one, other)
    (start,) = json.loads((again / "run.json").read_text())
    assert start["command"][1:3] == ["--config", str(version / "config.yaml")]
    assert start["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert start["seed"] == 0


def test_runs_that_begin_at_one_moment_get_folders_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "version_7").mkdir()
    found: list[str] = []
    begin = threading.Barrier(20)

    def take() -> None:
        begin.wait()
        found.append(new_version(tmp_path))

    threads = [threading.Thread(target=take) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found, key=lambda name: int(name[8:])) == [f"version_{n}" for n in range(8, 28)]


def test_a_folder_that_cannot_be_made_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, output = run("train", "--config", "vae", "--trainer.default_root_dir", tmp_path / "file")
    assert code == 1
    assert "no run can be kept in" in output
    assert "set --trainer.default_root_dir to a folder you can write to" in output


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--data", "MNIST", "--data.root", "nowhere"), "nowhere"),
        (("--trainer.val_check_interval", 999), "999"),
        (("--trainer.val_check_interval", 0), "trainer.val_check_interval is 0, expected more than 0"),
        (("--trainer.check_val_every_n_epoch", 0), "trainer.check_val_every_n_epoch is 0, expected more than 0"),
        (("--trainer.devices", 10_000), "devices is 10000, a process each"),
        (("--model.encoder.hidden", "[-3]"), "hidden[0] is -3, expected at least 1"),
    ],
)
def test_a_run_that_cannot_begin_leaves_no_folder(
    wrong: tuple[object, ...], said: str, run: Run, tmp_path: Path
) -> None:
    code, output = run("train", "--config", "vae", "--trainer.max_epochs", 10, "--trainer.accelerator", "cpu", *wrong)
    assert code == 1, output
    assert said in output
    assert not list(tmp_path.glob("runs/*/*"))


def test_steps_that_change_nothing_are_said(run: Run) -> None:
    short = ("--trainer.accelerator", "cpu", "--trainer.max_steps", 2, "--num_samples", 0, "--pictures.every", 0)
    code, output = run("train", "--config", "vae", *short, "--trainer.gradient_clip_val", 1e-300)
    assert code == 1
    assert (
        "2 steps changed no parameter: the learning rate is 0.003, gradients are clipped to a norm of 1e-300" in output
    )


def test_without_a_logger_a_run_has_its_folder_still(run: Run, tmp_path: Path) -> None:
    short = ("--trainer.accelerator", "cpu", "--trainer.max_epochs", 1, "--num_samples", 1, "--trainer.logger", "false",
             "--model.lr_scheduler", "null")  # fmt: skip
    for version in range(2):
        code, output = run("train", "--config", "vae", *short)
        assert code == 0, output
        names = {str(path.relative_to(tmp_path / f"runs/vae/version_{version}"))
                 for path in (tmp_path / f"runs/vae/version_{version}").rglob("*")}  # fmt: skip
        assert {"config.yaml", "run.json", "results.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt"} <= names
    code, output = run("train", "--config", "vae", *short, "--trainer.max_epochs", 2, "--ckpt_path", "last")
    assert code == 0, output
    assert {path.name for path in tmp_path.glob("runs/vae/*")} == {"version_0", "version_1"}
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


@pytest.mark.parametrize("length", ["epochs", "steps"])
def test_a_signal_between_validations_far_apart(length: str, training: Training) -> None:
    """With one step for an epoch, which is the last of each as well."""
    far = ("--data.batch_size", 1280, "--trainer.check_val_every_n_epoch", 30, "--trainer.max_epochs", 30)
    if length == "steps":
        far = (*far, "--trainer.max_steps", 30)
    whole, stopped = f"far_{length}", f"stopped_{length}"
    code, output, *_ = training(whole, *far)
    assert code == 0, output
    resume: tuple[object, ...] = ()
    for at in (7, 16):
        stop = lambda step, at=at: step >= at  # noqa: E731
        code, output, _, last = training(stopped, *far, *resume, stop=stop, by=signal.SIGTERM)
        assert code == 143, output
        assert at <= last < 28
        assert read(training.checkpoint(stopped))["global_step"] == last + 1
        resume = ("--ckpt_path", "last")
    code, output, first, _ = training(stopped, *far, *resume)
    assert code == 0, output
    assert first == last + 1
    assert_same_end(training, stopped, whole)


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with whole(path) as file:
        file.write(b"one")
    with pytest.raises(ZeroDivisionError), whole(path, path.with_name("kept")) as file:
        file.write(bytes([1 // 0]))
    assert path.read_bytes() == b"one"
    with whole(path, path.with_name("kept")) as file:
        file.write(b"three")
    assert (path.read_bytes(), path.with_name("kept").read_bytes()) == (b"three", b"one")
    assert {p.name for p in path.parent.iterdir()} == {"file", "kept"}
