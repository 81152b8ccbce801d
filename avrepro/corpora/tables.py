"""Tables that others write: what is malformed is named by file and line, and said all at once."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from avrepro.corpora.base import CorpusError, ListedClip

FAULTS = 20  # lines that an error lists


def read_rows(
    path: Path,
    needed: Sequence[str],
    optional: Collection[str] = (),
    others: bool = False,
    aliases: Mapping[str, str] | None = None,
) -> list[tuple[int, dict[str, str]]]:
    """(line, cells by column) of a UTF-8 table with a header; lines without any cell are left out.

    :param needed: columns that must be there. :param optional: columns that may. :param others: any others may too.
    :param aliases: other name of a needed column -> its name.

    Raises CorpusError for a file, header or line that is not of this form.
    """
    form = f"a table with the columns {','.join(needed)}"
    if not path.is_file():
        raise CorpusError(f"{path}: no such file; it should hold {form}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise CorpusError(f"{path}, line {line}: not UTF-8; save the table as 'CSV UTF-8'") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    faults: list[str] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        for alias, name in (aliases or {}).items():
            if name not in header:
                header = [name if column == alias else column for column in header]
        known = [*needed, *optional]
        wrong = [
            f"unknown column {name!r}{nearest(name, known)}" for name in header if name not in known and not others
        ]
        wrong += [f"no column {name!r}" for name in needed if name not in header]
        wrong += [f"column {name!r} occurs twice" for name in known if header.count(name) > 1]
        if wrong:
            raise CorpusError(f"{path}, line 1: {'; '.join(wrong)}; expected {form}, found {','.join(header)}")
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if len(cells) == len(header):
                    rows.append((reader.line_num, dict(zip(header, cells, strict=True))))
                else:
                    expected = f"{len(cells)} cells, expected {len(header)} ({','.join(header)})"
                    advice = "put a cell that holds a comma in double quotes"
                    faults.append(f"line {reader.line_num}: {expected}; {advice}")
    except csv.Error as error:
        raise CorpusError(f"{path}, line {reader.line_num}: not readable as CSV: {error}") from error
    raise_faults(path, faults)
    if not rows:
        raise CorpusError(f"{path}: holds no row below its header; expected {form}")
    return rows


def raise_faults(path: Path, faults: Sequence[str]) -> None:
    """CorpusError that lists the faults of a table, if there are any."""
    if faults:
        listed = [*faults[:FAULTS], *([f"and {len(faults) - FAULTS} more"] if len(faults) > FAULTS else [])]
        raise CorpusError("\n  ".join([f"{path} cannot be used:", *listed]))


def file_faults(names: Sequence[tuple[int, str]], folder: Path | None) -> list[str]:
    """What is wrong with (line, name of a file): not in the folder (None: not looked for), or named before."""
    faults: list[str] = []
    first: dict[str, int] = {}
    present = sorted(entry.name for entry in folder.iterdir()) if folder else []
    for line, name in names:
        place = os.path.normpath(name)
        if not name or (folder is not None and not (folder / name).is_file()):
            faults.append(f"line {line}: no file {name!r} in {folder}{nearest(name, present)}")
        if place in first:
            faults.append(f"line {line}: {name!r} is already in line {first[place]}")
        first.setdefault(place, line)
    return faults


def nearest(name: str, known: Collection[str]) -> str:
    """A hint at the name that may be meant, or nothing."""
    near = get_close_matches(name, known, 1, 0.6)
    return f", did you mean {near[0]!r}?" if near else ""


def read_table(
    path: Path, columns: Sequence[str], sep: str = ",", skip: int = 0, optional: Collection[str] = ()
) -> pd.DataFrame:
    """A UTF-8 list without header as text, one str column a field; the index is the line in the file, from 1.

    Fields of a comma-separated list may be quoted, those of a tab-separated one are taken as they are. The first
    ``skip`` lines are left out. Fields named in ``optional`` may be missing at the end of a line, and are "" there.
    Raises CorpusError for a file that is not there, another number of fields and an empty field or line.
    """
    expected = f"{len(columns)} fields ({', '.join(columns)})"
    try:
        table = pd.read_csv(
            path,
            sep=sep,
            header=None,
            names=list(columns),
            dtype=str,
            quoting=csv.QUOTE_MINIMAL if sep == "," else csv.QUOTE_NONE,
            skiprows=skip,
            skip_blank_lines=False,
            skipinitialspace=True,
            keep_default_na=False,
        )
    except FileNotFoundError as error:
        raise CorpusError(f"{path}: no such file; expected a list with {expected} a line") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 ({error}); expected a list with {expected} a line") from error
    except pd.errors.ParserError as error:
        raise CorpusError(f"{path}, {_parser_fault(str(error), expected)}") from error
    if table.empty:
        raise CorpusError(f"{path}: holds no clip; expected a list with {expected} a line")
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes what is too much in the first line for an index
        raise CorpusError(f"{path}, line {skip + 1}: expected {expected}, found {table.index.nlevels} more")
    table.index = pd.RangeIndex(skip + 1, skip + 1 + len(table), name="line")
    table = table.fillna("")
    needed = table[[name for name in columns if name not in optional]]
    check(path, (needed != "").all(axis=1), expected, table)
    return table


def check(path: Path, good: pd.Series, expected: str, found: pd.DataFrame) -> None:
    """CorpusError for the first line (by index) that is not ``good``, with the fields ``found`` there."""
    if not good.all():
        line = good.index[~good][0]
        more = int((~good).sum()) - 1
        others = f" (and {more} more such lines)" if more else ""
        raise CorpusError(f"{path}, line {line}: expected {expected}, found {found.loc[line].tolist()}{others}")


def as_seconds(path: Path, table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """``table`` with some of its columns as float64 seconds, 0 or more; CorpusError where they are not."""
    numbers = table[list(columns)].apply(pd.to_numeric, errors="coerce").astype("float64")
    check(path, ((numbers >= 0) & np.isfinite(numbers)).all(axis=1), f"{' and '.join(columns)} in seconds", table)
    return table.assign(**{name: numbers[name] for name in columns})


def listed_clips(table: pd.DataFrame) -> tuple[ListedClip, ...]:
    """Rows with the columns clip, video, start, end (s), split and labels as clips."""
    columns = ["clip", "video", "start", "end", "split", "labels"]
    return tuple(ListedClip(*row) for row in table[columns].itertuples(index=False, name=None))


def _parser_fault(message: str, expected: str) -> str:
    """pandas' words for a line that it cannot read; it counts lines from 1 and rows from 0."""
    if fields := re.search(r"in line (\d+), saw (\d+)", message):
        return f"line {fields[1]}: expected {expected}, found {fields[2]}"
    if quote := re.search(r"EOF inside string starting at row (\d+)", message):
        return f"line {int(quote[1]) + 1}: expected {expected}, found a quote that is never closed"
    return f"expected {expected} a line, found: {message}"
