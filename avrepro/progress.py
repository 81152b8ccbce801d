"""Progress of long steps: a bar in a terminal, now and then a line everywhere else."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

# Some library asks tqdm for bars of a notebook, which need ipywidgets; lines of text are what is wanted there.
warnings.filterwarnings("ignore", "IProgress not found")

Item = TypeVar("Item")
SECONDS = 15.0  # between two lines


def track(items: Iterable[Item], label: str, total: int | None = None, unit: str = "clips") -> Iterator[Item]:
    """Yield ``items``, reporting on stderr how many of ``total`` (default: their number) are done.

    In a terminal this is a tqdm bar. Elsewhere (a log, a notebook's kernel) it is a line now and then, and one at the
    end, so that logs stay readable.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from tqdm(items, desc=label, total=total, unit=f" {unit}", file=sys.stderr)
        return
    start = reported = time.monotonic()
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - reported >= SECONDS:
            reported = time.monotonic()
            say(f"{label}: {done} / {'?' if total is None else total} {unit}, {reported - start:.0f} s")
    say(f"{label}: {done} / {done if total is None else total} {unit}, {time.monotonic() - start:.1f} s, done")


def say(line: str) -> None:
    """One line on stderr, at once."""
    print(line, file=sys.stderr, flush=True)
