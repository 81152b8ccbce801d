"""The chapter on Li et al. (2017), step by step: inputs, both branches, their fusion, the numbers."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from avrepro import corpora, digests
from avrepro.corpora.base import Clip, Corpus, CorpusError
from avrepro.evaluation import class_f1_intervals, micro_f1_interval, tagging_scores, tune_thresholds
from avrepro.experiments.li2017_profiles import PAPER_OPTIMISATION, PROFILES, Profile
from avrepro.features.logmel import LogMel
from avrepro.features.objects import (
    Backbone,
    Recogniser,
    drawn_recogniser,
    imagenet_recogniser,
    key_frame_objects,
    key_frame_times,
)
from avrepro.features.store import ClipArrays, Feature, extract
from avrepro.features.words import (
    PhraseVectors,
    clip_objects,
    load_glove_text,
    map_objects_to_events,
    packaged_glove,
    phrase_vectors,
    similarities,
    words_of,
)
from avrepro.fetch import fetch
from avrepro.media import read_audio
from avrepro.models.backbones import load_backbone
from avrepro.models.li2017 import (
    AudioBranch,
    Fusion,
    fuse,
    load_audio,
    papers_weights,
    train_audio,
    tuned_weights,
)
from avrepro.parameters import LightweightFusion
from avrepro.progress import say
from avrepro.results import Results, Run
from avrepro.training import choose_device, device_name

CHAPTER = "lightweight_fusion"
DURATION = 10.0  # s; shorter clips end in silence, longer ones are cut
FEWEST = 30  # clips; with fewer nothing is trained
TUNED = "tuned on validation (section 3.3)"


@dataclass(frozen=True)
class Inputs:
    """Frozen features of a corpus's usable clips, each in the order of ``corpus.clips``."""

    parameters: LightweightFusion
    corpus: Corpus
    log_mel: ClipArrays  # each [2000, 60]
    key_times: ClipArrays  # each [k], s
    pooled: ClipArrays  # each [k, d]
    network: Backbone
    video_seconds: float  # a clip, decoding to pooled features; measured on a few clips without the cache

    @property
    def profile(self) -> Profile:
        return PROFILES[self.parameters.profile]

    @property
    def trains(self) -> bool:
        """Whether there are clips enough to train on, and no checkpoint is given instead."""
        sizes = {split: len(self.corpus.split(split).clips) for split in corpora.SPLITS}
        enough = len(self.corpus.clips) >= FEWEST and sizes["train"] > 0 and sizes["validation"] > 0
        return enough and not self.parameters.checkpoint

    def rows(self, split: str) -> np.ndarray:
        """Rows of the clips of a split."""
        return np.array([row for row, clip in enumerate(self.corpus.clips) if clip.split == split], dtype=int)


@dataclass(frozen=True)
class Branches:
    """What both branches say of every clip; scores are [clips, classes], in the order of ``classes``."""

    classes: tuple[str, ...]
    audio: AudioBranch
    papers_optimiser: AudioBranch | None  # the same network trained as the paper does, for its learning curve
    audio_scores: np.ndarray
    recogniser: Recogniser
    objects: np.ndarray  # rectified probabilities of objects, [clips, objects]
    similarity: np.ndarray  # cosine of words, [objects, classes]
    words: PhraseVectors  # of objects and classes; tells the words outside the vocabulary
    video_scores: np.ndarray
    fusion: Fusion  # weights and thresholds, from validation or from the checkpoint
    peak_memory: dict[str, float]  # MB of the process at the end of each branch


def log_mel_feature() -> Feature:
    """Section 3.2: 20 kHz, 480-sample frames every 100, 60 mel bands; float16 [2000, 60]."""
    front_end = LogMel.li2017()

    def read(clip: Clip) -> np.ndarray:
        return read_audio(clip.path, front_end.sample_rate, duration=DURATION)

    def compute(waveform: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return front_end(torch.from_numpy(waveform)[None])[0].numpy().astype(np.float16)

    digest = digests.of_values([DURATION, digests.code("features/logmel.py", "media.py"), digests.versions()])
    return Feature("logmel-li2017", "audio", digest, read, compute)


def load_inputs(parameters: LightweightFusion) -> Inputs:
    """Load the corpus and compute its features; a clip that fails is left out, told, and counted."""
    profile = PROFILES[parameters.profile]
    if parameters.corpus == "folder":
        corpus = corpora.load("folder", clips=parameters.clips, labels=parameters.labels, seed=parameters.seed)
    else:
        corpus = corpora.load(parameters.corpus, profile="ci" if parameters.profile == "ci" else "demo")
    network = load_backbone(profile.backbone, choose_device(parameters.device))

    times_feature = key_frame_times(
        network, profile.frames_per_second, profile.dissimilarity_size, parameters.key_frames
    )
    key_times, corpus = extract(times_feature, corpus)
    times = dict(zip((clip.id for clip in corpus.clips), key_times, strict=True))
    looking = key_frame_objects(network, times, times_feature, profile.frame_size)
    pooled, corpus = extract(looking, corpus)
    log_mel, usable = extract(log_mel_feature(), corpus)
    if not usable.clips:
        reasons = "\n".join(f"  {clip.id}: {clip.reason}" for clip in usable.missing)
        raise CorpusError(f"no clip of {parameters.corpus} can be used:\n{reasons}")
    heard = {clip.id for clip in usable.clips}
    kept = [row for row, clip in enumerate(corpus.clips) if clip.id in heard]
    key_times, pooled = (ClipArrays(tuple(array.paths[row] for row in kept)) for array in (key_times, pooled))
    sample = usable.clips[:: max(1, len(usable.clips) // 8)][:8]
    start = time.monotonic()
    for clip in sample:
        times_feature.compute(times_feature.read(clip))
        looking.compute(looking.read(clip))
    seconds = (time.monotonic() - start) / len(sample)
    return Inputs(parameters, usable, log_mel, key_times, pooled, network, seconds)


def run_branches(inputs: Inputs) -> Branches:
    """Train (or load) the audio branch, run the picture branch, and set the fusion on the validation clips."""
    parameters, profile = inputs.parameters, inputs.profile
    device = choose_device(parameters.device)
    fusion = None
    papers = None
    if inputs.trains:
        train, validation = (_labelled(inputs, split) for split in ("train", "validation"))
        settings = (inputs.corpus.classes, profile.crnn)
        audio = train_audio(train, validation, *settings, profile.optimisation, parameters.seed, device, profile.mixing)
        if profile.optimisation != PAPER_OPTIMISATION:
            told = replace(PAPER_OPTIMISATION, epochs=profile.papers_optimisation_epochs)
            papers = train_audio(train, validation, *settings, told, parameters.seed, device)
    else:
        say(f"{len(inputs.corpus.clips)} clips: nothing is trained, they are scored by a checkpoint")
        path = Path(parameters.checkpoint) if parameters.checkpoint else demo_checkpoint(parameters)
        audio = load_audio(path)
        fusion = Fusion.load(path)
    classes = audio.classes
    audio_scores = audio.scores(inputs.log_mel, device)
    memory = {"audio": _peak_memory()}

    recogniser = _recogniser(inputs)
    probabilities = recogniser.probabilities(inputs.pooled[:])  # (clips, k, objects)
    objects = clip_objects(probabilities)
    needed = {word for phrase in (*recogniser.objects, *classes) for word in words_of(phrase)}
    large = profile.words == "glove.840B.300d"
    vectors = load_glove_text(fetch("glove.840B.300d.zip"), needed) if large else packaged_glove(needed)
    similarity = similarities(recogniser.objects, classes, vectors)
    video_scores = map_objects_to_events(objects, similarity)
    memory["video"] = _peak_memory()
    if fusion is None:
        rows = inputs.rows("validation")
        fusion = fit_fusion(
            inputs.corpus.targets()[rows], audio_scores[rows], video_scores[rows], audio.thresholds, parameters.seed
        )
        say(f"checkpoint of both branches and their fusion: {fusion.save(audio)}")
    words = phrase_vectors([*recogniser.objects, *classes], vectors)
    return Branches(
        classes, audio, papers, audio_scores, recogniser, objects, similarity, words, video_scores, fusion, memory
    )


def fit_fusion(
    y_true: np.ndarray, audio: np.ndarray, video: np.ndarray, audio_thresholds: np.ndarray, seed: int
) -> Fusion:
    """Choose weights (section 3.4, and the tuned ones) and thresholds on the validation clips; [clips, classes]."""
    video_thresholds = tune_thresholds(y_true, video, seed)
    audio_f1 = tagging_scores(y_true, audio >= audio_thresholds).class_f1
    video_f1 = tagging_scores(y_true, video >= video_thresholds).class_f1
    papers, tuned = papers_weights(audio_f1, video_f1), tuned_weights(y_true, audio, video, seed)
    return Fusion(
        papers,
        tuned,
        {
            "audio": audio_thresholds,
            "video": video_thresholds,
            "fused": tune_thresholds(y_true, fuse(audio, video, papers), seed),
            "fused, tuned weights": tune_thresholds(y_true, fuse(audio, video, tuned), seed),
        },
    )


def demo_checkpoint(parameters: LightweightFusion) -> Path:
    """The audio branch and fusion of the demo world, trained first if it is not there yet."""
    demo = LightweightFusion(profile="ci" if parameters.profile == "ci" else "demo", device=parameters.device)
    say("the checkpoint of the demo world is looked up, and made where it is missing (minutes)")
    branches = run_branches(load_inputs(demo))
    return branches.fusion.save(branches.audio)


def evaluate_null(parameters: LightweightFusion) -> Results | None:
    """The same evaluation where every clip shows the pictures of another; None where there is no such world."""
    if parameters.corpus != "demo":
        return None
    inputs = load_inputs(parameters.model_copy(update={"corpus": "demo-null"}))
    return evaluate(inputs, run_branches(inputs))


def evaluate(inputs: Inputs, branches: Branches) -> Results:
    """Every number of the chapter for this corpus, written to the results store.

    Micro and class-wise F1 of each system on each held-out split with bootstrap intervals, paired
    differences from audio alone, the learning curves, and what the branches cost.
    """
    corpus, fusion = inputs.corpus, branches.fusion
    device = device_name(choose_device(inputs.parameters.device))
    run = Run(CHAPTER, inputs.parameters.model_dump(), corpus, device)
    run.add("corpus", "", "clips", len(corpus.clips))
    run.add("video", "", "seconds_per_clip", inputs.video_seconds)
    run.add("video", "", "peak_memory_mb", branches.peak_memory["video"])
    if not inputs.trains:
        return run.write()

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
    if corpus.strong is not None:
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
    return run.write()


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
    targets, rows = inputs.corpus.targets(), inputs.rows("validation")
    audio, decisions = branches.audio_scores, {}
    for name, video in (("fused, true objects", named), ("fused, true sources", sources)):
        thresholds, seed = branches.audio.thresholds, inputs.parameters.seed
        fusion = fit_fusion(targets[rows], audio[rows], video[rows], thresholds, seed)
        decisions[name] = fuse(audio, video, fusion.papers_weights) >= fusion.thresholds["fused"]
    return decisions


def _guesses(inputs: Inputs) -> np.ndarray:
    """The best that class frequencies alone can do: the same classes for every clip, chosen on validation."""
    targets = inputs.corpus.targets()
    frequency = targets[inputs.rows("train")].mean(axis=0)
    rows = inputs.rows("validation")
    thresholds = tune_thresholds(targets[rows], np.tile(frequency, (len(rows), 1)), inputs.parameters.seed)
    return np.tile(frequency >= thresholds, (len(targets), 1))


def _labelled(inputs: Inputs, split: str) -> tuple[ClipArrays, np.ndarray]:
    rows = inputs.rows(split)
    return ClipArrays(tuple(inputs.log_mel.paths[row] for row in rows)), inputs.corpus.targets()[rows]


def _recogniser(inputs: Inputs) -> Recogniser:
    """ImageNet networks name what photographs show; drawings need the probe."""
    if inputs.corpus.name.startswith("demo"):
        return drawn_recogniser(inputs.network, inputs.profile.drawn_pictures, inputs.profile.frame_size)
    return imagenet_recogniser(inputs.network)


def _peak_memory() -> float:
    """Largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
