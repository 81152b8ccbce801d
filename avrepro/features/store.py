"""Features of clips, computed once: one array a clip, kept on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from avrepro.corpora.base import Clip, Corpus
from avrepro.files import atomic
from avrepro.home import home
from avrepro.media import MediaError, stream_digest
from avrepro.progress import say, track
from avrepro.recipes import Recipe

Stream = Literal["audio", "video"]
SECONDS = 10.0  # of a clip that are used


@dataclass(frozen=True)
class Feature:
    """How one array is made of a clip.

    :param recipe: what the array depends on besides the clip; its name and key name the cache folder.
    :param stream: the part of the clip that it depends on. Clips with the same encoded sound share sound features.
    :param read: decodes what is needed of a clip, and is given the arrays of ``uses``; runs in threads.
    :param compute: makes the array of what was read, on whatever device.
    :param nothing: the array of a clip without this stream: silence, a black picture, an empty bag.
    :param uses: features that this one builds on, such as the boxes whose contents it describes.
    """

    recipe: Recipe
    stream: Stream
    read: Callable[..., Any]
    compute: Callable[[Any], np.ndarray]
    nothing: Callable[[], np.ndarray]
    uses: tuple[Feature, ...] = ()

    @property
    def folder(self) -> Path:
        return home() / "features" / f"{self.recipe.name.replace('/', '-')}-{self.recipe.key[:16]}"

    def of(self, clip: Clip) -> np.ndarray:
        """The array of one clip, computed here and now without the cache."""
        return self.compute(self.read(clip, *(used.of(clip) for used in self.uses)))


@dataclass(frozen=True)
class ClipArrays:
    """The arrays of clips in order, read when they are asked for; all of one shape if rows are stacked."""

    items: tuple[Path | np.ndarray, ...]
    present: np.ndarray  # bool [clips]; False where the clip lacks the stream and has the array of nothing

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """One clip's array, or those of several rows stacked: [rows, ...]."""
        if isinstance(rows, int | np.integer):
            item = self.items[rows]
            return np.load(item, allow_pickle=False) if isinstance(item, Path) else item
        return np.stack([self[int(row)] for row in np.arange(len(self.items))[rows]])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    def select(self, rows: np.ndarray) -> ClipArrays:
        """Those of some clips, int [clips]; still read when they are asked for."""
        return ClipArrays(tuple(self.items[row] for row in rows), self.present[rows])


def extract(feature: Feature, corpus: Corpus, jobs: int | None = None) -> ClipArrays:
    """Compute a feature of every clip, or find it in the cache; a clip that cannot be decoded is reported."""
    jobs = jobs or min(os.cpu_count() or 1, 8)
    used = [extract(one, corpus, jobs) for one in feature.uses]

    def locate(row: int) -> Path:
        path = corpus.clips[row].path
        try:
            digest = _digest_of(str(path), path.stat().st_mtime_ns, feature.stream)
        except OSError as error:
            raise MediaError(path, str(error.strerror)) from error
        return feature.folder / digest[:2] / f"{digest}.npy"

    def read(row: int) -> Any:
        return feature.read(corpus.clips[row], *(arrays[row] for arrays in used))

    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(partial(_attempt, locate), range(len(corpus.clips))))  # paths, or why there is none
        todo = [row for row, path in enumerate(found) if isinstance(path, Path) and not path.is_file()]
        if todo:
            label = f"{feature.recipe.name} of {corpus.name}"
            ahead = _ahead(pool, partial(_attempt, read), todo, 4 * jobs)
            for row, decoded in zip(todo, track(ahead, label, len(todo)), strict=True):
                if isinstance(decoded, MediaError):
                    found[row] = decoded
                elif not found[row].is_file():  # a clip before it may have had the same stream
                    with atomic(found[row]) as path:
                        np.save(path, feature.compute(decoded), allow_pickle=False)
    present = np.array([isinstance(path, Path) for path in found], dtype=bool)
    nothing = None if present.all() else feature.nothing()
    for row, path in enumerate(found):
        if isinstance(path, MediaError):
            say(f"{feature.recipe.name}: clip {corpus.clips[row].id} has no usable {feature.stream}: {path.reason}")
            found[row] = nothing
    return ClipArrays(tuple(found), present)


def _attempt(call: Callable[[int], Any], row: int) -> Any:
    """What ``call`` gives of a clip, or why the clip cannot be read."""
    try:
        return call(row)
    except MediaError as error:
        return error


@cache
def _digest_of(path: str, changed: int, stream: Stream) -> str:
    """Digest of one stream of a file; ``changed`` is when the file was written, so that it is read again then."""
    return stream_digest(path, stream)


def _ahead(pool: ThreadPoolExecutor, read: Callable, rows: Sequence[int], ahead: int) -> Iterator[Any]:
    """Results of ``read`` in order, never more than ``ahead`` clips decoded in advance (memory stays bounded)."""
    waiting = [pool.submit(read, row) for row in rows[:ahead]]
    for following in range(ahead, ahead + len(rows)):
        done = waiting.pop(0).result()
        if following < len(rows):
            waiting.append(pool.submit(read, rows[following]))
        yield done
