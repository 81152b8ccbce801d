"""The command line: help, and mistakes that end a command before anything runs."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from avrepro import checkout, cli, results, runs
from avrepro.conditions import Condition
from avrepro.corpora.base import Clip, Corpus

CHAPTER = "lightweight_fusion"
COMMANDS = ("book", "run", "sweep", "measure", "data", "features", "results", "bench")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_shows_an_example_that_can_be_typed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    words = capsys.readouterr().out.split("Example:\n  avrepro ")[1].splitlines()[0].split()
    function = cli._parser().parse_args(words).command
    assert words[0] == command and (function.__name__ == command or function.__module__ == f"avrepro.cli_{command}")


RUN, SWEEP = ["run", CHAPTER], ["sweep", CHAPTER, "--grid"]
FAILS = ["data", "load", "folder", "--clips", ".", "--labels", "absent.csv"]  # what no look at the words could find out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([*RUN, "-p", "seed"], "-p takes name=value, found 'seed'"),
        (["run", "lightweight"], "did you mean 'lightweight_fusion'?"),
        ([*SWEEP, "seed=0,1,-2"], "seed = -2"),
        ([*SWEEP, "seed"], "--grid takes name=value,value, found 'seed'"),
        ([*SWEEP, "seed=0", "-p", "seed=1"], "seed: given by -p and by --grid"),
        ([*SWEEP, "seed=0", "--jobs", "0"], "--jobs: expected a whole number of at least 1, found '0'"),
        (SWEEP[:2], "a sweep needs values to go through"),
        (["features", "side_by_side"], "side_by_side trains no systems"),
        (FAILS, "absent.csv"),
    ],
)
def test_a_wrong_word_ends_with_status_2_and_what_fails_with_1(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    captured = capsys.readouterr()
    assert ended.value.code == (1 if words == FAILS else 2) and captured.out == "" and expected in captured.err


def test_a_place_that_cannot_be_written_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "run_chapter", lambda *given: pytest.fail("it runs"))
    kept, file = tmp_path / "kept.ipynb", tmp_path / "file"
    kept.touch(mode=0o444)
    file.touch()
    (tmp_path / "x.scores.csv").mkdir()
    for output, expected in (
        (tmp_path / "x.csv", "(X.ipynb), outside of"),
        (runs.notebook_of(CHAPTER), "outside of"),
        (tmp_path / "x.ipynb", "x.scores.csv is a folder"),
        (kept, "is read-only"),
        (file / "x.ipynb", "cannot be written to: "),
    ):
        with pytest.raises(SystemExit, match="2"):
            cli.main([*RUN, "--output", str(output)])
        error = capsys.readouterr().err
        assert error.startswith(f"avrepro: --output {output}: expected the name of a notebook to write")
        assert expected in error


@pytest.mark.parametrize("words", [[*RUN, "-p", "sed=3"], ["features", CHAPTER, "-p", "seed=x"]])
def test_a_wrong_parameter_ends_before_anything_heavy_is_imported(words: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "avrepro", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "avrepro: parameters of lightweight_fusion:" in done.stderr
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "pydantic" in imported
    assert not imported & {"torch", "timm", "pandas", "numpy", "papermill", "jupyter_client", "av", "sklearn"}


@pytest.mark.usefixtures("home")
def test_the_store_is_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def printed(*words: str) -> list[str]:
        cli.main(["results", *words])
        return capsys.readouterr().out.strip().splitlines()

    monkeypatch.setattr(checkout, "COMMITTED", tmp_path / "none")
    assert printed() == ["no results yet; run a chapter: avrepro run lightweight_fusion"]
    corpus = Corpus("demo", ("dog",), (Clip("a", tmp_path, "test", ("dog",)),), (), "made")
    run = results.Run(CHAPTER, "chapter", Condition(profile="ci", seed=1), (1,), [corpus])
    run.add("fused | tuned", "micro_f1", 0.5, split="test")
    run.add("fused | tuned", "class_f1", 0.25, split="test", label="dog")
    run.write()
    assert len(printed("--chapter", CHAPTER)) == 2 and len(printed("--chapter", "data")) == 1
    table = pd.read_csv(io.StringIO("\n".join(printed("--format", "csv", "--all"))))
    assert list(table["value"]) == [0.5, 0.25] and set(table["seeds"]) == {"[1]"}
    lines = printed("--format", "markdown")
    assert len(lines) == 3 and "fused \\| tuned" in lines[2] and "0.5000" in lines[2]
