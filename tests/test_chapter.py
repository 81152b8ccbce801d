"""A chapter as a person runs it: plain papermill, another seed, own clips, a wrong parameter."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

from chapters import avrepro, own, papermill, text_of, tones_and_colours

from avrepro import results

CHAPTER = "lightweight_fusion"


def test_plain_papermill_with_another_seed_adds_its_numbers(tmp_path: Path) -> None:
    for seed in (0, 3):
        done = papermill(CHAPTER, tmp_path / f"{seed}.ipynb", seed=seed, profile="ci")
        assert done.returncode == 0, done.stderr[-3000:]
    table = results.read().table
    today = table[table["digest"].isin([_digest(seed) for seed in (0, 3)]) & (table["corpus"] == "demo")]
    losses = today[(today["system"] == "audio") & (today["metric"] == "loss")].sort_values("step")
    by_seed = {seed: rows["value"].tolist() for seed, rows in losses.groupby("seed")}
    assert set(by_seed) == {0, 3}
    assert by_seed[0] != by_seed[3]
    shown = avrepro("results", "--format", "markdown")
    assert f"| {today.iloc[0]['run']} | {CHAPTER} |" in shown.stdout


def test_a_wrong_name_ends_a_papermill_run_at_the_check(tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    done = papermill(CHAPTER, output, sede=3, profile="ci")
    assert done.returncode != 0
    assert "unknown name 'sede'; did you mean 'seed'?" in done.stderr
    cells = json.loads(output.read_text())["cells"]
    checked = next(cell for cell in cells if "check_notebook(" in "".join(cell["source"]))
    assert checked["metadata"]["papermill"]["duration"] < 1.0
    later = cells[cells.index(checked) + 1 :]
    assert all(cell.get("execution_count") is None for cell in later)


def test_the_command_line_refuses_a_wrong_value_at_once() -> None:
    start = time.monotonic()
    done = avrepro("run", CHAPTER, "-p", "seed=-1")
    assert (done.returncode, time.monotonic() - start < 5) == (2, True)  # a second and the start of Python, loaded
    assert "seed = -1: Input should be greater than or equal to 0" in done.stderr


def test_few_own_clips_are_scored_by_the_checkpoint_and_a_bad_one_is_told(tmp_path: Path, mirror: Path) -> None:
    clips = tmp_path / "my clips"
    clips.mkdir()
    for path in (mirror / "real_clips").glob("*.mp4"):
        (clips / path.name).symlink_to(path)
    (clips / "empty.mp4").touch()
    rows = list(csv.reader((mirror / "real_clips" / "labels.csv").open()))
    words = own(clips, tmp_path / "labels.csv", [*rows, ["empty.mp4", "Dog"]])
    output = tmp_path / "own.ipynb"
    done = avrepro("run", CHAPTER, *words, "--output", str(output))
    assert done.returncode == 0, done.stderr[-3000:]
    told = text_of(output)
    assert all(name in told for name, _ in rows[1:])
    assert "empty.mp4" in told and "0 bytes" in told
    assert "6 own clips scored by the checkpoint lightweight-fusion-" in told
    passports = results.read().table.query("chapter == @CHAPTER and corpus == 'folder' and metric == 'clips'")
    assert {(row.value, row.missing) for row in passports.itertuples()} == {(6.0, 1)}


def test_thirty_own_clips_are_trained_on(tmp_path: Path) -> None:
    """Tones and colours that say the label: the chapter learns on a folder and fills its tables."""
    output = tmp_path / "own.ipynb"
    done = avrepro("run", CHAPTER, *tones_and_colours(tmp_path), "--output", str(output))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Table 1. Micro-averaged F1" in text_of(output)


def _digest(seed: int) -> str:
    from avrepro.parameters import check

    parameters = check(CHAPTER, {"seed": seed, "profile": "ci"})
    return results.passport_digest(CHAPTER, parameters.model_dump())
