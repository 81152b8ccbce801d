"""Your own clips: a folder of video files and a labels.csv."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from avrepro.corpora.base import SPLITS, Clip, Corpus, CorpusError, MissingClip
from avrepro.media import MediaError, check_clip, probe, read_audio, read_frames, stream_digest
from avrepro.progress import track

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
COLUMNS = ("clip", "labels", "split")

Row = tuple[int, str, tuple[str, ...], str]  # line in the file, clip, labels, split ('' if none is given)


def load_folder(
    clips_dir: str | os.PathLike[str],
    labels_csv: str | os.PathLike[str],
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> Corpus:
    """The clips of a folder with the weak labels of a table.

    Parameters
    ----------
    clips_dir: folder that holds the video files (mp4, mkv, webm, avi ...).
    labels_csv: UTF-8 table with the columns ``clip`` (file name within ``clips_dir``), ``labels`` (with '|'
        between them, empty if nothing is heard) and optionally ``split`` (train, validation, test or
        evaluation).
    seed: of the 60 / 20 / 20 split, stratified by label, that is made where there is no ``split`` column.
    classes: the labels that may occur, in the corpus's order. By default the labels found, sorted.

    Files without usable sound or pictures are left out and listed in ``Corpus.missing`` with the reason. They keep
    their place in the split, so that repairing one moves no other clip. Raises CorpusError, listing every
    offending row, where the table itself is wrong.
    """
    folder, table = Path(clips_dir), Path(labels_csv)
    if not folder.is_dir():
        raise CorpusError(f"{folder}: not a folder; give the folder that holds the clips")
    rows = _read_rows(table)
    _check_rows(rows, folder, table, classes)
    names = tuple(sorted({label for row in rows for label in row[2]}) if classes is None else classes)
    splits = [row[3] for row in rows]
    if not splits[0]:
        targets = np.array([[name in row[2] for name in names] for row in rows], dtype=bool)
        chosen = stratified_split(targets, tuple(SHARES.values()), seed)
        splits = [tuple(SHARES)[index] for index in chosen]

    paths = [folder / row[1] for row in rows]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        findings = list(track(pool.map(_examine, paths), "checking clips", total=len(paths)))
    clips: list[Clip] = []
    missing: list[MissingClip] = []
    for (_, name, labels, _), split, path, (_, reason) in zip(rows, splits, paths, findings, strict=True):
        if reason is None:
            clips.append(Clip(id=name, path=path, split=split, labels=labels))
        else:
            missing.append(MissingClip(id=name, split=split, reason=reason))

    parts = [
        repr((row[1], sorted(row[2]), split, content))
        for row, split, (content, _) in zip(rows, splits, findings, strict=True)
    ]
    digest = hashlib.sha256("\n".join([repr(names), *sorted(parts)]).encode()).hexdigest()
    return Corpus("folder", names, tuple(clips), tuple(missing), digest)


def stratified_split(targets: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """Split clips so that every label is shared out as the clips are.

    Iterative stratification of Sechidis, Tsoumakas & Vlahavas (2011), "On the stratification of multi-label
    data", ECML PKDD, algorithm 1: the rarest label that is left is dealt out first, each of its clips to the
    part that lacks the label most.

    Parameters
    ----------
    targets: bool [clips, classes]; clips without any label are dealt out last, where clips are lacking.
    shares: of each part, summing to 1.

    Returns
    -------
    index of the part, int64 [clips].
    """
    rng = np.random.default_rng(seed)
    targets = np.asarray(targets, dtype=bool)
    share = np.asarray(shares, dtype=np.float64)
    lacking = share * len(targets)  # (parts,) clips that each part still wants
    lacking_label = np.outer(share, targets.sum(axis=0))  # (parts, classes)
    part_of = np.full(len(targets), -1, dtype=np.int64)

    def give(clip: int, want: np.ndarray) -> None:
        most = np.flatnonzero(np.isclose(want, want.max()))
        most = most[np.isclose(lacking[most], lacking[most].max())]
        part = rng.choice(most)
        part_of[clip] = part
        lacking[part] -= 1
        lacking_label[part, targets[clip]] -= 1

    while True:
        left = targets[part_of < 0].sum(axis=0)
        if not left.any():
            break
        rarest = np.flatnonzero(left == left[left > 0].min())
        label = rng.choice(rarest)
        for clip in rng.permutation(np.flatnonzero((part_of < 0) & targets[:, label])):
            give(clip, lacking_label[:, label])
    for clip in rng.permutation(np.flatnonzero(part_of < 0)):
        give(clip, lacking)
    return part_of


def _read_rows(table: Path) -> list[Row]:
    if not table.is_file():
        raise CorpusError(f"{table}: no such file; it should hold a table with the columns clip,labels")
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise CorpusError(f"{table}, line {line}: not UTF-8; save the table as 'CSV UTF-8'") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    faults: list[str] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header, table)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            line = reader.line_num
            if len(cells) != len(header):
                faults.append(
                    f"line {line}: {len(cells)} cells, expected {len(header)} ({','.join(header)}); "
                    "put a cell that holds a comma in double quotes"
                )
                continue
            row = dict(zip(header, cells, strict=True))
            labels = (label.strip() for label in row["labels"].split("|"))
            kept = tuple(dict.fromkeys(label for label in labels if label))
            rows.append((line, row["clip"], kept, row.get("split", "").strip()))
    except csv.Error as error:
        raise CorpusError(f"{table}, line {reader.line_num}: not readable as CSV: {error}") from error
    _raise(table, faults)
    if not rows:
        raise CorpusError(f"{table}: holds no clip; write one row a clip below the header")
    if "split" in header and not any(row[3] for row in rows):
        raise CorpusError(f"{table}: the column 'split' is empty; fill it in every row or take it out")
    return rows


def _check_header(header: list[str], table: Path) -> None:
    faults = []
    for name in header:
        if name not in COLUMNS:
            near = get_close_matches(name.lower(), COLUMNS, 1, 0.5)
            faults.append(f"unknown column {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    faults += [f"no column {name!r}" for name in COLUMNS[:2] if name not in header]
    faults += [f"column {name!r} occurs twice" for name in COLUMNS if header.count(name) > 1]
    if faults:
        raise CorpusError(
            f"{table}, line 1: {'; '.join(faults)}. The first line must be clip,labels or clip,labels,split "
            f"and is {','.join(header)}"
        )


def _check_rows(rows: list[Row], folder: Path, table: Path, classes: Sequence[str] | None) -> None:
    faults: list[str] = []
    first: dict[str, int] = {}
    present = sorted(entry.name for entry in folder.iterdir())
    split_given = any(row[3] for row in rows)
    for line, clip, labels, split in rows:
        place = os.path.normpath(clip)
        if not clip or not (folder / clip).is_file():
            near = get_close_matches(clip, present, 1, 0.8)
            hint = f", did you mean {near[0]!r}?" if near else ""
            faults.append(f"line {line}: no file {clip!r} in {folder}{hint}")
        if place in first:
            faults.append(f"line {line}: clip {clip!r} is already in line {first[place]}")
        first.setdefault(place, line)
        if split_given and split not in SPLITS:
            found = f"unknown split {split!r}" if split else "no split, though other rows have one"
            near = get_close_matches(split.lower(), SPLITS, 1, 0.5)
            hint = f", did you mean {near[0]!r}?" if near else ""
            faults.append(f"line {line}: {found}; expected one of {', '.join(SPLITS)}{hint}")
        for label in labels:
            if classes is not None and label not in classes:
                near = get_close_matches(label, classes, 1)
                hint = f", did you mean {near[0]!r}?" if near else ""
                faults.append(f"line {line}: unknown label {label!r}{hint}")
    if classes is not None and any("unknown label" in fault for fault in faults):
        faults.append(f"labels that may occur: {' | '.join(classes)}")
    _raise(table, faults)


def _raise(table: Path, faults: list[str]) -> None:
    if faults:
        raise CorpusError("\n  ".join([f"{table} cannot be used:", *faults]))


def _examine(path: Path) -> tuple[str, str | None]:
    """What a file holds, as a digest, and why it cannot be used (None if it can).

    Sound or pictures alone will do: a chapter that needs both leaves such a clip out when it reads it.
    """
    try:
        info = probe(path)
        if info.sample_rate and not info.height:
            read_audio(path)
            return stream_digest(path, "audio"), None
        if info.height and not info.sample_rate:
            read_frames(path, times=[0.0])
            return stream_digest(path, "video"), None
        check_clip(path)
        return stream_digest(path, "audio") + stream_digest(path, "video"), None
    except MediaError as error:
        return f"missing: {error.reason}", error.reason
