"""Audio segments in time, and seconds: proposals for a system that takes sound and pictures to be in step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from avrepro.features.bags import Bags

SEGMENT, HOP = 0.96, 0.48  # s, audio proposals of Parekh et al. (2018), section 3.1


def segment_times(count: int) -> np.ndarray:
    """Start and end of each of ``count`` segments, s, float64 [count, 2]."""
    starts = HOP * np.arange(count)
    return np.column_stack([starts, starts + SEGMENT])


@dataclass(frozen=True)
class Seconds:
    """One proposal a second, for the synchronous baseline: the frame that is on show then beside the sound of then.

    Of a frame's regions the maximum of each feature; of the segments that overlap the second, the mean. Both are
    scaled, so that neither drowns the other. A picture stays on show after the last frame; a missing modality is zeros.
    """

    segments: Bags
    regions: Bags | None  # None: seconds of sound alone
    boxes: Bags | None  # proposals [frames, boxes, 5] of each clip
    scales: tuple[float, ...]  # that features of segments and of regions are divided by
    delay: int = 0  # s by which frames come late; those of the clip's end come first

    @property
    def features(self) -> int:
        """Of a second: those of a region, then those of a segment."""
        return self.segments.features + (self.regions.features if self.regions is not None else 0)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Seconds of each clip, int [clips]: those of its sound or, where there is none, of its frames."""
        sizes = self.segments.sizes
        of_sound = np.ceil(HOP * (sizes - 1) + SEGMENT - HOP / 2).astype(int)
        return np.where(sizes > 0, of_sound, 0 if self.boxes is None else self.boxes.sizes)

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, row: int) -> np.ndarray:
        """float32 [seconds, features] of one clip."""
        segments = self.segments.arrays[row]
        seconds = np.zeros((self.sizes[row], self.features), np.float32)
        width = self.features - self.segments.features
        frame, regions = np.empty(0, int), np.empty((0, width))
        if self.regions is not None and self.boxes is not None:
            rows, regions = self.boxes.arrays[row], self.regions.arrays[row]
            frame = (np.nonzero(~np.isnan(rows[..., 4]))[0] + self.delay) % max(1, len(rows))  # of each region
        spans = segment_times(len(segments))
        for second, features in enumerate(seconds):
            if len(frame):
                features[:width] = regions[frame == min(second, frame.max())].max(axis=0) / self.scales[1]
            overlapping = (spans[:, 0] < second + 1) & (spans[:, 1] > second)
            if overlapping.any():
                features[width:] = segments[overlapping].mean(axis=0, dtype=np.float32) / self.scales[0]
        return seconds
