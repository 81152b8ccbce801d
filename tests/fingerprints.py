"""What every recipe makes of a tiny fixed input: the numbers by which a changed output is noticed.

``make fingerprints`` writes them to ``fingerprints.json``, after the versions of changed recipes were raised.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from avrepro import corpora, protocol
from avrepro.conditions import Condition
from avrepro.corpora.base import Clip
from avrepro.encode import write_clip
from avrepro.evaluation import micro_f1_interval, resample, summarise, tune_thresholds
from avrepro.features.store import Feature
from avrepro.home import home
from avrepro.media import read_audio, read_frames
from avrepro.results import EVALUATION
from avrepro.systems import SYSTEMS

FILE = Path(__file__).with_suffix(".json")
CONDITION = Condition(profile="ci", dry=True)
TOLERANCE = 2e-4  # relative, or absolute below 1: sums in another order stay below it
CLIPS = 2

Fingerprint = dict[str, Any]  # version of a recipe, and its numbers


def of_array(array: np.ndarray) -> list[float]:
    """A few numbers of an array: its shape, mean and deviation, and some of its values."""
    values = np.nan_to_num(np.asarray(array, np.float64), neginf=-99.0).ravel()
    few = values[np.linspace(0, len(values) - 1, min(len(values), 5)).astype(int)] if len(values) else values
    spread = [values.mean(), values.std()] if len(values) else []
    return [*map(float, np.shape(array)), *(round(float(one), 7) for one in [*spread, *few])]


def silenced(folder: Path) -> Clip:
    """Five seconds of noise, then of digital silence: what reaches the floors of the front ends."""
    draw = np.random.default_rng(3)
    sound = np.where(np.arange(320_000) < 160_000, 0.1 * draw.standard_normal(320_000), 0).astype(np.float32)
    frames = draw.integers(0, 256, (20, 72, 96, 3), dtype=np.uint8)
    write_clip(folder / "silenced.mp4", frames, 2, sound, 32_000)
    return Clip("silenced", folder / "silenced.mp4", "train", ())


def of_feature(feature: Feature) -> Fingerprint:
    """A feature of two clips of the demo world, of one that falls silent, and of nothing."""
    clips = protocol.load(CONDITION).corpus.clips[:CLIPS]
    with tempfile.TemporaryDirectory() as folder:
        arrays = [feature.of(clip) for clip in (*clips, silenced(Path(folder)))]
    numbers = [of_array(one) for one in [*arrays, feature.nothing()]]
    return {"version": feature.recipe.version, "numbers": [*chain.from_iterable(numbers)]}


@contextmanager
def nothing_computed() -> Iterator[None]:
    """A cache with the clips and downloads that are at hand and nothing else: old numbers would hide a change."""
    usual, caches = home(), (protocol.load, protocol._load_corpus)  # which hold paths
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, AVREPRO_HOME=folder):
        for part in ("corpora", "downloads"):
            (usual / part).mkdir(parents=True, exist_ok=True)
            (Path(folder) / part).symlink_to(usual / part)
        for one in caches:
            one.cache_clear()
        try:
            yield
        finally:
            for one in caches:
                one.cache_clear()


@nothing_computed()
def compute() -> dict[str, Fingerprint]:
    """Fingerprints of corpora, features, systems and numbers, by the name of the recipe."""
    torch.set_num_threads(1)
    found = {"corpus/demo": of_world(), "numbers": of_numbers()}
    data = protocol.load(CONDITION)
    for name, system in SYSTEMS.items():
        for feature in system.features(CONDITION).values():
            shared = f"{feature.recipe.name} {json.dumps(dict(feature.recipe.settings), sort_keys=True)}"
            if shared not in found:
                found[shared] = of_feature(feature)
        fitted = protocol.fit(name, CONDITION)
        losses = [row["loss"] for row in fitted.checkpoint.history]
        scores = protocol.scores(fitted, data)
        numbers = [*losses, *of_array(scores[: len(scores) // 2]), *of_array(scores[len(scores) // 2 :])]
        found[f"system/{name}"] = {"version": system.version, "numbers": numbers}
    return found


def of_world() -> Fingerprint:
    """Sound and pictures of the first two clips of the smallest demo world."""
    clips = corpora.load("demo", profile="ci").clips[:CLIPS]
    numbers = [*(of_array(read_audio(clip.path)) for clip in clips)]
    numbers += [of_array(read_frames(clip.path, times=[2.0, 7.0])[0]) for clip in clips]
    return {"version": corpora.recipe("demo", profile="ci").version, "numbers": [*chain.from_iterable(numbers)]}


def of_numbers() -> Fingerprint:
    """Thresholds, metrics and intervals of random scores."""
    draw = np.random.default_rng(7)
    truth = draw.random((60, 4)) < 0.3
    scores = [np.clip(0.4 * truth + 0.6 * draw.random(truth.shape), 0, 1) for _ in range(3)]
    thresholds = tune_thresholds(truth, scores[0])
    found = [resample(truth, one, thresholds, 200) for one in scores]
    numbers = [*thresholds.tolist()]
    for metric in ("micro_f1", "map", "mauc", "calibration_error"):
        rows = [getattr(one, metric) for one in found]
        for resplit in (None, (30, 10)):
            interval = summarise(rows, resplit=resplit, paired=False)
            numbers += [interval.value, interval.low, interval.high]
    interval = micro_f1_interval(truth, scores[0] > 0.5, scores[1] > 0.5, resamples=200)
    return {"version": EVALUATION, "numbers": [*numbers, interval.value, interval.low, interval.high]}


def differing(found: dict[str, Fingerprint], committed: dict[str, Fingerprint]) -> list[str]:
    """What is wrong, a line a recipe: changed numbers under an unchanged version, or a file that is out of date."""
    lines = []
    for name in sorted(found.keys() | committed.keys()):
        if name not in committed or name not in found:
            where = "not in" if name not in committed else "only in"
            lines.append(f"{name}: {where} {FILE.name}; run make fingerprints")
            continue
        new, old = found[name], committed[name]
        alike = len(new["numbers"]) == len(old["numbers"]) and np.allclose(
            new["numbers"], old["numbers"], rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True
        )
        if new["version"] != old["version"]:
            lines.append(f"{name}: version {new['version']}, recorded {old['version']}; run make fingerprints")
        elif not alike:
            lines.append(f"{name}: other numbers under version {old['version']}: raise the version of this recipe")
    return lines


if __name__ == "__main__":
    FILE.write_text(json.dumps(compute(), indent=1) + "\n")
    print(f"{FILE} is written")
