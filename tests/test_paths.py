"""Where a run lives is decided once, however its path is spelt and whichever logger it has."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers import CSVLogger

from tests.test_cli import Run
from vaeflow.records.checkpoint import keep_weights, read
from vaeflow.records.curves import continue_curves

EPOCH = ("train", "--config", "vae", "--trainer.accelerator", "cpu", "--trainer.check_val_every_n_epoch", 1,
         "--num_samples", 1, "--pictures.every", 0, "--data.batch_size", 640, "--model.lr_scheduler", "null",
         "--trainer.log_every_n_steps", 1, "--trainer.max_epochs")  # fmt: skip
WHOLE = {"config.yaml", "run.json", "results.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt"}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCRATCH", str(tmp_path / "disk"))


@pytest.mark.parametrize(
    ("root", "there"),
    [
        ("~/mine", "home/mine"),
        ("$SCRATCH/my runs", "disk/my runs"),
        ("${SCRATCH}/deep/mine", "disk/deep/mine"),
        ("link/../mine", "mine"),
        ("link/mine", "disk/mine"),
    ],
)
def test_all_of_a_run_is_in_one_folder(root: str, there: str, run: Run, tmp_path: Path) -> None:
    """And the commands that come after the training find it there."""
    code, output = run(*EPOCH, 1, f"--trainer.default_root_dir={root}")
    assert code == 0, output
    version = tmp_path / there / "vae/version_0"
    assert files(version) >= WHOLE
    assert any("tfevents" in name for name in files(version))
    assert not (tmp_path / "~").exists()
    assert not (tmp_path / "runs").exists()
    (evaluate,) = re.findall("^evaluate +python scripts/evaluate.py (.*)$", output, re.MULTILINE)
    assert run("evaluate", *shlex.split(evaluate), "--json", "~/out.json")[0] == 0  # as it is pasted
    assert (tmp_path / "home/out.json").is_file()
    assert run("evaluate", "--experiment", "vae", "--runs", root, "--num-samples", 1)[0] == 0
    code, output = run(*EPOCH, 2, f"--trainer.default_root_dir={root}", "--ckpt_path", "last")
    assert code == 0, output
    assert [path.name for path in version.parent.iterdir()] == ["version_0"]
    assert read(version / "checkpoints/last.ckpt")["epoch"] == 1


TENSORBOARD = ("--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", "~/curves")
CSV = ("--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "~/curves")
BOTH = ("--trainer.logger+", "CSVLogger", "--trainer.logger.save_dir", "~/curves",
        "--trainer.logger+", "TensorBoardLogger", "--trainer.logger.save_dir", "~/curves")  # fmt: skip


@pytest.mark.parametrize(
    "logger", [TENSORBOARD, CSV, BOTH, ("--trainer.logger", "false"), ("--trainer.logger", "true")]
)
def test_whichever_logger_there_is(logger: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    for epochs, more in ((1, ()), (2, ("--ckpt_path", "last"))):
        code, output = run(*EPOCH, epochs, *logger, *more)
        assert code == 0, output
        assert files(tmp_path / "runs/vae/version_0") >= WHOLE
        assert os.listdir(tmp_path / "runs/vae") == ["version_0"]
    assert read(tmp_path / "runs/vae/version_0/checkpoints/last.ckpt")["epoch"] == 1
    curves = files(tmp_path / "home")
    assert any("tfevents" in name for name in curves) == (logger in (TENSORBOARD, BOTH))
    assert all(name.startswith("curves/vae/version_0/") for name in curves)
    if logger in (CSV, BOTH):
        with (tmp_path / "home/curves/vae/version_0/metrics.csv").open() as file:
            lines = list(csv.DictReader(file))
        trained = [int(line["step"]) for line in lines if line["train/nll"]]
        assert trained == sorted(set(trained)) == list(range(4))
        assert sum(bool(line["test/nll"]) for line in lines) == 1


def test_curves_of_another_run_are_not_overwritten(run: Run, tmp_path: Path) -> None:
    assert run(*EPOCH, 1, *CSV, "--trainer.logger.version", "mine")[0] == 0
    before = (tmp_path / "home/curves/vae/mine/metrics.csv").read_bytes()
    code, output = run(*EPOCH, 1, *CSV, "--trainer.logger.version", "mine")
    assert code == 1
    assert "metrics.csv is there already, the curves of another run" in output
    assert (tmp_path / "home/curves/vae/mine/metrics.csv").read_bytes() == before
    assert os.listdir(tmp_path / "runs/vae") == ["version_0"]


def test_newest_is_the_highest_number(run: Run, tmp_path: Path) -> None:
    """Not what was copied or touched last, nor the last of the alphabet, nor what has no number."""
    assert run(*EPOCH, 1)[0] == 0
    experiment = tmp_path / "runs/vae"
    for name in ("version_9", "version_a", "version_best"):
        (experiment / name / "checkpoints").mkdir(parents=True)
        (experiment / name / "checkpoints/last.ckpt").write_bytes(b"no checkpoint")
    (experiment / "version_0").rename(tmp_path / "disk/moved")
    (experiment / "version_10").symlink_to(tmp_path / "disk/moved")  # to a larger disk
    os.utime(experiment / "version_9/checkpoints/last.ckpt")
    code, output = run(*EPOCH, 2, "--ckpt_path", "last")
    assert code == 0, output
    assert sorted(os.listdir(experiment)) == ["version_10", "version_9", "version_a", "version_best"]
    assert read(tmp_path / "disk/moved/checkpoints/last.ckpt")["epoch"] == 1
    assert run("compare", "runs")[0] == 0
    assert run(*EPOCH, 1)[0] == 0
    assert (experiment / "version_11/results.json").is_file()


def test_files_are_found_behind_links_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    from vaeflow.files import find_files

    for number in (10, 9, 1):
        folder = tmp_path / f"disk/of_{number}"
        folder.mkdir()
        (folder / "results.json").touch()
        (tmp_path / f"version_{number}").symlink_to(folder)
    (tmp_path / "disk/of_1/circle").symlink_to(tmp_path)
    (tmp_path / "link").unlink()
    found = [path.parent.resolve().name for path in find_files(tmp_path, "results.json")]
    assert found == ["of_1", "of_9", "of_10"]


def test_a_run_is_resumed_in_place_whatever_leads_to_its_checkpoint(run: Run, tmp_path: Path) -> None:
    assert run(*EPOCH, 1)[0] == 0
    version = tmp_path / "runs/vae/version_0"
    (version / "checkpoints").rename(tmp_path / "disk/checkpoints")
    (version / "checkpoints").symlink_to(tmp_path / "disk/checkpoints")
    (tmp_path / "here.ckpt").symlink_to(version / "checkpoints/last.ckpt")
    paths = ("link/checkpoints/last.ckpt", "here.ckpt", "runs/../runs/vae/version_0/checkpoints/last.ckpt",
             "$SCRATCH/checkpoints/last.ckpt", "~/../here.ckpt")  # fmt: skip
    for epochs, path in enumerate(paths, start=2):
        code, output = run(*EPOCH, epochs, f"--ckpt_path={path}")
        assert code == 0, output
        assert read(version / "checkpoints/last.ckpt")["epoch"] == epochs - 1
    assert os.listdir(tmp_path / "runs/vae") == ["version_0"]


def test_what_was_best_is_known_in_a_folder_that_has_moved(run: Run, tmp_path: Path) -> None:
    assert run(*EPOCH, 1)[0] == 0
    (tmp_path / "runs").rename(tmp_path / "moved")
    best = tmp_path / "moved/vae/version_0/checkpoints/best.ckpt"
    last = best.with_name("last.ckpt")
    for path in (last, best):
        make_unbeatable(path)
    before = best.read_bytes()
    moved = ("--trainer.default_root_dir", "moved", "--ckpt_path", "last")
    code, output = run(*EPOCH, 2, *moved)
    assert code == 0, output
    assert best.read_bytes() == before
    assert json.loads((best.parents[1] / "results.json").read_text())["checkpoint"] == str(best.relative_to(tmp_path))


def make_unbeatable(path: Path) -> None:
    """Give a checkpoint a score that nothing to come is better than."""
    checkpoint = torch.load(path, weights_only=True)
    (name,) = (name for name in checkpoint["callbacks"] if name.startswith("Checkpoints"))
    for key in ("best_model_score", "kth_value"):
        checkpoint["callbacks"][name][key] = torch.tensor(-1e9)
    torch.save(checkpoint, path)


def test_what_was_best_comes_along_into_another_experiment(run: Run, tmp_path: Path) -> None:
    """And what is better, but of later than the checkpoint that is resumed, does not."""
    assert run(*EPOCH, 2)[0] == 0
    best = tmp_path / "runs/vae/version_0/checkpoints/best.ckpt"
    early, late = best.with_name("early.ckpt"), best.with_name("last.ckpt")
    early.write_bytes(late.read_bytes())
    for path in (late, best):
        make_unbeatable(path)
    for name, ckpt, is_kept in (("renamed", late, True), ("again", early, False)):
        code, output = run(*EPOCH, 3, "--experiment", name, "--ckpt_path", ckpt)
        assert code == 0, output
        assert "dirpath has changed" not in output
        copied = tmp_path / f"runs/{name}/version_0/checkpoints/best.ckpt"
        assert (copied.read_bytes() == best.read_bytes()) == is_kept
        results = json.loads((copied.parents[1] / "results.json").read_text())
        assert results["checkpoint"] == str(copied.relative_to(tmp_path))
        assert results["weights"] == f"best.ckpt, epoch {2 if is_kept else 3}"
    best.unlink()
    code, output = run(*EPOCH, 3, "--ckpt_path", late)
    assert code == 0, output
    assert json.loads((best.parents[1] / "results.json").read_text())["weights"] == "best.ckpt, epoch 3"


@pytest.mark.parametrize(
    ("name", "folder"),
    [("mine/", "mine"), ("./mine", "mine"), ("deep/mine", "deep/mine"), ("$SCRATCH", ""), ("~/mine", ""), ("/mine", ""),
     ("$NOWHERE/mine", ""), (".", ""), ("", "")],
)  # fmt: skip
def test_names_of_experiments(name: str, folder: str, run: Run, tmp_path: Path) -> None:
    code, output = run(*EPOCH, 1, f"--experiment={name}")
    if folder:
        assert code == 0, output
        assert files(tmp_path / "runs" / folder / "version_0") >= WHOLE
    else:
        assert code == 1, output
        assert "expected a name, or a path below the runs' folder" in output
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("root", ["file", "file/below", "$NOWHERE/runs", "s3://mine/runs", "dangling"])
def test_a_root_that_no_run_can_have(root: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "file/nowhere")
    before = files(tmp_path)
    code, output = run(*EPOCH, 1, f"--trainer.default_root_dir={root}")
    (said,) = [line for line in output.splitlines() if "rror" in line]
    assert code == 1
    assert "trainer.default_root_dir" in said
    assert files(tmp_path) == before


def test_a_folder_for_curves_that_cannot_be_made(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, output = run(*EPOCH, 1, "--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", "file")
    assert code == 1, output
    assert re.search("^error: .*file", output, re.MULTILINE)
    assert not list(tmp_path.glob("runs/*/*"))


def test_a_folder_that_holds_more_than_logs_is_never_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaeflow.records.runs import VERSION, RunFolder

    monkeypatch.delenv(VERSION, raising=False)
    for name in ("best.ckpt", "notes.txt"):
        folder = RunFolder(str(tmp_path / "runs"), "mine")
        folder.make()
        (folder.path / "checkpoints").mkdir()
        (folder.path / "events.out.tfevents.0").touch()
        (folder.path / "checkpoints" / name).touch()
        folder.discard_if_unused()
        assert files(folder.path) == {"events.out.tfevents.0", f"checkpoints/{name}"}
    empty = RunFolder(str(tmp_path / "runs"), "mine")
    empty.make()
    (empty.path / "events.out.tfevents.0").touch()
    empty.discard_if_unused()
    assert not empty.path.exists()
    assert VERSION not in os.environ


def test_other_paths_are_expanded(run: Run, tmp_path: Path) -> None:
    from vaeflow import load_data
    from vaeflow.data import Arrays

    np.save(tmp_path / "home/x.npy", np.random.default_rng(0).normal(size=(60, 2)))
    assert Arrays("$HOME/x.npy").shape == (2,)
    (tmp_path / "home/mine.yaml").write_text(
        "model: MAF\ndata: {class_path: Arrays, init_args: {path: ~/x.npy}}\n"
        "trainer:\n  profiler: {class_path: SimpleProfiler, init_args: {dirpath: $SCRATCH/profile, filename: p}}\n"
        "  callbacks:\n  - {class_path: ModelCheckpoint, init_args: {dirpath: $SCRATCH/more}}\n"
    )
    code, output = run("train", "--config=~/mine.yaml", "--trainer.max_epochs", 1, "--pictures.every", 0)
    assert code == 0, output
    again = ("--config=$HOME/../runs/mine/version_0/config.yaml", "--experiment", "again")
    assert run("train", *again)[0] == 0  # the profiler is one that a run's config may name
    assert {name.split("/")[0] for name in files(tmp_path / "disk")} == {"profile", "more"}
    best = f"--ckpt={tmp_path}/runs/mine/version_0/checkpoints/best.ckpt"
    (tmp_path / "home/x.npy").rename(tmp_path / "home/y.npy")
    assert run("evaluate", best, "--path=~/y.npy")[0] == 0
    assert load_data(best[7:], path="~/y.npy").shape == (2,)
    assert run("density", best, "--path=$HOME/y.npy", "--out=~/density.png")[0] == 0
    assert (tmp_path / "home/density.png").is_file()
    assert not {"~", "$SCRATCH", "$HOME"} & set(os.listdir(tmp_path))


def test_lines_of_curves_outlast_a_process_that_ends_while_they_are_taken_up(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = ("--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "curves", "--trainer.log_every_n_steps", 1)
    assert run(*EPOCH, 1, *logged)[0] == 0
    (metrics,) = tmp_path.glob("curves/**/metrics.csv")
    before = metrics.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(CSVLogger, "experiment", property(lambda self: pytest.fail("the process ends here")))
        with pytest.raises(pytest.fail.Exception):
            continue_curves([CSVLogger(tmp_path / "curves", metrics.parents[1].name, metrics.parent.name)], 99, True)
    assert not metrics.is_file()
    assert run(*EPOCH, 2, *logged, "--ckpt_path", "last")[0] == 0
    assert metrics.read_text().startswith(before.rstrip("\n").rpartition("\n")[0])
    assert not list(tmp_path.glob("curves/**/*.kept"))


def test_a_run_is_resumed_from_a_checkpoint_of_ones_own(run: Run, tmp_path: Path) -> None:
    """Which lies in a folder below that of the best, which comes along."""
    own = ("--trainer.callbacks", "ModelCheckpoint", "--trainer.callbacks.save_top_k", -1)
    assert run(*EPOCH, 2, *own)[0] == 0
    (last,) = (tmp_path / "runs/vae/version_0/checkpoints/ModelCheckpoint").glob("epoch=1-*.ckpt")
    for path in (last, tmp_path / "runs/vae/version_0/checkpoints/best.ckpt"):
        make_unbeatable(path)
    code, output = run(*EPOCH, 3, *own, "--ckpt_path", last)
    assert code == 0, output
    results = json.loads((tmp_path / "runs/vae/version_1/results.json").read_text())
    assert results["checkpoint"] == "runs/vae/version_1/checkpoints/best.ckpt"
    assert results["weights"] == "best.ckpt, epoch 2"


def test_a_finished_run_does_not_go_on_in_another_folder(run: Run, tmp_path: Path) -> None:
    assert run(*EPOCH, 1)[0] == 0
    last = "runs/vae/version_0/checkpoints/last.ckpt"
    for end in ((), ("--trainer.max_steps", 2, "--trainer.max_epochs", 5)):
        code, output = run(*EPOCH, 1, *end, "--experiment", "again", "--ckpt_path", last)
        assert code == 1, output
        assert f"{last} is at the end of this run, at step 2: nothing is left to train in another folder" in output
    assert not list((tmp_path / "runs").glob("again/*"))
    code, output = run(*EPOCH, 1, "--ckpt_path", last)
    assert (code, "there was nothing left to train" in output) == (0, True), output


@pytest.mark.parametrize("damage", ["weights alone", "cut off"])
def test_a_best_checkpoint_that_cannot_be_read_is_forgotten(damage: str, run: Run, tmp_path: Path) -> None:
    assert run(*EPOCH, 1)[0] == 0
    best = tmp_path / "runs/vae/version_0/checkpoints/best.ckpt"
    if damage == "weights alone":
        keep_weights(best, tmp_path / "weights.ckpt")
        (tmp_path / "weights.ckpt").replace(best)
    else:
        best.write_bytes(best.read_bytes()[:1000])
    code, output = run(*EPOCH, 2, "--ckpt_path", "last")
    assert code == 0, output
    assert json.loads((best.parents[1] / "results.json").read_text())["weights"] == "best.ckpt, epoch 2"
