"""Sound as the networks of the three papers read it: log-mel spectrograms, and embeddings of segments."""

from __future__ import annotations

import numpy as np
import torch

from avrepro import backbones
from avrepro.corpora.base import Clip
from avrepro.features.logmel import LogMel
from avrepro.features.store import SECONDS, Feature
from avrepro.media import read_audio
from avrepro.recipes import Recipe


def log_mel(front_end: LogMel, name: str, pooled: int = 1) -> Feature:
    """Log-mel spectrogram of the first 10 s, float16 [frames, mels].

    Frames that begin after the end of a shorter recording are -inf, the logarithm of no energy at all: networks tell
    them by that from silence that was recorded.

    :param name: of the front end, for the recipe. :param pooled: frames that are averaged to one.
    """
    rate, hop = front_end.sample_rate, front_end.hop
    samples = round(SECONDS * rate)
    frames = front_end.frames(samples) // pooled

    def read(clip: Clip) -> np.ndarray:
        return read_audio(clip.path, rate, duration=SECONDS, pad=False)

    def compute(waveform: np.ndarray) -> np.ndarray:
        padded = np.pad(waveform, (0, samples - len(waveform)))
        with torch.inference_mode():
            spectrum = front_end(torch.from_numpy(padded)[None])[0]  # (T, M)
            spectrum[-(-len(waveform) // hop) :] = -torch.inf
            spectrum = spectrum[: frames * pooled].reshape(frames, pooled, -1).mean(dim=1)
            return spectrum.numpy().astype(np.float16)

    def nothing() -> np.ndarray:
        return np.full((frames, front_end.mels), -np.inf, np.float16)

    recipe = Recipe(f"log-mel/{name}", 1, {"seconds": SECONDS, "pooled": pooled})
    return Feature(recipe, "audio", read, compute, nothing)


def segment_embeddings(name: str, device: torch.device, seconds: float = SECONDS) -> Feature:
    """Embeddings of segments of 960 ms every 480 ms by VGGish or YAMNet, float16 [segments, features].

    Parekh et al. (2018), section 3.1: 10 s have 20 segments, the last completed by silence. Longer clips are cut.

    :param name: "vggish" or "yamnet".
    """

    def read(clip: Clip) -> np.ndarray:
        return read_audio(clip.path, backbones.SEGMENT_RATE, duration=seconds, pad=False)

    def compute(waveform: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found = backbones.load(name, device)(waveform)
        embeddings = found[1] if name == "yamnet" else found
        return embeddings.cpu().numpy().astype(np.float16)

    def nothing() -> np.ndarray:
        return np.zeros((0, backbones.EMBEDDING[name]), np.float16)

    recipe = Recipe(f"segments/{name}", 1, {"seconds": seconds}, (backbones.recipe(name),))
    return Feature(recipe, "audio", read, compute, nothing)
