"""Machine code is made once, and found on the disk by later processes."""

from __future__ import annotations

import subprocess
import sys


def test_a_later_process_finds_the_jobs_of_an_earlier_one() -> None:
    code = "from vaeflow.kernels import cpu; print([cpu.member('bernoulli', s).cache_hits for s in (4, 8)])"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[1, 1]"
