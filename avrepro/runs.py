"""Running chapters: one by papermill, many in a sweep, all of them into the book."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryFile
from typing import Any

from avrepro import checkout
from avrepro.fetch import at_hand
from avrepro.files import atomic
from avrepro.home import SCORES_FILE, home
from avrepro.parameters import CHAPTERS, ParameterError, check
from avrepro.progress import say
from avrepro.recipes import digest

BOOK = checkout.ROOT / "book"
BUILD = checkout.ROOT / "_build"
PAGES = ("_config.yml", "_toc.yml", "book/references.bib")

# Of profile demo on two cores. The longest chapter starts first: the book cannot be done before it is.
MINUTES = {"lightweight_fusion": 8.0, "attention_fusion": 6.0, "unsynchronized_mil": 5.0, "data": 0.5}


class RunFailed(RuntimeError):
    """A chapter that stopped with an error; the message says which, why, and where the notebook is kept."""


class BookError(RuntimeError):
    """A book that must not be built: a number is missing, stale or of profile ci, or Sphinx warned."""


@dataclass(frozen=True)
class Outcome:
    """How one run of a sweep went."""

    parameters: dict[str, Any]
    notebook: Path
    state: str  # "done", "cached" (it was done before) or "failed"
    reason: str = ""


def notebook_of(chapter: str) -> Path:
    """The chapter's notebook in the checkout."""
    return BOOK / f"{chapter}.ipynb"


def run_key(chapter: str, given: Mapping[str, Any]) -> str:
    """Digest of all that an executed chapter shows: notebook, parameters, code listings, results, what is at hand.

    :raises ParameterError: if the chapter cannot run with these parameters.
    """
    parameters = check(chapter, given).model_dump()
    files = []
    for name in ("clips", "labels", "checkpoint"):
        path = Path(parameters.get(name) or os.devnull)
        names = sorted(path.rglob("*")) if path.is_dir() else [path]
        files += [[str(one), one.stat().st_size, one.stat().st_mtime_ns] for one in names if one.is_file()]
    here = [name for name in CHAPTERS[chapter].sources if at_hand(name)]
    shown = [checkout.files_digest([notebook_of(chapter)]), checkout.pages_digest(), checkout.lock_digest()]
    return digest([chapter, shown, parameters, files, here])[:16]


def run_chapter(chapter: str, given: Mapping[str, Any], output: Path) -> Path:
    """Execute a chapter's notebook by papermill; the executed copy lies at ``output``.

    :param given: parameters by name; those not given keep the notebook's defaults.
    :raises ParameterError: before anything is started.
    :raises RunFailed: a cell ended in an error, or its kernel was killed; the notebook as far as it came is kept
        beside ``output`` with ``.failed.ipynb`` at its end.
    """
    check(chapter, given)
    import papermill  # slow to import, and not needed to find a wrong parameter

    from avrepro.kernel import kernel_manager, last_line

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it says of errors is raised, too
    start = time.monotonic()
    failed = output.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    with atomic(output) as path, TemporaryFile() as stderr:
        try:
            papermill.execute_notebook(
                str(notebook_of(chapter)),
                str(path),
                parameters=dict(given),
                kernel_name="python3",
                kernel_manager_class=kernel_manager({SCORES_FILE: str(scores_beside(output).resolve())}, stderr),
                progress_bar=False,
                stderr_file=sys.stderr,
                cwd=str(Path.cwd()),
            )
        except (papermill.PapermillExecutionError, RuntimeError) as error:
            shutil.copy(path, failed)
            if isinstance(error, papermill.PapermillExecutionError):
                why = f"{error.ename}: {error.evalue}"
            else:  # nbclient's own way to say that there is no kernel any more
                why = f"its kernel died ({last_line(stderr) or 'it may have been killed for want of memory'})"
            raise RunFailed(f"{chapter}: {why}\nThe notebook is kept: {failed}") from None
    say(f"{chapter}: done in {time.monotonic() - start:.0f} s, {output}")
    return output


def check_output(output: Path) -> None:
    """Whether an executed chapter and its scores can be written there, found out before anything runs.

    :raises ParameterError: they cannot.
    """
    wrong = f"--output {output}: expected the name of a notebook to write (X.ipynb)"
    if output.suffix != ".ipynb" or output.resolve().parent == BOOK.resolve():
        raise ParameterError(f"{wrong}, outside of {BOOK}")
    for path in (output, scores_beside(output)):
        if path.is_dir():
            raise ParameterError(f"{wrong}; {path} is a folder")
        if path.exists() and not path.stat().st_mode & 0o222:  # to root, every file is writable
            raise ParameterError(f"{wrong}; {path} is read-only")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=output.parent).close()
    except OSError as error:
        raise ParameterError(f"{wrong}; {output.parent} cannot be written to: {error.strerror}") from None


def scores_beside(output: Path) -> Path:
    """Where the scores of a person's clips go, beside the executed chapter."""
    return output.with_suffix(".scores.csv")


def sweep(chapter: str, grid: Mapping[str, Sequence[Any]], given: Mapping[str, Any], jobs: int = 1) -> list[Outcome]:
    """Run a chapter for every combination of the grid's values, each in a process of its own.

    A run that was done before with the same code, data and parameters is not repeated, so a sweep that was stopped
    goes on where it was. The notebook of a failed run is kept, and why it failed reported; the others go on.
    """
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for values in combinations:
        check(chapter, {**given, **values})

    def one(values: dict[str, Any]) -> Outcome:
        parameters = {**given, **values}
        notebook = home() / "runs" / chapter / f"{run_key(chapter, parameters)}.ipynb"
        if notebook.is_file():
            return Outcome(parameters, notebook, "cached")
        log = notebook.with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            command = _command(chapter, parameters, notebook)
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        if code:
            reason = _reason(log.read_text(errors="replace"), code).splitlines()[0]
            return Outcome(parameters, notebook.with_suffix(".failed.ipynb"), "failed", reason)
        return Outcome(parameters, notebook, "done")

    outcomes = []
    with ThreadPoolExecutor(jobs) as pool:
        for number, outcome in enumerate(pool.map(one, combinations), start=1):
            reason = f": {outcome.reason}" if outcome.reason else ""
            say(f"{number} / {len(combinations)} runs: {outcome.parameters} {outcome.state}{reason}")
            outcomes.append(outcome)
    return outcomes


def run_side_by_side(outputs: Mapping[str, Path], given: Mapping[str, Any]) -> None:
    """Run chapters in processes of their own, as many at a time as there are processors, the longest first.

    Each computes in its share of the processors, or in ``OMP_NUM_THREADS`` threads where that is set: recurrent
    networks are quicker in one thread than in two that another chapter keeps waiting. Their lines on stderr are passed
    on, each after the name of its chapter.

    :param outputs: chapter -> where its executed notebook goes.
    :param given: parameters by name, the same for all.
    :raises RunFailed: the first chapter that failed, why, and where its notebook is kept; the others are stopped.
    """
    waiting = sorted(outputs, key=lambda chapter: -MINUTES.get(chapter, 0.0))
    processors = os.cpu_count() or 1
    at_once = max(1, min(processors, len(waiting)))
    environment = {"OMP_NUM_THREADS": str(processors // at_once), **os.environ}
    running: dict[str, subprocess.Popen[str]] = {}
    log: dict[str, list[str]] = {chapter: [] for chapter in waiting}
    lines: SimpleQueue[tuple[str, str | None]] = SimpleQueue()  # chapter, line; None: it has ended

    def listen(chapter: str, process: subprocess.Popen[str]) -> None:
        for line in process.stderr or ():
            lines.put((chapter, line.rstrip()))
        lines.put((chapter, None))

    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                chapter = waiting.pop(0)
                running[chapter] = _start(chapter, given, outputs[chapter], environment)
                threading.Thread(target=listen, args=(chapter, running[chapter]), daemon=True).start()
            chapter, line = lines.get()
            if line is not None:
                log[chapter].append(line)
                say(_of(chapter, line))
            elif code := running.pop(chapter).wait():
                raise RunFailed(_of(chapter, _reason("\n".join(log[chapter]), code)))
    finally:
        _stop(list(running.values()))


def _start(
    chapter: str, given: Mapping[str, Any], output: Path, environment: Mapping[str, str]
) -> subprocess.Popen[str]:
    """In a process group of its own: an interrupt from the keyboard reaches it once, by ``_stop``."""
    return subprocess.Popen(
        _command(chapter, given, output),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,
        env=environment,
    )


def _stop(processes: Sequence[subprocess.Popen[str]]) -> None:
    """As by Ctrl-C, upon which papermill ends its kernel; what has not ended then is killed."""
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _command(chapter: str, given: Mapping[str, Any], output: Path) -> list[str]:
    """``avrepro run`` as one types it."""
    parameters = [word for name, value in given.items() for word in ("-p", f"{name}={value}")]
    return [sys.executable, "-m", "avrepro", "run", chapter, *parameters, "--output", str(output)]


def _reason(log: str, code: int) -> str:
    """Why such a command failed: the message it ended with, or its last line where it had no time for one."""
    _, found, message = f"\n{log.strip()}".rpartition("\navrepro: ")
    return message if found else f"ended with status {code}: {(log.strip().splitlines() or ['without a word'])[-1]}"


def _of(chapter: str, line: str) -> str:
    return line if line.startswith(f"{chapter}: ") else f"{chapter}: {line}"


def chapters_of_book() -> list[str]:
    """The notebooks named in ``_toc.yml``, in order."""
    import yaml

    toc = yaml.safe_load((checkout.ROOT / "_toc.yml").read_text())
    names = [Path(entry["file"]).stem for entry in toc["chapters"]]
    return [name for name in names if notebook_of(name).is_file()]


def build_book(profile: str = "demo") -> Path:
    """Run what has to be run, check every number, build the HTML book; returns its first page.

    With ``profile="ci"`` the result is a proof of the machinery in a folder of its own, each page marked as
    such: numbers of that profile are never in the book.

    :raises RunFailed: a chapter failed. :raises BookError: see there.
    """
    from avrepro.report import check_executed, check_page, write_sources

    start = time.monotonic()
    proof = profile == "ci"
    place = BUILD / "proof" if proof else BUILD
    source = place / "source"
    executed = _executed(chapters_of_book(), profile)
    for chapter, notebook in executed.items():
        check_executed(chapter, notebook, allow_ci=proof)
    for name in [*PAGES, *(f"book/{path.name}" for path in sorted(BOOK.glob("*.md")))]:
        check_page(checkout.ROOT / name, executed)
        _refresh(checkout.ROOT / name, source / name)
    for chapter, notebook in executed.items():
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
    write_sources(page.parent / "source")
    say(f"book built in {time.monotonic() - start:.0f} s")
    return page


PROOF = "Proof of the machinery, profile ci: no number on these pages is a result."


def _executed(chapters: Sequence[str], profile: str) -> dict[str, Path]:
    """The chapters' executed copies, made anew where anything they depend on has changed."""
    given = {"profile": profile}
    paths = {chapter: BUILD / "executed" / f"{chapter}-{run_key(chapter, given)}.ipynb" for chapter in chapters}
    wanted = {chapter: path for chapter, path in paths.items() if not path.is_file() or not _results_are_there(path)}
    if wanted:
        from avrepro import corpora

        corpora.load("demo", profile=profile)  # all show it, and its rendering takes every core: once, before them
        say(f"running on profile {profile}: {', '.join(wanted)}")
        run_side_by_side(wanted, given)
    return paths


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
