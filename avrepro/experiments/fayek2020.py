"""The chapter on Fayek and Kumar (2020), step by step: features, the two models, what they say, and its fusions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from avrepro import digests
from avrepro.corpora.base import Clip, Corpus, CorpusError
from avrepro.experiments.fayek2020_checkpoint import Models, load_models, save_models
from avrepro.experiments.fayek2020_others import Trained as Other
from avrepro.experiments.fayek2020_profiles import PROFILES, Profile
from avrepro.experiments.fayek2020_training import Split, Trained, train_audio, train_fusions, train_visual
from avrepro.experiments.li2017 import DURATION, FEWEST, load_corpus
from avrepro.features.logmel import LogMel
from avrepro.features.objects import Backbone
from avrepro.features.store import ClipArrays, Feature, extract
from avrepro.files import atomic
from avrepro.media import read_audio, read_frames
from avrepro.models.backbones import load_backbone
from avrepro.models.fayek2020 import FUSIONS
from avrepro.parameters import AttentionFusion
from avrepro.progress import say
from avrepro.training import choose_device, predict

SYSTEMS = ("audio", "visual", "average", *FUSIONS)  # Tables 2 and 4
OPTIMISATIONS = ("audio_optimisation", "visual_optimisation", "fusion_optimisation")
OTHERS = ("resnet_audio", "r2plus1d_visual", "gblend")  # of Table 3


@dataclass(frozen=True)
class Inputs:
    """Frozen features of a corpus's usable clips, each in the order of ``corpus.clips``.

    A clip without usable sound or pictures has those of silence or of a black picture.
    """

    parameters: AttentionFusion
    corpus: Corpus
    log_mel: ClipArrays  # each [frames, 64]
    pictures: ClipArrays  # each [d], mean over frames
    silence: np.ndarray  # [frames, 64]
    black: np.ndarray  # [d]
    seconds_per_clip: float  # decoding to features; measured on a few clips without the cache

    @property
    def profile(self) -> Profile:
        profile = PROFILES[self.parameters.profile]
        if not self.parameters.dry:
            return profile
        steps = {name: replace(getattr(profile, name), epochs=1) for name in OPTIMISATIONS}
        rates = {"visual_rates": profile.visual_rates[:1], "fusion_rates": profile.fusion_rates[:1]}
        return replace(profile, **steps, **rates)  # type: ignore[arg-type]

    @property
    def trains(self) -> bool:
        """Whether there are clips enough to train on, and no checkpoint is given instead."""
        if self.parameters.dry:
            return True
        sizes = [len(self.corpus.split(split).clips) for split in ("train", "validation")]
        return len(self.corpus.clips) >= FEWEST and min(sizes) > 0 and not self.parameters.checkpoint

    @property
    def features(self) -> dict[str, object]:
        """What the features are, so that a checkpoint can tell whether it knows them."""
        profile = self.profile
        return {
            "audio": ["log-mel, 10 ms", profile.audio_pooled],
            "pictures": [profile.backbone, profile.frames, list(profile.frame_size or ())],
        }

    def rows(self, split: str) -> np.ndarray:
        """Rows of the clips of a split."""
        return np.array([row for row, clip in enumerate(self.corpus.clips) if clip.split == split], dtype=int)


@dataclass(frozen=True)
class Systems:
    """What each system says of every clip, by name: probabilities, float32 [clips, classes]."""

    models: Models
    scores: dict[str, np.ndarray]
    generations: list[np.ndarray]  # of the audio model, likewise; the last is ``scores["audio"]``
    weights: dict[str, np.ndarray]  # alpha_a of each attention fusion, [clips, classes]
    others: dict[str, Other]  # of Table 3, as far as they were asked for

    @property
    def classes(self) -> tuple[str, ...]:
        return self.models.classes


def load_inputs(parameters: AttentionFusion) -> Inputs:
    """The corpus that the parameters name, and its features; a clip without usable sound or pictures keeps the other.

    :raises CorpusError: no clip has either.
    """
    profile = PROFILES[parameters.profile]
    corpus = load_corpus(parameters)  # type: ignore[arg-type]  # it has the same fields
    network = load_backbone(profile.backbone, choose_device(parameters.device))
    hearing = log_mel_feature(profile.audio_pooled)
    seeing = picture_feature(network, profile.frames, profile.frame_size)
    log_mel, heard = extract(hearing, corpus)
    pictures, seen = extract(seeing, corpus)

    paths = [
        dict(zip((clip.id for clip in usable.clips), arrays.paths, strict=True))
        for usable, arrays in ((heard, log_mel), (seen, pictures))
    ]
    reasons = {clip.id: f"{clip.reason}; its pictures cannot be used either" for clip in heard.missing}
    usable = corpus.without({name: why for name, why in reasons.items() if name not in paths[1]})
    if not usable.clips:
        told = "\n".join(f"  {clip.id}: {clip.reason}" for clip in usable.missing)
        raise CorpusError(f"no clip of {corpus.name} can be used:\n{told}")
    ids = [clip.id for clip in usable.clips]
    rate = LogMel.fayek2020().sample_rate
    height, width = profile.frame_size or (224, 224)
    silence = hearing.compute(np.zeros(round(DURATION * rate), np.float32))
    black = seeing.compute(np.zeros((profile.frames, height, width, 3), np.uint8))
    arrays = []
    for name, feature, known, nothing in (("sound", hearing, paths[0], silence), ("pictures", seeing, paths[1], black)):
        lacking = [one for one in ids if one not in known]
        if lacking:
            say(f"{len(lacking)} clips without usable {name} are scored by the other: {', '.join(lacking[:5])}")
        arrays.append(ClipArrays(tuple(known.get(one) or _kept(feature, nothing) for one in ids)))
    both = [clip for clip in usable.clips if clip.id in paths[0] and clip.id in paths[1]]
    return Inputs(parameters, usable, arrays[0], arrays[1], silence, black, _seconds_per_clip((hearing, seeing), both))


def log_mel_feature(pooled: int) -> Feature:
    """Section 3.1: 16 kHz, 64 mel bands, windows of 16 ms every 10 ms; float16 [1000 / pooled, 64] of 10 s.

    Shorter clips end in silence, longer ones are cut.

    :param pooled: frames that are averaged to one; 1 in the paper.
    """
    front_end = LogMel.fayek2020()

    def read(clip: Clip) -> np.ndarray:
        return read_audio(clip.path, front_end.sample_rate, duration=DURATION)

    def compute(waveform: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            frames = front_end(torch.from_numpy(waveform)[None])[0]
        whole = len(frames) // pooled * pooled
        return frames[:whole].reshape(-1, pooled, frames.shape[1]).mean(dim=1).numpy().astype(np.float16)

    code = digests.code("features/logmel.py", "media.py")
    return Feature(
        "logmel-fayek2020", "audio", digests.of_values([DURATION, pooled, code, digests.versions()]), read, compute
    )


def picture_feature(network: Backbone, frames: int, size: tuple[int, int] | None) -> Feature:
    """Section 3.2: features of frames at even distances, averaged; float32 [d].

    :param frames: of the first 10 s, 64 in the paper. :param size: height and width they are decoded to, px.
    """
    times = (np.arange(frames) + 0.5) / frames * DURATION

    def read(clip: Clip) -> np.ndarray:
        return read_frames(clip.path, times=times, size=size)[0]

    def compute(pictures: np.ndarray) -> np.ndarray:
        return network.pooled(pictures).mean(axis=0)

    code = digests.code("media.py", "models/backbones.py", "models/caffenet.py", "models/efficientnet.py")
    settings = [network.name, frames, size, DURATION, code, digests.versions()]
    return Feature(f"pictures-{network.name}", "video", digests.of_values(settings), read, compute)


def run_systems(inputs: Inputs) -> Systems:
    """Train both models and fusions of what they say; of too few clips, score them by a checkpoint's models."""
    device = choose_device(inputs.parameters.device)
    if not inputs.trains:
        say(f"{len(inputs.corpus.clips)} clips: nothing is trained, they are scored by a checkpoint")
        models = load_models(checkpoint(inputs.parameters), inputs.features)
        return _systems(models, inputs, device, {})
    models = train_models(inputs)
    others: dict[str, Other] = {}
    if inputs.parameters.system in OTHERS:
        others = {inputs.parameters.system: train_other(inputs, inputs.parameters.system)}
    return _systems(models, inputs, device, others)


def train_models(inputs: Inputs) -> Models:
    """Both models on split ``train``, then the fusions; ``validation`` chooses epochs and learning rates."""
    parameters, profile, device = inputs.parameters, inputs.profile, choose_device(inputs.parameters.device)
    targets, validation, train = inputs.corpus.targets(), inputs.rows("validation"), inputs.rows("train")
    seed = parameters.seed

    def split(features: ClipArrays, rows: np.ndarray) -> Split:
        return Split((_chosen(features, rows),), targets[rows])

    def visual(rows: np.ndarray) -> Trained:
        held = split(inputs.pictures, validation)
        return train_visual(split(inputs.pictures, rows), held, profile, seed, device)

    taught, held = split(inputs.log_mel, train), split(inputs.log_mel, validation)
    hearing = train_audio(taught, held, profile, seed, device, parameters.generations, parameters.teacher_weight)
    seeing = visual(train)
    outputs = [predict(hearing[-1].network, inputs.log_mel, device), predict(seeing.network, inputs.pictures, device)]
    folds = min(profile.visual_folds, len(train))
    for fold in range(folds):  # on clips that it learnt from: what one says that did not
        unseen = train[fold::folds]
        other = visual(np.setdiff1d(train, unseen)).network
        outputs[1][unseen] = predict(other, _chosen(inputs.pictures, unseen), device)
    moments = [(said[train].mean(axis=0), said[train].std(axis=0)) for said in outputs]
    taught, held = (Split((outputs[0][part], outputs[1][part]), targets[part]) for part in (train, validation))
    chosen = parameters.system if parameters.system in FUSIONS else "attention"
    names = tuple(FUSIONS) if parameters.system == "all" else tuple(dict.fromkeys(("attention", chosen)))
    frequencies = targets[train].mean(axis=0)
    fusions = train_fusions(names, taught, held, (moments[0], moments[1]), frequencies, profile, seed, device)
    return Models(inputs.corpus.classes, hearing, seeing, fusions, inputs.features)


def _systems(models: Models, inputs: Inputs, device: torch.device, others: dict[str, Other]) -> Systems:
    generations = [predict(one.network, inputs.log_mel, device) for one in models.audio]
    h_v = predict(models.visual.network, inputs.pictures, device)
    scores = {"audio": generations[-1], "visual": h_v, **fused(models, generations[-1], h_v, device)}
    attending = [name for name in models.fusions.banks if name.startswith("attention")]
    weights = {name: models.fusions.weights(name, generations[-1], h_v, device) for name in attending}
    return Systems(models, scores | {name: one.scores for name, one in others.items()}, generations, weights, others)


def fused(models: Models, h_a: np.ndarray, h_v: np.ndarray, device: torch.device) -> dict[str, np.ndarray]:
    """What each fusion makes of the outputs of both models, all [clips, classes]; the average is of plain ones."""
    learnt = {name: models.fusions.scores(name, h_a, h_v, device) for name in models.fusions.banks}
    return {"average": (h_a + h_v) / 2, **learnt}


def train_other(inputs: Inputs, name: str) -> Other:
    """One of Table 3's other systems, on the same clips."""
    from avrepro.experiments import fayek2020_others as others

    corpus, seed, device = inputs.corpus, inputs.parameters.seed, choose_device(inputs.parameters.device)
    profile = others.PROFILES[inputs.parameters.profile]
    if name == "resnet_audio":
        return others.train_resnet_audio(corpus, inputs.log_mel, profile, seed, device)
    feature = others.video_frames_feature(profile.frames, profile.size)
    frames, seen = extract(feature, corpus)
    known = dict(zip((clip.id for clip in seen.clips), frames.paths, strict=True))
    black = np.zeros((profile.frames, *profile.size, 3), np.uint8)
    frames = ClipArrays(tuple(known.get(clip.id) or _kept(feature, black) for clip in corpus.clips))
    if name == "r2plus1d_visual":
        return others.train_r2plus1d(corpus, frames, profile, seed, device)
    return others.train_gblend(corpus, inputs.log_mel, frames, profile, seed, device)


def checkpoint(parameters: AttentionFusion) -> Path:
    """The given checkpoint, or that of the demo world's models, trained first if it is not there yet."""
    if parameters.checkpoint:
        return Path(parameters.checkpoint)
    profile: Literal["ci", "demo"] = "ci" if parameters.profile == "ci" else "demo"
    demo = parameters.model_copy(update={"corpus": "demo", "clips": "", "labels": "", "profile": profile})
    say("the checkpoint of the demo world is looked up, and made where it is missing (minutes)")
    return save_models(train_models(load_inputs(demo)))


def _chosen(arrays: ClipArrays, rows: np.ndarray) -> ClipArrays:
    return ClipArrays(tuple(arrays.paths[row] for row in rows))


def _kept(feature: Feature, array: np.ndarray) -> Path:
    """File of the feature of nothing at all, beside those of clips."""
    path = feature.folder / "00" / "nothing.npy"
    if not path.is_file():
        with atomic(path) as temporary:
            np.save(temporary, array, allow_pickle=False)
    return path


def _seconds_per_clip(features: Sequence[Feature], clips: Sequence[Clip]) -> float:
    sample = clips[:: max(1, len(clips) // 8)][:8]
    start = time.monotonic()
    for feature in features:
        for clip in sample:
            feature.compute(feature.read(clip))
    return (time.monotonic() - start) / max(1, len(sample))
