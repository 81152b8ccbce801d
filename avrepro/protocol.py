"""System x condition -> scores: the one place that trains systems, scores clips, and counts what systems cost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from avrepro import corpora
from avrepro.corpora.base import Clip, Corpus
from avrepro.files import atomic
from avrepro.home import home
from avrepro.progress import say
from avrepro.recipes import Recipe, digest
from avrepro.systems import SYSTEMS, Checkpoint, CheckpointError, Condition, Data, System
from avrepro.training import choose_device

FEWEST = 30  # clips; on fewer nothing is trained
DRY_CLIPS = {"train": 4, "validation": 2, "test": 2}
LEFT_OUT = "left out"  # split of training clips that a condition does not use

Training = tuple[str, Condition]  # of a system


@dataclass(frozen=True)
class Fitted:
    """A system ready to give scores, with those that it uses."""

    system: System
    checkpoint: Checkpoint
    parts: Mapping[str, Fitted]
    path: Path

    @property
    def seconds(self) -> float:
        """Of all its trainings."""
        return self.checkpoint.seconds + sum(part.seconds for part in self.parts.values())

    @property
    def parameters(self) -> int:
        """Numbers that were trained."""
        return self.checkpoint.parameters + sum(part.parameters for part in self.parts.values())


# --- clips -----------------------------------------------------------------------------------------------------------


@cache
def load(condition: Condition) -> Data:
    """The clips of a condition; their features are extracted when they are asked for."""
    corpus = _corpus(condition)
    if condition.dry:
        few = [clip for split, count in DRY_CLIPS.items() for clip in corpus.split(split).clips[:count]]
        corpus = replace(corpus, clips=tuple(few))
    corpus = altered(corpus, condition)
    return Data(corpus, condition, choose_device(condition.device))


def _corpus(condition: Condition) -> Corpus:
    return _load_corpus(condition.corpus, tuple(_choices(condition).items()))


@cache
def _load_corpus(name: str, choices: tuple[tuple[str, Any], ...]) -> Corpus:
    return corpora.load(name, **dict(choices))


def _choices(c: Condition) -> dict[str, Any]:
    """What a condition asks of its corpus; worlds of the demo are the same for every seed of training."""
    if c.corpus.startswith("demo"):
        return {"profile": "ci" if c.profile == "ci" else "demo", "gap": c.gap}
    places = {"clips": c.clips or None, "labels": c.labels or None}
    return {"profile": c.profile, "seed": c.seed, "strict": c.strict, **places}


def trains(condition: Condition) -> bool:
    """Whether the condition has clips enough to train on."""
    corpus = load(condition).corpus
    sizes = [len(corpus.split(split).clips) for split in ("train", "validation")]
    return condition.dry or (len(corpus.clips) >= FEWEST and min(sizes) > 0)


def altered(corpus: Corpus, condition: Condition) -> Corpus:
    """The corpus with fewer training clips, with a fold of them left out, or with wrong labels among theirs.

    Clips left out keep their place and are of no split. Another class that the clip does not have stands for each label
    that is wrong. More clips of one seed hold fewer of it, more noise holds less.
    """
    if condition.plain:
        return corpus
    train = [row for row, clip in enumerate(corpus.clips) if clip.split == "train"]
    order = np.random.default_rng([condition.seed, 1]).permutation(len(train))
    used = {train[at] for at in order[: max(1, round(condition.share * len(train)))]}
    if condition.fold is not None:
        fold, folds = condition.fold
        clips_of_training = [corpus.clips[row] for row in train]
        fold_of = corpora.folds_by_source(clips_of_training, folds, condition.seed)
        used &= {train[at] for at in corpora.training_rows(clips_of_training, fold_of, fold)}
    draw = np.random.default_rng([condition.seed, 2])
    clips = []
    for row, clip in enumerate(corpus.clips):
        if clip.split == "train":
            labels = _with_errors(clip, corpus.classes, condition.noise, draw)
            clip = replace(clip, labels=labels, split="train" if row in used else LEFT_OUT)
        clips.append(clip)
    return replace(corpus, clips=tuple(clips))


def _with_errors(clip: Clip, classes: tuple[str, ...], share: float, draw: np.random.Generator) -> tuple[str, ...]:
    labels = list(clip.labels)
    chances, choices = draw.random(len(labels)), draw.random(len(labels))
    for at, (chance, choice) in enumerate(zip(chances, choices, strict=True)):
        free = [name for name in classes if name not in (*clip.labels, *labels)]
        if chance < share and free:
            labels[at] = free[int(choice * len(free))]
    return tuple(labels)


# --- training --------------------------------------------------------------------------------------------------------


def recipe_of(name: str, condition: Condition) -> Recipe:
    """What the scores of a system depend on, besides the clips."""
    system = SYSTEMS[name]
    return system.recipe(condition, tuple(recipe_of(used, condition) for used in system.uses))


def checkpoint_path(name: str, condition: Condition) -> Path:
    """Where the system, trained under a condition, is or will be; no clip is rendered for it."""
    c, used = condition, _with_parts(SYSTEMS[name])
    modalities = tuple(sorted({modality for one in used for modality in one.modalities}))
    seed = c.seed if any(one.seeded for one in used) else 0
    training = [c.share, c.noise, c.fold, c.dry, seed, choose_device(c.device).type]
    key = digest([recipe_of(name, c).key, _identity(c, modalities), training])
    return home() / "models" / f"{name.replace('/', '-')}-{key[:16]}.pt"


def _identity(condition: Condition, modalities: Sequence[str]) -> str:
    if condition.corpus == "paired":
        return _paired_identity(tuple(_choices(condition).items()))
    if condition.corpus.startswith("demo"):
        return corpora.identity(condition.corpus, modalities, **_choices(condition))
    return _corpus(condition).identity(modalities)


@cache  # of thousands of items, and asked for by every training
def _paired_identity(choices: tuple[tuple[str, Any], ...]) -> str:
    return corpora.recipe("paired", **dict(choices)).key


def _with_parts(system: System) -> list[System]:
    """A system and all that it builds on."""
    return [system, *(one for used in system.uses for one in _with_parts(SYSTEMS[used]))]


def fit(name: str, condition: Condition) -> Fitted:
    """A system, trained under a condition, or its checkpoint where the very same training was done before."""
    system, path = SYSTEMS[name], checkpoint_path(name, condition)
    if path.is_file():
        return load_fitted(path)
    parts = {used: fit(used, condition) for used in system.uses}
    data = load(condition)
    given = {used: scores(part, data) for used, part in parts.items()}
    seconds = 0.0  # of trainings out of fold, which this one needed
    if folds := min(system.folds(condition), len(data.rows("train"))):
        given = {used: out_of_fold(used, condition, folds, found) for used, found in given.items()}
        each = [fit(used, replace(condition, fold=(fold, folds))) for used in parts for fold in range(folds)]
        seconds = sum(one.seconds for one in each)
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = system.fit(data, given, condition.seed, partial)
    checkpoint.seconds += seconds
    checkpoint.system, checkpoint.key, checkpoint.profile = name, path.stem, condition.profile
    checkpoint.options, checkpoint.classes = [list(one) for one in condition.options], list(data.classes)
    checkpoint.parts = {used: part.path.name for used, part in parts.items()}
    checkpoint.save(path)
    partial.unlink(missing_ok=True)
    return Fitted(system, checkpoint, parts, path)


def load_fitted(path: Path) -> Fitted:
    """A checkpoint, with those of the systems that it uses, which lie beside it.

    :raises CheckpointError: names the file, what was expected and what was found.
    """
    checkpoint = Checkpoint.load(path)
    if checkpoint.system not in SYSTEMS:
        raise CheckpointError(f"{path}: of system {checkpoint.system!r}, which is not known")
    parts = {used: load_fitted(path.with_name(file)) for used, file in checkpoint.parts.items()}
    return Fitted(SYSTEMS[checkpoint.system], checkpoint, parts, path)


def out_of_fold(name: str, condition: Condition, folds: int, whole: np.ndarray) -> np.ndarray:
    """Scores in which each training clip's are of a system that was not trained on it, nor on clips of its sources.

    :param whole: scores of the system that was trained on all of them, [clips, classes]; other clips keep these.
    """
    data, found = load(condition), whole.copy()
    train = data.rows("train")
    fold_of = corpora.folds_by_source([data.corpus.clips[row] for row in train], folds, condition.seed)
    for fold in range(folds):
        part = replace(condition, fold=(fold, folds))
        rows = train[fold_of == fold]
        found[rows] = scores(fit(name, part), data)[rows]
    return found


# --- scores ----------------------------------------------------------------------------------------------------------


def scores(fitted: Fitted, data: Data) -> np.ndarray:
    """Scores of all clips, float32 [clips, classes], classes in the order of the checkpoint's; cached.

    NaN for training clips whose scores nobody reads (:attr:`System.held_out_only`).
    """
    data = as_trained(fitted, data)
    recipe = recipe_of(fitted.system.name, data.condition).key
    key = digest([recipe, data.corpus.digest, data.impaired, [clip.id for clip in data.corpus.clips]])
    path = home() / "scores" / f"{fitted.checkpoint.key}-{key[:16]}.npy"
    if path.is_file() and not data.fresh:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    rows = _scored_rows(fitted.system, data)
    given = _Given(fitted.parts, data, rows)
    part = data if len(rows) == len(data.corpus.clips) else data.select(rows)
    found = np.full((len(data.corpus.clips), len(fitted.checkpoint.classes)), np.nan, np.float32)
    found[rows] = fitted.system.scores(fitted.checkpoint, part, given)
    if not np.isfinite(found[rows]).all():
        row = rows[np.argwhere(~np.isfinite(found[rows]))[0, 0]]
        raise ValueError(f"{fitted.system.name}: the scores of clip {data.corpus.clips[row].id} are not finite")
    if data.fresh:
        return found
    with atomic(path) as temporary:
        np.save(temporary, found, allow_pickle=False)
    return np.load(path, mmap_mode="r", allow_pickle=False)  # of millions of clips, several systems' do not fit


class _Given(Mapping[str, np.ndarray]):
    """Scores of the systems that one uses, when it asks for them: a student does not ask its teacher."""

    def __init__(self, parts: Mapping[str, Fitted], data: Data, rows: np.ndarray) -> None:
        self.parts, self.data, self.rows = parts, data, rows

    def __getitem__(self, used: str) -> np.ndarray:
        found = scores(self.parts[used], self.data)
        return found if len(self.rows) == len(found) else found[self.rows]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def _scored_rows(system: System, data: Data) -> np.ndarray:
    """Rows of the clips whose scores are read; those of training clips where something is learnt from them."""
    every = np.arange(len(data.corpus.clips))
    own = data.condition.corpus == "folder"  # a person is told every score
    if own or not any(one.held_out_only for one in _with_parts(system)) or not trains(data.condition):
        return every
    held_out = [clip.split not in ("train", LEFT_OUT) for clip in data.corpus.clips]
    return every[held_out] if any(held_out) else every


def as_trained(fitted: Fitted, data: Data) -> Data:
    """The same clips, described by the profile and options with which the system was trained."""
    checkpoint = fitted.checkpoint
    options = tuple((name, value) for name, value in checkpoint.options)
    return data.under(replace(data.condition, profile=checkpoint.profile, options=options))


def localisation(fitted: Fitted, data: Data) -> dict[str, list[np.ndarray]]:
    """Where and when a system finds each class: by modality, float32 [proposals, classes] of each clip."""
    return fitted.system.localisation(fitted.checkpoint, as_trained(fitted, data))  # type: ignore[attr-defined]


def modality_weights(fitted: Fitted, data: Data) -> np.ndarray:
    """alpha_a, how far a fusion weighs sound, 0..1, float32 [clips, classes]."""
    data = as_trained(fitted, data)
    given = {used: scores(part, data) for used, part in fitted.parts.items()}
    return fitted.system.modality_weights(fitted.checkpoint, data, given)  # type: ignore[attr-defined]


# --- before a run ----------------------------------------------------------------------------------------------------


def parts_of(name: str, condition: Condition) -> list[Training]:
    """Trainings that one builds on: of the systems that it uses, under the same condition and out of fold."""
    folds = SYSTEMS[name].folds(condition)
    conditions = [condition, *(replace(condition, fold=(fold, folds)) for fold in range(folds))]
    return [(used, one) for used in SYSTEMS[name].uses for one in conditions]


def untrained(names: Iterable[str], conditions: Iterable[Condition]) -> list[Training]:
    """Trainings that a run would do, in the order in which they are done; those out of fold among them."""
    found: dict[Path, Training] = {}

    def visit(name: str, condition: Condition) -> None:
        path = checkpoint_path(name, condition)
        if path not in found and not path.is_file():
            for part in parts_of(name, condition):
                visit(*part)
            found[path] = (name, condition)

    for condition in conditions:
        for name in names:
            visit(name, condition)
    return list(found.values())


def announce(names: Sequence[str], conditions: Sequence[Condition]) -> None:
    """Say what a run will train and about how long that takes."""
    if todo := untrained(names, conditions):
        say(f"{work(todo)} to do")


def work(todo: Sequence[Training]) -> str:
    """How many trainings these are, and about how long they take."""
    minutes = sum(SYSTEMS[name].minutes * one.share for name, one in todo if one.profile == "demo")
    return f"{len(todo)} trainings, about {math.ceil(minutes)} min on one core"


def describe(condition: Condition) -> str:
    """A condition as JSON: what differs from the defaults, and corpus, profile and seed."""
    plain = asdict(Condition())
    shown = {name: value for name, value in asdict(condition).items() if value != plain[name]}
    return json.dumps(shown | {"corpus": condition.corpus, "profile": condition.profile, "seed": condition.seed})
