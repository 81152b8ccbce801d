"""What DS3 is better than, says Li et al. (2017), section 2.2.1: key frames at equal intervals, and by k-means."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from avrepro import digests
from avrepro.features.key_frames import evenly_spaced
from avrepro.features.objects import Backbone, key_frame_times
from avrepro.features.store import Feature

Choice = Literal["even", "kmeans"]


def other_key_frame_times(network: Backbone, rate: float, size: tuple[int, int], k: int, choice: Choice) -> Feature:
    """Times of as many key frames out of the same frames as :func:`key_frame_times` chooses from, float64 [k], s."""
    by_ds3 = key_frame_times(network, rate, size, k)

    def compute(decoded: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        frames, times = decoded
        count = min(k, len(frames))
        if choice == "even":
            chosen = evenly_spaced(len(frames), count)
        else:
            chosen = nearest_to_centres(network.maps(frames).reshape(len(frames), -1), count)
        return times[np.resize(chosen, k)]

    digest = digests.of_values([by_ds3.digest, choice, digests.code("experiments/key_frame_baselines.py")])
    return replace(by_ds3, name=f"key-frames-{choice}", digest=digest, compute=compute)


def nearest_to_centres(features: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """The frames nearest to the k centres that k-means finds, int64 [at most k], rising; float [frames, d]."""
    from sklearn.cluster import KMeans

    distances = KMeans(k, n_init=4, random_state=seed).fit_transform(features)  # (frames, k)
    return np.unique(distances.argmin(axis=0))
