"""Pictures as Li et al. (2017) read them: key frames, and the objects that an image network names in them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from avrepro import backbones
from avrepro.corpora.base import Clip
from avrepro.encode import write_clip
from avrepro.features.key_frames import dissimilarities, nearest_to_centres, select_key_frames
from avrepro.features.store import SECONDS, Feature
from avrepro.features.words import clip_objects, corrected_similarities, glove, map_objects_to_events, similarities
from avrepro.files import atomic
from avrepro.home import home
from avrepro.media import read_frames
from avrepro.progress import say, track
from avrepro.recipes import Recipe
from avrepro.training import choose_device

PICTURES_PER_SECOND = 12  # of the file that taught pictures go through; the demo world's rate
Choice = Literal["ds3", "even", "kmeans"]


def key_frame_times(
    network: str, rate: float, size: tuple[int, int], k: int, device: torch.device, choice: Choice = "ds3"
) -> Feature:
    """Times of the key frames of each clip, float64 [k], s, the most representative first (section 2.2.1).

    :param network: name of the backbone whose convolutional maps are compared by Euclidean distance.
    :param rate: frames a second to choose from; ``size``: height and width they are decoded to, px.
    :param k: key frames a clip (4 in the paper).
    :param choice: by DS3 as in the paper; or, to compare, at equal intervals or by k-means.
    """

    def read(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        frames, times = read_frames(clip.path, times=np.arange(0, SECONDS, 1 / rate), size=size)
        new = np.diff(times, prepend=-np.inf) > 0  # a short or slow clip gives the same frame several times
        return frames[new], times[new]

    def compute(decoded: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        frames, times = decoded
        count = min(k, len(frames))
        if choice == "even":  # the middles of equal parts
            rows = (np.arange(count) * 2 + 1) * len(frames) // (2 * count)
        else:
            maps = backbones.load(network, device).maps(frames).reshape(len(frames), -1)
            ds3 = choice == "ds3"
            rows = select_key_frames(dissimilarities(maps), count) if ds3 else nearest_to_centres(maps, count)
        return times[np.resize(rows, k)]  # a clip shorter than k frames repeats its own

    settings = {"rate": rate, "size": list(size), "k": k, "choice": choice}
    recipe = Recipe("key-frames", 1, settings, (backbones.recipe(network),))
    return Feature(recipe, "video", read, compute, lambda: np.zeros(k))


def key_frame_objects(times: Feature, network: str, size: tuple[int, int], device: torch.device) -> Feature:
    """Pooled features of each clip's key frames, float32 [k, d], from which objects are named.

    :param times: :func:`key_frame_times`. :param size: height and width the frames are decoded to, px.
    """

    def read(clip: Clip, wanted: np.ndarray) -> np.ndarray:
        order = np.argsort(wanted)
        found, _ = read_frames(clip.path, times=wanted[order], size=size)
        frames = np.empty_like(found)
        frames[order] = found
        return frames

    def compute(frames: np.ndarray) -> np.ndarray:
        return backbones.load(network, device).pooled(frames)

    def nothing() -> np.ndarray:
        return compute(np.zeros((times.recipe.settings["k"], *size, 3), np.uint8))

    recipe = Recipe("key-frame-objects", 1, {"size": list(size)}, (backbones.recipe(network), times.recipe))
    return Feature(recipe, "video", read, compute, nothing, uses=(times,))


@dataclass(frozen=True)
class Recogniser:
    """Names objects: pooled features float32 [..., d] -> probabilities [..., objects], rows summing to 1."""

    objects: tuple[str, ...]
    classify: Callable[[np.ndarray], np.ndarray]  # float32 [n, d] -> [n, objects]

    def __call__(self, pooled: np.ndarray) -> np.ndarray:
        flat = self.classify(pooled.reshape(-1, pooled.shape[-1]))
        return flat.reshape(*pooled.shape[:-1], -1)


def imagenet_recogniser(network: str, device: torch.device) -> Recogniser:
    """The network's own classifier of 1000 objects (section 2.2.2), for real pictures."""
    backbone = backbones.load(network, device)
    return Recogniser(backbones.CLASSES, backbone.classify)


def probe_recipe(network: str, pictures: int, size: tuple[int, int]) -> Recipe:
    """What :func:`drawn_recogniser` depends on."""
    from avrepro.corpora import recipe

    drawings = {"world": recipe("demo").version, "pictures": pictures, "size": list(size)}
    return Recipe("drawn-objects", 1, drawings, (backbones.recipe(network),))


@cache
def drawn_recogniser(network: str, pictures: int, size: tuple[int, int], device: torch.device) -> Recogniser:
    """A linear probe on the network, taught the names of the drawn objects; for the demo world.

    ImageNet networks do not recognise drawings. The probe plays the part of the ImageNet classifier there: it
    is taught from pictures that no clip shows, encoded and read back like clips, knows names of objects, and
    knows nothing of sounds. A tenth of the pictures is held out and tells its accuracy.

    :param pictures: drawn pictures to learn from, held-out ones included.
    :param size: height and width of the pictures, px.
    """
    from avrepro.corpora.demo.pictures import OBJECTS, object_pictures

    path = home() / "probes" / f"drawn-objects-{probe_recipe(network, pictures, size).key[:16]}.npz"
    if not path.is_file():
        backbone, rng = backbones.load(network, device), np.random.default_rng(0)
        pooled, presence = [], []
        for done in track(range(0, pictures, 100), "drawn objects to learn from", unit="hundred pictures"):
            frames, shares = object_pictures(min(100, pictures - done), rng)
            pooled.append(backbone.pooled(_through_a_file(frames, size)))
            presence.append(shares)
        weight, bias, accuracy = _fit_probe(np.concatenate(pooled), np.concatenate(presence))
        say(f"probe of {len(OBJECTS)} drawn objects: {accuracy:.2f} of held-out pictures right")
        with atomic(path) as temporary:
            np.savez(temporary, weight=weight, bias=bias)
    with np.load(path, allow_pickle=False) as probe:
        weight, bias = probe["weight"], probe["bias"]

    def probabilities(pooled: np.ndarray) -> np.ndarray:
        return torch.softmax(torch.from_numpy(pooled @ weight + bias), dim=1).numpy()

    return Recogniser(tuple(OBJECTS), probabilities)


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


def events_seen(pictures: np.ndarray, classes: Sequence[str], corrected: bool = False) -> np.ndarray:
    """Scores of sound events in photographs (section 2.2.2); nothing is learnt, so any names of events will do.

    Each photograph is taken for the only key frame of a clip: its objects are rectified, and each gives its probability
    to the event whose name is nearest.

    :param pictures: uint8 [n, h, w, 3], RGB. :param classes: names of events, such as "Car passing by".
    :param corrected: word vectors without what all words share; ours, see ``corrected_similarities``.
    :returns: float32 [n, classes], fractions 0..1 that sum to at most 1 over the classes.
    """
    probabilities = _of_photographs(choose_device("auto")).probabilities(pictures)
    objects = clip_objects(probabilities[:, None])  # (n, 1000)
    vectors = glove("glove.6B.50d", (*backbones.CLASSES, *classes))
    similarity = (corrected_similarities if corrected else similarities)(backbones.CLASSES, classes, vectors)
    return map_objects_to_events(objects, similarity).astype(np.float32)


@cache
def _of_photographs(device: torch.device) -> Any:
    from avrepro.backbones.efficientnet import EfficientNetLite0  # timm takes seconds to import

    return EfficientNetLite0.pretrained(device=device)  # that resizes photographs to 224 px, as it was trained
