"""The chapter on Fayek and Kumar (2020) as a person runs it: seeds, rows of its tables, clips that lack a modality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from chapters import avrepro, clips_that_lack_a_modality, of_today, papermill, text_of, tones_and_colours

from avrepro.experiments import fayek2020
from avrepro.experiments.fayek2020_checkpoint import CheckpointError, load_models
from avrepro.parameters import AttentionFusion

CHAPTER = "attention_fusion"
ALONE = {"audio", "visual", "average", "attention"}  # what every run has


def test_plain_papermill_with_another_seed_and_a_row_of_a_table_adds_its_numbers(tmp_path: Path) -> None:
    chosen = {0: "mlp", 3: "gblend"}
    for seed, system in chosen.items():
        output = tmp_path / f"{seed}.ipynb"
        done = papermill(CHAPTER, output, seed=seed, system=system, profile="ci")
        assert done.returncode == 0, done.stderr[-3000:]
        assert "demo, profile ci" in text_of(output)
    numbers = of_today(CHAPTER, corpus="demo").query("split == 'test' and metric == 'map'")
    by_seed = {
        seed: numbers.query("seed == @seed and chosen == @system").set_index("system")["value"].to_dict()
        for seed, system in chosen.items()
    }
    assert {seed: set(values) for seed, values in by_seed.items()} == {
        seed: ALONE | {system} for seed, system in chosen.items()
    }
    assert all(0 < value < 1 for values in by_seed.values() for value in values.values())
    assert by_seed[0]["audio"] != by_seed[3]["audio"]
    shown = avrepro("results", "--format", "markdown", "--chapter", CHAPTER)
    assert all(f"| {run} | {CHAPTER} |" in shown.stdout for run in numbers["run"].unique())


def test_a_wrong_system_is_refused_before_anything_runs(tmp_path: Path) -> None:
    done = avrepro("run", CHAPTER, "-p", "system=g_blend", "--output", str(tmp_path / "out.ipynb"))
    assert done.returncode == 2
    assert "system = 'g_blend': Input should be 'all', 'audio', 'visual'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_few_own_clips_are_scored_by_what_they_have(tmp_path: Path, mirror: Path) -> None:
    """A clip without pictures is heard as the one that its sound is of, one without sound is seen likewise."""
    words, heard, seen = clips_that_lack_a_modality(tmp_path, mirror)
    output = tmp_path / "own.ipynb"
    done = avrepro("run", CHAPTER, *words, "--output", str(output))
    assert done.returncode == 0, done.stderr[-3000:]

    assert "1 clips without usable sound are scored by the other: silent.mp4" in done.stderr
    assert "1 clips without usable pictures are scored by the other: sound.m4a" in done.stderr
    told = text_of(output)
    assert "8 own clips scored by the checkpoint attention-fusion-" in told
    table = dict(parts for line in told.splitlines() if len(parts := line.split("\t", 1)) == 2)
    cells = {name: row.split("\t") for name, row in table.items()}  # labels, heard, seen, attention, its weight
    assert cells["sound.m4a"][1] == cells[heard][1] and cells["silent.mp4"][2] == cells[seen][2] != cells[heard][2]
    assert all(0 <= float(cells[name][4]) <= 1 for name in (heard, seen, "sound.m4a", "silent.mp4"))
    assert "0 bytes" in table["empty.mp4"]
    assert told.count("the clips are too few to train on, they were scored by a checkpoint") > 5
    assert "folder, profile ci" not in told.split("Passport of run")[0]
    counted = of_today(CHAPTER, corpus="folder").query("metric == 'clips'")
    assert (8.0, 1) in {(row.value, row.missing) for row in counted.itertuples()}

    own = {"clips": str(tmp_path / "my clips"), "labels": str(tmp_path / "labels.csv")}
    inputs = fayek2020.load_inputs(AttentionFusion(corpus="folder", profile="ci", **own))
    systems = fayek2020.run_systems(inputs)
    row = {clip.id: number for number, clip in enumerate(inputs.corpus.clips)}
    assert np.array_equal(inputs.log_mel[row["silent.mp4"]], inputs.silence)
    assert np.array_equal(inputs.pictures[row["sound.m4a"]], inputs.black)
    for name, whole, part, other in (("audio", heard, "sound.m4a", seen), ("visual", seen, "silent.mp4", heard)):
        said = systems.scores[name]
        away = [np.abs(said[row[part]] - said[row[one]]).max() for one in (whole, other)]
        assert away[0] < 1e-6 < away[1], name


def test_thirty_own_clips_are_trained_on(tmp_path: Path) -> None:
    """Tones and colours that say the label."""
    output = tmp_path / "own.ipynb"
    words = [*tones_and_colours(tmp_path), "-p", "system=mlp", "--output", str(output)]
    done = avrepro("run", CHAPTER, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    told = text_of(output)
    assert "folder, profile ci" in told and "own clips scored by the checkpoint" not in told


def test_a_dry_run_shows_no_numbers(tmp_path: Path) -> None:
    output = tmp_path / "dry.ipynb"
    done = avrepro("run", CHAPTER, "-p", "dry=true", "-p", "profile=ci", "--output", str(output))
    assert done.returncode == 0, done.stderr[-3000:]
    told = text_of(output)
    assert told.count("A dry run: two training steps on a few clips") > 5
    assert "demo, profile ci" not in told.split("Passport of run")[0]


def test_a_checkpoint_of_other_features_is_refused(tmp_path: Path) -> None:
    """The paper's features do not fit a checkpoint that knows the stand-ins'."""
    made = fayek2020.checkpoint(AttentionFusion(profile="ci", device="cpu"))
    kept = torch.load(made, weights_only=True)
    assert load_models(made, kept["features"]).classes == tuple(kept["classes"])
    other, broken = tmp_path / "other.pt", tmp_path / "broken.pt"
    torch.save({**kept, "features": {**kept["features"], "pictures": ["resnet152", 64, []]}}, other)
    broken.write_bytes(made.read_bytes()[:500])
    for path in (broken, tmp_path / "absent.pt"):
        with pytest.raises(CheckpointError, match="expected a checkpoint of both models") as caught:
            load_models(path, kept["features"])
        assert str(caught.value).startswith(f"{path}: ")

    words = tones_and_colours(tmp_path, 2)
    done = avrepro("run", CHAPTER, *words, "-p", f"checkpoint={other}", "--output", str(tmp_path / "out.ipynb"))
    assert done.returncode == 1
    assert f"{other}: it was trained on features" in done.stderr and "resnet152" in done.stderr
    assert "this run's are" in done.stderr and "efficientnet-lite0" in done.stderr
    assert "Use its profile" in done.stderr
