"""What goes beyond the papers against slow references, the plan of what is measured, and what is committed of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from avrepro import protocol
from avrepro.checkout import COMMITTED
from avrepro.claims import check_null, load_claims
from avrepro.corpora import dcase2017
from avrepro.corpora.base import Clip, Corpus
from avrepro.evaluation import platt
from avrepro.measure_once import PROBE
from avrepro.measurements import FUSION_SEEDS, SEEDS, Measurement, joined, measure_all, measure_one, plan, waves
from avrepro.results import Results, Run, interval_of, read
from avrepro.systems import SYSTEMS, Condition, Data, System, beyond, of_paper

pytestmark = pytest.mark.usefixtures("one_thread", "home")

CLASSES = dcase2017.CLASSES[:6]
CI = Condition(profile="ci", device="cpu")


def data_of(clips: int = 240) -> Data:
    rng = np.random.default_rng(5)
    splits = ["train"] * (clips // 2) + ["validation"] * (clips // 4) + ["test"] * (clips // 4)
    shares = np.linspace(0.03, 0.5, len(CLASSES))  # the first classes are rare
    made = [
        Clip(f"clip {row}", Path(), split, tuple(np.array(CLASSES)[rng.random(len(CLASSES)) < shares]))
        for row, split in enumerate(splits)
    ]
    return Data(Corpus("demo", CLASSES, tuple(made), (), "digest"), CI, torch.device("cpu"))


# --- systems beyond the papers --------------------------------------------------------------------------------------


def test_guessing_knows_the_class_frequencies_of_training_clips_alone() -> None:
    system, data = SYSTEMS["beyond/class_frequency"], data_of()
    scores = system.scores(system.fit(data, {}, 0, Path()), data, {})
    for k, name in enumerate(CLASSES):
        count = sum(name in clip.labels for clip in data.corpus.clips if clip.split == "train")
        np.testing.assert_allclose(scores[:, k], count / 120, rtol=1e-6)


def given_of(data: Data) -> dict[str, np.ndarray]:
    """Scores of the systems that the unions use, each with some skill."""
    rng = np.random.default_rng(7)
    noise = {name: rng.normal(size=data.targets.shape) for name in ("audio", "streams", "words")}
    return {
        "fayek2020/audio": (1 / (1 + np.exp(-(noise["audio"] + 2 * data.targets - 2)))).astype(np.float32),
        "parekh2018/two_stream": np.tanh(noise["streams"] + 1.5 * data.targets - 1).astype(np.float32),
        "li2017/video": (np.abs(noise["words"]) * (0.05 + 0.3 * data.targets)).astype(np.float32),
    }


def calibrated(data: Data, scores: np.ndarray) -> np.ndarray:
    """By Platt scaling on validation clips."""
    held = data.rows("validation")
    return platt(data.targets[held], scores[held])(scores)


def test_the_union_is_attention_between_sound_and_calibrated_streams(tmp_path: Path) -> None:
    union, attention, data = SYSTEMS["beyond/union_without_words"], SYSTEMS["fayek2020/attention"], data_of()
    given = given_of(data)
    streams = calibrated(data, given["parekh2018/two_stream"]).astype(np.float32)
    instead = {"fayek2020/audio": given["fayek2020/audio"], "fayek2020/visual": streams}

    def fused(system: System, known: dict[str, np.ndarray]) -> list[np.ndarray]:
        fitted = system.fit(data, known, 0, tmp_path / "state.partial")
        return [system.scores(fitted, data, known), system.modality_weights(fitted, data, known)]  # type: ignore[attr-defined]

    np.testing.assert_allclose(fused(union, given), fused(attention, instead), atol=1e-3)
    assert union.folds(replace(CI, profile="demo")) == 3


def test_words_are_a_prior_for_rare_classes() -> None:
    system, data = SYSTEMS["beyond/union"], data_of()
    union = given_of(data)["fayek2020/audio"]
    given = {"beyond/union_without_words": union, "li2017/video": given_of(data)["li2017/video"]}
    checkpoint = system.fit(data, given, 0, Path())
    words, held = calibrated(data, given["li2017/video"]), data.rows("validation")
    clips = data.targets[data.rows("train")].sum(axis=0)  # every class has one here
    mixed, quality = {}, {}
    for strength in beyond.PROFILES["ci"].strengths:
        share = strength / (strength + clips)
        mixed[strength] = (1 - share) * union + share * words
        found = data.targets[held].any(axis=0)
        quality[strength] = average_precision_score(
            data.targets[held][:, found], mixed[strength][held][:, found], average="macro"
        )
    chosen = max(quality, key=quality.__getitem__)
    assert chosen > 0 and checkpoint.numbers["strength"] == chosen
    np.testing.assert_allclose(system.scores(checkpoint, data, given), mixed[chosen], atol=1e-4)


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_the_plan_measures_every_system_with_as_many_seeds_as_the_rule_asks_for() -> None:
    rule = load_claims()[0]
    assert rule.seeds <= SEEDS and rule.fusion_seeds <= FUSION_SEEDS
    by_name = {f"{one.name}/{one.corpus}": one for one in plan()}
    for corpus in ("demo", "paired", "demo-null"):
        parts = list(by_name[f"protocol/{corpus}"].parts())
        assert [len(conditions) for _, _, conditions in parts] == [FUSION_SEEDS, SEEDS]
        assert parts[0][1] == tuple(of_paper("fayek2020"))
        told = {name for name in SYSTEMS if "_true_" in name}  # what was planted, which real recordings do not know
        assert set(parts[1][1]) == set(SYSTEMS) - (told if corpus != "demo" else set())
        assert {condition.corpus for _, _, conditions in parts for condition in conditions} == {corpus}
    assert [one.corpus for one in plan(["protocol/paired", "esc10"])] == ["paired", "esc10"]
    with pytest.raises(ValueError, match=r"no measurement protocl; there are .*protocol/demo"):
        plan(["protocl"])


def test_parts_are_trained_in_earlier_waves() -> None:
    names = ["beyond/union", "fayek2020/attention", "parekh2018/cvssp_fusion"]
    todo = protocol.untrained(names, [CI])
    waved = waves(todo)
    assert sorted(str(one) for wave in waved for one in wave) == sorted(map(str, todo))
    wave_of = {protocol.checkpoint_path(*one): number for number, wave in enumerate(waved) for one in wave}
    checked = 0
    for name, condition in todo:
        folds = SYSTEMS[name].folds(condition)
        for part in [condition, *(replace(condition, fold=(fold, folds)) for fold in range(folds))]:
            for used in SYSTEMS[name].uses:
                used_path, own_path = (protocol.checkpoint_path(*one) for one in ((used, part), (name, condition)))
                assert wave_of[used_path] < wave_of[own_path]
                checked += 1
    assert checked > 10 and len(waved[0]) > 1


def run_of(seeds: int, condition: Condition, **values: float) -> Run:
    """mAP of systems beyond the papers, and numbers that a measurement of several conditions does not have."""
    corpus = data_of(40).corpus
    run = Run("side_by_side", "learning", condition, tuple(range(seeds)), [corpus] * seeds)
    for system, value in values.items():
        run.add(f"beyond/{system}", "map", value, split="test")
    run.add("beyond/union", "class_f1", 0.4, split="test", label=CLASSES[0])
    run.add("beyond/union", "micro_f1", 0.9, split="validation")
    run.add("beyond/union", "loss", 0.7, step=3)
    return run


def map_of(results: Results, label: str = "", system: str = "union") -> float:
    return results.number(f"beyond/{system}", "map", split="test", label=label).value


def test_runs_are_joined_and_the_first_number_counts(tmp_path: Path) -> None:
    few = run_of(2, Condition(), union=0.1, bottleneck=0.2).write(tmp_path)
    many = run_of(4, Condition(), union=0.3).write(tmp_path)
    one = Measurement("learning", "demo", (), {"": Condition()})
    found = joined(one, [("", many), ("", few)])
    assert (map_of(found), map_of(found, system="bottleneck")) == (0.3, 0.2)
    assert set(found.table["split"]) == {"test"} and set(found.table["step"]) == {-1}
    assert found.passport()["seeds"] == "[0, 1, 2, 3]" and not found.stale

    half = run_of(2, Condition(share=0.5), union=0.05).write(tmp_path)
    curve = joined(one, [("0.5", half), ("1", few)])
    assert [map_of(curve, label) for label in ("0.5", "1")] == [0.05, 0.1]
    assert set(curve.table["label"]) == {"0.5", "1"} and set(curve.table["metric"]) == {"map"} and not curve.stale


def test_a_new_measurement_takes_the_place_of_its_older_ones_and_failures_stop_no_other(tmp_path: Path) -> None:
    for path in COMMITTED.glob("side_by_side-*.parquet"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = set(tmp_path.glob("*.parquet"))

    def once(names: Sequence[str], condition: Condition) -> Run:
        return run_of(1, condition, union=0.3)

    def fails(names: Sequence[str], condition: Condition) -> Run:
        raise OSError("disk full")

    good = Measurement("learning", "demo", (), {"": Condition()}, once=once)
    assert measure_all([replace(good, once=fails), good], tmp_path) == ["learning on demo: OSError: disk full"]
    after = set(tmp_path.glob("*.parquet"))
    (gone,), (new,) = before - after, after - before
    assert gone.name.startswith("side_by_side-learning-") and new.name.startswith("side_by_side-learning-")
    assert map_of(measure_one(good, tmp_path)) == 0.3
    assert set(tmp_path.glob("*.parquet")) == after


# --- what is committed ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def here() -> Results:
    found = read(folders=(COMMITTED,)).table
    return Results(found[found["chapter"] != "data"])


def test_committed_results_are_those_of_the_plan(here: Results) -> None:
    runs = here.table.drop_duplicates("run")
    found = set(runs[["chapter", "measured", "corpus"]].itertuples(index=False, name=None))
    assert found == {(one.chapter, one.name, one.corpus) for one in plan()} and len(runs) == len(plan())
    assert set(here.table["system"]) - set(SYSTEMS) <= {"corpus", PROBE}
    bounded = here.table.dropna(subset=["low", "high"])
    assert (bounded["low"] <= bounded["value"] + 1e-9).all() and (bounded["value"] <= bounded["high"] + 1e-9).all()
    number = ["measured", "corpus", "system", "against", "split", "metric", "label"]
    assert not here.table.duplicated(number).any()
    assert {json.loads(condition)["profile"] for condition in runs["condition"]} == {"demo"}


def test_every_claim_has_one_number_on_each_corpus(here: Results) -> None:
    claims = load_claims()[1]
    for corpus in ("demo", "paired"):
        rows = here.select(metric="claim", corpus=corpus)
        assert rows["label"].is_unique and (rows["measured"] == "protocol").all()
        classes = set(here.select(metric="class_f1", corpus=corpus)["label"])
        expected = {name for name, claim in claims.items() if not claim.classes or classes & set(claim.classes)}
        assert set(rows["label"]) == expected
        for row in rows.itertuples():
            claim = claims[row.label]
            assert (row.system, row.against) == (claim.system, claim.against)
            of_few_seeds = f"mean of {SEEDS} " in row.interval and claim.paper == "fayek2020"
            if claim.kind == "difference" and not claim.classes and not of_few_seeds:  # the same as a difference
                known = Results(here.select(corpus=corpus, measured="protocol"))
                ours, theirs = (known.number(one, claim.metric, split="test") for one in (claim.system, claim.against))
                assert row.value == pytest.approx(ours.value - theirs.value, abs=1e-9)


def test_on_the_control_pictures_help_no_system(here: Results) -> None:
    rule, claims = load_claims()
    rows = here.select(corpus="demo-null", measured="protocol")
    intervals, corrected = (
        {row["label"]: interval_of(row) for _, row in rows[rows["metric"] == metric].iterrows()}
        for metric in ("claim", "claim_corrected")
    )
    check_null(intervals, corrected, claims, rule)


def test_seeds_that_split_one_pool_are_not_taken_for_independent(here: Results) -> None:
    """The claim about Li et al.'s fusion, from the gains of the five seeds as they were measured."""
    row = here.select(corpus="paired", metric="claim", label="li2017_fusion_above_audio").iloc[0]
    assert "corrected resampled t" in row["interval"]
    assert not here.select(corpus="paired")["interval"].str.contains("Student t interval").any()
    if not row["recipe"]:
        # Student's t over these seeds gave 0.0421 +- 0.0345; Nadeau and Bengio add clips_test / clips_train to 1 / 5
        half = 0.034461 * np.sqrt((1 / 5 + 142 / 425) / (1 / 5))
        assert (row["low"], row["high"]) == pytest.approx((0.042129 - half, 0.042129 + half), abs=1e-5)
