"""What the data chapter measures and shows of the demo world: its clips, what was planted, and its sounds alone."""

from __future__ import annotations

import io
import json
from collections import Counter
from fractions import Fraction

import av
import numpy as np
import soxr
import torch
from PIL import Image

from avrepro.backbones.yamnet import YAMNet
from avrepro.corpora.base import Clip, Corpus
from avrepro.corpora.demo.description import load_world_description
from avrepro.corpora.demo.pictures import glyph
from avrepro.corpora.demo.sounds import SOUND_CLASSES, synthesise_event
from avrepro.corpora.demo.truth import read_events, read_sights
from avrepro.corpora.demo.vocabulary import SIGHTS
from avrepro.evaluation import metric_interval
from avrepro.parameters import Data
from avrepro.results import Run
from avrepro.training import choose_device

IN_VIEW = 0.1  # an object is in view where at least this share of it is not hidden
AUDIBLE = 0.0  # dB against the background

RENDERINGS = {"ci": 2, "demo": 10}  # of each class, for YAMNet
SECONDS = 4.0  # of a rendering: within or near the usual length of every class
RATE = 32_000  # Hz, the demo world's
LEVEL, PEAK = 0.1, 0.95  # RMS of a rendering (20 dB below full scale), and the peak that it never passes
TOP = 5  # of the looser count

ROAD = (
    "Vehicle", "Motor vehicle (road)", "Car", "Car passing by", "Race car, auto racing", "Truck", "Bus", "Motorcycle",
    "Traffic noise, roadway noise", "Engine", "Light engine (high frequency)", "Medium engine (mid frequency)",
    "Heavy engine (low frequency)", "Engine knocking", "Engine starting", "Idling", "Accelerating, revving, vroom",
)  # fmt: skip
RAIL = ("Rail transport", "Train", "Railroad car, train wagon", "Train wheels squealing", "Subway, metro, underground")
WHEELS = ("Bicycle", "Bicycle bell", "Skateboard")
SIRENS = (
    "Siren", "Emergency vehicle", "Police car (siren)", "Ambulance (siren)", "Fire engine, fire truck (siren)",
    "Civil defense siren",
)  # fmt: skip
HORNS = (
    "Vehicle horn, car horn, honking", "Toot", "Air horn, truck horn", "Train horn", "Train whistle", "Foghorn",
)  # fmt: skip
VOICES = ("Screaming", "Shout", "Yell", "Bellow", "Whoop", "Children shouting")
# AudioSet's names that count as the right family, fixed before the network was run: the class itself, what makes its
# sound in the same way, and general names of that kind of source. A siren is no horn and no mere alarm.
FAMILIES: dict[str, tuple[str, ...]] = {
    "Train horn": HORNS,
    "Air horn, truck horn": HORNS,
    "Car alarm": ("Car alarm", "Alarm", "Vehicle horn, car horn, honking", "Toot"),  # most alarms sound the horn
    "Reversing beeps": ("Reversing beeps", "Beep, bleep", "Alarm"),
    **dict.fromkeys(("Bicycle", "Skateboard"), WHEELS),
    **dict.fromkeys(SIRENS[2:], SIRENS),
    "Screaming": VOICES,
    **dict.fromkeys(("Car", "Car passing by", "Bus", "Truck", "Motorcycle"), ROAD),
    "Train": RAIL,
}


def note_corpus(run: Run, clips: int, classes: int, seconds: float, labels: int) -> None:
    """Size of a corpus, from its number of labels and its seconds in all."""
    run.add("corpus", "clips", clips)
    run.add("corpus", "classes", classes)
    run.add("corpus", "hours", seconds / 3600)
    run.add("corpus", "labels_per_clip", labels / clips)


def note_world(run: Run, parameters: Data) -> None:
    """Clips and labels of the demo world; how sounding events, weak labels and pictures of the sources go together."""
    (corpus,) = run.corpora
    clip = load_world_description().clip
    seconds = len(corpus.clips) * clip.seconds
    note_corpus(run, len(corpus.clips), len(corpus.classes), seconds, corpus.targets().sum())
    for label, count in zip(corpus.classes, corpus.split("train").targets().sum(axis=0), strict=True):
        run.add("corpus", "clips_with_label", count, split="train", label=label)
    events, sights = read_events(corpus), read_sights(corpus)
    visible = sights[sights["visible"] >= IN_VIEW].dropna(subset="label")
    frames = {key: np.unique(rows["frame"]) for key, rows in visible.groupby(["clip", "label"])}
    labelled = {(one.id, label) for one in corpus.clips for label in one.labels}
    keys = list(zip(events["clip"], events["label"], strict=True))
    rate, shares = clip.frames_per_second, []
    for key, onset, offset in zip(keys, events["onset"], events["offset"], strict=True):
        during = np.arange(np.ceil(onset * rate), np.ceil(offset * rate))  # frames
        if key in frames:
            shares.append(np.isin(during, frames[key]).mean() if len(during) else 0.0)
    run.add("planted", "events", len(events))
    run.add("planted", "labelled", sum(key in labelled for key in keys) / len(keys))
    run.add("planted", "source_in_view", len(shares) / len(keys))
    run.add("planted", "in_view_while_sounding", sum(shares) / len(shares))
    run.add("planted", "in_view_without_sound", len(frames.keys() - set(keys)) / len(frames))


def example(corpus: Corpus) -> tuple[Clip, dict[str, list[tuple[float, float]]]]:
    """A test clip that shows what the world is like, and what was planted in it: name -> spans (start, end), s.

    The first one with two labels or more whose events are all audible and of which one has its source in view;
    else the first with a label.
    """
    test = corpus.split("test")
    events, sights = read_events(test), read_sights(test)
    sights = sights[sights["visible"] >= IN_VIEW]
    shown = set(zip(sights["clip"], sights["label"], strict=True))
    faint = set(events["clip"][events["snr_db"] < AUDIBLE])
    labelled = [clip for clip in test.clips if clip.labels]
    telling = (
        clip
        for clip in labelled
        if len(clip.labels) > 1 and clip.id not in faint and any((clip.id, label) in shown for label in clip.labels)
    )
    clip = next(telling, labelled[0])
    assert corpus.strong is not None  # else there were no events
    scenes = json.loads((corpus.strong / "scenes.json").read_text("utf-8"))
    scene = next(scene for scene in scenes if scene["clip"] == clip.id)
    spans: dict[str, list[tuple[float, float]]] = {}
    for one in scene["events"]:
        spans.setdefault(f"sounds: {one['label']}", []).append((one["onset"], one["offset"]))
    for one in scene["distractions"]:
        spans.setdefault(f"sounds besides: {one['kind']}", []).append((one["onset"], one["offset"]))
    rate = load_world_description().clip.frames_per_second
    for thing, rows in sights[sights["clip"] == clip.id].groupby("object"):
        frames = np.unique(rows["frame"])
        parts = np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1)
        spans[f"in view: {thing}"] = [(part[0] / rate, (part[-1] + 1) / rate) for part in parts]
    return clip, spans


def isolated_sound(label: str, number: int, seed: int) -> np.ndarray:
    """Rendering ``number`` of a class, dry and alone: float32 [SECONDS x RATE], at LEVEL unless its peak forbids."""
    rng = np.random.default_rng([seed, SOUND_CLASSES.index(label), number])
    waveform = synthesise_event(label, SECONDS, rng, RATE)  # RMS 1
    return waveform * min(LEVEL, PEAK / float(np.abs(waveform).max()))


def class_samples(seed: int) -> dict[str, tuple[bytes, str, bytes]]:
    """What each class sounds and looks like: label -> a rendering (mp3), and name and drawing (PNG) of a source."""
    samples = {}
    for label in SOUND_CLASSES:
        picture = io.BytesIO()
        Image.fromarray(glyph(SIGHTS[label][0])).save(picture, format="png")
        samples[label] = (mp3(isolated_sound(label, 0, seed)), SIGHTS[label][0], picture.getvalue())
    return samples


def mp3(waveform: np.ndarray) -> bytes:
    """Sound as mp3, which every browser plays: waveform float32 [samples], -1..1, at RATE."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=RATE, layout="mono", format="fltp")
        stream.bit_rate = 48_000
        frame = av.AudioFrame.from_ndarray(waveform[None].astype(np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def note_recognition(run: Run, parameters: Data) -> None:
    """How often the first name, and one of the first five, that YAMNet gives a sound is of the right family.

    A rendering is named by the mean of its patches' scores. ``first_name`` is the share of a class's renderings that
    have a name first. The intervals are over renderings.
    """
    device, renderings = choose_device(parameters.device), RENDERINGS[parameters.profile]
    network = YAMNet.pretrained().to(device)
    right: dict[str, list[float]] = {"first_in_family": [], "five_in_family": []}
    for label in SOUND_CLASSES:
        sounds = [isolated_sound(label, number, parameters.seed) for number in range(renderings)]
        waveforms = np.stack([soxr.resample(sound, RATE, network.sample_rate, quality="HQ") for sound in sounds])
        with torch.inference_mode():
            scores = network(torch.from_numpy(waveforms).to(device))[0].mean(1).cpu().numpy()  # (renderings, 521)
        ranked = [[network.classes[k] for k in np.argsort(-row, kind="stable")[:TOP]] for row in scores]
        for metric, top in (("first_in_family", 1), ("five_in_family", TOP)):
            found = [float(bool(set(names[:top]) & set(FAMILIES[label]))) for names in ranked]
            run.add("yamnet", metric, sum(found) / renderings, label=label)
            right[metric] += found
        for name, count in Counter(names[0] for names in ranked).items():
            run.add("yamnet", "first_name", count / renderings, label=f"{label} | {name}")
    run.add("yamnet", "renderings", renderings)
    for metric, values in right.items():
        pooled = np.array(values)
        run.add("yamnet", metric, metric_interval(np.mean, pooled))
