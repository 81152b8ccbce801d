"""AudioSet (Gemmeke et al. 2017, ICASSP): classes, ontology, official lists of clips, and what their labels are like.

Nothing here needs the clips themselves.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from avrepro.corpora.base import CorpusError, ListedClip
from avrepro.corpora.statistics import co_occurrence
from avrepro.corpora.tables import as_seconds, check, read_table
from avrepro.fetch import fetch
from avrepro.progress import say

# Official list -> source, file, and the split of its clips here. Fayek & Kumar (2020, section 4.1) train on the
# unbalanced list (less about 25,000 clips for validation) and give their results on the evaluation list.
LISTS = {
    "balanced": ("audioset", "balanced_train_segments.csv", "train"),
    "unbalanced": ("audioset_unbalanced", "unbalanced_train_segments.csv", "train"),
    "evaluation": ("audioset", "eval_segments.csv", "evaluation"),
}
HEADER_LINES = 3  # when it was made; how many clips and labels it holds; the columns


@dataclass(frozen=True)
class Category:
    """One node of the ontology. A category can have several parents."""

    id: str
    name: str
    children: tuple[str, ...]  # ids
    abstract: bool  # only groups its children; not itself a label
    blacklisted: bool  # withheld from labelling as too unclear or too hard; 12 of the 527 classes are
    description: str


@dataclass(frozen=True, eq=False)
class LabelStatistics:
    """What the labels of a list are like."""

    clips: int
    labels: int
    counts: pd.Series  # int64 [classes], clips that hold each class; the commonest first

    @property
    def labels_per_clip(self) -> float:
        """Mean number of labels of a clip."""
        return self.labels / self.clips

    @property
    def commonest(self) -> tuple[str, int]:
        """The class that most clips hold, and how many."""
        return self.counts.index[0], int(self.counts.iloc[0])

    @property
    def rarest(self) -> tuple[str, int]:
        """The class that fewest clips hold, and how many; of equals, the last of the classes."""
        return self.counts.index[-1], int(self.counts.iloc[-1])


def read_classes(path: Path) -> dict[str, str]:
    """AudioSet's identifier -> name of each class, in the official order (index,mid,display_name below a header).

    Raises CorpusError where the indices do not count from 0, or an identifier or a name occurs twice.
    """
    table = read_table(path, ("index", "identifier", "name"), skip=1)
    number = pd.to_numeric(table["index"], errors="coerce")
    check(path, number == table.index - table.index[0], "classes numbered 0, 1, 2 ...", table)
    for column in ("identifier", "name"):
        check(path, ~table[column].duplicated(), f"each {column} once", table)
    return dict(zip(table["identifier"], table["name"], strict=True))


def classes() -> tuple[str, ...]:
    """Names of the 527 classes in the official order; the list is fetched."""
    return tuple(_names().values())


def read_ontology(path: Path) -> dict[str, Category]:
    """The ontology's categories by id, in the file's order; CorpusError where a child is not one of them."""
    try:
        nodes = json.loads(path.read_text(encoding="utf-8"))
        found = {
            node["id"]: Category(
                id=node["id"],
                name=node["name"],
                children=tuple(node["child_ids"]),
                abstract="abstract" in node["restrictions"],
                blacklisted="blacklist" in node["restrictions"],
                description=node["description"],
            )
            for node in nodes
        }
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise CorpusError(f"{path}: expected a JSON list of categories, found {error!r}") from error
    for node in found.values():
        for child in node.children:
            if child not in found:
                raise CorpusError(f"{path}: category {node.name!r} has a child {child!r} that is not in the file")
    return found


def ontology() -> dict[str, Category]:
    """The 632 categories by id; the file is fetched."""
    return read_ontology(fetch("audioset", "ontology.json"))


def read_segments(path: Path, names: dict[str, str]) -> pd.DataFrame:
    """An official list of clips (video, start, end, "identifiers"), one row a clip in the file's order.

    ``names``: identifier -> name, see read_classes. Columns: clip (str, for example "--4gqARaEJE_0.000_10.000"),
    video (str), start, end (float64, s in the video), labels (tuples of names, in the list's order). Raises
    CorpusError for a line that is not of that form, an unknown class, and a list that does not hold as many clips
    and labels as its header says.
    """
    table = read_table(path, ("video", "start", "end", "identifiers"), skip=HEADER_LINES)
    check(path, table["video"].str.fullmatch("[A-Za-z0-9_-]{11}"), "YouTube's id of 11 characters", table)
    labels = table["identifiers"].map({text: _named(text, names) for text in table["identifiers"].unique()})
    check(path, labels.map(len) > 0, f"identifiers out of the {len(names)} classes, each once", table)
    clip = table["video"] + "_" + table["start"] + "_" + table["end"]
    check(path, ~clip.duplicated(), "each clip once", table)
    with path.open(encoding="utf-8") as file:
        header = [file.readline() for _ in range(HEADER_LINES)][1]
    stated = re.search(r"num_segs=(\d+).*num_positive_labels=(\d+)", header)
    held = (len(table), int(labels.map(len).sum()))
    if stated is None or (int(stated[1]), int(stated[2])) != held:
        raise CorpusError(f"{path}: holds {held[0]} clips with {held[1]} labels, line 2 says {header.strip()!r}")
    table = as_seconds(path, table, "start", "end")
    check(path, table["start"] < table["end"], "an end after the start", table)
    return table.assign(clip=clip, labels=labels)[["clip", "video", "start", "end", "labels"]]


def segments(split: str) -> pd.DataFrame:
    """The official list "balanced", "unbalanced" or "evaluation" as a table, see read_segments; it is fetched."""
    if split not in LISTS:
        raise CorpusError(f"AudioSet has no list {split!r}, only {', '.join(LISTS)}")
    source, name, _ = LISTS[split]
    path = fetch(source, name)
    if split == "unbalanced":
        say(f"reading {path}: two million clips, about half a minute and 1 GB of memory")
    return read_segments(path, _names())


def listed(split: str) -> tuple[ListedClip, ...]:
    """The clips of the official list "balanced" (22,160), "unbalanced" (2,041,789) or "evaluation" (20,371).

    The first two are for training and have the split "train" here, the last has "evaluation".
    """
    table = segments(split).assign(split=LISTS[split][2])
    columns = ["clip", "video", "start", "end", "split", "labels"]
    return tuple(ListedClip(*row) for row in table[columns].itertuples(index=False, name=None))


def label_statistics(table: pd.DataFrame, names: dict[str, str]) -> LabelStatistics:
    """Statistics of a list (read_segments) as Fayek & Kumar (2020, section 4.1) give them of theirs.

    ``names``: identifier -> name, see read_classes.
    """
    together = co_occurrence(table["labels"].tolist(), tuple(names.values()))
    counts = pd.Series({name: int(together.at[name, name]) for name in together.index}, dtype="int64")
    return LabelStatistics(len(table), int(counts.sum()), counts.sort_values(ascending=False, kind="stable"))


def _names() -> dict[str, str]:
    return read_classes(fetch("audioset", "class_labels_indices.csv"))


def _named(text: str, names: dict[str, str]) -> tuple[str, ...]:
    """Names of the identifiers with commas between; () if one is unknown or occurs twice."""
    identifiers = text.split(",")
    if len(set(identifiers)) < len(identifiers) or not names.keys() >= set(identifiers):
        return ()
    return tuple(names[identifier] for identifier in identifiers)
