"""Real sounds and real photographs by class, rendered to clips: what a table of them (a manifest) becomes.

A manifest is a CSV file with a row an item: ``path`` (or ``name``; within its folder), ``label``, ``modality`` (audio
or image) and, where wanted, ``group`` (what comes from the same source shares one; by default each item is its own),
``strict`` (1, the default, or 0 for a label that is no person's or is a stand-in) and ``sha256``.

Sound events, the corpus's classes, are the labels with at least three groups of recordings, so that each split has
some. Photographs of any label are shown, of others than the events as distraction alone. No group is in two splits.
Recordings and photographs are used up to three times within their split: its clips are not independent of each other,
and intervals that take them to be are too narrow. ``Clip.sources`` are the groups of a clip's recordings, and of its
photographs of its own labels (not those of distractions).

Beside the clips (see ``rendered``) lie::

    truth/items.parquet clip, modality, item, label, start, end (s), snr_db (recordings), distraction (photographs of
                        no label of the clip), zoom_from, zoom_to, x_from, x_to, y_from, y_to (photographs, see Shot)
    left_out.csv        item, reason: damaged or silent files, recordings of labels with too few groups
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avrepro.corpora.base import Clip, Corpus, CorpusError
from avrepro.corpora.paired_items import SHARES, Item, find_events, read_items, read_manifest, split_groups
from avrepro.corpora.paired_render import Plan, examine, plan_split, render
from avrepro.corpora.rendered import intact, load_rendered, render_clips, write_csv, write_listing, write_parquet
from avrepro.manifests import manifest_path
from avrepro.progress import say, track
from avrepro.recipes import Recipe, digest

PAIRED_VERSION = 1  # raised by hand whenever the same items give other clips
CLIPS_PER_CLASS = 60

AnyPath = str | os.PathLike[str]


def load_paired(
    folder: AnyPath | None = None,
    manifest: AnyPath | None = None,
    *,
    seed: int = 0,
    strict: bool = False,
    clips_per_class: int = CLIPS_PER_CLASS,
    jobs: int | None = None,
) -> Corpus:
    """Clips of real sounds and photographs, rendered first where they are not yet (whole or in part) in the cache.

    folder: where the items are, by default beside the manifest.
    manifest: by default ``manifest.csv`` in the folder. Without either, ``data_manifests/paired.csv`` and its items in
        ``AVREPRO_MIRROR`` or the cache.
    seed: of split, plans and noise.
    strict: only rows with strict = 1.
    clips_per_class: clips over all splits (60 / 20 / 20 %) that have a class as their first sound; fewer where its
        recordings, each used three times at most, do not suffice.
    jobs: processes that render, by default as many as there are processors.

    Raises CorpusError where the manifest is wrong or names files that are not there, and where nothing can be rendered.
    """
    table, place = _table_and_folder(folder, manifest)
    place = place or published_folder(table)
    items = read_items(table, place, strict)
    recipe = _recipe(items, seed, strict, clips_per_class)
    return load_rendered("paired", recipe, partial(_make, recipe=recipe, place=place, items=items, jobs=jobs))


def paired_recipe(
    folder: AnyPath | None = None,
    manifest: AnyPath | None = None,
    *,
    seed: int = 0,
    strict: bool = False,
    clips_per_class: int = CLIPS_PER_CLASS,
) -> Recipe:
    """What decides the clips of :func:`load_paired`; the items of data_manifests/paired.csv need not be at hand."""
    return _recipe(read_items(*_table_and_folder(folder, manifest), strict), seed, strict, clips_per_class)


def published_folder(table: Path) -> Path:
    """Folder of the items of data_manifests/paired.csv, found by the first of them."""
    from avrepro.fetch import find

    path = read_manifest(table)["path"].iloc[0]
    found = find("paired", path)
    if found is None:
        raise CorpusError(
            "the recordings and photographs of corpus 'paired' are not at hand: many have no licence to be passed on. "
            "Set AVREPRO_MIRROR to a folder with them in paired/, or give a folder of your own with a manifest.csv "
            "(path,label,modality)"
        )
    return found.parents[len(Path(path).parts) - 1]


def _table_and_folder(folder: AnyPath | None, manifest: AnyPath | None) -> tuple[Path, Path | None]:
    """The manifest, and where its items are; None for those of data_manifests/paired.csv."""
    if manifest is None:
        return (manifest_path("paired.csv"), None) if folder is None else (Path(folder) / "manifest.csv", Path(folder))
    return Path(manifest), Path(manifest).parent if folder is None else Path(folder)


def _recipe(items: Sequence[Item], seed: int, strict: bool, clips_per_class: int) -> Recipe:
    settings = {"seed": seed, "clips_per_class": clips_per_class, "strict": strict}
    return Recipe("corpus/paired", PAIRED_VERSION, settings, data=digest([list(astuple(item)) for item in items]))


def _make(folder: Path, recipe: Recipe, place: Path, items: Sequence[Item], jobs: int | None) -> None:
    jobs = jobs or os.cpu_count() or 1
    with ThreadPoolExecutor(jobs) as pool:
        examined = pool.map(lambda item: examine(place / item.path, item.modality), items)
        findings = list(track(examined, "checking recordings and photographs", total=len(items), unit="files"))
    left_out = [(item.path, reason) for item, (_, reason) in zip(items, findings, strict=True) if reason]
    seconds = {item.path: length for item, (length, reason) in zip(items, findings, strict=True) if not reason}
    if left_out:
        say(f"paired: {len(left_out)} of {len(items)} files left out, for example {left_out[0][0]}: {left_out[0][1]}")
    usable = [item for item in items if item.path in seconds]
    classes, few = find_events(usable)
    for label, count in few.items():
        reason = f"{label!r} has {count} group(s) of recordings; an event needs {len(SHARES)}, one for each split"
        say(f"paired: {reason}")
        left_out += [(item.path, reason) for item in usable if item.modality == "audio" and item.label == label]
    if not classes:
        raise CorpusError(f"{place}: no label has {len(SHARES)} groups of recordings that can be used: {left_out[:3]}")

    plans = plan_clips(usable, seconds, classes, recipe.settings["seed"], recipe.settings["clips_per_class"])
    one = partial(render, folder=place, clips=folder / "clips")
    render_clips(folder, plans, intact(folder), one, jobs, "paired clips")
    write_parquet(folder / "truth" / "items.parquet", _truth(plans))
    write_csv(folder / "left_out.csv", ("item", "reason"), left_out)
    write_listing(folder, recipe, classes, clips_of(plans, items, folder / "clips"))


def plan_clips(
    items: Sequence[Item], seconds: Mapping[str, float], classes: Sequence[str], seed: int, clips_per_class: int
) -> list[Plan]:
    """Plan all clips; ``seconds``: path of a recording -> its length in s."""
    split_of = split_groups(items, seed)
    plans: list[Plan] = []
    for number, (split, share) in enumerate(SHARES.items()):
        sounds: dict[str, dict[str, float]] = {label: {} for label in classes}
        photographs: dict[str, list[str]] = defaultdict(list)
        for item in items:
            if split_of[item.group] != split:
                continue
            if item.modality == "image":
                photographs[item.label].append(item.path)
            elif item.label in sounds:
                sounds[item.label][item.path] = seconds[item.path]
        rng = np.random.default_rng([seed, 1, number])
        plans += plan_split(split, max(1, round(share * clips_per_class)), sounds, photographs, rng)
    return plans


def clips_of(plans: Sequence[Plan], items: Sequence[Item], folder: Path) -> list[Clip]:
    """The clips that plans become in ``folder``, with their sources."""
    group_of = {item.path: item.group for item in items}
    clips = []
    for plan in plans:
        shown = [shot.item for shot in plan.shots if shot.label in plan.labels]
        sources = tuple(sorted({group_of[path] for path in [*shown, *(sound.item for sound in plan.sounds)]}))
        clips.append(Clip(plan.clip, folder / f"{plan.clip}.mp4", plan.split, plan.labels, sources))
    return clips


def _truth(plans: Sequence[Plan]) -> pd.DataFrame:
    """What is planted, a row a sound and a row a shot."""
    rows: list[dict[str, Any]] = []
    for plan in plans:
        for sound in plan.sounds:
            row: dict[str, Any] = {"clip": plan.clip, "modality": "audio", "item": sound.item, "label": sound.label}
            rows.append(row | {"start": sound.onset, "end": sound.offset, "snr_db": sound.snr_db, "distraction": False})
        for shot in plan.shots:
            row = {"clip": plan.clip, "modality": "image", "item": shot.item, "label": shot.label}
            row |= {"start": shot.start, "end": shot.end, "distraction": shot.label not in plan.labels}
            for name, (begin, end) in (("zoom", shot.zoom), ("x", shot.x), ("y", shot.y)):
                row |= {f"{name}_from": begin, f"{name}_to": end}
            rows.append(row)
    return pd.DataFrame(rows)
