"""Your own clips: a folder of video files and a labels.csv."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from avrepro.corpora.base import SPLITS, Clip, Corpus, CorpusError, MissingClip, clips_digest
from avrepro.corpora.tables import check, check_files, read_rows
from avrepro.media import MediaError, check_clip, probe, read_audio, read_frames, stream_digest
from avrepro.progress import track

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def load_folder(clips_dir: str | os.PathLike[str], labels_csv: str | os.PathLike[str], seed: int = 0) -> Corpus:
    """The clips of a folder with the weak labels of a table.

    clips_dir: folder that holds the video files (mp4, mkv, webm, avi ...).
    labels_csv: UTF-8 table with the columns ``clip`` (file name within ``clips_dir``), ``labels`` (with '|'
        between them, empty if none applies) and optionally ``split`` (train, validation, test or evaluation).
    seed: of the 60 / 20 / 20 split, stratified by label, that is made where there is no ``split`` column.

    The classes are the labels found, sorted. Files without usable sound or pictures are listed in ``Corpus.missing``
    with the reason; they keep their place in the split, so that repairing one moves no other clip. Raises CorpusError,
    naming the offending rows, where the table itself is wrong.
    """
    folder, table = Path(clips_dir), Path(labels_csv)
    if not folder.is_dir():
        raise CorpusError(f"{folder}: not a folder; give the folder that holds the clips")
    rows = _read_clips(table, folder)
    names = tuple(sorted({label for labels in rows["labels"] for label in labels}))
    if "split" not in rows:
        targets = np.array([[name in labels for name in names] for labels in rows["labels"]], dtype=bool)
        parts = stratified_split(targets, tuple(SHARES.values()), seed)
        rows = rows.assign(split=[tuple(SHARES)[part] for part in parts])
    paths = [folder / name for name in rows["clip"]]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        findings = list(track(pool.map(_examine, paths), "checking clips", total=len(paths)))
    clips: list[Clip] = []
    missing: list[MissingClip] = []
    contents = []
    for row, path, (content, reason) in zip(rows.itertuples(), paths, findings, strict=True):
        name, split, labels = row.clip, row.split, row.labels
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

    targets: bool [clips, classes]; clips without any label are dealt out last, where clips are lacking.
    shares: of each part, summing to 1. Returns the index of the part, int64 [clips].
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


def _read_clips(table: Path, folder: Path) -> pd.DataFrame:
    """The rows of a table: clip (str), labels (tuples of str) and, where it is given, split (str)."""
    rows = read_rows(table, ("clip", "labels"), ("split",))
    check_files(table, rows["clip"], folder)
    if "split" in rows:
        check(table, rows["split"].isin(SPLITS), f"one of the splits {', '.join(SPLITS)}", rows["split"], SPLITS)
    split_up = rows["labels"].str.split("|").map(lambda names: [name.strip() for name in names if name.strip()])
    return rows.assign(labels=split_up.map(lambda names: tuple(dict.fromkeys(names))))


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
