"""Metrics against scikit-learn, the DCASE 2017 evaluator's outputs and a published AudioSet summary."""

from __future__ import annotations

import csv
import re
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from avrepro.evaluation import average_precision, d_prime, roc_auc, tagging_scores

SHAPES = [(1, 1), (2, 3), (7, 1), (40, 17), (300, 5), (1103, 17)]


def labels(rng: np.random.Generator, shape: tuple[int, int], rate: float) -> np.ndarray:
    return rng.random(shape) < rate


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_tagging_scores_as_scikit_learn(shape: tuple[int, int], rate: float) -> None:
    rng = np.random.default_rng(1)
    y_true, y_pred = labels(rng, shape, rate), labels(rng, shape, 0.2)
    ours = tagging_scores(y_true, y_pred)
    # The last column keeps scikit-learn from reading a single class as a binary problem.
    pad = np.zeros((shape[0], 1), dtype=bool)
    truth, guess = np.hstack([y_true, pad]), np.hstack([y_pred, pad])
    micro = precision_recall_fscore_support(truth, guess, average="micro", zero_division=0)[:3]
    per_class = precision_recall_fscore_support(truth, guess, average=None, zero_division=0)[:3]
    np.testing.assert_allclose([ours.precision, ours.recall, ours.f1], micro, atol=1e-12)
    found = [ours.class_precision, ours.class_recall, ours.class_f1]
    np.testing.assert_allclose(found, np.stack(per_class)[:, :-1], atol=1e-12)
    assert ours.macro_f1 == pytest.approx(np.mean(per_class[2][:-1]))


def test_two_averages_over_classes_differ() -> None:
    # Class 0: P 1, R 1/2. Class 1: P 1/2, R 1. Both F1 are 2/3; the means are 3/4 and 3/4.
    y_true = np.array([[1, 1], [1, 0]])
    y_pred = np.array([[1, 1], [0, 1]])
    scores = tagging_scores(y_true, y_pred)
    assert scores.macro_f1 == pytest.approx(2 / 3)
    assert scores.class_average_f1 == pytest.approx(3 / 4)


@pytest.mark.parametrize("distinct", [1, 2, 5, 50, None])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_ranking_metrics_as_scikit_learn(shape: tuple[int, int], dtype: type, distinct: int | None) -> None:
    rng = np.random.default_rng(shape[0] * 100 + shape[1])
    y_true = labels(rng, shape, 0.15)
    y_true[:, 0] |= shape[0] == 2  # one class of positives alone
    scores = (rng.normal(size=shape) + y_true).astype(dtype)
    if distinct is not None:
        scores = np.clip(np.round(scores), 0, distinct - 1).astype(dtype) / 3
    ap, auc = average_precision(y_true, scores), roc_auc(y_true, scores)
    assert ap.shape == auc.shape == (shape[1],)
    for k in range(shape[1]):
        if not y_true[:, k].any():
            assert np.isnan(ap[k]) and np.isnan(auc[k])
            continue
        assert ap[k] == pytest.approx(average_precision_score(y_true[:, k], scores[:, k]), abs=1e-10)
        if y_true[:, k].all():
            assert np.isnan(auc[k])
        else:
            assert auc[k] == pytest.approx(roc_auc_score(y_true[:, k], scores[:, k]), abs=1e-10)


def test_roc_auc_is_the_share_of_ordered_pairs() -> None:
    rng = np.random.default_rng(3)
    y_true, scores = labels(rng, (60, 4), 0.3), rng.integers(6, size=(60, 4))
    for k, area in enumerate(roc_auc(y_true, scores)):
        positive, negative = scores[y_true[:, k], k][:, None], scores[~y_true[:, k], k][None]
        assert area == pytest.approx(np.mean((positive > negative) + 0.5 * (positive == negative)), abs=1e-12)


def test_ranking_metrics_are_quick_on_audioset_sizes() -> None:
    rng = np.random.default_rng(4)
    y_true = labels(rng, (20_371, 527), 0.005)
    scores = rng.random(y_true.shape, dtype=np.float32)
    start = time.process_time()
    average_precision(y_true, scores)
    roc_auc(y_true, scores)
    assert time.process_time() - start < 15  # about 3 s alone on one core


def test_d_prime() -> None:
    assert d_prime(0.5) == 0
    assert isinstance(d_prime(0.9), float)
    np.testing.assert_allclose(
        d_prime(np.array([0.0, 0.760249938906523, 1.0, np.nan])), [-np.inf, 1, np.inf, np.nan], atol=1e-9
    )
    # Two unit normals d' = 1.5 apart, drawn: their ROC area gives the distance back.
    rng = np.random.default_rng(5)
    y_true = np.arange(200_000)[:, None] % 2 == 0
    assert d_prime(roc_auc(y_true, rng.normal(size=y_true.shape) + 1.5 * y_true))[0] == pytest.approx(1.5, abs=0.02)
    with pytest.raises(ValueError, match=r"0\.\.1, found 97"):
        d_prime(97)


BAD = [
    (np.zeros(4, bool), np.zeros(4), r"y_true.*\[clips, classes\].*\(4,\)"),
    (np.zeros((0, 2), bool), np.zeros((0, 2)), r"at least one.*\(0, 2\)"),
    (np.zeros((4, 2), bool), np.zeros((4, 3)), r"\(4, 2\) and \(4, 3\)"),
    (np.full((4, 2), 0.4), np.zeros((4, 2)), r"y_true.*0 and 1.*found 0\.4 at clip 0, class 0"),
    (np.full((4, 2), "dog"), np.zeros((4, 2)), r"y_true.*dtype <U3"),
]


@pytest.mark.parametrize(("y_true", "scores", "message"), BAD)
@pytest.mark.parametrize("metric", [tagging_scores, average_precision, roc_auc])
def test_bad_input_is_named(metric, y_true: np.ndarray, scores: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(y_true, scores)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_numbers_are_named(value: float) -> None:
    y_true, scores = np.zeros((4, 2), bool), np.zeros((4, 2))
    scores[2, 1] = value
    with pytest.raises(ValueError, match=f"scores: expected finite numbers, found {value} at clip 2, class 1"):
        average_precision(y_true, scores)
    with pytest.raises(ValueError, match=r"y_pred.*scores >= thresholds"):
        tagging_scores(y_true, scores)


# Published files


def read_events(path: Path) -> list[tuple[str, str]]:
    """(clip, class) pairs of a tab-separated list; the class is "" in a line that names a clip alone."""
    rows = [line.split("\t") for line in path.read_text().splitlines() if line.strip()]
    return [(row[0], row[3].strip() if len(row) > 3 else "") for row in rows]


def as_matrix(events: list[tuple[str, str]], clips: list[str], classes: list[str]) -> np.ndarray:
    matrix = np.zeros((len(clips), len(classes)), dtype=bool)
    for clip, label in events:
        if label:
            matrix[clips.index(clip), classes.index(label)] = True
    return matrix


@pytest.fixture(scope="module")
def testing_truth(mirror: Path) -> list[tuple[str, str]]:
    return read_events(mirror / "dcase2017_task4/groundtruth_release/groundtruth_weak_label_testing_set.csv")


def averages(text: str, heading: str) -> list[float]:
    block = text[text.index(heading) :]
    return [float(re.search(rf"{name} = (\S+)", block).group(1)) for name in ("Precision", "Recall", "F1 Score")]


@pytest.mark.parametrize("number", range(12))
def test_published_predictions_score_as_the_official_evaluator(
    mirror: Path, testing_truth: list[tuple[str, str]], number: int
) -> None:
    folder = mirror / "published_predictions/kaist_testing"
    official = (folder / f"{number:02d}.official_output.txt").read_text()
    per_class = re.findall(r"Class = (.+), Precision = (\S+), Recall = (\S+), F1 Score = (\S+)", official)
    classes = [row[0] for row in per_class]
    assert len(classes) == 17
    clips = sorted({clip for clip, _ in testing_truth})
    assert len(clips) == 488
    ours = tagging_scores(
        as_matrix(testing_truth, clips, classes),
        as_matrix(read_events(folder / f"{number:02d}.prediction.csv"), clips, classes),
    )
    published = np.array([row[1:] for row in per_class], dtype=float)
    found = np.stack([ours.class_precision, ours.class_recall, ours.class_f1], axis=1)
    np.testing.assert_allclose(found, published, atol=1e-4)  # 0.01 percentage points, here and below

    micro = averages(official, "Instance Wise")
    np.testing.assert_allclose(100 * np.array([ours.precision, ours.recall, ours.f1]), micro, atol=0.01)
    class_wise = averages(official, "Class Wise Average")
    means = [ours.class_precision.mean(), ours.class_recall.mean(), ours.class_average_f1]
    np.testing.assert_allclose(100 * np.array(means), class_wise, atol=0.01)
    with (folder / "index.csv").open() as file:
        index = {int(row["number"]): float(row["micro_f1_percent"]) for row in csv.DictReader(file)}
    assert 100 * ours.f1 == pytest.approx(index[number], abs=0.01)


@pytest.mark.parametrize(
    ("prediction", "output"),
    [
        ("perfect_prediction.csv", "output_perfect_prediction.csv"),
        ("imperfect_prediction.csv", "imperfect_prediction_output.csv"),
        ("precision_affected_prediction.csv", "precision_affected_output.txt"),
        ("recall_affected_prediction.csv", "recall_affected_output.txt"),
    ],
)
def test_official_samples(mirror: Path, testing_truth: list[tuple[str, str]], prediction: str, output: str) -> None:
    folder = mirror / "dcase2017_task4/official_evaluator_samples"
    predicted = read_events(folder / "prediction" / prediction)
    clips = sorted({clip for clip, _ in testing_truth})
    # Some samples predict classes that do not exist; the evaluator counts them as false positives.
    classes = sorted({label for _, label in testing_truth + predicted if label})
    ours = tagging_scores(as_matrix(testing_truth, clips, classes), as_matrix(predicted, clips, classes))
    expected = averages((folder / "output" / output).read_text(), "Precision")
    np.testing.assert_allclose(100 * np.array([ours.precision, ours.recall, ours.f1]), expected, atol=0.01)


def test_published_probabilities_at_a_fixed_threshold(mirror: Path, testing_truth: list[tuple[str, str]]) -> None:
    listed = (mirror / "dcase2017_task4/sound_event_list_17_classes.txt").read_text().splitlines()[1:]
    classes = [line.split("\t")[-1].strip() for line in listed if line.strip()]
    path = mirror / "published_predictions/cvssp_testing_example/at_prob_mat.csv.gz"
    table = np.loadtxt(path, dtype=str, delimiter="\t", comments=None)
    clips, scores = list(table[:, 0]), table[:, 1:].astype(float)
    assert scores.shape == (488, 17)
    # The class list shortens two of the names that the ground truth spells out.
    longer = {"Fire engine (siren)": "Fire engine, fire truck (siren)", "Truck horn": "Air horn, truck horn"}
    classes = [longer.get(name, name) for name in classes]
    ours = tagging_scores(as_matrix(testing_truth, clips, classes), scores >= 0.3)
    micro = 100 * np.array([ours.precision, ours.recall, ours.f1])
    np.testing.assert_allclose(micro, [51.39, 39.77, 44.84], atol=0.005)


@pytest.mark.parametrize("run", ["full", "balanced"])
def test_published_audioset_summary(mirror: Path, run: str) -> None:
    folder = mirror / "audioset/ast_per_class"
    per_class = np.loadtxt(folder / f"{run}_last_epoch.csv", delimiter=",", skiprows=1)
    summary = np.loadtxt(folder / f"{run}_result.csv", delimiter=",")[-1]  # mAP, mean AUC, -, -, d', ...
    assert len(per_class) == 527
    assert per_class[:, 1].mean() == pytest.approx(summary[0], abs=1e-9)
    assert per_class[:, 2].mean() == pytest.approx(summary[1], abs=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert d_prime(per_class[:, 2].mean()) == pytest.approx(summary[4], abs=1e-8)
