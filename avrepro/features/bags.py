"""Bags: clips of different numbers of proposals (regions, segments), padded to batches with a mask beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avrepro.features.store import ClipArrays


@dataclass(frozen=True)
class Bags:
    """One modality's proposals of clips, as rows for training: padded to the longest bag among those asked for.

    :attr:`mask` is to be given beside it, and is asked for the same rows.
    """

    arrays: Any  # by row the bag of each clip, float [proposals, features]; [0, features]: none
    sizes: np.ndarray  # int [clips], proposals of each
    features: int

    @classmethod
    def of(cls, arrays: ClipArrays | Sequence[np.ndarray]) -> Bags:
        """Bags of one clip at least; of files only the headers are read."""
        items = arrays.items if isinstance(arrays, ClipArrays) else arrays
        shapes = [(np.load(item, mmap_mode="r") if isinstance(item, Path) else item).shape for item in items]
        return cls(arrays, np.array([shape[0] for shape in shapes], dtype=int), max(shape[1] for shape in shapes))

    def select(self, rows: np.ndarray) -> Bags:
        """The bags of some clips, int [clips]; still read when they are asked for."""
        return Bags(_Selected(self.arrays, rows), self.sizes[rows], self.features)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """float [rows, longest bag, features], zeros for padding; at least one proposal long."""
        wanted = np.arange(len(self))[rows]
        bags = [self.arrays[int(row)] for row in wanted]
        padded = np.zeros((len(bags), _longest(self.sizes[wanted]), self.features), bags[0].dtype)
        for target, bag in zip(padded, bags, strict=True):
            target[: len(bag)] = bag
        return padded

    @property
    def mask(self) -> BagMask:
        return BagMask(self.sizes)


@dataclass(frozen=True)
class BagMask:
    """Which of the padded rows of :class:`Bags` are proposals: bool [rows, longest bag]."""

    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, rows: Any) -> np.ndarray:
        sizes = self.sizes[rows]
        return np.arange(_longest(sizes)) < sizes[:, None]


@dataclass(frozen=True)
class _Selected:
    arrays: Any
    rows: np.ndarray

    def __getitem__(self, row: int) -> np.ndarray:
        return self.arrays[int(self.rows[row])]


def root_mean_square(bags: Bags, clips: int = 200) -> float:
    """Of all features of up to ``clips`` clips, evenly spaced; 1 where there is none."""
    rows = np.unique(np.linspace(0, len(bags) - 1, min(len(bags), clips)).astype(int))
    found = [bags.arrays[int(row)].astype(np.float64) for row in rows]
    squares, count = sum(float((bag**2).sum()) for bag in found), sum(bag.size for bag in found)
    return float(np.sqrt(squares / count)) if squares > 0 else 1.0


def _longest(sizes: np.ndarray) -> int:
    return max(1, int(sizes.max(initial=0)))  # an empty dimension would have no maximum
