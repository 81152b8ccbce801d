"""The command line: ``avrepro book | run | sweep | data | features | results | bench``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

from avrepro.cli_data import add_data_command
from avrepro.commands import add_command
from avrepro.parameters import CHAPTERS, ParameterError, check, parse_value


def main(words: list[str] | None = None) -> None:
    """Run one command; what a person did wrong ends with one message and status 2, what failed with 1."""
    arguments = _parser().parse_args(words)
    try:
        arguments.command(arguments)
    except ParameterError as error:
        sys.exit(_fail(error, 2))
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.exit(1)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(_fail(error, 1))


def book(arguments: argparse.Namespace) -> None:
    from avrepro.runs import build_book

    print(f"The book is at {build_book(arguments.profile)}")


def run(arguments: argparse.Namespace) -> None:
    given = _parameters(arguments.chapter, arguments.parameters)
    check(arguments.chapter, given)
    if os.getpgrp() == os.getpid():  # whoever runs chapters side by side stops them so; a script's `&` would ignore it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    from avrepro.home import home
    from avrepro.runs import run_chapter, run_key

    kept = home() / "runs" / arguments.chapter / f"{run_key(arguments.chapter, given)}.ipynb"
    notebook = run_chapter(arguments.chapter, given, arguments.output or kept)
    print(f"The executed chapter is at {notebook}; its numbers: avrepro results")


def sweep(arguments: argparse.Namespace) -> None:
    if arguments.chapter == "side_by_side":
        return _sweep_side_by_side(arguments)
    if not arguments.grid:
        raise ParameterError("a sweep needs values to go through: --grid seed=0,1,2")
    grid = {}
    for text in arguments.grid:
        name, _, values = text.partition("=")
        grid[name] = [parse_value(arguments.chapter, name, value) for value in values.split(",")]
    from avrepro import runs

    given = _parameters(arguments.chapter, arguments.parameters)
    outcomes = runs.sweep(arguments.chapter, grid, given, arguments.jobs)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} runs are there; their numbers: avrepro results")
    for outcome in failed:
        print(f"failed: {outcome.parameters}: {outcome.reason} ({outcome.notebook})")
    if failed:
        sys.exit(1)


def _sweep_side_by_side(arguments: argparse.Namespace) -> None:
    """Every system by many seeds, and the numbers that the book shows of them."""
    if arguments.grid or arguments.parameters:
        raise ParameterError("side_by_side sweeps what its chapter shows; it takes neither --grid nor -p")
    from avrepro import results as store
    from avrepro.experiments import side_by_side, side_by_side_measured

    failed = side_by_side.sweep(jobs=arguments.jobs)
    for told in failed:
        print(f"failed: {told}")
    if failed:
        sys.exit(1)
    for measured in side_by_side_measured.measure(store.COMMITTED):
        run = measured.passport()
        print(f"{run['corpus']}: run {run['run']}, {len(measured.table)} numbers in {store.COMMITTED}")


def features(arguments: argparse.Namespace) -> None:
    given = _parameters(arguments.chapter, arguments.parameters)
    parameters = check(arguments.chapter, given)
    from avrepro.experiments import load_inputs

    inputs = load_inputs(arguments.chapter, parameters)
    print(f"{len(inputs.corpus.clips)} clips have their features, {len(inputs.corpus.missing)} are missing")
    for clip in inputs.corpus.missing:
        print(f"missing: {clip.id}: {clip.reason}")


def results(arguments: argparse.Namespace) -> None:
    from avrepro import results as store

    if arguments.claims:
        from avrepro.report.side_by_side import claims_text, load

        print(claims_text(load()))
        return
    if arguments.measure:
        from avrepro.experiments import fayek2020_measured, parekh2018_measured, real_recordings

        chapters = {
            "lightweight_fusion": real_recordings,
            "unsynchronized_mil": parekh2018_measured,
            "attention_fusion": fayek2020_measured,
        }
        for chapter, module in chapters.items():
            for measured in module.measure(store.COMMITTED) if arguments.chapter in (None, chapter) else ():
                run = measured.passport()
                print(f"{run['corpus']}: run {run['run']}, {len(measured.table)} numbers in {store.COMMITTED}")
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
    for one in timed.bench(arguments.repeat):
        print(
            f"{one.task.name}: {one.ours:.3g} s; {one.task.instead}: {one.usual:.3g} s"
            f"{' (scaled up)' if one.task.share < 1 else ''}; {one.ratio:.1f} times quicker",
            flush=True,
        )


SHOWN = ("run", "chapter", "system", "corpus", "profile", "seed", "split", "clips", "missing", "metric",
         "value", "low", "high", "device", "commit", "time")  # fmt: skip


def _markdown(table: Any) -> str:
    def cell(value: Any) -> str:
        return f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|")

    rows = [list(table.columns), ["---"] * len(table.columns), *([cell(v) for v in row] for row in table.values)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _parameters(chapter: str, texts: list[str]) -> dict[str, Any]:
    given = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ParameterError(f"-p takes name=value, found {text!r}")
        given[name] = parse_value(chapter, name, value)
    return given


def _fail(error: Exception, status: int) -> int:
    print(f"avrepro: {error}", file=sys.stderr)
    return status


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
    text = (
        "Run one chapter for every combination of values, or all that side_by_side shows; goes on where it was stopped."
    )
    added = add_command(commands, "sweep", text, "avrepro sweep lightweight_fusion --grid seed=0,1,2 --jobs 2", sweep)
    chapter_and_parameters(added)
    added.add_argument("--grid", metavar="NAME=V1,V2", action="append", default=[], help="values; may be repeated")
    added.add_argument("--jobs", type=int, default=1, help="runs at a time")
    add_data_command(commands)
    text = "Compute (or find) the frozen features that a chapter needs, without training anything."
    added = add_command(commands, "features", text, "avrepro features lightweight_fusion -p profile=ci", features)
    chapter_and_parameters(added)
    text = "Print the results store with its passports."
    added = add_command(commands, "results", text, "avrepro results --format csv", results)
    added.add_argument("--format", choices=("table", "markdown", "csv"), default="table")
    added.add_argument("--chapter", help="of one chapter alone")
    added.add_argument("--all", action="store_true", help="also the numbers of single classes and epochs")
    text = "measure the committed results anew (hours; of one chapter: --chapter); needs esc10, paired and yamnet"
    added.add_argument("--claims", action="store_true", help="what the papers claim, and what holds on which data")
    added.add_argument("--measure", action="store_true", help=text)
    text = "Time the parts that take the time against what one would use instead, on this machine."
    added = add_command(commands, "bench", text, "avrepro bench --repeat 3", bench)
    added.add_argument("--repeat", type=int, default=3, metavar="N", help="the best of N (default: 3)")
    return parser
