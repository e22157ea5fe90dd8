"""Look for what ends neither in a trained step nor in one clear sentence."""

from vaeflow.commands import fuzz
from vaeflow.messages import main

if __name__ == "__main__":
    main(fuzz)
