"""Follow data to noise and noise to data through the layers of a flow."""

from vaeflow.commands import draw_layers
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(draw_layers)
