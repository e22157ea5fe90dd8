"""What the README tells a newcomer to write works as it stands there. Its Python examples are doctests."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vaeflow.configs import CONFIGS

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
    best = tmp_path / "runs/vae_full/version_0/checkpoints/best.ckpt"
    status, output = run("evaluate", "--ckpt", best, "--num-samples", 2)
    assert status == 1
    assert "--trust" in output
    status, output = run("evaluate", "--ckpt", best, "--num-samples", 2, "--trust", "my_flows")
    assert status == 0, output

    from my_flows import FullCovariance  # type: ignore[import-not-found]

    flow = FullCovariance(4, 3).double()
    z, context = torch.randn(5, 2, 4).double(), torch.randn(2, 3).double()
    x, _ = flow(z, context)
    torch.testing.assert_close(flow.inverse(x, context)[0], z)
