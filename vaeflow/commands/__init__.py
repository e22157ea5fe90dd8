"""What the scripts do, one function each."""

from vaeflow.commands.drawing import draw_density, draw_layers, draw_push_forward, sample
from vaeflow.commands.evaluation import compare_runs, evaluate_checkpoint
from vaeflow.commands.gallery import figures, latent_dimensions
from vaeflow.commands.latent import attribute, draw_manifold, draw_posteriors, interpolate, reconstruct
from vaeflow.commands.training import train

__all__ = [
    "attribute",
    "compare_runs",
    "draw_density",
    "draw_layers",
    "draw_manifold",
    "draw_posteriors",
    "draw_push_forward",
    "evaluate_checkpoint",
    "figures",
    "interpolate",
    "latent_dimensions",
    "reconstruct",
    "sample",
    "train",
]
