"""Your own clips: a folder of video files and a labels.csv."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from avrepro.corpora.base import SPLITS, Clip, Corpus, CorpusError, MissingClip, clips_digest
from avrepro.corpora.tables import file_faults, nearest, raise_faults, read_rows
from avrepro.media import MediaError, check_clip, probe, read_audio, read_frames, stream_digest
from avrepro.progress import track

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}

Row = tuple[int, str, tuple[str, ...], str]  # line in the file, clip, labels, split ('' if none is given)


def load_folder(clips_dir: str | os.PathLike[str], labels_csv: str | os.PathLike[str], seed: int = 0) -> Corpus:
    """The clips of a folder with the weak labels of a table.

    Parameters
    ----------
    clips_dir: folder that holds the video files (mp4, mkv, webm, avi ...).
    labels_csv: UTF-8 table with the columns ``clip`` (file name within ``clips_dir``), ``labels`` (with '|'
        between them, empty if none applies) and optionally ``split`` (train, validation, test or evaluation).
    seed: of the 60 / 20 / 20 split, stratified by label, that is made where there is no ``split`` column.

    The classes are the labels found, sorted. Files without usable sound or pictures are left out and listed in
    ``Corpus.missing`` with the reason. They keep their place in the split, so that repairing one moves no other clip.
    Raises CorpusError, listing every offending row, where the table itself is wrong.
    """
    folder, table = Path(clips_dir), Path(labels_csv)
    if not folder.is_dir():
        raise CorpusError(f"{folder}: not a folder; give the folder that holds the clips")
    rows = _read_clips(table)
    _check_clips(rows, folder, table)
    names = tuple(sorted({label for row in rows for label in row[2]}))
    splits = [row[3] for row in rows]
    if not splits[0]:
        targets = np.array([[name in row[2] for name in names] for row in rows], dtype=bool)
        splits = [tuple(SHARES)[part] for part in stratified_split(targets, tuple(SHARES.values()), seed)]
    paths = [folder / row[1] for row in rows]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        findings = list(track(pool.map(_examine, paths), "checking clips", total=len(paths)))
    clips: list[Clip] = []
    missing: list[MissingClip] = []
    contents = []
    for (_, name, labels, _), split, path, (content, reason) in zip(rows, splits, paths, findings, strict=True):
        if reason is None:
            clips.append(Clip(name, path, split, labels))
            contents.append((name, split, labels, content))
        else:
            missing.append(MissingClip(name, split, reason))
    return Corpus("folder", names, tuple(clips), tuple(missing), clips_digest(names, contents))


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

    while (left := targets[part_of < 0].sum(axis=0)).any():
        label = rng.choice(np.flatnonzero(left == left[left > 0].min()))  # a rarest one
        for clip in rng.permutation(np.flatnonzero((part_of < 0) & targets[:, label])):
            give(clip, lacking_label[:, label])
    for clip in rng.permutation(np.flatnonzero(part_of < 0)):
        give(clip, lacking)
    return part_of


def _read_clips(table: Path) -> list[Row]:
    rows: list[Row] = []
    given = read_rows(table, ("clip", "labels"), ("split",))
    for line, row in given:
        labels = tuple(dict.fromkeys(label.strip() for label in row["labels"].split("|") if label.strip()))
        rows.append((line, row["clip"], labels, row.get("split", "").strip()))
    if "split" in given[0][1] and not any(row[3] for row in rows):
        raise CorpusError(f"{table}: the column 'split' is empty; fill it in every row or take it out")
    return rows


def _check_clips(rows: list[Row], folder: Path, table: Path) -> None:
    faults = file_faults([row[:2] for row in rows], folder)
    for line, _, _, split in rows:
        if any(row[3] for row in rows) and split not in SPLITS:
            found = f"unknown split {split!r}" if split else "no split, though other rows have one"
            faults.append(f"line {line}: {found}; expected one of {', '.join(SPLITS)}{nearest(split, SPLITS)}")
    raise_faults(table, faults)


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
        return "", error.reason
