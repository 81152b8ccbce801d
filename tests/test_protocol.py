"""The protocol on a small corpus whose scores are known: what is trained, chosen, cached and counted."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from avrepro import protocol, systems
from avrepro.conditions import Condition
from avrepro.corpora.base import Clip, Corpus
from avrepro.encode import write_clip
from avrepro.evaluation import average_precision, tune_thresholds
from avrepro.evaluation.summary import SeedScores, Summary
from avrepro.features.audio import log_mel
from avrepro.features.logmel import LogMel
from avrepro.measure import measure
from avrepro.systems import Checkpoint, Data, System

LABELS = ("Bus", "Siren", "Train")
SPLITS = ["train"] * 20 + ["validation"] * 10 + ["test"] * 10


class Planted(System):
    """Scores planted clip by clip: the class's truth, blurred by a fixed number for each clip and class."""

    profiles: ClassVar[Mapping[str, Any]] = {"ci": Checkpoint(), "demo": Checkpoint()}

    def __init__(self, name: str, blur: int) -> None:
        super().__init__(name, name, "test")
        self.blur, self.fitted = blur, 0

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        self.fitted += 1
        trained = [data.corpus.clips[row].id for row in data.rows("train")]
        return Checkpoint(numbers={"trained": trained}, seconds=2.0, parameters=3)

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        return planted(data.corpus, self.blur)


class Memorising(Planted):
    """1 for every class of a clip that it was trained on, else 0."""

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        trained = set(checkpoint.numbers["trained"])
        known = [clip.id in trained for clip in data.corpus.clips]
        return np.repeat(np.array(known, np.float32)[:, None], len(data.classes), axis=1)


class Recording(Planted):
    """Notes the scores that it is given to learn from."""

    def __init__(self, name: str, uses: tuple[str, ...], folds: int) -> None:
        super().__init__(name, 0)
        self.uses, self.count, self.given = uses, folds, {}

    def folds(self, condition: Condition) -> int:
        return self.count

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        self.given = dict(given)
        return super().fit(data, given, seed, state_path)


def planted(corpus: Corpus, blur: int) -> np.ndarray:
    noise = np.random.default_rng(blur).random((40, len(corpus.classes)))
    rows = [int(clip.id[:2]) for clip in corpus.clips]
    return (0.55 * corpus.targets() + 0.45 * noise[rows]).astype(np.float32)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 real clips of half a second with weak labels, two splits of them held out."""
    folder = tmp_path_factory.mktemp("clips")
    draw = np.random.default_rng(1)
    rows = [["clip", "labels", "split"]]
    for number, split in enumerate(SPLITS):
        tone = np.sin(np.arange(8000) * (0.05 + number / 100)).astype(np.float32) / 3
        write_clip(folder / f"{number:02}.mp4", np.full((2, 32, 48, 3), 6 * number, np.uint8), 4, tone, 16000)
        labels = [label for label in LABELS if draw.random() < 0.5] or [LABELS[number % 3]]
        rows.append([f"{number:02}.mp4", "|".join(labels), split])
    write_table(folder / "labels.csv", rows)
    return folder


def write_table(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def condition(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Condition]:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    protocol.load.cache_clear()
    protocol._load_corpus.cache_clear()
    yield Condition("folder", "ci", clips=str(clips), labels=str(clips / "labels.csv"))
    protocol.load.cache_clear()
    protocol._load_corpus.cache_clear()


def register(monkeypatch: pytest.MonkeyPatch, *added: System) -> None:
    for system in added:
        monkeypatch.setitem(systems.SYSTEMS, system.name, system)


def test_numbers_are_those_of_a_literal_count(condition: Condition, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Planted("li2017/audio", 1), Planted("li2017/video", 2)
    register(monkeypatch, first, second)
    results = measure("lightweight_fusion", [first.name, second.name], [condition])
    corpus = protocol.load(condition).corpus
    truth = corpus.targets()
    held, test = slice(20, 30), slice(30, 40)
    f1 = {}
    for system in (first, second):
        scores = planted(corpus, system.blur)
        decided = scores[test] >= tune_thresholds(truth[held], scores[held], 0)
        hits, wrong = (decided & truth[test]).sum(), (decided != truth[test]).sum()
        f1[system.name] = 2 * hits / (2 * hits + wrong)
        assert results.number(system.name, "micro_f1", split="test").value == pytest.approx(f1[system.name])
        assert results.number(system.name, "map", split="test").value == pytest.approx(
            average_precision(truth[test], scores[test]).mean()
        )
    gain = results.number("li2017/video", "micro_f1", against="li2017/audio", split="test")
    assert gain.value == pytest.approx(f1["li2017/video"] - f1["li2017/audio"])
    assert gain.low <= gain.value <= gain.high
    assert results.number("li2017/audio", "parameters").value == 3
    assert results.number("corpus", "positive_clips", split="test", label="Bus").value == truth[test][:, 0].sum()
    assert results.passport()["corpus_digest"] == corpus.digest and not results.stale


def test_nothing_is_chosen_by_test_clips(condition: Condition, clips: Path, tmp_path: Path, monkeypatch) -> None:
    """With the test clips' labels turned round, fusion weights and thresholds stay what they were."""
    audio, video = Planted("li2017/audio", 1), Planted("li2017/video", 2)
    register(monkeypatch, audio, video)
    rows = list(csv.reader((clips / "labels.csv").open()))
    for row in rows[31:]:
        row[1] = "|".join(label for label in LABELS if label not in row[1].split("|"))
    write_table(tmp_path / "other.csv", rows)
    other = replace(condition, labels=str(tmp_path / "other.csv"))
    for name in ("li2017/fused", "li2017/fused_tuned"):
        weights = [protocol.fit(name, one).checkpoint.numbers["video_weights"] for one in (condition, other)]
        assert weights[0] == weights[1] and len(weights[0]) == 3
    corpora = [protocol.load(one).corpus for one in (condition, other)]
    assert (corpora[0].targets()[30:] != corpora[1].targets()[30:]).all()
    scores = planted(corpora[0], 1)
    seeds = [SeedScores(protocol.load(one), {audio.name: scores}) for one in (condition, other)]
    thresholds = [Summary([one], "test").resampled(audio.name)[0].thresholds for one in seeds]
    assert (thresholds[0] == thresholds[1]).all()


def test_scores_out_of_fold_are_of_systems_not_trained_on_the_clip(condition: Condition, monkeypatch) -> None:
    memory, inside, outside = Memorising("x/m", 0), Recording("x/in", ("x/m",), 0), Recording("x/out", ("x/m",), 3)
    register(monkeypatch, memory, inside, outside)
    seconds = [protocol.fit(system.name, condition).seconds for system in (inside, outside)]
    assert seconds == [2.0 + 2.0, 2.0 + 2.0 + 3 * 2.0], "trainings out of fold count, too"
    assert (inside.given["x/m"][:20] == 1).all() and (outside.given["x/m"][:20] == 0).all()
    assert memory.fitted == 4 and (outside.given["x/m"][20:] == 0).all()
    todo = protocol.untrained(["x/out"], [replace(condition, seed=5)])
    assert [name for name, _ in todo] == ["x/m"] * 4 + ["x/out"]


def test_a_training_is_done_once_and_anew_where_anything_differs(condition: Condition, clips, tmp_path, monkeypatch):
    system = Planted("x/one", 1)
    register(monkeypatch, system)
    first = protocol.fit("x/one", condition)
    again = protocol.fit("x/one", condition)
    assert system.fitted == 1 and again.path == first.path and again.checkpoint.numbers == first.checkpoint.numbers
    rows = list(csv.reader((clips / "labels.csv").open()))
    tables = {"renamed": [[row[0], row[1].replace("Bus", "Coach"), row[2]] for row in rows]}
    tables["moved"] = [*rows[:20], [rows[20][0], rows[20][1], "test"], *rows[21:]]
    tables["relabelled"] = [*rows[:1], [rows[1][0], "Bus|Siren|Train" if rows[1][1] == "Bus" else "Bus", rows[1][2]],
                            *rows[2:]]  # fmt: skip
    others = []
    for name, table in tables.items():
        write_table(tmp_path / f"{name}.csv", table)
        others.append(replace(condition, labels=str(tmp_path / f"{name}.csv")))
    changes = {"seed": 1, "share": 0.5, "noise": 0.2, "fold": (0, 3), "dry": True}
    others += [replace(condition, **{name: value}) for name, value in changes.items()]
    paths = [protocol.checkpoint_path("x/one", one) for one in (condition, *others)]
    assert len(set(paths)) == len(paths)
    monkeypatch.setattr(Planted, "version", 2)
    assert protocol.checkpoint_path("x/one", condition) not in paths


def test_silent_and_black_clips_have_the_feature_of_nothing(condition: Condition) -> None:
    data = protocol.load(condition)
    feature = log_mel(LogMel.fayek2020(), "fayek2020")
    whole, silent, black = (data.with_impairment(how).arrays(feature) for how in ("", "silent", "black"))
    assert whole.present.all() and black.present.all() and not silent.present.any()
    spectrum = torch.from_numpy(whole[0])
    assert torch.isfinite(spectrum[:50]).all() and (spectrum[60:] == -torch.inf).all(), "half a second was recorded"
    assert (silent[3] == -np.inf).all() and silent[3].shape == whole[3].shape
    np.testing.assert_array_equal(black[2], whole[2])


def made(clips: int = 400) -> Corpus:
    draw = np.random.default_rng(5)
    splits = ["train"] * (clips // 2) + ["validation"] * (clips // 4) + ["test"] * (clips // 4)
    labels = [tuple(label for label in "abcdef" if draw.random() < 0.3) for _ in splits]
    made = (Clip(f"clip {row}", Path(), split, labels[row]) for row, split in enumerate(splits))
    return Corpus("demo", tuple("abcdef"), tuple(made), (), "digest")


def test_fewer_clips_are_part_of_more_and_only_training_clips_go() -> None:
    whole, used = made(), {}
    for share in (0.125, 0.5, 1.0):
        one = protocol.altered(whole, Condition(share=share, seed=3))
        used[share] = {clip.id for clip in one.clips if clip.split == "train"}
        assert [clip.id for clip in one.clips] == [clip.id for clip in whole.clips]
        assert one.clips[200:] == whole.clips[200:]
    assert used[0.125] < used[0.5] < used[1.0] and [len(one) for one in used.values()] == [25, 100, 200]


def test_wrong_labels_replace_right_ones_in_training_alone() -> None:
    whole = made(4000)
    noisy = protocol.altered(whole, Condition(noise=0.4, seed=1))
    pairs = list(zip(whole.clips, noisy.clips, strict=True))
    assert all(one == other for one, other in pairs if one.split != "train")
    replaceable = [(one, other) for one, other in pairs if one.split == "train" and 0 < len(one.labels) < 6]
    assert all(len(set(other.labels)) == len(one.labels) for one, other in replaceable)
    wrong = [label not in one.labels for one, other in replaceable for label in other.labels]
    assert np.mean(wrong) == pytest.approx(0.4, abs=0.04)
