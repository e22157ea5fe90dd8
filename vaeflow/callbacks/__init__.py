"""What a user is shown while a model trains."""

from vaeflow.callbacks.pictures import Pictures, draw
from vaeflow.callbacks.run import Checkpoints, Curves, Progress, Unchanged

__all__ = ["Checkpoints", "Curves", "Pictures", "Progress", "Unchanged", "draw"]
