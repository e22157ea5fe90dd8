"""What a user is shown while a model trains, and what is kept."""

from vaeflow.callbacks.averaging import Averaging
from vaeflow.callbacks.pictures import Pictures, draw
from vaeflow.callbacks.run import Checkpoints, Curves, Progress, Unchanged, tensorboards

__all__ = ["Averaging", "Checkpoints", "Curves", "Pictures", "Progress", "Unchanged", "draw", "tensorboards"]
