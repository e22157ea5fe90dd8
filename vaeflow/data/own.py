"""Where checkpoints of earlier versions look for the classes of the user's own data."""

from vaeflow.data.arrays import Arrays
from vaeflow.data.image_folder import ImageFolder

__all__ = ["Arrays", "ImageFolder"]
