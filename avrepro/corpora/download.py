"""The clips of an official list made into files here, one status row a clip, and the corpus that they are.

``folder/status.jsonl`` holds a line of JSON for every finding, appended as it is made; of several for one clip
the last counts. A run that was killed goes on where it stopped.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pandas as pd
from filelock import FileLock, Timeout

from avrepro.corpora.base import Clip, Corpus, CorpusError, ListedClip, MissingClip, clips_digest
from avrepro.corpora.youtube import SOURCE, RateLimiter, Stopped, fetch_clip, watch_address
from avrepro.cutting import Unusable, examine
from avrepro.media import MediaError, stream_digest
from avrepro.progress import say, track

FINAL = ("unavailable", "private", "no sound track", "no picture", "too short")  # asking again gives the same
NOT_FETCHED = "not fetched"  # of a clip that nothing was found out about; never written
NEVER_FETCHED = "not fetched: avrepro data clips fetches it"
# Of one stem the first suffix found is taken; files of sound alone are named so that their row can say so.
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".flv", ".m4v", ".3gp", ".mpg", ".wav", ".flac", ".m4a", ".ogg")
STOPPING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # no other clip would fare better


@dataclass(frozen=True)
class Status:
    """What is known of one clip."""

    id: str
    split: str
    status: str  # "ok", one of FINAL, "error" or NOT_FETCHED
    reason: str = ""  # why it is not ok, in words
    file: str = ""  # relative to the status file's folder, or absolute
    size: int = 0  # bytes
    duration: float | None = None  # s
    digest: str = ""  # SHA-256 over the encoded sound and pictures
    origin: Literal["", "download", "media"] = ""
    time: str = ""  # UTC, ISO 8601

    def present(self, folder: Path) -> bool:
        """Whether the row is of a usable file that is still there, as long as it was."""
        path = folder / self.file
        return self.status == "ok" and path.is_file() and path.stat().st_size == self.size


def collect(
    listed: Sequence[ListedClip],
    folder: Path,
    *,
    media: Path | None = None,
    jobs: int = 4,
    retry: bool = False,
    address: Callable[[ListedClip], str] = watch_address,
    cookies: Path | None = None,
    limiter: RateLimiter | None = None,
) -> pd.DataFrame:
    """Make the listed clips usable, as far as they can be had, and record of every one what became of it.

    folder: holds the status file, and the clips as ``<id>.mp4`` where they are downloaded.
    media: a folder of clips that are there already. They are found by name below it (``find_files``), examined, and
        used where they lie: nothing in it is changed, nothing is downloaded.
    jobs: clips at a time.
    retry: ask again for what is FINAL. Errors are always tried again; clips that are ok and still there never are.
    address: where a clip's video is.
    cookies: a browser's cookies (Netscape format) for yt-dlp, for when YouTube wants to see a signed-in reader.
    limiter: how long to pause when the server limits requests.

    Returns ``statuses(listed, folder)``. Raises CorpusError where ``media`` or ``folder`` cannot be used, where another
    run is collecting into ``folder``, and where yt-dlp is needed and missing. What fails for one clip is a row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    limiter = limiter or RateLimiter()
    try:
        with FileLock(folder / ".lock", timeout=0):
            _tidy(folder)
            rows = read_statuses(folder)
            if media is None:
                todo = [clip for clip in listed if not _settled(rows.get(clip.id), folder, retry)]
                if todo and find_spec("yt_dlp") is None:
                    raise CorpusError(
                        "yt-dlp is not installed, which downloads the clips: pip install -U 'yt-dlp[default,deno]'; "
                        "or give a folder that holds them (media)"
                    )

                def work(clip: ListedClip) -> Status:
                    target = folder / f"{clip.id}.mp4"
                    get = partial(fetch_clip, clip, target, limiter, address, cookies)
                    return _status(clip, "download", target, target.name, get)

            else:
                files = find_files(listed, media)
                as_before = {
                    clip for clip, row in rows.items() if row.file == str(files.get(clip)) and row.present(folder)
                }
                todo = [clip for clip in listed if clip.id in files and clip.id not in as_before]

                def work(clip: ListedClip) -> Status:
                    path = files[clip.id]
                    return _status(clip, "media", path, str(path), partial(examine, path, clip.end - clip.start))

            _work_off(todo, work, folder, jobs, limiter)
    except Timeout:
        raise CorpusError(f"{folder}: another run is collecting clips here; wait for it or end it") from None
    except OSError as error:
        if error.errno not in STOPPING:
            raise
        raise CorpusError(
            f"{folder}: {error.strerror}; make room or see to its permissions, then run the same command again. "
            "The clips that are done stay"
        ) from error
    table = statuses(listed, folder)
    counts = table["status"].value_counts(sort=False)
    say(f"{folder}: {len(table)} clips listed, " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    return table


def statuses(listed: Sequence[ListedClip], folder: Path) -> pd.DataFrame:
    """One row a listed clip, in the list's order: the fields of Status.

    ``status`` is 'not fetched' where nothing is known, and where a file that was ok is gone or has changed.
    """
    rows = read_statuses(folder)
    return pd.DataFrame([asdict(_now(clip, rows, folder)) for clip in listed], columns=list(Status.__annotations__))


def corpus_of(
    name: str, classes: Sequence[str], listed: Sequence[ListedClip], folder: Path, media: Path | None = None
) -> Corpus:
    """The listed clips that are usable as they lie in ``folder``, by id; the others are ``missing``, with the reason.

    Where ``media`` is given, the clips in it are examined first (see ``collect``). Nothing is downloaded.
    """
    if media is not None:
        collect(listed, folder, media=media)
    rows = read_statuses(folder)
    clips: list[Clip] = []
    missing: list[MissingClip] = []
    contents = []
    for clip in sorted(listed, key=lambda clip: clip.id):
        row = _now(clip, rows, folder)
        if row.status == "ok":
            clips.append(Clip(clip.id, folder / row.file, clip.split, clip.labels, sources=(clip.video,)))
            contents.append((clip.id, clip.split, clip.labels, row.digest))
        else:
            reason = row.reason if row.status == NOT_FETCHED else f"{row.status}: {row.reason}"
            missing.append(MissingClip(clip.id, clip.split, reason))
    return Corpus(name, tuple(classes), tuple(clips), tuple(missing), clips_digest(classes, contents))


def find_files(listed: Sequence[ListedClip], media: Path) -> dict[str, Path]:
    """Clip id -> its file below ``media``, for the clips that have one.

    Names are video_start_end, video_start (s, three decimals), or the video's id alone where one clip of it is listed;
    some releases put a 'Y' before it.
    """
    if not media.is_dir():
        raise CorpusError(f"{media}: not a folder; give the folder that holds the clips")
    present: dict[str, Path] = {}
    for place, folders, names in os.walk(media.resolve(), followlinks=True):
        folders.sort()
        for path in (Path(place, name) for name in sorted(names)):
            suffix = path.suffix.lower()
            other = present.get(path.stem)
            if suffix in SUFFIXES and (not other or SUFFIXES.index(suffix) < SUFFIXES.index(other.suffix.lower())):
                present[path.stem] = path
    videos = pd.Series([clip.video for clip in listed]).value_counts()
    found = {}
    for clip in listed:
        stems = [f"{clip.video}_{clip.start:.3f}_{clip.end:.3f}", f"{clip.video}_{clip.start:.3f}"]
        if videos[clip.video] == 1:
            stems.append(clip.video)
        paths = [present[y + stem] for stem in stems for y in ("", "Y") if y + stem in present]
        if paths:
            found[clip.id] = paths[0]
    return found


def _settled(row: Status | None, folder: Path, retry: bool) -> bool:
    """Whether a clip needs no download; what was found in somebody's files says nothing of the original."""
    if row is None:
        return False
    return row.present(folder) or (row.status in FINAL and row.origin == "download" and not retry)


def _now(clip: ListedClip, rows: Mapping[str, Status], folder: Path) -> Status:
    row = rows.get(clip.id)
    if row is not None and (row.status != "ok" or row.present(folder)):
        return replace(row, split=clip.split)  # a list may be split anew since
    reason = NEVER_FETCHED
    if row is not None:
        reason = f"{folder / row.file} is gone or has changed since; run avrepro data clips again"
    return Status(clip.id, clip.split, NOT_FETCHED, reason)


def _status(
    clip: ListedClip, origin: Literal["download", "media"], path: Path, file: str, get: Callable[[], float]
) -> Status:
    """The row of a clip whose file ``get`` makes or examines; ``get`` returns its length (s)."""
    row = Status(clip.id, clip.split, "error", origin=origin)
    try:
        duration = round(get(), 3)
        digest = sha256((stream_digest(path, "audio") + stream_digest(path, "video")).encode()).hexdigest()
        row = replace(row, status="ok", file=file, size=path.stat().st_size, duration=duration, digest=digest)
    except (Unusable, MediaError) as error:
        row = replace(row, status=getattr(error, "status", "error"), reason=error.reason)
    except Exception as error:  # one bad clip stops nothing
        if isinstance(error, Stopped) or getattr(error, "errno", None) in STOPPING:
            raise
        row = replace(row, reason=f"{type(error).__name__}: {error}")
    return replace(row, time=datetime.now(UTC).isoformat(timespec="seconds"))


def _work_off(
    todo: Sequence[ListedClip], work: Callable[[ListedClip], Status], folder: Path, jobs: int, limiter: RateLimiter
) -> None:
    """Append a row for each clip as soon as it is done."""
    if not todo:
        return
    limiter.stop.clear()
    pool = ThreadPoolExecutor(jobs)
    # one write a line, at the end wherever that is by then
    file = os.open(folder / "status.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        futures = [pool.submit(work, clip) for clip in todo]
        for future in track(as_completed(futures), "collecting clips", total=len(todo)):
            os.write(file, (json.dumps(asdict(future.result()), ensure_ascii=False) + "\n").encode())
    finally:
        limiter.stop.set()  # whoever pauses need not sit it out
        pool.shutdown(cancel_futures=True)
        os.close(file)


def _tidy(folder: Path) -> None:
    """Take away what a killed run was writing: whole videos, clips, and half of a last line."""
    for left in folder.glob(f"{SOURCE}*"):
        shutil.rmtree(left, ignore_errors=True)
    for left in folder.glob(".partial-*"):
        left.unlink()
    path = folder / "status.jsonl"
    if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def read_statuses(folder: Path) -> dict[str, Status]:
    """The last row of each clip in ``folder/status.jsonl``; CorpusError names a line that is none."""
    path = folder / "status.jsonl"
    rows: dict[str, Status] = {}
    if path.is_file():
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines[:-1], 1):  # what follows the last line break is half a line
            try:
                row = Status(**json.loads(line))
            except (ValueError, TypeError) as error:
                reason = f"not a row of statuses ({error}); take the line out"
                raise CorpusError(f"{path}, line {number}: {reason}") from error
            rows[row.id] = row
    return rows
