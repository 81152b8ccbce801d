"""The command line: ``avrepro book | run | sweep | measure | data | features | results | bench``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

from avrepro.cli_data import add_data_command
from avrepro.commands import add_command, at_least_one
from avrepro.parameters import CHAPTERS, ParameterError, check, parse_value


def main(words: list[str] | None = None) -> None:
    """Run one command; what a person did wrong ends with one message and status 2, what failed with 1."""
    arguments = _parser().parse_args(words)
    try:
        arguments.command(arguments)
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.exit(1)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"avrepro: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ParameterError) else 1)


def book(arguments: argparse.Namespace) -> None:
    from avrepro.runs import build_book

    print(f"The book is at {build_book(arguments.profile)}")


def run(arguments: argparse.Namespace) -> None:
    given = _parameters(arguments.chapter, arguments.parameters)
    check(arguments.chapter, given)
    if os.getpgrp() == os.getpid():  # whoever runs chapters side by side stops them so; a script's `&` would ignore it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    from avrepro.home import home
    from avrepro.runs import check_output, run_chapter, run_key, scores_beside

    output = arguments.output or home() / "runs" / arguments.chapter / f"{run_key(arguments.chapter, given)}.ipynb"
    check_output(output)
    scores_beside(output).unlink(missing_ok=True)
    run_chapter(arguments.chapter, given, output)
    print(f"The executed chapter is at {output}; its numbers: avrepro results")
    if scores_beside(output).is_file():
        import pandas as pd

        print(f"Scores of your clips are at {scores_beside(output)}; the highest of each clip and system:")
        table = pd.read_csv(scores_beside(output), dtype={"clip": str, "label": str})
        print(table.groupby(["clip", "system"], sort=False).head(3).to_string(index=False))


def sweep(arguments: argparse.Namespace) -> None:
    if not arguments.grid:
        raise ParameterError("a sweep needs values to go through: --grid seed=0,1,2")
    given, grid = _parameters(arguments.chapter, arguments.parameters), _grid(arguments.chapter, arguments.grid)
    if twice := [name for name in grid if name in given]:
        raise ParameterError(f"{', '.join(twice)}: given by -p and by --grid")
    from avrepro import runs

    done = runs.sweep(arguments.chapter, grid, given, arguments.jobs)
    failed = [job for job in done if job.reason]
    print(f"{len(done) - len(failed)} of {len(done)} runs are there; their numbers: avrepro results")
    _report([f"{job.parameters}: {job.reason}" for job in failed])


def measure(arguments: argparse.Namespace) -> None:
    from avrepro import checkout, measurements

    plan = measurements.plan(arguments.names or None)
    folder = arguments.folder or checkout.COMMITTED
    _report(measurements.measure_all(plan, folder, arguments.jobs, arguments.dry_run))


def features(arguments: argparse.Namespace) -> None:
    given = _parameters(arguments.chapter, arguments.parameters)
    parameters = check(arguments.chapter, given)
    from avrepro import protocol, systems
    from avrepro.claims import CHAPTER_OF

    if not hasattr(parameters, "condition"):
        raise ParameterError(f"{arguments.chapter} trains no systems and has no features of its own")
    data = protocol.load(parameters.condition)
    (paper,) = (paper for paper, chapter in CHAPTER_OF.items() if chapter == arguments.chapter)
    needed = [systems.SYSTEMS[name].features(parameters.condition) for name in systems.of_paper(paper)]
    for feature in {one.recipe.key: one for features in needed for one in features.values()}.values():
        here = data.arrays(feature).present
        print(f"{feature.recipe.name}: {here.sum()} of {len(here)} clips")
    for clip in data.corpus.missing:
        print(f"missing: {clip.id}: {clip.reason}")


def results(arguments: argparse.Namespace) -> None:
    from avrepro import results as store

    if arguments.claims:
        from avrepro.report import claims_text

        print(claims_text())
        return
    table = store.read().table
    if arguments.chapter:
        table = table[table["chapter"] == arguments.chapter]
    if not arguments.all:
        table = table[(table["label"] == "") & (table["step"] < 0)]
    if arguments.format == "csv":
        print(table.to_csv(index=False), end="")
        return
    shown = table[[*SHOWN]].sort_values(["time", "run"], kind="stable")
    if arguments.format == "markdown":
        print(_markdown(shown))
    elif shown.empty:
        print("no results yet; run a chapter: avrepro run lightweight_fusion")
    else:
        print(shown.to_string(index=False, float_format=lambda value: f"{value:.4f}", na_rep="-"))


def bench(arguments: argparse.Namespace) -> None:
    from avrepro import bench as timed

    print(f"{os.cpu_count()} processor cores, no GPU used; the best of {arguments.repeat}", flush=True)
    for task, ours, usual in timed.bench(arguments.repeat):
        scaled = " (scaled up)" if task.share < 1 else ""
        instead = f"; {task.instead}: {usual:.3g} s{scaled}; {usual / ours:.1f} times quicker"
        print(f"{task.name}: {ours:.3g} s{instead}", flush=True)


SHOWN = ("run", "chapter", "measured", "system", "against", "corpus", "profile", "seeds", "split", "clips", "missing",
         "metric", "value", "low", "high", "device", "commit", "time")  # fmt: skip


def _markdown(table: Any) -> str:
    def cell(value: Any) -> str:
        return f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|")

    rows = [list(table.columns), ["---"] * len(table.columns), *([cell(v) for v in row] for row in table.values)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _parameters(chapter: str, texts: list[str]) -> dict[str, Any]:
    return {name: parse_value(chapter, name, value) for name, value in _pairs("-p takes name=value", texts)}


def _grid(chapter: str, texts: list[str]) -> dict[str, list[Any]]:
    """Values of each name, each once; a name may be given several times."""
    grid: dict[str, list[Any]] = {}
    for name, values in _pairs("--grid takes name=value,value", texts):
        parsed = [parse_value(chapter, name, value) for value in values.split(",")]
        grid[name] = list(dict.fromkeys([*grid.get(name, []), *parsed]))
    return grid


def _pairs(expected: str, texts: list[str]) -> list[tuple[str, str]]:
    for text in texts:
        if "=" not in text:
            raise ParameterError(f"{expected}, found {text!r}")
    return [(name, value) for name, _, value in (text.partition("=") for text in texts)]


def _report(failed: list[str]) -> None:
    """End with status 1 where anything failed."""
    for reason in failed:
        print(f"failed: {reason}")
    if failed:
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="avrepro", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def chapter_and_parameters(added: argparse.ArgumentParser) -> None:
        added.add_argument("chapter", help=" | ".join(CHAPTERS))
        added.add_argument(
            "-p",
            dest="parameters",
            metavar="NAME=VALUE",
            action="append",
            default=[],
            help="a parameter; may be repeated",
        )

    text = "Run the chapters that need it and build the HTML book."
    added = add_command(commands, "book", text, "avrepro book", book)
    added.add_argument("--profile", choices=("demo", "ci"), default="demo", help="ci: a marked proof, no results")
    text = "Run one chapter by papermill."
    added = add_command(commands, "run", text, "avrepro run lightweight_fusion -p seed=3", run)
    chapter_and_parameters(added)
    added.add_argument("--output", type=Path, help="where the executed notebook goes (default: the cache)")
    text = "Run one chapter for every combination of values; goes on where it was stopped."
    added = add_command(commands, "sweep", text, "avrepro sweep lightweight_fusion --grid seed=0,1,2 --jobs 2", sweep)
    chapter_and_parameters(added)
    added.add_argument("--grid", metavar="NAME=V1,V2", action="append", default=[], help="values; may be repeated")
    added.add_argument("--jobs", type=at_least_one, default=1, help="runs at a time")
    text = "Measure what the book shows and the default build cannot repeat (hours); says first what it will train."
    added = add_command(commands, "measure", text, "avrepro measure robustness --jobs 2", measure)
    added.add_argument("names", nargs="*", metavar="NAME", help="measurements; default: all of the plan")
    added.add_argument("--jobs", type=at_least_one, default=1, help="trainings at a time")
    added.add_argument("--folder", type=Path, help="where the numbers go (default: results/ of the project)")
    added.add_argument("--dry-run", action="store_true", help="say what would be trained, and train nothing")
    add_data_command(commands)
    text = "Compute (or find) the frozen features that a chapter needs, without training anything."
    added = add_command(commands, "features", text, "avrepro features lightweight_fusion -p profile=ci", features)
    chapter_and_parameters(added)
    text = "Print the results store with its passports."
    added = add_command(commands, "results", text, "avrepro results --format csv", results)
    added.add_argument("--format", choices=("table", "markdown", "csv"), default="table")
    added.add_argument("--chapter", help="of one chapter alone")
    added.add_argument("--all", action="store_true", help="also the numbers of single classes and epochs")
    added.add_argument("--claims", action="store_true", help="what the papers claim, and what holds on which data")
    text = "Time the parts that take the time against what one would use instead, on this machine."
    added = add_command(commands, "bench", text, "avrepro bench --repeat 3", bench)
    added.add_argument("--repeat", type=at_least_one, default=3, metavar="N", help="the best of N (default: 3)")
    return parser
