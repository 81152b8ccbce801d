"""The chapter on Parekh et al. (2018) as a person runs it: seeds, another system, own clips that lack a modality."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from chapters import avrepro, clips_that_lack_a_modality, of_today, papermill, text_of, tones_and_colours

from avrepro.corpora.base import Clip, Corpus
from avrepro.experiments import parekh2018
from avrepro.experiments.parekh2018_profiles import PROFILES
from avrepro.experiments.parekh2018_training import CheckpointError, train
from avrepro.models.parekh2018 import Bags, MILConfig
from avrepro.parameters import UnsynchronizedMIL

CHAPTER = "unsynchronized_mil"
SYSTEM_OF_FIGURES = r"system (\w+ stream|audio only|video only|wsddn): score"


def test_plain_papermill_with_another_seed_adds_its_numbers(tmp_path: Path) -> None:
    chosen = {0: "one_stream", 3: "two_stream"}
    for seed, system in chosen.items():
        output = tmp_path / f"{seed}.ipynb"
        done = papermill(CHAPTER, output, seed=seed, system=system, profile="ci")
        assert done.returncode == 0, done.stderr[-3000:]
        assert systems_of_figures(output) <= {system.replace("_", " ")}  # a seed may decide no clip rightly
    numbers = of_today(CHAPTER, corpus="demo").query("split == 'test' and metric == 'micro_f1'")
    by_seed = {
        seed: numbers.query("seed == @seed and chosen == @system").set_index("system")["value"].to_dict()
        for seed, system in chosen.items()
    }
    for values in by_seed.values():  # all systems are trained, whichever is drawn
        assert set(values) == {*parekh2018.SYSTEMS, "class frequency"}
    assert any(by_seed[0][system] != by_seed[3][system] for system in parekh2018.SYSTEMS)
    shown = avrepro("results", "--format", "markdown", "--chapter", CHAPTER)
    assert all(f"| {run} | {CHAPTER} |" in shown.stdout for run in numbers["run"].unique())


def test_a_wrong_system_is_refused_before_anything_runs(tmp_path: Path) -> None:
    done = avrepro("run", CHAPTER, "-p", "system=three_stream", "--output", str(tmp_path / "out.ipynb"))
    assert done.returncode == 2
    assert (
        "system = 'three_stream': Input should be 'two_stream', 'audio_only', 'video_only', 'wsddn' or" in done.stderr
    )
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
    assert "8 own clips scored by the checkpoint parekh2018-two-stream-" in told
    table = dict(parts for line in told.splitlines() if len(parts := line.split("\t", 1)) == 2)
    cells = {name: row.split("\t") for name, row in table.items()}  # labels, heard most, seen most, said
    assert cells["sound.m4a"][1:3] == [cells[heard][1], "nothing"]
    assert cells["silent.mp4"][1:3] == ["nothing", cells[seen][2]]
    assert cells["sound.m4a"][1] != cells[seen][1]
    assert "0 bytes" in table["empty.mp4"]
    assert told.count("Figure 3 (") == 8 and systems_of_figures(output) == {"two stream"}
    counted = of_today(CHAPTER, corpus="folder").query("metric == 'clips'")
    assert (8.0, 1) in {(row.value, row.missing) for row in counted.itertuples()}


def test_thirty_own_clips_are_trained_on(tmp_path: Path) -> None:
    """Tones and colours that say the label; the pictures are plain, so that no frame has edges."""
    output = tmp_path / "own.ipynb"
    words = [*tones_and_colours(tmp_path), "-p", "system=one_stream", "--output", str(output)]
    done = avrepro("run", CHAPTER, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    told = text_of(output)
    assert "Table 1. Micro-averaged F1" in told and "folder, profile ci" in told
    assert systems_of_figures(output) == {"one stream"}


def test_a_dry_run_shows_no_numbers(tmp_path: Path) -> None:
    output = tmp_path / "dry.ipynb"
    done = avrepro("run", CHAPTER, "-p", "dry=true", "-p", "profile=ci", "--output", str(output))
    assert done.returncode == 0, done.stderr[-3000:]
    told = text_of(output)
    assert told.count("A dry run: two training steps on a few clips") > 5
    assert "Table 1. " not in told and not systems_of_figures(output)
    ours = told.split("Passport of run")[0].replace("demo, profile demo", "")  # that is what is kept with the book
    assert "demo, profile ci" not in ours.partition("Does Table 1")[2]
    assert "%" not in ours.partition("Does Table 1")[0]


def test_a_checkpoint_of_other_features_is_refused(tmp_path: Path) -> None:
    """The paper's features do not fit a checkpoint that knows the stand-ins', nor the other way round."""
    rng = np.random.default_rng(0)
    bags = [Bags.of([rng.normal(size=(3, width)).astype(np.float32) for _ in range(8)]) for width in (4, 3)]
    clips = [Clip(str(row), tmp_path, "train" if row < 6 else "validation", ("low",)) for row in range(8)]
    made = Corpus("made", ("low", "high"), tuple(clips), (), "made")
    config = MILConfig(classes=2, region_features=4, segment_features=3, region_units=5, segment_units=5)
    features: dict[str, object] = {"image": ["caffenet", None, 6], "audio": "vggish"}
    profile = replace(PROFILES["ci"], steps=1)
    trained = train("two_stream", config, made, (bags[0], bags[1]), profile, 0, torch.device("cpu"), features)

    tones_and_colours(tmp_path, 2)
    broken = tmp_path / "broken.pt"
    broken.write_bytes(trained.path.read_bytes()[:500])
    for path, told in (
        (trained.path, r"trained on features .*caffenet.*vggish.*, this run's are .*efficientnet-lite0.* Use its prof"),
        (broken, "expected a checkpoint of a system .*, found something else"),
        (tmp_path / "absent.pt", "expected a checkpoint of a system .*, found something else"),
    ):
        given = {"clips": str(tmp_path), "labels": str(tmp_path / "labels.csv"), "checkpoint": str(path)}
        checked = {"corpus": "folder", "profile": "ci", "device": "cpu", **given}
        inputs = parekh2018.load_inputs(UnsynchronizedMIL.model_validate(checked))
        with pytest.raises(CheckpointError, match=told) as caught:
            parekh2018.run_systems(inputs)
        assert str(caught.value).startswith(f"{path}: ")
    trained.path.unlink()


def systems_of_figures(notebook: Path) -> set[str]:
    """The systems that the captions of figures 3 and 4 and of the players name."""
    return set(pd.Series([text_of(notebook)]).str.extractall(SYSTEM_OF_FIGURES)[0])
