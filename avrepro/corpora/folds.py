"""Folds of clips that share recordings or photographs: what is fitted without a fold has seen nothing of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from avrepro.corpora.base import Clip


def folds_by_source(corpus_clips: Sequence[Clip], folds: int, seed: int) -> np.ndarray:
    """Deal clips to folds so that those that share a source (``Clip.sources``) share a fold, as far as possible.

    Clips that are joined by shared sources, directly or by way of others, form a group. A group of at most 1/``folds``
    of the clips stays whole; a larger one is cut: the clips of its most used source stay together, then what is left
    of the second, and so on. Each such part goes to the fold where it has most neighbours and its labels are rarest,
    among the folds that have room for it.

    Returns the fold of each clip, int64 [clips].
    """
    rng = np.random.default_rng(seed)
    room = -(-len(corpus_clips) // folds)
    fold_of = np.full(len(corpus_clips), -1, dtype=np.int64)
    sizes = np.zeros(folds, dtype=np.int64)
    labelled = Counter(label for clip in corpus_clips for label in clip.labels)
    share_of = {label: np.zeros(folds) for label in labelled}  # of a label's clips, in each fold
    rows_of: dict[str, list[int]] = defaultdict(list)  # of a source
    for row, clip in enumerate(corpus_clips):
        for source in clip.sources:
            rows_of[source].append(row)
    neighbours = [{row for source in clip.sources for row in rows_of[source]} for clip in corpus_clips]

    def deal(rows: Sequence[int]) -> None:
        around = [fold_of[other] for row in rows for other in neighbours[row] if fold_of[other] >= 0]
        near = np.bincount(np.array(around, dtype=np.int64), minlength=folds)
        alike = sum((share_of[label] for row in rows for label in corpus_clips[row].labels), np.zeros(folds))
        full = np.where(sizes + len(rows) > room, sizes, 0)
        fold = np.lexsort((sizes, alike * len(rows) - near, full))[0]
        fold_of[rows] = fold
        sizes[fold] += len(rows)
        for row in rows:
            for label in corpus_clips[row].labels:
                share_of[label][fold] += 1 / labelled[label]

    groups = sorted(_groups(neighbours, rng), key=len, reverse=True)
    for group in groups:
        if len(group) <= len(corpus_clips) // folds:
            deal(group)
            continue
        sources = dict.fromkeys(source for row in group for source in corpus_clips[row].sources)
        for source in sorted(sources, key=lambda source: len(rows_of[source]), reverse=True):
            rows = [row for row in rows_of[source] if fold_of[row] < 0]
            for part in [rows] if 0 < len(rows) <= room else [[row] for row in rows]:
                deal(part)
    return fold_of


def training_rows(clips: Sequence[Clip], fold_of: np.ndarray, fold: int) -> np.ndarray:
    """Rows of the clips outside a fold that share no source with a clip inside it, int64 [rows], ascending."""
    inside = {source for clip, of in zip(clips, fold_of, strict=True) if of == fold for source in clip.sources}
    outside = np.flatnonzero(np.asarray(fold_of) != fold).tolist()
    return np.array([row for row in outside if inside.isdisjoint(clips[row].sources)], dtype=np.int64)


def _groups(neighbours: Sequence[set[int]], rng: np.random.Generator) -> list[list[int]]:
    """Rows that are joined by neighbours, in random order."""
    groups: list[list[int]] = []
    left = dict.fromkeys(rng.permutation(len(neighbours)).tolist())
    while left:
        group = [left.popitem()[0]]
        for row in group:  # grows while it is read
            joined = [other for other in sorted(neighbours[row]) if other in left]
            group += joined
            for other in joined:
                del left[other]
        groups.append(group)
    return groups
