"""Data modules: one for each source."""

from vaeflow.data.arrays import Arrays
from vaeflow.data.base import DataModule
from vaeflow.data.digits import Digits
from vaeflow.data.energies import EnergyData
from vaeflow.data.frey_faces import FreyFaces
from vaeflow.data.image_folder import ImageFolder
from vaeflow.data.torchvision_sets import CIFAR10, MNIST
from vaeflow.data.toys import Toy

__all__ = ["CIFAR10", "MNIST", "Arrays", "DataModule", "Digits", "EnergyData", "FreyFaces", "ImageFolder", "Toy"]
