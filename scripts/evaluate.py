"""Evaluate a checkpoint by importance sampling."""

from vaeflow.commands import evaluate_checkpoint
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(evaluate_checkpoint)
