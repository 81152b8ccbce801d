"""Running chapters: one by papermill, many in a sweep, all of them into the book."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avrepro import digests
from avrepro.fetch import at_hand
from avrepro.files import atomic
from avrepro.home import home
from avrepro.parameters import CHAPTERS, check
from avrepro.progress import say

BOOK = digests.ROOT / "book"
BUILD = digests.ROOT / "_build"
PAGES = ("_config.yml", "_toc.yml", "book/references.bib")


class RunFailed(RuntimeError):
    """A chapter that stopped with an error; the message says which, why, and where the notebook is kept."""


class BookError(RuntimeError):
    """A book that must not be built: a number is missing, stale or of profile ci, or Sphinx warned."""


@dataclass(frozen=True)
class Outcome:
    """How one run of a sweep went."""

    parameters: dict[str, Any]
    notebook: Path
    state: str  # "done", "found" (it was there) or "failed"
    reason: str = ""


def notebook_of(chapter: str) -> Path:
    """The chapter's notebook in the checkout."""
    return BOOK / f"{chapter}.ipynb"


def run_key(chapter: str, given: Mapping[str, Any]) -> str:
    """Digest of all that an executed chapter depends on.

    Notebook, parameters, code, manifests, dependencies, committed results, and which sources are at hand.

    :raises ParameterError: if the chapter cannot run with these parameters.
    """
    parameters = check(chapter, given).model_dump()
    files = []
    for name in ("clips", "labels", "checkpoint"):
        path = Path(parameters.get(name) or os.devnull)
        names = sorted(path.rglob("*")) if path.is_dir() else [path]
        files += [[str(one), one.stat().st_size, one.stat().st_mtime_ns] for one in names if one.is_file()]
    here = [name for name in CHAPTERS[chapter].sources if at_hand(name)]
    shown = digests.of_files([notebook_of(chapter), *digests.COMMITTED.glob("*.parquet")], digests.ROOT)
    code = [digests.code(), digests.manifests(), digests.dependencies()]
    return digests.of_values([chapter, shown, parameters, files, here, *code])[:16]


def run_chapter(chapter: str, given: Mapping[str, Any], output: Path) -> Path:
    """Execute a chapter's notebook by papermill; the executed copy lies at ``output``.

    :param given: parameters by name; those not given keep the notebook's defaults.
    :raises ParameterError: before anything is started.
    :raises RunFailed: a cell ended in an error; the notebook as far as it came is kept beside ``output``
        with ``.failed.ipynb`` at its end.
    """
    check(chapter, given)
    import papermill  # slow to import, and not needed to find a wrong parameter

    start = time.monotonic()
    failed = output.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    with atomic(output) as path:
        try:
            papermill.execute_notebook(
                str(notebook_of(chapter)),
                str(path),
                parameters=dict(given),
                kernel_name="python3",
                progress_bar=False,
                stderr_file=sys.stderr,
                cwd=str(Path.cwd()),
            )
        except papermill.PapermillExecutionError as error:
            shutil.copy(path, failed)
            raise RunFailed(f"{chapter}: {error.ename}: {error.evalue}\nThe notebook is kept: {failed}") from None
    say(f"{chapter}: done in {time.monotonic() - start:.0f} s, {output}")
    return output


def sweep(chapter: str, grid: Mapping[str, Sequence[Any]], given: Mapping[str, Any], jobs: int = 1) -> list[Outcome]:
    """Run a chapter for every combination of the grid's values, each in a process of its own.

    A run that was done before with the same code, data and parameters is found and not repeated, so a sweep
    that was stopped goes on where it was. A failed run is kept and reported; the others go on.
    """
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for values in combinations:
        check(chapter, {**given, **values})

    def one(values: dict[str, Any]) -> Outcome:
        parameters = {**given, **values}
        notebook = home() / "runs" / chapter / f"{run_key(chapter, parameters)}.ipynb"
        if notebook.is_file():
            return Outcome(parameters, notebook, "found")
        words = [f"{name}={value}" for name, value in parameters.items()]
        options = [word for pair in words for word in ("-p", pair)]
        log = notebook.with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            command = [sys.executable, "-m", "avrepro", "run", chapter, *options, "--output", str(notebook)]
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        if code:
            lines = log.read_text(errors="replace").strip().splitlines()
            return Outcome(parameters, notebook.with_suffix(".failed.ipynb"), "failed", lines[-1] if lines else "")
        return Outcome(parameters, notebook, "done")

    outcomes = []
    with ThreadPoolExecutor(jobs) as pool:
        for number, outcome in enumerate(pool.map(one, combinations), start=1):
            reason = f": {outcome.reason}" if outcome.reason else ""
            say(f"{number} / {len(combinations)} runs: {outcome.parameters} {outcome.state}{reason}")
            outcomes.append(outcome)
    return outcomes


def chapters_of_book() -> list[str]:
    """The notebooks named in ``_toc.yml``, in order."""
    import yaml

    toc = yaml.safe_load((digests.ROOT / "_toc.yml").read_text())
    names = [Path(entry["file"]).stem for entry in toc["chapters"]]
    return [name for name in names if notebook_of(name).is_file()]


def build_book(profile: str = "demo") -> Path:
    """Run what has to be run, check every number, build the HTML book; returns its first page.

    With ``profile="ci"`` the result is a proof of the machinery in a folder of its own, each page marked as
    such: numbers of that profile are never in the book.

    :raises RunFailed: a chapter failed. :raises BookError: see there.
    """
    from avrepro.report import check_executed, check_page

    start = time.monotonic()
    proof = profile == "ci"
    place = BUILD / "proof" if proof else BUILD
    source = place / "source"
    executed = [(chapter, _executed(chapter, profile)) for chapter in chapters_of_book()]
    for chapter, notebook in executed:
        check_executed(chapter, notebook, allow_ci=proof)
    for name in [*PAGES, *(f"book/{path.name}" for path in sorted(BOOK.glob("*.md")))]:
        check_page(digests.ROOT / name, dict(executed))
        _refresh(digests.ROOT / name, source / name)
    for chapter, notebook in executed:
        _refresh(notebook, source / "book" / f"{chapter}.ipynb")
    if proof:
        config = (source / "_config.yml").read_text().replace("announcement: ''", f"announcement: {PROOF!r}")
        _write_if_new(source / "_config.yml", config)
    start_it = "from jupyter_book.cli.main import main; main()"  # the package has no __main__
    command = [sys.executable, "-c", start_it, "build", "-W", "-n", "--keep-going", "-q"]
    built = subprocess.run([*command, "--path-output", str(place), str(source)], capture_output=True, text=True)
    page = place / "_build" / "html" / "index.html"
    if built.returncode or not page.is_file():
        raise BookError(
            f"jupyter-book stopped (warnings count as errors):\n{built.stdout[-4000:]}{built.stderr[-4000:]}"
        )
    say(f"book built in {time.monotonic() - start:.0f} s")
    return page


PROOF = "Proof of the machinery, profile ci: no number on these pages is a result."


def _executed(chapter: str, profile: str) -> Path:
    """The chapter's executed copy, made anew where anything it depends on has changed."""
    parameters = {"profile": profile}
    path = BUILD / "executed" / f"{chapter}-{run_key(chapter, parameters)}.ipynb"
    if not path.is_file() or not _results_are_there(path):
        say(f"{chapter}: runs on profile {profile}")
        run_chapter(chapter, parameters, path)
    return path


def _results_are_there(notebook: Path) -> bool:
    from avrepro import results
    from avrepro.report import runs_shown

    return all(not results.read(run).table.empty for run in runs_shown(json.loads(notebook.read_text())))


def _refresh(origin: Path, copy: Path) -> None:
    """Copy what differs, so that Sphinx reads again only what changed."""
    _write_if_new(copy, origin.read_text())


def _write_if_new(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
