"""DCASE 2017 Task 4, "large-scale weakly supervised sound event detection for smart cars": the official lists.

51,172 training, 488 testing and 1,103 evaluation clips of AudioSet with weak labels of 17 classes, and the times of
the events of the last two (Mesaros et al. 2017, "DCASE 2017 challenge setup", DCASE workshop).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from avrepro.corpora.base import Corpus, CorpusError, ListedClip
from avrepro.corpora.download import corpus_of
from avrepro.corpora.tables import as_seconds, check, listed_clips, read_table
from avrepro.fetch import fetch
from avrepro.home import home

SOURCE = "dcase2017_task4"
# Official list -> file, and the splits that its clips are in here.
LISTS = {
    "training": ("training_set.csv", ("train", "validation")),
    "testing": ("testing_set.csv", ("test",)),
    "evaluation": ("groundtruth_release/groundtruth_weak_label_evaluation_set.csv", ("evaluation",)),  # no own list
}
# AudioSet's identifier -> name in the ground truth, in the order of the official list of classes.
NAME_OF_ID = {
    "/m/0284vy3": "Train horn",
    "/m/05x_td": "Air horn, truck horn",
    "/m/02mfyn": "Car alarm",
    "/m/02rhddq": "Reversing beeps",
    "/m/0199g": "Bicycle",
    "/m/06_fw": "Skateboard",
    "/m/012n7d": "Ambulance (siren)",
    "/m/012ndj": "Fire engine, fire truck (siren)",
    "/m/0dgbq": "Civil defense siren",
    "/m/04qvtq": "Police car (siren)",
    "/m/03qc9zr": "Screaming",
    "/m/0k4j": "Car",
    "/t/dd00134": "Car passing by",
    "/m/01bjv": "Bus",
    "/m/07r04": "Truck",
    "/m/04_sv": "Motorcycle",
    "/m/07jdr": "Train",
}
CLASSES: tuple[str, ...] = tuple(NAME_OF_ID.values())
SHORT_NAMES = {"Fire engine (siren)": "Fire engine, fire truck (siren)", "Truck horn": "Air horn, truck horn"}
VALIDATION_SHARE = 1142 / 51172  # of the training list; Li et al. 2017, section 3.1

VIDEO = r"[A-Za-z0-9_-]{11}"
CLIP = rf"{VIDEO}_\d+\.\d{{3}}_\d+\.\d{{3}}"  # video, start and end in seconds; the video may begin with "-"
EVENT = ("clip", "start", "end", "label")


def read_list(path: Path) -> pd.DataFrame:
    """An official list of clips (video,start,end,"names","identifiers"), one row a clip in the file's order.

    Columns: clip (str), video (str), start, end (float64, s in the video), labels (tuples of CLASSES). Raises
    CorpusError for a line of another form, and a clip that is listed twice.
    """
    table = read_table(path, ("video", "start", "end", "names", "identifiers"))
    clip = table["video"] + "_" + table["start"] + "_" + table["end"]
    check(path, clip.str.fullmatch(CLIP), "video (11 characters), start and end (s, with 3 decimals)", table)
    # Names hold commas themselves, identifiers do not: the labels are read from these. Few combinations occur.
    known = {text: tuple(map(NAME_OF_ID.get, text.split(","))) for text in table["identifiers"].unique()}
    labels = table["identifiers"].map(known)
    check(path, ~labels.map(lambda names: None in names), "identifiers of the 17 classes", table)
    check(path, ~clip.duplicated(), "each clip once", table)
    table = as_seconds(path, table, "start", "end")
    check(path, table["start"] < table["end"], "an end after the start", table)
    return table.assign(clip=clip, labels=labels)[["clip", "video", "start", "end", "labels"]]


def read_weak(path: Path) -> pd.DataFrame:
    """Official weak labels (clip.wav, start, end, class; tabs between), one row a label in the file's order.

    Columns: clip (str, without ".wav"), start, end (float64, s in the video), label (category of CLASSES). Raises
    CorpusError for a line of another form, and a label that is listed twice.
    """
    table = _events(path)
    check(path, table["start"] < table["end"], "an end after the start", table)
    check(path, ~table.duplicated(["clip", "label"]), "each label of a clip once", table)
    return table


def read_strong(path: Path) -> pd.DataFrame:
    """Official times of events (clip.wav, onset, offset, class; tabs between), one row an event, in the file's order.

    Columns: clip (str, without ".wav"), onset, offset (float64, s in the clip), label (category of CLASSES), timed
    (bool). ``timed`` is False where onset and offset are 0: the class is among the weak labels of the clip, but no time
    is given for it (36 rows of the testing list, 150 of the evaluation list; why, the lists do not say). Raises
    CorpusError for a line of another form, and an event that does not last.
    """
    table = _events(path).rename(columns={"start": "onset", "end": "offset"})
    timed = table["onset"] < table["offset"]
    check(path, timed | ((table["onset"] == 0) & (table["offset"] == 0)), "offset after onset, or both 0", table)
    return table.assign(timed=timed)


def read_predictions(path: Path) -> pd.DataFrame:
    """A file of predictions in the official form (as weak labels), one row a predicted label, in the file's order.

    Columns: clip (str, without ".wav"), label (str, not only of CLASSES; "" where nothing is predicted for the clip).
    """
    table = read_table(path, EVENT, sep="\t", optional=EVENT[1:])
    check(path, (table["start"] == "") == (table["end"] == ""), "start and end, or neither", table)
    label = table["label"].str.strip()
    return pd.DataFrame({"clip": table["clip"].str.removesuffix(".wav"), "label": label.replace(SHORT_NAMES)})


def read_probabilities(path: Path) -> pd.DataFrame:
    """Class probabilities (clip.wav and 17 numbers; tabs between), float64 [clips, CLASSES]; the index is the clips."""
    table = read_table(path, ("clip", *CLASSES), sep="\t")
    clip = table["clip"].str.removesuffix(".wav")
    check(path, ~clip.duplicated(), "each clip once", table)
    numbers = table[list(CLASSES)].apply(pd.to_numeric, errors="coerce").astype("float64")
    check(path, ((numbers >= 0) & (numbers <= 1)).all(axis=1), "probabilities 0..1", table)
    return numbers.set_axis(clip)


def as_matrix(rows: pd.DataFrame, clips: Sequence[str], classes: Sequence[str] = CLASSES) -> np.ndarray:
    """Labels of a table with the columns clip and label as bool [clips, classes]; rows with label "" set nothing.

    Raises CorpusError for a row whose clip or class is not among those given.
    """
    rows = rows[rows["label"] != ""]
    places = []
    for column, names, what in (("clip", clips, "clips"), ("label", classes, "classes")):
        place = pd.Index(names).get_indexer(rows[column])
        if (place < 0).any():
            line, found = rows.index[place < 0][0], rows[column][place < 0].iloc[0]
            raise CorpusError(f"line {line}: {column} {found!r} is not among the {len(names)} {what} to be scored")
        places.append(place)
    matrix = np.zeros((len(clips), len(classes)), dtype=bool)
    matrix[tuple(places)] = True
    return matrix


def validation_clips(targets: np.ndarray, count: int | None = None, seed: int = 0) -> np.ndarray:
    """Draw the validation set: as many clips of every class as can be had, where the training list has 139 : 1.

    Li et al. (2017, section 3.1) "reserved 1,142 clips from the training set to make a balanced validation set"; they
    do not say which clips, nor how they were chosen. Here one clip after the other is drawn for the class that has the
    fewest so far (of equals, for the rarest in the list), at random among its clips that bring along the fewest
    labels of classes that are ahead of it. So the classes rise together, and clips with several labels stay in.

    targets: bool [clips, classes]; count: by default 1,142 of 51,172 clips, the same share of another list, and at
    least one. Returns bool [clips]. Raises CorpusError where there are fewer clips with a label.
    """
    count = max(1, round(VALIDATION_SHARE * len(targets))) if count is None else count
    size = targets.sum(axis=0)
    if not 0 <= count <= targets.any(axis=1).sum():
        raise CorpusError(f"{count} validation clips cannot be drawn from {targets.any(axis=1).sum()} labelled clips")
    rng = np.random.default_rng(seed)
    holders = [np.flatnonzero(targets[:, k]) for k in range(targets.shape[1])]
    drawn, have = np.zeros(len(targets), dtype=bool), np.zeros(targets.shape[1], dtype=np.int64)
    for _ in range(count):
        k = min(np.flatnonzero(have < size), key=lambda k: (have[k], size[k]))
        candidates = holders[k][~drawn[holders[k]]]
        ahead = targets[np.ix_(candidates, have > have[k])].sum(axis=1)
        clip = rng.choice(candidates[ahead == ahead.min()])
        drawn[clip] = True
        have += targets[clip]
    return drawn


def load_dcase2017(clips: str | Path | None = None, lists: str | Path | None = None, seed: int = 0) -> Corpus:
    """The clips of the official lists that are here: those fetched before, and those in folder ``clips``.

    The others are in ``Corpus.missing``, each with its reason. ``lists`` and ``seed`` as in listed.
    """
    media = None if clips is None else Path(clips)
    return corpus_of("dcase2017", CLASSES, listed(seed, lists), home() / "clips" / "dcase2017", media=media)


def listed(seed: int = 0, lists: str | Path | None = None) -> tuple[ListedClip, ...]:
    """All 52,763 clips of the official lists: train and validation, test ("testing"), evaluation.

    seed: of validation_clips, which are drawn out of the training list.
    lists: folder that holds the three files of LISTS; by default they are fetched.
    """
    paths = {part: fetch(SOURCE, name) if lists is None else Path(lists) / name for part, (name, _) in LISTS.items()}
    training = read_list(paths["training"])
    rows = training.explode("labels").rename(columns={"labels": "label"})
    held_out = validation_clips(as_matrix(rows, training["clip"].tolist()), seed=seed)
    weak = read_weak(paths["evaluation"])
    evaluation = weak.groupby(["clip", "start", "end"], sort=False)["label"].agg(tuple).rename("labels").reset_index()
    table = pd.concat(
        [
            training.assign(split=np.where(held_out, "validation", "train")),
            read_list(paths["testing"]).assign(split="test"),
            evaluation.assign(split="evaluation", video=evaluation["clip"].str[:11]),
        ]
    )
    return listed_clips(table)


def listed_in(name: str) -> tuple[ListedClip, ...]:
    """The clips of the official list "training", "testing" or "evaluation"; CorpusError for another name."""
    if name not in LISTS:
        raise CorpusError(f"DCASE 2017 Task 4 has no list {name!r}, only {', '.join(LISTS)}")
    _, splits = LISTS[name]
    return tuple(clip for clip in listed() if clip.split in splits)


def _events(path: Path) -> pd.DataFrame:
    table = read_table(path, EVENT, sep="\t")
    check(path, table["clip"].str.fullmatch(CLIP + r"\.wav"), "a clip as video_start_end.wav", table)
    label = table["label"].replace(SHORT_NAMES)
    check(path, label.isin(CLASSES), f"one of the classes {' | '.join(CLASSES)}", table)
    table = table.assign(clip=table["clip"].str.removesuffix(".wav"), label=pd.Categorical(label, CLASSES))
    return as_seconds(path, table, "start", "end")
