"""Train what a table of RESULTS.md holds, and write it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # results/ is no part of the package

from results.command import reproduce
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(reproduce)
