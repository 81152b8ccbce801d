"""Who the clips are and how they are labelled; what is heavy loads only when a corpus is loaded."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal

from avrepro.corpora.base import SPLITS, Clip, Corpus, CorpusError, MissingClip

__all__ = ["NAMES", "SPLITS", "Clip", "Corpus", "CorpusError", "MissingClip", "load"]

NAMES = ("demo", "demo-null", "folder", "paired", "esc10", "dcase2017", "audioset")
PAIRED_SIZES = {"ci": {"clips_per_class": 5}}  # other profiles: the loader's own


def load(
    name: str,
    *,
    profile: str = "demo",
    seed: int | None = None,
    asynchrony: float | None = None,
    gap: float | Literal["never"] | None = None,
    clips: str | Path | None = None,
    labels: str | Path | None = None,
    strict: bool = False,
    jobs: int | None = None,
) -> Corpus:
    """The corpus of a name.

    ``demo``, ``demo-null``: the demo world of ``profile``, ``seed`` and ``asynchrony`` (the description's
    where None), or instead of asynchrony of ``gap`` (s between hearing and seeing, or "never"), rendered by
    ``jobs`` processes where it is not in the cache.
    ``folder``: the clips in folder ``clips`` labelled by the CSV file ``labels``; ``seed`` (0 where None)
    splits them where the file does not.
    ``paired``: clips rendered of the real sounds and photographs in folder ``clips``, listed by the manifest
    ``labels`` (both by default what ``data_manifests/paired.csv`` lists), few of them for ``profile`` "ci";
    ``strict``: surely labelled items alone.
    ``esc10``: the recordings in folder ``clips`` (default: fetched), sound alone.
    ``dcase2017``: the official lists (of folder ``labels``; default: fetched), with those clips that
    ``avrepro data clips`` fetched, or that lie in folder ``clips``.
    ``audioset``: the same of AudioSet's lists; ``seed`` (0 where None) draws the validation clips.

    Raises CorpusError for an unknown name, a parameter that the corpus lacks or does not take, and what
    the corpus itself finds wrong.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise CorpusError(f"there is no corpus {name!r}, only {', '.join(NAMES)}{hint}")
    demo = name.startswith("demo")
    for dial, value in (("asynchrony", asynchrony), ("gap", gap)):
        if value is not None and not demo:
            raise CorpusError(f"{dial} is a dial of the demo world; corpus {name!r} has none")
    if demo and (clips is not None or labels is not None):
        raise CorpusError(f"corpus {name!r} renders its own clips and labels; give yours to corpus 'folder'")
    if strict and name != "paired":
        raise CorpusError(f"strict belongs to corpus 'paired'; corpus {name!r} has no such labels")
    drawn = 0 if seed is None else seed
    if name == "folder":
        if clips is None or labels is None:
            raise CorpusError("corpus 'folder' needs clips (a folder of videos) and labels (CSV: clip,labels)")
        from avrepro.corpora.folder import load_folder

        return load_folder(Path(clips), Path(labels), seed=drawn)
    if name == "paired":
        from avrepro.corpora.paired import load_paired

        return load_paired(clips, labels, seed=drawn, strict=strict, jobs=jobs, **PAIRED_SIZES.get(profile, {}))
    if name == "esc10":
        if labels is not None:
            raise CorpusError("corpus 'esc10' has its labels in the names of its folders; leave labels out")
        from avrepro.corpora.esc10 import load_esc10

        return load_esc10(clips)
    if name == "dcase2017":
        from avrepro.corpora.dcase2017 import load_dcase2017

        return load_dcase2017(clips, labels, seed=drawn)
    if name == "audioset":
        from avrepro.corpora.audioset import load_audioset

        return load_audioset(clips, labels, seed=drawn)
    from avrepro.corpora.demo.world import load_demo

    return load_demo(profile, seed=seed, asynchrony=asynchrony, gap=gap, null=name == "demo-null", jobs=jobs)
