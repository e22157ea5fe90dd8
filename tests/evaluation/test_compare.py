"""A comparison ranks what is comparable, says why the rest is not, and loses no run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vaeflow.errors import VaeflowError
from vaeflow.evaluation import compare
from vaeflow.figures import comparison

BASE: dict[str, Any] = {
    "model": "VAE", "data": "Digits", "split": "test", "measure": "discrete-17", "protocol": "split 1297/200/300",
    "test_fingerprint": "a" * 64, "kind": "dequantised", "context": None, "num_samples": 1, "nll": 90.0,
    "nll_stderr": 0.5, "bpd": 2.03, "elbo": None, "kl": None, "num_examples": 300, "num_parameters": 1000,
    "training_seconds": 12.0, "sampling_seconds": 0.002,
}  # fmt: skip
VAE = {"kind": "importance-sampled", "num_samples": 1000, "elbo": -92.0, "nll": 88.0}


@pytest.fixture
def runs(tmp_path: Path) -> Callable[..., Path]:
    def write(**experiments: dict[str, Any]) -> Path:
        for name, changes in experiments.items():
            folder = tmp_path / "runs" / name.replace("__", "/")
            folder.mkdir(parents=True)
            (folder / "results.json").write_text(json.dumps({**BASE, **changes}))
        return tmp_path / "runs"

    return write


def test_runs_are_ranked_within_their_group(runs: Callable[..., Path]) -> None:
    folder = runs(
        nice__version_0={"nll": 120.0, "model": "NICE"},
        vae__version_0=VAE,
        maf__version_0={"nll": 95.0},
        maf__version_1={"nll": 94.0},
        other_split__version_0={"nll": 80.0, "test_fingerprint": "b" * 64, "protocol": "split 1200/200/397"},
        binary__version_0={"nll": 20.0, "measure": "binary", "test_fingerprint": "c" * 64, "bpd": 0.4},
        by_class__version_0={"nll": 85.0, "context": "class"},
    )
    found, complaints = compare.find_runs([folder])
    assert (len(found), complaints) == (7, [])
    groups = compare.comparable(found)
    assert [run.name for run in groups[0]] == ["vae", "maf/version_1", "maf/version_0", "nice"]
    assert sorted(len(group) for group in groups) == [1, 1, 1, 4]
    text = compare.as_text(groups)
    assert "importance-sampled, K = 1,000" in text
    assert "88.00 ± 0.50" in text
    assert "Not ranked with table 1: p(x) and p(x given the class) are different things." in text
    assert (
        "the test data differ (Digits, 300 examples, split 1200/200/397; Digits, 300 examples, split 1297/200/300)"
        in text
    )
    assert "the measure is binary, not discrete-17" in text
    vae_row = next(line for line in text.splitlines() if line.startswith("1  vae"))
    assert "92.00  4.00" in vae_row
    assert "bounds from above" in text


def test_close_calls_and_entropies_are_said(runs: Callable[..., Path]) -> None:
    folder = runs(a={"entropy": 3.5, "nll": 3.51, "kind": "exact"}, b={"entropy": 3.5, "nll": 3.52, "kind": "exact"})
    text = compare.as_text(compare.comparable(compare.find_runs([folder])[0]))
    assert "differ by less than two standard errors" in text
    assert "entropy is 3.5000 nats" in text
    assert "bounds" not in text


def test_differences_are_paired_example_by_example(runs: Callable[..., Path]) -> None:
    folder = runs(a={"nll": 90.0, "nll_stderr": 0.6}, b={"nll": 90.1, "nll_stderr": 0.6}, c={"nll": 95.0})
    generator = np.random.default_rng(0)
    nll, difference = generator.normal(0, 10, 300), generator.normal(0, 0.2, 300)
    nll, difference = 90 + nll - nll.mean(), 0.1 + difference - difference.mean()
    np.save(folder / "a/results.npy", nll)
    np.save(folder / "b/results.npy", nll + difference)
    (group,) = compare.comparable(compare.find_runs([folder])[0])
    mean, stderr = group[1].behind(group[0]) or (0, 0)
    assert (mean, stderr) == pytest.approx((difference.mean(), difference.std(ddof=1) / 300**0.5))
    assert group[2].behind(group[0]) is None
    text = compare.as_text([group])
    assert f"{mean:.2f} ± {stderr:.2f}" in text
    assert "two standard errors" not in text  # of unpaired numbers it would be
    np.save(folder / "b/results.npy", nll[:7])
    (folder / "c/results.npy").touch()  # empty
    found, complaints = compare.find_runs([folder])
    assert [(run.name, run.nll is None) for run in found] == [("a", False), ("b", True), ("c", True)]
    assert "b/results.npy was left out: it is of another evaluation than the results beside it." in complaints[0]
    assert "c/results.npy was left out: No data left in file" in complaints[1]


def test_runs_of_one_name_are_told_apart(runs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs(r1__vae__version_0=VAE, r2__vae__version_0={}))
    assert sorted(run.name for run in compare.find_runs(["r1", "r2"])[0]) == ["r1/vae", "r2/vae"]


def test_names_say_more_than_seeds_and_versions(runs: Callable[..., Path]) -> None:
    folder = runs(vae__version_0=VAE, paper__vae__seed_0__version_0={}, paper__vae__seed_1__version_0={})

    def names(*within: str) -> list[str]:
        return sorted(run.name for run in compare.find_runs([folder / name for name in within])[0])

    assert names("paper/vae") == ["vae/seed_0", "vae/seed_1"]
    assert names("paper/vae/seed_0") == names("paper/vae/seed_0/version_0") == ["vae/seed_0"]
    assert compare._name(Path("/seed_0/version_0"), Path("/seed_0")) == "seed_0/version_0"  # nothing is above
    assert names("vae", "paper/vae") == ["paper/vae/seed_0", "paper/vae/seed_1", "vae"]


def test_doubts_and_other_protocols_are_said(runs: Callable[..., Path]) -> None:
    doubts = ["log_det of Mine.forward is 1"]
    folder = runs(a={"doubts": doubts}, b={"nll": -3.0, "protocol": "split 1200/297/300"}, c=VAE, d={"nll": 91.0})
    groups = compare.comparable(compare.find_runs([folder])[0])
    assert [row[:2] for row in compare.table_of(groups[0])[1:]] == [["1", "c"], ["2", "d"], ["–", "b"], ["–", "a"]]
    axes = comparison.draw(groups).axes[0]
    assert [text.get_text() for text in axes.texts] == ["doubtful: -3", "doubtful: 90"]
    assert min(axes.get_xlim()) > 80
    alone = compare.comparable(compare.find_runs([folder / "a"])[0])
    assert compare.table_of(alone[0])[1][0] == "–"
    assert [text.get_text() for text in comparison.draw(alone).axes[0].texts] == ["doubtful: 90"]
    text = compare.as_text(groups)
    assert "a: log_det of Mine.forward is 1" in text
    assert "b: The nll is 6 standard errors below the zero of integers, where none can be" in text
    assert "otherwise protocols differ: split 1297/200/300; split 1200/297/300." in text


def test_what_cannot_be_is_said(runs: Callable[..., Path]) -> None:
    kind = {"kind": "exact", "entropy": 3.5, "nll_stderr": 0.01}
    text = compare.as_text(
        compare.comparable(compare.find_runs([runs(a={**kind, "nll": 3.4}, b={**kind, "nll": 3.47})])[0])
    )
    assert "a: The nll is 10 standard errors below the entropy, where none can be" in text
    assert "b: The nll" not in text


def test_one_draw_beside_many_is_said(runs: Callable[..., Path]) -> None:
    folder = runs(vae=VAE, nice={"nll": 120.0})
    text = compare.as_text(compare.comparable(compare.find_runs([folder])[0]))
    assert "Dequantised with one draw of noise is to a flow what −ELBO is to a VAE" in text
    text = compare.as_text(compare.comparable(compare.find_runs([folder / "vae"])[0]))
    assert "one draw" not in text


def test_bounds_of_unequal_k_are_said(runs: Callable[..., Path]) -> None:
    folder = runs(a=VAE, b={**VAE, "num_samples": 5000}, c={"kind": "exact", "num_samples": 1})
    text = compare.as_text(compare.comparable(compare.find_runs([folder])[0]))
    assert "K differs (1,000, 5,000), and a bound falls with K" in text
    assert "--num-samples 5000" in text
    text = compare.as_text(compare.comparable(compare.find_runs([folder / "a", folder / "c"])[0]))
    assert "K differs" not in text


def test_a_run_given_by_its_own_folder_keeps_its_name(
    runs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = runs(vae__version_3=VAE, nice__version_0={}, lost__version_0={})
    (folder / "lost/version_0/results.json").unlink()
    (folder / "lost/version_0/checkpoints").mkdir()
    (folder / "lost/version_0/checkpoints/best.ckpt").touch()
    found, complaints = compare.find_runs([folder / "vae/version_3", folder / "nice/version_0", folder / "lost"])
    assert [run.name for run in found] == ["vae", "nice"]
    assert len(complaints) == 1
    assert "lost/version_0 was left out: it has no results.json; scripts/evaluate.py --ckpt" in complaints[0]
    monkeypatch.chdir(folder / "vae/version_3")
    assert [run.name for run in compare.find_runs(["."])[0]] == ["vae"]


def test_a_score_far_from_all_others_does_not_squeeze_the_picture(runs: Callable[..., Path]) -> None:
    folder = runs(a={"nll": 80.0}, b={"nll": 82.0}, c={"nll": 84.0}, d={"nll": 86.0}, e={"nll": 400.0})
    (axes,) = [
        a for a in comparison.draw(compare.comparable(compare.find_runs([folder])[0])).axes if a.get_title("left")
    ]
    assert axes.get_xlim()[1] < 90
    assert "400 →" in [text.get_text() for text in axes.texts]


def test_energies_are_ranked_by_their_kl(runs: Callable[..., Path]) -> None:
    energy = {"measure": "energy", "kind": "reverse-kl", "nll": None, "nll_stderr": None, "bpd": None}
    folder = runs(k2={**energy, "kl": 0.5, "kl_stderr": 0.01}, k8={**energy, "kl": 0.1, "kl_stderr": 0.01})
    (group,) = compare.comparable(compare.find_runs([folder])[0])
    assert [run.name for run in group] == ["k8", "k2"]
    assert "KL ± s.e., nats" in compare.as_text([group])
    comparison.draw([group])


def test_a_kl_is_not_ranked_among_nlls_and_no_run_counts_twice(runs: Callable[..., Path]) -> None:
    folder = runs(maf={}, rkl={"kind": "reverse-kl", "kl": 0.1, "kl_stderr": 0.01})
    found, _ = compare.find_runs([folder / "maf", folder])
    assert len(found) == 2
    groups = compare.comparable(found)
    assert [len(group) for group in groups] == [1, 1]
    assert "a KL to an energy is no nll of data" in compare.as_text(groups)


def test_page_picture_and_tensorboard(runs: Callable[..., Path], tmp_path: Path) -> None:
    folder = runs(vae=VAE, nice={"nll": 120.0}, static={"nll": 89.0, "test_fingerprint": "d" * 64})
    groups = compare.comparable(compare.find_runs([folder])[0])
    for _ in range(2):  # the second time it replaces the first
        page, picture, events = comparison.write(groups, tmp_path / "out")
    assert "| 1 | vae | VAE | importance-sampled, K = 1,000 | 88.00 ± 0.50 |" in page.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")
    logged = EventAccumulator(str(events)).Reload()
    assert logged.Tags()["images"] == ["comparison"]
    assert len(list(events.iterdir())) == 1


def test_what_is_no_result_is_named_and_left_out(runs: Callable[..., Path]) -> None:
    folder = runs(good={}, lacking={"kind": "exact"})
    (folder / "lacking" / "results.json").write_text(json.dumps({"model": "VAE"}))
    (folder / "broken").mkdir()
    (folder / "broken" / "results.json").write_text("{")
    found, complaints = compare.find_runs([folder])
    assert [run.name for run in found] == ["good"]
    assert any("lacking/results.json was left out: it has no data" in c for c in complaints)
    assert any("broken/results.json was left out" in c for c in complaints)
    with pytest.raises(VaeflowError, match="there is no folder"):
        compare.find_runs([folder / "nowhere"])
    with pytest.raises(VaeflowError, match="there are no results in"):
        compare.find_runs([folder / "broken"])
