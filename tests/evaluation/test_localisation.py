"""Localisation measures, on cases small enough to count by hand and against scikit-learn and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from avrepro.evaluation.localisation import (
    average_precision_in_clips,
    average_precision_in_clips_chance,
    centres_inside,
    inside_events,
    overlaps,
    padded,
    pointing,
    pointing_chance,
    region_truth,
    segment_truth,
)
from avrepro.features.segments import segment_times

NAN = np.nan


# --- times ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("onset", "offset", "inside"),
    [
        (0.48, 1.44, [0, 1, 2]),  # exactly segment 1; half of 0 and of 2
        (0.49, 1.43, [1, 0, 2]),  # 0.94 s: shorter than a segment, so half of it, 0.47 s, is enough
        (0.0, 10.0, range(20)),
        (5.0, 5.1, [9, 10]),  # short: 4.32 .. 5.28 and 4.80 .. 5.76 hold it whole
        (2.0, 4.0, [4, 5, 6, 7]),  # 1.92 .. 4.32; 1.44 .. 2.40 has 0.40 s of it, 3.84 .. 4.80 has 0.16 s
        (10.5, 11.0, []),
    ],
)
def test_which_segments_lie_in_an_event(onset: float, offset: float, inside: list[int]) -> None:
    found = inside_events(segment_times(20), np.array([[onset, offset]]))
    assert np.flatnonzero(found).tolist() == sorted(inside)


# --- boxes ------------------------------------------------------------------------------------------------


def test_overlaps_against_counted_pixels() -> None:
    rng = np.random.default_rng(1)
    boxes, others = (np.column_stack([rng.integers(0, 12, (n, 2)), rng.integers(1, 9, (n, 2))]) for n in (15, 10))
    found = overlaps(boxes.astype(float), others.astype(float))
    assert found.shape == (15, 10)

    def painted(box: np.ndarray) -> np.ndarray:
        picture = np.zeros((24, 24), dtype=bool)
        x, y, w, h = box
        picture[y : y + h, x : x + w] = True
        return picture

    for (i, box), (j, other) in itertools.product(enumerate(boxes), enumerate(others)):
        a, b = painted(box), painted(other)
        assert found[i, j] == pytest.approx((a & b).sum() / (a | b).sum())
    assert 0 < (found == 0).sum() < found.size
    empty = np.array([[3.0, 3.0, 0.0, 0.0]])
    assert overlaps(empty, empty).tolist() == [[0.0]] and overlaps(np.zeros((0, 4)), empty).shape == (0, 1)


def test_centres_inside() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [4, 4, 2, 2], [9, 0, 2, 2], [20, 20, 4, 4]])
    assert centres_inside(boxes, np.array([[4.0, 4, 6, 4]])).tolist() == [[True], [True], [False], [False]]
    assert centres_inside(boxes, np.array([[5.0, 5, 1, 1]]))[:, 0].tolist() == [True, True, False, False]  # on the edge


def test_region_truth_needs_class_and_frame() -> None:
    sights = pd.DataFrame(
        [(0, "Car", 0, 0, 10, 10), (12, "Car", 50, 50, 10, 10), (0, "Bus", 40, 0, 20, 20), (0, None, 80, 80, 9, 9)],
        columns=["frame", "label", "x", "y", "w", "h"],
    )
    boxes = np.array(
        [[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 4], [50, 50, 10, 10], [38, 0, 22, 20], [80, 80, 9, 9]]
    )
    frames = np.array([0, 12, 0, 12, 0, 0])
    truth = region_truth(boxes, frames, sights, ("Bus", "Car", "Train"), "overlap")
    assert truth.dtype == bool and not truth[:, 2].any()
    assert truth[:, 1].tolist() == [True, False, False, True, False, False]  # the third overlaps by 0.4
    assert truth[:, 0].tolist() == [False, False, False, False, True, False]
    assert region_truth(boxes, frames, sights, ("Car",), "overlap", least=0.4)[2, 0]
    pointed = region_truth(boxes, frames, sights, ("Bus", "Car"), "centre")
    assert pointed[:, 1].tolist() == [True, False, True, True, False, False]
    assert region_truth(boxes[:0], frames[:0], sights, ("Bus",), "centre").shape == (0, 1)


# --- measures ---------------------------------------------------------------------------------------------


def case() -> tuple[np.ndarray, np.ndarray]:
    """Three clips of 4, 2 and 3 proposals and two classes."""
    truth = [
        np.array([[1, 0], [0, 0], [0, 1], [0, 1]], dtype=bool),
        np.array([[1, 0], [1, 0]], dtype=bool),
        np.array([[0, 0], [0, 0], [1, 0]], dtype=bool),
    ]
    scores = [
        np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.4], [0.3, 0.3]]),
        np.array([[-5.0, 0.0], [-6.0, 0.1]]),
        np.array([[0.5, 0.2], [0.5, 0.2], [0.5, 0.2]]),
    ]
    return padded(truth, False), padded(scores, NAN)


def test_pointing_where_no_proposal_can_be_right() -> None:
    """The object is in view, but no region overlaps it enough, or the clip has no region: both are misses."""
    truth, scores = case()
    asked = np.array([[True, True], [False, True], [True, True]])
    scores[2] = NAN
    truth[2] = False
    np.testing.assert_allclose(pointing(truth, scores, asked), np.array([[1, 0], [NAN, 0], [0, 0]]))
    np.testing.assert_allclose(pointing_chance(truth, scores, asked), np.array([[0.25, 0.5], [NAN, 0], [0, 0]]))


def test_a_system_without_an_opinion_points_as_well_as_chance() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((200, 9, 3)) < 0.3
    chance = pointing_chance(truth, np.zeros(truth.shape))
    np.testing.assert_allclose(pointing(truth, np.zeros(truth.shape)), chance)
    drawn = np.mean([np.nanmean(pointing(truth, rng.random(truth.shape))) for _ in range(50)])
    # 50 x 600 hits of standard deviation <= 0.5: four standard errors are 0.012
    assert drawn == pytest.approx(np.nanmean(chance), abs=0.012)


def test_average_precision_by_chance_is_the_mean_over_all_orders() -> None:
    for n, m in ((2, 1), (5, 1), (5, 2), (6, 5), (1, 1), (4, 0)):
        truth = (np.arange(n) < m)[None, :, None]
        orders = [np.array(order, dtype=float)[None, :, None] for order in itertools.permutations(range(n))]
        expected = np.mean([average_precision_in_clips(truth, scores)[0, 0] for scores in orders])
        found = average_precision_in_clips_chance(truth, orders[0])[0, 0]
        assert found == pytest.approx(expected, nan_ok=True)
    twenty = (np.arange(20) < 1)[None, :, None]
    assert average_precision_in_clips_chance(twenty, np.zeros((1, 20, 1)))[0, 0] == pytest.approx(0.18, abs=0.001)


def test_what_does_not_fit_is_refused() -> None:
    truth, scores = case()
    events = pd.DataFrame([("a", "Cow", 0.0, 1.0)], columns=["clip", "label", "onset", "offset"])
    with pytest.raises(ValueError, match=r"clip a: event 'Cow' is none of the 2"):
        segment_truth(events, ["a"], ["Bus", "Car"], segment_times(20))
    with pytest.raises(ValueError, match=r"bool \[clips, proposals, classes\]"):
        pointing(truth.astype(int), scores)
    with pytest.raises(ValueError, match=r"\(3, 4, 2\) and \(3, 3, 2\)"):
        pointing(truth, scores[:, :3])
    holed = scores.copy()
    holed[0, 1, 1] = NAN
    with pytest.raises(ValueError, match="NaN for others"):
        average_precision_in_clips(truth, holed)
    truth[1, 3, 1] = True
    with pytest.raises(ValueError, match="clip 1, proposal 3, class 1"):
        pointing_chance(truth, scores)
