"""Published outputs, scored again: the official evaluation of DCASE 2017 Task 4, and AudioSet tables by class."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from avrepro.corpora.base import CorpusError
from avrepro.corpora.dcase2017 import CLASSES, as_matrix, read_predictions, read_weak
from avrepro.corpora.tables import read_table
from avrepro.evaluation.metrics import ratio, tagging_scores
from avrepro.evaluation.ranking import d_prime
from avrepro.fetch import fetch

TASK, PUBLISHED = "dcase2017_task4", "published_predictions"  # sources
PREDICTIONS = 12  # published with their official scores
MEASURES = ("precision", "recall", "f1")


@dataclass(frozen=True, eq=False)
class OfficialScores:
    """Scores of one system in the form of the official evaluation, in percent."""

    clips: int
    micro: pd.Series  # float64 [precision, recall, f1]; "instance-wise", what the challenge ranks by
    class_average: pd.Series  # likewise: mean class precision, mean class recall, and the F1 of those two
    by_class: pd.DataFrame  # float64 [classes, (precision, recall, f1)]

    @property
    def macro_f1(self) -> float:
        """Mean of the classes' F1, never above the evaluator's average."""
        return float(self.by_class["f1"].mean())


def official_scores(truth_rows: pd.DataFrame, predicted_rows: pd.DataFrame) -> OfficialScores:
    """Score predictions (read_predictions) against weak labels (read_weak) as the official evaluator does.

    Every clip of the truth counts, also one that the predictions leave out. A predicted label outside the 17 classes is
    a false alarm and takes part in the averages over classes, with 0. CorpusError for a clip that the truth lacks.
    """
    clips = list(dict.fromkeys(truth_rows["clip"]))
    classes = (*CLASSES, *sorted(set(predicted_rows["label"]) - {"", *CLASSES}))
    scores = tagging_scores(as_matrix(truth_rows, clips, classes), as_matrix(predicted_rows, clips, classes))
    by_class = np.stack([scores.class_precision, scores.class_recall, scores.class_f1], axis=1)  # (classes, 3)
    precision, recall = scores.class_precision.mean(), scores.class_recall.mean()
    f1 = float(ratio(2 * precision * recall, precision + recall))
    return OfficialScores(
        clips=len(clips),
        micro=100 * pd.Series((scores.precision, scores.recall, scores.f1), index=MEASURES),
        class_average=100 * pd.Series((precision, recall, f1), index=MEASURES),
        by_class=100 * pd.DataFrame(by_class, index=list(classes), columns=MEASURES),
    )


def read_official_output(path: Path) -> OfficialScores:
    """The scores that the official evaluator printed.

    Its older form gives the instance-wise scores alone: class_average is NaN then, and by_class has no rows.
    CorpusError where not even those are found.
    """
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"Precision = (\S+)\s+Recall = (\S+)\s+F1 Score = (\S+)\s+Number of Audio Files = (\d+)", text)
    if len(blocks) not in (1, 2):
        raise CorpusError(f"{path}: expected one or two blocks of overall scores, found {len(blocks)}")
    averages = [pd.Series(map(float, block[:3]), index=MEASURES, dtype="float64") for block in blocks]
    classes = re.findall(r"Class = (.+), Precision = (\S+), Recall = (\S+), F1 Score = (\S+)", text)
    by_class = pd.DataFrame([map(float, row[1:]) for row in classes], [row[0] for row in classes], MEASURES, "float64")
    return OfficialScores(
        clips=int(blocks[-1][3]),
        micro=averages[-1],  # the class-wise average, where there is one, comes first
        class_average=averages[0] if len(averages) == 2 else pd.Series(np.nan, MEASURES),
        by_class=100 * by_class,
    )


def rescored_predictions() -> pd.DataFrame:
    """The published predictions on the testing set, scored here and by the official evaluator; all are fetched.

    One row a file, in percent: official and ours (micro F1), largest_difference (over the micro scores, the class-wise
    averages and the scores of the 17 classes), class_average_f1 and macro_f1 (ours).
    """
    truth = read_weak(fetch(TASK, "groundtruth_release/groundtruth_weak_label_testing_set.csv"))
    rows = []
    for number in range(PREDICTIONS):
        stem = f"kaist_testing/{number:02d}"
        ours = official_scores(truth, read_predictions(fetch(PUBLISHED, f"{stem}.prediction.csv")))
        official = read_official_output(fetch(PUBLISHED, f"{stem}.official_output.txt"))
        pairs = [
            (ours.micro, official.micro),
            (ours.class_average, official.class_average),
            (ours.by_class, official.by_class.loc[ours.by_class.index]),
        ]
        rows.append(
            {
                "official": official.micro["f1"],
                "ours": ours.micro["f1"],
                "largest_difference": max(np.abs(one.to_numpy() - other.to_numpy()).max() for one, other in pairs),
                "class_average_f1": ours.class_average["f1"],
                "macro_f1": ours.macro_f1,
            }
        )
    return pd.DataFrame(rows, index=pd.RangeIndex(PREDICTIONS, name="file"))


def per_class_summary(path: Path) -> dict[str, float]:
    """Averages over AudioSet's classes, as its papers give them, of a table by class.

    The table has class_index,average_precision,roc_auc below a header; fractions.

    :returns: map and mauc, fractions 0..1, and d_prime: of the mean AUC, not the mean of the classes' d'.
    :raises CorpusError: the table is not of that form, or does not number its classes 0, 1, 2 ...
    """
    table = read_table(path, ("class_index", "average_precision", "roc_auc"), skip=1)
    numbers = table.apply(pd.to_numeric, errors="coerce").astype("float64")
    if not np.array_equal(numbers["class_index"], np.arange(len(numbers))):
        raise CorpusError(f"{path}: expected one row a class, numbered from 0")
    if not numbers[["average_precision", "roc_auc"]].apply(lambda column: column.between(0, 1)).all(axis=None):
        raise CorpusError(f"{path}: expected average precision and ROC AUC as fractions 0..1 in every row")
    auc = float(numbers["roc_auc"].mean())
    return {"map": float(numbers["average_precision"].mean()), "mauc": auc, "d_prime": float(d_prime(auc))}
