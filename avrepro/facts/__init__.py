"""What the data chapter measures: corpora, official lists, the demo world, and metrics against published outputs.

A measurement whose sources are not on this machine is read from those that are committed with the project.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from timm.data import ImageNetInfo

from avrepro import checkout, corpora, evaluation, manifests, results
from avrepro.backbones.efficientnet import EfficientNetLite0
from avrepro.corpora import audioset, dcase2017
from avrepro.corpora.base import Corpus
from avrepro.corpora.esc10 import DURATION
from avrepro.corpora.paired_render import read_photograph
from avrepro.corpora.statistics import class_counts, co_occurrence
from avrepro.evaluation.published import PUBLISHED, TASK, per_class_summary, rescored_predictions
from avrepro.facts.demo_world import FAMILIES, class_samples, example, note_corpus, note_recognition, note_world
from avrepro.fetch import at_hand, fetch
from avrepro.parameters import Data
from avrepro.recipes import digest
from avrepro.results import Results, Run
from avrepro.systems import Condition
from avrepro.training import choose_device

__all__ = ["FAMILIES", "MEASUREMENTS", "OFFICIAL", "class_samples", "commit", "example", "measure", "measured"]

CHAPTER = "data"
OFFICIAL = {"training": ("train", "validation"), "testing": ("test",), "evaluation": ("evaluation",)}  # list -> splits
PERCENT = range(1, 96)  # thresholds of the sweep
AST = ("balanced", "full")  # the model behind the published values by class, by the list that it was trained on
STATED = {"map": 0, "mauc": 1, "d_prime": 4}  # metric -> column of its results by epoch


@dataclass(frozen=True)
class Measurement:
    """What is measured in one run."""

    corpus: str
    sources: tuple[str, ...]  # of data_manifests; what it needs besides the project itself
    note: Callable[[Run, Data], None]

    def clips(self, parameters: Data) -> Corpus:
        """The demo world, or a corpus without clips that stands for the files which are counted."""
        if self.corpus == "demo" and not self.sources:
            return corpora.load("demo", profile=parameters.profile)
        files = [file for name in self.sources or (self.corpus,) for file in manifests.source(name).files]
        return Corpus(self.corpus, (), (), (), digest([[file.name, file.sha256] for file in files]))


def measured(name: str, parameters: Data) -> Results:
    """A measurement of ``MEASUREMENTS``: made now where its sources are at hand, else the committed one."""
    wanted = MEASUREMENTS[name]
    if all(at_hand(source) for source in wanted.sources):
        return measure(name, parameters)
    return results.committed(name, wanted.corpus, CHAPTER)


def measure(name: str, parameters: Data, folder: Path | None = None) -> Results:
    """Measure now, fetching what is not at hand. :param folder: where the numbers go; default: the results store."""
    wanted = MEASUREMENTS[name]
    profile = parameters.profile if wanted.corpus == "demo" else "demo"  # lists and files have one size
    run = Run(
        CHAPTER,
        name,
        Condition(wanted.corpus, profile, device=parameters.device),
        (parameters.seed,),
        [wanted.clips(parameters)],
    )
    wanted.note(run, parameters)
    return run.write(folder)


def commit() -> None:
    """Measure what a default build cannot, into the results that are committed with the project."""
    for name, one in MEASUREMENTS.items():
        if one.sources:
            for old in checkout.COMMITTED.glob(f"{CHAPTER}-{name}-*.parquet"):
                old.unlink()
            measure(name, Data(), checkout.COMMITTED)


def note_dcase2017(run: Run, parameters: Data) -> None:
    """Clips and labels of DCASE 2017 Task 4's lists, imbalance, co-occurrence, and videos that AudioSet lists too."""
    listed = dcase2017.listed(parameters.seed)
    theirs = {name: set(audioset.segments(name)["video"]) for name in ("balanced", "evaluation")}
    for name, splits in OFFICIAL.items():
        clips = [clip for clip in listed if clip.split in splits]
        sizes = np.array([len(clip.labels) for clip in clips])
        run.add(name, "clips", len(clips))
        run.add(name, "labels", sizes.sum())
        run.add(name, "labels_per_clip", sizes.mean())
        run.add(name, "several_labels", (sizes > 1).mean())
        for other, videos in theirs.items():
            run.add(name, "also_in_audioset", len(videos & {clip.video for clip in clips}), label=other)
        if name != "training":  # that list has no times
            strong = dcase2017.read_strong(fetch(TASK, f"groundtruth_release/groundtruth_strong_label_{name}_set.csv"))
            run.add(name, "timed_events", strong["timed"].sum())
            run.add(name, "untimed_events", (~strong["timed"]).sum())
    seconds = sum(clip.end - clip.start for clip in listed)
    note_corpus(run, len(listed), len(dcase2017.CLASSES), seconds, sum(len(clip.labels) for clip in listed))
    run.add("validation", "clips", sum(clip.split == "validation" for clip in listed))
    counts = class_counts(listed, dcase2017.CLASSES)
    for name, column in counts.assign(training=counts["train"] + counts["validation"]).items():
        run.add(str(name), "imbalance", column.max() / column.min())
        _note_classes(run, str(name), column)
    training = [clip.labels for clip in listed if clip.split in OFFICIAL["training"]]
    for label, row in co_occurrence(training, dcase2017.CLASSES).iterrows():
        for other in row.index.drop(label):
            run.add("training", "also_labelled", row[other] / row[label], label=f"{label} | {other}")


def note_audioset(run: Run, parameters: Data) -> None:
    """Clips and labels of AudioSet's lists; the unbalanced one only where it is at hand too."""
    names = audioset.read_classes(fetch("audioset", audioset.CLASS_LIST))
    tables = {name: audioset.segments(name) for name, (source, _, _) in audioset.LISTS.items() if at_hand(source)}
    for name, table in tables.items():
        run.add(name, "clips", len(table))
        run.add(name, "labels_per_clip", table["labels"].map(len).mean())
        _note_classes(run, name, audioset.label_counts(table, names))
    together = pd.concat(tables.values())
    seconds = (together["end"] - together["start"]).sum()
    note_corpus(run, len(together), len(names), seconds, together["labels"].map(len).sum())


def _note_classes(run: Run, system: str, counts: pd.Series) -> None:
    for label, count in counts.items():
        run.add(system, "clips_with_label", count, label=str(label))


def note_predictions(run: Run, parameters: Data) -> None:
    """Published predictions scored by the official evaluator and here; what thresholds do to published scores."""
    table = rescored_predictions().rename(columns={"official": "official_micro_f1", "ours": "micro_f1"})
    for number, row in table.iterrows():
        for metric, value in row.items():
            run.add(f"file {number:02d}", str(metric), value / 100)
    truth = dcase2017.read_weak(fetch(TASK, "groundtruth_release/groundtruth_weak_label_testing_set.csv"))
    probabilities = dcase2017.read_probabilities(fetch(PUBLISHED, "cvssp_testing_example/at_prob_mat.csv.gz"))
    y_true, scores = dcase2017.as_matrix(truth, list(probabilities.index)), probabilities.to_numpy()
    sweep = [evaluation.tagging_scores(y_true, scores >= percent / 100) for percent in PERCENT]
    for percent, found in zip(PERCENT, sweep, strict=True):
        for metric in ("precision", "recall", "f1"):
            run.add("one threshold", f"micro_{metric}", getattr(found, metric), step=percent)
    best = PERCENT[int(np.argmax([found.f1 for found in sweep]))] / 100
    run.add("one threshold", "best", best)
    run.add("one threshold", "clips", len(scores))
    tuned = evaluation.tune_thresholds(y_true, scores, parameters.seed)
    decisions = {
        "one threshold: 0.5": scores >= 0.5,
        "one threshold: the best of the sweep": scores >= best,
        "class thresholds, cross-validated": evaluation.cross_validated_decisions(y_true, scores, 5, parameters.seed),
        "class thresholds, tuned on the same clips": scores >= tuned,
    }
    plain = next(iter(decisions))
    for name, decided in decisions.items():
        found = evaluation.tagging_scores(y_true, decided)
        run.add(name, "micro_precision", found.precision, rule=name)
        run.add(name, "micro_recall", found.recall, rule=name)
        run.add(name, "micro_f1", evaluation.micro_f1_interval(y_true, decided), rule=name)
        if name != plain:
            gain = evaluation.micro_f1_interval(y_true, decided, decisions[plain])
            run.add(name, "micro_f1", gain, against=plain, rule=name)


def note_ranking(run: Run, parameters: Data) -> None:
    """mAP, mAUC and d' of a published model from its values by class, beside those that its authors state."""
    for name in AST:
        stated = np.loadtxt(fetch("ast_per_class", f"{name}_result.csv"), delimiter=",", ndmin=2)[-1]
        for metric, value in per_class_summary(fetch("ast_per_class", f"{name}_last_epoch.csv")).items():
            run.add("stated", metric, stated[STATED[metric]], label=name)
            run.add("recomputed", metric, value, label=name)


def note_paired(run: Run, parameters: Data) -> None:
    """Recordings and photographs of each label in the manifest of corpus ``paired``, and the groups they come from."""
    table = pd.read_csv(manifests.manifest_path("paired.csv"))
    run.add("corpus", "classes", table["label"].nunique())
    for modality, items in table.groupby("modality"):
        run.add(str(modality), "items", len(items))
        run.add(str(modality), "strict_items", items["strict"].sum())
        for label in sorted(table["label"].unique()):
            of_label = items[items["label"] == label]
            run.add(str(modality), "items", len(of_label), label=label)
            run.add(str(modality), "groups", of_label["group"].nunique(), label=label)


def note_esc10(run: Run, parameters: Data) -> None:
    """Recordings and classes of ESC-10, by the names of its files."""
    recordings = [Path(file.name) for file in manifests.source("esc10").files if file.name.endswith(".ogg")]
    classes = {path.parent for path in recordings}
    note_corpus(run, len(recordings), len(classes), len(recordings) * DURATION, len(recordings))


def note_photographs(run: Run, parameters: Data) -> None:
    """How many photographs, named WORDNETID_name.JPEG by their true class, the image network names right at first."""
    folder = fetch("imagenet_samples", manifests.source("imagenet_samples").files[0].name).parent
    network = EfficientNetLite0.pretrained(device=choose_device(parameters.device))
    identifiers = ImageNetInfo("imagenet-1k").label_names()
    files = sorted(folder.glob("n*_*.JPEG"))
    labels = [int(network.probabilities(read_photograph(file)[None]).argmax()) for file in files]
    right = sum(identifiers[label] == file.name.split("_")[0] for label, file in zip(labels, files, strict=True))
    run.add("efficientnet-lite0", "photographs", len(files))
    run.add("efficientnet-lite0", "accuracy", right / len(files))


MEASUREMENTS = {
    "world": Measurement("demo", (), note_world),
    "recognition": Measurement("demo", ("yamnet",), note_recognition),
    "task4_lists": Measurement("dcase2017", (TASK, "audioset"), note_dcase2017),
    "predictions": Measurement("dcase2017", (TASK, PUBLISHED), note_predictions),
    "audioset_lists": Measurement("audioset", ("audioset",), note_audioset),
    "ranking": Measurement("audioset", ("ast_per_class",), note_ranking),
    "paired_items": Measurement("paired", (), note_paired),
    "photographs": Measurement("paired", ("imagenet_samples",), note_photographs),
    "esc10_items": Measurement("esc10", (), note_esc10),
}
