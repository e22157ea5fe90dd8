"""Train what a table of RESULTS.md holds, and write it."""

from vaeflow.commands import reproduce
from vaeflow.messages import main

if __name__ == "__main__":
    main(reproduce)
