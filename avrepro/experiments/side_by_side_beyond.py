"""Beyond the papers, on the same clips: attention bottlenecks, and the three papers' best ideas together."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from avrepro.evaluation.calibration import platt
from avrepro.experiments import fayek2020, li2017, parekh2018
from avrepro.experiments.bottleneck import scores_with, train_bottleneck
from avrepro.experiments.fayek2020_training import Split, mean_ap, train_fusions
from avrepro.experiments.parekh2018_training import Trained
from avrepro.experiments.side_by_side_systems import (
    DELAYS,
    Condition,
    Said,
    black_key_frame,
    fayek_inputs,
    impairments,
    parameters_of,
    parekh_inputs,
    picture_scores,
)
from avrepro.parameters import LightweightFusion
from avrepro.training import choose_device, predict

FOLDS = 3  # of the two streams, whose fusion learns from clips that they did not
STRENGTHS = (0.0, 3.0, 10.0, 30.0, 100.0)  # clips that the word vectors count for


def of_union(condition: Condition) -> Said:
    """Sound by the ConvNet, pictures and sound by two streams, attention between them, word vectors for rare classes.

    Two streams localise in both modalities and never need them in step (Parekh et al.); attention decides for each clip
    and class whom to believe (Fayek and Kumar); names of the objects in view tell something of classes with few clips
    (Li et al.): a class with n training clips is mixed with what the words say as strength : n. Validation clips choose
    the one strength for all classes, 0 among them.
    """
    hearing, streams = fayek_inputs(condition), parekh_inputs(condition)
    naming = li2017.load_inputs(parameters_of(LightweightFusion, condition))
    ids = [[clip.id for clip in inputs.corpus.clips] for inputs in (hearing, streams, naming)]
    if not ids[0] == ids[1] == ids[2]:
        raise ValueError(f"{condition.corpus}: the three papers' features are of different clips, {[*map(len, ids)]}")
    corpus, device, seed = hearing.corpus, choose_device("auto"), condition.seed
    said, targets = Said(corpus), corpus.targets()
    train, validation = said.rows("train"), said.rows("validation")

    models = fayek2020.train_models(hearing)
    h_a = predict(models.audio[-1].network, hearing.log_mel, device)
    trained, phi, seconds = two_streams(streams, train)
    calibrated = platt(targets[validation], phi[validation])
    h_s = calibrated(phi).astype(np.float32)
    moments = [(one[train].mean(axis=0), one[train].std(axis=0)) for one in (h_a, h_s)]
    taught, held = (Split((h_a[rows], h_s[rows]), targets[rows]) for rows in (train, validation))
    count = targets[train].sum(axis=0)
    both, frequencies = (moments[0], moments[1]), count / len(train)
    fusions = train_fusions(("attention",), taught, held, both, frequencies, hearing.profile, seed, device)
    fused = fusions.scores("attention", h_a, h_s, device)

    sees = picture_scores(naming)
    words = sees(naming.pooled[:])
    calibrated_words = platt(targets[validation], words[validation])
    named = calibrated_words(words)
    mixed = {one: _mixed(fused, named, one, count) for one in STRENGTHS}
    chosen = max(mixed, key=lambda one: mean_ap(targets[validation], mixed[one][validation]))
    spent = sum(one.seconds for one in models.audio) + seconds + fusions.seconds
    said.add("beyond/union", mixed[chosen], training_seconds=spent, prior_strength=chosen)
    said.add("beyond/union_without_words", fused, training_seconds=spent)
    if condition.plain:
        silence = np.repeat(predict(models.audio[-1].network, hearing.silence[None], device), len(h_a), axis=0)
        black = calibrated_words(sees(black_key_frame(naming)))
        left = {"silent": (silence, named), "black": (h_a, black)}
        for how, worse in impairments(streams, delays=()).items():
            streamed = calibrated(trained.scores(worse.regions, worse.segments, device)).astype(np.float32)
            heard, words = left[how]
            fused = fusions.scores("attention", heard, streamed, device)
            said.impaired("beyond/union_without_words", how, fused)
            said.impaired("beyond/union", how, _mixed(fused, words, chosen, count))
    return said


def two_streams(inputs: parekh2018.Inputs, train: np.ndarray) -> tuple[Trained, np.ndarray, float]:
    """The system, scores of all clips, [clips, classes], and seconds; training clips are scored by others without them.

    Seconds are of all of these trainings.
    """
    device = choose_device("auto")

    def scores(given: parekh2018.Inputs) -> tuple[Trained, np.ndarray]:
        trained = parekh2018.train_system(given, "two_stream")
        return trained, trained.scores(given.regions, given.segments, device)

    whole, found = scores(inputs)
    seconds = whole.seconds
    for fold in range(FOLDS):
        unseen = set(train[fold::FOLDS].tolist())
        clips = tuple(
            replace(clip, split="left out") if row in unseen else clip for row, clip in enumerate(inputs.corpus.clips)
        )
        digest = json.dumps([inputs.corpus.digest, "fold", fold, FOLDS])
        other, said = scores(replace(inputs, corpus=replace(inputs.corpus, clips=clips, digest=digest)))
        rows = sorted(unseen)
        found[rows] = said[rows]
        seconds += other.seconds
    return whole, found, seconds


def _mixed(fused: np.ndarray, named: np.ndarray, strength: float, count: np.ndarray) -> np.ndarray:
    """Scores [clips, classes] of both, mixed class by class; ``count``: training clips that have each class."""
    share = strength / np.maximum(strength + count, 1)
    return (1 - share) * fused + share * named


def of_bottleneck(condition: Condition) -> Said:
    """Attention bottlenecks on the features of Parekh et al.'s chapter."""
    inputs = parekh_inputs(condition)
    said, device = Said(inputs.corpus), choose_device("auto")
    trained = train_bottleneck(inputs, condition.seed, device)
    said.add("beyond/bottleneck", trained.scores, training_seconds=trained.seconds)
    if condition.plain:
        said.impaired("beyond/bottleneck", "silent", scores_with(inputs, trained.network, silent=True))
        said.impaired("beyond/bottleneck", "black", scores_with(inputs, trained.network, black=True))
        for delay in DELAYS:
            said.impaired("beyond/bottleneck", f"delay {delay} s", scores_with(inputs, trained.network, delay=delay))
    return said
