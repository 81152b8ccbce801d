"""The picture branch of Li et al. (2017): key frames, the objects in them, and the sound events they stand for."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from avrepro import digests
from avrepro.corpora.base import Clip
from avrepro.encode import write_clip
from avrepro.features.key_frames import dissimilarities, select_key_frames
from avrepro.features.store import Feature
from avrepro.files import atomic
from avrepro.home import home
from avrepro.media import read_frames
from avrepro.progress import say, track

PICTURES_PER_SECOND = 12  # of the file that taught pictures go through; the demo world's rate
DURATION = 10.0  # s of a clip that are looked at
NETWORKS = ("models/backbones.py", "models/caffenet.py", "models/efficientnet.py")


class Backbone(Protocol):
    """A frozen image network; frames are uint8 [n, H, W, 3] RGB."""

    name: str
    classes: tuple[str, ...]

    def maps(self, frames: np.ndarray) -> np.ndarray:
        """Convolutional maps of frames, [n, ...]."""

    def pooled(self, frames: np.ndarray) -> np.ndarray:
        """Pooled features of frames, float32 [n, d]."""

    def classify(self, pooled: np.ndarray) -> np.ndarray:
        """Probabilities of ``classes`` from pooled features, float32 [n, classes]."""


def key_frame_times(network: Backbone, rate: float, size: tuple[int, int], k: int) -> Feature:
    """Times of the key frames of each clip, float64 [k], s, the most representative first (section 2.2.1).

    :param network: its convolutional maps are compared by Euclidean distance.
    :param rate: frames a second to choose from; ``size``: height and width they are decoded to, px.
    :param k: key frames a clip (4 in the paper).
    """

    def read(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        frames, times = read_frames(clip.path, times=np.arange(0, DURATION, 1 / rate), size=size)
        new = np.diff(times, prepend=-np.inf) > 0  # a short or slow clip gives the same frame several times
        return frames[new], times[new]

    def compute(decoded: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        frames, times = decoded
        maps = network.maps(frames).reshape(len(frames), -1)
        chosen = select_key_frames(dissimilarities(maps), min(k, len(frames)))
        return times[np.resize(chosen, k)]  # a clip shorter than k frames repeats its own

    settings = [network.name, rate, size, k]
    return Feature("key-frames", "video", _digest(settings, "features/key_frames.py"), read, compute)


def key_frame_objects(
    network: Backbone, times: Mapping[str, np.ndarray], of_times: Feature, size: tuple[int, int] | None
) -> Feature:
    """Pooled features of each clip's key frames, float32 [k, d].

    :param times: clip id -> times of its key frames, s; ``of_times`` is the feature they come from.
    :param size: height and width the frames are decoded to, px; None: as they are.
    """

    def read(clip: Clip) -> np.ndarray:
        wanted = times[clip.id]
        order = np.argsort(wanted)
        frames = np.empty(0)
        found, _ = read_frames(clip.path, times=wanted[order], size=size)
        frames = np.empty_like(found)
        frames[order] = found
        return frames

    digest = _digest([network.name, size, of_times.digest])
    return Feature(f"objects-{network.name}", "video", digest, read, network.pooled)


@dataclass(frozen=True)
class Recogniser:
    """Names objects: the head that turns pooled features into probabilities of named objects."""

    name: str
    objects: tuple[str, ...]
    weight: np.ndarray | None  # [d, objects]; None: the network's own ImageNet classifier
    bias: np.ndarray | None  # [objects]
    network: Backbone
    accuracy: float  # share of held-out pictures whose largest object comes first; NaN where not measured

    def probabilities(self, pooled: np.ndarray) -> np.ndarray:
        """float32 [..., d] -> [..., objects], rows summing to 1."""
        flat = pooled.reshape(-1, pooled.shape[-1])
        if self.weight is None:
            found = self.network.classify(flat)
        else:
            found = torch.softmax(torch.from_numpy(flat @ self.weight + self.bias), dim=1).numpy()
        return found.reshape(*pooled.shape[:-1], -1)


def imagenet_recogniser(network: Backbone) -> Recogniser:
    """The network's own classifier of 1000 objects (section 2.2.2), for real pictures."""
    return Recogniser("ImageNet classifier", network.classes, None, None, network, float("nan"))


def drawn_recogniser(network: Backbone, pictures: int, size: tuple[int, int], seed: int = 0) -> Recogniser:
    """A linear probe on the network, taught the names of the drawn objects; for the demo world.

    ImageNet networks do not recognise drawings. The probe plays the part of the ImageNet classifier there: it
    is taught from pictures that no clip shows, encoded and read back like clips, knows names of objects, and
    knows nothing of sounds. A tenth of the pictures is held out and tells its accuracy.

    :param pictures: drawn pictures to learn from, held-out ones included.
    :param size: height and width of the pictures, px.
    """
    from avrepro.corpora.demo.pictures import OBJECTS, object_pictures

    objects = tuple(OBJECTS)
    key = _digest([network.name, pictures, size, seed], "corpora/demo", "encode.py")
    path = home() / "probes" / f"drawn-objects-{key[:16]}.npz"
    if not path.is_file():
        rng = np.random.default_rng(seed)
        pooled, presence = [], []
        for done in track(range(0, pictures, 100), "drawn objects to learn from", unit="hundred pictures"):
            frames, shares = object_pictures(min(100, pictures - done), rng)
            pooled.append(network.pooled(_through_a_file(frames, size)))
            presence.append(shares)
        weight, bias, accuracy = _fit_probe(np.concatenate(pooled), np.concatenate(presence))
        say(f"probe of {len(objects)} drawn objects: {accuracy:.2f} of held-out pictures right")
        with atomic(path) as temporary:
            np.savez(temporary, weight=weight, bias=bias, accuracy=accuracy)
    with np.load(path, allow_pickle=False) as probe:
        return Recogniser(
            "probe of drawn objects", objects, probe["weight"], probe["bias"], network, float(probe["accuracy"])
        )


def _through_a_file(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pictures as they come out of a clip: encoded, decoded and scaled like key frames."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.mp4"
        write_clip(path, frames, PICTURES_PER_SECOND, np.zeros(32000, dtype=np.float32), 32000)
        times = (np.arange(len(frames)) + 0.5) / PICTURES_PER_SECOND
        return read_frames(path, times=times, size=size)[0]


def _fit_probe(pooled: np.ndarray, presence: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Multinomial logistic regression on shares, L2 1e-3 (full-batch L-BFGS); the last tenth is held out."""
    held_out = len(pooled) // 10
    mean, deviation = pooled.mean(axis=0), pooled.std(axis=0) + 1e-6
    inputs = torch.from_numpy((pooled - mean) / deviation)
    targets = torch.from_numpy(presence)
    head = nn.Linear(inputs.shape[1], targets.shape[1])
    nn.init.zeros_(head.weight)  # the optimum of a convex problem does not depend on it
    nn.init.zeros_(head.bias)
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")
    learn, judge = slice(0, len(inputs) - held_out), slice(len(inputs) - held_out, None)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(head(inputs[learn]), targets[learn]) + 1e-3 * head.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.inference_mode():
        right = head(inputs[judge]).argmax(1) == targets[judge].argmax(1)
    weight = head.weight.detach().numpy().T / deviation[:, None]
    bias = head.bias.detach().numpy() - mean @ weight
    return weight.astype(np.float32), bias.astype(np.float32), float(right.float().mean())


def _digest(settings: list, *code: str) -> str:
    return digests.of_values(
        [settings, digests.code("features/objects.py", "media.py", *NETWORKS, *code), digests.versions()]
    )
