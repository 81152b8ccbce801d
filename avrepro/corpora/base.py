"""What a corpus is: clips with weak labels, in splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

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
    digest: str  # SHA-256 over what the clips are: lists, labels, and the world or files they come from
    strong: Path | None = None  # folder with the planted truth (evaluation only); demo world, paired

    def split(self, name: str) -> Corpus:
        """The same corpus with the clips of one split alone."""
        return replace(
            self,
            clips=tuple(clip for clip in self.clips if clip.split == name),
            missing=tuple(clip for clip in self.missing if clip.split == name),
        )

    def without(self, reasons: Mapping[str, str]) -> Corpus:
        """The corpus less some clips, clip id -> reason; they are kept in ``missing``."""
        return replace(
            self,
            clips=tuple(clip for clip in self.clips if clip.id not in reasons),
            missing=self.missing
            + tuple(MissingClip(clip.id, clip.split, reasons[clip.id]) for clip in self.clips if clip.id in reasons),
        )

    def targets(self) -> np.ndarray:
        """Weak labels, bool [clips, classes]."""
        column = {name: index for index, name in enumerate(self.classes)}
        targets = np.zeros((len(self.clips), len(self.classes)), dtype=bool)
        for row, clip in enumerate(self.clips):
            targets[row, [column[label] for label in clip.labels]] = True
        return targets
