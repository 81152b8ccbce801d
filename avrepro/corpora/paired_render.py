"""Clips of real sounds and real photographs: what sounds and shows when, and the rendering of it.

Plans are drawn first, from the items of each split alone; rendering adds nothing but a plan's seed. A clip has

- one sound event, and with chance ``SECOND`` a second one of another class; both are labels. A sound is placed once,
  at a random time, cut at the clip's end; its level is its RMS against that of a bed of pink noise.
- for each label, but with chance ``UNSEEN`` none, a photograph of it, for the first label in half of the clips two;
- with chance ``DISTRACTED``, and always where nothing else is there to show, a photograph of another label.

A shot shows a part of one photograph that fills the frame, panned and zoomed; photographs are cut in random order.
Sounds and shots know nothing of each other: there is no synchrony.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avrepro.corpora.base import CorpusError
from avrepro.encode import write_clip
from avrepro.media import MediaError, read_audio

SECONDS = 10.0  # of a clip
FPS = 10  # frames/s, enough for slow pans
SIZE = (240, 320)  # height, width in px: a network that looks at 224 px is not starved
SAMPLE_RATE = 22050  # Hz
USES = 3  # clips at most that an item is in
SECOND = 0.2  # chance of a second sound event: 1.2 labels a clip, as in the papers' data
UNSEEN = 0.2  # chance that a label's source is out of the picture
DISTRACTED = 0.5  # chance of a photograph that belongs to no label of the clip
SNR = (10.0, 30.0)  # dB, first sound against the noise
BALANCE = 6.0  # dB, the second sound is this much louder or softer than the first at most
NOISE = -50.0  # dB re full scale, RMS of the noise
SHORTEST = 1.0  # s, of a shot
EXTRA_CUTS = 2  # at most, besides those between photographs
ZOOM = 1.3  # at most, relative to the whole photograph filling the frame
FADE = 0.01  # s, at both ends of a sound
SILENT = 1e-4  # full scale is 1; a recording that never exceeds this holds nothing to hear


@dataclass(frozen=True)
class Sound:
    """A recording that sounds from ``onset`` to ``offset`` (s)."""

    item: str  # its path in the manifest
    label: str
    onset: float
    offset: float
    snr_db: float  # against the noise


@dataclass(frozen=True)
class Shot:
    """A photograph on show from ``start`` to ``end`` (s); zoom and place go evenly from the first to the second."""

    item: str
    label: str
    start: float
    end: float
    zoom: tuple[float, float]  # 1: the largest part of the photograph that has the frame's shape; 2: half of it
    x: tuple[float, float]  # 0: that part lies at the photograph's left edge; 1: at its right one
    y: tuple[float, float]  # 0: at the upper edge; 1: at the lower one


@dataclass(frozen=True)
class Plan:
    """Everything in one clip."""

    clip: str
    split: str
    labels: tuple[str, ...]  # what sounds, in the corpus's order of classes
    sounds: tuple[Sound, ...]
    shots: tuple[Shot, ...]
    seed: int  # of the noise


class Dealer:
    """Items by label, dealt in shuffled rounds: none twice before all once, none more than USES times."""

    def __init__(self, items: Mapping[str, Sequence[str]], rng: np.random.Generator) -> None:
        self._left = {
            label: [paths[index] for _ in range(USES) for index in rng.permutation(len(paths)).tolist()]
            for label, paths in items.items()
        }

    def left(self, label: str) -> int:
        return len(self._left.get(label, ()))

    def others(self, labels: Sequence[str]) -> list[str]:
        """Labels but these that have something left."""
        return [label for label, paths in self._left.items() if paths and label not in labels]

    def deal(self, label: str) -> str:
        return self._left[label].pop()


def plan_split(
    split: str,
    clips_per_class: int,
    sounds: Mapping[str, Mapping[str, float]],
    photographs: Mapping[str, Sequence[str]],
    rng: np.random.Generator,
) -> list[Plan]:
    """Plan a split's clips.

    clips_per_class: with the class as first label; fewer where USES x its recordings are fewer.
    sounds: class -> its recordings in this split -> their length in s. photographs: label -> those in this split.
    """
    recordings = Dealer({label: list(lengths) for label, lengths in sounds.items()}, rng)
    pictures = Dealer(photographs, rng)
    firsts = [
        (label, recordings.deal(label)) for label in sounds for _ in range(min(clips_per_class, recordings.left(label)))
    ]  # all before any second one, which must not use them up
    plans: list[Plan] = []
    for index, first in enumerate(rng.permutation(len(firsts)).tolist()):
        events = [firsts[first]]
        others = recordings.others([events[0][0]])
        if others and rng.random() < SECOND:
            label = others[rng.integers(len(others))]
            events.append((label, recordings.deal(label)))
        snr = rng.uniform(*SNR)
        placed = tuple(
            _place(label, path, sounds[label][path], snr + (rng.uniform(-BALANCE, BALANCE) if rank else 0.0), rng)
            for rank, (label, path) in enumerate(events)
        )
        labels = tuple(label for label in sounds if any(label == event[0] for event in events))
        shots = _cut(_choose_photographs([event[0] for event in events], pictures, rng), rng)
        plans.append(Plan(f"{split}-{index:04d}", split, labels, placed, shots, int(rng.integers(2**31))))
    return plans


def _place(label: str, path: str, seconds: float, snr: float, rng: np.random.Generator) -> Sound:
    onset = rng.uniform(0, max(0.0, SECONDS - seconds))
    return Sound(path, label, onset, min(onset + seconds, SECONDS), snr)


def _choose_photographs(labels: Sequence[str], pictures: Dealer, rng: np.random.Generator) -> list[tuple[str, str]]:
    """(label, photograph) of a clip in random order."""
    chosen: list[tuple[str, str]] = []
    for rank, label in enumerate(labels):
        wanted = 0 if rng.random() < UNSEEN else 2 if rank == 0 and rng.random() < 0.5 else 1
        chosen += [(label, pictures.deal(label)) for _ in range(min(wanted, pictures.left(label)))]
    if rng.random() < DISTRACTED or not chosen:
        others = pictures.others(labels)
        if others:
            label = others[rng.integers(len(others))]
            chosen.append((label, pictures.deal(label)))
    return [chosen[index] for index in rng.permutation(len(chosen))]


def _cut(photographs: Sequence[tuple[str, str]], rng: np.random.Generator) -> tuple[Shot, ...]:
    """Shots that fill the clip, every photograph in one at least; none (a black clip) without photographs."""
    if not photographs:
        return ()
    more = rng.integers(EXTRA_CUTS + 1)  # the same photograph again is a jump to another part of it
    order = [*range(len(photographs)), *rng.integers(len(photographs), size=more).tolist()]
    spare = SECONDS - SHORTEST * len(order)
    lengths = SHORTEST + spare * rng.dirichlet(np.ones(len(order)))
    ends = np.round(np.cumsum(lengths) * FPS) / FPS
    ends[-1] = SECONDS
    shots = []
    for index, start, end in zip(order, [0.0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        zoom, x, y = rng.uniform(1, ZOOM, 2), rng.uniform(0, 1, 2), rng.uniform(0, 1, 2)
        label, path = photographs[index]
        shots.append(Shot(path, label, start, end, *((float(a), float(b)) for a, b in (zoom, x, y))))
    return tuple(shots)


def examine(path: Path, modality: str) -> tuple[float, str | None]:
    """Length of a recording in s (0 for a photograph), and why the file cannot be used (None if it can)."""
    try:
        if modality == "image":
            read_photograph(path)
            return 0.0, None
        waveform = read_audio(path, SAMPLE_RATE)
    except MediaError as error:
        return 0.0, error.reason
    if np.abs(waveform).max() < SILENT:
        return 0.0, "the recording is silent"
    return min(len(waveform) / SAMPLE_RATE, SECONDS), None


def read_photograph(path: Path) -> np.ndarray:
    """RGB, upright, uint8 [height, width, 3]; MediaError where it does not decode."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow's readers raise
        raise MediaError(path, f"not a picture that can be decoded ({error})") from error


def render(plan: Plan, folder: Path, clips: Path) -> None:
    """Write ``clips/<id>.mp4`` from the items in ``folder``; CorpusError names a clip that fails."""
    try:
        recordings = {one.item: read_audio(folder / one.item, SAMPLE_RATE) for one in plan.sounds}
        photographs = {one.item: read_photograph(folder / one.item) for one in plan.shots}
        write_clip(clips / f"{plan.clip}.mp4", film(plan, photographs), FPS, mix(plan, recordings), SAMPLE_RATE)
    except Exception as error:
        raise CorpusError(f"clip {plan.clip} of corpus 'paired' cannot be rendered: {error!r}") from error


def mix(plan: Plan, recordings: Mapping[str, np.ndarray]) -> np.ndarray:
    """The clip's sound, float32 [SECONDS x SAMPLE_RATE], from recordings at SAMPLE_RATE; softer if it would clip."""
    samples = round(SECONDS * SAMPLE_RATE)
    level = 10 ** (NOISE / 20)
    waveform = _pink_noise(np.random.default_rng(plan.seed), samples) * level
    for sound in plan.sounds:
        begin = round(sound.onset * SAMPLE_RATE)
        placed = recordings[sound.item][: samples - begin].astype(np.float64)
        placed *= level * 10 ** (sound.snr_db / 20) / np.sqrt(np.mean(placed**2))
        fade = np.linspace(0, 1, min(round(FADE * SAMPLE_RATE), len(placed) // 2))
        placed[: len(fade)] *= fade
        placed[len(placed) - len(fade) :] *= fade[::-1]
        waveform[begin : begin + len(placed)] += placed
    return (waveform / max(1.0, float(np.abs(waveform).max()) / 0.99)).astype(np.float32)


def _pink_noise(rng: np.random.Generator, samples: int) -> np.ndarray:
    """RMS 1, power falling as 1 / frequency above 20 Hz."""
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    spectrum = rng.standard_normal(len(frequency)) + 1j * rng.standard_normal(len(frequency))
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequency, 20)), samples)
    return noise / np.sqrt(np.mean(noise**2))


def film(plan: Plan, photographs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The clip's pictures, RGB, uint8 [SECONDS x FPS, *SIZE, 3]; black where there is no shot."""
    import cv2

    height, width = SIZE
    frames = np.zeros((round(SECONDS * FPS), height, width, 3), np.uint8)
    for shot in plan.shots:
        photograph = photographs[shot.item]
        # scaled once, by area where that makes it smaller, to the size at which the largest zoom shows it
        scale = max(height / photograph.shape[0], width / photograph.shape[1]) * ZOOM
        tall, broad = (max(1, round(side * scale)) for side in photograph.shape[:2])
        large = cv2.resize(photograph, (broad, tall), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        first, last = round(shot.start * FPS), round(shot.end * FPS)
        for frame, along in zip(range(first, last), np.linspace(0, 1, last - first), strict=True):
            zoom, x, y = (one[0] + (one[1] - one[0]) * along for one in (shot.zoom, shot.x, shot.y))
            shrink = zoom / ZOOM
            left, top = x * (broad * shrink - width), y * (tall * shrink - height)
            moved = np.array([[shrink, 0, -left], [0, shrink, -top]])
            how = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
            cv2.warpAffine(large, moved, (width, height), dst=frames[frame], **how)
    return frames
