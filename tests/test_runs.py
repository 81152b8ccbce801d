"""Runs by name: mistakes before anything starts, keys that follow what a run depends on, sweeps that go on."""

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

from avrepro import cli, runs
from avrepro.digests import PACKAGE, ROOT
from avrepro.parameters import ParameterError

CHAPTER = "lightweight_fusion"
COMMANDS = ("book", "run", "sweep", "data", "features", "results", "bench")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package with its manifests and a chapter that is no notebook at all."""
    root = tmp_path / "checkout"
    shutil.copytree(PACKAGE, root / "avrepro", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data_manifests", root / "data_manifests")
    (root / "book").mkdir()
    (root / "book" / f"{CHAPTER}.ipynb").write_text("no notebook")
    return root


@pytest.fixture
def python(checkout: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python on the copy."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(checkout), "AVREPRO_HOME": str(tmp_path / "home")}
        command = [sys.executable, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path)

    return run


# --- the command line -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"Example:\n  avrepro {command}" in text
    words = text.split("Example:\n  avrepro ")[1].splitlines()[0].split()
    function = cli._parser().parse_args(words).command  # the example is one that parses
    assert function.__name__ == command or function.__module__ == f"avrepro.cli_{command}"


def test_the_help_names_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n    {command} " in text for command in COMMANDS)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", CHAPTER, "-p", "sed=3"], "unknown name 'sed'; did you mean 'seed'?"),
        (["run", CHAPTER, "-p", "seed=three"], "seed = 'three'"),
        (["run", CHAPTER, "-p", "seed"], "-p takes name=value, found 'seed'"),
        (["run", CHAPTER, "-p", "corpus=folder", "-p", "clips=a"], "labels=FILE.csv"),
        (["run", "lightweight"], "did you mean 'lightweight_fusion'?"),
        (["sweep", CHAPTER, "--grid", "seed=0,1,-2"], "seed = -2"),
        (["sweep", CHAPTER, "--grid", "seeds=0,1"], "did you mean 'seed'?"),
        (["sweep", CHAPTER, "--grid", "seed=0", "-p", "profile=tiny"], "profile = 'tiny'"),
        (["features", CHAPTER, "-p", "sed=3"], "did you mean 'seed'?"),
        (["sweep", "heavyweight", "--grid", "seed=0"], "unknown chapter 'heavyweight'"),
        (["sweep", CHAPTER], "a sweep needs values to go through"),
        (["sweep", "side_by_side", "--grid", "seed=0"], "it takes neither --grid nor -p"),
        (["features", "side_by_side"], "side_by_side has no features of its own"),
    ],
)
def test_a_wrong_parameter_ends_with_status_2(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("avrepro: ") and expected in captured.err


@pytest.mark.parametrize(
    "words",
    [
        ["run", CHAPTER, "-p", "sed=3"],
        ["sweep", CHAPTER, "--grid", "seed=-1"],
        ["features", CHAPTER, "-p", "seed=x"],
    ],
)
def test_a_wrong_parameter_ends_at_once(words: list[str]) -> None:
    """The command in a fresh process, in processor time; what it imported is on stderr."""
    before = os.times()
    start = time.monotonic()
    command = [sys.executable, "-X", "importtime", "-m", "avrepro", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    after = os.times()
    assert done.returncode == 2 and "avrepro: parameters of lightweight_fusion:" in done.stderr
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "pydantic" in imported
    assert not imported & {"torch", "timm", "pandas", "numpy", "papermill", "av", "sklearn"}
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used < 1.5 and time.monotonic() - start < 10


def test_an_error_ends_with_status_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "load", "folder", "--clips", str(tmp_path), "--labels", str(tmp_path / "absent.csv")])
    assert ended.value.code == 1
    assert "absent.csv" in capsys.readouterr().err


def test_an_empty_store(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avrepro import results

    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    monkeypatch.setattr(results, "COMMITTED", tmp_path / "none")
    cli.main(["results"])
    assert "no results yet" in capsys.readouterr().out
    for form in ("csv", "markdown"):
        cli.main(["results", "--format", form])
        assert len(capsys.readouterr().out.strip().splitlines()) == (1 if form == "csv" else 2)


def test_the_store_is_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    import pandas as pd
    from test_results import corpus_of

    from avrepro import results

    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    monkeypatch.setattr(results, "COMMITTED", tmp_path / "none")
    for seed in (0, 1):
        run = results.Run(CHAPTER, {"profile": "ci", "seed": seed}, corpus_of())
        run.add("fused | tuned", "test", "micro_f1", 0.5)
        run.add("fused | tuned", "test", "class_f1", 0.25, label="dog")
        run.write()
    cli.main(["results"])
    assert len(capsys.readouterr().out.strip().splitlines()) == 3
    cli.main(["results", "--format", "csv", "--all"])
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert sorted(table["value"]) == [0.25, 0.25, 0.5, 0.5] and set(table["seed"]) == {0, 1}
    cli.main(["results", "--format", "markdown"])
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 4 and "fused \\| tuned" in lines[2] and "0.5000" in lines[2]
    cli.main(["results", "--chapter", "another"])
    assert "no results yet" in capsys.readouterr().out


# --- sweeps -----------------------------------------------------------------------------------------------


def test_combinations_are_checked_before_anything_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    started: list[object] = []
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: started.append(words))
    with pytest.raises(ParameterError, match="key_frames = 0"):
        runs.sweep(CHAPTER, {"seed": [0, 1], "key_frames": [4, 0]}, {"profile": "ci"})
    with pytest.raises(ParameterError, match="renders its own clips"):
        runs.sweep(CHAPTER, {"seed": [0]}, {"clips": "a"})
    assert not started and not list(tmp_path.iterdir())
    with pytest.raises(ParameterError):
        runs.run_chapter(CHAPTER, {"sed": 1}, tmp_path / "out.ipynb")
    assert not list(tmp_path.iterdir())


def test_a_sweep_goes_on_over_what_is_there_and_what_fails(
    checkout: Path, python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Seed 1 was done before; the others fail, since the chapter is no notebook. Each is reported, in order."""
    code = f"from avrepro.runs import run_key; print(run_key({CHAPTER!r}, {{'seed': 1, 'profile': 'ci'}}))"
    folder = tmp_path / "home" / "runs" / CHAPTER
    folder.mkdir(parents=True)
    there = folder / f"{python('-c', code).stdout.strip()}.ipynb"
    there.write_text("{}")
    done = python("-m", "avrepro", "sweep", CHAPTER, "-p", "profile=ci", "--grid", "seed=0,1", "--jobs", "2")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1 of 2 runs are there") and len(lines) == 2
    assert lines[1].startswith("failed: {'profile': 'ci', 'seed': 0}: ")
    told = done.stderr.splitlines()
    assert told[0].startswith("1 / 2 runs: ") and "failed" in told[0]
    assert told[1].startswith("2 / 2 runs: ") and told[1].endswith("found")
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
import pathlib, sys, time
def wait_for(name):
    end = time.monotonic() + 60
    while not pathlib.Path(name).exists():
        assert time.monotonic() < end, f"{name} did not come"
        time.sleep(0.05)
"""


def chapter_of(checkout: Path, name: str, code: str) -> None:
    """A chapter of one cell, in the copy."""
    import nbformat

    cell = nbformat.v4.new_code_cell(WAIT + code, metadata={"tags": ["parameters"]})
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), checkout / "book" / f"{name}.ipynb")


@pytest.mark.parametrize(("processors", "given", "threads"), [("2", None, "1"), ("7", None, "3"), ("7", "2", "2")])
def test_chapters_run_side_by_side(
    checkout: Path,
    python: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    processors: str,
    given: str | None,
    threads: str,
) -> None:
    """Each waits for what the other writes, and computes in its share of the processors."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    for name, other in ((CHAPTER, "data"), ("data", CHAPTER)):
        share = "import os; share = os.environ.get('OMP_NUM_THREADS')\n"
        meet = f"pathlib.Path({name!r}).write_text(share); wait_for({other!r}); print('met', file=sys.stderr)"
        chapter_of(checkout, name, share + meet)
    done = python("-c", SIDE_BY_SIDE, processors, "data", CHAPTER)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    for name in ("data", CHAPTER):
        assert (tmp_path / f"{name}.out.ipynb").is_file()
        assert f"{name}: met" in done.stderr.splitlines()
        assert done.stderr.count(f"{name}: done in") == 1
        assert (tmp_path / name).read_text() == threads


def test_on_one_core_the_longest_chapter_runs_first(
    checkout: Path, python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    for name in (CHAPTER, "data"):
        chapter_of(checkout, name, f"with open('log', 'a') as file: print('{name} begins', file=file, flush=True)")
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
        (IN_THE_BACKGROUND, "import os; os.kill(os.getpid(), 9)", "its kernel was killed"),
    ],
)
def test_a_failed_chapter_is_named_and_stops_the_others(
    checkout: Path,
    python: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    first: str,
    ends: str,
    reason: str,
) -> None:
    busy = "import os; pathlib.Path('new').write_text(str(os.getpid())); pathlib.Path('new').rename('busy')\n"
    chapter_of(checkout, CHAPTER, busy + "time.sleep(600)")
    chapter_of(checkout, "data", f"wait_for('busy')\n{ends}")
    done = python("-c", first + SIDE_BY_SIDE, "2", "data", CHAPTER)
    kept = "data.out.failed.ipynb"
    assert done.stdout.startswith(f"data: {reason}") and done.stdout.endswith(f"The notebook is kept: {kept}\n")
    assert "wait_for" in (tmp_path / kept).read_text()
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
    assert runs._reason("", -9) == "ended with status -9: it said nothing"


# --- keys -------------------------------------------------------------------------------------------------

KEYS = f"""
import json, sys
from avrepro.runs import run_key
print(json.dumps([run_key({CHAPTER!r}, given) for given in json.loads(sys.argv[1])]))
"""


def test_a_key_follows_all_that_a_run_depends_on(
    checkout: Path, python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
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
    assert len(set(first)) == 5 and keys({}, folder) == [first[0], first[5]]

    for changed in ("avrepro/features/logmel.py", "data_manifests/demo_world.yaml", f"book/{CHAPTER}.ipynb"):
        path = checkout / changed
        text = path.read_text()
        path.write_text(text + "\n# one line more\n")
        other = keys({}, folder)
        assert other[0] != first[0] and other[1] != first[5], changed
        path.write_text(text)
    (checkout / "avrepro" / "new.py").touch()
    assert keys({})[0] != first[0]
    (checkout / "avrepro" / "new.py").unlink()
    (checkout / "requirements.lock").write_text("a lock")
    assert keys({})[0] != first[0]
    (checkout / "requirements.lock").unlink()
    assert keys({}, folder) == [first[0], first[5]]  # back again

    (clips / "b.mp4").write_text("b")
    plain, with_b = keys({}, folder)
    assert plain == first[0] and with_b != first[5]
    (clips / "b.mp4").unlink()
    (tmp_path / "labels.csv").write_text("clip,labels\na.mp4,Dog\n")
    assert keys(folder)[0] != first[5]


def test_a_key_follows_the_chapters_whose_numbers_are_shown(
    checkout: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    def key() -> str:
        done = python("-c", KEYS.replace(repr(CHAPTER), repr("side_by_side")), json.dumps([{}]))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)[0]

    for chapter in ("unsynchronized_mil", "attention_fusion", "side_by_side"):
        (checkout / "book" / f"{chapter}.ipynb").write_text("{}")
    first, other = key(), checkout / "book" / f"{CHAPTER}.ipynb"
    other.write_text(other.read_text() + "\n")
    assert key() != first


def test_a_key_needs_right_parameters() -> None:
    with pytest.raises(ParameterError):
        runs.run_key(CHAPTER, {"seed": "0"})
