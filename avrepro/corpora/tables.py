"""Lists that others publish, as typed tables; what is malformed is named by file and line."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from avrepro.corpora.base import CorpusError


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


def _parser_fault(message: str, expected: str) -> str:
    """pandas' words for a line that it cannot read; it counts lines from 1 and rows from 0."""
    if fields := re.search(r"in line (\d+), saw (\d+)", message):
        return f"line {fields[1]}: expected {expected}, found {fields[2]}"
    if quote := re.search(r"EOF inside string starting at row (\d+)", message):
        return f"line {int(quote[1]) + 1}: expected {expected}, found a quote that is never closed"
    return f"expected {expected} a line, found: {message}"
