"""The chapter on Parekh et al. (2018), step by step: proposals and their features, the systems, their scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from avrepro import digests
from avrepro.corpora.base import Clip, Corpus, CorpusError
from avrepro.evaluation.localisation import HOP, SEGMENT, segment_times
from avrepro.experiments.li2017 import DURATION, FEWEST, load_corpus
from avrepro.experiments.parekh2018_profiles import PROFILES, Profile
from avrepro.experiments.parekh2018_training import Trained, load_trained, train
from avrepro.features.edges import edge_detector
from avrepro.features.regions import Regions, proposals, region_features, regions_of
from avrepro.features.store import Feature, extract
from avrepro.fetch import fetch, find
from avrepro.media import read_audio
from avrepro.models.caffenet import CaffeNet
from avrepro.models.efficientnet import EfficientNetLite0
from avrepro.models.parekh2018 import BagFiles, Bags, MILConfig, root_mean_square
from avrepro.models.vggish import VGGish
from avrepro.models.yamnet import YAMNet
from avrepro.parameters import UnsynchronizedMIL
from avrepro.progress import say
from avrepro.training import choose_device

SYSTEMS = ("two_stream", "audio_only", "video_only", "wsddn", "one_stream", "synchronous")
DRY_STEPS = 2


@dataclass(frozen=True)
class Inputs:
    """Frozen features of the proposals of a corpus's usable clips, each in the order of ``corpus.clips``."""

    parameters: UnsynchronizedMIL
    corpus: Corpus  # clips that have pictures or sound
    boxes: tuple[np.ndarray | None, ...]  # proposals [frames, boxes, 5]; None: no pictures
    regions: Bags
    segments: Bags
    edges: str  # edge detector that the boxes come from
    image_network: str
    audio_network: str
    seconds_per_clip: float  # decoding to features; measured on a few clips without the cache

    @property
    def profile(self) -> Profile:
        profile = PROFILES[self.parameters.profile]
        return replace(profile, steps=DRY_STEPS) if self.parameters.dry else profile

    @property
    def trains(self) -> bool:
        """Whether there are clips enough to train on, and no checkpoint is given instead."""
        if self.parameters.dry:
            return True
        sizes = [len(self.corpus.split(split).clips) for split in ("train", "validation")]
        return len(self.corpus.clips) >= FEWEST and min(sizes) > 0 and not self.parameters.checkpoint

    def rows(self, split: str) -> np.ndarray:
        """Rows of the clips of a split."""
        return np.array([row for row, clip in enumerate(self.corpus.clips) if clip.split == split], dtype=int)

    def proposals(self, row: int) -> Regions:
        """Regions of one clip, in the order of their features."""
        rows = self.boxes[row]
        return regions_of(np.full((0, 1, 5), np.nan) if rows is None else rows)

    @property
    def networks(self) -> dict[str, str]:
        """What finds boxes, looks and listens."""
        return {"edges": self.edges, "image_network": self.image_network, "audio_network": self.audio_network}

    @property
    def features(self) -> dict[str, object]:
        """What the features are, so that a checkpoint can tell whether it knows them."""
        profile = self.profile
        return {"image": [self.image_network, profile.image_size, profile.pooled], "audio": self.audio_network}


@dataclass(frozen=True)
class Systems:
    """What each system says of every clip and proposal."""

    classes: tuple[str, ...]
    trained: dict[str, Trained]
    scores: dict[str, np.ndarray]  # phi, [clips, classes]
    located: dict[
        str, dict[str, list[np.ndarray]]
    ]  # system -> regions, segments -> D of each clip [proposals, classes]


def load_inputs(parameters: UnsynchronizedMIL) -> Inputs:
    """The corpus that the parameters name, and its features."""
    return describe(parameters, load_corpus(parameters))  # type: ignore[arg-type]  # it has the same fields


def describe(parameters: UnsynchronizedMIL, corpus: Corpus) -> Inputs:
    """Compute the features of a corpus; a clip without usable sound or pictures keeps what it has.

    :raises CorpusError: no clip has either.
    """
    profile = PROFILES[parameters.profile]
    device = choose_device(parameters.device)

    detector = edge_detector()
    looking = proposals(detector, profile.proposal_size, profile.search)
    rows, seen = extract(looking, corpus)
    boxes = {clip.id: array for clip, array in zip(seen.clips, rows, strict=True)}
    network = image_network(profile.image_network, device)
    describing = region_features(network, boxes, looking, profile.image_size, profile.pooled)
    regions, seen = extract(describing, seen)
    listening = segment_feature(audio_network(profile.audio_networks), device)
    segments, heard = extract(listening, corpus)

    region_paths = {clip.id: path for clip, path in zip(seen.clips, regions.paths, strict=True)}
    segment_paths = {clip.id: path for clip, path in zip(heard.clips, segments.paths, strict=True)}
    reasons = {clip.id: f"{clip.reason}; its pictures cannot be used either" for clip in heard.missing}
    usable = corpus.without({name: why for name, why in reasons.items() if name not in region_paths})
    if not usable.clips:
        told = "\n".join(f"  {clip.id}: {clip.reason}" for clip in usable.missing)
        raise CorpusError(f"no clip of {corpus.name} can be used:\n{told}")
    ids = [clip.id for clip in usable.clips]
    for name, paths in (("sound", segment_paths), ("pictures", region_paths)):
        if lacking := [one for one in ids if one not in paths]:
            say(f"{len(lacking)} clips without usable {name} are scored by the other: {', '.join(lacking[:5])}")
    return Inputs(
        parameters,
        usable,
        tuple(boxes.get(one) if one in region_paths else None for one in ids),
        bags(region_paths, ids),
        bags(segment_paths, ids),
        detector.name,
        profile.image_network,
        listening.name.removeprefix("segments-"),
        _seconds_per_clip(
            (looking, describing, listening),
            [clip for clip in usable.clips if clip.id in region_paths and clip.id in segment_paths],
        ),
    )


def image_network(name: str, device: torch.device) -> EfficientNetLite0 | CaffeNet:
    """The base visual network; CaffeNet's weights are fetched."""
    if name == "caffenet":
        return CaffeNet.pretrained().to(device)
    return EfficientNetLite0.pretrained(size=None, device=device)  # None: a cell every 16 px of the frames as they are


def audio_network(names: Sequence[str]) -> VGGish | YAMNet:
    """The base audio network: the first of ``names`` whose weights are at hand, else the last one, fetched."""
    for name in names:
        if name == names[-1] or find(name) is not None:
            fetch(name)
            return VGGish.pretrained(hop=HOP, complete=True) if name == "vggish" else YAMNet.pretrained()
    raise ValueError("no audio network is named")


def segment_feature(network: VGGish | YAMNet, device: torch.device) -> Feature:
    """Embeddings of segments of 960 ms every 480 ms, the last completed by silence; float16 [segments, features].

    10 s have 20 segments (section 4); longer clips are cut, as their pictures are.
    """
    network = network.to(device)
    name = type(network).__name__.lower()
    rate = network.sample_rate

    def read(clip: Clip) -> np.ndarray:
        return read_audio(clip.path, rate)[: round(DURATION * rate)]

    def compute(waveform: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found = network(waveform)
        embeddings = found[1] if isinstance(network, YAMNet) else found
        return embeddings.cpu().numpy().astype(np.float16)

    code = digests.code("features/logmel.py", "media.py", f"models/{name}.py")
    return Feature(
        f"segments-{name}", "audio", digests.of_values([DURATION, HOP, code, digests.versions()]), read, compute
    )


def bags(paths: dict[str, Path], ids: Sequence[str]) -> Bags:
    """Features of one modality as bags, empty for the clips that lack it."""
    width = int(np.load(next(iter(paths.values())), mmap_mode="r").shape[1]) if paths else 1
    return Bags.of(BagFiles(tuple(paths.get(one) for one in ids), width))


def run_systems(inputs: Inputs, names: Sequence[str] = SYSTEMS) -> Systems:
    """Train the systems that learn from proposals; of too few clips, load the chosen system's checkpoint."""
    device = choose_device(inputs.parameters.device)
    trained, scores, located = {}, {}, {}
    chosen = names if inputs.trains else (inputs.parameters.system,)
    for name in chosen:
        if inputs.trains:
            trained[name] = train_system(inputs, name)
        else:
            trained[name] = load_trained(checkpoint(inputs.parameters), inputs.features)
        proposals = proposals_of(inputs, name)
        scores[name] = trained[name].scores(*proposals, device)
        located[name] = trained[name].located(*proposals, device)
    return Systems(trained[chosen[0]].classes, trained, scores, located)


def train_system(inputs: Inputs, name: str) -> Trained:
    """One system, trained on the clips of split ``train``; its thresholds are tuned on ``validation``."""
    profile = inputs.profile
    regions, segments = proposals_of(inputs, name)
    config = MILConfig(
        system="audio_only" if name == "synchronous" else name,  # type: ignore[arg-type]  # one of the others
        classes=len(inputs.corpus.classes),
        region_features=regions.features if regions is not None else 0,
        segment_features=segments.features if segments is not None else 0,
        region_units=profile.region_units,
        segment_units=profile.segment_units + (profile.region_units if name == "synchronous" else 0),
    )
    device = choose_device(inputs.parameters.device)
    return train(
        name, config, inputs.corpus, (regions, segments), profile, inputs.parameters.seed, device, inputs.features
    )


def proposals_of(inputs: Inputs, system: str) -> tuple[Bags | None, Bags | None]:
    """Regions and segments as far as a system looks at them; the synchronous one has its own in place of segments."""
    if system == "synchronous":
        rows = inputs.rows("train")
        scales = [root_mean_square(one.select(rows)) for one in (inputs.regions, inputs.segments)]
        seconds = Seconds(inputs.regions, inputs.segments, inputs.boxes, (scales[0], scales[1]))
        return None, Bags(seconds, seconds.sizes, seconds.features)
    regions = None if system == "audio_only" else inputs.regions
    return regions, None if system in ("video_only", "wsddn") else inputs.segments


@dataclass(frozen=True)
class Seconds:
    """Ours, for the synchronous baseline: one proposal a second, what is seen beside what is heard then.

    Of a frame's regions the maximum of each feature; of the segments that overlap the second, the mean. Both are
    scaled, so that neither drowns the other. A picture stays on show after the last frame; a missing modality is zeros.
    """

    regions: Bags
    segments: Bags
    boxes: Sequence[np.ndarray | None]
    scales: tuple[float, float]  # that features of regions and of segments are divided by

    @property
    def features(self) -> int:
        return self.regions.features + self.segments.features

    @property
    def sizes(self) -> np.ndarray:
        """Seconds of each clip, int [clips]: those of its sound or, where there is none, of its frames."""
        heard = np.ceil(HOP * (self.segments.sizes - 1) + SEGMENT - HOP / 2).astype(int) * (self.segments.sizes > 0)
        seen = np.array([0 if rows is None else len(rows) for rows in self.boxes])
        return np.maximum(heard, np.where(heard > 0, 0, seen))

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, row: int) -> np.ndarray:
        """float32 [seconds, region features + segment features] of one clip."""
        regions, segments, rows = self.regions.arrays[row], self.segments.arrays[row], self.boxes[row]
        seconds = np.zeros((self.sizes[row], self.features), np.float32)
        width = self.regions.features
        spans = segment_times(len(segments))
        frame = None if rows is None else np.nonzero(~np.isnan(rows[..., 4]))[0]  # of each region
        for second, features in enumerate(seconds):
            if frame is not None:
                features[:width] = regions[frame == min(second, frame[-1])].max(axis=0) / self.scales[0]
            overlapping = (spans[:, 0] < second + 1) & (spans[:, 1] > second)
            if overlapping.any():
                features[width:] = segments[overlapping].mean(axis=0, dtype=np.float32) / self.scales[1]
        return seconds


def checkpoint(parameters: UnsynchronizedMIL) -> Path:
    """The given checkpoint, or that of the demo world's system, trained first if it is not there yet."""
    if parameters.checkpoint:
        return Path(parameters.checkpoint)
    demo = UnsynchronizedMIL(
        profile="ci" if parameters.profile == "ci" else "demo", device=parameters.device, system=parameters.system
    )
    say("the checkpoint of the demo world is looked up, and made where it is missing (minutes)")
    inputs = load_inputs(demo)
    return run_systems(inputs, (parameters.system,)).trained[parameters.system].path


def _seconds_per_clip(features: Sequence[Feature], clips: Sequence[Clip]) -> float:
    sample = clips[:: max(1, len(clips) // 8)][:8]
    start = time.monotonic()
    for feature in features:
        for clip in sample:
            feature.compute(feature.read(clip))
    return (time.monotonic() - start) / max(1, len(sample))
