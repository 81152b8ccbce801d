"""The chapter on Li et al. (2017), step by step: inputs, both branches, their fusion, the numbers."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from avrepro import corpora, digests
from avrepro.corpora.base import Clip, Corpus, CorpusError
from avrepro.evaluation import tagging_scores, tune_thresholds
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
    corrected_similarities,
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
from avrepro.training import choose_device

DURATION = 10.0  # s; shorter clips end in silence, longer ones are cut
FEWEST = 30  # clips; with fewer nothing is trained
DRY = {"train": 4, "validation": 2, "test": 2}  # clips of a dry run


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
        profile = PROFILES[self.parameters.profile]
        if self.parameters.dry:  # of so few clips each epoch is one step
            return replace(profile, optimisation=replace(profile.optimisation, epochs=2), papers_optimisation_epochs=1)
        return profile

    @property
    def trains(self) -> bool:
        """Whether there are clips enough to train on, and no checkpoint is given instead."""
        if self.parameters.dry:
            return True
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
    corrected_similarity: np.ndarray  # the same of corrected words, ours
    words: PhraseVectors  # of objects and classes; tells the words outside the vocabulary
    video_scores: np.ndarray
    fusion: Fusion  # weights and thresholds, from validation or from the checkpoint
    peak_memory: dict[str, float]  # MB of the process at the end of each branch


def log_mel_feature(duration: float = DURATION) -> Feature:
    """Section 3.2: 20 kHz, 480-sample frames every 100, 60 mel bands; float16 [200 x duration in s, 60]."""
    front_end = LogMel.li2017()

    def read(clip: Clip) -> np.ndarray:
        return read_audio(clip.path, front_end.sample_rate, duration=duration)

    def compute(waveform: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return front_end(torch.from_numpy(waveform)[None])[0].numpy().astype(np.float16)

    digest = digests.of_values([duration, digests.code("features/logmel.py", "media.py"), digests.versions()])
    return Feature("logmel-li2017", "audio", digest, read, compute)


def load_corpus(parameters: LightweightFusion) -> Corpus:
    """The corpus that the parameters name; the first few clips of it in a dry run.

    The demo world is the same for every seed; real sounds and pictures are split and paired by it.
    """
    if parameters.corpus.startswith("demo"):
        corpus = corpora.load(parameters.corpus, profile="ci" if parameters.profile == "ci" else "demo")
    else:
        corpus = corpora.load(
            parameters.corpus,
            profile=parameters.profile,
            clips=parameters.clips or None,
            labels=parameters.labels or None,
            strict=parameters.strict,
            seed=parameters.seed,
        )
    if parameters.dry:
        kept = [clip for split, count in DRY.items() for clip in corpus.split(split).clips[:count]]
        corpus = replace(corpus, clips=tuple(kept))
    return corpus


def load_inputs(parameters: LightweightFusion) -> Inputs:
    """Load the corpus and compute its features; a clip that fails is left out, told, and counted."""
    profile = PROFILES[parameters.profile]
    corpus = load_corpus(parameters)
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
        if PROFILES[parameters.profile].optimisation != PAPER_OPTIMISATION:
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
    vectors = load_glove_text(fetch("glove_840b"), needed) if large else packaged_glove()
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
    corrected = corrected_similarities(recogniser.objects, classes, vectors)
    return Branches(
        classes, audio, papers, audio_scores, recogniser, objects, similarity, corrected, words, video_scores, fusion,
        memory,
    )  # fmt: skip


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
