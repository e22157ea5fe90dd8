"""Decode all of a latent space of two dimensions."""

from vaeflow.commands import draw_manifold
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(draw_manifold)
