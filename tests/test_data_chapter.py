"""The data chapter as a person runs it, with and without published files, and what its players and figures hold."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import soxr
import torch
from bs4 import BeautifulSoup, Tag
from scipy import signal

from avrepro import corpora, results
from avrepro.corpora import dcase2017
from avrepro.corpora.demo.sounds import SOUND_CLASSES, synthesise_event
from avrepro.corpora.download import collect
from avrepro.experiments import data, data_hearing, data_lists
from avrepro.home import home
from avrepro.manifests import manifest_path
from avrepro.models.yamnet import YAMNet
from avrepro.parameters import Data
from avrepro.report import check_executed, runs_shown


def run(output: Path, environment: dict[str, str]) -> Path:
    words = [sys.executable, "-m", "avrepro", "run", "data", "-p", "profile=ci", "--output", str(output)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return output


def markup(notebook: Path) -> BeautifulSoup:
    """All that the executed chapter shows, as one page."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return BeautifulSoup("".join("".join(one.get("data", {}).get("text/html", "")) for one in outputs), "html.parser")


def table(page: BeautifulSoup, caption: str) -> list[list[str]]:
    """Body of the one table whose caption begins so, a list of texts a row."""
    found = [one for one in page.find_all("table") if one.caption and one.caption.get_text().startswith(caption)]
    assert len(found) == 1, f"{len(found)} tables {caption!r}"
    return [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in found[0].tbody.find_all("tr")]  # type: ignore[union-attr]


def caption_of(tag: Tag) -> str:
    """The caption of a picture or player, empty where it has none."""
    figure = tag.find_parent("figure")
    return figure.figcaption.get_text(strip=True) if figure is not None and figure.figcaption is not None else ""


def embedded(tag: Tag, kind: str) -> io.BytesIO:
    start, _, content = str(tag["src"]).partition(",")
    assert start == f"data:{kind};base64"
    return io.BytesIO(base64.b64decode(content, validate=True))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chapter without mirror, downloads and network; the demo world alone is there."""
    folder = tmp_path_factory.mktemp("bare")
    parameters = Data(profile="ci")
    world = data.load_inputs(parameters).corpus.clips[0].path.parents[1]
    (folder / "home" / "corpora").mkdir(parents=True)
    (folder / "home" / "corpora" / world.name).symlink_to(world)
    # an address that refuses every connection stands for the network: asking it would fail loudly
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = {**os.environ, **proxies, "AVREPRO_HOME": str(folder / "home")}
    environment.pop("AVREPRO_MIRROR", None)
    return run(folder / "out.ipynb", environment)


@pytest.fixture(scope="module")
def full(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chapter with the mirror."""
    return run(tmp_path_factory.mktemp("full") / "out.ipynb", dict(os.environ))


def test_without_published_files_the_chapter_says_so_and_goes_on(bare: Path) -> None:
    page = markup(bare)
    notes = [note.get_text() for note in page.find_all("em") if note.get_text().startswith("Not fetched: ")]
    told = {name for note in notes for name in re.findall(r"avrepro data fetch (\w+)", note)}
    assert told == {
        "dcase2017_task4", "audioset", "yamnet", "imagenet_samples", "published_predictions", "ast_per_class",
    }  # fmt: skip
    assert len(notes) == 6
    rows = {row[0]: row for row in table(page, "The corpora of this book")}
    assert rows["demo (made)"][1:3] == ["60", "17"]
    assert rows["dcase2017 (published)"][1:6] == ["–", "–", "–", "–", "lists not fetched"]
    assert {row[1] for row in table(page, "Sources, from the manifests")} == {"not fetched"}
    assert len(page.find_all("audio")) == len(SOUND_CLASSES) and len(page.find_all("video")) == 1
    assert len(runs_shown(json.loads(bare.read_text()))) == 3, "demo world, manifests, and one of them in detail"


def test_real_sounds_and_photographs_are_counted_as_their_manifest_does(bare: Path) -> None:
    with manifest_path("paired.csv").open(encoding="utf-8") as file:
        items = list(csv.DictReader(file))
    shown = {row[0]: row[1:] for row in table(markup(bare), "Corpus paired")}
    assert set(shown) == {item["label"] for item in items}
    for label in set(shown):
        wanted = []
        for kind in ("audio", "image"):
            of = [item for item in items if (item["label"], item["modality"]) == (label, kind)]
            sure = sum(item["strict"] == "1" for item in of)
            wanted += [str(len(of)), str(len({item["group"] for item in of})), str(sure)]
        assert shown[label] == wanted, label


def test_clips_that_audioset_names_too(full: Path, mirror: Path) -> None:
    """Counted by plain string search in the official files."""
    lists = {name: (mirror / "dcase2017_task4" / f"{name}_set.csv").read_text() for name in ("training", "testing")}
    weak = (mirror / "dcase2017_task4/groundtruth_release/groundtruth_weak_label_evaluation_set.csv").read_text()
    ours = {name: {line[:11] for line in text.splitlines()} for name, text in {**lists, "evaluation": weak}.items()}
    shown = {row[0]: row for row in table(markup(full), "Videos of DCASE 2017 Task 4 that AudioSet")}
    for column, name in ((2, "balanced_train"), (3, "eval")):
        lines = (mirror / "audioset" / f"{name}_segments.csv").read_text().splitlines()
        theirs = {line[:11] for line in lines if not line.startswith("#")}
        for label, ids in ours.items():
            assert shown[label][column] == str(len(ids & theirs)) != "0"


def test_every_picture_player_and_table_says_what_it_is(bare: Path, request: pytest.FixtureRequest) -> None:
    notebooks = [bare] + ([request.getfixturevalue("full")] if os.environ.get("AVREPRO_MIRROR") else [])
    for notebook in notebooks:
        page = markup(notebook)
        assert len(page.find_all("img")) >= 2
        for image in page.find_all("img"):
            assert len(image["alt"]) > 40 and len(caption_of(image)) > 40
        for player in page.find_all(["audio", "video"]):
            assert player.has_attr("controls") and not player.has_attr("autoplay")
            assert len(player["aria-label"]) > 10 and caption_of(player)
        for one in page.find_all("table"):
            assert one.find_parent("details") is not None or (one.caption and one.caption.get_text(strip=True))
        assert notebook.stat().st_size < 4_500_000, "the page is to stay below 4 MB or so"


def test_sound_players_hold_the_classes(bare: Path) -> None:
    players = markup(bare).find_all("audio")
    labels = [caption_of(player) for player in players]
    assert labels == list(SOUND_CLASSES)
    for label, player in zip(labels, players, strict=True):
        assert label in player["aria-label"]
        with av.open(embedded(player, "audio/mpeg"), "r") as container:
            rate = container.streams.audio[0].sample_rate
            heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        assert len(heard) / rate == pytest.approx(data_hearing.SECONDS, abs=0.15)  # mp3 pads both ends
        rng = np.random.default_rng([0, SOUND_CLASSES.index(label), 0])
        made = synthesise_event(label, data_hearing.SECONDS, rng, rate)
        level = min(0.1, 0.95 / np.abs(made).max())  # RMS, 20 dB below full scale, or less where the peak forbids
        assert np.sqrt(np.mean(heard**2)) == pytest.approx(level, rel=0.15)
        agreement = signal.correlate(heard, made, "full", "fft").max() / np.linalg.norm(heard) / np.linalg.norm(made)
        assert agreement > 0.85, f"{label}: {agreement:.2f}"


def test_the_video_player_holds_the_clip(bare: Path) -> None:
    (player,) = markup(bare).find_all("video")
    file = embedded(player, "video/mp4")
    shown = data.example(data.load_inputs(Data(profile="ci")).corpus)
    assert file.getvalue() == shown.clip.path.read_bytes()
    assert all(label in player["aria-label"] for label in shown.clip.labels)
    with av.open(file, "r") as container:
        assert {stream.type for stream in container.streams} == {"audio", "video"}
        assert (container.duration or 0) / 1e6 == pytest.approx(10.0, abs=0.2)


def test_the_timeline_shows_what_was_planted(bare: Path) -> None:
    shown = data.example(data.load_inputs(Data(profile="ci")).corpus)
    truth = shown.clip.path.parents[1] / "truth"
    with (truth / "sound.csv").open(newline="") as file:
        sounds = [row for row in csv.DictReader(file) if row["clip"] == shown.clip.id]
    heard = {(span.label, span.start, span.end) for span in shown.heard if span.label}
    assert heard == {(row["label"], float(row["onset"]), float(row["offset"])) for row in sounds}
    assert set(shown.clip.labels) == {label for label, _, _ in heard}, "test clips are labelled completely"
    assert set(shown.clip.labels) & {span.label for span in shown.seen}
    (alt,) = [image["alt"] for image in markup(bare).find_all("img") if str(image["alt"]).startswith("Spectrogram")]
    for row in sounds:
        assert f"hear: {row['label']} {float(row['onset']):.1f} to {float(row['offset']):.1f} s" in alt
    sight = pd.read_parquet(truth / "sight.parquet")
    sight = sight[(sight["clip"] == shown.clip.id) & (sight["visible"] >= data.IN_VIEW)]
    for thing, rows in sight.groupby("object"):
        planted = set(rows["frame"])
        spans = [span for span in shown.seen if span.name == thing]
        covered = [frame for span in spans for frame in range(round(span.start * 12), round(span.end * 12))]
        assert sorted(covered) == sorted(planted), thing  # 12 frames/s, each once
        assert f"see: {thing}" in alt


def test_spans_in_view_break_where_a_thing_is_hidden() -> None:
    boxes = pd.DataFrame(
        [("bus", "Bus", frame) for frame in (0, 1, 2, 6, 7)] + [("cat", None, 3), ("cat", None, 3)],
        columns=["object", "label", "frame"],
    )
    spans = [(span.name, span.label, span.start, span.end) for span in data.spans_in_view(boxes, 2.0)]
    assert spans == [("bus", "Bus", 0.0, 1.5), ("cat", "", 1.5, 2.0), ("bus", "Bus", 3.0, 4.0)]


def test_planted_numbers_are_those_of_the_truth() -> None:
    """Every event of the world taken by itself, frame by frame."""
    inputs = data.load_inputs(Data(profile="ci"))
    world = data.measure_world(inputs)
    truth = inputs.corpus.clips[0].path.parents[1] / "truth"
    events = pd.read_csv(truth / "sound.csv").to_dict("records")
    sight = pd.read_parquet(truth / "sight.parquet")
    visible = {(row.clip, row.label, row.frame) for row in sight[sight["visible"] >= 0.1].itertuples()}
    labels = {clip.id: clip.labels for clip in inputs.corpus.clips}
    shares = []
    for event in events:
        if any((event["clip"], event["label"], frame) in visible for frame in range(121)):
            during = [frame for frame in range(121) if event["onset"] <= frame / 12 < event["offset"]]
            shares.append(np.mean([(event["clip"], event["label"], frame) in visible for frame in during]))
    expected = {
        "events": len(events),
        "events_labelled": np.mean([event["label"] in labels[event["clip"]] for event in events]),
        "sources_seen": len(shares) / len(events),
        "seen_while_heard": np.mean(shares),
    }
    for metric, value in expected.items():
        assert world.number("planted", metric).value == pytest.approx(value), metric


def test_families_hold_their_class_in_the_words_of_yamnet(mirror: Path) -> None:
    assert set(data_hearing.FAMILIES) == set(SOUND_CLASSES)
    with (mirror / "yamnet" / "yamnet_class_map.csv").open(newline="") as file:
        known = {row["display_name"] for row in csv.DictReader(file)}
    for label, family in data_hearing.FAMILIES.items():
        assert label in family and set(family) <= known and len(set(family)) == len(family)


def test_listening_counts_as_a_slow_listener_does() -> None:
    """An untrained network of YAMNet's form, whose names are made up, heard one rendering at a time."""
    torch.manual_seed(0)
    network = YAMNet().eval()
    named = list(dict.fromkeys(name for family in data_hearing.FAMILIES.values() for name in family))
    network.classes = tuple(named[k % len(named)] if k % 2 else f"other {k}" for k in range(521))
    run = results.Run("data", {}, corpora.Corpus("none", (), (), (), ""))
    data_hearing.listen(run, network, 2, 5, torch.device("cpu"))
    noted = {(row["metric"], row["label"]): row["value"] for row in run.rows}
    first, among = [], []
    for label in SOUND_CLASSES:
        names = []
        for number in range(2):
            sound = soxr.resample(data_hearing.isolated_sound(label, number, 5), 32_000, 16_000, quality="HQ")
            with torch.inference_mode():
                mean = network(sound)[0].mean(0)
            names.append([network.classes[k] for k in mean.topk(5).indices])
        first.append(np.mean([one[0] in data_hearing.FAMILIES[label] for one in names]))
        among.append(np.mean([any(name in data_hearing.FAMILIES[label] for name in one) for one in names]))
        assert noted["family_first", label] == first[-1] and noted["family_among_five", label] == among[-1]
        for name, times in Counter(one[0] for one in names).items():
            assert noted["heard", f"{label} | {name}"] == times / 2
    assert 0 < sum(among) < len(among), "the test must see both"
    assert noted["family_among_five", ""] == pytest.approx(np.mean(among))
    assert noted["classes_family_first", ""] == sum(share > 0.5 for share in first)
    assert noted["classes_family_among_five", ""] == sum(share > 0.5 for share in among)


def test_numbers_of_the_task_are_those_of_its_files(full: Path, mirror: Path) -> None:
    folder = mirror / "dcase2017_task4"
    page = markup(full)
    truth = folder / "groundtruth_release"
    lines = {
        name: len((truth / f"groundtruth_weak_label_{name}_set.csv").read_text().strip().splitlines())
        for name in ("training", "testing", "evaluation")
    }
    rows = {row[0]: row for row in table(page, "DCASE 2017 Task 4, counted in the official lists")}
    assert [row[1] for row in rows.values()] == ["51,172", "488", "1,103"]
    assert rows["training"][2:5] == ["56,131", "none", "–"] and rows["testing"][2:5] == ["606", "688", "36"]
    assert rows["evaluation"][2:5] == ["1,350", "1,706", "150"]
    for name, row in rows.items():
        assert row[2] == f"{lines[name]:,}"

    measured = data_lists.measure_dcase2017(Data(profile="ci"))
    assert measured is not None
    with (folder / "training_set.csv").open(newline="") as file:
        labels = [set(row[4].split(",")) for row in csv.reader(file, skipinitialspace=True)]
    horn, train, car, alarm = "/m/0284vy3", "/m/07jdr", "/m/0k4j", "/m/02mfyn"
    counts = Counter(label for one in labels for label in one)
    assert measured.number("list, training", "clips_with_label", label="Car").value == counts[car] == 25077
    assert measured.number("list", "imbalance", label="training").value == pytest.approx(counts[car] / counts[alarm])
    both = sum({horn, train} <= one for one in labels)
    assert measured.number("list", "also_labelled", label="Train horn | Train").value == both / counts[horn]
    held_out = measured.select(system="list, validation", metric="clips_with_label")["value"]
    assert len(held_out) == 17 and held_out.max() - held_out.min() <= 1
    assert measured.number("list", "clips", label="validation").value == 1142
    several = sum(len(one) > 1 for one in labels) / len(labels)
    assert rows["training"][6] == f"{100 * several:.1f}"


def test_numbers_of_audioset_are_those_of_its_files(full: Path, mirror: Path) -> None:
    rows = {row[0].split()[0]: row for row in table(markup(full), "AudioSet's labels")}
    for name, file in (("balanced", "balanced_train_segments.csv"), ("evaluation", "eval_segments.csv")):
        lines = (mirror / "audioset" / file).read_text().splitlines()[3:]
        labels = [line.partition('"')[2].strip('"').split(",") for line in lines]
        counts = Counter(label for one in labels for label in one)
        assert rows[name][1:3] == [f"{len(lines):,}", str(len(counts))]
        assert rows[name][3] == f"{sum(map(len, labels)) / len(lines):.2f}"
        assert rows[name][4] == f"Music ({max(counts.values()):,})"
        assert f"({min(counts.values())};" in rows[name][5]
    assert rows["Fayek"][2:4] == ["527", "2.7"]


def test_published_scores_come_out_as_published(full: Path, mirror: Path) -> None:
    rows = {row[0]: row for row in table(markup(full), "Predictions on the testing clips")}
    with (mirror / "published_predictions/kaist_testing/index.csv").open(newline="") as file:
        published = {int(row["number"]): float(row["micro_f1_percent"]) for row in csv.DictReader(file)}
    assert len(published) == 12
    for number, f1 in published.items():
        row = rows[f"file {number:02d}"]
        assert float(row[1]) == float(row[2]) == pytest.approx(f1, abs=0.0011)
        assert float(row[3]) < 0.01
        assert float(row[5]) < float(row[4]), "the two averages over classes are not the same thing"
    samples = {name: float(row[3]) for name, row in rows.items() if name.startswith("sample")}
    assert set(samples) == {
        f"sample {name}" for name in ("perfect", "imperfect", "precision_affected", "recall_affected", "invalid")
    }
    assert samples.pop("sample invalid") > 0.1
    assert max(samples.values()) < 0.01

    predictions = data_lists.measure_predictions(Data(profile="ci"))
    assert predictions is not None
    known = {"precision": 0.5139, "recall": 0.3977, "f1": 0.4484}  # of threshold 0.3, counted by others
    for metric, value in known.items():
        assert predictions.number("one threshold", metric, step=30).value == pytest.approx(value, abs=5e-5)
    tuned, cross, plain = (
        predictions.number(name, "micro_f1")
        for name in (
            "class thresholds, tuned on the same clips",
            "class thresholds, cross-validated",
            "one threshold, 0.5",
        )
    )
    assert tuned.value > cross.value > plain.value
    assert cross.low < cross.value < cross.high and "bootstrap" in cross.method
    gain = predictions.number("class thresholds, cross-validated", "micro_f1_gain")
    assert gain.value == pytest.approx(cross.value - plain.value)


def test_ranking_averages_come_out_as_stated(full: Path, mirror: Path) -> None:
    rows = {row[0]: row for row in table(markup(full), "Audio Spectrogram Transformer")}
    for name in ("balanced", "full"):
        last = (mirror / f"audioset/ast_per_class/{name}_result.csv").read_text().split()[-1]
        stated = [float(cell) for cell in last.split(",")]
        for title, value in (("mAP", stated[0]), ("mAUC", stated[1]), ("d\u2032", stated[4])):
            row = rows[f"{title}, trained on the {name} list"]
            assert row[1] == row[2] == f"{value:.6f}" and float(row[3]) < 1e-9


def test_the_executed_chapter_passes_the_book(
    bare: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs are in the store, none is stale, and every number named in its sentences is said."""
    if os.environ.get("AVREPRO_MIRROR"):
        full = request.getfixturevalue("full")
        check_executed("data", full, allow_ci=True)
        assert len(runs_shown(json.loads(full.read_text()))) == 8
    monkeypatch.setenv("AVREPRO_HOME", str(bare.parent / "home"))
    check_executed("data", bare, allow_ci=True)


def test_what_became_of_clips_is_told_by_class(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One clip that is here and one that is gone, as ``avrepro data clips`` would have found them."""
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    horn, screams = (
        next(clip for clip in dcase2017.listed() if clip.labels == labels)
        for labels in (("Train horn",), ("Screaming",))
    )
    media = tmp_path / "media"
    media.mkdir()
    shutil.copy(next((mirror / "real_clips").glob("*.mp4")), media / f"{horn.id}.mp4")
    folder = home() / "clips" / "dcase2017"
    collect([horn], folder, media=media)
    gone = {"id": screams.id, "split": screams.split, "status": "private", "reason": "asked for in vain"}
    with (folder / "status.jsonl").open("a") as file:
        file.write(json.dumps(gone) + "\n")
    measured = data_lists.measure_dcase2017(Data(profile="ci"))
    assert measured is not None
    assert measured.number("list", "clips_at_hand").value == 1
    told = {(row.metric, row.label): row.value for row in measured.select(system="clips").itertuples()}
    assert told["ok", "Train horn"] == 1 and told["private", "Screaming"] == 1 and told["ok", "Screaming"] == 0
    assert told["not fetched", "Train horn"] == told["listed", "Train horn"] - 1
