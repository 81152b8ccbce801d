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
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryFile
from typing import Any

import yaml

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
PROOF = "Proof of the machinery, profile ci: no number on these pages is a result."

# Of profile demo on two cores. The longest chapter starts first: the book cannot be done before it is.
MINUTES = {"lightweight_fusion": 8.0, "attention_fusion": 6.0, "unsynchronized_mil": 5.0, "data": 0.5}


class RunFailed(RuntimeError):
    """A chapter that stopped with an error; the message says which, why, and where the notebook is kept."""


class BookError(RuntimeError):
    """A book that must not be built: a number is missing, stale or of profile ci, or Sphinx warned."""


@dataclass(eq=False)
class Job:
    """A run of a chapter in a process of its own."""

    chapter: str
    parameters: Mapping[str, Any]
    output: Path
    log: list[str] = field(default_factory=list)  # lines of its stderr
    reason: str = ""  # why it failed

    def start(self, environment: Mapping[str, str] | None) -> None:
        """In a process group of its own: an interrupt from the keyboard reaches it once, by ``_stop``."""
        given = [word for name, value in self.parameters.items() for word in ("-p", f"{name}={value}")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "avrepro", "run", self.chapter, *given, "--output", str(self.output)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            process_group=0,
            env=environment,
        )


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


def sweep(chapter: str, grid: Mapping[str, Sequence[Any]], given: Mapping[str, Any], jobs: int = 1) -> list[Job]:
    """Run a chapter for every combination of the grid's values, each in a process of its own.

    A run that was done before with the same code, data and parameters is not repeated, so a sweep that was stopped
    goes on where it was. The notebook of a failed run is kept, and why it failed reported; the others go on.
    """
    combinations = [{**given, **dict(zip(grid, values, strict=True))} for values in itertools.product(*grid.values())]
    for parameters in combinations:
        check(chapter, parameters)
    folder = home() / "runs" / chapter
    runs = [Job(chapter, parameters, folder / f"{run_key(chapter, parameters)}.ipynb") for parameters in combinations]
    wanted = [job for job in runs if not job.output.is_file()]
    cached = len(runs) - len(wanted)
    say(f"{cached} of {len(runs)} runs were done before")
    with closing(_in_processes(wanted, jobs)) as ended:
        for number, job in enumerate(ended, start=cached + 1):
            if job.reason:
                job.output.with_suffix(".log").write_text("\n".join(job.log))
            say(f"{number} / {len(runs)} runs: {job.parameters} {f'failed: {job.reason}' if job.reason else 'done'}")
    return runs


def run_side_by_side(outputs: Mapping[str, Path], given: Mapping[str, Any]) -> None:
    """Run chapters in processes of their own, as many at a time as there are processors, the longest first.

    Each computes in its share of the processors, or in ``OMP_NUM_THREADS`` threads where that is set: recurrent
    networks are quicker in one thread than in two that another chapter keeps waiting. Their lines on stderr are passed
    on, each after the name of its chapter.

    :param outputs: chapter -> where its executed notebook goes.
    :param given: parameters by name, the same for all.
    :raises RunFailed: the first chapter that failed, why, and where its notebook is kept; the others are stopped.
    """
    longest_first = sorted(outputs, key=lambda chapter: -MINUTES.get(chapter, 0.0))
    runs = [Job(chapter, given, outputs[chapter]) for chapter in longest_first]
    processors = os.cpu_count() or 1
    at_once = max(1, min(processors, len(runs)))
    environment = {"OMP_NUM_THREADS": str(processors // at_once), **os.environ}
    with closing(_in_processes(runs, at_once, environment, passes_on=True)) as ended:
        for job in ended:
            if job.reason:
                raise RunFailed(_of(job.chapter, job.reason))


def _in_processes(
    jobs: Sequence[Job], at_once: int, environment: Mapping[str, str] | None = None, passes_on: bool = False
) -> Generator[Job, None, None]:
    """Start jobs, so many at once; each as it ends. Those that still run when nobody asks for more are stopped.

    :param passes_on: whether their lines on stderr are said, each after the name of its chapter.
    """
    waiting, running = list(jobs), list[Job]()
    lines: SimpleQueue[tuple[Job, str | None]] = SimpleQueue()  # None: it has ended

    def listen(job: Job) -> None:
        for line in job.process.stderr or ():
            lines.put((job, line.rstrip()))
        lines.put((job, None))

    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(waiting.pop(0))
                running[-1].start(environment)
                threading.Thread(target=listen, args=(running[-1],), daemon=True).start()
            job, line = lines.get()
            if line is not None:
                job.log.append(line)
                if passes_on:
                    say(_of(job.chapter, line))
                continue
            running.remove(job)
            if code := job.process.wait():
                job.reason = _reason("\n".join(job.log), code)
            yield job
    finally:
        _stop([job.process for job in running])


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


def _reason(log: str, code: int) -> str:
    """Why such a command failed: the message it ended with, or its last line where it had no time for one."""
    _, found, message = f"\n{log.strip()}".rpartition("\navrepro: ")
    return message if found else f"ended with status {code}: {(log.strip().splitlines() or ['without a word'])[-1]}"


def _of(chapter: str, line: str) -> str:
    return line if line.startswith(f"{chapter}: ") else f"{chapter}: {line}"


def chapters_of_book() -> list[str]:
    """The notebooks named in ``_toc.yml``, in order."""
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
        _refresh(source / "book" / f"{chapter}.ipynb", notebook.read_text())
    for name in [*PAGES, *(f"book/{path.name}" for path in sorted(BOOK.glob("*.md")))]:
        check_page(checkout.ROOT / name, executed)
        text = (checkout.ROOT / name).read_text()
        _refresh(source / name, text.replace("announcement: ''", f"announcement: {PROOF!r}") if proof else text)
    _refresh(source / "_static" / "book.css", (BOOK / "_static" / "book.css").read_text())
    start_it = "from jupyter_book.cli.main import main; main()"  # the package has no __main__
    command = [sys.executable, "-c", start_it, "build", "-W", "-n", "--keep-going", "-q"]
    built = subprocess.run([*command, "--path-output", str(place), str(source)], capture_output=True, text=True)
    page = place / "_build" / "html" / "index.html"
    if built.returncode or not page.is_file():
        output = f"{built.stdout[-4000:]}{built.stderr[-4000:]}"
        raise BookError(f"jupyter-book stopped (warnings count as errors):\n{output}")
    write_sources(page.parent / "source")
    say(f"book built in {time.monotonic() - start:.0f} s")
    return page


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


def _refresh(path: Path, text: str) -> None:
    """Write what differs, so that Sphinx reads again only what changed."""
    if not path.is_file() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
