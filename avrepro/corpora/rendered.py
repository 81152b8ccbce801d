"""Corpora that are rendered: their clips are made once, found again, and repaired where they are lost.

A rendered corpus lies in ``home()/corpora/<name>-<key of its recipe>/``: its clips as ``clips/<id>.mp4``, their listing
``corpus.json``, written last, so that a folder that has it is complete, and what else the maker of the corpus writes.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from filelock import FileLock

from avrepro.corpora.base import Clip, Corpus, CorpusError
from avrepro.files import atomic
from avrepro.home import home
from avrepro.progress import say, track
from avrepro.recipes import Recipe


def load_rendered(name: str, recipe: Recipe, make: Callable[[Path], None], sound_digest: str = "") -> Corpus:
    """The corpus of a recipe; ``make`` renders it into its folder where any clip is not there as it was made."""
    folder = home() / "corpora" / f"{name}-{recipe.key[:12]}"

    def read() -> Corpus | None:
        listing = _listing(folder)
        if not listing or not listing["bytes"].items() <= _clip_sizes(folder).items():
            return None
        clips = tuple(
            Clip(clip, folder / "clips" / f"{clip}.mp4", split, tuple(labels), tuple(sources))
            for clip, split, labels, sources in listing["clips"]
        )
        return Corpus(name, tuple(listing["classes"]), clips, (), recipe.key, folder / "truth", sound_digest)

    corpus = read()
    if corpus is None:
        if getattr(multiprocessing.current_process(), "_inheriting", False):  # it would wait for its parent for ever
            raise RuntimeError(
                f"{name} is rendered in processes that import the script that asked for it: write the script's calls "
                'under if __name__ == "__main__":'
            )
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):  # a second process waits, and then finds the clips made
            corpus = read()
            if corpus is None:
                make(folder)
                corpus = read()
    if corpus is None:
        raise CorpusError(f"{folder} changed while it was made; delete it and load the corpus again")
    return corpus


def intact(folder: Path) -> set[str]:
    """Clips that are there as they were made: all that have a name, but those that changed since they were listed."""
    listing = _listing(folder)
    return {
        clip for clip, size in _clip_sizes(folder).items() if not listing or listing["bytes"].get(clip, size) == size
    }


def render_clips(
    folder: Path, plans: Sequence[Any], done: set[str], render: Callable[[Any], None], jobs: int, label: str
) -> None:
    """Call ``render`` with the plan of every clip (``plan.clip``) that is not done, in ``jobs`` processes.

    Processes are spawned (a forked one may inherit a held lock) and end with this one. The first error ends all.
    """
    clips = folder / "clips"
    clips.mkdir(exist_ok=True)
    todo = [plan for plan in plans if plan.clip not in done]
    say(f"{label}: {len(todo)} of {len(plans)} clips to render into {folder}")
    jobs = min(jobs, len(todo))
    if jobs <= 1:
        for plan in track(todo, label):
            render(plan)
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, context, initializer=_start_worker) as pool:
            futures = [pool.submit(render, plan) for plan in todo]
            try:
                for future in track(as_completed(futures), label, total=len(todo)):
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    for leftover in clips.glob(".*"):  # what a killed process was writing
        leftover.unlink()


def write_listing(folder: Path, recipe: Recipe, classes: Sequence[str], clips: Sequence[Clip]) -> None:
    """The listing that says that the corpus is complete."""
    sizes = _clip_sizes(folder)
    listing = {
        "digest": recipe.key,
        "classes": classes,
        "clips": [[clip.id, clip.split, clip.labels, clip.sources] for clip in clips],
        "bytes": {clip.id: sizes[clip.id] for clip in clips},
    }
    write_json(folder / "corpus.json", listing)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def write_json(path: Path, content: object) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def write_parquet(path: Path, table: Any) -> None:
    with atomic(path) as temporary:
        table.to_parquet(temporary, index=False)


def _listing(folder: Path) -> dict[str, Any]:
    path = folder / "corpus.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _clip_sizes(folder: Path) -> dict[str, int]:
    """Bytes of the clips that are there whole."""
    return {path.stem: path.stat().st_size for path in (folder / "clips").glob("[!.]*")}


def _start_worker() -> None:
    import cv2

    cv2.setNumThreads(1)  # the processes share the processors already
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
