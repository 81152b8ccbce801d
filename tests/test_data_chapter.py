"""The data chapter: its numbers counted again from the files themselves, and the chapter as a person runs it."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import soxr
import torch
from bs4 import BeautifulSoup
from chapters import papermill
from PIL import Image
from scipy import signal, stats

from avrepro import corpora, facts, results
from avrepro.backbones.yamnet import YAMNet
from avrepro.checkout import ROOT
from avrepro.corpora.base import Corpus
from avrepro.corpora.demo.pictures import glyph
from avrepro.corpora.demo.sounds import SOUND_CLASSES, synthesise_event
from avrepro.corpora.demo.vocabulary import SIGHTS
from avrepro.fetch import at_hand
from avrepro.parameters import Data
from avrepro.report import check_executed
from avrepro.results import Results

CI = Data(profile="ci")
LISTS = {"training": (51172, 56131), "testing": (488, 606), "evaluation": (1103, 1350)}  # clips, weak labels


@pytest.fixture(scope="module")
def fresh(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    """Everything that the sources in the mirror allow, measured as ``facts.commit`` does."""
    folder = tmp_path_factory.mktemp("results")
    able = [name for name, one in facts.MEASUREMENTS.items() if one.sources and all(map(at_hand, one.sources))]
    return {name: facts.measure(name, Data(), folder) for name in able}


@pytest.fixture(scope="module")
def world() -> Corpus:
    return corpora.load("demo", profile="ci")


def value(found: Results, system: str, metric: str, **where: object) -> float:
    return found.number(system, metric, **where).value


def test_committed_numbers_are_those_of_the_sources(fresh: dict[str, Results]) -> None:
    assert {"task4_lists", "predictions", "audioset_lists", "ranking", "photographs"} <= set(fresh)
    columns = ["system", "against", "metric", "label", "step"]
    for name, found in fresh.items():
        committed = results.committed(name, facts.MEASUREMENTS[name].corpus, "data")
        assert committed.passport()["profile"] == "demo" and json.loads(committed.passport()["seeds"]) == [0]
        both = [one.table.set_index(columns)[["value", "low", "high"]].sort_index() for one in (committed, found)]
        pd.testing.assert_frame_equal(*both, rtol=1e-6, atol=1e-9, obj=f"facts.commit() is due: {name}")


@pytest.mark.parametrize("name", LISTS)
def test_official_lists(fresh: dict[str, Results], mirror: Path, name: str) -> None:
    found, folder = fresh["task4_lists"], mirror / "dcase2017_task4" / "groundtruth_release"
    rows = [line.split("\t") for line in (folder / f"groundtruth_weak_label_{name}_set.csv").read_text().splitlines()]
    labels = Counter(row[0] for row in rows)
    assert (len(labels), len(rows)) == LISTS[name]
    assert (value(found, name, "clips"), value(found, name, "labels")) == LISTS[name]
    assert value(found, name, "labels_per_clip") == pytest.approx(len(rows) / len(labels))
    several = sum(count > 1 for count in labels.values()) / len(labels)
    assert value(found, name, "several_labels") == pytest.approx(several)
    if name != "training":  # that list has no times
        strong = (folder / f"groundtruth_strong_label_{name}_set.csv").read_text().splitlines()
        untimed = sum([float(cell) for cell in line.split("\t")[1:3]] == [0, 0] for line in strong)
        assert value(found, name, "untimed_events") == untimed
        assert value(found, name, "timed_events") == len(strong) - untimed
    for other, file in (("balanced", "balanced_train"), ("evaluation", "eval")):
        lines = (mirror / "audioset" / f"{file}_segments.csv").read_text().splitlines()
        theirs = {line[:11] for line in lines if not line.startswith("#")}
        both = len(theirs & {clip[:11] for clip in labels})
        assert value(found, name, "also_in_audioset", label=other) == both > 0


def test_imbalance_and_co_occurrence(fresh: dict[str, Results], mirror: Path) -> None:
    found = fresh["task4_lists"]
    with (mirror / "dcase2017_task4" / "training_set.csv").open(newline="") as file:
        labels = [set(row[4].split(",")) for row in csv.reader(file, skipinitialspace=True)]
    horn, train, car, alarm = "/m/0284vy3", "/m/07jdr", "/m/0k4j", "/m/02mfyn"
    counts = Counter(label for one in labels for label in one)
    assert value(found, "training", "clips_with_label", label="Car") == counts[car] == 25077
    assert value(found, "training", "imbalance") == pytest.approx(25077 / 180) and counts[alarm] == 180
    both = sum({horn, train} <= one for one in labels)
    assert value(found, "training", "also_labelled", label="Train horn | Train") == both / counts[horn]
    assert value(found, "training", "also_labelled", label="Train | Train horn") == both / counts[train]
    held_out = found.select(system="validation", metric="clips_with_label")["value"]
    assert len(held_out) == 17 and held_out.max() - held_out.min() <= 1
    assert value(found, "validation", "clips") == 1142 and value(found, "corpus", "clips") == 52763


def test_published_predictions_score_as_published(fresh: dict[str, Results], mirror: Path) -> None:
    found, folder = fresh["predictions"], mirror / "published_predictions" / "kaist_testing"
    with (folder / "index.csv").open(newline="") as file:
        published = {int(row["number"]): float(row["micro_f1_percent"]) for row in csv.DictReader(file)}
    assert sorted(published) == list(range(12))
    for number, f1 in published.items():
        name, text = f"file {number:02d}", (folder / f"{number:02d}.official_output.txt").read_text()
        assert 100 * value(found, name, "micro_f1") == pytest.approx(f1, abs=0.0011)
        average, micro = (float(one) for one in re.findall(r"^\tF1 Score = (\S+)", text, re.MULTILINE))
        assert 100 * value(found, name, "class_average_f1") == pytest.approx(average, abs=1e-6)
        assert 100 * value(found, name, "official_micro_f1") == pytest.approx(micro, abs=1e-9)
        by_class = [float(one) for one in re.findall(r"^\tClass = .+F1 Score = (\S+)", text, re.MULTILINE)]
        assert len(by_class) == 17 and value(found, name, "macro_f1") == pytest.approx(np.mean(by_class), abs=1e-6)
        assert value(found, name, "largest_difference") < 1e-6
        assert value(found, name, "macro_f1") < value(found, name, "class_average_f1") - 0.01


def test_thresholds(fresh: dict[str, Results]) -> None:
    found = fresh["predictions"]
    known = {"micro_precision": 0.5139, "micro_recall": 0.3977, "micro_f1": 0.4484}  # at 0.3, counted by others
    for metric, number in known.items():
        assert value(found, "one threshold", metric, step=30) == pytest.approx(number, abs=5e-5)
    curve = found.select(system="one threshold", metric="micro_f1")
    assert value(found, "one threshold", "best") == curve.iloc[curve["value"].argmax()]["step"] / 100
    cross = found.number("class thresholds, cross-validated", "micro_f1")
    plain = found.number("one threshold: 0.5", "micro_f1")
    assert plain.value == value(found, "one threshold", "micro_f1", step=50)
    assert value(found, "class thresholds, tuned on the same clips", "micro_f1") > cross.value > plain.value
    assert cross.low < cross.value < cross.high and "bootstrap" in cross.method
    gain = found.number("class thresholds, cross-validated", "micro_f1", against="one threshold: 0.5")
    assert gain.value == pytest.approx(cross.value - plain.value) and gain.low > 0


@pytest.mark.parametrize("name", ["balanced", "full"])
def test_ranking_averages(fresh: dict[str, Results], mirror: Path, name: str) -> None:
    found, folder = fresh["ranking"], mirror / "audioset" / "ast_per_class"
    stated = [float(cell) for cell in (folder / f"{name}_result.csv").read_text().split()[-1].split(",")]
    table = pd.read_csv(folder / f"{name}_last_epoch.csv")
    auc = table["roc_auc"].mean()
    plain = {"map": table["average_precision"].mean(), "mauc": auc, "d_prime": np.sqrt(2) * stats.norm.ppf(auc)}
    for (metric, counted), number in zip(plain.items(), (stated[0], stated[1], stated[4]), strict=True):
        assert value(found, "stated", metric, label=name) == number
        assert value(found, "recomputed", metric, label=name) == pytest.approx(number, abs=1e-9)
        assert counted == pytest.approx(number, abs=1e-9)


def test_real_items_are_counted_as_their_manifests_do(tmp_path: Path) -> None:
    found = facts.measure("paired_items", CI, tmp_path)
    with (ROOT / "data_manifests" / "paired.csv").open(encoding="utf-8", newline="") as file:
        items = list(csv.DictReader(file))
    for modality in ("audio", "image"):
        of = [item for item in items if item["modality"] == modality]
        assert value(found, modality, "items") == len(of)
        assert value(found, modality, "strict_items") == sum(item["strict"] == "1" for item in of)
        for label in {item["label"] for item in items}:
            groups = [item["group"] for item in of if item["label"] == label]
            assert value(found, modality, "items", label=label) == len(groups)
            assert value(found, modality, "groups", label=label) == len(set(groups))
    esc10 = facts.measure("esc10_items", CI, tmp_path)
    assert [value(esc10, "corpus", metric) for metric in ("clips", "classes", "labels_per_clip")] == [400, 10, 1]
    assert value(esc10, "corpus", "hours") == pytest.approx(400 * 5 / 3600)


def test_planted_facts_are_those_of_the_truth(world: Corpus, tmp_path: Path) -> None:
    """Every event of the world by itself, frame by frame."""
    found = facts.measure("world", CI, tmp_path)
    assert world.strong is not None
    events = pd.read_csv(world.strong / "sound.csv").to_dict("records")
    sight = pd.read_parquet(world.strong / "sight.parquet")
    sight = sight[(sight["visible"] >= 0.1) & sight["label"].notna()]
    visible = {(row.clip, row.label, row.frame) for row in sight.itertuples()}
    labels = {clip.id: clip.labels for clip in world.clips}
    shares = []
    for event in events:
        if any((event["clip"], event["label"], frame) in visible for frame in range(121)):
            during = [frame for frame in range(121) if event["onset"] <= frame / 12 < event["offset"]]
            shares.append(np.mean([(event["clip"], event["label"], frame) in visible for frame in during]))
    sounding, seen = {(event["clip"], event["label"]) for event in events}, {key[:2] for key in visible}
    expected = {
        "events": len(events),
        "labelled": np.mean([event["label"] in labels[event["clip"]] for event in events]),
        "source_in_view": len(shares) / len(events),
        "in_view_while_sounding": np.mean(shares),
        "in_view_without_sound": np.mean([key not in sounding for key in seen]),
    }
    for metric, number in expected.items():
        assert value(found, "planted", metric) == pytest.approx(number), metric
    assert value(found, "corpus", "clips") == len(labels) == 60
    trained = Counter(label for clip in world.clips if clip.split == "train" for label in clip.labels)
    for label in world.classes:
        assert value(found, "corpus", "clips_with_label", split="train", label=label) == trained[label]


def test_the_example_shows_what_was_planted(world: Corpus) -> None:
    clip, spans = facts.example(world)
    assert world.strong is not None and clip.split == "test" and len(clip.labels) > 1
    scene = next(one for one in json.loads((world.strong / "scenes.json").read_text()) if one["clip"] == clip.id)
    assert min(event["snr_db"] for event in scene["events"]) >= 0
    planted = {(f"sounds: {one['label']}", one["onset"], one["offset"]) for one in scene["events"]}
    planted |= {(f"sounds besides: {one['kind']}", one["onset"], one["offset"]) for one in scene["distractions"]}
    assert planted == {(name, *span) for name, those in spans.items() if name.startswith("sounds") for span in those}
    sight = pd.read_parquet(world.strong / "sight.parquet").query("clip == @clip.id and visible >= 0.1")
    assert set(clip.labels) & set(sight["label"])
    for thing, rows in sight.groupby("object"):  # 12 frames/s, each once
        shown = spans.pop(f"in view: {thing}")
        frames = [frame for start, end in shown for frame in range(round(start * 12), round(end * 12))]
        assert frames == sorted(set(rows["frame"])), thing
    assert all(name.startswith("sounds") for name in spans)


def test_class_samples_sound_and_look_like_their_class() -> None:
    samples = facts.class_samples(seed=0)
    assert list(samples) == list(SOUND_CLASSES)
    for label, (sound, source, drawing) in samples.items():
        with av.open(io.BytesIO(sound), "r") as container:
            decoded = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        made = synthesise_event(label, 4.0, np.random.default_rng([0, SOUND_CLASSES.index(label), 0]), 32_000)
        level = min(0.1, 0.95 / np.abs(made).max())  # RMS, 20 dB below full scale, or less where the peak forbids
        assert np.sqrt(np.mean(decoded**2)) == pytest.approx(level, rel=0.15)
        both = np.linalg.norm(decoded) * np.linalg.norm(made)
        assert signal.correlate(decoded, made, "full", "fft").max() / both > 0.85, label
        assert source in SIGHTS[label]
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(drawing))), glyph(source))


def test_families_hold_their_class_in_the_words_of_yamnet(mirror: Path) -> None:
    with (mirror / "yamnet" / "yamnet_class_map.csv").open(newline="") as file:
        known = {row["display_name"] for row in csv.DictReader(file)}
    assert set(facts.FAMILIES) == set(SOUND_CLASSES)
    for label, family in facts.FAMILIES.items():
        assert label in family and set(family) <= known and len(set(family)) == len(family)


def test_recognition_counts_right_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An untrained network of YAMNet's form, whose names are made up; one rendering after the other."""
    torch.manual_seed(0)
    network = YAMNet().eval()
    named = list(dict.fromkeys(name for family in facts.FAMILIES.values() for name in family))
    network.classes = tuple(named[k % len(named)] if k % 2 else f"other {k}" for k in range(521))
    monkeypatch.setattr(YAMNet, "pretrained", lambda: network)
    found = facts.measure("recognition", Data(profile="ci", device="cpu", seed=5), tmp_path)
    among = []
    for label in SOUND_CLASSES:
        names = []
        for number in range(2):
            rng = np.random.default_rng([5, SOUND_CLASSES.index(label), number])
            sound = synthesise_event(label, 4.0, rng, 32_000)
            sound = soxr.resample(sound * min(0.1, 0.95 / np.abs(sound).max()), 32_000, 16_000, quality="HQ")
            with torch.inference_mode():
                names.append([network.classes[k] for k in network(sound)[0].mean(0).topk(5).indices])
        right = np.array([[name in facts.FAMILIES[label] for name in one] for one in names])
        assert value(found, "yamnet", "first_in_family", label=label) == right[:, 0].mean()
        assert value(found, "yamnet", "five_in_family", label=label) == right.any(axis=1).mean()
        for name, times in Counter(one[0] for one in names).items():
            assert value(found, "yamnet", "first_name", label=f"{label} | {name}") == times / 2
        among += list(right.any(axis=1))
    assert 0 < sum(among) < len(among), "the test must see both"
    assert value(found, "yamnet", "renderings") == 2
    assert value(found, "yamnet", "five_in_family") == pytest.approx(np.mean(among))


@pytest.mark.chapter
def test_the_chapter_shows_all_its_numbers_without_sources(
    world: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without mirror, downloads and network; the demo world alone is there."""
    rendered, output = world.clips[0].path.parents[1], tmp_path / "out.ipynb"
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / rendered.name).symlink_to(rendered)
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    monkeypatch.delenv("AVREPRO_MIRROR", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # refuses every connection: using the network would fail loudly
    done = papermill("data", output, profile="ci")
    assert done.returncode == 0, done.stderr[-3000:]
    text = output.read_text(encoding="utf-8")
    outputs = [one for cell in json.loads(text)["cells"] for one in cell.get("outputs", [])]
    page = BeautifulSoup("".join("".join(one.get("data", {}).get("text/html", "")) for one in outputs), "html.parser")
    assert "not measured" not in text and len(text) < 4_500_000
    tables = {one.caption.get_text(): one for one in page.find_all("table") if one.caption}
    for start, words in {
        "DCASE 2017 Task 4, counted": ["51,172", "56,131", "1,556 (150)"],
        "AudioSet's lists": ["22,160", "Music (6,244)"],
        "The same numbers": ["42.017", "50.443"],
        "The same probabilities": ["45.9", "+12.2"],
        "Audio Spectrogram Transformer": ["0.448561", "2.738268"],
    }.items():
        (shown,) = (one.get_text(" ") for caption, one in tables.items() if caption.startswith(start))
        assert all(word in shown for word in words), start
    assert all(len(row.find_all(["th", "td"])) <= 5 for one in tables.values() for row in one.find_all("tr"))
    assert len(page.find_all("audio")) == len(SOUND_CLASSES)
    content = base64.b64decode(str(page.find("video")["src"]).partition("base64,")[2])  # type: ignore[index]
    assert content == facts.example(world)[0].path.read_bytes()
    assert all(len(str(one["alt"])) > 8 for one in page.find_all("img"))
    assert all(len(str(one["aria-label"])) > 10 for one in page.find_all(["audio", "video"]))
    check_executed("data", output, allow_ci=True)
