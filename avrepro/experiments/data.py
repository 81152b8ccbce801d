"""The data chapter: the demo world and its planted truth, what is at hand, and an example of a clip."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from avrepro import corpora, digests
from avrepro.corpora.base import Clip, Corpus, CorpusError
from avrepro.corpora.demo.description import load_world_description
from avrepro.corpora.demo.sounds import SOUND_CLASSES
from avrepro.corpora.esc10 import DURATION
from avrepro.experiments.data_hearing import RATE, isolated_sound, listen
from avrepro.experiments.data_lists import CHAPTER
from avrepro.features.logmel import LogMel
from avrepro.fetch import at_hand, fetch, find, whereabouts
from avrepro.manifests import manifest_path, source, sources
from avrepro.media import read_audio, read_frames
from avrepro.models.efficientnet import EfficientNetLite0, named_right
from avrepro.models.yamnet import YAMNet
from avrepro.parameters import Data
from avrepro.results import Results, Run
from avrepro.training import choose_device, device_name

RENDERINGS = {"ci": 2, "demo": 10}  # of each class that YAMNet listens to
IN_VIEW = 0.1  # a thing is in view where at least this share of it is not hidden
SMALL = 400_000  # bytes; the example is embedded in the page
WELL_HEARD = 0.0  # dB against the background
FRAMES = 6  # pictures of the example


@dataclass(frozen=True)
class Inputs:
    """The demo world of the chapter's profile."""

    parameters: Data
    corpus: Corpus


@dataclass(frozen=True)
class Span:
    """What is heard or seen from ``start`` to ``end`` (s)."""

    name: str  # sound class, or object
    label: str  # sound class that it belongs to; empty for distractions
    start: float
    end: float


@dataclass(frozen=True)
class Example:
    """A clip of the demo world beside what was planted in it."""

    clip: Clip
    duration: float  # s
    beds: tuple[str, ...]  # background that lasts the whole clip
    heard: tuple[Span, ...]
    seen: tuple[Span, ...]
    log_mel: np.ndarray  # float32 [frames, mels], natural logarithm of energy, Li et al.'s front end
    times: np.ndarray  # s, of the pictures
    pictures: np.ndarray  # uint8 [pictures, height, width, 3]


def load_inputs(parameters: Data) -> Inputs:
    """The demo world, rendered where it is not in the cache."""
    return Inputs(parameters, corpora.load("demo", profile=parameters.profile))


def measure_world(inputs: Inputs) -> Results:
    """Clips and labels of the demo world, what was planted in it, and what YAMNet hears, where it is at hand."""
    corpus, parameters = inputs.corpus, inputs.parameters
    device = choose_device(parameters.device)
    run = Run(CHAPTER, parameters.model_dump(), corpus, device_name(device))
    targets = corpus.targets()
    seconds = load_world_description().clip.seconds
    run.add("corpus", "", "clips", len(corpus.clips))
    run.add("corpus", "", "classes", len(corpus.classes))
    run.add("corpus", "", "labels_per_clip", targets.sum(axis=1).mean())
    run.add("corpus", "", "hours", len(corpus.clips) * seconds / 3600)
    for split in ("train", "validation", "test"):
        part = corpus.split(split).targets()
        run.add("corpus", split, "clips", len(part))
        run.add("corpus", split, "labels_per_clip", part.sum(axis=1).mean())
        for label, count in zip(corpus.classes, part.sum(axis=0), strict=True):
            run.add("corpus", split, "clips_with_label", count, label=label)
    _note_planted(run, corpus)
    weights = find("yamnet")
    if weights is not None:
        listen(run, YAMNet.pretrained(weights), RENDERINGS[parameters.profile], parameters.seed, device)
    return run.write()


def measure_sources(parameters: Data) -> Results:
    """What the manifests list: files, bytes, and whether they are at hand (1; 0.5: some of them; 0: none)."""
    run = Run(CHAPTER, parameters.model_dump(), Corpus("data manifests", (), (), (), digests.manifests()))
    for name, entry in sources().items():
        run.add("source", "", "files", len(entry.files), label=name)
        if entry.size is not None:
            run.add("source", "", "bytes", entry.size, label=name)
        run.add("source", "", "at_hand", {"no": 0.0, "partly": 0.5}.get(whereabouts(name), 1.0), label=name)
    recordings = [Path(file.name) for file in sources()["esc10"].files if file.name.endswith(".ogg")]
    run.add("esc10", "", "clips", len(recordings))
    run.add("esc10", "", "classes", len({path.parent for path in recordings}))
    run.add("esc10", "", "hours", len(recordings) * DURATION / 3600)
    with manifest_path("paired.csv").open(encoding="utf-8", newline="") as file:
        items = list(csv.DictReader(file))
    for modality in ("audio", "image"):
        run.add("paired", "", f"{modality}_items", sum(item["modality"] == modality for item in items))
    run.add("paired", "", "classes", len({item["label"] for item in items}))
    return run.write()


def measure_photographs(parameters: Data) -> Results | None:
    """How many photographs of ImageNet's classes the picture network names right by its first name."""
    if not at_hand("imagenet_samples"):
        return None
    entry = source("imagenet_samples")
    digest = digests.of_values([[file.name, file.sha256] for file in entry.files])
    device = choose_device(parameters.device)
    corpus = Corpus("imagenet_samples", (), (), (), digest)
    run = Run(CHAPTER, parameters.model_dump(), corpus, device_name(device))
    folder = fetch("imagenet_samples", entry.files[0].name).parent
    right, photographs = named_right(EfficientNetLite0.pretrained(device=device), folder)
    run.add("EfficientNet-lite0", "", "photographs", photographs)
    run.add("EfficientNet-lite0", "", "right", right)
    run.add("EfficientNet-lite0", "", "accuracy", right / photographs)
    return run.write()


def example(corpus: Corpus) -> Example:
    """A test clip that shows the world's ways: two or more sounds, all well heard, the source of one in view; small.

    The first such clip in the corpus's order, else the first with a labelled sound.
    """
    assert corpus.strong is not None
    sight = _in_view(corpus.strong)
    labelled = [clip for clip in corpus.clips if clip.split == "test" and clip.labels]
    if not labelled:
        raise CorpusError(f"corpus {corpus.name} has no test clip with a label")
    sources_seen = sight[sight["label"].notna()].groupby("clip")["label"].agg(set).to_dict()
    faintest = pd.read_csv(corpus.strong / "sound.csv").groupby("clip")["snr_db"].min()
    telling = [
        clip
        for clip in labelled
        if len(clip.labels) > 1
        and faintest[clip.id] >= WELL_HEARD
        and set(clip.labels) & sources_seen.get(clip.id, set())
        and clip.path.stat().st_size <= SMALL
    ]
    clip = (telling or labelled)[0]
    scenes = json.loads((corpus.strong / "scenes.json").read_text(encoding="utf-8"))
    scene = next(one for one in scenes if one["clip"] == clip.id)
    heard = [Span(one["label"], one["label"], one["onset"], one["offset"]) for one in scene["events"]]
    heard += [Span(one["kind"], "", one["onset"], one["offset"]) for one in scene["distractions"]]
    front_end = LogMel.li2017()
    waveform = read_audio(clip.path, front_end.sample_rate, duration=scene["duration"])
    times = (np.arange(FRAMES) + 0.5) * scene["duration"] / FRAMES
    pictures, began = read_frames(clip.path, times=times)
    return Example(
        clip=clip,
        duration=scene["duration"],
        beds=tuple(bed["kind"] for bed in scene["beds"]),
        heard=tuple(heard),
        seen=tuple(spans_in_view(sight[sight["clip"] == clip.id], load_world_description().clip.frames_per_second)),
        log_mel=front_end(torch.from_numpy(waveform)[None])[0].numpy(),
        times=began,
        pictures=pictures,
    )


def isolated_sounds(parameters: Data) -> dict[str, tuple[np.ndarray, int]]:
    """One rendering of each class, alone: label -> waveform float32 [samples] and its rate (Hz).

    They are the first of those that YAMNet listens to.
    """
    return {label: (isolated_sound(label, 0, parameters.seed), RATE) for label in SOUND_CLASSES}


def spans_in_view(sight: pd.DataFrame, frames_per_second: float) -> list[Span]:
    """Unbroken spans in which each object of one clip is in view, from its boxes (truth/sight.parquet), by start."""
    spans = []
    for (thing, label), rows in sight.groupby(["object", sight["label"].fillna("")]):
        frames = np.unique(rows["frame"])
        for run in np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1):
            spans.append(Span(thing, label, run[0] / frames_per_second, (run[-1] + 1) / frames_per_second))
    return sorted(spans, key=lambda span: span.start)


def _in_view(truth: Path) -> pd.DataFrame:
    sight = pd.read_parquet(truth / "sight.parquet")
    return sight[sight["visible"] >= IN_VIEW]


def _note_planted(run: Run, corpus: Corpus) -> None:
    """How the sounding events, their labels and their sources' pictures go together."""
    assert corpus.strong is not None
    events = pd.read_csv(corpus.strong / "sound.csv")
    rate = load_world_description().clip.frames_per_second
    sight = _in_view(corpus.strong).dropna(subset="label")
    frames = {key: np.unique(rows["frame"]) for key, rows in sight.groupby(["clip", "label"])}
    labelled = {(clip.id, label) for clip in corpus.clips for label in clip.labels}
    told, seen, shares = [], [], []
    for row in events.itertuples(index=False):
        shown = frames.get((row.clip, row.label), np.array([], dtype=int)) / rate
        during = np.arange(np.ceil(row.onset * rate), np.ceil(row.offset * rate)) / rate
        told.append((row.clip, row.label) in labelled)
        seen.append(len(shown) > 0)
        shares.append(np.isin(during, shown).mean() if len(during) else 0.0)
    run.add("planted", "", "events", len(events))
    run.add("planted", "", "events_labelled", float(np.mean(told)))
    run.add("planted", "", "sources_seen", float(np.mean(seen)))
    run.add("planted", "", "seen_while_heard", float(np.mean(np.array(shares)[seen])))
    heard = {(row.clip, row.label) for row in events.itertuples(index=False)}
    run.add("planted", "", "seen_silent", float(np.mean([key not in heard for key in frames])))
