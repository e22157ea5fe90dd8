"""Rank all runs below some folders, each among those that it is comparable with."""

from vaeflow.commands import compare_runs
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(compare_runs)
