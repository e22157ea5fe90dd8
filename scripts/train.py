"""Train a model from a config, evaluate its best checkpoint on the test split, and say what came out."""

from vaeflow.commands import train
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(train)
