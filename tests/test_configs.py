"""Configs by name, and what they take from the base that they name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from vaeflow.commands import configs
from vaeflow.commands.configs import CONFIGS, config_names, experiment_of, find_config, read_config
from vaeflow.errors import VaeflowError

Run = Callable[..., tuple[int, str]]


def test_a_bare_name_is_the_digits_one() -> None:
    assert find_config("vae_iaf") == find_config("vae_iaf.yaml") == CONFIGS / "digits/vae_iaf.yaml"
    assert find_config("mnist/vae") == CONFIGS / "mnist/vae.yaml"
    assert find_config("digits/vae") == find_config("vae")
    names = config_names()
    assert {"vae_iaf", "mnist/vae", "energies/u1_planar", "mnist/paper/vae_conv"} <= set(names)
    assert not [name for name in names if name.startswith("digits/") or name.endswith("base")]
    assert len(set(names)) == len(names)
    assert all(find_config(name).is_file() for name in names)
    assert experiment_of([find_config("vae_iaf")]) == "vae_iaf"
    assert experiment_of([find_config("toys/maf")]) == "toys/maf"


@pytest.mark.parametrize("name", config_names())
def test_a_config_says_what_its_model_is_in_few_lines(name: str) -> None:
    lines = [line for line in find_config(name).read_text().splitlines() if not line.lstrip().startswith("#")]
    assert len(lines) <= 20
    config = read_config(find_config(name))
    assert {"model", "data"} <= set(config)
    assert "base" not in config


@pytest.mark.parametrize(
    ("base", "own", "wanted"),
    [
        ("{a: 1, b: {c: 2, d: 3}}", "{b: {d: 4, e: 5}}", {"a": 1, "b": {"c": 2, "d": 4, "e": 5}}),
        ("{m: {init_args: {x: 1}}}", "{m: {class_path: A}}", {"m": {"class_path": "A", "init_args": {"x": 1}}}),
        ("{o: {class_path: A, init_args: {x: 1}}}", "{o: {init_args: {y: 2}}}",
         {"o": {"class_path": "A", "init_args": {"x": 1, "y": 2}}}),
        ("{o: {class_path: A, init_args: {x: 1}}}", "{o: {class_path: B, init_args: {y: 2}}}",
         {"o": {"class_path": "B", "init_args": {"y": 2}}}),
        ("{o: {class_path: A, init_args: {x: 1}}}", "{o: B}", {"o": "B"}),
        ("{o: [1, 2]}", "{o: [3]}", {"o": [3]}),
        ("{o: A}", "{o: {init_args: {y: 2}}}", {"o": {"class_path": "A", "init_args": {"y": 2}}}),
        ("{o: A}", "{o: {class_path: B, init_args: {y: 2}}}", {"o": {"class_path": "B", "init_args": {"y": 2}}}),
    ],
)  # fmt: skip
def test_a_config_changes_its_base(base: str, own: str, wanted: object, tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text(base)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"base": "first.yaml", **yaml.safe_load(own)}))
    assert read_config(tmp_path / "own.yaml") == wanted


def test_a_base_is_found_as_configs_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEWHERE", str(CONFIGS / "digits"))
    wanted = read_config(find_config("vae_iaf"))
    for base in ("vae_iaf", "vae_iaf.yaml", "$SOMEWHERE/vae_iaf.yaml"):
        (tmp_path / "mine.yaml").write_text(f"base: {base}\n")
        assert read_config(tmp_path / "mine.yaml") == wanted
    for name in ("base", "mnist/base", "digits/base"):
        with pytest.raises(TypeError, match="there is no config"):
            find_config(name)


def test_a_base_has_a_base(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"base: {CONFIGS}/digits/vae_iaf.yaml\ntrainer: {{max_epochs: 1}}\n")
    code, output = run("train", "--config", "mine.yaml", "--model.flow.steps", 1, "--trainer.limit_train_batches", 2,
                       "--num_samples", 0, "--pictures.every", 0)  # fmt: skip
    assert code == 0, output
    config = yaml.safe_load((tmp_path / "runs/mine/version_0/config.yaml").read_text())
    assert config["model"]["init_args"]["latent_features"] == 16
    assert config["model"]["init_args"]["flow"]["init_args"]["steps"] == 1
    assert config["trainer"]["max_epochs"] == 1
    assert "base" not in config


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.yaml": "base: b.yaml"}, "a.yaml has the base b.yaml, which is no file beside it, and no config's name"),
        ({"a.yaml": "base: [b.yaml]"}, "expected one file beside it, or the name of a config"),
        ({"a.yaml": "base:"}, "has the base None, expected one file"),
        ({"a.yaml": "base: b.yaml", "b.yaml": "a text"}, "b.yaml is a base, and holds no keys and values"),
        ({"a.yaml": "base: a.yaml"}, "of which it is the base itself"),
        ({"a.yaml": "base: b.yaml", "b.yaml": "base: a.yaml"}, "of which it is the base itself"),
        ({"a.yaml": "base: b.yaml", "b.yaml": "x: ["}, "b.yaml is no YAML"),
    ],
)
def test_a_base_that_cannot_be_one_is_refused(files: dict[str, str], said: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(VaeflowError, match=said):
        read_config(tmp_path / "a.yaml")


def test_a_config_that_holds_no_keys_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    code, output = run("train", "--config", "list.yaml")
    assert code == 2
    assert "list.yaml holds no keys and values" in output


def test_an_installation_without_the_repository_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(configs, "CONFIGS", tmp_path / "configs")
    monkeypatch.setattr(configs, "DIGITS", tmp_path / "configs/digits")
    with pytest.raises(TypeError, match="belong to the repository, and vaeflow is installed without it"):
        find_config("vae_iaf")
