"""What every system of the three papers says of the same clips, trained on the same clips: one protocol.

A family is the systems of one paper, which share features and trainings. Each is trained by its chapter's own code;
this file only asks, and keeps what was said of validation and test clips.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avrepro.corpora.base import Clip, Corpus
from avrepro.experiments import fayek2020, gated_crnn, li2017, parekh2018
from avrepro.experiments.key_frame_baselines import Choice, other_key_frame_times
from avrepro.features.objects import drawn_recogniser, imagenet_recogniser, key_frame_objects
from avrepro.features.store import ClipArrays, extract
from avrepro.features.words import clip_objects, map_objects_to_events, packaged_glove, similarities
from avrepro.files import atomic
from avrepro.models.li2017 import fuse, train_audio
from avrepro.models.parekh2018 import Bags, MILConfig, MILNetwork
from avrepro.parameters import AttentionFusion, LightweightFusion, UnsynchronizedMIL
from avrepro.sampling import BalancedBatches, Drawn
from avrepro.training import Optimisation, Verdict, choose_device, fit, predict

DELAYS = (1, 3, 5)  # s


@dataclass(frozen=True)
class Condition:
    """On what systems are trained and tested."""

    corpus: str = "demo"  # demo, demo-null or paired
    seed: int = 0
    share: float = 1.0  # of the training clips that are kept
    noise: float = 0.0  # share of the training clips' labels that are replaced by wrong ones
    profile: str = "demo"

    @property
    def plain(self) -> bool:
        """Whether training clips are as they are."""
        return self.share == 1 and self.noise == 0


@dataclass
class Said:
    """Scores of systems, higher meaning likelier, float32 [clips, classes] each, and what they cost."""

    corpus: Corpus  # as it was trained on
    validation: dict[str, np.ndarray] = field(default_factory=dict)
    test: dict[str, np.ndarray] = field(default_factory=dict)  # impaired clips too: "system@silent"
    costs: dict[str, dict[str, float]] = field(default_factory=dict)

    def rows(self, split: str) -> np.ndarray:
        """Rows of the clips of a split."""
        return np.array([row for row, clip in enumerate(self.corpus.clips) if clip.split == split], dtype=int)

    def add(self, system: str, scores: np.ndarray, **costs: float) -> None:
        """Keep what a system says of all clips, [clips, classes]."""
        self.validation[system] = scores[self.rows("validation")].astype(np.float32)
        self.test[system] = scores[self.rows("test")].astype(np.float32)
        self.costs[system] = costs

    def impaired(self, system: str, how: str, scores: np.ndarray) -> None:
        """Keep what a system says where all test clips lack something, [clips, classes] of all clips."""
        self.test[f"{system}@{how}"] = scores[self.rows("test")].astype(np.float32)

    def write(self, path: Path) -> None:
        """Write scores, targets and test clips' names; all at once."""
        targets = self.corpus.targets()
        arrays = {f"{split}/targets": targets[self.rows(split)] for split in ("validation", "test")}
        for split, said in (("validation", self.validation), ("test", self.test)):
            arrays |= {f"{split}/{system}": scores for system, scores in said.items()}
        sizes = {
            split: [len(self.corpus.split(split).clips), len(self.corpus.split(split).missing)]
            for split in ("train", "validation", "test")
        }
        told = {
            "costs": self.costs,
            "classes": self.corpus.classes,
            "digest": self.corpus.digest,
            "sizes": sizes,
            "clips": [self.corpus.clips[row].id for row in self.rows("test")],
        }
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, told=json.dumps(told), **arrays)


def altered(corpus: Corpus, condition: Condition) -> Corpus:
    """The corpus with fewer training clips, and with wrong labels among those of the training clips.

    Clips left out keep their place and are of no split. Of each label that is wrong, the right one is missing: another
    class that the clip does not have stands for it. More clips of one seed hold fewer of it, more noise holds less.
    """
    if condition.plain:
        return corpus
    train = [row for row, clip in enumerate(corpus.clips) if clip.split == "train"]
    order = np.random.default_rng([condition.seed, 1]).permutation(len(train))
    kept = {train[at] for at in order[: max(1, round(condition.share * len(train)))]}
    draw = np.random.default_rng([condition.seed, 2])
    clips = []
    for row, clip in enumerate(corpus.clips):
        if clip.split == "train":
            labels = _with_errors(clip, corpus.classes, condition.noise, draw)
            clip = replace(clip, labels=labels, split="train" if row in kept else "left out")
        clips.append(clip)
    digest = json.dumps([corpus.digest, asdict(condition)])
    return replace(corpus, clips=tuple(clips), digest=digest)


def _with_errors(clip: Clip, classes: tuple[str, ...], share: float, draw: np.random.Generator) -> tuple[str, ...]:
    labels = list(clip.labels)
    chances, choices = draw.random(len(labels)), draw.random(len(labels))
    for at, (chance, choice) in enumerate(zip(chances, choices, strict=True)):
        free = [name for name in classes if name not in (*clip.labels, *labels)]
        if chance < share and free:
            labels[at] = free[int(choice * len(free))]
    return tuple(labels)


def of_li2017(condition: Condition) -> Said:
    """Both branches, the fusions, and the picture branch with other key frames."""
    inputs = li2017.load_inputs(parameters_of(LightweightFusion, condition))
    inputs = replace(inputs, corpus=altered(inputs.corpus, condition))
    corpus, profile, seed = inputs.corpus, inputs.profile, condition.seed
    said, device, targets = Said(corpus), choose_device("auto"), corpus.targets()
    train, validation = said.rows("train"), said.rows("validation")

    def of(rows: np.ndarray) -> tuple[ClipArrays, np.ndarray]:
        return ClipArrays(tuple(inputs.log_mel.paths[row] for row in rows)), targets[rows]

    settings = (corpus.classes, profile.crnn, profile.optimisation, seed, device, profile.mixing)
    branch = train_audio(of(train), of(validation), *settings)
    heard = branch.scores(inputs.log_mel, device)
    said.add("li2017/audio", heard, training_seconds=branch.seconds)

    sees = picture_scores(inputs)
    seen = sees(inputs.pooled[:])
    said.add("li2017/video", seen, training_seconds=0)
    fusion = li2017.fit_fusion(targets[validation], heard[validation], seen[validation], branch.thresholds, seed)
    weights = {"li2017/fused": fusion.papers_weights, "li2017/fused_tuned": fusion.tuned_weights}
    for name, weight in weights.items():
        said.add(name, fuse(heard, seen, weight), training_seconds=branch.seconds)
    if condition.plain:
        for choice in ("even", "kmeans"):
            said.add(f"li2017/video_{choice}", sees(_with_key_frames(inputs, choice)), training_seconds=0)
        with torch.inference_mode():
            silence = li2017.log_mel_feature().compute(np.zeros(round(li2017.DURATION * 20_000), np.float32))
            silent = torch.sigmoid(branch.model.clip(torch.from_numpy(silence)[None].float().to(device))).cpu().numpy()
        black = sees(black_key_frame(inputs))
        silent, black = (np.repeat(one, len(heard), axis=0) for one in (silent, black))
        for name, weight in weights.items():
            said.impaired(name, "silent", fuse(silent, seen, weight))
            said.impaired(name, "black", fuse(heard, black, weight))
    return said


def picture_scores(inputs: li2017.Inputs) -> Callable[[np.ndarray], np.ndarray]:
    """The picture branch: pooled features of key frames [clips, k, d] -> scores [clips, classes] (section 2.2.2)."""
    if inputs.corpus.name.startswith("demo"):  # ImageNet networks name what photographs show; drawings need the probe
        recogniser = drawn_recogniser(inputs.network, inputs.profile.drawn_pictures, inputs.profile.frame_size)
    else:
        recogniser = imagenet_recogniser(inputs.network)
    similarity = similarities(recogniser.objects, inputs.corpus.classes, packaged_glove())
    return lambda pooled: map_objects_to_events(clip_objects(recogniser.probabilities(pooled)), similarity)


def black_key_frame(inputs: li2017.Inputs) -> np.ndarray:
    """Pooled features of a black picture, as if it were the only key frame of a clip, [1, 1, d]."""
    return inputs.network.pooled(np.zeros((1, *inputs.profile.frame_size, 3), np.uint8))[None]


def _with_key_frames(inputs: li2017.Inputs, choice: Choice) -> np.ndarray:
    """Pooled features of key frames that another method chose, [clips, k, d]."""
    profile, k = inputs.profile, inputs.parameters.key_frames
    settings = (inputs.network, profile.frames_per_second, profile.dissimilarity_size, k)
    choosing = other_key_frame_times(*settings, choice)
    found, _ = extract(choosing, inputs.corpus)
    times = dict(zip((clip.id for clip in inputs.corpus.clips), found, strict=True))
    return extract(key_frame_objects(inputs.network, times, choosing, profile.frame_size), inputs.corpus)[0][:]


def of_parekh2018(condition: Condition) -> Said:
    """Systems (a) to (e), the synchronous one, and two streams without l2 normalisation."""
    inputs = parekh_inputs(condition)
    said, device = Said(inputs.corpus), choose_device("auto")
    for name in parekh2018.SYSTEMS:
        trained = parekh2018.train_system(inputs, name)
        bags = parekh2018.proposals_of(inputs, name)
        said.add(f"parekh2018/{name}", trained.scores(*bags, device), training_seconds=trained.seconds)
        if condition.plain and name in ("two_stream", "one_stream", "synchronous"):
            for how, worse in impairments(inputs, delays=DELAYS if name == "synchronous" else ()).items():
                impaired = trained.scores(*parekh2018.proposals_of(worse, name), device)
                said.impaired(f"parekh2018/{name}", how, impaired)
    if condition.plain:
        scores, seconds = _without_l2(inputs)
        said.add("parekh2018/two_stream_without_l2", scores, training_seconds=seconds)
    return said


def impairments(inputs: parekh2018.Inputs, delays: tuple[int, ...] = DELAYS) -> dict[str, parekh2018.Inputs]:
    """The same clips without sound, without pictures, and with pictures that come some seconds later.

    A delayed video begins with what it would have ended with: a clip has the same pictures, at other times.
    """
    nothing = np.zeros(len(inputs.corpus.clips), dtype=int)
    boxes = tuple(None for _ in inputs.boxes)
    worse = {
        "silent": replace(inputs, segments=Bags(_Nothing(inputs.segments), nothing, inputs.segments.features)),
        "black": replace(inputs, boxes=boxes, regions=Bags(_Nothing(inputs.regions), nothing, inputs.regions.features)),
    }
    for delay in delays:
        rolled = tuple(None if rows is None else np.roll(rows, delay, axis=0) for rows in inputs.boxes)
        later = _Later(inputs.regions, inputs.boxes, delay)
        regions = Bags(later, inputs.regions.sizes, inputs.regions.features)
        worse[f"delay {delay} s"] = replace(inputs, boxes=rolled, regions=regions)
    return worse


@dataclass(frozen=True)
class _Nothing:
    """Empty bags."""

    bags: Bags

    def __len__(self) -> int:
        return len(self.bags)

    def __getitem__(self, row: int) -> np.ndarray:
        return np.zeros((0, self.bags.features), np.float16)


@dataclass(frozen=True)
class _Later:
    """Regions in the order of frames that come some seconds later; there is a frame a second."""

    bags: Bags
    boxes: tuple[np.ndarray | None, ...]
    delay: int  # s

    def __len__(self) -> int:
        return len(self.bags)

    def __getitem__(self, row: int) -> np.ndarray:
        regions, rows = self.bags.arrays[row], self.boxes[row]
        if rows is None:
            return regions
        frame = np.nonzero(~np.isnan(rows[..., 4]))[0]  # of each region
        return regions[np.argsort((frame + self.delay) % len(rows), kind="stable")]


class _WithoutL2(MILNetwork):
    """Two streams whose scores are added as they are: what section 3.2 normalises them for."""

    def forward(self, *bags: Tensor | None) -> Tensor:
        return torch.stack([submodule(features, mask)[1] for _, submodule, features, mask in self._parts(*bags)]).sum(0)


def _without_l2(inputs: parekh2018.Inputs) -> tuple[np.ndarray, float]:
    """Scores of two streams that are trained and tested without normalisation, [clips, classes], and seconds."""
    from avrepro.models.parekh2018 import score

    profile, seed, device = inputs.profile, inputs.parameters.seed, choose_device("auto")
    units = {"region_units": profile.region_units, "segment_units": profile.segment_units}
    features = {"region_features": inputs.regions.features, "segment_features": inputs.segments.features}
    torch.manual_seed(seed)
    network = _WithoutL2(MILConfig("two_stream", len(inputs.corpus.classes), **units, **features))
    rows = inputs.rows("train")
    labels, bags = inputs.corpus.targets()[rows], [one.select(rows) for one in (inputs.regions, inputs.segments)]
    if profile.scaled:
        network.prepare(*bags)
    batches = BalancedBatches(labels, profile.batch, seed)
    drawn = [Drawn(one, batches, profile.steps) for used in bags for one in (used, used.mask)]
    once = Optimisation("adam", profile.learning_rate, batch=1, epochs=1)
    data = (Drawn(labels, batches, profile.steps, f"two streams without l2, seed {seed}"), *drawn)

    def loss(model: MILNetwork, labels: Tensor, *given: Tensor) -> Tensor:
        return model.loss(model(*given), labels)

    nothing = Verdict(float("nan"), 0.0, {})
    fitted = fit(network, loss, data, lambda _: nothing, once, seed, device, "two streams without l2")
    return score(network, inputs.regions, inputs.segments, device), fitted.seconds


def of_cvssp(condition: Condition) -> Said:
    """Systems (f) and (g) of Parekh et al.: gated CRNNs, which only listen."""
    inputs = parekh_inputs(condition)
    profile, device = gated_crnn.PROFILES[condition.profile], choose_device("auto")
    log_mel, heard = extract(gated_crnn.log_mel_feature(), inputs.corpus)
    if len(heard.clips) < len(inputs.corpus.clips):
        raise ValueError(f"{inputs.corpus.name}: the gated CRNN needs sound; {len(heard.missing)} clips have none")
    said = Said(inputs.corpus)
    training = {"cvssp_gated_crnn": gated_crnn.train_gated_crnn, "cvssp_fusion": gated_crnn.train_fusion}
    for name, train in training.items():
        trained = train(inputs.corpus, log_mel, profile, condition.seed, device)
        said.add(f"parekh2018/{name}", trained.scores, training_seconds=trained.seconds)
    return said


def of_fayek2020(condition: Condition) -> Said:
    """Tables 2 and 4, the audio model's first generation, and attention whose weights are the same for all clips."""
    inputs = fayek_inputs(condition)
    models = fayek2020.train_models(inputs)
    said, device = Said(inputs.corpus), choose_device("auto")
    clips, audio, visual = len(inputs.corpus.clips), models.audio[-1], models.visual
    h_a, h_v = predict(audio.network, inputs.log_mel, device), predict(visual.network, inputs.pictures, device)
    first = predict(models.audio[0].network, inputs.log_mel, device)
    hearing = sum(one.seconds for one in models.audio)
    said.add("fayek2020/audio_first_generation", first, training_seconds=models.audio[0].seconds)
    said.add("fayek2020/audio", h_a, training_seconds=hearing)
    said.add("fayek2020/visual", h_v, training_seconds=visual.seconds)
    both = fayek2020.fused(models, h_a, h_v, device)
    both["attention_class_weights"] = _with_class_weights(models, h_a, h_v, said.rows("train"))
    for name, scores in both.items():
        said.add(f"fayek2020/{name}", scores, training_seconds=hearing + visual.seconds)
    if condition.plain:
        silent, black = (
            np.repeat(predict(model, nothing[None], device), clips, axis=0)
            for model, nothing in ((audio.network, inputs.silence), (visual.network, inputs.black))
        )
        for how, outputs in {"silent": (silent, h_v), "black": (h_a, black)}.items():
            for name, scores in fayek2020.fused(models, *outputs, device).items():
                said.impaired(f"fayek2020/{name}", how, scores)
    return said


def _with_class_weights(models: fayek2020.Models, h_a: np.ndarray, h_v: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Attention fusion in which each class's weights are their means over the training clips, [clips, classes]."""
    bank = models.fusions.banks["attention"].cpu()
    attention = bank.best["attention"]
    with torch.inference_mode():
        outputs = bank.normalised(torch.from_numpy(h_a), torch.from_numpy(h_v))
        alpha = attention.weights(*outputs)[train].mean(dim=0)  # type: ignore[operator]
        fused = alpha * attention.n_a(outputs[0]) + (1 - alpha) * attention.n_v(outputs[1])  # type: ignore[operator]
        return torch.sigmoid(attention.n_av(fused)).numpy()  # type: ignore[operator]


def of_others(condition: Condition) -> Said:
    """Table 3's systems of others."""
    inputs = fayek_inputs(condition)
    said = Said(inputs.corpus)
    for name in fayek2020.OTHERS:
        other = fayek2020.train_other(inputs, name)
        said.add(f"fayek2020/{name}", other.scores, training_seconds=other.seconds)
    return said


def parekh_inputs(condition: Condition) -> parekh2018.Inputs:
    """Features of the chapter on Parekh et al., of the altered corpus."""
    inputs = parekh2018.load_inputs(parameters_of(UnsynchronizedMIL, condition))
    return replace(inputs, corpus=altered(inputs.corpus, condition))


def fayek_inputs(condition: Condition) -> fayek2020.Inputs:
    """Features of the chapter on Fayek and Kumar, of the altered corpus."""
    inputs = fayek2020.load_inputs(parameters_of(AttentionFusion, condition))
    return replace(inputs, corpus=altered(inputs.corpus, condition))


def parameters_of(kind: Callable, condition: Condition) -> Any:
    """A chapter's parameters for a condition."""
    return kind(corpus=condition.corpus, seed=condition.seed, profile=condition.profile)
