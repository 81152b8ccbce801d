"""A manifest of sounds and photographs: its rows read and checked, its groups dealt to splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avrepro.corpora.base import CorpusError
from avrepro.corpora.tables import file_faults, raise_faults, read_rows
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

    :param folder: that holds the files; None: they need not be at hand, and the manifest states their SHA-256.
    :param strict: those with strict = 1 alone.

    Raises CorpusError, listing the rows that are wrong, name files that are not there, or state another SHA-256.
    """
    rows = read_manifest(table)
    faults = file_faults([(line, row["path"]) for line, row in rows], folder)
    items: list[Item] = []
    for line, row in rows:
        sure, content = row.get("strict") or "1", row.get("sha256", "")
        if folder is not None and (folder / row["path"]).is_file():
            stated, content = content, file_digest(folder / row["path"])
            if stated not in ("", content):
                faults.append(f"line {line}: {row['path']!r} is another file than listed (SHA-256 {content})")
        if not row["label"]:
            faults.append(f"line {line}: no label")
        if row["modality"] not in MODALITIES:
            faults.append(f"line {line}: unknown modality {row['modality']!r}; expected {' or '.join(MODALITIES)}")
        if sure not in ("0", "1"):
            faults.append(f"line {line}: strict is 0 or 1, found {sure!r}")
        if sure == "1" or not strict:
            items.append(Item(row["path"], row["label"], row["modality"], row.get("group") or row["path"], content))
    raise_faults(table, faults)
    if not items:
        raise CorpusError(f"{table}: no row has strict = 1; load it without strict")
    return sorted(items, key=lambda item: (item.modality, item.label, item.path))


def read_manifest(table: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, stripped cells by column) of a manifest; the manifests of data sources call a file's path its name."""
    rows = read_rows(table, ("path", "label", "modality"), others=True, aliases={"name": "path"})
    return [(line, {name: cell.strip() for name, cell in row.items()}) for line, row in rows]


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
