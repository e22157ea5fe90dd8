"""Draw what planar flows do to a Gaussian and to a uniform density."""

from vaeflow.commands import draw_push_forward
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(draw_push_forward)
