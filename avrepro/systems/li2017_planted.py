"""The fusion of Li et al. (2017) in the demo world, with parts of its picture branch replaced by what was planted.

What lies between the rows is lost by the part that was replaced: by the recogniser of objects, or by the word vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from avrepro.features.words import map_objects_to_events
from avrepro.systems.base import Checkpoint, Data, System
from avrepro.systems.li2017 import Fused, Video


class PlantedVideo(Video):
    """The picture branch with true objects and, if asked for, their true sound events in place of the words'.

    With true events a class has 1 where an object that can be its source is in view in a key frame. Classes that share
    an object (Train and Train horn, say) all have it: no eye could tell them apart.
    """

    def __init__(self, name: str, title: str, true_words: bool) -> None:
        super().__init__(name, title, "ours")
        self.true_words = true_words

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        if data.corpus.strong is None:
            raise ValueError(f"{self.name}: corpus {data.corpus.name} has no planted truth")
        return super().fit(data, given, seed, state_path)

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        from avrepro.corpora.demo.vocabulary import SIGHTS

        names = self.recogniser(data.condition).objects
        views = self._views(data)  # (clips, key frames, objects)
        if self.true_words:
            seen = np.asarray(views.any(axis=1))  # (clips, objects)
            sources = [[name in SIGHTS[label] for name in names] for label in checkpoint.classes]
            return (seen[:, None, :] & np.array(sources)).any(axis=2).astype(np.float32)
        for axis in (2, (1, 2)):  # shares in each key frame, then in the clip; a view of nothing stays nothing
            totals = views.sum(axis=axis, keepdims=True)
            views = np.divide(views, totals, out=np.zeros_like(views), where=totals > 0)
        similarity = self.similarity(tuple(checkpoint.classes), data.condition)
        return map_objects_to_events(views.sum(axis=1), similarity)

    def _views(self, data: Data) -> np.ndarray:
        """Visible area of each object in each key frame, px, float64 [clips, key frames, objects]."""
        from avrepro.corpora.demo.description import load_world_description

        assert data.corpus.strong is not None
        sight = pd.read_parquet(data.corpus.strong / "sight.parquet")
        sight = sight.assign(area=sight["w"] * sight["h"] * sight["visible"])
        sight = sight[sight["area"] > 0]
        names = self.recogniser(data.condition).objects
        column = {name: index for index, name in enumerate(names)}
        times = data.arrays(self.features(data.condition)["times"])[:]  # (clips, key frames)
        frames = np.round(times * load_world_description().clip.frames_per_second).astype(int)
        by_view = {key: rows for key, rows in sight.groupby(["clip", "frame"])[["object", "area"]]}
        views = np.zeros((*frames.shape, len(names)))
        for row, clip in enumerate(data.corpus.clips):
            for k, frame in enumerate(frames[row]):
                for seen in getattr(by_view.get((clip.id, frame)), "itertuples", tuple)():
                    views[row, k, column[seen.object]] += seen.area
        return views


ROWS: tuple[System, ...] = (
    PlantedVideo("li2017/video_true_objects", "Video only, true objects", true_words=False),
    PlantedVideo("li2017/video_true_sources", "Video only, true objects and words", true_words=True),
    Fused("li2017/fused_true_objects", "Audio + video, true objects", "ours", video="li2017/video_true_objects"),
    Fused("li2017/fused_true_sources", "Audio + video, true objects and words", "ours", "li2017/video_true_sources"),
)
