"""Tables that others write: what is malformed is named by file and line."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avrepro.corpora.base import CorpusError, ListedClip

FAULTS = 20  # lines that an error lists


def read_table(
    path: Path, columns: Sequence[str], sep: str = ",", skip: int = 0, optional: Collection[str] = ()
) -> pd.DataFrame:
    """A UTF-8 list without header as text, one str column a field; the index is the line in the file, from 1.

    The first ``skip`` lines are left out; ``optional`` fields may be missing at the end of a line, and are "" there.
    Raises CorpusError for a file that is not there, another number of fields and an empty field or line.
    """
    expected = f"{len(columns)} fields ({', '.join(columns)})"
    table = _read(path, expected, sep=sep, names=list(columns), skiprows=skip)
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes what is too much in the first line for an index
        raise CorpusError(f"{path}, line {skip + 1}: expected {expected}, found {table.index.nlevels} more")
    table.index = pd.RangeIndex(skip + 1, skip + 1 + len(table), name="line")
    needed = table[[name for name in columns if name not in optional]]
    check(path, (needed != "").all(axis=1), expected, table)
    return table


def read_rows(
    path: Path,
    needed: Sequence[str],
    optional: Collection[str] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """A UTF-8 table with a header as stripped text, one str column a name; the index is the line in the file, from 1.

    Lines without any cell are left out; cells may be empty. ``needed`` columns must be there, ``optional`` ones may
    (None: any others); ``aliases``: other name of a needed column -> its name.

    Raises CorpusError for a file, header or line that is not of this form.
    """
    expected = f"a table with the columns {','.join(needed)}"
    table = _read(path, expected, engine="python")  # the other engine takes a missing cell for an empty one
    header = [str(name).strip() for name in table.iloc[0]]
    for alias, name in (aliases or {}).items():
        if name not in header:
            header = [name if column == alias else column for column in header]
    known = [*needed, *(header if optional is None else optional)]
    wrong = [f"unknown column {name!r}{nearest(name, known)}" for name in header if name not in known]
    wrong += [f"no column {name!r}" for name in needed if name not in header]
    wrong += [f"column {name!r} occurs twice" for name in dict.fromkeys(known) if header.count(name) > 1]
    if wrong:
        raise CorpusError(f"{path}, line 1: {'; '.join(wrong)}; expected {expected}, found {','.join(header)}")
    table = table.set_axis(header, axis=1).set_axis(pd.RangeIndex(1, 1 + len(table), name="line"))[1:]
    table = table[(table.fillna("") != "").any(axis=1)]
    if table.empty:
        raise CorpusError(f"{path}: holds no row below its header; expected {expected}")
    check(path, table.notna().all(axis=1), f"{len(header)} cells ({','.join(header)})", table.fillna(""))
    return table.apply(lambda column: column.str.strip())


def check(path: Path, good: pd.Series, expected: str, found: pd.DataFrame | pd.Series, hints: Any = ()) -> None:
    """CorpusError that lists the lines (by index) that are not ``good``, with what is ``found`` there.

    ``hints``: names that may be meant, for a series of names.
    """
    bad = good.index[~good.astype(bool)]
    lines = []
    for line in bad[:FAULTS]:
        cells = found.loc[line]
        shown = repr(cells) + nearest(cells, hints) if isinstance(cells, str) else cells.tolist()
        lines.append(f"line {line}: expected {expected}, found {shown}")
    if len(bad) > FAULTS:
        lines.append(f"and {len(bad) - FAULTS} more such lines")
    if lines:
        raise CorpusError(f"{path}, " + "\n  ".join(lines))


def check_files(path: Path, names: pd.Series, folder: Path | None) -> None:
    """CorpusError for names of files that are not in the folder (None: not looked for), or occur twice."""
    if folder is not None:
        present = sorted(entry.name for entry in folder.iterdir())
        there = names.map(lambda name: bool(name) and (folder / name).is_file())
        check(path, there, f"a file in {folder}", names, present)
    check(path, ~names.map(os.path.normpath).duplicated(), "each file once", names)


def nearest(name: str, known: Collection[str]) -> str:
    """A hint at the name that may be meant, or nothing."""
    near = get_close_matches(name, known, 1, 0.6)
    return f", did you mean {near[0]!r}?" if near else ""


def as_seconds(path: Path, table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """``table`` with some of its columns as float64 seconds, 0 or more; CorpusError where they are not."""
    numbers = table[list(columns)].apply(pd.to_numeric, errors="coerce").astype("float64")
    check(path, ((numbers >= 0) & np.isfinite(numbers)).all(axis=1), f"{' and '.join(columns)} in seconds", table)
    return table.assign(**{name: numbers[name] for name in columns})


def listed_clips(table: pd.DataFrame) -> tuple[ListedClip, ...]:
    """Rows with the columns clip, video, start, end (s), split and labels as clips."""
    columns = ["clip", "video", "start", "end", "split", "labels"]
    return tuple(ListedClip(*row) for row in table[columns].itertuples(index=False, name=None))


def _read(path: Path, expected: str, sep: str = ",", **options: Any) -> pd.DataFrame:
    """The lines of a file as text."""
    quoting = csv.QUOTE_MINIMAL if sep == "," else csv.QUOTE_NONE
    try:
        table = pd.read_csv(
            path,
            sep=sep,
            header=None,
            dtype=str,
            quoting=quoting,
            skip_blank_lines=False,
            skipinitialspace=True,
            keep_default_na=False,
            encoding="utf-8-sig",
            **options,
        )
    except FileNotFoundError as error:
        raise CorpusError(f"{path}: no such file; expected {expected}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8; save it as 'CSV UTF-8' ({error})") from error
    except pd.errors.EmptyDataError as error:
        raise CorpusError(f"{path}: the file is empty; expected {expected}") from error
    except pd.errors.ParserError as error:
        advice = "put a field that holds a comma in double quotes"
        raise CorpusError(f"{path}: expected {expected}; {advice} ({error})") from error
    if table.empty:
        raise CorpusError(f"{path}: holds no line; expected {expected}")
    return table
