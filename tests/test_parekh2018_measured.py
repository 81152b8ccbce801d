"""What is measured once and committed: the measurements themselves, on clips so few that they take seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from test_paired import make_items

from avrepro import corpora
from avrepro.corpora.base import Clip, Corpus
from avrepro.corpora.demo import world
from avrepro.corpora.demo.description import Sizes, load_world_description
from avrepro.encode import write_clip
from avrepro.evaluation import tune_thresholds
from avrepro.experiments import gated_crnn, parekh2018
from avrepro.experiments import parekh2018_measured as measured
from avrepro.experiments.parekh2018 import Inputs, describe, run_systems
from avrepro.experiments.parekh2018_evaluation import decisions
from avrepro.features.store import extract
from avrepro.fetch import FetchError, fetch
from avrepro.home import home as home_of
from avrepro.models.parekh2018 import Bags
from avrepro.parameters import UnsynchronizedMIL
from avrepro.results import Results, is_stale

pytestmark = pytest.mark.usefixtures("one_thread")

CVSSP = ("cvssp_gated_crnn", "cvssp_fusion")
LEARNT = ("two_stream", "audio_only", "video_only", "wsddn", "one_stream", "synchronous")
OLD, OTHER = "unsynchronized_mil-0123456789abcdef.parquet", "lightweight_fusion-0123456789abcdef.parquet"


class Measured(NamedTuple):
    folder: Path
    written: list[Results]
    given: Any  # UnsynchronizedMIL with the sizes of these tests

    def of(self, what: str) -> Results:
        found = [one for one in self.written if json.loads(one.passport()["parameters"]).get("measured") == what]
        assert len(found) == 1
        return found[0]

    @property
    def seeds(self) -> list[Results]:
        """Each seed of the real sounds and photographs by itself."""
        return [one for one in self.written if "measured" not in json.loads(one.passport()["parameters"])]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    """Two seeds of tones over plain pictures, one world with a gap, a dozen clips each; all else as it is measured."""
    try:
        fetch("yamnet")
    except FetchError as error:
        pytest.skip(f"the weights of YAMNet cannot be had: {error}")
    home, items, folder = (tmp_path_factory.mktemp(name) for name in ("home", "items", "measured"))
    if (home_of() / "downloads").is_dir():
        (home / "downloads").symlink_to(home_of() / "downloads")
    make_items(items)
    sizes = Sizes(train=5, validation=3, test=4)
    described = load_world_description().model_copy(update={"profiles": {"ci": sizes, "demo": sizes}})
    load = corpora.load

    def given(**parameters: Any) -> UnsynchronizedMIL:
        clips = str(items) if parameters.get("corpus") == "paired" else ""
        return UnsynchronizedMIL(profile="ci", clips=clips, **parameters)

    for name in (OLD, OTHER):
        (folder / name).write_bytes(b"of before")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVREPRO_HOME", str(home))
        patch.setattr(corpora, "load", partial(load, jobs=1))  # processes take longer to start than to render this
        patch.setattr(corpora, "PAIRED_SIZES", {"ci": {"clips_per_class": 3}})
        patch.setattr(world, "load_world_description", lambda: described)
        patch.setattr(parekh2018, "FEWEST", 8)
        patch.setattr(parekh2018, "_seconds_per_clip", lambda *_: 0.0)  # it does the features of eight clips anew
        patch.setattr(measured, "UnsynchronizedMIL", given)
        patch.setattr(measured, "SEEDS", (0, 1))
        patch.setattr(measured, "GAPS", (2.0,))
        patch.setattr(measured, "GAP_SEEDS", (0, 1))
        yield Measured(folder, list(measured.measure(folder)), given)


def micro_f1(truth: np.ndarray, found: np.ndarray) -> float:
    return float(2 * (truth & found).sum() / (truth.sum() + found.sum()))


# --- files ------------------------------------------------------------------------------------------------


def test_a_new_measurement_replaces_the_old_files(small: Measured) -> None:
    runs = [f"unsynchronized_mil-{one.passport()['run']}.parquet" for one in small.written]
    assert len(set(runs)) == len(runs) == 5  # two seeds and their mean, the gated CRNNs, one gap
    assert {path.name for path in small.folder.iterdir()} == {OTHER, *runs}
    table = pd.concat([one.table for one in small.written])
    kept = pd.concat([pd.read_parquet(small.folder / name) for name in runs])
    pd.testing.assert_frame_equal(kept.reset_index(drop=True), table.reset_index(drop=True))


def test_what_was_there_stays_until_all_is_measured(small: Measured, tmp_path: Path) -> None:
    (tmp_path / OLD).write_bytes(b"of before")
    first = next(measured.measure(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {OLD, f"unsynchronized_mil-{first.passport()['run']}.parquet"}


def test_passports_say_what_was_measured(small: Measured) -> None:
    for one in small.written:
        passport = one.passport()
        told, parts = json.loads(passport["parameters"]), json.loads(passport["parts"])
        on_demo = passport["corpus"] == "demo"
        assert passport["chapter"] == "unsynchronized_mil" and told["profile"] == "ci" and told["audio_network"]
        assert tuple(parts) == (measured.DEMO if on_demo else measured.CODE)
        assert not is_stale(one.table.iloc[0])
    seeds = {what: json.loads(small.of(what).passport()["parameters"])["seeds"] for what in ("paired", "cvssp", "gap")}
    assert seeds == {"paired": [0, 1], "cvssp": [0], "gap": [0, 1]}
    assert json.loads(small.of("gap").passport()["parameters"])["gap"] == 2.0
    assert [one.passport()["seed"] for one in small.seeds] == [0, 1]


# --- numbers ----------------------------------------------------------------------------------------------


def test_means_over_seeds_are_those_of_the_seeds(small: Measured) -> None:
    first, second = (one.select(split="test").set_index(["system", "metric", "label"])["value"] for one in small.seeds)
    mean = small.of("paired")
    assert set(mean.table["split"]) == {"test"} and len(mean.table) == len(set(first.index) | set(second.index))
    assert {*LEARNT, *CVSSP, "class frequency"} == set(mean.table["system"])
    assert {"micro_f1", "micro_precision", "micro_recall", "class_f1", "micro_f1_lead"} == set(mean.table["metric"])
    differ = 0
    for row in mean.table.itertuples():
        a, b = float(first[row.system, row.metric, row.label]), float(second[row.system, row.metric, row.label])
        assert row.value == pytest.approx((a + b) / 2)
        half = scipy.stats.t.ppf(0.975, 1) * abs(a - b) / 2  # of two numbers the standard error is half their distance
        assert (row.low, row.high) == pytest.approx(((a + b) / 2 - half, (a + b) / 2 + half))
        assert row.threshold_rule and "2 seeds" in row.interval
        differ += a != b
    assert differ > 10
    clips = [int(one.number("corpus", "clips").value) for one in small.seeds]
    assert set(mean.table["clips"]) == {sum(set(one.select(split="test")["clips"]).pop() for one in small.seeds)}
    assert min(clips) >= 8


def test_the_gated_networks_are_decided_like_all_others(small: Measured) -> None:
    """From the checkpoints of the networks: thresholds tuned on validation, and the lead of two streams."""
    inputs = parekh2018.load_inputs(small.given())
    targets = inputs.corpus.targets()
    rows, validation = inputs.rows("test"), inputs.rows("validation")
    proposed = decisions(inputs, run_systems(inputs, ("two_stream",)))["two_stream"][rows]
    log_mel, _ = extract(gated_crnn.log_mel_feature(), inputs.corpus)
    results = small.of("cvssp")
    assert set(results.table["system"]) == set(CVSSP) and set(results.table["split"]) == {"test"}
    sizes, device = gated_crnn.PROFILES["ci"], torch.device("cpu")
    trained = gated_crnn.train_fusion(inputs.corpus, log_mel, sizes, 0, device)  # found again
    members = [torch.load(path, weights_only=True)["scores"].numpy() for path in trained.paths]
    for name, scores in (("cvssp_gated_crnn", members[0]), ("cvssp_fusion", trained.scores)):
        found = (scores >= tune_thresholds(targets[validation], scores[validation]))[rows]
        value = micro_f1(targets[rows], found)
        assert results.number(name, "micro_f1", "test").value == pytest.approx(value)
        lead = results.number(name, "micro_f1_lead", "test").value
        assert lead == pytest.approx(micro_f1(targets[rows], proposed) - value)
        for k, label in enumerate(inputs.corpus.classes):
            both = targets[rows, k].sum() + found[:, k].sum()
            expected = 2 * (targets[rows, k] & found[:, k]).sum() / both if both else 0
            assert results.number(name, "class_f1", "test", label).value == pytest.approx(expected)


def test_trainings_in_one_world_are_counted_together(small: Measured) -> None:
    results = small.of("gap")
    corpus = corpora.load("demo", gap=2.0)
    hits, predicted, positive = dict.fromkeys(measured.OF_GAPS, 0), dict.fromkeys(measured.OF_GAPS, 0), 0
    for seed in (0, 1):
        inputs = describe(small.given(seed=seed), corpus)
        systems = run_systems(inputs, measured.OF_GAPS)
        for row, clip in enumerate(corpus.clips):
            if clip.split != "test":
                continue
            positive += len(clip.labels)
            for name in measured.OF_GAPS:
                said = systems.scores[name][row] >= systems.trained[name].thresholds
                predicted[name] += int(said.sum())
                hits[name] += sum(bool(said[corpus.classes.index(label)]) for label in clip.labels)
    f1 = {name: 2 * hits[name] / (predicted[name] + positive) for name in measured.OF_GAPS}
    for name, value in f1.items():
        assert results.number(name, "micro_f1", "test").value == pytest.approx(value)
        if name != "two_stream":
            assert results.number(name, "micro_f1_lead", "test").value == pytest.approx(f1["two_stream"] - value)
    assert len(results.table) == 6

    assert corpus.strong is not None
    events, sights = pd.read_csv(corpus.strong / "sound.csv"), pd.read_parquet(corpus.strong / "sight.parquet")
    gaps = []
    for event in events[events["clip"].isin([clip.id for clip in corpus.clips if clip.split == "test"])].itertuples():
        own = sights[(sights["clip"] == event.clip) & (sights["label"] == event.label) & (sights["visible"] >= 0.1)]
        if len(own):
            gaps.append(abs(own["frame"].min() / 12 - event.onset))
    assert results.number("corpus", "planted_gap", "test").value == pytest.approx(np.mean(gaps))
    assert gaps


# --- clips without sound ----------------------------------------------------------------------------------


def test_the_gated_networks_need_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    frames = np.zeros((4, 32, 48, 3), np.uint8)
    write_clip(tmp_path / "heard.mp4", frames, 4, np.full(16_000, 0.1, np.float32), 16_000)
    with av.open(str(tmp_path / "heard.mp4")) as origin, av.open(str(tmp_path / "mute.mp4"), "w") as made:
        target = made.add_stream_from_template(origin.streams.video[0])
        for packet in origin.demux(video=0):
            if packet.dts is not None:
                packet.stream = target
                made.mux(packet)
    clips = tuple(Clip(name, tmp_path / f"{name}.mp4", "train", ()) for name in ("heard", "mute"))
    bags = Bags.of([np.zeros((1, 1), np.float32)] * 2)
    corpus = Corpus("own", ("bark",), clips, (), "d")
    inputs = Inputs(UnsynchronizedMIL(profile="ci"), corpus, (None, None), bags, bags, "", "", "", 0.0)
    with pytest.raises(ValueError, match=r"own: the gated CRNN needs sound; 1 clips have none"):
        measured.cvssp_decisions(inputs)
