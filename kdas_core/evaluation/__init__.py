"""Scores of predicted masks: the 13 metrics of the released evaluation, and what else papers print
(chapter 7).
"""

from kdas_core.evaluation.boundary import SURFACE_METRICS
from kdas_core.evaluation.conventions import CONVENTIONS, minmax_grey
from kdas_core.evaluation.evaluator import EvaluationResult, baselines, evaluate, evaluate_sets
from kdas_core.evaluation.files import read_prediction, repeats
from kdas_core.evaluation.metrics import ALL_METRICS, CURVES, METRICS, THRESHOLDS, image_curves
from kdas_core.evaluation.scores import image_metrics

__all__ = [
    "ALL_METRICS",
    "CONVENTIONS",
    "CURVES",
    "METRICS",
    "SURFACE_METRICS",
    "THRESHOLDS",
    "EvaluationResult",
    "baselines",
    "evaluate",
    "evaluate_sets",
    "image_curves",
    "image_metrics",
    "minmax_grey",
    "read_prediction",
    "repeats",
]
