"""How far fusions rely on sound, against finite differences, scipy, and loops over what the demo world planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from avrepro import corpora
from avrepro.corpora.base import Corpus
from avrepro.corpora.demo.truth import read_events, read_sights
from avrepro.experiments.fayek2020 import Inputs, Systems
from avrepro.experiments.fayek2020_checkpoint import Models
from avrepro.experiments.fayek2020_planted import (
    add_planted,
    correlations,
    mean_correlation,
    planted_snr,
    planted_visibility,
    reliance,
)
from avrepro.experiments.fayek2020_training import TrainedFusions
from avrepro.features.store import ClipArrays
from avrepro.models.fayek2020 import FUSIONS, Fusions
from avrepro.parameters import AttentionFusion
from avrepro.results import Run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def demo() -> Corpus:
    return corpora.load("demo", profile="ci")


def systems_of(
    bank: Fusions, h_a: np.ndarray, h_v: np.ndarray, classes: tuple[str, ...], **weights: np.ndarray
) -> Systems:
    """A bank that nobody trained, and what two models are made to say."""
    fusions = TrainedFusions(dict.fromkeys(bank.members, bank), {}, {}, 0.0, ())
    models = Models(classes, [], None, fusions, {})  # type: ignore[arg-type]
    return Systems(models, {"audio": h_a, "visual": h_v}, [], weights, {})


def inputs_of(corpus: Corpus) -> Inputs:
    nothing = ClipArrays(())
    parameters = AttentionFusion(profile="ci", device="cpu")
    return Inputs(parameters, corpus, nothing, nothing, np.zeros(0), np.zeros(0), 0.0)


# --- correlations ------------------------------------------------------------------------------------------


def test_correlations_are_spearmans() -> None:
    """With ties, and clips in which a class does not sound."""
    rng = np.random.default_rng(0)
    truth, rate = rng.normal(size=(40, 6)).round(1), rng.normal(size=(40, 6))
    rate[:, :3] = (0.5 * truth[:, :3] ** 3 + 0.3 * rate[:, :3]).round(1)
    truth[rng.random((40, 6)) < 0.4] = np.nan
    rate[np.isnan(truth)] = 100  # says nothing about clips whose truth is unknown
    found = correlations(truth, rate)
    for k in range(6):
        known = [i for i in range(40) if not np.isnan(truth[i, k])]
        assert found[k] == pytest.approx(scipy.stats.spearmanr(truth[known, k], rate[known, k]).statistic)
    assert found[0] > 0.4 and mean_correlation(truth, rate) == pytest.approx(sum(found) / 6)


def test_where_there_is_no_correlation() -> None:
    truth = np.array([[1.0, 1, 5, 1], [2, 2, 5, 2], [3, 3, 5, 3], [4, 4, 5, 4], [5, np.nan, 5, 5]])
    rate = np.array([[0.3, 1, 1, 9]] * 5) + np.array([[0, 1, 1, -1]]) * np.arange(5)[:, None]
    rate[:, 0] += 1e-8 * np.arange(5)  # rounding of one number
    found = correlations(truth, rate)
    np.testing.assert_allclose(found, [0, np.nan, np.nan, -1])  # constant rate; 4 clips; equal truths; falling
    assert mean_correlation(truth, rate) == pytest.approx(-0.5)
    assert np.isnan(mean_correlation(truth[:4], rate[:4]))


# --- reliance ----------------------------------------------------------------------------------------------

CLASSES = ("a", "b", "c")


def made_up_bank(*names: str) -> Fusions:
    torch.manual_seed(0)
    bank = Fusions(names, 3, 8).double().eval()
    with torch.no_grad():
        for name, one in bank.state_dict().items():
            if one.is_floating_point() and name != "best_scores":
                one.copy_(torch.rand_like(one) + 0.5 if "var" in name or "moments" in name else torch.randn_like(one))
    return bank


@pytest.mark.parametrize("name", [name for name in FUSIONS if name != "attention_without_nav"])
def test_reliance_by_finite_differences(demo: Corpus, name: str) -> None:
    """How an output's logit moves with each of the normalised inputs; the length over those of a modality."""
    bank = made_up_bank("regression", name) if name != "regression" else made_up_bank(name)
    h_a, h_v = np.random.default_rng(1).random((2, 6, 3))
    found = reliance(inputs_of(demo), systems_of(bank, h_a, h_v, CLASSES), name)
    at, step, deviations = list(bank.members).index(name), 1e-5, bank.moments[:, 1].numpy()

    def logits(h_a: np.ndarray, h_v: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return torch.logit(bank(torch.from_numpy(h_a), torch.from_numpy(h_v))[:, at]).numpy()

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


def test_reliance_of_regression_is_of_its_weights(demo: Corpus) -> None:
    bank = made_up_bank("regression")
    weight = bank.best["regression"].linear.weight.numpy()
    h_a, h_v = np.random.default_rng(1).random((2, 6, 3))
    found = reliance(inputs_of(demo), systems_of(bank, h_a, h_v, CLASSES), "regression")
    for k in range(3):
        of_a, of_v = (np.sqrt(sum(w**2 for w in part)) for part in (weight[k, :3], weight[k, 3:]))
        np.testing.assert_allclose(found[:, k], of_a / (of_a + of_v))
    assert (correlations(np.random.default_rng(2).random((6, 3)), found) == 0).all()


# --- what was planted --------------------------------------------------------------------------------------


def test_planted_snr_by_a_loop(demo: Corpus) -> None:
    test = demo.split("test")
    found = planted_snr(test)
    events = read_events(demo).to_dict("records")
    assert found.shape == (12, 17) and np.array_equal(~np.isnan(found), test.targets())
    for row, clip in enumerate(test.clips):
        for k, label in enumerate(test.classes):
            heard = [one["snr_db"] for one in events if one["clip"] == clip.id and one["label"] == label]
            assert found[row, k] == max(heard) if heard else np.isnan(found[row, k])


def test_planted_visibility_by_a_loop(demo: Corpus) -> None:
    test = demo.split("test")
    found, sights = planted_visibility(test), read_sights(test)
    by_clip = {clip: rows.to_dict("records") for clip, rows in sights.groupby("clip")}
    for row, clip in enumerate(test.clips):
        for k, label in enumerate(test.classes):
            frames = [0.0] * 120  # 10 s of 12 frames a second
            for one in by_clip.get(clip.id, []):
                if one["label"] == label:
                    frames[one["frame"]] = max(frames[one["frame"]], one["visible"])
            assert found[row, k] == pytest.approx(sum(frames) / 120, abs=1e-6)
    assert found.max() > 0.3 and (found > 0).sum() >= 5


def test_of_several_the_loudest_and_the_best_in_view(demo: Corpus, tmp_path: Path) -> None:
    """Two events and two sources of a class in one clip, and a class that is seen where it does not sound."""
    one, other = demo.clips[:2]
    car, bus = "Car", "Bus"
    pd.DataFrame(
        [(one.id, car, 0.0, 1.0, -3.0), (one.id, car, 4.0, 5.0, 6.0), (other.id, bus, 1.0, 2.0, 0.0)],
        columns=["clip", "label", "onset", "offset", "snr_db"],
    ).to_csv(tmp_path / "sound.csv", index=False)
    seen = [(one.id, 0, car, 0.2), (one.id, 0, car, 0.8), (one.id, 119, car, 0.5), (one.id, 5, None, 1.0)]
    seen += [(other.id, 7, car, 1.0)]
    pd.DataFrame(seen, columns=["clip", "frame", "label", "visible"]).to_parquet(tmp_path / "sight.parquet")
    corpus = replace(demo, clips=(other, one), strong=tmp_path)
    at = {label: corpus.classes.index(label) for label in (car, bus)}
    snr, visible = planted_snr(corpus), planted_visibility(corpus)
    assert snr[1, at[car]] == 6.0 and snr[0, at[bus]] == 0.0 and np.isnan(snr).sum() == snr.size - 2
    assert visible[1, at[car]] == pytest.approx(1.3 / 120) and visible[0, at[car]] == pytest.approx(1 / 120)
    assert (visible > 0).sum() == 2


def test_visibility_is_a_clips_own(demo: Corpus) -> None:
    alone = [planted_visibility(replace(demo, clips=(clip,)))[0] for clip in demo.clips[:6]]
    np.testing.assert_allclose(alone, planted_visibility(demo)[:6])


def test_correlations_with_what_was_planted(demo: Corpus) -> None:
    """Of made-up weights on the test clips, over the clips in which a class sounds; regression follows nothing."""
    swapped = {"train": "test", "test": "train", "validation": "test"}  # more clips to test on
    corpus = replace(demo, clips=tuple(replace(clip, split=swapped[clip.split]) for clip in demo.clips))
    rng = np.random.default_rng(0)
    size = (len(corpus.clips), len(corpus.classes))
    alpha, (h_a, h_v) = rng.random(size), rng.random((2, *size))
    torch.manual_seed(0)
    bank = Fusions(("regression",), size[1], 4).double().eval()
    run = Run("attention_fusion", {}, corpus)
    add_planted(run, inputs_of(corpus), systems_of(bank, h_a, h_v, corpus.classes, attention=alpha))
    told = {(row["system"], row["metric"], row["label"]): row["value"] for row in run.rows}
    events, sights = read_events(corpus), read_sights(corpus)
    expected: dict[str, list[float]] = {"snr": [], "visible": []}
    for k, label in enumerate(corpus.classes):
        sounds = set(events.loc[events["label"] == label, "clip"])  # not all of them are labelled in training
        rows = [r for r, clip in enumerate(corpus.clips) if clip.split == "test" and clip.id in sounds]
        truths: dict[str, list[float]] = {"snr": [], "visible": []}
        for clip in (corpus.clips[row] for row in rows):
            heard, seen = (one[(one["clip"] == clip.id) & (one["label"] == label)] for one in (events, sights))
            truths["snr"].append(heard["snr_db"].max())
            truths["visible"].append(seen.groupby("frame")["visible"].max().sum())
        for what, truth in truths.items():
            key = ("attention", f"weight_{what}_correlation", label)
            if len(rows) < 5 or len(set(truth)) == 1:
                assert key not in told
                continue
            expected[what].append(scipy.stats.spearmanr(truth, alpha[rows, k]).statistic)
            assert told[key] == pytest.approx(expected[what][-1])
            assert told["regression", f"{what}_correlation", label] == 0
    for what, found in expected.items():
        assert len(found) >= 3
        assert told["attention", f"weight_{what}_correlation", ""] == pytest.approx(np.mean(found))
        assert told["regression", f"{what}_correlation", ""] == 0
