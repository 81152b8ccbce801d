"""Committed results: today's, complete, and to be measured again; and the real recordings they are of."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from avrepro import digests
from avrepro.corpora import load
from avrepro.corpora.base import CorpusError
from avrepro.corpora.demo.description import load_world_description
from avrepro.corpora.demo.scenes import choose
from avrepro.corpora.demo.world import world_digest
from avrepro.corpora.esc10 import folds, load_esc10
from avrepro.corpora.paired import paired_digest, published_folder
from avrepro.corpora.paired_items import read_items
from avrepro.experiments import fayek2020, fayek2020_measured, parekh2018_measured, side_by_side_measured
from avrepro.experiments import real_recordings as li2017_measured
from avrepro.experiments.parekh2018 import SYSTEMS
from avrepro.experiments.real_recordings import SEEDS, nearest_events, photographs, replace_results
from avrepro.manifests import manifest_path
from avrepro.report import fayek2020 as report_fayek2020
from avrepro.report import origin, parekh2018
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
NO_NUMBER_OF = {
    li2017_measured: NO_NUMBER,
    parekh2018_measured: {
        **NO_NUMBER,
        "avrepro.experiments.li2017_profiles": "sizes of the other chapter's runs",
        "avrepro.experiments.parekh2018_located": "what was planted, which no committed number tells of",
        "avrepro.features.key_frames": "the other chapter's",
        "avrepro.features.objects": "the other chapter's",
        "avrepro.features.words": "the other chapter's",
        "avrepro.models.li2017": "the other chapter's",
    },
    fayek2020_measured: {
        **NO_NUMBER,
        "avrepro.corpora.audioset": "not the corpus used; classes of the simulated one are in its digest",
        "avrepro.corpora.download": "not the corpus used",
        "avrepro.corpora.simulated": "of the simulated corpus alone, whose results name it",
        "avrepro.corpora.statistics": "not the corpus used",
        "avrepro.corpora.tables": "not the corpus used",
        "avrepro.corpora.youtube": "not the corpus used",
        "avrepro.cutting": "not the corpus used",
        "avrepro.evaluation.thresholds": "another chapter's: nothing is decided here",
        "avrepro.experiments.li2017_profiles": "sizes of another chapter's runs",
        "avrepro.features.key_frames": "another chapter's",
        "avrepro.features.objects": "the type of a network alone",
        "avrepro.features.words": "another chapter's",
        "avrepro.models.protobuf": "another chapter's networks",
        "avrepro.models.tensorflow_checkpoint": "another chapter's networks",
        "avrepro.models.yamnet": "another chapter's network",
    },
    side_by_side_measured: {
        **NO_NUMBER,
        "avrepro.corpora.dcase2017": "names of classes that a claim may have",
        "avrepro.corpora.download": "not the corpus used",
        "avrepro.corpora.tables": "not the corpus used",
        "avrepro.corpora.youtube": "not the corpus used",
        "avrepro.cutting": "not the corpus used",
        "avrepro.experiments.fayek2020_checkpoint": "keeps models for clips too few to train on",
        "avrepro.models.vggish": "not among the networks used",
    },
}
CODE_OF = {
    li2017_measured: li2017_measured.CODE,
    parekh2018_measured: parekh2018_measured.DEMO,
    fayek2020_measured: fayek2020_measured.DEMO,
    side_by_side_measured: side_by_side_measured.PARTS,
}
LATE = {side_by_side_measured: ("side_by_side_beyond", "side_by_side_costs")}  # what is imported as it is needed


@pytest.fixture(scope="module")
def committed() -> Results:
    return read(folders=(COMMITTED,))


def test_committed_results_are_todays(committed: Results) -> None:
    runs = committed.table.drop_duplicates("run")
    stale = [f"{row.corpus}, run {row.run}" for row in runs.itertuples() if is_stale(runs.loc[row.Index])]
    assert not stale, f"{stale} are older than their code: avrepro results --measure"
    found = {chapter: set(rows["corpus"]) for chapter, rows in runs.groupby("chapter")}
    assert found == {
        "lightweight_fusion": set(NAMES),
        "unsynchronized_mil": {"demo", "paired"},
        "attention_fusion": {"demo", "paired", "simulated-audioset"},
        "side_by_side": {"demo", "demo-null", "paired"},
    }
    profiles = {one: set(rows["profile"]) for one, rows in runs.groupby(runs["corpus"] == "simulated-audioset")}
    assert profiles == {False: {"demo"}, True: {"paper"}}


def test_a_stale_committed_number_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    results = real_recordings()["esc10"]
    assert origin(results) == "esc10, profile demo"
    monkeypatch.setattr(digests, "code", lambda *parts: "code of tomorrow")
    assert origin(results) == "esc10, profile demo, stale: measured with older code"


@pytest.mark.parametrize("measuring", CODE_OF, ids=lambda module: module.__name__.split(".")[-1])
def test_committed_results_name_all_code_that_they_depend_on(measuring: ModuleType) -> None:
    modules = [measuring.__name__, *(f"avrepro.experiments.{name}" for name in LATE.get(measuring, ()))]
    script = f"import {', '.join(modules)}, sys; print(*[m for m in sys.modules if m.startswith('avrepro')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=digests.ROOT)
    code, no_number = CODE_OF[measuring], NO_NUMBER_OF[measuring]
    for module in done.stdout.split():
        relative = "/".join(module.split(".")[1:]) + ".py"
        named = relative in code or relative.removesuffix(".py").startswith(code)  # a file, or in or of a folder
        assert named or module in no_number, f"{module}: add it to CODE, or to NO_NUMBER with the reason"
    assert not {name.removesuffix(".py").replace("/", ".") for name in code} & {
        name.removeprefix("avrepro.") for name in no_number
    }


def test_two_streams_were_measured_in_every_way(committed: Results) -> None:
    """Each seed of real recordings and their means, the gated CRNNs, and a world a gap: each once, and whole."""
    runs = committed.select(chapter=parekh2018.CHAPTER).drop_duplicates("run")
    told = [json.loads(text) for text in runs["parameters"]]
    ways = Counter((one["corpus"], one.get("measured", "one seed")) for one in told)
    assert ways == {("paired", "one seed"): 5, ("paired", "paired"): 1, ("demo", "cvssp"): 1, ("demo", "gap"): 4}
    assert sorted(one["seed"] for one in told if "measured" not in one) == [0, 1, 2, 3, 4]

    kept = parekh2018.committed()
    assert [parekh2018.gap_of(one) for one in kept.gaps] == [0.0, 3.0, 6.0, "never"]
    assert kept.paired is not None and kept.cvssp is not None
    cvssp = {"cvssp_fusion", "cvssp_gated_crnn"}
    of_gaps = {"two_stream", "synchronous", "audio_only"}
    scored = [(kept.paired, {*SYSTEMS, *cvssp, "class frequency"}), (kept.cvssp, cvssp)]
    for one, systems in [*scored, *((gap, of_gaps) for gap in kept.gaps)]:
        for metric, those in (("micro_f1", systems), ("micro_f1_lead", systems - {"two_stream"})):
            rows = one.select(metric=metric, split="test")
            assert set(rows["system"]) == those and len(rows) == len(those)
            assert (rows["low"] <= rows["value"]).all() and (rows["value"] <= rows["high"]).all()
    for one in (kept.paired, kept.cvssp):
        classes = one.select(metric="class_f1", split="test").groupby("system")["label"].nunique()
        assert set(classes) == {classes.iloc[0]} and classes.iloc[0] > 1
    planted = [one.number("corpus", "planted_gap", "test").value for one in kept.gaps]
    assert planted[0] < planted[1] < planted[2] and np.isnan(planted[3])


def test_attention_fusion_was_measured_in_every_way(committed: Results) -> None:
    """Each seed of real recordings and their means, other systems, and the simulated outputs: each once, and whole."""
    runs = committed.select(chapter=report_fayek2020.CHAPTER).drop_duplicates("run")
    told = [json.loads(text) for text in runs["parameters"]]
    ways = Counter((one["corpus"], one.get("measured", "one seed")) for one in told)
    assert ways == {
        ("paired", "one seed"): 5, ("paired", "paired"): 1, ("demo", "others"): 1,
        ("simulated-audioset", "simulated"): 1,
    }  # fmt: skip
    kept = report_fayek2020.committed()
    assert kept.paired is not None and kept.others is not None and kept.simulated is not None
    models = {"audio", "visual", "average", "attention"}
    for one, systems in (
        (kept.paired, {*fayek2020.SYSTEMS, *fayek2020.OTHERS}),
        (kept.others, {*models, *fayek2020.OTHERS}),
        (kept.simulated, set(fayek2020.SYSTEMS)),
    ):
        for metric, those in (("map", systems), ("map_lead", systems - {"attention"})):
            rows = one.select(metric=metric, split="test")
            assert set(rows["system"]) == those and len(rows) == len(those)
            assert (rows["low"] <= rows["value"]).all() and (rows["value"] <= rows["high"]).all()
    for name in ("audio", "visual"):  # what was simulated is what was planned
        found, planted = (kept.simulated.number(name, metric, "test").value for metric in ("map", "map_planted"))
        assert found == pytest.approx(planted, abs=0.02)


def test_the_committed_worlds_are_those_of_today(committed: Results) -> None:
    """What a world is made of besides code: its description and the libraries that draw it."""
    kept, world = parekh2018.committed(), load_world_description()
    others = report_fayek2020.committed().others
    assert kept.cvssp is not None and kept.gaps and others is not None
    for one, gap in ((others, None), (kept.cvssp, None), *((one, parekh2018.gap_of(one)) for one in kept.gaps)):
        chosen = choose(world, "demo", None, None, gap)  # type: ignore[arg-type]  # seconds or "never"
        assert one.passport()["corpus_digest"] == world_digest(world, "demo", *chosen, "demo")


def test_a_new_measurement_leaves_no_number_of_an_older_one(tmp_path: Path) -> None:
    folder, fresh = tmp_path / "results", tmp_path / "fresh"
    folder.mkdir()
    for path in COMMITTED.glob("lightweight_fusion-*.parquet"):
        shutil.copy(path, folder)
    (folder / "another_chapter-0.parquet").write_bytes(b"of somebody else")
    fresh.mkdir()
    kept, changed = sorted(folder.glob("lightweight_fusion-*.parquet"))[:2]
    shutil.copy(kept, fresh / kept.name)
    shutil.copy(changed, fresh / "lightweight_fusion-new.parquet")
    replace_results(folder, fresh)
    there = {path.name for path in folder.iterdir()}
    assert there == {"another_chapter-0.parquet", kept.name, "lightweight_fusion-new.parquet"}
    assert (folder / "lightweight_fusion-new.parquet").read_bytes() == (COMMITTED / changed.name).read_bytes()


# chapter, the system that is proposed, those it is compared with, the metric of the difference and that of the score
OF_TWO_STREAMS = ("audio_only", "one_stream", "synchronous", "cvssp_fusion")
MEANS = (
    ("lightweight_fusion", "fused", ("audio",), "micro_f1_gain", "micro_f1"),
    ("unsynchronized_mil", "two_stream", OF_TWO_STREAMS, "micro_f1_lead", "micro_f1"),
    ("attention_fusion", "attention", ("audio", "average", "mlp", "gblend"), "map_lead", "map"),
)


@pytest.mark.parametrize(("chapter", "ahead", "others", "metric", "score"), MEANS, ids=[one[0] for one in MEANS])
def test_committed_means_are_those_of_the_seeds(
    committed: Results, chapter: str, ahead: str, others: tuple[str, ...], metric: str, score: str
) -> None:
    paired = committed.select(chapter=chapter, corpus="paired", split="test")
    of_seeds = paired["parameters"].map(lambda text: "seeds" in json.loads(text))
    mean, single = Results(paired[of_seeds]), paired[~of_seeds]
    assert sorted(single["seed"].unique()) == list(SEEDS)
    for system in (ahead, *others):
        values = single[(single["system"] == system) & (single["metric"] == score)]["value"]
        assert len(values) == len(SEEDS)
        assert mean.number(system, score, "test").value == pytest.approx(values.mean(), abs=1e-12)
    scores = single[single["metric"] == score].pivot(index="seed", columns="system", values="value")
    differences = single[single["metric"] == metric].pivot(index="seed", columns="system", values="value")
    for system in others:  # a difference is noted with the fused system there, and with the other one here
        noted = differences[ahead if ahead in differences else system]
        pd.testing.assert_series_equal(noted, scores[ahead] - scores[system], check_names=False)


def test_the_committed_clips_are_those_that_are_here(mirror: Path, committed: Results) -> None:
    told = committed.table.drop_duplicates("run").set_index("run")
    table = manifest_path("paired.csv")
    items = read_items(published_folder(table), table)
    paired = told[told["corpus"] == "paired"]
    for seed in SEEDS:
        digest = paired_digest(items, seed, 60)
        chapters = {"lightweight_fusion", "unsynchronized_mil", "attention_fusion"}
        assert set(paired[paired["corpus_digest"] == digest]["chapter"]) == chapters
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
    sources: dict[str, set[int]] = {clip.path.name.split("-")[1]: set() for clip in corpus.clips}
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
