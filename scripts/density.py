"""Draw a density of the plane beside the data's own."""

from vaeflow.commands import draw_density
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(draw_density)
