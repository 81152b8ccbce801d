"""How far fusions rely on sound, against finite differences, scipy, and loops over planted tables; changes by class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from sklearn.metrics import average_precision_score

from avrepro import protocol, systems
from avrepro.conditions import Condition
from avrepro.corpora.base import Clip, Corpus
from avrepro.evaluation import fusion_by_class
from avrepro.evaluation.planted_attention import (
    add_planted,
    correlations,
    gradient_share,
    mean_known,
    planted_snr,
    planted_visibility,
)
from avrepro.models.fayek2020 import MLP, Attention, Fusion, Regression
from avrepro.results import Run
from avrepro.systems import Checkpoint, Data, System
from avrepro.systems.fayek2020 import AttentionFusion, Average, LearntFusion

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = ("Bus", "Car", "Train")
FUSIONS = {
    "regression": lambda classes, units: Regression(classes),
    "mlp": MLP,
    "attention": Attention,
    "self": partial(Attention, attends="self"),
    "without n_a, n_v": partial(Attention, transforms=False),
    "printed": partial(Attention, reading="printed"),
}


def made_up(name: str) -> Fusion:
    torch.manual_seed(0)
    fusion = FUSIONS[name](3, 8).double().eval()
    with torch.no_grad():
        for key, one in fusion.state_dict().items():
            if one.is_floating_point():
                one.copy_(torch.rand_like(one) + 0.5 if "var" in key or "moments" in key else torch.randn_like(one))
    return fusion


# --- correlations ------------------------------------------------------------------------------------------


def test_correlations_are_spearmans() -> None:
    """With ties, and clips in which a class does not sound."""
    rng = np.random.default_rng(0)
    truth, rate = rng.normal(size=(40, 6)).round(1), rng.normal(size=(40, 6))
    truth[rng.random(truth.shape) < 0.3] = np.nan
    rate[:, 0] += 3 * np.nan_to_num(truth[:, 0])
    found = correlations(truth, rate)
    for k in range(6):
        known = [i for i in range(40) if not np.isnan(truth[i, k])]
        assert found[k] == pytest.approx(scipy.stats.spearmanr(truth[known, k], rate[known, k]).statistic)
    assert found[0] > 0.4


def test_where_there_is_no_correlation() -> None:
    truth = np.array([[1.0, 1, 5, 1], [2, 2, 5, 2], [3, 3, 5, 3], [4, 4, 5, 4], [5, np.nan, 5, 5]])
    rate = np.array([[0.3, 1, 1, 9]] * 5) + np.array([[0, 1, 1, -1]]) * np.arange(5)[:, None]
    rate[:, 0] += 1e-8 * np.arange(5)  # rounding of one number
    found = correlations(truth, rate)
    np.testing.assert_allclose(found, [0, np.nan, np.nan, -1])  # constant rate; 4 clips; equal truths; falling
    assert mean_known(found) == pytest.approx(-0.5) and np.isnan(mean_known(found[1:3]))


@pytest.mark.parametrize("name", FUSIONS)
def test_gradient_shares_by_finite_differences(name: str) -> None:
    """How an output's logit moves with each of the normalised inputs; the length over those of a modality."""
    fusion = made_up(name)
    h_a, h_v = np.random.default_rng(1).random((2, 6, 3))
    found = gradient_share(fusion, torch.from_numpy(h_a), torch.from_numpy(h_v))
    step, deviations = 1e-5, fusion.moments[:, 1].numpy()

    def logits(h_a: np.ndarray, h_v: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return torch.logit(fusion(torch.from_numpy(h_a), torch.from_numpy(h_v))).numpy()

    lengths = np.zeros((2, 6, 3))
    for modality in range(2):
        squares = np.zeros((6, 3))
        for k in range(3):
            moved = np.zeros((2, 3))
            moved[modality, k] = step * deviations[modality, k]
            up, down = logits(h_a + moved[0], h_v + moved[1]), logits(h_a - moved[0], h_v - moved[1])
            squares += ((up - down) / (2 * step)) ** 2
        lengths[modality] = np.sqrt(squares)
    np.testing.assert_allclose(found, lengths[0] / lengths.sum(axis=0), atol=1e-4)
    assert (np.ptp(found, axis=0) > 0.01).all() == (name != "regression")


# --- what was planted --------------------------------------------------------------------------------------


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Corpus, pd.DataFrame, pd.DataFrame]:
    """30 test clips, and 6 others before; a class sounds twice in some, and is seen where it does not sound, too."""
    rng = np.random.default_rng(0)
    clips, events, sights = [], [], []
    for number in range(36):
        labels = tuple(label for label in CLASSES if rng.random() < 0.6)
        name = f"clip-{number}"
        clips.append(Clip(name, tmp_path / f"{name}.mp4", "test" if number >= 6 else "validation", labels))
        for label in labels:
            for _ in range(rng.integers(1, 3)):
                events.append((name, label, 0.0, 1.0, rng.normal(0, 6)))
        for label in (*CLASSES, None):
            for frame in rng.choice(120, rng.integers(0, 60), replace=False):
                for _ in range(rng.integers(1, 3)):
                    sights.append((name, frame, label, rng.random()))
    sound = pd.DataFrame(events, columns=["clip", "label", "onset", "offset", "snr_db"])
    sight = pd.DataFrame(sights, columns=["clip", "frame", "label", "visible"])
    sound.to_csv(tmp_path / "sound.csv", index=False)
    sight.to_parquet(tmp_path / "sight.parquet")
    return Corpus("demo", CLASSES, tuple(clips), (), "d", strong=tmp_path), sound, sight


def test_planted_truth_by_a_loop(planted: tuple[Corpus, pd.DataFrame, pd.DataFrame]) -> None:
    """Of several events the loudest, of several sources in a frame the one that is best in view; 120 frames a clip."""
    corpus, sound, sight = planted
    snr, visible = planted_snr(corpus), planted_visibility(corpus)
    assert snr.shape == visible.shape == (36, 3) and visible.max() > 0.1
    for row, clip in enumerate(corpus.clips):
        for k, label in enumerate(CLASSES):
            events = [one.snr_db for one in sound.itertuples() if (one.clip, one.label) == (clip.id, label)]
            assert snr[row, k] == pytest.approx(max(events)) if events else np.isnan(snr[row, k])
            frames = [0.0] * 120
            for one in sight.itertuples():
                if (one.clip, one.label) == (clip.id, label):
                    frames[one.frame] = max(frames[one.frame], one.visible)
            assert visible[row, k] == pytest.approx(sum(frames) / 120, abs=1e-6)


class Given(System):
    """Scores of two models as they are planted: the worse the sound, or the view, the less they know."""

    profiles: ClassVar = {"demo": Checkpoint()}

    def __init__(self, name: str, scores: np.ndarray, impaired: str) -> None:
        super().__init__(name, name, "test")
        self.planted, self.impaired = scores, impaired

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        return Checkpoint()

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.full_like(self.planted, 0.1) if data.impaired == self.impaired else self.planted


class Untrained:
    """A fusion that nobody trained."""

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        torch.manual_seed(1)
        return Checkpoint(self.build(len(data.classes), 512).state_dict())  # type: ignore[attr-defined]

    def folds(self, condition: Condition) -> int:
        return 0


@pytest.fixture
def run(
    planted: tuple[Corpus, pd.DataFrame, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Run, Corpus, dict[str, np.ndarray]]]:
    """A run on the planted clips in which both models know what was planted."""
    corpus, *_ = planted
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    snr, visible, rng = planted_snr(corpus), planted_visibility(corpus), np.random.default_rng(3)
    sounds = ~np.isnan(snr)
    h_a = np.where(sounds, 1 / (1 + np.exp(-np.nan_to_num(snr) / 4)), 0.1 * rng.random(snr.shape)).astype(np.float32)
    h_v = np.clip(0.1 + 2 * visible + rng.normal(0, 0.02, snr.shape), 0.01, 0.99).astype(np.float32)
    attention = type("A", (Untrained, AttentionFusion), {})
    learnt = type("L", (Untrained, LearntFusion), {})
    condition = Condition("demo")
    for system in (
        Given("fayek2020/audio", h_a, "silent"), Given("fayek2020/visual", h_v, "black"),
        Average("fayek2020/average", "", ""), attention("fayek2020/attention", "", "", Attention),
        learnt("fayek2020/regression", "", "", lambda classes, units: Regression(classes)),
    ):  # fmt: skip
        monkeypatch.setitem(systems.SYSTEMS, system.name, system)
    data = Data(corpus, condition, torch.device("cpu"))
    monkeypatch.setattr(protocol, "load", lambda condition: data)
    monkeypatch.setattr(protocol, "_identity", lambda condition, modalities: "planted")
    found = Run("attention_fusion", "chapter", condition, (0,), [corpus])
    for name in ("attention", "regression", "average"):
        found.add(f"fayek2020/{name}", "map", 0.5, split="test")
    yield found, corpus, {"fayek2020/audio": h_a, "fayek2020/visual": h_v}


def test_reliance_is_correlated_with_what_was_planted(run: tuple[Run, Corpus, dict[str, np.ndarray]]) -> None:
    found, corpus, outputs = run
    condition = found.condition
    add_planted(found, [condition])
    rows = {(row["system"][10:], row["metric"], row["label"]): row for row in found.rows if row["metric"] != "map"}
    snr, visible = (of(corpus)[6:] for of in (planted_snr, planted_visibility))
    fitted = protocol.fit("fayek2020/attention", condition)
    alpha = fitted.system.modality_weights(fitted.checkpoint, protocol.load(condition), outputs)[6:]
    logit = scipy.special.logit
    whole = sum(outputs.values())[6:] / 2
    silent = (0.1 + outputs["fayek2020/visual"][6:]) / 2
    expected = {
        ("attention", "weight_snr_correlation"): (snr, alpha),
        ("attention", "weight_visible_correlation"): (np.where(np.isnan(snr), np.nan, visible), alpha),
        ("average", "loss_snr_correlation"): (snr, logit(whole) - logit(silent)),
    }
    for (system, metric), (truth, rate) in expected.items():
        by_class = []
        for k, label in enumerate(CLASSES):
            known = ~np.isnan(truth[:, k])
            by_class.append(scipy.stats.spearmanr(truth[known, k], rate[known, k]).statistic)
            assert rows[system, metric, label]["value"] == pytest.approx(by_class[-1], abs=0.02)
        mean = rows[system, metric, ""]
        assert mean["value"] == pytest.approx(np.mean(by_class), abs=0.02)
        assert -1 <= mean["low"] < mean["value"] < mean["high"] <= 1
    assert rows["average", "loss_snr_correlation", ""]["value"] > 0.8  # scores that follow the truth are found out
    assert rows["average", "loss_visible_correlation", ""]["value"] > 0.5
    for metric in ("gradient_snr_correlation", "gradient_visible_correlation"):
        assert rows["regression", metric, ""]["value"] == 0  # a linear fusion relies alike on all clips
    assert not any(metric.startswith(("weight", "gradient")) for system, metric, _ in rows if system == "average")


# --- class by class ----------------------------------------------------------------------------------------


def test_changes_and_weights_by_class(run: tuple[Run, Corpus, dict[str, np.ndarray]]) -> None:
    found, corpus, outputs = run
    conditions, truth = [found.condition], corpus.targets()[6:]
    fusion_by_class.add_changes(found, conditions)
    fusion_by_class.add_weights(found, conditions)
    fitted = protocol.fit("fayek2020/attention", found.condition)
    data = protocol.load(found.condition)
    fused = fitted.system.scores(fitted.checkpoint, data, outputs)[6:]
    alpha = fitted.system.modality_weights(fitted.checkpoint, data, outputs)[6:]
    rows = {(row["metric"], row["against"], row["label"]): row["value"] for row in found.rows}
    of = [
        [average_precision_score(truth[:, k], one[:, k]) for k in range(3)]
        for one in (outputs["fayek2020/audio"][6:], outputs["fayek2020/visual"][6:], fused)
    ]
    changes = [of[2][k] - max(of[0][k], of[1][k]) for k in range(3)]
    for k, label in enumerate(CLASSES):
        change = rows["average_precision", fusion_by_class.BETTER, label]
        assert change == pytest.approx(changes[k])
        assert rows["modality_weight", "", label] == pytest.approx(alpha[truth[:, k], k].mean())
    assert rows["share_of_classes", "", "improved"] == sum(one > 0 for one in changes) / 3
    assert (
        rows["share_of_classes", "", "visual better than audio"] == sum(v > a for a, v in zip(*of[:2], strict=True)) / 3
    )
    alike = [k for k in range(3) if abs(of[0][k] - of[1][k]) < 0.1]
    unlike = [k for k in range(3) if k not in alike]
    for name, those in (("alike", alike), ("unlike", unlike)):
        assert rows["share_of_classes", "", name] == len(those) / 3
        if those:
            assert rows["map", fusion_by_class.BETTER, name] == pytest.approx(np.mean([changes[k] for k in those]))
