"""Runs by name: quiet ones, sweeps that go on, chapters side by side, keys that follow what a run depends on."""

from __future__ import annotations

import io
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
from avrepro.kernel import last_line

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
    """Although the machine has another kernel of this name."""
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    kernel.joinpath("kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "another"}))
    code = "import sys, avrepro.progress, tqdm.auto\nprint(sys.executable)"
    chapter_of(copy, CHAPTER, "profile = 'demo'", code)
    words = ["-m", "avrepro", "run", CHAPTER, "-p", "profile=ci", "--output", "out.ipynb"]
    done = python(*words, JUPYTER_PATH=str(tmp_path / "jupyter"))
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{CHAPTER}: done in ") and line.endswith(" s, out.ipynb")
    cells = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    assert cells[1]["source"] == ["# Parameters\n", 'profile = "ci"\n']
    assert "".join(cells[2]["outputs"][0]["text"]).strip() == sys.executable


# --- sweeps -----------------------------------------------------------------------------------------------


def test_a_sweep_goes_on_over_what_is_cached_and_what_fails(copy: Path, python: Python, tmp_path: Path) -> None:
    """Seed 1 was done before; the others fail, since the chapter is no notebook."""
    code = f"from avrepro.runs import run_key; print(run_key({CHAPTER!r}, {{'seed': 1, 'profile': 'ci'}}))"
    folder = tmp_path / "home" / "runs" / CHAPTER
    folder.mkdir(parents=True)
    there = folder / f"{python('-c', code).stdout.strip()}.ipynb"
    there.write_text("{}")
    grid = ("--grid", "seed=0,0", "--grid", "seed=1")
    done = python("-m", "avrepro", "sweep", CHAPTER, "-p", "profile=ci", *grid, "--jobs", "2")
    assert done.returncode == 1
    assert done.stdout.startswith("1 of 2 runs are there")
    assert "\nfailed: {'profile': 'ci', 'seed': 0}: " in done.stdout
    assert done.stderr.startswith("1 of 2 runs were done before")
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
def arrive(name, text):
    pathlib.Path("new" + name).write_text(text); pathlib.Path("new" + name).rename(name)
"""


def test_on_one_core_the_longest_chapter_runs_first(copy: Path, python: Python, tmp_path: Path) -> None:
    for name in (CHAPTER, "data"):
        chapter_of(copy, name, f"with open('log', 'a') as file: print('{name} begins', file=file, flush=True)")
    done = python("-c", SIDE_BY_SIDE, "1", "data", CHAPTER)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert (tmp_path / "log").read_text().splitlines() == [f"{CHAPTER} begins", "data begins"]
    assert len(list(tmp_path.glob("*.out.ipynb"))) == 2


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
    ],
)
def test_chapters_run_side_by_side_until_one_fails(
    copy: Path, python: Python, tmp_path: Path, first: str, ends: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for the other and computes in its share of two processors; then one fails and the other is stopped."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = "arrive('threads', os.environ['OMP_NUM_THREADS'])\n"
    busy = f"{WAIT}{threads}arrive('busy', str(os.getpid())); wait_for('met'); time.sleep(600)"
    chapter_of(copy, CHAPTER, busy)
    met = "print('met', file=sys.stderr); arrive('met', ''); time.sleep(1)"
    chapter_of(copy, "data", f"{WAIT}wait_for('busy'); {met}; {ends}")
    done = python("-c", first + SIDE_BY_SIDE, "2", "data", CHAPTER)
    notebook = "data.out.failed.ipynb"
    assert done.stdout.startswith(f"data: {reason}") and done.stdout.endswith(f"The notebook is kept: {notebook}\n")
    assert "data: met" in done.stderr.splitlines() and (tmp_path / "threads").read_text() == "1"
    assert "wait_for" in (tmp_path / notebook).read_text() and list(tmp_path.glob("*.out.ipynb")) == []
    kernel = Path("/proc", (tmp_path / "busy").read_text(), "stat")
    end = time.monotonic() + 10  # a kernel whose chapter had to be killed sees that within seconds
    while (alive := is_alive(kernel)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not alive and list(tmp_path.glob(".partial-*")) == []


def test_why_a_command_or_its_kernel_ended() -> None:
    assert runs._reason("a: 1 / 2\n", -9) == "ended with status -9: a: 1 / 2"
    assert runs._reason("", -9) == "ended with status -9: without a word"
    stderr = io.BytesIO(b"free(): invalid pointer\n[IPKernelApp] WARNING | gone\n\n")
    assert last_line(stderr) == "free(): invalid pointer"


# --- keys -------------------------------------------------------------------------------------------------


def test_a_key_follows_all_that_a_run_shows(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "BOOK", copy / "book")
    for name, path in {"ROOT": copy, "PACKAGE": copy / "avrepro", "COMMITTED": copy / "results"}.items():
        monkeypatch.setattr(checkout, name, path)
    monkeypatch.setattr(checkout, "lock_digest", checkout.lock_digest.__wrapped__)
    clips, labels = tmp_path / "clips", tmp_path / "labels.csv"
    clips.mkdir()
    labels.write_text("clip,labels\n")
    folder = {"corpus": "folder", "clips": str(clips), "labels": str(labels)}

    def keys() -> tuple[str, str]:
        return runs.run_key(CHAPTER, {}), runs.run_key(CHAPTER, folder)

    first = keys()
    assert runs.run_key(CHAPTER, {"seed": 0}) == first[0], "what is given as it is by default is the same run"
    others = [runs.run_key(CHAPTER, given) for given in ({"seed": 1}, {"profile": "ci"}, {"key_frames": 5})]
    assert len({*first, *others}) == 5

    files = ("avrepro/features/logmel.py", "data_manifests/demo_world.yaml", f"book/{CHAPTER}.ipynb")
    for changed in (*files, "results/new.parquet", "requirements.lock"):
        path = copy / changed
        before = path.read_text() if path.is_file() else None
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{before}\n# one line more\n")
        assert not set(keys()) & set(first), changed
        path.unlink() if before is None else path.write_text(before)
    assert keys() == first  # back again
    for path, text in ((clips / "b.mp4", "b"), (labels, "clip,labels\nb.mp4,Dog\n")):
        before = keys()
        path.write_text(text)
        assert keys()[0] == first[0] and keys()[1] != before[1]
