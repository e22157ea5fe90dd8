"""Look for what ends neither in a trained step nor in one clear sentence."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # tests/ is no part of the package

from tests.fuzz.command import fuzz
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(fuzz)
