"""What processes that tests start have loaded already: they are forked from one that has imported this."""

import sklearn.datasets
import torch
import torch.utils.tensorboard

from vaeflow.noise import Noise

torch.set_num_threads(1)
sklearn.datasets.load_digits()
Noise(0, "train", 0, torch.arange(2)).normal("preloaded", 1, (1,))  # numba gets ready at its first use
