"""The numbers of the chapter on Fayek and Kumar (2020): Tables 2 to 4, class by class, and what the systems cost."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from avrepro.evaluation import metric_interval
from avrepro.evaluation.ranking import Resampled, interval_of, resampled
from avrepro.experiments.fayek2020 import Inputs, Systems, fused, load_inputs, train_models
from avrepro.experiments.fayek2020_planted import add_planted
from avrepro.parameters import AttentionFusion
from avrepro.results import Results, Run
from avrepro.training import choose_device, device_name, predict

CHAPTER = "attention_fusion"
PROPOSED = "attention"


def evaluate(inputs: Inputs, systems: Systems, folder: Path | None = None, parts: tuple[str, ...] = ()) -> Results:
    """Every number of the chapter for this corpus, written to ``folder`` (default: the results store).

    Where nothing was trained, only what was measured of the clips is noted.

    :param parts: as of Run, for results that are committed.
    """
    corpus, parameters = inputs.corpus, inputs.parameters
    run = Run(CHAPTER, parameters.model_dump(), corpus, device_name(choose_device(parameters.device)), parts)
    run.add("corpus", "", "clips", len(corpus.clips))
    run.add("features", "", "seconds_per_clip", inputs.seconds_per_clip)
    if inputs.trains:
        targets = corpus.targets()
        for split in ("train", "validation", "test", "evaluation"):
            rows = inputs.rows(split)
            if not len(rows):
                continue
            for label, count in zip(corpus.classes, targets[rows].sum(axis=0), strict=True):
                run.add("corpus", split, "positive_clips", int(count), label=label)
            if split != "train":
                here = {name: one[rows] for name, one in systems.scores.items()}
                found = add_scores(run, split, targets[rows], here)
                add_weights(run, split, targets[rows], {name: one[rows] for name, one in systems.weights.items()})
                _add_generations(run, split, targets[rows], [one[rows] for one in systems.generations])
                if split != "validation":
                    _add_missing(run, split, inputs, systems, rows, found)
        if corpus.name.startswith("demo"):
            add_planted(run, inputs, systems)
        _add_costs(run, systems)
    run.add("corpus", "", "peak_memory_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return run.write(folder)


def add_scores(
    run: Run,
    split: str,
    targets: np.ndarray,
    scores: Mapping[str, np.ndarray],
    resamples: int = 2000,
    by_class: bool = True,
) -> dict[str, Resampled]:
    """mAP, mAUC, d' and each class's AP and AUC of systems, and how far attention is ahead of each.

    :param targets: bool [clips, classes]. :param scores: likewise, by system.
    """
    positive = np.asarray(targets.any(axis=0))
    run.add("corpus", split, "classes_scored", int(positive.sum()))
    run.add("corpus", split, "classes_left_out", int((~positive).sum()))
    found = {name: resampled(targets, one, resamples) for name, one in scores.items()}
    for name, one in found.items():
        run.add(name, split, "map", interval_of(one.mean_ap))
        run.add(name, split, "mauc", interval_of(one.mean_auc))
        run.add(name, split, "d_prime", interval_of(one.d_prime))
        for k, label in enumerate(run.corpus.classes):
            if positive[k] and by_class:
                run.add(name, split, "average_precision", interval_of(one.average_precision[:, k]), label=label)
                run.add(name, split, "roc_auc", interval_of(one.roc_auc[:, k]), label=label)
        if PROPOSED in found and name != PROPOSED:
            lead = found[PROPOSED].mean_ap - one.mean_ap
            run.add(name, split, "map_lead", interval_of(lead, paired=True))
    if PROPOSED in found and by_class:
        better = np.maximum(found["audio"].average_precision, found["visual"].average_precision)
        change = found[PROPOSED].average_precision - better
        for k, label in enumerate(run.corpus.classes):
            if positive[k]:
                run.add(PROPOSED, split, "ap_change", interval_of(change[:, k], paired=True), label=label)
    return found


def add_weights(run: Run, split: str, targets: np.ndarray, weights: Mapping[str, np.ndarray]) -> None:
    """Mean alpha_a of each class over the clips that contain it (section 5.2); all [clips, classes]."""
    for name, alpha in weights.items():
        for k, label in enumerate(run.corpus.classes):
            if targets[:, k].any():
                run.add(name, split, "attention_weight", float(alpha[targets[:, k], k].mean()), label=label)


def evaluate_null(parameters: AttentionFusion, results: Systems, inputs: Inputs) -> Results | None:
    """The same sounds with the pictures of other clips: there attention must leave vision. None but for the demo world.

    :param results, inputs: of the demo world.
    """
    if inputs.corpus.name != "demo" or not inputs.trains:
        return None
    null_inputs = load_inputs(parameters.model_copy(update={"corpus": "demo-null", "system": PROPOSED}))
    device = choose_device(parameters.device)
    models = train_models(null_inputs)
    h_a = predict(models.audio[-1].network, null_inputs.log_mel, device)
    h_v = predict(models.visual.network, null_inputs.pictures, device)
    rows, targets = null_inputs.rows("test"), null_inputs.corpus.targets()
    run = Run(CHAPTER, null_inputs.parameters.model_dump(), null_inputs.corpus, device_name(device))
    scores = {"audio": h_a, "visual": h_v, **fused(models, h_a, h_v, device)}
    add_scores(run, "test", targets[rows], {name: one[rows] for name, one in scores.items()})
    alpha = models.fusions.weights(PROPOSED, h_a, h_v, device)
    add_weights(run, "test", targets[rows], {PROPOSED: alpha[rows]})
    there = {clip.id: row for row, clip in enumerate(inputs.corpus.clips)}
    same = np.array([there[null_inputs.corpus.clips[row].id] for row in rows])
    shift = metric_interval(_mean, targets[rows], alpha[rows], results.weights[PROPOSED][same])
    run.add(PROPOSED, "test", "weight_shift", shift)
    return run.write()


def _add_generations(run: Run, split: str, targets: np.ndarray, generations: list[np.ndarray]) -> None:
    """mAP of the audio model's generations, and the gain of the last over the first."""
    found = [resampled(targets, one) for one in generations]
    for step, one in enumerate(found):
        run.add("audio", split, "map_of_generation", interval_of(one.mean_ap), step=step)
    if len(found) > 1:
        gain = interval_of(found[-1].mean_ap - found[0].mean_ap, paired=True)
        run.add("audio", split, "generation_gain", gain)


def _add_missing(
    run: Run, split: str, inputs: Inputs, systems: Systems, rows: np.ndarray, whole: Mapping[str, Resampled]
) -> None:
    """What each fusion loses where every clip falls silent, or black."""
    device, targets = choose_device(inputs.parameters.device), inputs.corpus.targets()[rows]
    audio, visual = systems.models.audio[-1].network, systems.models.visual.network
    silent = np.repeat(predict(audio, inputs.silence[None], device), len(rows), axis=0)
    black = np.repeat(predict(visual, inputs.black[None], device), len(rows), axis=0)
    without = {
        "silent": fused(systems.models, silent, systems.scores["visual"][rows], device),
        "black": fused(systems.models, systems.scores["audio"][rows], black, device),
    }
    for lacking, scores in without.items():
        for name, one in scores.items():
            left = resampled(targets, one)
            run.add(name, split, f"map_{lacking}", interval_of(left.mean_ap))
            loss = interval_of(whole[name].mean_ap - left.mean_ap, paired=True)
            run.add(name, split, f"map_{lacking}_loss", loss)


def _add_costs(run: Run, systems: Systems) -> None:
    """Seconds and numbers that are trained; fusions are trained together, so they share their seconds."""
    models = systems.models
    run.add("audio", "", "training_seconds", sum(one.seconds for one in models.audio))
    run.add("audio", "", "parameters", models.audio[-1].parameters)
    run.add("visual", "", "training_seconds", models.visual.seconds)
    run.add("visual", "", "parameters", models.visual.parameters)
    run.add("fusions", "", "training_seconds", models.fusions.seconds)
    for name, bank in models.fusions.banks.items():
        run.add(name, "", "parameters", sum(one.numel() for one in bank.members[name].parameters()))
    for name, other in systems.others.items():
        run.add(name, "", "training_seconds", other.seconds)
        run.add(name, "", "parameters", other.parameters)


def _mean(_: np.ndarray, alpha: np.ndarray) -> float:
    return float(alpha.mean())
