"""A manifest of sounds and photographs: its rows read and checked, its groups dealt to splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from avrepro.corpora.base import CorpusError
from avrepro.corpora.tables import check, check_files, read_rows
from avrepro.recipes import file_digest

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
FIRST_SERVED = ("train", "test", "validation")  # whom a label's first groups go to
BIG = 0.2  # share of a label's items that makes a group too big to be dealt by chance
MODALITIES = ("audio", "image")


@dataclass(frozen=True)
class Item:
    """One recording or photograph."""

    path: str  # within the manifest's folder, / between its parts
    label: str
    modality: str  # one of MODALITIES
    group: str
    sha256: str = ""  # of the file


def read_items(table: Path, folder: Path | None, strict: bool = False) -> list[Item]:
    """The items of a manifest, sorted, so that the order of rows does not matter.

    folder: that holds the files; None: they need not be at hand, and the manifest states their SHA-256.
    strict: those with strict = 1 alone. Raises CorpusError for rows that are wrong.
    """
    rows = read_manifest(table)
    check_files(table, rows["path"], folder)
    check(table, rows["label"] != "", "a label", rows)
    check(table, rows["modality"].isin(MODALITIES), f"modality {' or '.join(MODALITIES)}", rows["modality"])
    check(table, rows["strict"].isin(["0", "1"]), "strict 0 or 1", rows["strict"])
    if folder is not None:
        contents = rows["path"].map(lambda path: file_digest(folder / path))
        stated = rows["sha256"]
        check(table, (stated == "") | (stated == contents), "a file with the SHA-256 that is stated", rows["path"])
        rows = rows.assign(sha256=contents)
    if strict:
        rows = rows[rows["strict"] == "1"]
    if rows.empty:
        raise CorpusError(f"{table}: no row has strict = 1; load it without strict")
    items = [Item(*row) for row in rows[["path", "label", "modality", "group", "sha256"]].itertuples(index=False)]
    return sorted(items, key=lambda item: (item.modality, item.label, item.path))


def read_manifest(table: Path) -> pd.DataFrame:
    """The rows of a manifest; the manifests of data sources call a file's path its name."""
    rows = read_rows(table, ("path", "label", "modality"), aliases={"name": "path"})
    rows = pd.DataFrame({"group": "", "strict": "", "sha256": ""}, rows.index).assign(**rows)
    group = rows["group"].where(rows["group"] != "", rows["path"])
    return rows.assign(group=group, strict=rows["strict"].replace("", "1"))


def split_groups(items: Sequence[Item], seed: int) -> dict[str, str]:
    """Group -> split, so that the items of each label and modality are shared out 60 / 20 / 20 as groups allow.

    Rarest label first (those with less than three groups last of all). Its big groups come first, by size, the others
    by chance; each goes where the label has nothing yet, and later where most of its items are lacking.
    """
    sizes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for item in items:
        sizes[item.modality, item.label][item.group] += 1
    groups = sorted({item.group for item in items})
    rank = dict(zip(groups, np.random.default_rng([seed, 0]).permutation(len(groups)).tolist(), strict=True))
    split_of: dict[str, str] = {}
    for kind in sorted(sizes, key=lambda kind: (len(sizes[kind]) < len(SHARES), len(sizes[kind]), kind)):
        size = sizes[kind]
        total = size.total()
        lacking = {split: share * total for split, share in SHARES.items()}
        served = set()
        for group in sorted(size.keys() & split_of.keys()):
            lacking[split_of[group]] -= size[group]
            served.add(split_of[group])
        order = sorted(size.keys() - split_of.keys(), key=lambda group: rank[group])
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
