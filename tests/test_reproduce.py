"""The tables of RESULTS.md: how rows are trained, kept and taken up again, and what is written of them."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from results.command import _begun, _finished, _wait_for
from results.report import Outcome, markdown
from results.tables import BPD, ELBO_BPD, NLL, TABLES, Published
from tests.test_cli import Run
from vaeflow.commands.configs import config_names
from vaeflow.errors import Stopped


def outcome(seed: int, nll: float, elbo: float, num_samples: int = 5000) -> Outcome:
    """Of images with ln 2 · D = 100."""
    results: dict[str, Any] = {"nll": nll, "nll_stderr": 2.0, "bpd": nll / 100, "elbo": elbo, "num_parameters": 12_345,
                               "training_seconds": 60.0 * seed, "kind": "importance-sampled",
                               "num_samples": num_samples}  # fmt: skip
    return Outcome(seed, results, ["a machine, 2 threads"], ["1a2b3c4"])


def cells(text: str, row: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| `{row}` |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_table_says_what_was_measured_published_and_reached() -> None:
    found = {
        "vae": [outcome(1, 438.0, -452.0), outcome(2, 442.0, -456.0)],
        "vae_planar": [outcome(3, 440.4, -436.0)],
        "vae_iaf": [outcome(1, 439.0, -449.0), outcome(2, 439.0, -449.0, num_samples=1000)],
    }
    text = markdown("freyfaces", TABLES["freyfaces"], found)
    header = next(line for line in text.splitlines() if line.startswith("| row"))
    assert (
        header == f"| row | {BPD.title} | published | {ELBO_BPD.title} | published "
        "| reached | parameters | seeds | trained in | on | commit |"
    )
    vae = ["`vae`", "4.400 ± 0.028", "4.40 \\*", "4.540 ± 0.028", "4.53", "nll yes; −ELBO no, 0.01 more", "12,345"]
    assert cells(text, "vae") == [*vae, "1, 2", "90 s", "a machine, 2 threads", "1a2b3c4"]
    planar = ["4.404 ± 0.020", "4.31 \\*", "4.360", "4.40", "nll no, 0.09 more; −ELBO yes"]
    assert cells(text, "vae_planar")[1:6] == planar
    iaf = ["4.390 ± 0.000, K = 1,000", "4.38 \\*", "4.490 ± 0.000", "4.47", "nll open, 0.01 more; −ELBO no, 0.02 more"]
    assert cells(text, "vae_iaf")[1:6] == iaf
    assert cells(text, "vae_radial")[1:] == ["–", "–", "–", "–", "not run", "–", "–", "–", "–", "–"]
    assert "\\* From memory, unverified." in text
    assert "K = 5,000 in evaluation." in text
    command = "--config freyfaces/vae --data.split_seed $SEED --trainer.precision bf16-mixed --compile"
    command += " --seed_everything $SEED --num_samples 5000  # vae\n"
    assert f"python scripts/train.py {command}" in text
    assert "```bash\nSEED=123  # then 321, 231\n" in text


def test_a_row_that_is_not_here_keeps_its_line_while_its_command_is_the_same() -> None:
    table = TABLES["energies"]
    results = {"kl": 0.5, "kl_stderr": 0.25, "num_parameters": 10, "training_seconds": 9.0, "kind": "reverse-kl"}
    there = Outcome(0, results, ["a machine", "another", "a machine"], ["1a2b3c4"])
    old = markdown("energies", table, {"u1_iaf": [there], "u2_iaf": [there]})
    text = markdown("energies", table, {"u2_iaf": [replace(there, devices=["a third"])]}, old)
    assert cells(text, "u1_iaf") == cells(old, "u1_iaf")
    assert cells(text, "u1_iaf")[-2] == "a machine; another"
    assert cells(text, "u2_iaf")[-2] == "a third"
    assert cells(text, "u3_iaf")[2] == "not run"
    assert markdown("energies", table, {}, text) == text
    rows = {name: replace(row, options=row.options.replace("[64]", "[32]")) for name, row in table.rows.items()}
    text = markdown("energies", replace(table, rows=rows), {}, old)
    assert cells(text, "u1_iaf")[2] == "not run"
    text = markdown("energies", replace(table, columns=(BPD,)), {}, old)
    assert cells(text, "u1_iaf")[2] == "not run"


def test_a_line_is_not_kept_beside_another_published_figure() -> None:
    table = TABLES["mnist_mlp"]
    results = {"nll": 86.0, "nll_stderr": 0.1, "elbo": -90.0, "num_parameters": 10, "training_seconds": 9.0,
               "kind": "importance-sampled", "num_samples": 5000}  # fmt: skip
    old = markdown("mnist_mlp", table, {"vae": [Outcome(0, results, ["a machine"], ["1a2b3c4"])]})
    assert cells(old, "vae")[4] == "yes"
    assert markdown("mnist_mlp", table, {}, old) == old
    rows = {**table.rows, "vae": replace(table.rows["vae"], published={NLL.title: Published("85.9", "mine")})}
    assert cells(markdown("mnist_mlp", replace(table, rows=rows), {}, old), "vae")[4] == "not run"


def test_every_row_names_a_config_that_is_there() -> None:
    for table in TABLES.values():
        assert table.rows
        for row in table.rows.values():
            config = row.options.split()[1]
            assert row.options.startswith("--config ")
            assert config in config_names()
            assert set(row.published) <= {column.title for column in table.columns}
    missing = {name for name in config_names() if "/" not in name}
    assert set(TABLES["digits"].rows) == missing


def test_rows_are_trained_once_and_taken_up_again(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("reproduce", "--table", "digits", "--row", "uniform")
    (tmp_path / "RESULTS.md").write_text(
        "# Mine\n\nBefore.\n\n<!-- digits -->\nold\n<!-- end of digits -->\n\nAfter.\n"
    )
    code, output = run(*asked)
    assert code == 0, output
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.startswith("# Mine\n\nBefore.\n\n<!-- digits -->\n## Digits\n")
    assert text.endswith("<!-- end of digits -->\n\nAfter.\n")
    assert "old" not in text
    assert cells(text, "uniform")[1] == "4.087 ± 0.000"  # log₂ 17
    assert cells(text, "vae")[-6:] == ["not run", "–", "–", "–", "–", "–"]

    code, output = run(*asked, "--pretrained", "kept")
    assert code == 0, output
    assert "kept        runs/paper/digits/uniform/seed_0/version_0" in output
    assert (tmp_path / "kept/uniform.ckpt").is_file()

    code, output = run("reproduce", "--table", "digits", "--write_only", "--runs", "elsewhere")
    assert code == 0, output
    assert (tmp_path / "RESULTS.md").read_text() == text  # a row that is not there keeps its line

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/paper/digits/uniform/seed_0/version_0"
    start = (folder / "run.json").read_text()
    assert '"model": "UniformModel"' in start
    assert _finished(Path("runs"), "digits", "uniform", 0)
    assert _finished(tmp_path / "runs", "digits", "uniform", 0)  # the folder may be named otherwise
    (folder / "run.json").write_text(
        start.replace("UniformModel", "Another")
    )  # as if the config had held something else
    assert not _finished(Path("runs"), "digits", "uniform", 0)
    (folder / "run.json").write_text(
        start.replace('"--trainer.default_root_dir",', "").replace('"runs"', '"--other"', 1)
    )
    assert not _finished(Path("runs"), "digits", "uniform", 0)  # begun by hand, with other options
    (folder / "run.json").write_text(start)

    (folder / "results.json").unlink()
    (folder / "checkpoints/best.ckpt").rename("aside")
    assert len(_begun(Path("runs"), "digits", "uniform", 0)) == 1  # one that was stopped before its first validation
    Path("aside").rename(folder / "checkpoints/best.ckpt")
    with FileLock(folder.parent / ".lock"):
        assert "busy        runs/paper/digits/uniform/seed_0" in run(*asked)[1]
    assert "as it was   uniform: in runs no run has finished" in run(*asked, "--write_only")[1]
    code, output = run(*asked, "--seeds", "0,", "0")
    assert (code, "as it was" in output) == (0, False), output
    assert output.count("--ckpt_path runs/paper/digits/uniform/seed_0/version_0/checkpoints/last.ckpt") == 1
    assert (tmp_path / "RESULTS.md").read_text().count("## Digits") == 1
    assert run(*asked, "--seeds", "1")[0] == 0
    assert cells((tmp_path / "RESULTS.md").read_text(), "uniform")[-4] == "0, 1"
    assert {p.name for p in tmp_path.glob("runs/paper/digits/*/*/version_*")} == {"version_0"}


def test_more_samples_evaluate_again_what_was_trained(run: Run, tmp_path: Path) -> None:
    asked = ("reproduce", "--table", "digits", "--row", "gaussian", "--num_samples")
    code, output = run(*asked, "1", "--seeds", "1")
    assert code == 0, output

    def line(samples: str) -> list[str]:
        code, output = run(*asked, samples)
        assert code == 0, output
        assert ("kept  " in output) == (samples == "2")
        assert ("there was nothing left to train" in output) == (samples == "3")
        return cells((tmp_path / "RESULTS.md").read_text(), "gaussian")

    one, three = line("1"), line("3")
    assert [cell.partition(", ")[2] for cell in one[1:4]] == ["K = 1", "K = 1", ""]
    assert three[1].endswith(", K = 3")
    assert three[4:7] == one[4:7]
    assert float(three[2].split()[0]) < float(one[2].split()[0])
    assert line("2") == three
    assert len(list(tmp_path.glob("runs/paper/digits/gaussian/seed_0/version_*"))) == 1
    code, output = run(*asked, "3", "--seeds", "0", "1", "--write_only")
    assert code == 0, output
    assert "left out    gaussian with seed 1: K = 1, where another seed has 3" in output
    assert line("2") == three
    code, output = run(*asked, "2", "--seeds", "0", "1")
    assert code == 1
    assert "--num_samples is 2 for gaussian with seed 1, but another seed has 3, and a bound that falls" in output
    best, newer = (tmp_path / f"runs/paper/digits/gaussian/seed_0/version_{n}" for n in (0, 1))
    shutil.copytree(best, newer)
    (newer / "results.json").write_text((best / "results.json").read_text().replace('_samples": 3', '_samples": 2'))
    assert [run.name for run in _finished(tmp_path / "runs", "digits", "gaussian", 0)] == ["version_1", "version_0"]


def test_what_is_not_there_is_said(run: Run, tmp_path: Path) -> None:
    assert "there is no table mnist: there are digits" in run("reproduce", "--table", "mnist")[1]
    assert "no row bert in digits: there are uniform" in run("reproduce", "--table", "digits", "--row", "bert")[1]
    elsewhere = run("reproduce", "--table", "digits", "--row", "vae,iwae_5", "--write_only")[1]
    assert "no row iwae_5 in digits: --table mnist_mlp has it" in elsewhere
    assert "there is no row , in digits" in run("reproduce", "--table", "digits", "--row", ",")[1]
    assert "--seeds is '1;2', expected whole numbers" in run("reproduce", "--table", "digits", "--seeds", "1;2")[1]
    assert "--seeds is '4294967296', expect" in run("reproduce", "--table", "digits", "--seeds", "4294967296")[1]
    (tmp_path / "notes.md").write_text("Mine.")
    assert (
        "--out is notes.md, a file that has no table" in run("reproduce", "--table", "digits", "--out", "notes.md")[1]
    )
    assert "--seeds is '', expected whole numbers" in run("reproduce", "--table", "digits", "--seeds", "")[1]
    (tmp_path / "file").touch()
    for option in ("--runs", "--pretrained"):
        for path in ("file", "file/below"):
            output = run("reproduce", "--table", "digits", option, path)[1]
            assert f"{option} is {path}, expected a folder to write in (" in output
    assert f"{tmp_path} is a folder" in run("reproduce", "--table", "digits", "--out", str(tmp_path))[1]
    for option in ("--num_samples=0", "--num_samples=5001", "--num-samples=0"):
        code, output = run("reproduce", "--table", "digits", option)
        samples = option.partition("=")[2]
        assert f"--num_samples is {samples}, expected 1 to 5000, which is the table's." in output
    assert (
        "no key `num-sample`; did you mean `num_samples`" in run("reproduce", "--table", "digits", "--num-sample=1")[1]
    )
    (tmp_path / "RESULTS.md").write_text("<!-- digits -->\nMine.\n")
    code, output = run("reproduce", "--table", "digits", "--write_only")
    assert code == 1
    assert "RESULTS.md has a line <!-- digits -->, but none <!-- end of digits --> where the table ends." in output
    assert (tmp_path / "RESULTS.md").read_text() == "<!-- digits -->\nMine.\n"


@pytest.mark.slow
def test_a_row_that_fails_keeps_no_other_from_its_turn(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEFLOW_DATA", "no_such_folder")
    code, output = run("reproduce", "--table", "freyfaces", "--row", "vae", "vae_iaf", "--seeds", "123")
    assert code == 1
    assert "these did not come to their end: vae with seed 123 (exit code 1), vae_iaf with seed 123 (exit" in output


SLOW_TO_STOP = """
import pathlib, signal, sys, time
def stop(number, frame):
    time.sleep(1)
    pathlib.Path("saved").write_text("twice" if pathlib.Path("saved").exists() else "once")
    sys.exit(128 + number)
signal.signal(signal.SIGINT, stop), signal.signal(signal.SIGTERM, stop)
pathlib.Path("ready").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_checkpoint(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def send() -> None:
        while not Path("ready").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()
    with pytest.raises(Stopped, match="the same line") as stopped:
        _wait_for([sys.executable, "-c", SLOW_TO_STOP])
    assert stopped.value.number == number
    assert Path("saved").read_text() == "once"
