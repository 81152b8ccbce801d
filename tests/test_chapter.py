"""A chapter as a person runs it: plain papermill, another seed, own clips, a wrong parameter."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from avrepro import digests, results
from avrepro.encode import write_clip

NOTEBOOK = digests.ROOT / "book" / "lightweight_fusion.ipynb"
PAPERMILL = [sys.executable, "-m", "papermill", str(NOTEBOOK)]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(digests.ROOT)}
    return subprocess.run(words, capture_output=True, text=True, timeout=600, env=environment, check=False)


def text_of(notebook: Path) -> str:
    cells = json.loads(notebook.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "\n".join("".join(output.get("data", {}).get("text/plain", [])) for output in outputs)


def test_plain_papermill_with_another_seed_adds_its_numbers(tmp_path: Path) -> None:
    for seed in ("0", "3"):
        output = tmp_path / f"{seed}.ipynb"
        done = run([*PAPERMILL, str(output), "-p", "seed", seed, "-p", "profile", "ci"])
        assert done.returncode == 0, done.stderr[-3000:]
    table = results.read().table
    today = table[table["digest"].isin([_digest(seed) for seed in (0, 3)]) & (table["corpus"] == "demo")]
    losses = today[(today["system"] == "audio") & (today["metric"] == "loss")].sort_values("step")
    by_seed = {seed: rows["value"].tolist() for seed, rows in losses.groupby("seed")}
    assert set(by_seed) == {0, 3}
    assert by_seed[0] != by_seed[3]
    shown = run([sys.executable, "-m", "avrepro", "results", "--format", "markdown"])
    assert f"| {today.iloc[0]['run']} | lightweight_fusion |" in shown.stdout


def test_a_wrong_name_ends_a_papermill_run_at_the_check(tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    done = run([*PAPERMILL, str(output), "-p", "sede", "3", "-p", "profile", "ci"])
    assert done.returncode != 0
    assert "unknown name 'sede'; did you mean 'seed'?" in done.stderr
    cells = json.loads(output.read_text())["cells"]
    checked = next(cell for cell in cells if "check_notebook(" in "".join(cell["source"]))
    assert checked["metadata"]["papermill"]["duration"] < 1.0
    later = cells[cells.index(checked) + 1 :]
    assert all(cell.get("execution_count") is None for cell in later)


def test_the_command_line_refuses_a_wrong_value_at_once() -> None:
    start = time.monotonic()
    done = run([sys.executable, "-m", "avrepro", "run", "lightweight_fusion", "-p", "seed=-1"])
    assert (done.returncode, time.monotonic() - start < 5) == (2, True)  # a second and the start of Python, loaded
    assert "seed = -1: Input should be greater than or equal to 0" in done.stderr


def test_few_own_clips_are_scored_by_the_checkpoint_and_a_bad_one_is_told(tmp_path: Path, mirror: Path) -> None:
    clips = tmp_path / "my clips"
    clips.mkdir()
    for path in (mirror / "real_clips").glob("*.mp4"):
        (clips / path.name).symlink_to(path)
    (clips / "empty.mp4").touch()
    rows = list(csv.reader((mirror / "real_clips" / "labels.csv").open()))
    table = tmp_path / "labels.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([*rows, ["empty.mp4", "Dog"]])
    output = tmp_path / "own.ipynb"
    words = ["-p", "corpus=folder", "-p", f"clips={clips}", "-p", f"labels={table}", "-p", "profile=ci"]
    done = run([sys.executable, "-m", "avrepro", "run", "lightweight_fusion", *words, "--output", str(output)])
    assert done.returncode == 0, done.stderr[-3000:]
    told = text_of(output)
    assert all(name in told for name, _ in rows[1:])
    assert "empty.mp4" in told and "0 bytes" in told
    assert "6 own clips scored by the checkpoint lightweight-fusion-" in told
    passports = results.read().table.query("corpus == 'folder' and metric == 'clips'")
    assert {(row.value, row.missing) for row in passports.itertuples()} == {(6.0, 1)}


def test_thirty_own_clips_are_trained_on(tmp_path: Path) -> None:
    """Tones and colours that say the label: the chapter learns on a folder and fills its tables."""
    rng = np.random.default_rng(0)
    times = np.arange(2 * 16000) / 16000
    rows = [["clip", "labels"]]
    for number in range(36):
        label = ("low", "high")[number % 2]
        tone = 0.3 * np.sin(2 * np.pi * (300, 3000)[number % 2] * times) + 0.01 * rng.normal(size=len(times))
        frames = np.full((8, 48, 64, 3), (40, 200)[number % 2], dtype=np.uint8)
        write_clip(tmp_path / f"{number:02}.mp4", frames, 4, tone.astype(np.float32), 16000)
        rows.append([f"{number:02}.mp4", label])
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    output = tmp_path / "own.ipynb"
    words = [
        "-p",
        "corpus=folder",
        "-p",
        f"clips={tmp_path}",
        "-p",
        f"labels={tmp_path / 'labels.csv'}",
        "-p",
        "profile=ci",
    ]
    done = run([sys.executable, "-m", "avrepro", "run", "lightweight_fusion", *words, "--output", str(output)])
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Table 1. Micro-averaged F1" in text_of(output)


def _digest(seed: int) -> str:
    from avrepro.parameters import check

    parameters = check("lightweight_fusion", {"seed": seed, "profile": "ci"})
    return results.passport_digest("lightweight_fusion", parameters.model_dump())
