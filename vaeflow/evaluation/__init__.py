"""Evaluation against log-weights: no model is imported here."""

from vaeflow.evaluation.evaluate import Evaluation, evaluate
from vaeflow.evaluation.log_likelihood import RunningLogSum, log_likelihood, log_mean_exp
from vaeflow.evaluation.metrics import ActiveUnits, LogLikelihood, Means

__all__ = [
    "ActiveUnits",
    "Evaluation",
    "LogLikelihood",
    "Means",
    "RunningLogSum",
    "evaluate",
    "log_likelihood",
    "log_mean_exp",
]
