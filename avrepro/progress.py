"""Progress of long steps: a bar in a terminal, now and then a line everywhere else."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

# Some library asks tqdm for bars of a notebook, which need ipywidgets; lines of text are what is wanted there.
warnings.filterwarnings("ignore", "IProgress not found")

Item = TypeVar("Item")


def track(
    items: Iterable[Item], label: str, total: int | None = None, unit: str = "clips", every: float = 15.0
) -> Iterator[Item]:
    """Yield ``items``, reporting on stderr how many of ``total`` are done.

    In a terminal this is a tqdm bar. Elsewhere (a log, a notebook's kernel) it is one line at
    least ``every`` seconds apart and one at the end, so that logs stay readable.
    """
    if total is None:
        total = len(items) if hasattr(items, "__len__") else None  # type: ignore[arg-type]
    if sys.stderr.isatty():
        yield from tqdm(items, desc=label, total=total, unit=f" {unit}", file=sys.stderr)
        return
    start = reported = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - reported >= every:
            reported = now
            say(f"{label}: {done} / {total if total is not None else '?'} {unit}, {now - start:.0f} s")
    say(f"{label}: {done} / {total if total is not None else done} {unit}, {time.monotonic() - start:.1f} s, done")


def say(line: str) -> None:
    """One line on stderr, at once."""
    print(line, file=sys.stderr, flush=True)
