"""Metrics, thresholds and intervals: numbers of a system's scores, and how sure they are."""

from __future__ import annotations

from avrepro.evaluation.calibration import calibration_error, platt
from avrepro.evaluation.intervals import Interval, d_prime_interval, metric_interval, micro_f1_interval
from avrepro.evaluation.metrics import TaggingScores, tagging_scores
from avrepro.evaluation.ranking import average_precision, d_prime, roc_auc
from avrepro.evaluation.resampling import Resampled, resample
from avrepro.evaluation.seeds import bonferroni_level, resplit_interval, summarise, summarise_by_class
from avrepro.evaluation.thresholds import cross_validated_decisions, threshold_sweep, tune_thresholds

__all__ = [
    "Interval", "Resampled", "TaggingScores", "average_precision", "bonferroni_level", "calibration_error",
    "cross_validated_decisions", "d_prime", "d_prime_interval", "metric_interval", "micro_f1_interval", "platt",
    "resample", "resplit_interval", "roc_auc", "summarise", "summarise_by_class", "tagging_scores", "threshold_sweep",
    "tune_thresholds",
]  # fmt: skip
