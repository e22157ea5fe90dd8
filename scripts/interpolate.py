"""Walk between examples through the latent space of a checkpoint's model."""

from vaeflow.commands import interpolate
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(interpolate)
