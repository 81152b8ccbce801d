"""Metrics, thresholds and intervals: what is said of a system's scores, and how sure it is."""

from __future__ import annotations

from avrepro.evaluation.intervals import (
    Interval,
    class_f1_intervals,
    metric_interval,
    micro_f1_interval,
    seed_interval,
)
from avrepro.evaluation.metrics import TaggingScores, average_precision, d_prime, roc_auc, tagging_scores
from avrepro.evaluation.thresholds import cross_validated_decisions, threshold_sweep, tune_thresholds

__all__ = [
    "Interval",
    "TaggingScores",
    "average_precision",
    "class_f1_intervals",
    "cross_validated_decisions",
    "d_prime",
    "metric_interval",
    "micro_f1_interval",
    "roc_auc",
    "seed_interval",
    "tagging_scores",
    "threshold_sweep",
    "tune_thresholds",
]
