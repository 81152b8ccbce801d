"""How far fusions rely on sound, against scipy and loops over planted tables; changes by class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from avrepro.evaluation.planted_attention import add_planted, correlations, planted_snr, planted_visibility
from avrepro.models.fayek2020 import Attention
from avrepro.results import Run
from avrepro.systems import Checkpoint, Data, System
from avrepro.systems.fayek2020 import AttentionFusion, Average

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = ("Bus", "Car", "Train")
ATTENTION, AUDIO, VISUAL = "fayek2020/attention", "fayek2020/audio", "fayek2020/visual"


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
    """Scores of a model as they are planted: the worse the sound, or the view, the less it knows."""

    profiles: ClassVar = {"demo": Checkpoint()}

    def __init__(self, name: str, scores: np.ndarray, impaired: str) -> None:
        super().__init__(name, name, "test")
        self.planted, self.impaired = scores, impaired

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        return Checkpoint()

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.full_like(self.planted, 0.1) if data.impaired == self.impaired else self.planted


class Untrained(AttentionFusion):
    """A fusion that nobody trained."""

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        torch.manual_seed(1)
        return Checkpoint(self.build(len(data.classes), 512).state_dict())

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
    condition = Condition("demo")
    fusions = (Average("fayek2020/average", "", ""), Untrained(ATTENTION, "", "", Attention))
    for system in (Given(AUDIO, h_a, "silent"), Given(VISUAL, h_v, "black"), *fusions):
        monkeypatch.setitem(systems.SYSTEMS, system.name, system)
    data = Data(corpus, condition, torch.device("cpu"))
    monkeypatch.setattr(protocol, "load", lambda condition: data)
    monkeypatch.setattr(protocol, "_identity", lambda condition, modalities: "planted")
    found = Run("attention_fusion", "chapter", condition, (0,), [corpus])
    for system in fusions:
        found.add(system.name, "map", 0.5, split="test")
    yield found, corpus, {AUDIO: h_a, VISUAL: h_v}


def test_reliance_is_correlated_with_what_was_planted(run: tuple[Run, Corpus, dict[str, np.ndarray]]) -> None:
    found, corpus, outputs = run
    condition = found.condition
    add_planted(found, [condition])
    rows = {(row["system"], row["metric"], row["label"]): row for row in found.rows if row["metric"] != "map"}
    snr, visible = (of(corpus)[6:] for of in (planted_snr, planted_visibility))
    fitted = protocol.fit(ATTENTION, condition)
    alpha = fitted.system.modality_weights(fitted.checkpoint, protocol.load(condition), outputs)[6:]
    logit = scipy.special.logit
    whole = sum(outputs.values())[6:] / 2
    silent = (0.1 + outputs[VISUAL][6:]) / 2
    expected = {
        (ATTENTION, "weight_snr_correlation"): (snr, alpha),
        (ATTENTION, "weight_visible_correlation"): (np.where(np.isnan(snr), np.nan, visible), alpha),
        ("fayek2020/average", "loss_snr_correlation"): (snr, logit(whole) - logit(silent)),
    }
    assert rows["fayek2020/average", "loss_snr_correlation", ""]["value"] > 0.8  # scores that follow the truth
    assert rows["fayek2020/average", "loss_visible_correlation", ""]["value"] > 0.5
    for (system, metric), (truth, rate) in expected.items():
        by_class = []
        for k, label in enumerate(CLASSES):
            known = ~np.isnan(truth[:, k])
            by_class.append(scipy.stats.spearmanr(truth[known, k], rate[known, k]).statistic)
            assert rows[system, metric, label]["value"] == pytest.approx(by_class[-1], abs=0.02)
        mean = rows[system, metric, ""]
        assert mean["value"] == pytest.approx(np.mean(by_class), abs=0.02)
        assert -1 <= mean["low"] < mean["value"] < mean["high"] <= 1
    assert not any("weight" in metric for system, metric, _ in rows if system == "fayek2020/average")


def test_changes_and_weights_by_class(run: tuple[Run, Corpus, dict[str, np.ndarray]]) -> None:
    found, corpus, outputs = run
    truth = corpus.targets()[6:]
    fusion_by_class.add_changes(found, [found.condition])
    fusion_by_class.add_weights(found, [found.condition])
    fitted, data = protocol.fit(ATTENTION, found.condition), protocol.load(found.condition)
    fused = fitted.system.scores(fitted.checkpoint, data, outputs)[6:]
    alpha = fitted.system.modality_weights(fitted.checkpoint, data, outputs)[6:]
    rows = {(row["metric"], row["against"], row["label"]): row["value"] for row in found.rows}
    audio, visual, both = (
        np.array([average_precision_score(truth[:, k], one[:, k]) for k in range(3)])
        for one in (outputs[AUDIO][6:], outputs[VISUAL][6:], fused)
    )
    changes = both - np.maximum(audio, visual)
    for k, label in enumerate(CLASSES):
        assert rows["average_precision", fusion_by_class.BETTER, label] == pytest.approx(changes[k])
        assert rows["modality_weight", "", label] == pytest.approx(alpha[truth[:, k], k].mean())
    assert rows["share_of_classes", "", "improved"] == np.mean(changes > 0)
    assert rows["share_of_classes", "", "visual better than audio"] == np.mean(visual > audio)
    alike = np.abs(audio - visual) < 0.1
    for name, those in (("alike", alike), ("unlike", ~alike)):
        assert rows["share_of_classes", "", name] == those.mean()
        if those.any():
            assert rows["map", fusion_by_class.BETTER, name] == pytest.approx(changes[those].mean())
