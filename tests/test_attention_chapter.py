"""The chapter on Fayek and Kumar (2020) as a person runs it: a row of its tables, own clips that lack a modality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from chapters import avrepro, clips_that_lack_a_modality, papermill, text_of, tones_and_colours

from avrepro import results

CHAPTER = "attention_fusion"
ALONE = {f"fayek2020/{name}" for name in ("audio", "visual", "average", "attention")}  # what every run has


def numbers(**wanted: object) -> pd.DataFrame:
    """mAP on test clips in this machine's store, by system."""
    table = results.read(folders=(results.store(),)).select(chapter=CHAPTER, metric="map", split="test", **wanted)
    return table[(table["against"] == "") & (table["label"] == "")].set_index("system")["value"]


def scores_of(output: Path) -> pd.DataFrame:
    """Scores beside an executed chapter, [clips, classes] by system."""
    table = pd.read_csv(output.with_suffix(".scores.csv"))
    return table.pivot(index=["system", "clip"], columns="label", values="score")


def test_plain_papermill_with_another_seed_and_a_row_of_a_table(tmp_path: Path) -> None:
    done = papermill(CHAPTER, tmp_path / "3.ipynb", seed=3, system="gblend", profile="ci")
    assert done.returncode == 0, done.stderr[-3000:]
    found = numbers(corpus="demo", profile="ci", seeds="[3]")
    assert {*ALONE, "fayek2020/gblend"} <= set(found.index)
    assert ((found > 0) & (found < 1)).all()
    shown = text_of(tmp_path / "3.ipynb")
    row = next(line for line in shown.splitlines() if line.startswith("Attention fusion (Table 2)\t"))
    assert row.split("\t")[1] == "46.16" and f"\t{100 * found['fayek2020/attention']:.1f}\N{NO-BREAK SPACE}[" in row


def test_a_wrong_system_is_refused_before_anything_runs(tmp_path: Path) -> None:
    done = avrepro("run", CHAPTER, "-p", "system=g_blend", "--output", str(tmp_path / "out.ipynb"))
    assert done.returncode == 2
    assert "system = 'g_blend': Input should be 'all', 'audio', 'visual'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_few_own_clips_are_scored_by_what_they_have(tmp_path: Path, mirror: Path) -> None:
    """A clip without pictures has the audio score of the clip that its sound is of, one without sound likewise."""
    words, with_sound, with_pictures = clips_that_lack_a_modality(tmp_path, mirror)
    done = avrepro("run", CHAPTER, *words, "--output", str(tmp_path / "own.ipynb"))
    assert done.returncode == 0, done.stderr[-3000:]
    found = scores_of(tmp_path / "own.ipynb")
    assert found.shape[0] == 3 * 8 and "empty.mp4" in text_of(tmp_path / "own.ipynb")
    for system, whole, part in (("audio", with_sound, "sound.m4a"), ("visual", with_pictures, "silent.mp4")):
        of = found.loc[f"fayek2020/{system}"]
        other = with_pictures if system == "audio" else with_sound
        away = [np.abs(of.loc[part] - of.loc[one]).max() for one in (whole, other)]
        assert away[0] < 1e-5 < away[1], system
    assert "not measured in this run" in text_of(tmp_path / "own.ipynb")


def test_thirty_own_clips_are_trained_on(tmp_path: Path) -> None:
    """Tones and colours that tell the label."""
    words = [*tones_and_colours(tmp_path), "-p", "system=mlp", "--output", str(tmp_path / "own.ipynb")]
    done = avrepro("run", CHAPTER, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    found = scores_of(tmp_path / "own.ipynb")
    assert set(found.columns) == {"low", "high"} and found.shape[0] == 3 * 36
    assert {*ALONE, "fayek2020/mlp"} <= set(numbers(corpus="folder", profile="ci").index)
    assert "your clips, profile ci" in text_of(tmp_path / "own.ipynb")


def test_a_dry_run_shows_no_numbers(tmp_path: Path) -> None:
    output = tmp_path / "dry.ipynb"
    done = avrepro("run", CHAPTER, "-p", "dry=true", "-p", "profile=ci", "--output", str(output))
    assert done.returncode == 0, done.stderr[-3000:]
    assert text_of(output).count("not measured in this run") >= 3
