"""What `avrepro bench` compares does the same both ways; how quick either is belongs in no test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avrepro.bench import Size, bench, tasks

SMALL = Size(2, (270, 480), (60, 4), ranked=(300, 3), resamples=12, few=(12, 12))


def test_both_ways_give_the_same(tmp_path: Path) -> None:
    todo = list(tasks(SMALL, tmp_path))
    assert len({task.name for task in todo}) == len(todo) == 4
    for task in todo:
        assert task.share == 1
        ours, usual = (np.asarray(way(), np.float64) for way in (task.ours, task.usual))
        assert np.isfinite(ours).all() and ours.std() + abs(ours.mean()) > 0, task.name
        apart = 4.0 if "frames" in task.name else 1e-4  # of 255; decoders convert colours differently
        assert ours.shape == usual.shape and np.abs(ours - usual).mean() <= apart, task.name


def test_a_part_of_the_usual_work_is_scaled_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([3.0, 4.0, 2.0, 5.0] * 4)  # ours, usual, ours, usual
    monkeypatch.setattr("avrepro.bench.timeit", lambda function, number: next(seconds))
    timings = list(bench(repeat=2, size=replace(SMALL, few=(3, 2))))
    assert [task.share for task, _, _ in timings] == [1, 1, 3 / 13, 4 / 13]
    assert [ours for _, ours, _ in timings] == [2] * 4
    assert [usual for _, _, usual in timings] == pytest.approx([4, 4, 4 * 13 / 3, 13])
    assert "mAP of 300 clips x 3 classes, 12 resamples, against scikit-learn" in capsys.readouterr().err
