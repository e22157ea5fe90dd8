"""Evaluation against log-weights: no model is imported here."""

from vaeflow.evaluation.evaluate import Evaluation, evaluate
from vaeflow.evaluation.metrics import ActiveUnits, LogLikelihood

__all__ = ["ActiveUnits", "Evaluation", "LogLikelihood", "evaluate"]
