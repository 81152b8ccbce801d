"""One protocol: what is varied of a corpus and of clips, what a sweep keeps, and the numbers made of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avrepro import results
from avrepro.claims import SYSTEMS, Claim, load_claims
from avrepro.corpora import dcase2017
from avrepro.corpora.base import Clip, Corpus
from avrepro.evaluation import average_precision, tagging_scores, tune_thresholds
from avrepro.experiments import (
    fayek2020,
    gated_crnn,
    parekh2018,
    side_by_side,
    side_by_side_beyond,
    side_by_side_measured,
    side_by_side_systems,
)
from avrepro.experiments.bottleneck import train_bottleneck
from avrepro.experiments.costs import multiply_accumulates
from avrepro.experiments.key_frame_baselines import nearest_to_centres
from avrepro.experiments.side_by_side import Unit
from avrepro.experiments.side_by_side_measured import Told, best_single, quantity_of
from avrepro.experiments.side_by_side_systems import Condition, Said, altered, fayek_inputs, impairments, parekh_inputs
from avrepro.features.store import ClipArrays
from avrepro.models.parekh2018 import Bags
from avrepro.parameters import UnsynchronizedMIL

CLASSES = dcase2017.CLASSES[:6]
rng = np.random.default_rng(5)


def corpus(clips: int = 400, name: str = "demo") -> Corpus:
    splits = ["train"] * (clips // 2) + ["validation"] * (clips // 4) + ["test"] * (clips // 4)
    labels = [tuple(label for label in CLASSES if rng.random() < 0.3) for _ in splits]
    made = (Clip(f"clip {row}", Path(), split, labels[row]) for row, split in enumerate(splits))
    return Corpus(name, CLASSES, tuple(made), (), "digest")


def test_fewer_clips_are_part_of_more_and_only_training_clips_go() -> None:
    whole = corpus()
    kept = {}
    for share in (0.125, 0.5, 1.0):
        one = altered(whole, Condition(share=share, seed=3))
        kept[share] = {clip.id for clip in one.clips if clip.split == "train"}
        assert [clip.id for clip in one.clips] == [clip.id for clip in whole.clips]
        assert [clip for clip in one.clips if clip.split in ("validation", "test")] == list(whole.clips[200:])
        assert (one.digest == whole.digest) == (share == 1)
    assert kept[0.125] < kept[0.5] < kept[1.0] and [len(one) for one in kept.values()] == [25, 100, 200]
    other = altered(whole, Condition(share=0.5, seed=4))
    assert {clip.id for clip in other.clips if clip.split == "train"} != kept[0.5]


def test_wrong_labels_replace_right_ones_in_training_alone() -> None:
    whole = corpus(4000)
    noisy = altered(whole, Condition(noise=0.4, seed=1))
    pairs = [(one, other) for one, other in zip(whole.clips, noisy.clips, strict=True)]
    assert all(one == other for one, other in pairs if one.split != "train")
    replaceable = [(one, other) for one, other in pairs if one.split == "train" and 0 < len(one.labels) < len(CLASSES)]
    assert all(len(set(other.labels)) == len(one.labels) for one, other in replaceable)
    wrong = [label not in one.labels for one, other in replaceable for label in other.labels]
    assert np.mean(wrong) == pytest.approx(0.4, abs=0.04)


def test_a_clip_with_all_classes_keeps_its_labels() -> None:
    full = replace(corpus(4), clips=(Clip("all", Path(), "train", CLASSES),))
    assert altered(full, Condition(noise=0.9)).clips[0].labels == CLASSES


def test_delayed_pictures_are_the_same_at_other_times() -> None:
    """Frame by frame: what is seen in second s of the delayed clip was seen in second s - 2."""
    boxes = np.full((4, 3, 5), 0.5)
    boxes[1, 2:], boxes[3, 1:] = np.nan, np.nan  # frames with 3, 2, 3 and 1 regions
    frames = [[0, 1, 2], [10, 11], [20, 21, 22], [30]]
    regions = np.concatenate(frames).astype(np.float16)[:, None]
    bags = Bags.of([regions])
    inputs = parekh2018.Inputs(
        UnsynchronizedMIL(), corpus(4), (boxes,), bags, Bags.of([np.ones((20, 2), np.float16)]), "", "", "", 0.0
    )
    inputs = replace(inputs, corpus=replace(inputs.corpus, clips=inputs.corpus.clips[:1]))
    later = impairments(inputs, (2,))["delay 2 s"]
    found = later.regions.arrays[0][:, 0].astype(int).tolist()
    assert found == frames[2] + frames[3] + frames[0] + frames[1]
    shown = (~np.isnan(later.boxes[0][..., 4])).sum(axis=1)  # type: ignore[index]
    assert shown.tolist() == [3, 1, 3, 2]
    worse = impairments(inputs, ())
    assert worse["silent"].segments.sizes.tolist() == [0] and worse["silent"].regions is inputs.regions
    assert worse["black"].regions.sizes.tolist() == [0] and worse["black"].boxes == (None,)
    assert worse["black"].regions[:].shape == (1, 1, 1) and not worse["black"].regions.mask[:].any()


def test_k_means_takes_a_frame_of_each_group() -> None:
    groups = np.repeat(np.eye(3) * 10, [5, 1, 4], axis=0) + rng.normal(scale=0.01, size=(10, 3))
    chosen = nearest_to_centres(groups, 3)
    assert [0 <= chosen[0] < 5, chosen[1] == 5, 6 <= chosen[2] < 10] == [True] * 3


def test_the_best_single_threshold_is_no_worse_than_any_of_a_grid() -> None:
    truth = rng.random((150, 4)) < 0.3
    scores = rng.normal(size=truth.shape) + truth
    best = best_single(truth, scores)
    assert len(set(best)) == 1
    grid = [tagging_scores(truth, scores >= one).f1 for one in np.linspace(-3, 3, 61)]
    assert tagging_scores(truth, scores >= best).f1 >= max(grid) - 0.01


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Unit]:
    """Made-up scores of two systems by five seeds, in the files of a sweep."""
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    units = [Unit("fayek2020", Condition("demo", seed)) for seed in range(5)]
    keep_scores(units)
    return units


def keep_scores(units: list[Unit]) -> None:
    for unit in units:
        draw = np.random.default_rng(unit.condition.seed)
        said = Said(corpus())
        truth = said.corpus.targets()
        for system, skill in (("fayek2020/audio", 0.5), ("fayek2020/attention", 2.0)):
            scores = 1 / (1 + np.exp(-(draw.normal(size=truth.shape) + skill * truth)))
            said.add(system, scores, parameters=7, training_seconds=unit.condition.seed)
            said.impaired(system, "silent", draw.random(truth.shape))
        said.write(unit.path)


def test_a_file_keeps_what_was_said(kept: list[Unit]) -> None:
    told = Told("demo", kept)
    assert told.classes == CLASSES and told.seeds == {"fayek2020": [0, 1, 2, 3, 4]}
    costs = side_by_side_measured.costs_of(kept[2:3])
    assert costs["fayek2020/audio"] == {"parameters": 7, "training_seconds": 2}
    assert len(told.together().split("test").clips) == 100, "the test clips are the same for all seeds"
    with np.load(kept[1].path) as file:
        arrays = dict(file)
    held, truth = arrays["validation/targets"], arrays["test/targets"]
    name = "fayek2020/attention"
    decided = arrays[f"test/{name}"] >= tune_thresholds(held, arrays[f"validation/{name}"], 1)
    scored = told.scored[name][1]
    assert scored.metric("micro_f1")[0] == pytest.approx(tagging_scores(truth, decided).f1)
    assert scored.metric("map")[0] == pytest.approx(average_precision(truth, arrays[f"test/{name}"]).mean())


def test_numbers_of_a_sweep(kept: list[Unit], tmp_path: Path) -> None:
    told = Told("demo", kept)
    run = side_by_side_measured._protocol(told, side_by_side_measured.costs_of(kept[1:2]))
    found = run.write(tmp_path / "results")
    for system in ("fayek2020/audio", "fayek2020/attention"):
        by_seed = [told.scored[system][seed].metric("map")[0] for seed in range(5)]
        number = found.number(system, "map", "test")
        assert number.value == pytest.approx(np.mean(by_seed)) and number.low < number.value < number.high
        assert found.number(system, "training_seconds").value == 1
    claim = next(one for one in load_claims()[1].values() if one.against == "fayek2020/audio" and one.metric == "map"
                 and one.system == "fayek2020/attention" and one.kind == "difference")  # fmt: skip
    lead = found.number(claim.id, "difference", "test")
    values = [found.number(name, "map", "test").value for name in (claim.system, claim.against)]
    assert lead.value == pytest.approx(values[0] - values[1]) and lead.low > 0
    by_class = found.select(system=claim.id, metric="class_difference")
    assert set(by_class["label"]) == set(CLASSES)
    assert by_class["value"].mean() == pytest.approx(lead.value)
    assert f"{100 * (1 - 0.05 / 6):g} %" in by_class["interval"].iloc[0], "corrected for six classes"
    robust = side_by_side_measured._robustness(told).write(tmp_path / "results")
    loss = robust.number("fayek2020/attention", "map_loss", "test", "silent")
    assert loss.low > 0
    assert results.is_stale(found.table.iloc[0]) is False


def test_of_fewer_seeds_than_the_rule_asks_for_nothing_is_said(kept: list[Unit]) -> None:
    """Five of all systems, ten of the fusions; those that were only timed do not count."""
    rule = load_claims()[0]
    assert (rule.seeds, rule.fusion_seeds) == (5, 10) and side_by_side_measured.with_enough_seeds(kept) == []
    for family, seeds, enough in (("li2017", 4, False), ("li2017", 5, True), ("fayek2020", 10, True)):
        units = [Unit(family, Condition(seed=seed)) for seed in (*range(seeds), side_by_side.COST_SEED)]
        for unit in units:
            unit.path.parent.mkdir(exist_ok=True)
            unit.path.touch()
        found = side_by_side_measured.with_enough_seeds([*units, Unit(family, Condition(seed=77))])
        assert found == (units[:-1] if enough else [])


def test_a_curve_has_the_points_whose_seeds_are_all_there(kept: list[Unit], tmp_path: Path) -> None:
    half = [Unit("fayek2020", Condition("demo", seed, share=0.5)) for seed in range(3)]
    quarter = [Unit("fayek2020", Condition("demo", seed, share=0.25)) for seed in range(2)]
    noisy = [Unit("fayek2020", Condition("demo", seed, noise=0.4)) for seed in range(2)]
    keep_scores([*half, *quarter, *noisy])
    (run,) = side_by_side_measured._varied([*kept, *half, *quarter, *noisy], Told("demo", kept))
    found = run.write(tmp_path / "results")
    assert json.loads(found.passport()["parameters"])["measured"] == "learning"
    assert set(found.table["label"]) == {"0.5", "1"} and set(found.table["metric"]) == {"micro_f1", "map"}
    for label, units in (("0.5", half), ("1", kept[:3])):
        scores = [
            Told("demo", [unit]).scored["fayek2020/audio"][unit.condition.seed].metric("map")[0] for unit in units
        ]
        assert found.number("fayek2020/audio", "map", "test", label).value == pytest.approx(np.mean(scores))


def test_missing_trainings_give_no_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    assert list(side_by_side_measured.measure(tmp_path / "results")) == []


def claim_like(**changes: object) -> Claim:
    return next(iter(load_claims()[1].values())).model_copy(update=changes)


def test_quantities_of_claims_by_hand() -> None:
    ours, theirs = np.full((2, 6), np.nan), np.full((2, 6), np.nan)
    ours[:, :3], theirs[:, :3] = [[0.5, 0.2, np.nan], [0.4, 0.4, 0.9]], [[0.4, 0.6, np.nan], [0.5, 0.1, 0.1]]
    first, second, *_ = CLASSES
    difference = quantity_of(claim_like(kind="difference", classes=()), CLASSES)(ours, theirs)
    np.testing.assert_allclose(difference, [(0.1 - 0.4) / 2, (-0.1 + 0.3) / 2])
    some = quantity_of(claim_like(kind="difference", classes=(second,)), CLASSES)(ours, theirs)
    np.testing.assert_allclose(some, [-0.4, 0.3])
    contrast = claim_like(kind="contrast", classes=(first,), other_classes=(second,))
    np.testing.assert_allclose(quantity_of(contrast, CLASSES)(ours, theirs), [0.5, -0.4])
    count = quantity_of(claim_like(kind="count", classes=(), expected=0.75), CLASSES)(ours, theirs)
    np.testing.assert_allclose(count, [0.5 - 0.75, 0.5 - 0.75])
    nowhere = quantity_of(claim_like(kind="difference", classes=("not here",)), CLASSES)(ours, theirs)
    assert np.isnan(nowhere).all()


def test_a_sweep_trains_what_is_missing_and_tells_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of profile ci, in processes of its own; the second time nothing is trained."""
    units = [Unit("li2017", Condition(profile="ci")), Unit("li2017", Condition("no corpus", profile="ci"))]
    failed = side_by_side.sweep(units, jobs=2)
    assert len(failed) == 1 and "no corpus" in failed[0]
    assert units[0].path.is_file() and not units[1].path.is_file()
    told = Told("demo", units)
    assert {"li2017/audio", "li2017/fused", "li2017/video_kmeans", "li2017/audio_half"} <= set(told.scored)
    before = units[0].path.stat().st_mtime_ns
    assert side_by_side.sweep(units[:1]) == [] and units[0].path.stat().st_mtime_ns == before


def test_trainings_to_be_timed_run_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    asked = []
    monkeypatch.setattr(side_by_side, "_train_all", lambda units, jobs: asked.append((len(units), jobs)) or [])
    side_by_side.sweep(jobs=4)
    timed = sum(unit.condition.seed == side_by_side.COST_SEED for unit in side_by_side.plan())
    assert asked == [(timed, 1), (len(side_by_side.plan()) - timed, 4)] and timed > 5


def test_every_system_that_is_scored_has_its_costs() -> None:
    costs = side_by_side.family_of("costs")(Condition(profile="ci")).costs
    scored = {f"{paper}/{name}" for paper, names in SYSTEMS.items() for name in names}
    by_threshold = {name for name in scored if name.endswith(("_half", "_single"))}
    assert set(costs) == scored - by_threshold
    assert all(one["macs"] > 10_000 and one["inference_seconds"] > 1e-4 for one in costs.values())
    assert {name for name, one in costs.items() if not one["parameters"]} == {
        "li2017/video", "li2017/video_even", "li2017/video_kmeans",
    }  # fmt: skip
    for cost in ("parameters", "macs", "inference_seconds"):
        of = {name: one[cost] for name, one in costs.items()}
        both = of["fayek2020/audio"] + of["fayek2020/visual"]
        assert of["fayek2020/average"] == both < of["fayek2020/attention"]
        assert of["parekh2018/cvssp_gated_crnn"] < of["parekh2018/cvssp_fusion"]
    one, three = costs["parekh2018/cvssp_gated_crnn"], costs["parekh2018/cvssp_fusion"]
    assert three["parameters"] == 3 * one["parameters"]
    listening = gated_crnn.log_mel_feature()
    heard = multiply_accumulates(listening.compute, np.zeros(10 * 16_000, np.float32))
    assert three["macs"] - heard == 3 * (one["macs"] - heard), "three networks hear the same spectrum"
    macs = {name: one["macs"] for name, one in costs.items()}
    assert macs["fayek2020/attention"] < 1.1 * macs["fayek2020/average"]
    assert macs["parekh2018/audio_only"] < macs["parekh2018/two_stream"]


def test_parameters_are_those_of_the_trained_networks() -> None:
    condition = Condition(profile="ci")
    costs = side_by_side.family_of("costs")(condition).costs
    inputs = parekh_inputs(condition)
    trained = {f"parekh2018/{name}": parekh2018.train_system(inputs, name).network for name in parekh2018.SYSTEMS}
    models = fayek2020.train_models(fayek_inputs(condition))
    trained |= {"fayek2020/audio": models.audio[-1].network, "fayek2020/visual": models.visual.network}
    trained["beyond/bottleneck"] = train_bottleneck(inputs, condition.seed, torch.device("cpu")).network
    counts = {name: sum(one.numel() for one in network.parameters()) for name, network in trained.items()}
    for name, bank in models.fusions.banks.items():
        own = sum(one.numel() for one in bank.members[name].parameters())
        counts[f"fayek2020/{name}"] = counts["fayek2020/audio"] + counts["fayek2020/visual"] + own
    assert counts == {name: costs[name]["parameters"] for name in counts}


@pytest.mark.parametrize("family", ["parekh2018", "cvssp", "fayek2020", "others", "bottleneck", "union"])
def test_each_family_says_something_of_every_clip(family: str) -> None:
    said = side_by_side.family_of(family)(Condition(profile="ci", share=0.8, noise=0.1))
    clips = said.corpus
    assert said.test and set(said.test) == set(said.validation)
    for system, scores in said.test.items():
        assert scores.shape == (len(clips.split("test").clips), len(clips.classes)) and np.isfinite(scores).all()
        assert scores.std() > 0 and said.costs[system].get("training_seconds", 0) >= 0
    assert any(clip.split == "left out" for clip in clips.clips)


def test_systems_of_both_modalities_are_asked_without_either() -> None:
    for family in ("parekh2018", "fayek2020", "bottleneck", "union"):
        said = side_by_side.family_of(family)(Condition(profile="ci"))
        impaired = {name.partition("@")[0] for name in said.test if "@" in name}
        assert impaired and impaired <= set(said.validation)
        for system in impaired:
            whole = said.test[system]
            for how in ("silent", "black"):
                worse = said.test[f"{system}@{how}"]
                assert worse.shape == whole.shape and np.isfinite(worse).all() and not np.array_equal(worse, whole)


def test_the_union_without_a_modality_does_not_depend_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test clips change sounds with each other: without sound nothing changes, without pictures the scores follow."""
    condition = Condition(profile="ci")
    before = side_by_side_beyond.of_union(condition)
    test = before.rows("test")
    order = np.arange(len(before.corpus.clips))
    order[test] = test[::-1]
    hearing, streams = fayek_inputs(condition), parekh_inputs(condition)
    hearing = replace(hearing, log_mel=ClipArrays(tuple(hearing.log_mel.paths[row] for row in order)))
    streams = replace(streams, segments=streams.segments.select(order))
    monkeypatch.setattr(side_by_side_beyond, "fayek_inputs", lambda _: hearing)
    monkeypatch.setattr(side_by_side_beyond, "parekh_inputs", lambda _: streams)
    after = side_by_side_beyond.of_union(condition)
    close, far = 1e-6, 2e-5  # a training of a few steps tells clips apart by little, and rounding by far less
    for system in ("beyond/union", "beyond/union_without_words"):
        silent, black = before.test[f"{system}@silent"], before.test[f"{system}@black"]
        np.testing.assert_allclose(after.test[f"{system}@silent"], silent, rtol=0, atol=close)
        np.testing.assert_allclose(after.test[f"{system}@black"], black[::-1], rtol=0, atol=close)
        assert min(np.abs(one - one[::-1]).max() for one in (silent, black)) > far
        assert np.abs(after.test[system] - before.test[system]).max() > far


def test_the_plan_has_ten_seeds_of_fusions_and_five_of_all_others() -> None:
    plain = [unit for unit in side_by_side.plan() if unit.condition.plain and unit.condition.seed < 1000]
    for corpus_name in ("demo", "paired"):
        counts = {family: 0 for family in side_by_side.FAMILIES}
        for unit in plain:
            counts[unit.family] += unit.condition.corpus == corpus_name
        assert counts.pop("fayek2020") == 10 and set(counts.values()) == {5}
    assert len({(unit.family, unit.condition) for unit in side_by_side.plan()}) == len(side_by_side.plan())
    assert side_by_side_systems.DELAYS
