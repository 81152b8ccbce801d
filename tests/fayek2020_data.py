"""Made-up clips and weights for tests of Fayek and Kumar (2020): features in memory, and no files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from avrepro.conditions import Condition
from avrepro.corpora.base import Clip, Corpus
from avrepro.features.store import ClipArrays, Feature
from avrepro.systems import Data

CLASSES = ("low", "leftwards", "never")


def made_up_data(
    condition: Condition,
    labels: np.ndarray,
    splits: Sequence[str],
    features: Sequence[tuple[Feature, Sequence[np.ndarray], np.ndarray | None]],
) -> Data:
    """Clips with labels, bool [clips, 3], and arrays of each feature, with which clips have the stream at all."""
    clips = tuple(
        Clip(f"{row:03}", Path(f"{row:03}.mp4"), split, tuple(np.array(CLASSES)[own]))
        for row, (split, own) in enumerate(zip(splits, labels, strict=True))
    )
    data = Data(Corpus("made-up", CLASSES, clips, (), "d"), condition, torch.device("cpu"))
    for feature, arrays, present in features:
        here = np.ones(len(clips), dtype=bool) if present is None else present
        data._extracted[feature.recipe.key] = ClipArrays(tuple(arrays), here)
    return data


def randomise(network: nn.Module, weights: float = 0.7) -> None:
    """Other numbers than those a network starts with, so that none can be left out unnoticed."""
    for name, one in network.state_dict().items():
        if name.endswith(("running_var", "deviation", "moments")):
            one.uniform_(0.5, 2)
        elif one.is_floating_point():
            one.copy_(torch.randn_like(one) * (weights if one.ndim > 1 else 1))
