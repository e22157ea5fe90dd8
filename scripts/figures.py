"""Make the gallery: train its models, draw all its pictures."""

from vaeflow.commands import figures
from vaeflow.commands.messages import main

if __name__ == "__main__":
    main(figures)
