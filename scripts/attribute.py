"""Add an attribute to examples along its direction in latent space."""

from vaeflow.commands import attribute
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(attribute)
