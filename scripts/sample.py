"""Draw samples of a checkpoint's model."""

from vaeflow.commands import sample
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(sample)
