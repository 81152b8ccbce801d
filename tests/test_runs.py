"""Runs by name: quiet ones, sweeps that go on, chapters side by side, keys that follow what a run depends on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from avrepro import checkout, runs
from avrepro.parameters import ParameterError

CHAPTER = "lightweight_fusion"
Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package with its manifests and a chapter that is no notebook at all."""
    root = tmp_path / "checkout"
    shutil.copytree(checkout.PACKAGE, root / "avrepro", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(checkout.ROOT / "data_manifests", root / "data_manifests")
    (root / "book").mkdir()
    (root / "book" / f"{CHAPTER}.ipynb").write_text("no notebook")
    return root


@pytest.fixture
def python(copy: Path, tmp_path: Path) -> Python:
    """Run Python on the copy."""

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(copy), "AVREPRO_HOME": str(tmp_path / "home")} | variables
        command = [sys.executable, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path)

    return run


def chapter_of(copy: Path, name: str, *cells: str) -> None:
    """A chapter of a few cells, in the copy; the first one has its parameters."""
    import nbformat

    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    code[0].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata=kernel), copy / "book" / f"{name}.ipynb")


# --- one run ----------------------------------------------------------------------------------------------


def test_a_chapter_runs_in_this_interpreter_and_is_quiet(copy: Path, python: Python, tmp_path: Path) -> None:
    """Although the machine has another kernel of this name; the scores that it writes are printed."""
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    kernel.joinpath("kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "another"}))
    table = [["a", "li2017/audio", label, score] for label, score in zip("abcd", (0.9, 0.5, 0.25, 0.125), strict=True)]
    code = f"""
import os, sys, avrepro.progress, tqdm.auto
import pandas as pd
pd.DataFrame({table!r}, columns=["clip", "system", "label", "score"]).to_csv(os.environ["AVREPRO_SCORES"], index=False)
print(sys.executable)
"""
    chapter_of(copy, CHAPTER, "profile = 'demo'", code)
    words = ["-m", "avrepro", "run", CHAPTER, "-p", "profile=ci", "--output", "out.ipynb"]
    done = python(*words, JUPYTER_PATH=str(tmp_path / "jupyter"))
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{CHAPTER}: done in ") and line.endswith(" s, out.ipynb")
    cells = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    assert cells[1]["source"] == ["# Parameters\n", 'profile = "ci"\n']
    assert "".join(cells[2]["outputs"][0]["text"]).strip() == sys.executable
    assert [line.split() for line in done.stdout.splitlines()[-4:]] == [
        ["clip", "system", "label", "score"], ["a", "li2017/audio", "a", "0.90"], ["a", "li2017/audio", "b", "0.50"],
        ["a", "li2017/audio", "c", "0.25"],
    ]  # fmt: skip
    assert "out.scores.csv" in done.stdout.splitlines()[1]


# --- sweeps -----------------------------------------------------------------------------------------------


def test_combinations_are_checked_before_anything_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: pytest.fail("it runs"))
    with pytest.raises(ParameterError, match="key_frames = 0"):
        runs.sweep(CHAPTER, {"seed": [0, 1], "key_frames": [4, 0]}, {"profile": "ci"})
    with pytest.raises(ParameterError, match="renders its own clips"):
        runs.sweep(CHAPTER, {"seed": [0]}, {"clips": "a"})
    with pytest.raises(ParameterError):
        runs.run_chapter(CHAPTER, {"sed": 1}, tmp_path / "out.ipynb")
    assert not list(tmp_path.iterdir())


def test_a_sweep_goes_on_over_what_is_cached_and_what_fails(copy: Path, python: Python, tmp_path: Path) -> None:
    """Seed 1 was done before; the others fail, since the chapter is no notebook. Each is reported, in order."""
    code = f"from avrepro.runs import run_key; print(run_key({CHAPTER!r}, {{'seed': 1, 'profile': 'ci'}}))"
    folder = tmp_path / "home" / "runs" / CHAPTER
    folder.mkdir(parents=True)
    there = folder / f"{python('-c', code).stdout.strip()}.ipynb"
    there.write_text("{}")
    grid = ("--grid", "seed=0,0", "--grid", "seed=1")
    done = python("-m", "avrepro", "sweep", CHAPTER, "-p", "profile=ci", *grid, "--jobs", "2")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1 of 2 runs are there") and len(lines) == 2
    assert lines[1].startswith("failed: {'profile': 'ci', 'seed': 0}: ")
    log = done.stderr.splitlines()
    assert log[0].startswith("1 / 2 runs: ") and "failed" in log[0]
    assert log[1].startswith("2 / 2 runs: ") and log[1].endswith("cached")
    assert there.read_text() == "{}" and len(list(folder.glob("*.log"))) == 1
    assert len(list(folder.glob("*.ipynb"))) == 1  # what failed has no place among what is done


# --- side by side -----------------------------------------------------------------------------------------

SIDE_BY_SIDE = """
import os, pathlib, sys
from avrepro import runs
os.cpu_count = lambda: int(sys.argv[1])
try:
    runs.run_side_by_side({name: pathlib.Path(f"{name}.out.ipynb") for name in sys.argv[2:]}, {"profile": "ci"})
except runs.RunFailed as error:
    print(error)
"""
WAIT = """
import os, pathlib, sys, time
def wait_for(name):
    end = time.monotonic() + 60
    while not pathlib.Path(name).exists():
        assert time.monotonic() < end, f"{name} did not come"
        time.sleep(0.05)
"""


@pytest.mark.parametrize(("processors", "given", "threads"), [("2", None, "1"), ("7", "2", "2")])
def test_chapters_run_side_by_side(
    copy: Path,
    python: Python,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    processors: str,
    given: str | None,
    threads: str,
) -> None:
    """Each waits for what the other writes, and computes in its share of the processors."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, other in ((CHAPTER, "data"), ("data", CHAPTER)):
        share = f"pathlib.Path({name!r}).write_text(os.environ['OMP_NUM_THREADS'])\n"
        chapter_of(copy, name, f"{WAIT}{share}wait_for({other!r}); print('met', file=sys.stderr)")
    variables = {} if given is None else {"OMP_NUM_THREADS": given}
    done = python("-c", SIDE_BY_SIDE, processors, "data", CHAPTER, **variables)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    for name in ("data", CHAPTER):
        assert (tmp_path / f"{name}.out.ipynb").is_file()
        assert f"{name}: met" in done.stderr.splitlines()
        assert done.stderr.count(f"{name}: done in") == 1
        assert (tmp_path / name).read_text() == threads


def test_on_one_core_the_longest_chapter_runs_first(copy: Path, python: Python, tmp_path: Path) -> None:
    for name in (CHAPTER, "data"):
        chapter_of(copy, name, f"with open('log', 'a') as file: print('{name} begins', file=file, flush=True)")
    done = python("-c", SIDE_BY_SIDE, "1", "data", CHAPTER)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "log").read_text().splitlines() == [f"{CHAPTER} begins", "data begins"]
    ended = [line.split(":")[0] for line in done.stderr.splitlines() if ": done in" in line]
    assert ended == [CHAPTER, "data"]


def is_alive(stat: Path) -> bool:
    """Whether a process is there that is not dead and only waits to be asked how it ended."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


IN_THE_BACKGROUND = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"  # as `make book &` in a script does


@pytest.mark.parametrize(
    ("first", "ends", "reason"),
    [
        ("", "raise ValueError('no such thing')", "ValueError: no such thing"),
        (IN_THE_BACKGROUND, "os.kill(os.getpid(), 9)", "its kernel died (it may have been killed for want of memory)"),
        ("", "os.write(2, b'free(): invalid pointer\\n'); time.sleep(1); os.abort()", "its kernel died (free(): inv"),
    ],
)
def test_a_failed_chapter_is_named_and_stops_the_others(
    copy: Path, python: Python, tmp_path: Path, first: str, ends: str, reason: str
) -> None:
    busy = "pathlib.Path('new').write_text(str(os.getpid())); pathlib.Path('new').rename('busy')\n"
    chapter_of(copy, CHAPTER, f"{WAIT}{busy}time.sleep(600)")
    chapter_of(copy, "data", f"{WAIT}wait_for('busy')\n{ends}")
    done = python("-c", first + SIDE_BY_SIDE, "2", "data", CHAPTER)
    notebook = "data.out.failed.ipynb"
    assert done.stdout.startswith(f"data: {reason}") and done.stdout.endswith(f"The notebook is kept: {notebook}\n")
    assert "wait_for" in (tmp_path / notebook).read_text()
    assert list(tmp_path.glob("*.out.ipynb")) == []
    kernel = Path("/proc", (tmp_path / "busy").read_text(), "stat")
    end = time.monotonic() + 10  # a kernel whose chapter had to be killed sees that within seconds
    while (alive := is_alive(kernel)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not alive
    assert list(tmp_path.glob(".partial-*")) == []


def test_a_command_that_had_no_time_to_say_why() -> None:
    assert runs._reason("a: 1 / 2\navrepro: a: KeyError: 'x'\nThe notebook is kept: b\n", 1) == (
        "a: KeyError: 'x'\nThe notebook is kept: b"
    )
    assert runs._reason("a: 1 / 2\n", -9) == "ended with status -9: a: 1 / 2"
    assert runs._reason("", -9) == "ended with status -9: without a word"


# --- keys -------------------------------------------------------------------------------------------------

KEYS = f"""
import json, sys
from avrepro.runs import run_key
print(json.dumps([run_key({CHAPTER!r}, given) for given in json.loads(sys.argv[1])]))
"""


def test_a_key_follows_all_that_a_run_shows(copy: Path, python: Python, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "a.mp4").write_text("a")
    (tmp_path / "labels.csv").write_text("clip,labels\n")
    folder = {"corpus": "folder", "clips": str(clips), "labels": str(tmp_path / "labels.csv")}

    def keys(*given: dict) -> list[str]:
        done = python("-c", KEYS, json.dumps(given))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    first = keys({}, {"seed": 0}, {"seed": 1}, {"profile": "ci"}, {"key_frames": 5}, folder)
    assert first[0] == first[1]  # what is given as it is by default is the same run
    assert len(set(first)) == 5

    files = ("avrepro/features/logmel.py", "data_manifests/demo_world.yaml", f"book/{CHAPTER}.ipynb")
    for changed in (*files, "results/new.parquet", "requirements.lock"):
        path = copy / changed
        before = path.read_text() if path.is_file() else None
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{before}\n# one line more\n")
        other = keys({}, folder)
        assert other[0] != first[0] and other[1] != first[5], changed
        path.unlink() if before is None else path.write_text(before)
    assert keys({}, folder) == [first[0], first[5]]  # back again

    (clips / "b.mp4").write_text("b")
    plain, with_b = keys({}, folder)
    assert plain == first[0] and with_b != first[5]
    (clips / "b.mp4").unlink()
    (tmp_path / "labels.csv").write_text("clip,labels\na.mp4,Dog\n")
    assert keys(folder)[0] != first[5]
    with pytest.raises(ParameterError):
        runs.run_key(CHAPTER, {"seed": "0"})
