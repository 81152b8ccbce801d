"""The results store: whole files only, one number once, and none in the book that is stale or a mere check."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from avrepro import digests, results
from avrepro.corpora.base import Clip, Corpus, MissingClip
from avrepro.evaluation import Interval
from avrepro.results import NUMBER, PASSPORT, Results, ResultsError, Run, check_shown, is_stale, read

PARAMETERS = {"profile": "demo", "seed": 3, "corpus": "folder"}


def corpus_of(digest: str = "d" * 64) -> Corpus:
    clips = tuple(Clip(f"{split}{i}", Path("x"), split, ("dog",)) for split in ("train", "test") for i in range(5))
    missing = (MissingClip("gone", "test", "no sound track"), MissingClip("lost", "train", "empty"))
    return Corpus("folder", ("dog",), clips, missing, digest)


def run_of(numbers: int = 2, **changes: object) -> Run:
    run = Run("lightweight_fusion", {**PARAMETERS, **changes}, corpus_of())
    for step in range(numbers):
        run.add("audio", "test", "loss", 0.25 * step, step=step)
    return run


def test_what_is_written_is_read(tmp_path: Path) -> None:
    run = Run("lightweight_fusion", PARAMETERS, corpus_of(), "cpu")
    run.add("audio", "test", "micro_f1", Interval(0.5, 0.4, 0.6, "bootstrap"), threshold_rule="tuned")
    run.add("audio", "test", "class_f1", 0.1, label="dog | cat, ü")
    run.add("audio", "", "seconds", 12)
    written = run.write(tmp_path)
    found = read(folders=(tmp_path,))
    pd.testing.assert_frame_equal(found.table, written.table, check_dtype=False)
    assert tuple(found.table.columns) == (*PASSPORT, *NUMBER)
    assert found.number("audio", "micro_f1", "test") == Interval(0.5, 0.4, 0.6, "bootstrap")
    single = found.number("audio", "class_f1", "test", label="dog | cat, ü")
    assert single.value == 0.1 and math.isnan(single.low) and math.isnan(single.high) and single.method == ""
    counted = found.select(split="test").iloc[0]
    assert (counted["clips"], counted["missing"]) == (5, 1)
    assert found.select(split="").iloc[0]["missing"] == 2
    assert len(found.select(metric=["micro_f1", "seconds"])) == 2
    assert read(run.id, (tmp_path,)).table.equals(found.table)
    assert read("another", (tmp_path,)).table.empty
    assert [path.name for path in tmp_path.iterdir()] == [f"lightweight_fusion-{run.id}.parquet"]


def test_the_passport_says_what_was_measured(tmp_path: Path) -> None:
    run = run_of()
    passport = run.write(tmp_path).passport()
    assert passport == read(folders=(tmp_path,)).passport()
    assert set(passport) == set(PASSPORT) - {"clips", "missing"}
    assert passport["run"] == run.id and passport["chapter"] == "lightweight_fusion"
    assert (passport["corpus"], passport["corpus_digest"]) == ("folder", "d" * 64)
    assert (passport["profile"], passport["seed"], passport["device"]) == ("demo", 3, "cpu")
    assert json.loads(passport["parameters"]) == PARAMETERS
    assert passport["digest"] == results.passport_digest("lightweight_fusion", PARAMETERS)
    assert passport["code_digest"] == digests.code()
    assert {"av", "torch", "numpy"} <= set(json.loads(passport["versions"]))
    assert abs(pd.Timestamp(passport["time"]).timestamp() - time.time()) < 60
    assert 0 <= passport["seconds"] < 60
    run_of(seed=4).write(tmp_path)
    with pytest.raises(ResultsError, match="holds 2"):
        read(folders=(tmp_path,)).passport()


def test_a_number_noted_twice_is_refused() -> None:
    run = run_of(1)
    with pytest.raises(ResultsError, match="noted twice: audio, test, loss, all classes, step 0"):
        run.add("audio", "test", "loss", 0.3, step=0)
    for other in ({"step": 1}, {"label": "dog", "step": 0}):
        run.add("audio", "test", "loss", 0.3, **other)  # type: ignore[arg-type]
    with pytest.raises(ResultsError, match="dog"):
        run.add("audio", "test", "loss", 0.3, label="dog", step=0)
    assert len(run.rows) == 3


def test_a_number_missing_or_ambiguous(tmp_path: Path) -> None:
    for seed in (0, 1):
        run_of(seed=seed).write(tmp_path)
    found = read(folders=(tmp_path,))
    with pytest.raises(ResultsError, match=r"0 numbers .*class_f1 of audio on test for dog"):
        found.number("audio", "class_f1", "test", "dog")
    with pytest.raises(ResultsError, match="2 numbers where one is needed: loss of audio on test"):
        found.number("audio", "loss", "test", step=0)
    with pytest.raises(ResultsError, match="no split"):
        found.number("audio", "seconds")
    assert Results(found.select(seed=0)).number("audio", "loss", "test", step=1).value == 0.25


def test_the_run_is_known_by_what_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of()
    same = run_of(numbers=5)
    same.started += 100.0
    assert same.id == run.id
    assert Run(run.chapter, dict(reversed(PARAMETERS.items())), corpus_of()).id == run.id  # order is no matter
    ids = {
        "seed": run_of(seed=4).id,
        "profile": run_of(profile="ci").id,
        "corpus": replace(run, corpus=corpus_of("e" * 64)).id,
        "device": replace(run, device="NVIDIA H100").id,
        "chapter": replace(run, chapter="another").id,
    }
    monkeypatch.setattr(digests, "code", lambda *parts: "other code")
    ids["code"] = run.id
    monkeypatch.undo()
    monkeypatch.setattr(digests, "dependencies", lambda: "other lock")
    ids["dependencies"] = run.id
    monkeypatch.undo()
    monkeypatch.setattr(digests, "manifests", lambda: "other manifests")
    ids["manifests"] = run.id
    monkeypatch.undo()
    assert len({run.id, *ids.values()}) == 1 + len(ids)
    assert run_of().id == run.id


def test_what_may_stand_in_the_book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = run_of().write(tmp_path).table
    check_shown(table)
    with pytest.raises(ResultsError, match="not in the store"):
        check_shown(table.iloc[:0])
    with pytest.raises(ResultsError, match="profile ci"):
        check_shown(run_of(profile="ci").write(tmp_path).table)
    check_shown(run_of(profile="ci").write(tmp_path).table, allow_ci=True)
    with pytest.raises(ResultsError, match="profile ci"):  # one ci run among others is enough
        check_shown(read(folders=(tmp_path,)).table)
    with pytest.raises(ResultsError, match="older than"):  # parameters other than those digested
        check_shown(table.assign(parameters=json.dumps({**PARAMETERS, "seed": 4})))
    missing = table.assign(value=math.nan)
    with pytest.raises(ResultsError, match="not a number"):
        check_shown(missing)
    for part in ("code", "manifests", "dependencies"):
        monkeypatch.setattr(digests, part, lambda *parts: "changed")
        with pytest.raises(ResultsError, match=r"older than today's code, manifests or dependencies"):
            check_shown(table)
        monkeypatch.undo()
    check_shown(table)


def test_a_dry_run_is_never_shown(tmp_path: Path) -> None:
    table = run_of(profile="ci", dry=True).write(tmp_path).table
    with pytest.raises(ResultsError, match="dry run checks the machinery"):
        check_shown(table, allow_ci=True)
    check_shown(run_of(dry=False).write(tmp_path).table)


def test_committed_numbers_go_stale_by_their_own_parts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = replace(run_of(), parts=("media.py", "evaluation"))
    row = run.write(tmp_path).table.iloc[0]
    assert not is_stale(row)
    truth = digests.code
    for part, stale in (("media.py", True), ("evaluation", True), ("cli.py", False)):
        with monkeypatch.context() as patch:
            changed = lambda *parts: truth(*parts) + ("changed" if part in parts else "")  # noqa: B023, E731
            patch.setattr(digests, "code", changed)
            assert is_stale(row) == stale
            check_shown(row.to_frame().T)  # told, and no reason to stop
    for part in ("dependencies", "manifests"):  # of other chapters, perhaps
        with monkeypatch.context() as patch:
            patch.setattr(digests, part, lambda: "changed")
            assert not is_stale(row)
    monkeypatch.setattr(digests, "versions", lambda: {"torch": "3.0"})
    assert is_stale(row)
    monkeypatch.undo()
    gone = {"parts": '["media.py", "no_longer_there.py"]'}
    assert not is_stale(row) and is_stale(pd.Series({**row, **gone}))
    with pytest.raises(FileNotFoundError, match=r"nothing\.py"):
        replace(run, parts=("nothing.py",)).write(tmp_path)


def test_nan_survives(tmp_path: Path) -> None:
    run = run_of(1)
    run.add("audio", "test", "class_f1", math.nan, label="dog")
    run.write(tmp_path)
    found = read(folders=(tmp_path,))
    assert math.isnan(found.number("audio", "class_f1", "test", "dog").value)
    check_shown(found.table)  # a class without clips has no F1; the others stand


def test_committed_and_own_results_make_no_duplicates(tmp_path: Path) -> None:
    run = run_of(3)
    run.write(tmp_path / "own")
    run.write(tmp_path / "committed")
    run_of(3, seed=9).write(tmp_path / "committed")
    found = read(folders=(tmp_path / "own", tmp_path / "committed", tmp_path / "absent")).table
    assert len(found) == 6 and not found.duplicated(results.KEY).any()
    empty = read(folders=(tmp_path / "absent",)).table
    assert empty.empty and tuple(empty.columns) == (*PASSPORT, *NUMBER)


WRITER = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_results import run_of
run = run_of(200)
print("ready", flush=True)
input()
end = time.monotonic() + float(sys.argv[2])
count = 0
while time.monotonic() < end:
    run.write(Path(sys.argv[1]))
    count += 1
print(count)
"""


def start_writer(folder: Path, seconds: float) -> subprocess.Popen:
    code = WRITER.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", code, str(folder), str(seconds)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_writers_and_a_reader(tmp_path: Path) -> None:
    """Two processes rewrite the same run while this one reads: never a broken file, never a row twice."""
    writers = [start_writer(tmp_path, 1.5) for _ in range(2)]
    try:
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin is not None
            print(file=writer.stdin, flush=True)
        reads = 0
        while any(writer.poll() is None for writer in writers):
            table = read(folders=(tmp_path,)).table
            assert len(table) in (0, 200)
            assert not table.duplicated(results.KEY).any()
            reads += 1
        counts = [int(writer.stdout.readline()) for writer in writers if writer.stdout is not None]
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    assert reads > 5 and min(counts) > 5
    assert len(list(tmp_path.iterdir())) == 1  # no partial file is left
    assert len(read(folders=(tmp_path,)).table) == 200


def test_a_killed_writer_leaves_nothing_under_a_final_name(tmp_path: Path) -> None:
    """Killed at any moment; what it leaves is not read, and the next run is not hindered."""
    code = (
        "import os, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "import pandas as pd\n"
        "from test_results import run_of\n"
        "whole = pd.DataFrame.to_parquet\n"
        "def half(table, path, **options):\n"
        "    whole(table, path, **options)\n"
        "    os.truncate(path, os.path.getsize(path) // 2)\n"
        f"    os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        "pd.DataFrame.to_parquet = half\n"
        f"run_of().write(Path({str(tmp_path)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".partial-")
    assert read(folders=(tmp_path,)).table.empty
    assert read(run_of().id, (tmp_path,)).table.empty
    run_of().write(tmp_path)
    assert len(read(folders=(tmp_path,)).table) == 2
