"""What a corpus is: clips with weak labels, in splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from avrepro.recipes import digest

SPLITS = ("train", "validation", "test", "evaluation")


class CorpusError(ValueError):
    """A corpus that cannot be used as it is; the message lists the rows and what to do."""


@dataclass(frozen=True)
class Clip:
    """One video with its weak labels: which events occur, not when."""

    id: str
    path: Path
    split: str  # one of SPLITS
    labels: tuple[str, ...]  # names out of Corpus.classes
    sources: tuple[str, ...] = ()  # what it is made of and may share with other clips; (): nothing but itself


@dataclass(frozen=True)
class ListedClip:
    """A part of a public video with its weak labels, as an official list names it; its file may not be here."""

    id: str  # video, start and end, for example "-5QrBL6MzLg_60.000_70.000"
    video: str  # YouTube's id of 11 characters; may begin with "-"
    start: float  # s in the video
    end: float  # s
    split: str  # one of SPLITS
    labels: tuple[str, ...]


@dataclass(frozen=True)
class MissingClip:
    """A clip that a corpus names and that cannot be used, with the reason a person can act on."""

    id: str
    split: str
    reason: str


@dataclass(frozen=True)
class Corpus:
    """Clips in a fixed order, the classes their labels come from, and what is missing."""

    name: str
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    missing: tuple[MissingClip, ...]
    digest: str  # SHA-256 over names of classes and over ids, splits, labels and content of clips, or a recipe's key
    strong: Path | None = None  # folder with the planted truth (evaluation only); demo world, paired
    sound_digest: str = ""  # the same for all demo worlds whose clips differ in their pictures alone

    def identity(self, modalities: Sequence[str]) -> str:
        """Digest of what a system that uses some modalities ("audio", "video") gets of the clips."""
        return self.sound_digest if self.sound_digest and tuple(modalities) == ("audio",) else self.digest

    def split(self, name: str) -> Corpus:
        """The same corpus with the clips of one split alone."""
        return replace(
            self,
            clips=tuple(clip for clip in self.clips if clip.split == name),
            missing=tuple(clip for clip in self.missing if clip.split == name),
        )

    def without(self, reasons: Mapping[str, str]) -> Corpus:
        """The corpus without some clips, clip id -> reason; those are listed in ``missing``."""
        missing = [MissingClip(clip.id, clip.split, reasons[clip.id]) for clip in self.clips if clip.id in reasons]
        clips = tuple(clip for clip in self.clips if clip.id not in reasons)
        return replace(self, clips=clips, missing=(*self.missing, *missing))

    def targets(self) -> np.ndarray:
        """Weak labels, bool [clips, classes]."""
        column = {name: index for index, name in enumerate(self.classes)}
        targets = np.zeros((len(self.clips), len(self.classes)), dtype=bool)
        for row, clip in enumerate(self.clips):
            targets[row, [column[label] for label in clip.labels]] = True
        return targets


def clips_digest(classes: Sequence[str], clips: Iterable[tuple[str, str, Sequence[str], str]]) -> str:
    """SHA-256 (hex) over class names in order and, in any order, clips: id, split, labels, digest of the content."""
    rows = sorted([name, split, sorted(labels), content] for name, split, labels, content in clips)
    return digest([list(classes), rows])
