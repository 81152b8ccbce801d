"""Who the clips are and how they are labelled; what is heavy loads only when a corpus is loaded."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from avrepro.corpora.base import SPLITS, Clip, Corpus, CorpusError, MissingClip
from avrepro.corpora.folds import folds_by_source, training_rows
from avrepro.recipes import Recipe

__all__ = [
    "NAMES",
    "SPLITS",
    "Clip",
    "Corpus",
    "CorpusError",
    "MissingClip",
    "folds_by_source",
    "identity",
    "load",
    "recipe",
    "training_rows",
]

# Version of those that are not rendered: raised by hand whenever the same files and lists give other clips.
VERSIONS = {"folder": 1, "esc10": 1, "dcase2017": 1, "audioset": 1}
TAKES = {  # name -> parameters besides profile, seed and jobs
    "demo": ("asynchrony", "gap"),
    "demo-null": ("asynchrony", "gap"),
    "folder": ("clips", "labels"),
    "paired": ("clips", "labels", "strict"),
    "esc10": ("clips",),
    "dcase2017": ("clips", "labels"),
    "audioset": ("clips", "labels"),
}
NAMES = tuple(TAKES)
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
    where None), or instead of asynchrony of ``gap`` (s between sounding and showing, or "never"), rendered by
    ``jobs`` processes where it is not in the cache.
    ``paired``: clips rendered of the real sounds and photographs in folder ``clips``, listed by the manifest
    ``labels`` (both by default what ``data_manifests/paired.csv`` lists), few of them for ``profile`` "ci";
    ``strict``: surely labelled items alone.
    ``folder``: the clips in folder ``clips`` labelled by the CSV file ``labels``; ``seed`` (0 where None)
    splits them where the file does not.
    ``esc10``: the recordings in folder ``clips`` (default: fetched), sound alone.
    ``dcase2017``: the official lists (of folder ``labels``; default: fetched), with those clips that
    ``avrepro data clips`` fetched, or that lie in folder ``clips``.
    ``audioset``: the same of AudioSet's lists; ``seed`` (0 where None) draws the validation clips.

    Raises CorpusError for an unknown name, a parameter that the corpus lacks or does not take, and what
    the corpus itself finds wrong.
    """
    _check(name, seed, asynchrony=asynchrony, gap=gap, clips=clips, labels=labels, strict=strict)
    drawn = 0 if seed is None else seed
    if name == "folder":
        from avrepro.corpora.folder import load_folder

        if clips is None or labels is None:
            raise CorpusError("corpus 'folder' needs clips (a folder of videos) and labels (CSV: clip,labels)")
        return load_folder(clips, labels, seed=drawn)
    if name == "paired":
        from avrepro.corpora.paired import load_paired

        return load_paired(clips, labels, seed=drawn, strict=strict, jobs=jobs, **PAIRED_SIZES.get(profile, {}))
    if name == "esc10":
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


def recipe(
    name: str,
    *,
    profile: str = "demo",
    seed: int | None = None,
    asynchrony: float | None = None,
    gap: float | Literal["never"] | None = None,
    clips: str | Path | None = None,
    labels: str | Path | None = None,
    strict: bool = False,
) -> Recipe:
    """What the corpus of a name depends on, with the parameters and errors of :func:`load`; no clip is rendered.

    The key is ``Corpus.digest`` where clips are rendered; of other corpora the recipe lacks the data.
    """
    _check(name, seed, asynchrony=asynchrony, gap=gap, clips=clips, labels=labels, strict=strict)
    drawn = 0 if seed is None else seed
    if name == "paired":
        from avrepro.corpora.paired import paired_recipe

        return paired_recipe(clips, labels, seed=drawn, strict=strict, **PAIRED_SIZES.get(profile, {}))
    if name in VERSIONS:
        return Recipe(f"corpus/{name}", VERSIONS[name], {} if name == "esc10" else {"seed": drawn})
    from avrepro.corpora.demo.world import load_world_description, world_recipe

    return world_recipe(load_world_description().chosen(profile, seed, asynchrony, gap), name == "demo-null")


def identity(name: str, modalities: Sequence[str], **choices: Any) -> str:
    """``load(name, **choices).identity(modalities)``, without rendering: what a system of some modalities depends on.

    Demo worlds that differ in their pictures alone are the same to a system that uses ("audio",).
    """
    if name in VERSIONS:
        return load(name, **choices).identity(modalities)
    if name.startswith("demo") and tuple(modalities) == ("audio",):
        return recipe("demo", **{key: value for key, value in choices.items() if key not in ("asynchrony", "gap")}).key
    return recipe(name, **choices).key


def _check(name: str, seed: int | None, **given: Any) -> None:
    """CorpusError for an unknown corpus, a seed below 0, and parameters that the corpus does not take."""
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise CorpusError(f"there is no corpus {name!r}, only {', '.join(NAMES)}{hint}")
    if seed is not None and seed < 0:
        raise CorpusError(f"a seed is 0 or more, found {seed!r}")
    for parameter, value in given.items():
        if value is not None and value is not False and parameter not in TAKES[name]:
            takers = ", ".join(corpus for corpus, takes in TAKES.items() if parameter in takes)
            raise CorpusError(f"corpus {name!r} takes no {parameter}; these do: {takers}")
