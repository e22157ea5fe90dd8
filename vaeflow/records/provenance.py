"""What a run was made with: the commit, the libraries, the machine, the command line."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import vaeflow
from vaeflow.files import whole

LIBRARIES = ("torch", "pytorch-lightning", "torchmetrics", "numpy", "numba", "scikit-learn")


def git_commit() -> str | None:
    """The commit of vaeflow's own repository, with a + where code or configs have changed since; None for an installed
    package."""

    def git(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        here = Path(__file__).parent
        return subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, cwd=here, check=check)

    try:
        git("ls-files", "--error-unmatch", __file__)
        commit = git("rev-parse", "HEAD").stdout.strip()
        parts = [f":(top){name}" for name in ("vaeflow", "scripts", "configs")]
        is_changed = git("diff", "--quiet", "HEAD", "--", *parts, check=False).returncode != 0
        return commit + "+" * is_changed
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Of everything that a number may depend on."""
    found = {"python": platform.python_version(), "vaeflow": vaeflow.__version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def name_of(device: torch.device) -> str:
    """What a GPU or the processor is called by its maker."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def record_start(path: Path, device: torch.device, **more: Any) -> None:
    """Add to a run's ``run.json`` how it was started, or resumed, this time.

    Args:
        more: what else is kept of it.
    """
    starts = json.loads(path.read_text()) if path.is_file() else []
    start = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git_commit": git_commit(),
        "versions": versions(),
        "device": name_of(device),
        "threads": torch.get_num_threads(),
        **more,
    }
    with whole(path) as file:
        file.write(json.dumps([*starts, start], indent=2, default=str).encode() + b"\n")
