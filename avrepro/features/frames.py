"""Pictures as Fayek and Kumar (2020) and the systems they compare with read them: frames at even distances."""

from __future__ import annotations

import numpy as np
import torch

from avrepro import backbones
from avrepro.corpora.base import Clip
from avrepro.features.store import SECONDS, Feature
from avrepro.media import read_frames
from avrepro.recipes import Recipe

WHOLE = (224, 224)  # height, width, px, of a black frame where frames are decoded as large as they are


def mean_frame_features(network: str, frames: int, size: tuple[int, int] | None, device: torch.device) -> Feature:
    """Pooled features of frames by a frozen image network, averaged over a clip's frames (section 3.2), float32 [d].

    :param network: name of the backbone. :param frames: a clip, 64 in the paper.
    :param size: height and width that frames are decoded to, px; None: as large as they are.
    """

    def compute(decoded: np.ndarray) -> np.ndarray:
        return backbones.load(network, device).pooled(decoded).mean(axis=0)

    def nothing() -> np.ndarray:
        return compute(np.zeros((frames, *(size or WHOLE), 3), np.uint8))

    settings = {"frames": frames, "size": list(size or ()), "seconds": SECONDS}
    recipe = Recipe("mean-frames", 1, settings, (backbones.recipe(network),))
    return Feature(recipe, "video", lambda clip: _evenly_spaced(clip, frames, size), compute, nothing)


def video_frames(frames: int, size: tuple[int, int]) -> Feature:
    """Frames as the (2+1)D network takes them, uint8 [frames, height, width, 3] RGB; the aspect ratio is not kept.

    :param size: height and width, px.
    """

    def nothing() -> np.ndarray:
        return np.zeros((frames, *size, 3), np.uint8)

    recipe = Recipe("video-frames", 1, {"frames": frames, "size": list(size), "seconds": SECONDS})
    return Feature(recipe, "video", lambda clip: _evenly_spaced(clip, frames, size), lambda decoded: decoded, nothing)


def _evenly_spaced(clip: Clip, frames: int, size: tuple[int, int] | None) -> np.ndarray:
    """The middles of equal parts of 10 s; a shorter clip goes on with its last frame."""
    times = (np.arange(frames) + 0.5) / frames * SECONDS
    return read_frames(clip.path, times=times, size=size)[0]
