"""Validation of systems whose epoch is the one with the highest mAP on validation clips."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from avrepro.evaluation import average_precision
from avrepro.training import Validation


def judged(
    scores: np.ndarray, weak_labels: np.ndarray, entropy: Callable[..., Tensor] = F.binary_cross_entropy
) -> Validation:
    """Binary cross entropy and mAP, both of [clips, classes]; ``entropy`` takes the scores, probabilities or logits."""
    loss = entropy(torch.from_numpy(scores), torch.from_numpy(weak_labels).float())
    return Validation(float(loss), mean_ap(weak_labels, scores))


def mean_ap(weak_labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean average precision over the classes that have a positive clip; both [clips, classes]."""
    found = average_precision(weak_labels, scores)
    return float(np.nanmean(found)) if np.isfinite(found).any() else 0.0
