"""Metrics, thresholds and intervals: numbers of a system's scores, and how sure they are."""

from __future__ import annotations

from avrepro.evaluation.calibration import platt
from avrepro.evaluation.intervals import Interval, metric_interval, micro_f1_interval
from avrepro.evaluation.metrics import tagging_scores
from avrepro.evaluation.ranking import average_precision, d_prime, roc_auc
from avrepro.evaluation.resampling import resample
from avrepro.evaluation.seeds import bonferroni_level, summarise
from avrepro.evaluation.thresholds import cross_validated_decisions, tune_thresholds

__all__ = [
    "Interval", "average_precision", "bonferroni_level", "cross_validated_decisions", "d_prime", "metric_interval",
    "micro_f1_interval", "platt", "resample", "roc_auc", "summarise", "tagging_scores", "tune_thresholds",
]  # fmt: skip
