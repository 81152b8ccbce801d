"""What tests of chapters share: a chapter run as a person runs it, what it shows, and small clips of one's own."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np

from avrepro import checkout
from avrepro.encode import write_clip


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout.ROOT)}
    return subprocess.run(words, capture_output=True, text=True, timeout=900, env=environment, check=False)


def avrepro(*words: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return run([sys.executable, "-m", "avrepro", *words])


def papermill(chapter: str, output: Path, **parameters: object) -> subprocess.CompletedProcess[str]:
    """Plain papermill, without the project's command line."""
    notebook = checkout.ROOT / "book" / f"{chapter}.ipynb"
    given = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
    return run([sys.executable, "-m", "papermill", str(notebook), str(output), *given])


def text_of(notebook: Path) -> str:
    """What an executed chapter shows, as text: captions, tables, notes, numbers in sentences."""
    cells = json.loads(notebook.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "\n".join("".join(output.get("data", {}).get("text/plain", [])) for output in outputs)


def tones_and_colours(folder: Path, count: int = 36) -> list[str]:
    """Write clips whose label is in their tone and colour, and labels.csv; the words that give them to a chapter."""
    rng = np.random.default_rng(0)
    times = np.arange(2 * 16000) / 16000
    rows = [["clip", "labels"]]
    for number in range(count):
        tone = 0.3 * np.sin(2 * np.pi * (300, 3000)[number % 2] * times) + 0.01 * rng.normal(size=len(times))
        frames = np.full((8, 48, 64, 3), (40, 200)[number % 2], dtype=np.uint8)
        write_clip(folder / f"{number:02}.mp4", frames, 4, tone.astype(np.float32), 16000)
        rows.append([f"{number:02}.mp4", ("low", "high")[number % 2]])
    return own(folder, folder / "labels.csv", rows)


def own(clips: Path, labels: Path, rows: list[list[str]]) -> list[str]:
    """Write a sheet of labels; the words that give it and its clips to a chapter."""
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return ["-p", "corpus=folder", "-p", f"clips={clips}", "-p", f"labels={labels}", "-p", "profile=ci"]


def one_track(source: Path, kind: str, path: Path) -> None:
    """Write a clip's sound or its pictures alone, as they are encoded."""
    with av.open(str(source)) as read, av.open(str(path), "w") as written:
        stream = getattr(read.streams, kind)[0]
        target = written.add_stream_from_template(stream)
        for packet in read.demux(stream):
            if packet.dts is not None:
                packet.stream = target
                written.mux(packet)


def clips_that_lack_a_modality(folder: Path, mirror: Path) -> tuple[list[str], str, str]:
    """Real clips, one's sound and another's pictures alone, and an empty file.

    :returns: the words that give them to a chapter, and the clips that sound.m4a and silent.mp4 are made of.
    """
    clips = folder / "my clips"
    clips.mkdir()
    for path in (mirror / "real_clips").glob("*.mp4"):
        (clips / path.name).symlink_to(path)
    rows = list(csv.reader((mirror / "real_clips" / "labels.csv").open()))
    (heard, _), (seen, _) = rows[1:3]
    one_track(clips / heard, "audio", clips / "sound.m4a")
    one_track(clips / seen, "video", clips / "silent.mp4")
    (clips / "empty.mp4").touch()
    more = [["sound.m4a", "Doorbell"], ["silent.mp4", "Rattle"], ["empty.mp4", "Dog"]]
    return own(clips, folder / "labels.csv", [*rows, *more]), heard, seen
