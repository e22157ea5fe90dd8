"""Train VAEs of several latent dimensions, and show their samples side by side."""

from vaeflow.commands import latent_dimensions
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(latent_dimensions)
