"""What `avrepro bench` compares does the same both ways; how quick either is belongs in no test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avrepro import cli
from avrepro.bench import Size, bench, tasks

SMALL = Size(2, (270, 480), 3, (60, 4), ranked=(300, 3), fused=(600, 5), resamples=12, few=(12, 12))


def test_both_ways_give_the_same(tmp_path: Path) -> None:
    todo = list(tasks(SMALL, tmp_path))
    assert len({task.name for task in todo}) == len(todo) == 6
    for task in todo:
        assert task.share == 1
        ours = np.asarray(task.ours(), np.float64)
        assert np.isfinite(ours).all() and ours.std() + abs(ours.mean()) > 0, task.name
        if task.usual is not None:
            usual = np.asarray(task.usual(), np.float64)
            assert ours.shape == usual.shape and np.abs(ours - usual).mean() <= task.tolerance, task.name


def test_a_part_of_the_usual_work_is_scaled_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([*[3.0, 4.0, 2.0, 5.0] * 5, 3.0, 2.0])  # ours, usual, ours, usual; of the last one, ours alone
    monkeypatch.setattr("avrepro.bench.timeit", lambda function, number: next(seconds))
    timings = list(bench(repeat=2, size=replace(SMALL, few=(3, 2))))
    assert [task.share for task, _, _ in timings] == [1, 1, 1, 3 / 13, 4 / 13, 1]
    assert [ours for _, ours, _ in timings] == [2] * 6
    assert [usual for _, _, usual in timings] == pytest.approx([4, 4, 4, 4 * 13 / 3, 13, np.nan], nan_ok=True)
    assert "mAP of 300 clips x 3 classes, 12 resamples, against scikit-learn" in capsys.readouterr().err


def test_no_repetition_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["bench", "--repeat", "0"])
    assert "a whole number of at least 1, found '0'" in capsys.readouterr().err
