"""The results store: whole files, one number once, and none in the book that is stale or a mere check."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from avrepro import checkout, results
from avrepro.conditions import Condition
from avrepro.corpora.base import Clip, Corpus, MissingClip
from avrepro.evaluation import Interval
from avrepro.results import Results, ResultsError, Run, check_shown, is_stale, read
from avrepro.systems import SYSTEMS

AUDIO = "li2017/audio"


def corpus_of(digest: str = "d" * 64, tests: int = 5) -> Corpus:
    splits = ["train"] * 5 + ["test"] * tests
    clips = tuple(Clip(f"{digest[0]}{row}", Path("x"), split, ("dog",)) for row, split in enumerate(splits))
    missing = (MissingClip("gone", "test", "no sound track"), MissingClip("lost", "train", "empty"))
    return Corpus("folder", ("dog",), clips, missing, digest)


def run_of(numbers: int = 2, measured: str = "chapter", **changes: object) -> Run:
    condition = Condition("folder", seed=3, **changes)  # type: ignore[arg-type]
    run = Run("lightweight_fusion", measured, condition, (3,), [corpus_of()])
    for step in range(numbers):
        run.add(AUDIO, "loss", 0.25 * step, split="test", step=step)
    return run


def test_what_is_written_is_read(tmp_path: Path) -> None:
    run = run_of(0, options=(("key_frames", 8),))
    run.add(AUDIO, "micro_f1", Interval(0.5, 0.4, 0.6, "bootstrap"), split="test", rule="tuned")
    run.add(AUDIO, "micro_f1", -0.1, split="test", against="li2017/fused")
    run.add(AUDIO, "class_f1", 0.1, split="test", label="dog | cat, ü")
    run.add("corpus", "clips", 12)
    written = run.write(tmp_path)
    run.add(AUDIO, "micro_f1", 0.3, split="test")
    with pytest.raises(ResultsError, match=r"noted twice: .*'metric': 'micro_f1'"):
        run.write(tmp_path)
    found = read(folders=(tmp_path,))
    pd.testing.assert_frame_equal(found.table, written.table, check_dtype=False)
    assert found.number(AUDIO, "micro_f1", split="test") == Interval(0.5, 0.4, 0.6, "bootstrap")
    assert found.number(AUDIO, "micro_f1", split="test", against="li2017/fused").value == -0.1
    single = found.number(AUDIO, "class_f1", split="test", label="dog | cat, ü")
    assert single.value == 0.1 and math.isnan(single.low)
    counted = found.select(split="test").iloc[0]
    assert (counted["clips"], counted["missing"], counted["threshold_rule"]) == (5, 1, "tuned")
    assert found.select(split="").iloc[0]["missing"] == 2
    assert found.find(AUDIO, "map") is None
    with pytest.raises(ResultsError, match="no map of li2017/audio"):
        found.number(AUDIO, "map")

    passport = found.passport()
    about = ("chapter", "measured", "corpus", "corpus_digest", "profile", "device", "seeds")
    expected = ["lightweight_fusion", "chapter", "folder", "d" * 64, "demo", "cpu", "[3]"]
    assert [passport[name] for name in about] == expected
    assert json.loads(passport["recipes"])[f"system/{AUDIO}"] == SYSTEMS[AUDIO].version
    assert results.condition_of(passport["condition"]) == Condition("folder", options=(("key_frames", 8),))


def test_clips_of_seeds_with_test_clips_of_their_own_are_counted_together(tmp_path: Path) -> None:
    parts = [corpus_of("a" * 64, 5), corpus_of("b" * 64, 7), corpus_of("a" * 64, 5)]
    run = Run("side_by_side", "protocol", Condition("paired"), (0, 1, 2), parts)
    run.add(AUDIO, "map", 0.5, split="test")
    row = run.write(tmp_path).table.iloc[0]
    assert (row["clips"], row["missing"]) == (12, 2)
    assert row["corpus_digest"] not in ("a" * 64, "b" * 64)


def test_runs_are_known_by_what_they_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(**changes: object) -> str:
        return run_of(**changes).write(tmp_path).passport()["run"]  # type: ignore[arg-type]

    first = run()
    assert run(numbers=3) == first and len(list(tmp_path.iterdir())) == 1, "the same run replaces itself"
    others = [run(profile="ci"), run(share=0.5), run(options=(("mixing", 0.0),)), run(measured="protocol")]
    monkeypatch.setattr(type(SYSTEMS[AUDIO]), "version", 99)
    others.append(run())
    assert len({first, *others}) == 6
    with pytest.raises(ResultsError, match="one run, the table holds 6"):
        read(folders=(tmp_path,)).passport()


def test_a_number_is_stale_where_its_own_recipe_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(1)
    run.add("li2017/video", "map", 0.5, split="test")
    run.add("corpus", "clips", 5)
    table = run.write(tmp_path).table
    assert not is_stale(table).any()
    monkeypatch.setattr(type(SYSTEMS[AUDIO]), "version", 99)
    assert is_stale(table).tolist() == [True, False, False]
    monkeypatch.setattr(results, "EVALUATION", 99)
    assert is_stale(table).all()
    monkeypatch.undo()
    assert is_stale(table.iloc[:2].assign(system="li2017/no_more")).all(), "a system that is no more"


def test_what_may_not_be_shown_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "COMMITTED", tmp_path / "committed")
    live = run_of().write(tmp_path / "store").table
    ci = run_of(profile="ci").write(tmp_path / "store").table
    dry = run_of(dry=True).write(tmp_path / "store").table
    check_shown(live)
    check_shown(ci, allow_ci=True)
    for table, reason in (
        (ci, "profile ci checks the machinery"),
        (dry, "a dry run"),
        (live.iloc[:0], "no results to show"),
        (live.assign(value=math.nan), "all numbers are missing"),
    ):
        with pytest.raises(ResultsError, match=reason):
            check_shown(table)
    old = run_of(measured="protocol").write(tmp_path / "committed").table
    monkeypatch.setattr(type(SYSTEMS[AUDIO]), "version", 99)
    check_shown(old)  # committed numbers may be stale, and are shown so
    assert Results(old).stale
    with pytest.raises(ResultsError, match="older than what it depends on"):
        check_shown(live)


def test_a_writer_that_is_stopped_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, partial = pd.DataFrame.to_parquet, list[bytes]()

    def stopped(table: pd.DataFrame, path: Path, **more: object) -> None:
        whole(table, path, **more)
        partial.append(path.read_bytes())
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_parquet", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_of().write(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".partial-x.parquet").write_bytes(partial[0][:100])  # what a killed one leaves
    assert read(folders=(tmp_path,)).table.empty
