"""A manifest of sounds and photographs: its rows read and checked, its groups dealt to splits."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avrepro.corpora.base import CorpusError

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
FIRST_SERVED = ("train", "test", "validation")  # whom a label's first groups go to
BIG = 0.2  # share of a label's items that makes a group too big to be dealt by chance
MODALITIES = ("audio", "image")
FAULTS = 20  # rows that an error lists


@dataclass(frozen=True)
class Item:
    """One recording or photograph."""

    path: str  # within the manifest's folder, / between its parts
    label: str
    modality: str  # one of MODALITIES
    group: str
    sha256: str = ""  # of the file as it is


def read_items(folder: Path, table: Path, strict: bool = False) -> list[Item]:
    """The items of a manifest in ``folder``, sorted, so that the order of rows does not matter.

    :param strict: those with strict = 1 alone.

    Raises CorpusError, listing the rows that are wrong or name files that are not there.
    """
    faults: list[str] = []
    first: dict[str, int] = {}
    items: list[Item] = []
    for line, row in read_rows(table):
        path, label, modality = (row.get(name, "") for name in ("path", "label", "modality"))
        told = row.get("strict") or "1"
        known = len(faults)
        if not path or not (folder / path).is_file():
            faults.append(f"line {line}: no file {path!r} in {folder}")
        elif os.path.normpath(path) in first:
            faults.append(f"line {line}: {path!r} is already in line {first[os.path.normpath(path)]}")
        if not label:
            faults.append(f"line {line}: no label")
        if modality not in MODALITIES:
            faults.append(f"line {line}: unknown modality {modality!r}; expected {' or '.join(MODALITIES)}")
        if told not in ("0", "1"):
            faults.append(f"line {line}: strict is 0 or 1, found {told!r}")
        first.setdefault(os.path.normpath(path), line)
        if len(faults) == known and (told == "1" or not strict):
            content = hashlib.sha256((folder / path).read_bytes()).hexdigest()
            items.append(Item(path, label, modality, row.get("group") or path, content))
    if faults:
        shown = faults[:FAULTS] + ([f"and {len(faults) - FAULTS} more"] if len(faults) > FAULTS else [])
        raise CorpusError("\n  ".join([f"{table} cannot be used:", *shown]))
    if not items:
        raise CorpusError(f"{table}: no row has strict = 1; load it without strict")
    return sorted(items, key=lambda item: (item.modality, item.label, item.path))


def split_groups(items: Sequence[Item], seed: int) -> dict[str, str]:
    """Group -> split, so that the items of each label and modality are shared out 60 / 20 / 20 as groups allow.

    Rarest label first (fewest groups; those with less than three last of all, they cannot be everywhere). Its big
    groups come first, by size, the others by chance; each goes where the label has nothing yet (train, then test,
    then validation), and later where most of its items are lacking. A group with several labels goes with the
    first of them that is dealt.
    """
    sizes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for item in items:
        sizes[item.modality, item.label][item.group] += 1
    groups = sorted({item.group for item in items})
    drawn = dict(zip(groups, np.random.default_rng([seed, 0]).permutation(len(groups)).tolist(), strict=True))
    split_of: dict[str, str] = {}
    for kind in sorted(sizes, key=lambda kind: (len(sizes[kind]) < len(SHARES), len(sizes[kind]), kind)):
        size = sizes[kind]
        total = size.total()
        lacking = {split: share * total for split, share in SHARES.items()}
        served = set()
        for group in sorted(size.keys() & split_of.keys()):
            lacking[split_of[group]] -= size[group]
            served.add(split_of[group])
        order = sorted(size.keys() - split_of.keys(), key=lambda group: drawn[group])
        for group in sorted(order, key=lambda group: -size[group] if size[group] > BIG * total else 0):
            unserved = [split for split in FIRST_SERVED if split not in served]
            split = unserved[0] if unserved else max(lacking, key=lambda split: lacking[split])
            split_of[group] = split
            lacking[split] -= size[group]
            served.add(split)
    return split_of


def find_events(items: Sequence[Item]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Labels with a group of recordings for each split, sorted; and label -> groups of those that have fewer."""
    groups: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.modality == "audio":
            groups[item.label].add(item.group)
    few = {label: len(those) for label, those in sorted(groups.items()) if len(those) < len(SHARES)}
    return tuple(sorted(groups.keys() - few.keys())), few


def read_rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, cells by column) of a manifest."""
    if not table.is_file():
        raise CorpusError(f"{table}: no such file; it should hold a table with the columns path,label,modality")
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise CorpusError(f"{table}, line {line}: not UTF-8; save the table as 'CSV UTF-8'") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        if "path" not in header:  # data_manifests call a file's path its name
            header = ["path" if name == "name" else name for name in header]
        lacking = [name for name in ("path", "label", "modality") if name not in header]
        if lacking:
            raise CorpusError(f"{table}, line 1: no column {', '.join(lacking)}; found {','.join(header)}")
        for cells in reader:
            if len(cells) > len(header):
                expected = f"{len(cells)} cells, expected {len(header)} ({','.join(header)})"
                raise CorpusError(
                    f"{table}, line {reader.line_num}: {expected}; put a cell that holds a comma in double quotes"
                )
            if any(cells):
                rows.append((reader.line_num, {name: cell.strip() for name, cell in zip(header, cells, strict=False)}))
    except csv.Error as error:
        raise CorpusError(f"{table}, line {reader.line_num}: not readable as CSV: {error}") from error
    if not rows:
        raise CorpusError(f"{table}: holds no item; write one row a recording or photograph below the header")
    return rows
