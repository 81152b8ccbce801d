"""How large a run of the chapter on Fayek and Kumar (2020) is, by profile."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from avrepro.models.fayek2020 import AudioConfig, VisualConfig
from avrepro.training import Optimisation


@dataclass(frozen=True)
class Profile:
    """How large a run of the chapter is; every difference from ``paper`` is a stated deviation."""

    audio: AudioConfig
    audio_pooled: int  # log-mel frames of 10 ms that are averaged to one
    audio_optimisation: Optimisation
    mixing: float  # share of training clips that another clip's sound is laid over
    backbone: str  # frozen network that describes frames
    frames: int  # of a clip
    frame_size: tuple[int, int] | None  # height, width in which they are decoded, px; None: as filmed
    visual: VisualConfig
    visual_optimisation: Optimisation
    visual_rates: tuple[float, ...]  # learning rates, of which validation chooses
    fusion_units: int
    fusion_optimisation: Optimisation
    fusion_rates: tuple[float, ...]  # likewise, by fusion
    visual_folds: (
        int  # 0: fusions learn from what models say of clips that they learnt from themselves, as in the paper
    )

    def values(self) -> dict:
        return asdict(self)


# Section 4.2; rates and what of the audio model's training only Kumar and Ithapu (2020) tell are ours.
PAPER = Profile(
    audio=AudioConfig(),
    audio_pooled=1,
    audio_optimisation=Optimisation("adam", learning_rate=1e-3, batch=144, epochs=20, decay=0.5, patience=2),
    mixing=0.0,
    backbone="resnet152",
    frames=64,
    frame_size=None,
    visual=VisualConfig(),
    visual_optimisation=Optimisation("adam", learning_rate=1e-4, batch=144, epochs=20),
    visual_rates=(1e-3, 3e-4, 1e-4),
    fusion_units=512,
    fusion_optimisation=Optimisation("adam", learning_rate=1e-3, batch=256, epochs=100),
    fusion_rates=(1e-3, 3e-4, 1e-4),
    visual_folds=0,
)
# 600 clips are not 2 million. Narrow networks, mixed clips; and as the visual model soon knows so few clips by heart,
# what it says of them tells a fusion nothing about how far to believe it: fusions learn from what visual models say
# that did not learn from those clips. Rates and epochs were chosen on validation clips.
DEMO = replace(
    PAPER,
    audio=AudioConfig(channels=(8, 16, 32, 64), instance=256, units=128),
    audio_pooled=2,
    audio_optimisation=Optimisation("adam", learning_rate=1e-3, batch=12, epochs=14, decay=0.5, patience=2),
    mixing=0.5,
    backbone="efficientnet-lite0",
    frames=8,
    frame_size=(112, 144),
    visual=VisualConfig(hidden=(256, 256, 128, 128)),
    visual_optimisation=Optimisation("adam", learning_rate=1e-3, batch=24, epochs=10),
    visual_rates=(1e-3, 3e-4),
    fusion_units=64,
    fusion_optimisation=Optimisation("adam", learning_rate=1e-2, batch=64, epochs=60),
    fusion_rates=(1e-2, 3e-3),
    visual_folds=5,
)
PROFILES = {
    "ci": replace(
        DEMO,
        audio_optimisation=replace(DEMO.audio_optimisation, epochs=1),
        visual_optimisation=replace(DEMO.visual_optimisation, epochs=2),
        visual_rates=(1e-3,),
        fusion_optimisation=replace(DEMO.fusion_optimisation, epochs=2),
        fusion_rates=(1e-3,),
    ),
    "demo": DEMO,
    "paper": PAPER,
}
