"""Paired corpus: tones and coloured pictures put in, found again in the files; groups, uses, damage, resumption."""

from __future__ import annotations

import hashlib
import wave
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import binom

from avrepro import corpora
from avrepro.corpora import Corpus, CorpusError, paired_render
from avrepro.corpora.paired import load_paired, paired_recipe
from avrepro.corpora.paired_items import SHARES, read_manifest
from avrepro.corpora.paired_render import Plan, Shot, Sound, film, mix, plan_split
from avrepro.media import check_clip, read_audio, read_frames

TONE = {"Horn, low": 500.0, "Horn, high": 2000.0, "Voice": 1000.0, "Rare": 4000.0}  # Hz; Voice has no photographs
COLOUR = {"Horn, low": (220, 30, 30), "Horn, high": (30, 30, 220), "Rare": (230, 220, 30), "Mute": (30, 200, 30)}
RARE_GROUPS = 2


def write_tone(path: Path, frequency: float, seconds: float = 2.0, level: float = 0.3) -> None:
    samples = level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * 16000)) / 16000)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def write_manifest(folder: Path, rows: list[dict[str, str]]) -> None:
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)


def make_items(folder: Path) -> list[dict[str, str]]:
    """4 recordings a label (Rare: in 2 groups) and 4 photographs of each colour, and their manifest.csv."""
    rows = []
    for label, frequency in TONE.items():
        for k in range(4):
            name, group = f"{label} {k}.wav", f"{label} {k % RARE_GROUPS if label == 'Rare' else k}"
            write_tone(folder / name, frequency, seconds=1.5 + k / 2)
            rows.append({"path": name, "label": label, "modality": "audio", "group": group, "strict": "1"})
    for label, colour in COLOUR.items():
        for k in range(4):
            name = f"{label} {k}.png"
            Image.new("RGB", (200 + 80 * k, 240), colour).save(folder / name)
            rows.append({"path": name, "label": label, "modality": "image", "group": "", "strict": str(int(k < 3))})
    write_manifest(folder, rows)
    return rows


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("items")
    make_items(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(items: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVREPRO_HOME", str(tmp_path_factory.mktemp("home")))
        return load_paired(items, clips_per_class=5, jobs=1)


def truth_of(corpus: Corpus) -> pd.DataFrame:
    assert corpus.strong is not None
    return pd.read_parquet(corpus.strong / "items.parquet")


def left_out(corpus: Corpus) -> dict[str, str]:
    assert corpus.strong is not None
    return pd.read_csv(corpus.strong.parent / "left_out.csv", index_col="item")["reason"].to_dict()


def contents(corpus: Corpus) -> list[str]:
    return [hashlib.sha256(clip.path.read_bytes()).hexdigest() for clip in corpus.clips]


# --- what was put in is found in the files


def test_colour_on_show_is_the_one_the_truth_names(corpus: Corpus) -> None:
    truth, distracted = truth_of(corpus), 0
    for clip in corpus.clips:
        shots = truth[(truth["clip"] == clip.id) & (truth["modality"] == "image")].sort_values("start")
        assert shots["start"].iloc[0] == 0 and shots["end"].iloc[-1] == 10
        np.testing.assert_allclose(shots["start"].iloc[1:], shots["end"].iloc[:-1])
        assert (shots["end"] - shots["start"]).min() >= 0.9
        times = np.sort(np.concatenate([shots["start"], shots["end"] - 0.1]))
        for time, frame in zip(times, read_frames(clip.path, times=times + 0.001)[0], strict=True):
            shown = frame.reshape(-1, 3).mean(axis=0)
            nearest = min(COLOUR, key=lambda label: np.abs(shown - COLOUR[label]).sum())
            assert nearest == shots[(shots["start"] <= time + 1e-6) & (time + 1e-6 < shots["end"])]["label"].item()
        np.testing.assert_array_equal(shots["distraction"], ~shots["label"].isin(clip.labels))
        distracted += shots["distraction"].any()
    assert 0 < distracted < len(corpus.clips)


def test_tones_sound_when_the_truth_says_and_are_the_labels(corpus: Corpus) -> None:
    truth = truth_of(corpus)
    for clip in corpus.clips:
        sounds = truth[(truth["clip"] == clip.id) & (truth["modality"] == "audio")]
        assert set(sounds["label"]) == set(clip.labels) and not sounds["distraction"].any()
        blocks = read_audio(clip.path, duration=10)[: 100 * 2205].reshape(100, 2205)  # 0.1 s each
        power = np.abs(np.fft.rfft(blocks * np.hanning(2205), axis=1)) ** 2  # 10 Hz a bin
        middle = np.arange(100) / 10 + 0.05
        for label, frequency in TONE.items():
            at = round(frequency / 10)
            tone = power[:, at - 2 : at + 3].sum(axis=1)
            beside = (power[:, at - 15 : at - 5].mean(axis=1) + power[:, at + 6 : at + 16].mean(axis=1)) / 2
            audible = tone > 100 * beside
            sounding, near = np.zeros(100, bool), np.zeros(100, bool)
            for sound in sounds[sounds["label"] == label].itertuples():
                sounding |= (middle > sound.start + 0.1) & (middle < sound.end - 0.1)
                near |= (middle > sound.start - 0.15) & (middle < sound.end + 0.15)
            assert audible[sounding].all() and not audible[~near].any()


def test_levels_and_fades() -> None:
    recording = np.random.default_rng(0).standard_normal(2 * 22050).astype(np.float32)
    plan = Plan("a", "train", ("x",), (Sound("x.wav", "x", 3.0, 5.0, 14.0),), (), seed=5)
    noise, mixed = mix(replace(plan, sounds=()), {}), mix(plan, {"x.wav": recording})
    added = (mixed - noise).astype(np.float64)
    assert not added[: 3 * 22050].any() and not added[5 * 22050 :].any()
    rms = np.sqrt(np.mean(added[3 * 22050 : 5 * 22050] ** 2)) / np.sqrt(np.mean(noise.astype(np.float64) ** 2))
    assert 20 * np.log10(rms) == pytest.approx(14, abs=0.1)  # the fades take a little
    assert added[3 * 22050] == 0
    power = np.abs(np.fft.rfft(noise)) ** 2  # 0.1 Hz a bin; pink: the same in every octave
    octaves = [power[10 * low : 20 * low].sum() for low in (100, 200, 400, 800, 1600, 3200)]
    np.testing.assert_allclose(octaves / np.mean(octaves), 1, atol=0.15)
    loud = mix(replace(plan, sounds=(replace(plan.sounds[0], snr_db=60.0),)), {"x.wav": recording})
    assert 0.98 < np.abs(loud).max() <= 0.99


@pytest.mark.parametrize("shape", [(600, 900), (900, 600)])
def test_shot_shows_the_part_it_names(shape: tuple[int, int]) -> None:
    height, width = shape
    photograph = np.zeros((height, width, 3), np.uint8)
    photograph[..., 0] = np.linspace(0, 255, width)[None, :]  # red tells how far right, green how far down
    photograph[..., 1] = np.linspace(0, 255, height)[:, None]
    shot = Shot("p", "x", 0.0, 10.0, zoom=(1.0, 1.25), x=(0.0, 1.0), y=(1.0, 0.2))
    frames = film(Plan("a", "train", (), (), (shot,), 0), {"p": photograph})
    assert frames.shape == (100, 240, 320, 3)
    cover = min(width / 320, height / 240)  # photograph px a frame px at zoom 1
    for frame, zoom, x, y in ((0, 1.0, 0.0, 1.0), (99, 1.25, 1.0, 0.2)):
        part = np.array([240, 320]) * cover / zoom
        centre = np.array([y, x]) * (np.array([height, width]) - part) + part / 2
        expected = 255 * centre / np.array([height, width])
        seen = frames[frame, 115:125, 155:165, 1::-1].reshape(-1, 2).mean(axis=0)  # green, red
        np.testing.assert_allclose(seen, expected, atol=2.5)


# --- what is in which clip


def test_events_items_and_splits(corpus: Corpus, items: Path) -> None:
    truth = truth_of(corpus)
    assert corpus.name == "paired" and corpus.classes == ("Horn, high", "Horn, low", "Voice")
    assert Counter(clip.split for clip in corpus.clips) == {"train": 9, "validation": 3, "test": 3}
    split_of = {clip.id: clip.split for clip in corpus.clips}
    used = truth.drop_duplicates(["clip", "item"])
    assert used.groupby("item")["clip"].nunique().max() <= paired_render.USES
    assert (used.assign(split=used["clip"].map(split_of)).groupby("item")["split"].nunique() == 1).all()
    for split in SHARES:
        assert corpus.split(split).targets().any(axis=0).all()
    assert set(left_out(corpus)) == {f"Rare {k}.wav" for k in range(4)}
    assert "2 group(s)" in left_out(corpus)["Rare 0.wav"]
    group_of = read_manifest(items / "manifest.csv").set_index("path")["group"]
    for clip in corpus.clips:
        check_clip(clip.path)
        rows = truth[(truth["clip"] == clip.id) & ~truth["distraction"]]
        assert set(clip.sources) == {group_of[item] for item in rows["item"]}
    assert truth["distraction"].any()


def test_chances() -> None:
    """Rates over many plans, within bounds that a fair draw leaves once in a million."""
    labels = [f"class {k}" for k in range(10)]
    sounds = {label: {f"{label}/{k}.ogg": 3.0 + 9.0 * (k == 0) for k in range(400)} for label in labels}
    photographs = {label: [f"{label}/{k}.jpg" for k in range(600)] for label in [*labels[1:], "no event"]}
    plans = plan_split("train", 200, sounds, photographs, np.random.default_rng(1))
    assert Counter(plan.sounds[0].label for plan in plans) == dict.fromkeys(labels, 200)

    def fair(hits: int, trials: int, chance: float) -> None:
        low, high = binom.interval(1 - 1e-6, trials, chance)
        assert low <= hits <= high, (hits, trials, chance)

    fair(sum(len(plan.labels) == 2 for plan in plans), 2000, paired_render.SECOND)
    visible = [plan for plan in plans if plan.sounds[0].label != labels[0]]
    unseen = sum(plan.sounds[0].label not in {shot.label for shot in plan.shots} for plan in visible)
    fair(unseen, len(visible), paired_render.UNSEEN)
    alone = [plan for plan in plans if len(plan.labels) == 1 and plan.labels[0] in {s.label for s in plan.shots}]
    fair(sum(any(s.label not in plan.labels for s in plan.shots) for plan in alone), len(alone), 0.5)
    fair(sum(len({s.item for s in p.shots if s.label == p.labels[0]}) == 2 for p in alone), len(alone), 0.5)
    for plan in plans:
        assert plan.shots and all(0 <= sound.onset < sound.offset <= 10 for sound in plan.sounds)
    counts = Counter(item for plan in plans for item in {s.item for s in (*plan.sounds, *plan.shots)})
    assert max(counts.values()) <= paired_render.USES
    few = plan_split("test", 200, {"a": {"a.ogg": 1.0}}, {}, np.random.default_rng(0))
    assert len(few) == paired_render.USES


# --- the same again, interrupted, damaged


@pytest.mark.usefixtures("home")
def test_same_clips_from_other_processes_and_row_order(items: Path, corpus: Corpus, tmp_path: Path) -> None:
    other = tmp_path / "reversed.csv"
    read_manifest(items / "manifest.csv")[::-1].rename(columns={"path": "name"}).to_csv(other, index=False)
    again = load_paired(items, other, clips_per_class=5, jobs=2)
    assert again.digest == corpus.digest and again.clips[0].path != corpus.clips[0].path
    assert [(c.id, c.split, c.labels) for c in again.clips] == [(c.id, c.split, c.labels) for c in corpus.clips]
    assert contents(again) == contents(corpus)
    pd.testing.assert_frame_equal(truth_of(again), truth_of(corpus))
    assert not set(contents(load_paired(items, clips_per_class=1, seed=1, jobs=1))) & set(contents(corpus))


@pytest.mark.usefixtures("home")
def test_damaged_items_are_left_out_and_listed(tmp_path: Path) -> None:
    make_items(tmp_path)
    (tmp_path / "Horn, low 0.png").write_bytes((tmp_path / "Horn, low 0.png").read_bytes()[:60])
    (tmp_path / "Horn, high 2.wav").write_bytes(b"")
    write_tone(tmp_path / "Horn, low 3.wav", 500, level=0.0)
    corpus = load_paired(tmp_path, clips_per_class=3, jobs=1)
    assert corpus.classes == ("Horn, high", "Horn, low", "Voice")
    reasons = left_out(corpus)
    damaged = {"Horn, low 0.png", "Horn, high 2.wav", "Horn, low 3.wav"}
    assert damaged == {item for item in reasons if not item.startswith("Rare")}
    assert "silent" in reasons["Horn, low 3.wav"] and "empty" in reasons["Horn, high 2.wav"]
    assert not damaged & set(truth_of(corpus)["item"])


def test_recipe(items: Path, corpus: Corpus, home: Path, tmp_path: Path) -> None:
    recipe = partial(paired_recipe, items, clips_per_class=5)
    ci = {"profile": "ci", "clips": items}
    assert corpus.digest == recipe().key == corpora.recipe("paired", **ci).key
    assert corpus.digest == corpora.identity("paired", ("audio",), **ci)
    rows = make_items(tmp_path)
    elsewhere = partial(paired_recipe, tmp_path, clips_per_class=5)
    assert elsewhere().key == recipe().key
    keys = {recipe().key, recipe(seed=1).key, recipe(clips_per_class=2).key, recipe(strict=True).key}
    write_tone(tmp_path / "Voice 0.wav", 1100)
    keys.add(elsewhere().key)
    rows[0]["label"] = "Whistle"
    write_manifest(tmp_path, rows)
    assert len(keys | {elsewhere().key}) == 6
    assert not home.exists()  # nothing is rendered


@pytest.mark.usefixtures("home")
def test_published_items_not_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AVREPRO_MIRROR", raising=False)
    with pytest.raises(CorpusError, match="AVREPRO_MIRROR"):
        load_paired()
