"""What the README tells a newcomer to write works as it stands there. Its Python examples are doctests."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from vaeflow.bijections import check_bijection
from vaeflow.commands.configs import CONFIGS

README = (CONFIGS.parent / "README.md").read_text()


def test_your_own_flow(run: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"`my_flows.py`.*?```python\n(.*?)```", README, re.DOTALL)
    commands = re.search(r"```bash\npython scripts/train.py (.*my_flows.*)\npython scripts/train.py (.*)\n```", README)
    assert code is not None
    assert commands is not None
    assert len([line for line in code[1].splitlines() if line.strip()]) <= 20
    (tmp_path / "my_flows.py").write_text(code[1])
    for command in commands.groups():
        status, output = run("train", *shlex.split(command), "--trainer.max_epochs", 1, "--num_samples", 2)
        assert status == 0, output
        assert "warning" not in output
    best = tmp_path / "runs/vae_full/version_0/checkpoints/best.ckpt"
    status, output = run("evaluate", "--ckpt", best, "--num-samples", 2)
    assert status == 1
    assert "--trust" in output
    status, output = run("evaluate", "--ckpt", best, "--num-samples", 2, "--trust", "my_flows")
    assert status == 0, output

    from my_flows import FullCovariance  # type: ignore[import-not-found]

    assert check_bijection(FullCovariance(4, 8), 4, 8) == []


def test_a_chain_in_a_config(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    config = re.search(r"`mine.yaml`.*?```yaml\n(.*?)```", README, re.DOTALL)
    assert config is not None
    (tmp_path / "mine.yaml").write_text(config[1])
    small = ("--data.num_train", 1000, "--data.num_val", 100, "--data.num_test", 100, "--trainer.max_epochs", 1)
    status, output = run("train", "--config", "mine.yaml", *small)
    assert status == 0, output
    assert "Flow on pinwheel, test split: 100 examples, continuous" in output


def test_the_model_of_ones_own_is_the_example() -> None:
    example = (CONFIGS.parent / "docs/examples/two_level_vae.py").read_text()
    assert example.partition('"""\n\n')[2] in README
