"""Features of clips, computed once: one array a clip, kept on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from avrepro.corpora.base import Clip, Corpus
from avrepro.files import atomic
from avrepro.home import home
from avrepro.media import MediaError, stream_digest
from avrepro.progress import say, track


@dataclass(frozen=True)
class Feature:
    """How one array is made of a clip.

    :param name: for people and the cache folder, for example ``"logmel-li2017"``.
    :param stream: what it depends on: the encoded sound or the encoded pictures. A clip whose sound is
        the same as another's shares its sound features.
    :param digest: SHA-256 of everything else that it depends on: code, settings, weights.
    :param read: decodes what is needed of a clip; runs in threads beside ``compute``.
    :param compute: makes the array of it, on whatever device.
    """

    name: str
    stream: Literal["audio", "video"]
    digest: str
    read: Callable[[Clip], Any]
    compute: Callable[[Any], np.ndarray]

    @property
    def folder(self) -> Path:
        return home() / "features" / f"{self.name}-{self.digest[:16]}"


@dataclass(frozen=True)
class ClipArrays:
    """The arrays of clips in order, read when they are asked for; all of one shape if rows are stacked."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """One clip's array, or those of several rows stacked: [rows, ...]."""
        if isinstance(rows, int | np.integer):
            return np.load(self.paths[rows], allow_pickle=False)
        chosen = np.arange(len(self.paths))[rows]
        return np.stack([np.load(self.paths[row], allow_pickle=False) for row in chosen])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    @property
    def digest_names(self) -> list[str]:
        """What the arrays are made of: feature folder and stream digest of each clip."""
        return [f"{path.parent.parent.name}/{path.stem}" for path in self.paths]


def extract(feature: Feature, corpus: Corpus, jobs: int | None = None) -> tuple[ClipArrays, Corpus]:
    """Compute a feature of every clip, or find it in the cache.

    :returns: the arrays, and the corpus without the clips that could not be decoded: those are listed
        in its ``missing`` with the reason. The arrays are in the order of that corpus's clips.
    """
    jobs = jobs or min(os.cpu_count() or 1, 8)
    failed: dict[str, str] = {}
    paths: dict[str, Path] = {}

    def locate(clip: Clip) -> Path | MediaError:
        try:
            digest = stream_digest(clip.path, feature.stream)
        except MediaError as error:
            return error
        return feature.folder / digest[:2] / f"{digest}.npy"

    def read(clip: Clip) -> Any:
        try:
            return feature.read(clip)
        except MediaError as error:
            return error

    with ThreadPoolExecutor(jobs) as pool:
        for clip, found in zip(corpus.clips, pool.map(locate, corpus.clips), strict=True):
            if isinstance(found, MediaError):
                failed[clip.id] = found.reason
            else:
                paths[clip.id] = found
        todo = [clip for clip in corpus.clips if clip.id in paths and not paths[clip.id].is_file()]
        if todo:
            label = f"{feature.name} of {corpus.name}"
            for clip, decoded in zip(todo, track(_ahead(pool, read, todo, 4 * jobs), label, len(todo)), strict=True):
                if isinstance(decoded, MediaError):
                    failed[clip.id] = decoded.reason
                elif not paths[clip.id].is_file():  # a clip before it may have had the same stream
                    with atomic(paths[clip.id]) as path:
                        np.save(path, feature.compute(decoded), allow_pickle=False)
    for name, reason in failed.items():
        say(f"{feature.name}: clip {name} is left out: {reason}")
    usable = corpus.without(failed)
    return ClipArrays(tuple(paths[clip.id] for clip in usable.clips)), usable


def _ahead(pool: ThreadPoolExecutor, read: Callable, clips: Sequence[Clip], ahead: int) -> Iterator[Any]:
    """Results of ``read`` in order, never more than ``ahead`` clips decoded in advance (memory stays bounded)."""
    waiting = [pool.submit(read, clip) for clip in clips[:ahead]]
    for following in range(ahead, ahead + len(clips)):
        done = waiting.pop(0).result()
        if following < len(clips):
            waiting.append(pool.submit(read, clips[following]))
        yield done
