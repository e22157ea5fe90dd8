"""The tables of RESULTS.md: how rows are trained, kept and taken up again, and what is written of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.test_cli import Run
from vaeflow.commands.reproduce import _is_begun_by
from vaeflow.configs import config_names
from vaeflow.reproduce.report import Outcome, markdown
from vaeflow.reproduce.tables import BPD, ELBO_BPD, TABLES


def outcome(seed: int, nll: float, elbo: float) -> Outcome:
    """Of images with ln 2 · D = 100."""
    results: dict[str, Any] = {"nll": nll, "nll_stderr": 2.0, "bpd": nll / 100, "elbo": elbo, "num_parameters": 12_345,
                               "training_seconds": 60.0 * seed}  # fmt: skip
    return Outcome(seed, results, "a machine, 2 threads")


def cells(text: str, row: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| `{row}` |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_table_says_what_was_measured_published_and_reached() -> None:
    found = {
        "vae": [outcome(1, 438.0, -452.0), outcome(2, 442.0, -456.0)],
        "vae_planar": [outcome(3, 440.0, -436.0)],
    }
    text = markdown("freyfaces", TABLES["freyfaces"], found)
    header = next(line for line in text.splitlines() if line.startswith("| row"))
    assert (
        header == f"| row | {BPD.title} | published | {ELBO_BPD.title} | published "
        "| reached | parameters | seeds | trained in | on |"
    )
    vae = [
        "`vae`",
        "4.400 ± 0.028",
        "4.400",
        "4.540 ± 0.028",
        "4.530",
        "yes / no, 0.010 more, less than ±",
        "12,345",
        "1, 2",
        "90 s",
        "a machine, 2 threads",
    ]
    assert cells(text, "vae") == vae
    planar = [
        "`vae_planar`",
        "4.400 ± 0.020",
        "4.310",
        "4.360",
        "4.400",
        "no, 0.090 more / yes",
        "12,345",
        "3",
        "3 min",
    ]
    assert cells(text, "vae_planar") == [*planar, "a machine, 2 threads"]
    assert cells(text, "vae_radial")[1:] == ["–", "–", "–", "–", "not run", "–", "–", "–", "–"]
    assert "from memory, unverified" in text
    assert "K = 5,000 in evaluation." in text
    command = "--config freyfaces/vae --data.split_seed $SEED --seed_everything $SEED --num_samples 5000  # vae\n"
    assert f"python scripts/train.py {command}" in text
    assert "```bash\nSEED=123\n" in text


def test_a_row_that_is_not_here_keeps_its_line_while_its_command_is_the_same() -> None:
    table = TABLES["energies"]
    there = [Outcome(0, {"kl": 0.5, "kl_stderr": 0.25, "num_parameters": 10, "training_seconds": 9.0}, "a machine")]
    old = markdown("energies", table, {"u1_iaf": there, "u2_iaf": there})
    text = markdown("energies", table, {"u2_iaf": [replace(there[0], device="another")]}, old)
    assert cells(text, "u1_iaf") == cells(old, "u1_iaf")
    assert cells(text, "u1_iaf")[-1] == "a machine"
    assert cells(text, "u2_iaf")[-1] == "another"
    assert cells(text, "u3_iaf")[2] == "not run"
    assert markdown("energies", table, {}, text) == text
    rows = {name: replace(row, options=row.options.replace("[64]", "[32]")) for name, row in table.rows.items()}
    text = markdown("energies", replace(table, rows=rows), {}, old)
    assert cells(text, "u1_iaf")[2] == "not run"
    text = markdown("energies", replace(table, columns=(BPD,)), {}, old)
    assert cells(text, "u1_iaf")[2] == "not run"


def test_every_row_names_a_config_that_is_there() -> None:
    for table in TABLES.values():
        assert table.rows
        for row in table.rows.values():
            config = row.options.split()[1]
            assert row.options.startswith("--config ")
            assert config in config_names()
            assert set(row.published) <= {column.title for column in table.columns}
    missing = {name for name in config_names() if "/" not in name and not name.startswith("energy")}
    assert set(TABLES["digits"].rows) == missing


def test_rows_are_trained_once_and_taken_up_again(run: Run, tmp_path: Path) -> None:
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
    assert cells(text, "vae")[-5:] == ["not run", "–", "–", "–", "–"]
    code, output = run(*asked, "--pretrained", "kept")
    assert code == 0, output
    assert "kept        runs/paper/digits/uniform/seed_0/version_0" in output
    assert (tmp_path / "kept/uniform.ckpt").is_file()
    run_json = tmp_path / "runs/paper/digits/uniform/seed_0/version_0/run.json"
    start = run_json.read_text()
    options = json.loads(start)[0]["command"][1:]
    assert '"model": "Uniform"' in start
    run_json.write_text(start.replace("Uniform", "Another"))  # as if the config had held something else
    assert not _is_begun_by(run_json.parent, options)
    run_json.write_text(start)
    assert _is_begun_by(run_json.parent, options)
    code, output = run("reproduce", "--table", "digits", "--write_only", "--runs", "elsewhere")
    assert code == 0, output
    assert (tmp_path / "RESULTS.md").read_text() == text  # a row that is not there keeps its line
    (run_json.parent / "results.json").unlink()
    code, output = run(*asked)
    assert code == 0, output
    assert "--ckpt_path runs/paper/digits/uniform/seed_0/version_0/checkpoints/last.ckpt" in output
    assert (tmp_path / "RESULTS.md").read_text().count("## Digits") == 1
    assert {p.name for p in tmp_path.glob("runs/paper/digits/*/*/*")} == {"version_0"}


def test_what_is_not_there_is_said(run: Run) -> None:
    assert "there is no table mnist: there are digits" in run("reproduce", "--table", "mnist")[1]
    assert "there is no row glow: there are uniform" in run("reproduce", "--table", "digits", "--row", "glow")[1]
    code, output = run("reproduce", "--table", "digits", "--row", "vae", "--more", "--model.no_such_key 1")
    assert code == 1
    assert "row vae ended with exit code 2" in output
