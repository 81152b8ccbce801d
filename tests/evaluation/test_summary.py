"""From scores to numbers: thresholds from validation clips, differences, claims' quantities, losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from avrepro.claims import Claim, load_claims
from avrepro.corpora.base import Clip, Corpus
from avrepro.evaluation import average_precision, tagging_scores, tune_thresholds
from avrepro.evaluation.seeds import resplit_interval
from avrepro.evaluation.summary import SeedScores, Summary, comparisons, quantity, thresholds_of
from avrepro.systems import SYSTEMS, Condition, Data

CLASSES = ("Bus", "Car", "Screaming", "Train")
SPLITS = ["train"] * 60 + ["validation"] * 30 + ["test"] * 40
AUDIO, VIDEO = "li2017/audio", "li2017/video"


def seed_scores(seed: int, shared: bool = True) -> SeedScores:
    """Made-up scores of one seed, on the same clips as others or on its own."""
    draw = np.random.default_rng(0 if shared else seed)
    clips = [
        Clip(str(row), Path(), split, tuple(label for label in CLASSES if draw.random() < 0.35))
        for row, split in enumerate(SPLITS)
    ]
    corpus = Corpus("paired", CLASSES, tuple(clips), (), f"digest {0 if shared else seed}")
    data = Data(corpus, Condition("paired", seed=seed), torch.device("cpu"))
    draw = np.random.default_rng(100 + seed)
    truth = data.targets
    scores = {name: (skill * truth + draw.random(truth.shape)) / 2 for name, skill in ((AUDIO, 0.4), (VIDEO, 0.2))}
    return SeedScores(data, scores, {(AUDIO, "silent"): draw.random(truth.shape) / 2})


def literal(one: SeedScores, name: str) -> tuple[float, float]:
    """Micro F1 and mAP of test clips, thresholds from validation clips."""
    truth, scores = one.data.targets, one.scores[name]
    thresholds = tune_thresholds(truth[60:90], scores[60:90], one.data.condition.seed)
    f1 = tagging_scores(truth[90:], scores[90:] >= thresholds).f1
    return f1, float(average_precision(truth[90:], scores[90:]).mean())


@pytest.mark.parametrize("shared", [True, False])
def test_means_and_differences_over_seeds(shared: bool) -> None:
    seeds = [seed_scores(seed, shared) for seed in range(4)]
    summary = Summary(seeds, "test")
    values = {name: np.array([literal(one, name) for one in seeds]) for name in (AUDIO, VIDEO)}  # (seeds, 2)
    for column, metric in enumerate(("micro_f1", "map")):
        found = summary.overall(AUDIO, metric)
        assert found.value == pytest.approx(values[AUDIO][:, column].mean())
        gain = values[VIDEO][:, column] - values[AUDIO][:, column]
        difference = summary.overall(VIDEO, metric, against=AUDIO)
        assert difference.value == pytest.approx(gain.mean()) and difference.low < difference.value < difference.high
        if not shared:  # every seed splits one pool anew: the corrected resampled t, with 60 and 40 clips
            expected = resplit_interval(list(gain), 60, 40)
            assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
            assert "60 training and 40 test clips" in difference.method
        else:
            assert "bootstrap over seeds" in difference.method
    assert (summary.resplit is None) == shared


def test_one_seed_is_the_bootstrap_over_its_clips() -> None:
    one = seed_scores(3)
    summary = Summary([one], "test")
    assert "over clips alone" in summary.overall(AUDIO, "micro_f1").method
    by_class = summary.by_class(AUDIO, "average_precision", level=0.99)
    expected = average_precision(one.data.targets[90:], one.scores[AUDIO][90:])
    assert {name: found.value for name, found in by_class.items()} == pytest.approx(
        dict(zip(CLASSES, expected, strict=True))
    )
    assert "99 %" in by_class["Car"].method


def test_a_loss_is_of_impaired_clips_at_the_same_thresholds() -> None:
    one = seed_scores(1)
    summary = Summary([one], "test")
    truth = one.data.targets
    thresholds = tune_thresholds(truth[60:90], one.scores[AUDIO][60:90], 1)
    silent = tagging_scores(truth[90:], one.impaired[AUDIO, "silent"][90:] >= thresholds).f1
    assert summary.overall(AUDIO, "micro_f1", impaired="silent").value == pytest.approx(silent)
    loss = summary.loss(AUDIO, "micro_f1", "silent")
    assert loss.value == pytest.approx(literal(one, AUDIO)[0] - silent)


def test_rules_of_thresholds() -> None:
    one = seed_scores(2)
    truth, scores = one.data.targets[60:90], one.scores[AUDIO][60:90]
    rules = {name: SYSTEMS[f"li2017/{name}"] for name in ("audio", "audio_half", "audio_single")}
    found = {name: thresholds_of(system, one.data, one.scores[AUDIO]) for name, system in rules.items()}
    assert found["audio_half"].tolist() == [0.5] * 4
    np.testing.assert_array_equal(found["audio"], tune_thresholds(truth, scores, 2))
    assert len(set(found["audio_single"])) == 1
    best = tagging_scores(truth, scores >= found["audio_single"]).f1
    assert best >= max(tagging_scores(truth, scores >= cut).f1 for cut in np.linspace(0, 1, 41)) - 0.01


def claim(**changes: object) -> Claim:
    known = load_claims()[1]["li2017_fusion_above_audio"]
    return known.model_copy(update=changes)


def test_quantities_of_claims() -> None:
    gain = np.array([[0.1, -0.2, np.nan, 0.4], [0.3, 0.0, np.nan, -0.1]])  # clips as they are, and one resample
    overall = np.array([0.05, 0.07])
    np.testing.assert_array_equal(quantity(claim(), CLASSES, overall), overall)
    of_two = claim(metric="class_f1", classes=("Bus", "Screaming", "Train"))
    np.testing.assert_allclose(quantity(of_two, CLASSES, gain), [0.25, 0.1])
    count = claim(metric="class_f1", kind="count", expected=0.5)
    np.testing.assert_allclose(quantity(count, CLASSES, gain), [2 / 3 - 0.5, 1 / 3 - 0.5])
    contrast = claim(metric="class_f1", kind="contrast", classes=("Bus",), other_classes=("Car", "Train"))
    np.testing.assert_allclose(quantity(contrast, CLASSES, gain), [0.1 - 0.1, 0.3 + 0.05])
    nowhere = claim(metric="class_f1", classes=("Screaming",))
    assert np.isnan(quantity(nowhere, CLASSES, gain)).all()


def test_a_claim_is_the_difference_of_its_systems() -> None:
    seeds = [seed_scores(seed) for seed in range(3)]
    summary = Summary(
        [SeedScores(one.data, {"li2017/fused": one.scores[AUDIO], AUDIO: one.scores[VIDEO]}) for one in seeds], "test"
    )
    found, wider = (summary.claim(claim(), level) for level in (0.95, 0.999))
    assert found is not None and wider is not None
    assert found.value == pytest.approx(summary.overall("li2017/fused", "micro_f1", AUDIO).value)
    assert wider.low < found.low and wider.high > found.high


def test_which_systems_are_compared() -> None:
    names = ["li2017/fused", AUDIO, VIDEO, "fayek2020/audio", "beyond/union"]
    assert set(comparisons(names)) == {
        ("li2017/fused", AUDIO), ("li2017/fused", VIDEO), (VIDEO, AUDIO), ("beyond/union", "li2017/fused"),
        ("beyond/union", AUDIO), ("beyond/union", VIDEO), ("beyond/union", "fayek2020/audio"),
    }  # fmt: skip
