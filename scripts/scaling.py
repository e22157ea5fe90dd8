"""Say what more devices would bring, from what a step and an all-reduce take here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is no part of the package

from benchmarks.scaling_command import scaling
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(scaling)
