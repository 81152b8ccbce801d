"""Real recordings: ESC-10's folds, and committed results that are today's and can be measured again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from avrepro import digests
from avrepro.corpora import load
from avrepro.corpora.base import CorpusError
from avrepro.corpora.esc10 import folds, load_esc10
from avrepro.corpora.paired import paired_digest, published_folder
from avrepro.corpora.paired_items import read_items
from avrepro.experiments.real_recordings import CODE, SEEDS, nearest_events, photographs, replace_results
from avrepro.manifests import manifest_path
from avrepro.report import origin
from avrepro.report.real_recordings import NAMES, real_recordings
from avrepro.results import COMMITTED, Results, is_stale, read

# What the measurements import besides, and why no number depends on it.
NO_NUMBER = {
    "avrepro": "sets how threads wait",
    "avrepro.cli": "words of the command line",
    "avrepro.corpora": "chooses the loader",
    "avrepro.digests": "tells what a number depends on",
    "avrepro.evaluation": "names alone",
    "avrepro.experiments": "names alone",
    "avrepro.features": "names alone",
    "avrepro.fetch": "a file is what its hash says",
    "avrepro.files": "writes whole files",
    "avrepro.home": "where the cache is",
    "avrepro.manifests": "a file is what its hash says",
    "avrepro.models": "names alone",
    "avrepro.models.backbones": "hands on to models.efficientnet",
    "avrepro.models.caffenet": "not among the networks used",
    "avrepro.parameters": "the parameters themselves are in the digest",
    "avrepro.progress": "tells how far it is",
    "avrepro.results": "writes the numbers down",
    "avrepro.corpora.folder": "not the corpus used",
}


@pytest.fixture(scope="module")
def committed() -> Results:
    return read(folders=(COMMITTED,))


def test_committed_results_are_todays(committed: Results) -> None:
    runs = committed.table.drop_duplicates("run")
    stale = [f"{row.corpus}, run {row.run}" for row in runs.itertuples() if is_stale(runs.loc[row.Index])]
    assert not stale, f"{stale} are older than their code: avrepro results --measure"
    assert set(runs["corpus"]) == set(NAMES)
    assert {json.loads(text)["profile"] for text in runs["parameters"]} == {"demo"}


def test_a_stale_committed_number_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    results = real_recordings()["esc10"]
    assert origin(results) == "esc10, profile demo"
    monkeypatch.setattr(digests, "code", lambda *parts: "code of tomorrow")
    assert origin(results) == "esc10, profile demo, stale: measured with older code"


def test_committed_results_name_all_code_that_they_depend_on() -> None:
    script = (
        "import avrepro.experiments.real_recordings, sys; print(*[m for m in sys.modules if m.startswith('avrepro')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=digests.ROOT)
    for module in done.stdout.split():
        relative = "/".join(module.split(".")[1:]) + ".py"
        assert relative in CODE or module in NO_NUMBER, f"{module}: add it to CODE, or to NO_NUMBER with the reason"
    assert not {name.removesuffix(".py").replace("/", ".") for name in CODE} & {
        name.removeprefix("avrepro.") for name in NO_NUMBER
    }


def test_a_new_measurement_leaves_no_number_of_an_older_one(tmp_path: Path) -> None:
    folder, fresh = tmp_path / "results", tmp_path / "fresh"
    shutil.copytree(COMMITTED, folder)
    (folder / "another_chapter-0.parquet").write_bytes(b"of somebody else")
    fresh.mkdir()
    kept, changed = sorted(folder.glob("lightweight_fusion-*.parquet"))[:2]
    shutil.copy(kept, fresh / kept.name)
    shutil.copy(changed, fresh / "lightweight_fusion-new.parquet")
    replace_results(folder, fresh)
    there = {path.name for path in folder.iterdir()}
    assert there == {"another_chapter-0.parquet", kept.name, "lightweight_fusion-new.parquet"}
    assert (folder / "lightweight_fusion-new.parquet").read_bytes() == (COMMITTED / changed.name).read_bytes()


def test_committed_means_are_those_of_the_seeds(committed: Results) -> None:
    paired = committed.select(corpus="paired", split="test")
    mean = real_recordings()["paired"]
    single = paired[paired["run"] != mean.passport()["run"]]
    assert sorted(single["seed"].unique()) == list(SEEDS)
    for system in ("audio", "fused"):
        values = single[(single["system"] == system) & (single["metric"] == "micro_f1")]["value"]
        assert len(values) == len(SEEDS)
        assert mean.number(system, "micro_f1", "test").value == pytest.approx(values.mean(), abs=1e-12)
    gains = (
        single[(single["system"] == "fused") & (single["metric"] == "micro_f1_gain")]
        .set_index("seed")["value"]
        .sort_index()
    )
    scores = single[single["metric"] == "micro_f1"].pivot(index="seed", columns="system", values="value")
    pd.testing.assert_series_equal(gains, scores["fused"] - scores["audio"], check_names=False)


def test_the_committed_clips_are_those_that_are_here(mirror: Path, committed: Results) -> None:
    told = committed.table.drop_duplicates("run").set_index("run")
    table = manifest_path("paired.csv")
    items = read_items(published_folder(table), table)
    for seed in SEEDS:
        rows = told[(told["corpus"] == "paired") & (told["seed"] == seed)]
        assert paired_digest(items, seed, 60) in set(rows["corpus_digest"])
    assert load_esc10().digest in set(told["corpus_digest"])
    assert photographs().digest in set(told["corpus_digest"])


def test_photographs_give_the_committed_numbers_again(mirror: Path) -> None:
    results = real_recordings()["paired, photographs"]
    whole = photographs()
    for label in ("Bicycle", "Train"):
        part = replace(whole, clips=tuple(clip for clip in whole.clips if clip.labels == (label,)))
        for system, found in nearest_events(part, torch.device("cpu")).items():
            share = np.mean(found == whole.classes.index(label))
            told = results.number(system, "class_accuracy", "test", label).value
            assert share == pytest.approx(told, abs=1.01 / len(part.clips))  # one may tip over on another processor


def test_esc10(mirror: Path, tmp_path: Path) -> None:
    corpus = load_esc10()
    assert (len(corpus.clips), len(corpus.classes)) == (400, 10)
    assert (corpus.targets().sum(axis=0) == 40).all() and (corpus.targets().sum(axis=1) == 1).all()
    assert np.bincount(folds(corpus)).tolist() == [0, 80, 80, 80, 80, 80]
    for fold in range(1, 6):  # eight recordings of each class in each fold
        assert (corpus.targets()[folds(corpus) == fold].sum(axis=0) == 8).all()
    sources = {clip.path.name.split("-")[1]: set() for clip in corpus.clips}
    for clip, fold in zip(corpus.clips, folds(corpus), strict=True):
        sources[clip.path.name.split("-")[1]].add(int(fold))
    assert all(len(found) == 1 for found in sources.values())  # no source recording is in two folds

    with pytest.raises(CorpusError, match="leave labels out"):
        load("esc10", labels="labels.csv")
    some = tmp_path / "some" / "rain"
    some.mkdir(parents=True)
    with pytest.raises(CorpusError, match="holds no recordings"):
        load_esc10(tmp_path / "some")
    shutil.copy(corpus.clips[0].path, some / "rain.ogg")
    with pytest.raises(CorpusError, match=r"rain\.ogg: expected a name that begins with its fold"):
        load_esc10(tmp_path / "some")
    (some / "rain.ogg").rename(some / "2-1-A.ogg")
    assert load_esc10(tmp_path / "some").classes == ("rain",)
