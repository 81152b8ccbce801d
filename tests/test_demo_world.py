"""The demo world: its plans against what its description says, and real files against each other."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, spearmanr

from avrepro import media
from avrepro.corpora import Corpus, CorpusError, load
from avrepro.corpora.demo import world as world_module
from avrepro.corpora.demo.description import Sizes, WorldDescription, load_world_description
from avrepro.corpora.demo.scenes import Distraction, Scene, SoundEvent, draw_scenes
from avrepro.corpora.demo.world import load_demo, picture_donors
from avrepro.manifests import manifest_path

WORLD = load_world_description()
TINY = WORLD.model_copy(update={"profiles": {"tiny": Sizes(train=3, validation=2, test=2)}})
Planned = tuple[dict[str, list[Scene]], dict[str, tuple[str, ...]]]


@pytest.fixture(scope="module")
def planned() -> Planned:
    return draw_scenes(WORLD, "demo")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVREPRO_HOME", str(tmp_path_factory.mktemp("home")))
        return load_demo("tiny", jobs=1, world=TINY)


def scenes_of(planned: Planned) -> list[Scene]:
    return [scene for scenes in planned[0].values() for scene in scenes]


def truth_of(corpus: Corpus) -> Path:
    assert corpus.strong is not None
    return corpus.strong


def within_binomial(hits: int, trials: int, chance: float) -> bool:
    """Not stranger than one in a million, so that dozens of checks stay quiet."""
    low, high = binom.interval(1 - 1e-6, trials, chance)
    return bool(low <= hits <= high)


def decoded(path: Path) -> tuple[bytes, bytes]:
    return media.read_audio(path).tobytes(), media.read_frames(path, fps=12)[0].tobytes()


# --- the description


def test_description_names_what_is_wrong(tmp_path: Path) -> None:
    text = manifest_path("demo_world.yaml").read_text("utf-8")
    wrong = tmp_path / "world.yaml"
    for old, new, named in (
        ("imbalance: 15.0", "imbalance: 15.0\n  loudness: 3", "events.loudness"),
        ("seed: 2017", "seed: two", "seed"),
        ("missing_labels: 0.10", "missing_labels: 1.10", "events.missing_labels"),
        ("count: [0.10, 0.50, 0.30, 0.10]", "count: [0.10, 0.50, 0.30, 0.20]", "events.count"),
        ("{seconds: [0.5, 10.0], visible", "{seconds: [0.5, 12.0], visible", "classes.Car.seconds"),
        ("occlusion: [0.0, 0.6]", "occlusion: [0.6, 0.0]", "sights.occlusion"),
    ):
        assert text.count(old) == 1
        wrong.write_text(text.replace(old, new), "utf-8")
        with pytest.raises(CorpusError, match=named.replace(".", r"\.")):
            load_world_description(wrong)


@pytest.mark.parametrize(
    ("choices", "named"),
    [
        ({"profile": "paper"}, "ci, demo"),
        ({"asynchrony": 1.5}, "1.5"),
        ({"seed": -1}, "-1"),
        ({"clips": "x"}, "folder"),
    ],
)
def test_load_refuses(choices: dict, named: str) -> None:
    with pytest.raises(CorpusError, match=named):
        load("demo", **choices)


def test_load_names_the_nearest_corpus() -> None:
    with pytest.raises(CorpusError, match="did you mean 'demo-null'"):
        load("demo_null")
    with pytest.raises(CorpusError, match="labels"):
        load("folder", clips="somewhere")


def test_importing_corpora_loads_nothing_heavy() -> None:
    code = "import sys, avrepro.corpora; print(*({'torch', 'cv2', 'pandas', 'av', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# --- the plans


def test_plans_are_deterministic(planned: Planned) -> None:
    assert draw_scenes(WORLD, "demo") == planned
    other = draw_scenes(WORLD, "demo", seed=WORLD.seed + 1)
    assert not set(scene.seed for scene in scenes_of(planned)) & set(scene.seed for scene in scenes_of(other))


def test_sizes_and_number_of_events(planned: Planned) -> None:
    assert {split: len(scenes) for split, scenes in planned[0].items()} == {
        "train": 600,
        "validation": 170,
        "test": 200,
    }
    for scenes in planned[0].values():
        counts = Counter(len(scene.events) for scene in scenes)
        for number, share in enumerate(WORLD.events.count):
            assert abs(counts[number] - share * len(scenes)) < 1


def test_training_is_unbalanced_and_the_rest_is_balanced(planned: Planned) -> None:
    for split, scenes in planned[0].items():
        counts = Counter(event.label for scene in scenes for event in scene.events)
        assert all(len({event.label for event in scene.events}) == len(scene.events) for scene in scenes)
        ordered = [counts[label] for label in WORLD.classes]
        if split == "train":
            assert 12 <= max(ordered) / min(ordered) <= 18
            assert all(before >= after - 2 for before, after in pairwise(ordered))
            total = sum(ordered)
            law = 15.0 ** -(np.arange(17) / 16)
            np.testing.assert_allclose(ordered, total * law / law.sum(), rtol=0.15, atol=2)
        else:
            assert max(ordered) - min(ordered) <= 1


def test_share_of_missing_labels(planned: Planned) -> None:
    scenes, weak_labels = planned
    for split, chance in (("train", WORLD.events.missing_labels), ("validation", 0.0), ("test", 0.0)):
        sounding = {scene.clip: {event.label for event in scene.events} for scene in scenes[split]}
        assert all(set(weak_labels[clip]) <= labels for clip, labels in sounding.items())
        missing = sum(len(labels - set(weak_labels[clip])) for clip, labels in sounding.items())
        assert within_binomial(missing, sum(map(len, sounding.values())), chance)


def test_everything_lies_inside_its_clip_and_range(planned: Planned) -> None:
    low, high = WORLD.events.snr_db
    for scene in scenes_of(planned):
        for sound in [*scene.events, *scene.distractions]:
            assert isinstance(sound, SoundEvent | Distraction)
            assert 0 <= sound.onset < sound.offset <= scene.duration
            assert low <= sound.snr_db <= high
        for event in scene.events:
            shortest, longest = WORLD.classes[event.label].seconds
            assert shortest - 1e-9 <= event.offset - event.onset <= longest + 1e-9
        for sight in scene.sights:
            assert 0 <= sight.start < sight.end <= scene.duration
            assert 0 <= sight.occlusion <= 0.6
        assert 1 <= len(scene.beds) <= 2
        assert sum(sight.label is None for sight in scene.sights) <= 4


def test_sources_are_seen_as_often_as_described(planned: Planned) -> None:
    scenes = scenes_of(planned)
    for label, described in WORLD.classes.items():
        for sounds, chance in ((True, described.visible), (False, described.visible_silent)):
            those = [s for s in scenes if (label in {event.label for event in s.events}) == sounds]
            seen = sum(label in {sight.label for sight in scene.sights} for scene in those)
            assert within_binomial(seen, len(those), chance), (label, sounds, seen, len(those))


def test_asynchrony_moves_sights_and_nothing_else() -> None:
    together, apart = (scenes_of(draw_scenes(WORLD, "demo", asynchrony=dial)) for dial in (0.0, 1.0))
    heard, seen = [], []
    for near, far in zip(together, apart, strict=True):
        assert (near.events, near.beds, near.distractions, near.seed) == (
            far.events, far.beds, far.distractions, far.seed,
        )  # fmt: skip
        events = {event.label: event for event in near.events}
        for sight, later in zip(near.sights, far.sights, strict=True):
            assert replace(later, start=sight.start, end=sight.end) == sight
            if sight.label and (event := events.get(sight.label)):
                assert (sight.start, sight.end) == (event.onset, event.offset)
                heard.append(event.onset + event.offset)
                seen.append(later.start + later.end)
            else:
                assert sight == later
    assert len(heard) > 500
    assert spearmanr(heard, seen).pvalue > 1e-3


def test_no_clip_keeps_its_own_picture() -> None:
    clips = [
        (f"{split}-{k}", split) for split, size in (("train", 60), ("test", 2), ("validation", 7)) for k in range(size)
    ]
    for seed in range(20):
        donors = picture_donors(clips, seed)
        assert sorted(donors) == sorted(donors.values()) == sorted(clip for clip, _ in clips)
        assert all(clip != donor and clip.split("-")[0] == donor.split("-")[0] for clip, donor in donors.items())
    assert picture_donors(clips, 1) == picture_donors(clips, 1) != picture_donors(clips, 2)


def test_even_a_perfect_eye_is_useless_in_demo_null(planned: Planned) -> None:
    """Seeing every planted source tells what sounds in demo; with another clip's pictures it tells nothing."""
    scenes = {scene.clip: scene for scene in planned[0]["test"] + planned[0]["train"]}
    donors = picture_donors([(clip, clip.split("-")[0]) for clip in scenes], WORLD.seed)
    vehicles = [label for label, described in WORLD.classes.items() if described.visible > 0.5]
    hits = {"demo": [0, 0], "demo-null": [0, 0]}  # sounding classes whose source is seen, and all of them
    seen_anyway = {label: 0 for label in vehicles}
    for clip, scene in scenes.items():
        sights = {
            "demo": {sight.label for sight in scene.sights},
            "demo-null": {sight.label for sight in scenes[donors[clip]].sights},
        }
        for label in vehicles:
            seen_anyway[label] += label in sights["demo"]
        for event in scene.events:
            for world, seen in sights.items():
                if event.label in vehicles:
                    hits[world][0] += event.label in seen
                    hits[world][1] += 1
    base = sum(
        seen_anyway[event.label] / len(scenes)
        for scene in scenes.values()
        for event in scene.events
        if event.label in vehicles
    )
    assert hits["demo"][0] / hits["demo"][1] > 0.8
    assert within_binomial(hits["demo-null"][0], hits["demo-null"][1], base / hits["demo-null"][1])


# --- the files


def test_clips_decode_and_carry_their_weak_labels(tiny: Corpus) -> None:
    from avrepro.corpora.demo.sounds import SOUND_CLASSES

    assert tiny.classes == SOUND_CLASSES
    assert Counter(clip.split for clip in tiny.clips) == {"train": 3, "validation": 2, "test": 2}
    _, weak_labels = draw_scenes(TINY, "tiny")
    for clip in tiny.clips:
        media.check_clip(clip.path)
        waveform = media.read_audio(clip.path, 32000, duration=10.0)
        frames, times = media.read_frames(clip.path, fps=12)
        assert waveform.shape == (320_000,)
        assert 0.01 < np.abs(waveform).max() <= 1.1  # AAC overshoots a little
        assert frames.shape == (120, 144, 192, 3)
        assert np.abs(times - np.arange(120) / 12).max() < 1e-3
        assert clip.labels == weak_labels[clip.id]
    assert tiny.targets().sum() == sum(map(len, weak_labels.values()))
    with (tiny.clips[0].path.parents[1] / "weak_labels.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["clip"], row["split"], row["labels"]) for row in rows] == [
        (clip.id, clip.split, "|".join(clip.labels)) for clip in tiny.clips
    ]


def test_truth_tells_what_was_planned(tiny: Corpus) -> None:
    scenes = {scene.clip: scene for scene in scenes_of(draw_scenes(TINY, "tiny"))}
    sound = pd.read_csv(truth_of(tiny) / "sound.csv")
    assert len(sound) == sum(len(scene.events) for scene in scenes.values())
    for row in sound.itertuples():
        event = next(event for event in scenes[row.clip].events if event.label == row.label)
        assert (row.onset, row.offset, row.snr_db) == pytest.approx((event.onset, event.offset, event.snr_db))
    sight = pd.read_parquet(truth_of(tiny) / "sight.parquet")
    assert list(sight.columns) == ["clip", "frame", "object", "label", "x", "y", "w", "h", "visible"]
    assert sight["visible"].between(0, 1).all() and sight["frame"].between(0, 119).all()
    for (clip, thing), rows in sight.groupby(["clip", "object"]):
        spans = [(one.start, one.end) for one in scenes[clip].sights if one.object == thing]
        near = [any(start - 0.1 <= frame / 12 <= end + 0.1 for start, end in spans) for frame in rows["frame"]]
        assert all(near), (clip, thing)


def test_same_seed_same_bytes_other_seed_others(tiny: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    again = load_demo("tiny", jobs=2, world=TINY)  # in other processes, in another order
    assert again.digest == tiny.digest
    for one, other in zip(tiny.clips, again.clips, strict=True):
        assert one.path != other.path
        assert decoded(one.path) == decoded(other.path)
    for name in ("sound.csv", "scenes.json"):
        assert (truth_of(tiny) / name).read_bytes() == (truth_of(again) / name).read_bytes()
    sight = "sight.parquet"
    pd.testing.assert_frame_equal(pd.read_parquet(truth_of(tiny) / sight), pd.read_parquet(truth_of(again) / sight))
    fewer = TINY.model_copy(update={"profiles": {"tiny": Sizes(train=2, validation=2, test=2)}})
    different = load_demo("tiny", seed=5, jobs=2, world=fewer)
    assert different.digest != tiny.digest
    assert not {decoded(clip.path) for clip in different.clips} & {decoded(clip.path) for clip in tiny.clips}


def test_lost_and_damaged_clips_are_rendered_again(tiny: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.clips[0].path.parents[1]
    monkeypatch.setenv("AVREPRO_HOME", str(folder.parents[1]))
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    lost, damaged = tiny.clips[1].path, tiny.clips[4].path
    lost.unlink()
    damaged.write_bytes(before[damaged][0][:5000])
    assert load_demo("tiny", jobs=1, world=TINY) == tiny
    assert sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock") == files
    for path, (content, written) in before.items():
        if path.suffix == ".parquet":
            pd.testing.assert_frame_equal(pd.read_parquet(path), pd.read_parquet(_write(folder / "old", content)))
            (folder / "old").unlink()
        else:
            assert path.read_bytes() == content, path
        if path.suffix == ".mp4" and path not in (lost, damaged):
            assert path.stat().st_mtime_ns == written
    start = time.monotonic()
    load_demo("tiny", world=TINY)
    assert time.monotonic() - start < 1.0


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_failing_clip_is_named_and_the_rest_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    fewer: WorldDescription = TINY.model_copy(update={"profiles": {"tiny": Sizes(train=2, validation=2, test=2)}})
    plan = world_module.draw_scenes

    def with_a_fault(*choices: object) -> Planned:
        scenes, weak_labels = plan(*choices)  # type: ignore[arg-type]
        first = scenes["train"][1]
        broken = first.__class__(**{**first.__dict__, "beds": (first.beds[0].__class__("lava", 0.0),)})
        return {**scenes, "train": [scenes["train"][0], broken]}, weak_labels

    monkeypatch.setattr(world_module, "draw_scenes", with_a_fault)
    with pytest.raises(CorpusError, match=r"train-0001.*lava"):
        load_demo("tiny", jobs=1, world=fewer)
    (made,) = tmp_path.rglob("*.mp4")
    written = made.stat().st_mtime_ns
    assert not list(tmp_path.rglob("world.json"))
    monkeypatch.undo()
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    assert len(load_demo("tiny", jobs=1, world=fewer).clips) == 6
    assert made.stat().st_mtime_ns == written


def test_demo_null_keeps_the_sound_and_changes_the_pictures(tiny: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tiny.clips[0].path.parents[3]))
    null = load_demo("tiny", null=True, world=TINY)
    assert null.name == "demo-null" and null.digest != tiny.digest
    donors = dict(pd.read_csv(truth_of(null) / "pictures.csv").itertuples(index=False))
    paths = {clip.id: clip.path for clip in tiny.clips}
    sight, own_sight = (pd.read_parquet(truth_of(corpus) / "sight.parquet") for corpus in (null, tiny))
    for clip, own in zip(null.clips, tiny.clips, strict=True):
        assert (clip.id, clip.split, clip.labels) == (own.id, own.split, own.labels)
        assert media.stream_digest(clip.path, "audio") == media.stream_digest(own.path, "audio")
        shown = media.stream_digest(clip.path, "video")
        assert shown == media.stream_digest(paths[donors[clip.id]], "video")
        assert shown != media.stream_digest(own.path, "video")
        pd.testing.assert_frame_equal(
            sight[sight["clip"] == clip.id].drop(columns="clip").reset_index(drop=True),
            own_sight[own_sight["clip"] == donors[clip.id]].drop(columns="clip").reset_index(drop=True),
        )
    assert os.path.samefile(null.clips[0].path.parents[2], tiny.clips[0].path.parents[2])
