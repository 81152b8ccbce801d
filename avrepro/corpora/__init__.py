"""Who the clips are and how they are labelled; what is heavy loads only when a corpus is loaded."""

from __future__ import annotations

import difflib
from pathlib import Path

from avrepro.corpora.base import SPLITS, Clip, Corpus, CorpusError, MissingClip

__all__ = ["NAMES", "SPLITS", "Clip", "Corpus", "CorpusError", "MissingClip", "load"]

NAMES = ("demo", "demo-null", "folder")


def load(
    name: str,
    *,
    profile: str = "demo",
    seed: int | None = None,
    asynchrony: float | None = None,
    clips: str | Path | None = None,
    labels: str | Path | None = None,
    jobs: int | None = None,
) -> Corpus:
    """The corpus of a name.

    ``demo``, ``demo-null``: the demo world of ``profile``, ``seed`` and ``asynchrony`` (the description's
    where None), rendered by ``jobs`` processes where it is not in the cache.
    ``folder``: the clips in folder ``clips`` labelled by the CSV file ``labels``; ``seed`` (0 where None)
    splits them where the file does not.

    Raises CorpusError for an unknown name, a parameter that the corpus lacks or does not take, and what
    the corpus itself finds wrong.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise CorpusError(f"there is no corpus {name!r}, only {', '.join(NAMES)}{hint}")
    if name == "folder":
        if clips is None or labels is None:
            raise CorpusError("corpus 'folder' needs clips (a folder of videos) and labels (CSV: clip,labels)")
        if asynchrony is not None:
            raise CorpusError("asynchrony is a dial of the demo world; corpus 'folder' has none")
        from avrepro.corpora.folder import load_folder

        return load_folder(Path(clips), Path(labels), seed=0 if seed is None else seed)
    if clips is not None or labels is not None:
        raise CorpusError(f"clips and labels belong to corpus 'folder'; corpus {name!r} renders its own")
    from avrepro.corpora.demo.world import load_demo

    return load_demo(profile, seed=seed, asynchrony=asynchrony, null=name == "demo-null", jobs=jobs)
