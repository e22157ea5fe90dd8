"""Encode examples by a checkpoint's model and decode them again."""

from vaeflow.commands import reconstruct
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(reconstruct)
