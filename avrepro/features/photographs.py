"""The picture branch of Li et al. (2017) on photographs: objects by ImageNet, sound events by their names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from avrepro.backbones.efficientnet import EfficientNetLite0
from avrepro.features.words import (
    clip_objects,
    corrected_similarities,
    glove,
    map_objects_to_events,
    similarities,
)
from avrepro.training import choose_device

WORDS = "glove.6B.50d"


def events_seen(pictures: np.ndarray, classes: Sequence[str], corrected: bool = False) -> np.ndarray:
    """Scores of sound events in photographs (section 2.2.2); nothing is learnt, so any names of events will do.

    Each photograph is taken for the only key frame of a clip: its objects are rectified, and each gives its probability
    to the event whose name is nearest.

    :param pictures: uint8 [n, h, w, 3], RGB. :param classes: names of events, such as "Car passing by".
    :param corrected: word vectors without what all words share; ours, see ``corrected_similarities``.
    :returns: float32 [n, classes], fractions 0..1 that sum to at most 1 over the classes.
    """
    network = _network(choose_device("auto"))
    objects = clip_objects(network.probabilities(pictures)[:, None])  # (n, 1000)
    vectors = glove(WORDS, (*network.classes, *classes))
    similarity = (corrected_similarities if corrected else similarities)(network.classes, classes, vectors)
    return map_objects_to_events(objects, similarity).astype(np.float32)


@cache
def _network(device: torch.device) -> EfficientNetLite0:
    return EfficientNetLite0.pretrained(device=device)  # that resizes photographs to 224 px, as it was trained
