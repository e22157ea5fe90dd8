"""What the scripts do, one function each."""

from vaeflow.commands.benchmark import benchmark
from vaeflow.commands.drawing import draw_density, draw_layers, draw_push_forward, sample
from vaeflow.commands.evaluation import compare_runs, evaluate_checkpoint
from vaeflow.commands.fuzz import fuzz
from vaeflow.commands.gallery import figures, latent_dimensions
from vaeflow.commands.latent import attribute, draw_manifold, draw_posteriors, interpolate, reconstruct
from vaeflow.commands.reproduce import reproduce
from vaeflow.commands.scaling import scaling
from vaeflow.commands.training import train

__all__ = [
    "attribute",
    "benchmark",
    "compare_runs",
    "draw_density",
    "draw_layers",
    "draw_manifold",
    "draw_posteriors",
    "draw_push_forward",
    "evaluate_checkpoint",
    "figures",
    "fuzz",
    "interpolate",
    "latent_dimensions",
    "reconstruct",
    "reproduce",
    "sample",
    "scaling",
    "train",
]
