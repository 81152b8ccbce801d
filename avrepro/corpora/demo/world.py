"""The demo world as a corpus, rendered once (see ``rendered``). Beside its clips lie::

    weak_labels.csv     clip, split, labels (| between them)
    truth/sound.csv     clip, label, onset, offset (s), snr_db: what sounds when
    truth/sight.parquet clip, frame, object, label, x, y, w, h (px), visible (0..1): what shows where
    truth/scenes.json   the plans; in demo-null instead truth/pictures.csv: whose pictures a clip shows

The truth is for evaluation alone: no feature and no model reads it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from avrepro.corpora import rendered
from avrepro.corpora.base import Clip, Corpus, CorpusError
from avrepro.corpora.demo.description import ClipFormat, Gap, WorldDescription, load_world_description
from avrepro.corpora.demo.scenes import Scene
from avrepro.progress import track
from avrepro.recipes import Recipe

WORLD_VERSION = 1  # raised by hand whenever the same description gives other clips
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

    :param profile: which sizes of the description, ``ci`` or ``demo``.
    :param asynchrony: 0: a source is seen while it sounds, 1: independently; like seed the description's unless given.
    :param gap: instead of asynchrony: sources are seen this long (s) before or after they sound, or "never".
    :param null: demo-null, the same sounds and weak labels with the pictures of other clips of the split.
    :param jobs: processes that render, by default as many as there are processors.
    :param world: another description than data_manifests/demo_world.yaml.
    :raises CorpusError: the description does not have it, or a clip, which is named, fails to render.
    """
    described = world or load_world_description()
    world = described.chosen(profile, seed, asynchrony, gap)
    recipe = world_recipe(world, null)
    sound_digest = world_recipe(described.chosen(profile, seed)).key  # no dial changes what sounds
    make = partial(_exchange_pictures if null else _render, recipe=recipe, world=world, jobs=jobs)
    return rendered.load_rendered("demo-null" if null else "demo", recipe, make, sound_digest)


def world_recipe(world: WorldDescription, null: bool = False) -> Recipe:
    """All that decides the clips of a world of one profile, see :meth:`WorldDescription.chosen`."""
    settings = world.model_dump(mode="json")
    settings["classes"] = list(settings["classes"].items())  # their order says how common they are
    return Recipe("corpus/demo-null" if null else "corpus/demo", WORLD_VERSION, settings)


def _render(folder: Path, recipe: Recipe, world: WorldDescription, jobs: int | None) -> None:
    import pandas as pd

    from avrepro.corpora.demo.planning import draw_scenes
    from avrepro.corpora.demo.sounds import SOUND_CLASSES

    (profile,) = world.profiles
    planned, weak_labels = draw_scenes(world)
    scenes = [scene for split in planned.values() for scene in split]
    truth, boxes = folder / "truth", folder / "truth" / "boxes"
    sight = truth / "sight.parquet"
    # A clip is done once its boxes and then its mp4 have taken their names. All boxes are together in sight.parquet
    # once all clips have been rendered, so of a clip that was lost since only the mp4 is wanted.
    done = rendered.intact(folder)
    if not sight.is_file():
        done &= {path.stem for path in boxes.glob("*.json")}
    render = partial(render_clip, folder=folder, form=world.clip)
    rendered.render_clips(folder, scenes, done, render, jobs or os.cpu_count() or 1, f"demo world, {profile}")
    if not sight.is_file():
        rows = [row for scene in scenes for row in json.loads((boxes / f"{scene.clip}.json").read_text("utf-8"))]
        _write_sight(sight, pd.DataFrame(rows, columns=list(SIGHT)))
    events = [(scene.clip, one.label, one.onset, one.offset, one.snr_db) for scene in scenes for one in scene.events]
    rendered.write_csv(truth / "sound.csv", ("clip", "label", "onset", "offset", "snr_db"), events)
    rendered.write_json(truth / "scenes.json", [asdict(scene) for scene in scenes])
    clips = [
        Clip(scene.clip, folder / "clips" / f"{scene.clip}.mp4", split, weak_labels[scene.clip])
        for split, of_split in planned.items()
        for scene in of_split
    ]
    _finish(folder, recipe, SOUND_CLASSES, clips)
    shutil.rmtree(boxes)


def render_clip(scene: Scene, folder: Path, form: ClipFormat) -> None:
    """Write ``truth/boxes/<id>.json``, then ``clips/<id>.mp4``. CorpusError names a clip that fails."""
    from avrepro import encode
    from avrepro.corpora.demo import pictures, sounds

    try:
        waveform = sounds.synthesise(scene, sample_rate=form.sample_rate)
        frames, boxes = pictures.draw(scene, fps=form.frames_per_second, size=form.size)
        rows = [[scene.clip, *(box[column] for column in SIGHT[1:])] for box in boxes]
        rendered.write_json(folder / "truth" / "boxes" / f"{scene.clip}.json", rows)
        path = folder / "clips" / f"{scene.clip}.mp4"
        encode.write_clip(path, frames, form.frames_per_second, waveform, form.sample_rate)
    except Exception as error:
        raise CorpusError(f"clip {scene.clip} of the demo world cannot be rendered: {error!r}") from error


def _exchange_pictures(folder: Path, recipe: Recipe, world: WorldDescription, jobs: int | None) -> None:
    """Give each clip the pictures of another clip of its split; streams are copied, not encoded again."""
    import pandas as pd

    from avrepro import encode

    (profile,) = world.profiles
    sound = load_demo(profile, jobs=jobs, world=world)
    assert sound.strong is not None
    donors = picture_donors([(clip.id, clip.split) for clip in sound.clips], world.seed)
    paths = {clip.id: clip.path for clip in sound.clips}
    for clip in track(sound.clips, "exchanging pictures"):
        encode.remux_clip(folder / "clips" / clip.path.name, audio_from=clip.path, video_from=paths[donors[clip.id]])
    seen = dict(tuple(pd.read_parquet(sound.strong / "sight.parquet").groupby("clip")))
    shown = [seen[donor].assign(clip=clip) for clip, donor in donors.items() if donor in seen]
    _write_sight(folder / "truth" / "sight.parquet", pd.concat(shown, ignore_index=True))
    rendered.write_csv(folder / "truth" / "pictures.csv", ("clip", "pictures_of"), donors.items())
    shutil.copyfile(sound.strong / "sound.csv", folder / "truth" / "sound.csv")
    _finish(folder, recipe, sound.classes, sound.clips)


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


def _write_sight(path: Path, table: Any) -> None:
    kinds = {"clip": "str", "object": "str", "frame": "int32"}
    rendered.write_parquet(path, table.astype({**kinds, **dict.fromkeys(("x", "y", "w", "h", "visible"), "float32")}))


def _finish(folder: Path, recipe: Recipe, classes: Sequence[str], clips: Sequence[Clip]) -> None:
    rows = [(clip.id, clip.split, "|".join(clip.labels)) for clip in clips]
    rendered.write_csv(folder / "weak_labels.csv", ("clip", "split", "labels"), rows)
    rendered.write_listing(folder, recipe, classes, clips)
