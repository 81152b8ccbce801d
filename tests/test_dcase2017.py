"""DCASE 2017 Task 4: official lists against each other, the validation set, and the official evaluation."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from avrepro.corpora import CorpusError, dcase2017
from avrepro.corpora.dcase2017 import CLASSES, SHORT_NAMES, as_matrix, validation_clips
from avrepro.corpora.statistics import class_counts, co_occurrence
from avrepro.evaluation.published import official_scores, read_official_output

PARTS = {"training": (51172, 56131), "testing": (488, 606), "evaluation": (1103, 1350)}


@pytest.fixture(scope="module")
def task(mirror: Path) -> Path:
    return mirror / "dcase2017_task4"


def ground_truth(task: Path, kind: str, part: str) -> Path:
    return task / f"groundtruth_release/groundtruth_{kind}_label_{part}_set.csv"


def plain_pairs(path: Path) -> set[tuple[str, str]]:
    """(clip, class) of a tab-separated file, read without the package."""
    rows = [line.rstrip("\r\n").split("\t") for line in path.open(newline="")]
    return {(row[0].removesuffix(".wav"), row[3]) for row in rows if len(row) == 4}


# --- the lists


def test_classes_are_those_of_the_official_list(task: Path) -> None:
    rows = [line.split("\t") for line in (task / "sound_event_list_17_classes.txt").read_text().splitlines()[1:]]
    assert {row[0]: SHORT_NAMES.get(row[2], row[2]) for row in rows} == dcase2017.NAME_OF_ID
    assert tuple(SHORT_NAMES.get(row[2], row[2]) for row in rows) == CLASSES and len(CLASSES) == 17


@pytest.mark.parametrize("part", PARTS)
def test_labels_as_the_files_have_them(task: Path, part: str) -> None:
    path = ground_truth(task, "weak", part)
    weak = dcase2017.read_weak(path)
    clips, rows = PARTS[part]
    assert (len(weak), weak["clip"].nunique()) == (rows, clips)
    assert set(zip(weak["clip"], weak["label"], strict=True)) == plain_pairs(path)
    times = weak["clip"].str[12:].str.split("_", expand=True).astype(float)
    np.testing.assert_allclose(times, weak[["start", "end"]])
    if part == "evaluation":  # it has no list of its own
        return
    table = dcase2017.read_list(task / f"{part}_set.csv")
    pairs = {(clip, name) for clip, names in zip(table["clip"], table["labels"], strict=True) for name in names}
    assert pairs == plain_pairs(path)
    with (task / f"{part}_set.csv").open(newline="") as file:
        for row, clip in zip(csv.reader(file), table.itertuples(), strict=True):
            assert (row[0], row[3]) == (clip.video, ",".join(clip.labels))  # quotes and commas survived


@pytest.mark.parametrize(("part", "events", "untimed", "both"), [("testing", 688, 36, 1), ("evaluation", 1706, 150, 0)])
def test_strong_labels(task: Path, part: str, events: int, untimed: int, both: int) -> None:
    table = dcase2017.read_strong(ground_truth(task, "strong", part))
    assert len(table) == events and (~table["timed"]).sum() == untimed
    pairs = {timed: set(zip(rows["clip"], rows["label"], strict=True)) for timed, rows in table.groupby("timed")}
    # An untimed row stands for a weak label that has no time: with them, the two files name the same pairs.
    assert pairs[True] | pairs[False] == plain_pairs(ground_truth(task, "weak", part))
    assert len(pairs[True] & pairs[False]) == both
    assert table["onset"].min() == 0 and table["offset"].max() <= 10


LINE = "-E0shPRxAbo,30.000,40.000,Train,/m/07jdr\n"
ROW = "a0123456789_0.000_10.000.wav\t{}\t{}\tFire engine (siren)\n"
READ_LIST, WEAK, STRONG = dcase2017.read_list, dcase2017.read_weak, dcase2017.read_strong
BAD = [
    (READ_LIST, LINE + LINE.replace("/m/07jdr", ""), r", line 2: expected 5 fields \(video, start.*found \['-E0sh"),
    (READ_LIST, LINE + "-5QrBL6MzLg,60,70,Train horn,Train,/m/0284vy3,/m/07jdr", ": expected 5 fields .*line 2, saw 7"),
    (READ_LIST, LINE.replace("/m/07jdr", "/m/0bt9lr"), ", line 1: expected identifiers of the 17 classes, found .*bt9"),
    (READ_LIST, LINE.replace("40.000", "20.000"), r", line 1: expected an end after the start"),
    (READ_LIST, LINE + LINE, r", line 2: expected each clip once"),
    (STRONG, ROW.format(1, 2).replace("Fire engine (siren)", "Dog"), r"one of the classes Train horn .*'Dog'"),
    (STRONG, ROW.format(1, 2).replace("_0.000_10.000", ""), r"expected a clip as video_start_end\.wav"),
    (WEAK, ROW.format("nan", 10), r"line 1: expected start and end in seconds"),
    (WEAK, ROW.format(0, 0), "line 1: expected an end after the start"),
    (WEAK, ROW.format(1, 2) + ROW.format(3, 4), "line 2: expected each label of a clip once"),
    (STRONG, ROW.format(4, 3), "line 1: expected offset after onset, or both 0"),
    (dcase2017.read_predictions, "a.wav\na.wav\t1.0\n", "line 2: expected start and end, or neither"),
    (dcase2017.read_probabilities, "a.wav" + 16 * "\t0.5" + "\t1.5", r"expected probabilities 0\.\.1, found \['a\."),
    (read_official_output, "a.wav\n", "expected one or two blocks of overall scores, found 0"),
]


@pytest.mark.parametrize(("read", "text", "message"), BAD)
def test_bad_line_is_named(tmp_path: Path, read: Callable[[Path], Any], text: str, message: str) -> None:
    path = tmp_path / "file.csv"
    path.write_text(text)
    with pytest.raises(CorpusError, match=rf"file\.csv.*{message}"):
        read(path)


def test_strong_rows_without_times_and_a_short_name(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text(ROW.format(1, 2) + ROW.format(3, 4) + ROW.format(0, 0))
    table = dcase2017.read_strong(path)
    assert table["timed"].tolist() == [True, True, False]
    assert set(table["label"]) == {"Fire engine, fire truck (siren)"}


# --- splits


def test_all_listed_clips(task: Path) -> None:
    listed = dcase2017.listed()
    sizes = {"train": 50030, "validation": 1142, "test": 488, "evaluation": 1103}
    assert Counter(clip.split for clip in listed) == sizes
    assert len({clip.video for clip in listed}) == len(listed)  # so no two splits share a video
    for clip in listed[::1000]:
        assert clip.id == f"{clip.video}_{clip.start:.3f}_{clip.end:.3f}"
    for split, part in (("test", "testing"), ("evaluation", "evaluation")):
        pairs = {(clip.id, label) for clip in listed if clip.split == split for label in clip.labels}
        assert pairs == plain_pairs(ground_truth(task, "weak", part))

    counts = class_counts(listed, CLASSES)  # the validation set is balanced
    assert counts["validation"].max() - counts["validation"].min() <= 1
    assert counts["train"].min() > 90  # of the rarest class more than half is left to train on
    several = [len(clip.labels) > 1 for clip in listed if clip.split == "validation"]
    assert 0.15 < np.mean(several) < 0.3  # 0.22 of the testing clips have several labels
    training = Counter(label for _, label in plain_pairs(ground_truth(task, "weak", "training")))
    assert (counts["train"] + counts["validation"]).to_dict() == training
    held_out = [{clip.id for clip in one if clip.split == "validation"} for one in (listed, dcase2017.listed(1))]
    assert len(held_out[0] & held_out[1]) < 700


def test_validation_clips_on_a_small_scale() -> None:
    # Class 0 is on every clip, class 1 on ten that also have 0, class 2 on ten that have no other.
    targets = np.zeros((40, 3), dtype=bool)
    targets[:30, 0] = targets[:10, 1] = targets[30:, 2] = True
    # A clip of class 1 brings class 0 along, so 6 of them and 6 of class 2 make all three equal.
    assert targets[validation_clips(targets, 12)].sum(axis=0).tolist() == [6, 6, 6]
    assert validation_clips(targets).sum() == 1  # the paper's share of so few, and at least one
    with pytest.raises(CorpusError, match="41 validation clips cannot be drawn from 40"):
        validation_clips(np.vstack([targets, np.zeros((5, 3), dtype=bool)]), 41)


def test_co_occurrence_counts_clips() -> None:
    labels = [("a",), ("a", "b"), ("b", "a", "c"), (), ("c",)]
    table = co_occurrence(labels, "abcd")
    expected = [[sum({one, other} <= set(names) for names in labels) for other in "abcd"] for one in "abcd"]
    assert table.to_numpy().tolist() == expected and list(table.columns) == list("abcd")


# --- the official evaluation


@pytest.fixture(scope="module")
def truth(task: Path) -> pd.DataFrame:
    return dcase2017.read_weak(ground_truth(task, "weak", "testing"))


def sample(task: Path, name: str) -> pd.DataFrame:
    return dcase2017.read_predictions(task / "official_evaluator_samples/prediction" / name)


def test_as_matrix(task: Path, truth: pd.DataFrame) -> None:
    clips = sorted(set(truth["clip"]))
    placed = {(clips[row], CLASSES[column]) for row, column in np.argwhere(as_matrix(truth, clips))}
    assert placed == plain_pairs(ground_truth(task, "weak", "testing"))
    with pytest.raises(CorpusError, match=r"line \d+: clip '.+' is not among the 487 clips to be scored"):
        as_matrix(truth, clips[:-1])
    with pytest.raises(CorpusError, match=r"line \d+: label 'Train horn' is not among the 16 classes"):
        as_matrix(truth, clips, CLASSES[1:])


SAMPLES = {
    "perfect_prediction.csv": "output_perfect_prediction.csv",
    "imperfect_prediction.csv": "imperfect_prediction_output.csv",
    "precision_affected_prediction.csv": "precision_affected_output.txt",
    "recall_affected_prediction.csv": "recall_affected_output.txt",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_official_samples(task: Path, truth: pd.DataFrame, name: str) -> None:
    ours = official_scores(truth, sample(task, name))
    official = read_official_output(task / "official_evaluator_samples/output" / SAMPLES[name])
    pd.testing.assert_series_equal(ours.micro, official.micro, rtol=0, atol=0.01)
    assert official.clips == ours.clips == 488 and official.by_class.empty and official.class_average.isna().all()


def test_other_samples(task: Path, truth: pd.DataFrame) -> None:
    predicted = sample(task, "invalid_prediction.csv")
    # It leaves out one clip altogether and has 603 of the 606 labels.
    assert set(truth["clip"]) - set(predicted["clip"]) == {"-GCwoyCnYsY_0.000_10.000"}
    ours = official_scores(truth, predicted)
    assert ours.micro[["precision", "recall"]].tolist() == pytest.approx([100, 100 * 603 / 606])
    silent = sample(task, "prediction_missing.csv")  # two clips with nothing predicted, 4 labels lacking
    assert (silent["label"] == "").sum() == 2
    assert official_scores(truth, silent).micro["recall"] == pytest.approx(100 * 602 / 606)
    with pytest.raises(CorpusError, match=r"line 1: clip '-5QrBL6MzLg_60\.000_70\.0002' is not among the 488"):
        official_scores(truth, sample(task, "extra_prediction.txt"))
    strange = official_scores(truth, sample(task, "precision_affected_prediction.csv"))
    assert len(strange.by_class) == 19 and strange.by_class.loc["Random Class Added1"].eq(0).all()
