"""Made-up clips with planted classes, with every feature that a trained system reads, in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from avrepro.conditions import Condition
from avrepro.corpora.base import Clip, Corpus
from avrepro.features.store import ClipArrays, Feature
from avrepro.models.bottleneck import BottleneckConfig
from avrepro.models.fayek2020 import AudioConfig, VisualConfig
from avrepro.models.fayek2020_others import ResidualAudioConfig, VideoR2Plus1DConfig
from avrepro.models.gated_crnn import GatedCRNNConfig
from avrepro.models.li2017 import CRNNConfig
from avrepro.systems import SYSTEMS, Checkpoint, Data
from avrepro.training import Optimisation

CLASSES = ("horn", "rattle", "bark")
SPLITS = ("train", "validation", "train", "test")

ADAM = Optimisation("adam", 1e-2, batch=12, epochs=8)
MIL = {"region_units": 16, "segment_units": 16, "optimisation": Optimisation("adam", 5e-3, 24, 1, steps=150)}
GATED = {
    "gated_crnn": GatedCRNNConfig(channels=(4, 8), pool_time=(2, 2), pool_mel=(8, 2), features=12, hidden=6),
    "gated_crnn_optimisation": Optimisation("adam", 1e-2, 12, 1, steps=60),
}
FAYEK = {
    "audio": AudioConfig(channels=(4, 8, 8, 8), instance=16, units=16),
    "audio_optimisation": ADAM,
    "mixing": 0.0,
    "visual": VisualConfig(hidden=(16, 16, 8, 8)),
    "visual_optimisation": ADAM,
    "visual_rates": (1e-3, 1e-2),
    "units": 16,
    "fusion_optimisation": replace(ADAM, epochs=20),
    "fusion_rates": (1e-3, 1e-2),
}
OTHERS = {
    "audio": ResidualAudioConfig(block="basic", layers=(1, 1, 1, 1), channels=(4, 4, 8, 8)),
    "video": VideoR2Plus1DConfig(block="basic", layers=(1, 1), channels=(8, 16)),
    "hidden": 16,
    "measured": 2,
    **dict.fromkeys(("audio_optimisation", "video_optimisation", "blend_optimisation"), ADAM),
}
LI = {"crnn": CRNNConfig(channels=(8, 8, 8), hidden=12), "optimisation": ADAM, "mixing": 0.0}
BOTTLENECK = {
    "network": BottleneckConfig(width=16, heads=2, hidden=32, dropout=0.1),
    "optimisation": Optimisation("adam", 1e-2, 12, 3, steps=40, clip_norm=1.0),
}
OPTIONS = {  # system -> settings with which it learns the planted classes in seconds
    name: options
    for options, names in (
        (LI, ["li2017/audio"]),
        (MIL | GATED, [name for name in SYSTEMS if name.startswith("parekh2018/")]),
        (FAYEK, [name for name in SYSTEMS if name.startswith("fayek2020/")]),
        (OTHERS, ["fayek2020/resnet_audio", "fayek2020/r2plus1d_visual", "fayek2020/gblend"]),
        (BOTTLENECK, ["beyond/bottleneck"]),
    )
    for name in names
}


def short(name: str) -> dict[str, Any]:
    """The system's settings, with trainings of 2 epochs."""
    return {
        key: replace(value, epochs=2, steps=min(value.steps, 2)) if isinstance(value, Optimisation) else value
        for key, value in OPTIONS[name].items()
    }


class Toy(Data):
    """160 clips each of whose classes is in one region, one segment, one stretch of sound and the frames' colours."""

    def __init__(self, options: dict[str, Any], impaired: str = "", seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        labels = rng.random((160, 3)) < 0.35
        clips = [
            Clip(f"{at}", Path(f"{at}.mp4"), SPLITS[at % 4], tuple(np.array(CLASSES)[row].tolist()))
            for at, row in enumerate(labels)
        ]
        condition = Condition("paired", "ci", device="cpu", options=tuple(options.items()))
        super().__init__(Corpus("toy", CLASSES, tuple(clips), (), "d"), condition, torch.device("cpu"), impaired)
        self.made: dict[str, list[np.ndarray]] = {}
        self.without_pictures: list[int] = []
        for row in labels:
            for name, array in _planted(row, rng).items():
                self.made.setdefault(name, []).append(array)

    def arrays(self, feature: Feature) -> ClipArrays:
        name = feature.recipe.name
        items = self.made[name if name in self.made else name.split("/")[0]]
        here = self.impaired != {"audio": "silent", "video": "black"}[feature.stream]
        present = np.full(len(items), here)
        if feature.stream == "video":
            present[self.without_pictures] = False
        return ClipArrays(tuple(item if here else item[:0] for item in items), present)

    def fit(self, name: str, seed: int = 0, state: Path = Path("state.partial")) -> Checkpoint:
        checkpoint = SYSTEMS[name].fit(self, self.given(name), seed, state)
        state.unlink(missing_ok=True)  # as the protocol does it
        return checkpoint

    def scores(self, name: str, checkpoint: Checkpoint) -> np.ndarray:
        return SYSTEMS[name].scores(checkpoint, self, self.given(name))

    def given(self, name: str) -> dict[str, np.ndarray]:
        """Scores of the systems that one uses: they know something of each class."""
        draws = {used: np.random.default_rng(len(used)).normal(0, 0.2, (160, 3)) for used in SYSTEMS[name].uses}
        return {used: np.clip(0.2 + 0.4 * self.targets + x, 0, 1).astype(np.float32) for used, x in draws.items()}


def _planted(row: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Features of a clip with labels ``row``, bool [3]; nothing tells the modalities' places from each other."""
    made = {}
    for name, width in (("regions", 12), ("segments", 8)):
        bag = rng.normal(0, 0.5, (int(rng.integers(4, 13)), width))
        bag[rng.permutation(len(bag))[: row.sum()], np.flatnonzero(row)] += 4  # 8 deviations
        made[name] = bag.astype(np.float32)
    boxes = np.full((-(-len(made["regions"]) // 2), 2, 5), np.nan, np.float32)
    boxes.reshape(-1, 5)[: len(made["regions"])] = 0.5  # two regions a frame; in the last one or two
    log_mel = rng.normal(-6, 1, (100, 64))
    frames = rng.integers(0, 60, (6, 16, 24, 3), dtype=np.uint8)
    for k in np.flatnonzero(row):
        start = rng.integers(0, 60)
        log_mel[start : start + 40, 16 * k : 16 * k + 16] += 4
        frames[:, start // 5 : start // 5 + 4, :, k] += 150
    made["proposals"] = boxes
    made["log-mel"] = log_mel.astype(np.float32)
    made["log-mel/li2017"] = log_mel[:, :60].astype(np.float32)
    made["mean-frames"] = (3 * row[np.arange(9) // 3] + rng.normal(0, 1, 9)).astype(np.float32)
    made["video-frames"] = frames
    return made


def randomise(network: nn.Module, weights: float = 0.7) -> None:
    """Other numbers than those a network starts with, so that none can be left out unnoticed."""
    for name, one in network.state_dict().items():
        if name.endswith(("running_var", "deviation", "moments")):
            one.uniform_(0.5, 2)
        elif one.is_floating_point():
            one.copy_(torch.randn_like(one) * (weights if one.ndim > 1 else 1))
