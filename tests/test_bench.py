"""What `avrepro bench` compares does the same both ways; how quick either is belongs in no test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from avrepro.bench import Size, Timing, bench, tasks
from avrepro.evaluation import metric_interval

SMALL = Size(
    clips=2, picture=(270, 480), frames=3, tagged=(60, 4), ranked=(300, 3), resamples=12, few=12, one=12
)  # fmt: skip


def test_both_ways_give_the_same() -> None:
    with tasks(SMALL) as todo:
        assert len({task.name for task in todo}) == len(todo) == 5
        for task in todo:
            ours, usual = np.asarray(task.ours(), np.float64), np.asarray(task.usual(), np.float64)
            assert task.share == 1 and ours.shape == usual.shape and ours.std() + abs(ours.mean()) > 0, task.name
            assert np.abs(ours - usual).mean() <= task.tolerance, task.name


def test_a_part_of_the_usual_work_is_scaled_up(capsys: pytest.CaptureFixture[str]) -> None:
    timings = list(bench(repeat=1, size=replace(SMALL, few=3, one=2)))
    assert [one.task.share for one in timings] == [1, 1, 1, 4 / 13, 3 / 13]
    assert all(one.ours > 0 and one.usual > 0 for one in timings)
    calls: list[int] = []

    def metric(y_true: np.ndarray, scores: np.ndarray) -> float:
        calls.append(len(y_true))
        return 0.5

    metric_interval(metric, np.ones((5, 2), bool), np.ones((5, 2)), resamples=3)
    assert len(calls) == 4, "the clips as they are count in the share, too"
    assert "5 / 5: mAP of 300 clips x 3 classes, 12 resamples, against scikit-learn" in capsys.readouterr().err
    assert Timing(timings[0].task, ours=0.5, usual=2.0).ratio == 4
    with pytest.raises(ValueError, match="repeat: expected at least 1, found 0"):
        next(bench(repeat=0))
