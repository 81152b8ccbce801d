"""AudioSet (Gemmeke et al. 2017, ICASSP): classes, official lists of clips, and what their labels are like.

Only load_audioset looks for the clips themselves.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from avrepro.corpora.base import Corpus, CorpusError, ListedClip, MissingClip
from avrepro.corpora.download import NEVER_FETCHED, corpus_of, read_statuses
from avrepro.corpora.tables import as_seconds, check, listed_clips, read_table
from avrepro.fetch import at_hand, fetch
from avrepro.home import home
from avrepro.progress import say

# Official list -> source, file, and the split of its clips here. Fayek & Kumar (2020, section 4.1) train on the
# unbalanced list (but for about 25,000 clips for validation) and give their results on the evaluation list.
LISTS = {
    "balanced": ("audioset", "balanced_train_segments.csv", "train"),
    "unbalanced": ("audioset_unbalanced", "unbalanced_train_segments.csv", "train"),
    "evaluation": ("audioset", "eval_segments.csv", "evaluation"),
}
CLASS_LIST = "class_labels_indices.csv"
LONG_LIST = 50_000_000  # bytes; the unbalanced list has about 100 MB
HEADER_LINES = 3  # when it was made; how many clips and labels it holds; the columns
VALIDATION_CLIPS = 25_000  # of the training list; Fayek & Kumar 2020, section 4.1
VALIDATION_SHARE = 0.1  # of a shorter training list at most: 2,216 of the balanced one
MOST_MISSING = 1000  # of one split that were never fetched and are named one by one


def read_classes(path: Path) -> dict[str, str]:
    """AudioSet's identifier -> name of each class, in the official order; CorpusError for another table."""
    table = read_table(path, ("index", "identifier", "name"), skip=1)
    number = pd.to_numeric(table["index"], errors="coerce")
    check(path, number == table.index - table.index[0], "classes numbered 0, 1, 2 ...", table)
    for column in ("identifier", "name"):
        check(path, ~table[column].duplicated(), f"each {column} once", table)
    return dict(zip(table["identifier"], table["name"], strict=True))


def read_segments(path: Path, names: dict[str, str]) -> pd.DataFrame:
    """An official list of clips (video, start, end, "identifiers"), one row a clip in the file's order.

    ``names``: see read_classes. Columns: clip (str, for example "--4gqARaEJE_0.000_10.000"), video (str), start, end
    (float64, s in the video), labels (tuples of names). Raises CorpusError for a line of another form, and a list that
    does not hold as many clips and labels as its header says.
    """
    if path.is_file() and path.stat().st_size > LONG_LIST:
        say(f"reading {path}: two million clips, about half a minute and 1 GB of memory")
    table = read_table(path, ("video", "start", "end", "identifiers"), skip=HEADER_LINES)
    check(path, table["video"].str.fullmatch("[A-Za-z0-9_-]{11}"), "YouTube's id of 11 characters", table)
    labels = table["identifiers"].map({text: _named(text, names) for text in table["identifiers"].unique()})
    check(path, labels.map(len) > 0, f"identifiers out of the {len(names)} classes, each once", table)
    clip = table["video"] + "_" + table["start"] + "_" + table["end"]
    check(path, ~clip.duplicated(), "each clip once", table)
    with path.open(encoding="utf-8") as file:
        header = [file.readline() for _ in range(HEADER_LINES)][1]
    stated = re.search(r"num_segs=(\d+).*num_positive_labels=(\d+)", header)
    found = (len(table), int(labels.map(len).sum()))
    if stated is None or (int(stated[1]), int(stated[2])) != found:
        raise CorpusError(f"{path}: holds {found[0]} clips with {found[1]} labels, line 2 says {header.strip()!r}")
    table = as_seconds(path, table, "start", "end")
    check(path, table["start"] < table["end"], "an end after the start", table)
    return table.assign(clip=clip, labels=labels)[["clip", "video", "start", "end", "labels"]]


def segments(name: str) -> pd.DataFrame:
    """The official list "balanced", "unbalanced" or "evaluation" as a table, see read_segments; it is fetched."""
    if name not in LISTS:
        raise CorpusError(f"AudioSet has no list {name!r}, only {', '.join(LISTS)}")
    source, file, _ = LISTS[name]
    return read_segments(fetch(source, file), read_classes(fetch("audioset", CLASS_LIST)))


def listed_in(name: str) -> tuple[ListedClip, ...]:
    """The clips of the official list "balanced" (22,160), "unbalanced" (2,041,789) or "evaluation" (20,371)."""
    return listed_clips(segments(name).assign(split=LISTS[name][2]))


def label_counts(table: pd.DataFrame, names: dict[str, str]) -> pd.Series:
    """Clips of a list (read_segments) that hold each class (read_classes), int64 [classes], the commonest first."""
    counts = table["labels"].explode().value_counts().reindex(list(names.values()), fill_value=0)
    return counts.sort_values(ascending=False, kind="stable")


def load_audioset(clips: str | Path | None = None, lists: str | Path | None = None, seed: int = 0) -> Corpus:
    """The clips of the official lists that are here: those fetched before, and those in folder ``clips``.

    Training clips are those of the unbalanced list, or of the balanced one where the unbalanced list is not here; the
    evaluation list's have the split "evaluation"; there is no split "test". Section 4.1 of Fayek & Kumar (2020) takes
    about 25,000 training clips for validation and does not say which. Here they are drawn by ``seed`` out of the whole
    list, whether they are here or not, and are a tenth of a shorter list.

    lists: folder with unbalanced_train_segments.csv or balanced_train_segments.csv, with eval_segments.csv, and with
    class_labels_indices.csv if the classes are others. By default they are fetched; the unbalanced list is used where
    it was fetched before.

    The other clips are in ``Corpus.missing``, each with its reason. More than 1,000 of one split that were never
    fetched are one entry there, whose id says how many.
    """
    table, names = _lists_in_use(None if lists is None else Path(lists), seed)
    media, folder = None if clips is None else Path(clips), home() / "clips" / "audioset"
    # Two million clips that nothing is known about need no objects.
    known = table["clip"].isin(read_statuses(folder).keys()) | table["video"].isin(_videos(media))
    found = corpus_of("audioset", tuple(names.values()), listed_clips(table[known]), folder, media=media)
    missing = list(found.missing)
    for split, ids in table[~known].groupby("split")["clip"]:
        if len(ids) > MOST_MISSING:
            ids = [f"{len(ids):,} clips"]
        missing += [MissingClip(one, str(split), NEVER_FETCHED) for one in ids]
    return replace(found, missing=tuple(sorted(missing, key=lambda clip: (clip.id, clip.split))))


def _lists_in_use(lists: Path | None, seed: int) -> tuple[pd.DataFrame, dict[str, str]]:
    """All clips with their splits, and identifier -> name of the classes."""
    large = LISTS["unbalanced"][1]
    found = at_hand("audioset_unbalanced") if lists is None else (lists / large).is_file()
    training = "unbalanced" if found else "balanced"
    own_classes = None if lists is None else lists / CLASS_LIST
    names = read_classes(own_classes if own_classes and own_classes.is_file() else fetch("audioset", CLASS_LIST))
    tables = []
    for source, name, split in (LISTS[training], LISTS["evaluation"]):
        path = fetch(source, name) if lists is None else lists / name
        tables.append(read_segments(path, names).assign(split=split))
    count = min(VALIDATION_CLIPS, max(1, round(VALIDATION_SHARE * len(tables[0]))))
    held_out = np.random.default_rng(seed).choice(len(tables[0]), count, replace=False)
    tables[0].iloc[held_out, tables[0].columns.get_loc("split")] = "validation"
    place = "avrepro data fetch audioset_unbalanced" if lists is None else f"put {large} into {lists}"
    hint = "" if found else f"; the paper's training list, the unbalanced one, is not here: {place}"
    say(f"audioset: the {training} list, {len(tables[0]):,} clips, of which {count:,} are for validation{hint}")
    return pd.concat(tables, ignore_index=True), names


def _videos(media: Path | None) -> set[str]:
    """What may be the ids of videos in the names of the files below a folder; some releases put a 'Y' before it."""
    stems = [] if media is None else [name for *_, names in os.walk(media, followlinks=True) for name in names]
    return {stem[:11] for stem in stems} | {stem[1:12] for stem in stems if stem.startswith("Y")}


def _named(text: str, names: dict[str, str]) -> tuple[str, ...]:
    """Names of the identifiers with commas between; () if one is unknown or occurs twice."""
    identifiers = text.split(",")
    if len(set(identifiers)) < len(identifiers) or not names.keys() >= set(identifiers):
        return ()
    return tuple(names[identifier] for identifier in identifiers)
