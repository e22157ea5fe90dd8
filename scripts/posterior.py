"""Compare the posteriors of models with two latents."""

from vaeflow.commands import draw_posteriors
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(draw_posteriors)
