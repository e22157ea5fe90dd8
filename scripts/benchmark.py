"""Time vaeflow beside other libraries and beside plain dense nets."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is no part of the package

from benchmarks.command import benchmark
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(benchmark)
