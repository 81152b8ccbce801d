"""The numbers of the data chapter that come from official lists and published outputs; None where not at hand.

Nothing here asks the network.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from avrepro import digests, manifests
from avrepro.corpora import dcase2017
from avrepro.corpora.audioset import LISTS, label_statistics, read_classes, segments
from avrepro.corpora.base import Corpus
from avrepro.corpora.download import NOT_FETCHED, corpus_of, missing_by_class, statuses
from avrepro.corpora.statistics import class_counts, co_occurrence
from avrepro.evaluation import (
    cross_validated_decisions,
    micro_f1_interval,
    tagging_scores,
    threshold_sweep,
    tune_thresholds,
)
from avrepro.evaluation.published import (
    official_scores,
    per_class_summary,
    read_official_output,
    rescored_predictions,
)
from avrepro.fetch import at_hand, fetch
from avrepro.home import home
from avrepro.parameters import Data
from avrepro.results import Results, Run

CHAPTER = "data"
TASK = "dcase2017_task4"
TRUTH = "groundtruth_release/groundtruth_{}_label_{}_set.csv"
STRONG = ("testing", "evaluation")  # the lists with the times of events
SAMPLES = {  # the official evaluator's own samples, prediction -> what it printed
    "perfect_prediction.csv": "output_perfect_prediction.csv",
    "imperfect_prediction.csv": "imperfect_prediction_output.csv",
    "precision_affected_prediction.csv": "precision_affected_output.txt",
    "recall_affected_prediction.csv": "recall_affected_output.txt",
    "invalid_prediction.csv": "output_invalid_prediction.csv",
}
PERCENT = range(1, 96)  # thresholds of the sweep
MODELS = ("balanced", "full")  # the published model, by the AudioSet list that it was trained on
SUMMARY = {"mAP": 0, "mAUC": 1, "d_prime": 4}  # columns of its results by epoch


def measure_dcase2017(parameters: Data) -> Results | None:
    """Clips, labels, their imbalance and company in the official lists of DCASE 2017 Task 4."""
    if not at_hand(TASK):
        return None
    listed = dcase2017.listed(parameters.seed)
    folder = home() / "clips" / "dcase2017"
    run = Run(CHAPTER, parameters.model_dump(), corpus_of("dcase2017", dcase2017.CLASSES, listed, folder))
    of_list = {"training": ("train", "validation"), "testing": ("test",), "evaluation": ("evaluation",)}
    for name, splits in of_list.items():
        labels = [clip.labels for clip in listed if clip.split in splits]
        sizes = np.array([len(one) for one in labels])
        run.add("list", "", "clips", len(labels), label=name)
        run.add("list", "", "weak_rows", len(dcase2017.read_weak(_task("weak", name))), label=name)
        if name in STRONG:
            strong = dcase2017.read_strong(_task("strong", name))
            run.add("list", "", "strong_rows", len(strong), label=name)
            run.add("list", "", "untimed_rows", (~strong["timed"]).sum(), label=name)
        run.add("list", "", "labels_per_clip", sizes.mean(), label=name)
        run.add("list", "", "clips_with_several_labels", (sizes > 1).mean(), label=name)
        run.add("list", "", "most_labels", sizes.max(), label=name)
        if name == "training":
            _note_company(run, co_occurrence(labels, dcase2017.CLASSES))
    run.add("list", "", "hours", sum(clip.end - clip.start for clip in listed) / 3600)
    run.add("list", "", "clips", len(listed))
    run.add("list", "", "labels_per_clip", sum(len(clip.labels) for clip in listed) / len(listed))
    run.add("list", "", "classes", len(dcase2017.CLASSES))
    run.add("list", "", "clips_at_hand", len(run.corpus.clips))
    counts = class_counts(listed, dcase2017.CLASSES)
    run.add("list", "", "clips", sum(clip.split == "validation" for clip in listed), label="validation")
    for name, column in counts.assign(training=counts["train"] + counts["validation"]).items():
        run.add("list", "", "imbalance", column.max() / column.min(), label=str(name))
        for label, count in column.items():
            run.add(f"list, {name}", "", "clips_with_label", count, label=str(label))
    table = statuses(listed, folder)
    if (table["status"] != NOT_FETCHED).any():
        by_class = missing_by_class(dcase2017.CLASSES, listed, table)
        for status in [name for name in by_class if by_class[name].any()]:
            for label, count in by_class[status].items():
                run.add("clips", "", str(status), count, label=str(label))
    if at_hand("audioset"):
        _note_overlap(run, {name: {c.video for c in listed if c.split in splits} for name, splits in of_list.items()})
    return run.write()


def measure_audioset(parameters: Data) -> Results | None:
    """Clips and labels of the AudioSet lists that are at hand; the unbalanced one is optional."""
    if not at_hand("audioset"):
        return None
    names = read_classes(fetch("audioset", "class_labels_indices.csv"))
    lists = [name for name, (source, _, _) in LISTS.items() if at_hand(source)]
    corpus = Corpus("audioset", tuple(names.values()), (), (), _digest(*sorted({LISTS[name][0] for name in lists})))
    run = Run(CHAPTER, parameters.model_dump(), corpus)
    run.add("list", "", "classes", len(names))
    clips = labels = hours = 0.0
    for name in lists:
        table = segments(name)
        told = label_statistics(table, names)
        length = float((table["end"] - table["start"]).sum() / 3600)
        run.add("list", "", "clips", told.clips, label=name)
        run.add("list", "", "labels_per_clip", told.labels_per_clip, label=name)
        run.add("list", "", "hours", length, label=name)
        run.add("list", "", "imbalance", told.commonest[1] / told.rarest[1], label=name)
        for label, count in told.counts.items():
            run.add(f"list, {name}", "", "clips_with_label", count, label=str(label))
        clips, labels, hours = clips + told.clips, labels + told.labels, hours + length
    for metric, value in (("clips", clips), ("labels_per_clip", labels / clips), ("hours", hours)):
        run.add("list", "", metric, value)
    return run.write()


def measure_predictions(parameters: Data) -> Results | None:
    """Published predictions and the official evaluator's samples, scored again; thresholds on published scores."""
    if not (at_hand(TASK) and at_hand("published_predictions")):
        return None
    corpus = Corpus("published predictions", dcase2017.CLASSES, (), (), _digest(TASK, "published_predictions"))
    run = Run(CHAPTER, parameters.model_dump(), corpus)
    for number, row in rescored_predictions().iterrows():
        for metric in ("official", "ours", "class_average_f1", "macro_f1"):
            run.add(f"file {number:02d}", "", metric, row[metric] / 100)
        run.add(f"file {number:02d}", "", "largest_difference", row["largest_difference"])
    truth = dcase2017.read_weak(_task("weak", "testing"))
    for prediction, output in SAMPLES.items():
        folder, name = "official_evaluator_samples", f"sample {prediction.removesuffix('_prediction.csv')}"
        ours = official_scores(truth, dcase2017.read_predictions(fetch(TASK, f"{folder}/prediction/{prediction}")))
        official = read_official_output(fetch(TASK, f"{folder}/output/{output}"))
        run.add(name, "", "official", official.micro["f1"] / 100)
        run.add(name, "", "ours", ours.micro["f1"] / 100)
        run.add(name, "", "largest_difference", (ours.micro - official.micro).abs().max())
    _note_thresholds(run, truth, parameters.seed)
    return run.write()


def measure_ranking(parameters: Data) -> Results | None:
    """mAP, mAUC and d' of a published model from its values by class, beside those that it states."""
    if not at_hand("ast_per_class"):
        return None
    run = Run(CHAPTER, parameters.model_dump(), Corpus("published scores", (), (), (), _digest("ast_per_class")))
    for name in MODELS:
        stated = np.loadtxt(fetch("ast_per_class", f"{name}_result.csv"), delimiter=",", ndmin=2)[-1]
        ours = per_class_summary(fetch("ast_per_class", f"{name}_last_epoch.csv"))
        values = {"mAP": ours.mean_average_precision, "mAUC": ours.mean_auc, "d_prime": ours.d_prime}
        for metric, column in SUMMARY.items():
            run.add("stated", "", metric, stated[column], label=name)
            run.add("ours", "", metric, values[metric], label=name)
            run.add("ours", "", f"{metric}_difference", abs(values[metric] - stated[column]), label=name)
    return run.write()


def measure_paired(parameters: Data) -> Results:
    """Recordings and photographs of each label in the manifest of corpus ``paired``, which is part of the project."""
    path = manifests.manifest_path("paired.csv")
    table = pd.read_csv(path)
    labels = tuple(sorted(table["label"].unique()))
    run = Run(CHAPTER, parameters.model_dump(), Corpus("paired", labels, (), (), digests.of_files([path], path.parent)))
    for modality, items in table.groupby("modality"):
        for metric, of in (("items", items), ("sure_items", items[items["strict"] == 1])):
            counts = of["label"].value_counts()
            run.add(str(modality), "", metric, len(of))
            for label in labels:
                run.add(str(modality), "", metric, counts.get(label, 0), label=label)
        for label in labels:
            run.add(str(modality), "", "groups", items[items["label"] == label]["group"].nunique(), label=label)
    return run.write()


def _note_overlap(run: Run, videos: dict[str, set[str]]) -> None:
    """Videos of each official list that are in AudioSet's published lists too."""
    for name in ("balanced", "evaluation"):
        theirs = set(segments(name)["video"])
        for ours, ids in videos.items():
            run.add(f"also in AudioSet, {name}", "", "videos", len(ids & theirs), label=ours)


def _note_company(run: Run, together: pd.DataFrame) -> None:
    """Share of each class's clips that hold another class too."""
    for label, row in together.iterrows():
        for other in together:
            if other != label:
                run.add("list", "", "also_labelled", row[other] / row[label], label=f"{label} | {other}")


def _note_thresholds(run: Run, truth: pd.DataFrame, seed: int) -> None:
    path = fetch("published_predictions", "cvssp_testing_example/at_prob_mat.csv.gz")
    probabilities = dcase2017.read_probabilities(path)
    y_true, scores = dcase2017.as_matrix(truth, list(probabilities.index)), probabilities.to_numpy()
    sweep = threshold_sweep(y_true, scores, [percent / 100 for percent in PERCENT])
    for percent, one in zip(PERCENT, sweep, strict=True):
        for metric, value in (("precision", one.precision), ("recall", one.recall), ("f1", one.f1)):
            run.add("one threshold", "", metric, value, step=percent)
    best = PERCENT[int(np.argmax([one.f1 for one in sweep]))]
    decisions = {
        "one threshold, 0.5": scores >= 0.5,
        "one threshold, the best of the sweep": scores >= best / 100,
        "class thresholds, cross-validated": cross_validated_decisions(y_true, scores, folds=5, seed=seed),
        "class thresholds, tuned on the same clips": scores >= tune_thresholds(y_true, scores, seed),
    }
    rule = "section 3.3 of Li et al., five folds"
    run.add("matrix", "", "clips", len(scores))
    run.add("matrix", "", "best_threshold", best / 100)
    plain = decisions["one threshold, 0.5"]
    for name, decided in decisions.items():
        told = tagging_scores(y_true, decided)
        run.add(name, "", "precision", told.precision)
        run.add(name, "", "recall", told.recall)
        threshold_rule = rule if "cross" in name else ""
        run.add(name, "", "micro_f1", micro_f1_interval(y_true, decided), threshold_rule=threshold_rule)
        if decided is not plain:
            run.add(name, "", "micro_f1_gain", micro_f1_interval(y_true, decided, plain), threshold_rule=threshold_rule)


def _task(kind: str, name: str) -> Path:
    return fetch(TASK, TRUTH.format(kind, name))


def _digest(*names: str) -> str:
    """Of the files of some sources, by the hashes that they were checked against."""
    files = [(name, file.name, file.sha256) for name in names for file in manifests.source(name).files]
    return digests.of_values(files)
