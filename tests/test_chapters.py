"""The chapters on the papers as a person runs them: seeds, wrong names, own clips, few and many, dry runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chapters import avrepro, clips_that_lack_a_modality, papermill, text_of, tones_and_colours

from avrepro import own_clips, protocol, results
from avrepro.conditions import Condition
from avrepro.home import SCORES_FILE
from avrepro.parameters import check
from avrepro.systems import CheckpointError

pytestmark = pytest.mark.chapter

OWN = {  # systems that score own clips
    "lightweight_fusion": ("li2017/audio", "li2017/video", "li2017/fused"),
    "unsynchronized_mil": ("parekh2018/one_stream",),
    "attention_fusion": ("fayek2020/audio", "fayek2020/visual", "fayek2020/attention"),
}
CHOSEN = {"unsynchronized_mil": {"system": "one_stream"}, "attention_fusion": {"system": "gblend"}}
CHAPTERS = pytest.mark.parametrize("chapter", OWN)


def chosen(chapter: str) -> list[str]:
    return [word for name, value in CHOSEN.get(chapter, {}).items() for word in ("-p", f"{name}={value}")]


@CHAPTERS
def test_plain_papermill_with_another_seed_on_clips_enough_to_train_on(
    chapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain pictures have no edges, and so no regions. The numbers are added to the store and shown."""
    monkeypatch.setenv(SCORES_FILE, str(tmp_path / "own.scores.csv"))
    tones_and_colours(tmp_path)
    given = {"corpus": "folder", "clips": tmp_path, "labels": tmp_path / "labels.csv", "seed": 3, "profile": "ci"}
    done = papermill(chapter, tmp_path / "3.ipynb", **given, **CHOSEN.get(chapter, {}))
    assert done.returncode == 0, done.stderr[-3000:]
    text = text_of(tmp_path / "3.ipynb")
    assert "your clips, profile ci" in text and "trained on the demo world" not in done.stderr
    table = pd.read_csv(tmp_path / "own.scores.csv")
    assert len(table) == 36 * 2 * len(OWN[chapter]) and set(table["label"]) == {"low", "high"}
    found = results.read(folders=(results.store(),)).select(chapter=chapter, seeds="[3]", corpus="folder", split="test")
    values = found[(found["metric"] == "map") & (found["against"] == "")].set_index("system")["value"]
    systems = {*OWN[chapter], *({"fayek2020/gblend"} if chapter == "attention_fusion" else ())}
    assert systems <= set(values.index) and ((values > 0) & (values <= 1)).all()
    if chapter == "attention_fusion":
        row = next(line for line in text.splitlines() if line.startswith("Attention fusion (Table 2)\t")).split("\t")
        assert row[1] == "46.16" and row[3].startswith(f"{100 * values['fayek2020/attention']:.1f}\N{NO-BREAK SPACE}[")
    shown = avrepro("results", "--format", "markdown", "--chapter", chapter).stdout
    assert all(f"| {run} | {chapter} |" in shown for run in found["run"].unique())


def test_a_wrong_name_ends_a_papermill_run_at_the_check(tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    done = papermill("lightweight_fusion", output, sede=3, profile="ci")
    assert done.returncode != 0
    assert "unknown name 'sede'; did you mean 'seed'?" in done.stderr
    cells = json.loads(output.read_text())["cells"]
    checked = next(cell for cell in cells if "check_notebook(" in "".join(cell["source"]))
    assert all(cell.get("execution_count") is None for cell in cells[cells.index(checked) + 1 :])


@CHAPTERS
def test_few_own_clips_are_scored_by_what_they_have(chapter: str, tmp_path: Path, mirror: Path) -> None:
    """A clip without pictures scores as the one that its sound is of, one without sound likewise."""
    words, heard, seen = clips_that_lack_a_modality(tmp_path, mirror)
    output = tmp_path / "own.ipynb"
    done = avrepro("run", chapter, *words, *chosen(chapter), "--output", str(output))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr and f"{chapter}: " in done.stderr
    table = pd.read_csv(tmp_path / "own.scores.csv")
    assert list(table.columns) == [*own_clips.COLUMNS] and np.isfinite(table["score"]).all()
    assert tuple(table["system"].unique()) == OWN[chapter] and table["label"].nunique() == 17
    clips = {name for name, *_ in csv.reader((tmp_path / "labels.csv").open())} - {"clip", "empty.mp4"}
    assert set(table["clip"]) == clips and len(clips) == 8

    scores = table.pivot(index=["system", "clip"], columns="label", values="score")
    for name in OWN[chapter]:
        if name.endswith(("/audio", "/visual", "/video")):
            sound = name.endswith("/audio")
            part, whole, other = ("sound.m4a", heard, seen) if sound else ("silent.mp4", seen, heard)
            apart = [np.abs(scores.loc[name, part] - scores.loc[name, one]).max() for one in (whole, other)]
            assert apart[0] < 1e-5 < apart[1], name
    first = table.iloc[0]
    assert f"{tmp_path / 'own.scores.csv'}" in done.stdout
    assert [str(first["clip"]), first["system"]] == done.stdout.splitlines()[3].split()[:2]

    text = text_of(output)
    assert all(name in text for name in (*clips, "empty.mp4")) and "0 bytes" in text
    assert "not measured in this run" in text
    counted = results.read(folders=(results.store(),)).select(chapter=chapter, corpus="folder", metric="clips")
    mine = counted[counted["missing"] == 1]
    assert (mine["value"] == 8).any()
    all_of_it = results.read(folders=(results.store(),)).select(run=list(mine["run"]))
    assert set(all_of_it["system"]) == {"corpus"}, "no number is measured on so few"


def test_a_dry_run_shows_no_numbers(tmp_path: Path) -> None:
    output = tmp_path / "dry.ipynb"
    done = avrepro("run", "unsynchronized_mil", "-p", "dry=true", "-p", "profile=ci", "--output", str(output))
    assert done.returncode == 0, done.stderr[-3000:]
    text = text_of(output)
    assert text.count("not measured in this run") == 6
    assert not [line for line in text.splitlines() if "demo world, profile ci" in line and "[" in line]


def test_a_checkpoint_scores_own_clips_with_the_systems_that_it_uses(tmp_path: Path) -> None:
    tones_and_colours(tmp_path, 2)
    place = {"corpus": "folder", "clips": str(tmp_path), "labels": str(tmp_path / "labels.csv"), "profile": "ci"}
    fitted = protocol.fit("li2017/fused", Condition(profile="ci"))
    broken = tmp_path / "broken.pt"
    broken.write_bytes(fitted.path.read_bytes()[:100])
    for path in (broken, tmp_path / "absent.pt"):
        with pytest.raises(CheckpointError, match="expected a checkpoint of a system") as caught:
            own_clips.score([], check("lightweight_fusion", place | {"checkpoint": str(path)}))  # type: ignore[arg-type]
        assert str(caught.value).startswith(f"{path}: ")
    table = own_clips.score([], check("lightweight_fusion", place | {"checkpoint": str(fitted.path)}))  # type: ignore[arg-type]
    assert tuple(table["system"].unique()) == OWN["lightweight_fusion"] and table["clip"].nunique() == 2
    best = own_clips.top(table, protocol.load(check("lightweight_fusion", place).condition), "li2017/audio")  # type: ignore[attr-defined]
    assert [row[:2] for row in best] == [["00.mp4", "low"], ["01.mp4", "high"]]
    row = table[(table["clip"] == "00.mp4") & (table["system"] == "li2017/audio")].iloc[0]
    assert best[0][2].startswith(f"{row['label']} {row['score']:.2f}, ") and row["score"] == table["score"][:17].max()
