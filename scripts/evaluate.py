"""Evaluate a checkpoint by importance sampling."""

from vaeflow.cli import evaluate_checkpoint, main

if __name__ == "__main__":
    main(evaluate_checkpoint)
