"""Real sounds and real photographs by class, rendered to clips: what a table of them (a manifest) becomes.

A manifest is a CSV file with a row an item: ``path`` (or ``name``; within its folder), ``label``, ``modality`` (audio
or image) and, where wanted, ``group`` (what comes from the same source shares one; by default each item is its own) and
``strict`` (1, the default, or 0 for a label that is no person's or is a stand-in). Other columns are left alone;
``data_manifests/paired.csv`` has the public source and licence of each of its items.

Sound events, the corpus's classes, are the labels with at least three groups of recordings, so that each split has
some; recordings of other labels ("Car passing by" in ``paired.csv`` has two groups) are left out. Photographs of any
label are shown, of others than the events as distraction alone (Bicycle and "Car passing by"); an event without
photographs (Screaming) is heard over other pictures. A label is the manifest's word for an item and no more: a Train
horn is not a Train too.

No group is in two splits, whatever its labels and kinds, and each event has recordings in every split (where groups
with several labels forbid it, that is told). Recordings and photographs are used up to three times within their split:
its clips are not independent of each other, and intervals that take them to be are too narrow. What a clip is made of
stands in ``paired_render``.

A corpus lies in ``home()/corpora/paired-<digest>/``::

    clips/<id>.mp4
    truth/items.parquet clip, modality, item, label, start, end (s), snr_db (recordings), distraction (photographs of
                        no label of the clip), zoom_from, zoom_to, x_from, x_to, y_from, y_to (photographs, see Shot)
    left_out.csv        item, reason: damaged or silent files, recordings of labels with too few groups
    corpus.json         the listing; written last, so a folder that has it is complete
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import astuple
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from avrepro import digests
from avrepro.corpora.base import Clip, Corpus, CorpusError
from avrepro.corpora.paired_items import SHARES, Item, find_events, read_items, read_rows, split_groups
from avrepro.corpora.paired_render import Plan, examine, plan_split, render
from avrepro.files import atomic
from avrepro.home import home
from avrepro.manifests import manifest_path
from avrepro.progress import say, track

LIBRARIES = ("av", "numpy", "opencv-contrib-python-headless", "pillow", "soxr")


def load_paired(
    folder: str | os.PathLike[str] | None = None,
    manifest: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    strict: bool = False,
    clips_per_class: int = 60,
    jobs: int | None = None,
) -> Corpus:
    """Clips of real sounds and photographs, rendered first where they are not yet (whole or in part) in the cache.

    Parameters
    ----------
    folder: where the items are, by default beside the manifest.
    manifest: by default ``manifest.csv`` in the folder. Without either, ``data_manifests/paired.csv`` and its items in
        ``AVREPRO_MIRROR`` or the cache.
    seed: of split, plans and noise.
    strict: only rows with strict = 1.
    clips_per_class: clips over all splits (60 / 20 / 20 %) that have a class as their first sound; fewer where its
        recordings, each used three times at most, do not suffice.
    jobs: processes that render, by default as many as there are processors.

    Items that do not decode are left out and listed in ``left_out.csv``. Raises CorpusError, listing the offending
    rows, where the manifest is wrong or names files that are not there, and where it leaves nothing to render.
    """
    if clips_per_class < 1:
        raise CorpusError(f"clips_per_class is 1 or more, found {clips_per_class}")
    if seed < 0:
        raise CorpusError(f"a seed is 0 or more, found {seed}")
    if manifest is not None:
        table = Path(manifest)
    else:
        table = manifest_path("paired.csv") if folder is None else Path(folder) / "manifest.csv"
    if folder is not None:
        place = Path(folder)
    else:
        place = published_folder(table) if manifest is None else table.parent
    items = read_items(place, table, strict)
    digest = paired_digest(items, seed, clips_per_class)
    kept = home() / "corpora" / f"paired-{digest[:12]}"
    corpus = _read(kept, digest)
    if corpus is None:
        kept.mkdir(parents=True, exist_ok=True)
        with FileLock(kept / ".lock"):  # a second process waits, and then finds the clips made
            corpus = _read(kept, digest)
            if corpus is None:
                _make(kept, place, items, seed, clips_per_class, jobs or os.cpu_count() or 1, digest)
                corpus = _read(kept, digest)
    if corpus is None:
        raise CorpusError(f"{kept} changed while it was made; delete it and load the corpus again")
    return corpus


def published_folder(table: Path) -> Path:
    """Folder of the items of data_manifests/paired.csv, found by the first of them."""
    from avrepro.fetch import find

    path = read_rows(table)[0][1]["path"]
    found = find("paired", path)
    if found is None:
        raise CorpusError(
            "the recordings and photographs of corpus 'paired' are not at hand: many have no licence to be passed on. "
            "Set AVREPRO_MIRROR to a folder with them in paired/, or give a folder of your own with a manifest.csv "
            "(path,label,modality)"
        )
    return found.parents[len(Path(path).parts) - 1]


def paired_digest(items: Sequence[Item], seed: int, clips_per_class: int) -> str:
    """SHA-256 (hex) over all that decides the clips, wherever the items lie."""
    return digests.of_values(
        {
            "items": [list(astuple(item)) for item in items],
            "seed": seed,
            "clips_per_class": clips_per_class,
            "code": digests.code(
                "corpora/paired.py", "corpora/paired_items.py", "corpora/paired_render.py", "encode.py", "media.py"
            ),
            "libraries": {library: version(library) for library in LIBRARIES},
        }
    )


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of the clips that are there whole."""
    with os.scandir(folder) as entries:
        return {Path(one.name).stem: one.stat().st_size for one in entries if not one.name.startswith(".")}


def _read(kept: Path, digest: str) -> Corpus | None:
    """The corpus that lies in ``kept``, None if any clip of it is not there as it was made."""
    listing = kept / "corpus.json"
    if not listing.is_file() or not (kept / "clips").is_dir():
        return None
    told, there = json.loads(listing.read_text("utf-8")), _sizes(kept / "clips")
    if any(there.get(clip["id"]) != clip["bytes"] for clip in told["clips"]):
        return None
    clips = tuple(
        Clip(clip["id"], kept / "clips" / f"{clip['id']}.mp4", clip["split"], tuple(clip["labels"]))
        for clip in told["clips"]
    )
    return Corpus("paired", tuple(told["classes"]), clips, (), digest, strong=kept / "truth")


def _make(
    kept: Path, folder: Path, items: Sequence[Item], seed: int, clips_per_class: int, jobs: int, digest: str
) -> None:
    with ThreadPoolExecutor(jobs) as pool:
        examined = pool.map(lambda item: examine(folder / item.path, item.modality), items)
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
        raise CorpusError(f"{folder}: no label has {len(SHARES)} groups of recordings that can be used: {left_out[:3]}")

    plans = plan_clips(usable, seconds, classes, seed, clips_per_class)
    for split in SHARES:
        lacking = set(classes) - {label for plan in plans if plan.split == split for label in plan.labels}
        if lacking:
            say(f"paired: no clip in {split} for want of groups: {', '.join(sorted(lacking))}")
    _render_all(kept, folder, plans, jobs)
    _write_truth(kept / "truth" / "items.parquet", plans)
    with atomic(kept / "left_out.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows([("item", "reason"), *left_out])
    sizes = _sizes(kept / "clips")
    listing = [{"id": p.clip, "split": p.split, "labels": p.labels, "bytes": sizes[p.clip]} for p in plans]
    with atomic(kept / "corpus.json") as temporary:
        told = {"digest": digest, "classes": classes, "clips": listing}
        temporary.write_text(json.dumps(told, ensure_ascii=False), "utf-8")


def plan_clips(
    items: Sequence[Item], seconds: Mapping[str, float], classes: Sequence[str], seed: int, clips_per_class: int
) -> list[Plan]:
    """Plan all clips.

    :param seconds: path of a recording -> its length in s.
    """
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


def _render_all(kept: Path, folder: Path, plans: Sequence[Plan], jobs: int) -> None:
    """Render what is not there: a clip that has its name is whole, unless it has changed since it was listed."""
    clips, listing = kept / "clips", kept / "corpus.json"
    clips.mkdir(exist_ok=True)
    there = _sizes(clips)
    if listing.is_file():
        listed = {clip["id"]: clip["bytes"] for clip in json.loads(listing.read_text("utf-8"))["clips"]}
        there = {clip: size for clip, size in there.items() if listed.get(clip) == size}
    todo = [plan for plan in plans if plan.clip not in there]
    say(f"paired: {len(todo)} of {len(plans)} clips to render into {kept}")
    one = partial(render, folder=folder, clips=clips)
    for _ in track(_in_processes(one, todo, min(jobs, len(todo))), "rendering paired clips", total=len(todo)):
        pass
    for leftover in clips.glob(".*"):  # what a killed process was writing
        leftover.unlink()


def _in_processes(function: Callable[[Plan], str], plans: Sequence[Plan], jobs: int) -> Iterator[str]:
    """Results in order, from ``jobs`` processes (spawned: a forked one may inherit a held lock)."""
    if jobs <= 1:
        yield from map(function, plans)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_one_thread) as pool:
        yield from pool.map(function, plans, chunksize=4)


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)  # the processes share the processors already


def _write_truth(path: Path, plans: Sequence[Plan]) -> None:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for plan in plans:
        for sound in plan.sounds:
            told: dict[str, Any] = {"item": sound.item, "label": sound.label, "start": sound.onset, "end": sound.offset}
            told |= {"snr_db": sound.snr_db, "distraction": False}
            rows.append({"clip": plan.clip, "modality": "audio", **told})
        for shot in plan.shots:
            told = {"item": shot.item, "label": shot.label, "start": shot.start, "end": shot.end}
            told |= {"distraction": shot.label not in plan.labels}
            for name, (begin, end) in (("zoom", shot.zoom), ("x", shot.x), ("y", shot.y)):
                told |= {f"{name}_from": begin, f"{name}_to": end}
            rows.append({"clip": plan.clip, "modality": "image", **told})
    with atomic(path) as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False)
