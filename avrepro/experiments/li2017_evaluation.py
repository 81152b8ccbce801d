"""The numbers of the chapter on Li et al. (2017): systems, controls, and what they cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from avrepro.evaluation import class_f1_intervals, micro_f1_interval, tagging_scores, tune_thresholds
from avrepro.experiments.li2017 import Branches, Inputs, fit_fusion, load_inputs, run_branches
from avrepro.features.words import map_objects_to_events
from avrepro.models.li2017 import Fusion, fuse
from avrepro.parameters import LightweightFusion
from avrepro.results import Results, Run
from avrepro.training import choose_device, device_name

CHAPTER = "lightweight_fusion"
TUNED = "tuned on validation (section 3.3)"


def evaluate_null(parameters: LightweightFusion) -> Results | None:
    """The same evaluation where every clip shows the pictures of another; None where there is no such world."""
    if parameters.corpus != "demo":
        return None
    inputs = load_inputs(parameters.model_copy(update={"corpus": "demo-null"}))
    return evaluate(inputs, run_branches(inputs))


def evaluate(inputs: Inputs, branches: Branches, folder: Path | None = None, parts: tuple[str, ...] = ()) -> Results:
    """Every number of the chapter for this corpus, written to ``folder`` (default: the results store).

    ``parts``: as of Run, for results that are committed.

    Micro and class-wise F1 of each system on each held-out split with bootstrap intervals, paired
    differences from audio alone, the learning curves, and what the branches cost.
    """
    corpus, fusion = inputs.corpus, branches.fusion
    device = device_name(choose_device(inputs.parameters.device))
    run = Run(CHAPTER, inputs.parameters.model_dump(), corpus, device, parts)
    run.add("corpus", "", "clips", len(corpus.clips))
    run.add("video", "", "seconds_per_clip", inputs.video_seconds)
    run.add("video", "", "peak_memory_mb", branches.peak_memory["video"])
    if not inputs.trains:
        return run.write(folder)

    scores = branches.audio_scores, branches.video_scores
    systems = {
        "audio": scores[0],
        "video": scores[1],
        "fused": fuse(*scores, fusion.papers_weights),
        "fused, tuned weights": fuse(*scores, fusion.tuned_weights),
    }
    targets = corpus.targets()
    decisions = {name: systems[name] >= fusion.thresholds[name] for name in systems}
    decisions["class frequency"] = _guesses(inputs)
    decisions |= _with_corrected_words(inputs, branches)
    if corpus.name.startswith("demo"):
        decisions |= _with_planted_truth(inputs, branches)
    for split in ("validation", "test", "evaluation"):
        rows = inputs.rows(split)
        if len(rows):
            _score(run, split, corpus.classes, targets[rows], {name: one[rows] for name, one in decisions.items()})

    for column, label in enumerate(corpus.classes):
        run.add("fused", "", "video_weight", fusion.papers_weights[column], label=label)
        run.add("fused, tuned weights", "", "video_weight", fusion.tuned_weights[column], label=label)
        run.add("corpus", "train", "positive_clips", targets[inputs.rows("train"), column].sum(), label=label)
    for name, branch in (("audio", branches.audio), ("audio, paper's optimiser", branches.papers_optimiser)):
        if branch is not None:
            run.add(name, "", "training_seconds", branch.seconds)
            for row in branch.history:
                for metric in ("loss", "validation_loss", "validation_score"):
                    run.add(name, "", metric, row[metric], step=int(row["epoch"]))
    run.add("audio", "", "peak_memory_mb", branches.peak_memory["audio"])
    if not np.isnan(branches.recogniser.accuracy):
        run.add("video", "", "recogniser_accuracy", branches.recogniser.accuracy)
    return run.write(folder)


def _score(run: Run, split: str, classes: tuple[str, ...], targets: np.ndarray, decisions: dict) -> None:
    for name, decided in decisions.items():
        tagged = tagging_scores(targets, decided)
        run.add(name, split, "micro_f1", micro_f1_interval(targets, decided), threshold_rule=TUNED)
        run.add(name, split, "micro_precision", tagged.precision, threshold_rule=TUNED)
        run.add(name, split, "micro_recall", tagged.recall, threshold_rule=TUNED)
        for label, interval in zip(classes, class_f1_intervals(targets, decided), strict=True):
            run.add(name, split, "class_f1", interval, label=label, threshold_rule=TUNED)
        if name != "audio":
            against = decisions["audio"]
            gain = micro_f1_interval(targets, decided, against)
            run.add(name, split, "micro_f1_gain", gain, threshold_rule=TUNED)
            for label, interval in zip(classes, class_f1_intervals(targets, decided, against), strict=True):
                run.add(name, split, "class_f1_gain", interval, label=label, threshold_rule=TUNED)


def _with_corrected_words(inputs: Inputs, branches: Branches) -> dict[str, np.ndarray]:
    """The picture branch alone, and fused, with words less what all words share."""
    video = map_objects_to_events(branches.objects, branches.corrected_similarity)
    fusion = _fusion_with(inputs, branches, video)
    fused = fuse(branches.audio_scores, video, fusion.papers_weights)
    return {
        "video, corrected words": video >= fusion.thresholds["video"],
        "fused, corrected words": fused >= fusion.thresholds["fused"],
    }


def _fusion_with(inputs: Inputs, branches: Branches, video: np.ndarray) -> Fusion:
    """Weights and thresholds, chosen on validation, for other scores of the picture branch."""
    rows = inputs.rows("validation")
    audio = branches.audio_scores[rows]
    truth, thresholds = inputs.corpus.targets()[rows], branches.audio.thresholds
    return fit_fusion(truth, audio, video[rows], thresholds, inputs.parameters.seed)


def _with_planted_truth(inputs: Inputs, branches: Branches) -> dict[str, np.ndarray]:
    """The fusion with parts of the picture branch replaced by what was planted: tells which part loses what.

    ``true objects``: the recogniser makes no mistake, its objects go through the words as always. ``true sources``:
    the words make none either, a class has 1 where an object that can be its source is in view in a key frame. Classes
    that share an object (Train and Train horn, say) all have it: no eye could tell them apart.
    """
    from avrepro.corpora.demo.description import load_world_description
    from avrepro.corpora.demo.pictures import SIGHTS

    sight = pd.read_parquet(inputs.corpus.strong / "sight.parquet")  # type: ignore[operator]
    sight = sight.assign(area=sight["w"] * sight["h"] * sight["visible"])
    views = {key: rows for key, rows in sight[sight["area"] > 0].groupby(["clip", "frame"])}
    rate = load_world_description().clip.frames_per_second
    shape = (len(inputs.corpus.clips), inputs.parameters.key_frames, len(branches.recogniser.objects))
    objects, sources = np.zeros(shape), np.zeros_like(branches.video_scores)
    column = {name: index for index, name in enumerate(branches.recogniser.objects)}
    for row, clip in enumerate(inputs.corpus.clips):
        for k, time_of in enumerate(inputs.key_times[row]):
            for seen in getattr(views.get((clip.id, round(time_of * rate))), "itertuples", tuple)():
                objects[row, k, column[seen.object]] += seen.area
                sources[row, [seen.object in SIGHTS[name] for name in branches.classes]] = 1
    for axis in (2, (1, 2)):  # shares in each key frame, then in the clip; a view of nothing stays nothing
        totals = objects.sum(axis=axis, keepdims=True)
        objects = np.divide(objects, totals, out=np.zeros(shape), where=totals > 0)
    named = map_objects_to_events(objects.sum(axis=1), branches.similarity)
    decisions = {}
    for name, video in (("fused, true objects", named), ("fused, true sources", sources)):
        fusion = _fusion_with(inputs, branches, video)
        decisions[name] = fuse(branches.audio_scores, video, fusion.papers_weights) >= fusion.thresholds["fused"]
    return decisions


def _guesses(inputs: Inputs) -> np.ndarray:
    """The best that class frequencies alone can do: the same classes for every clip, chosen on validation."""
    targets = inputs.corpus.targets()
    frequency = targets[inputs.rows("train")].mean(axis=0)
    rows = inputs.rows("validation")
    thresholds = tune_thresholds(targets[rows], np.tile(frequency, (len(rows), 1)), inputs.parameters.seed)
    return np.tile(frequency >= thresholds, (len(targets), 1))
