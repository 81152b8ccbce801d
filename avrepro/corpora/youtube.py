"""One listed clip made into a file: its video downloaded whole (yt-dlp), cut to the listed seconds (PyAV).

No ffmpeg program is needed: what is downloaded is one file with sound and pictures, or one of each where a video
has no such file, and cutting puts them together.
"""

from __future__ import annotations

import errno
import io
import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from avrepro.corpora.base import ListedClip
from avrepro.cutting import Unusable, cut, examine
from avrepro.files import atomic
from avrepro.progress import say

SILENT = logging.Logger("yt-dlp", logging.CRITICAL + 1)  # the one message that matters comes as the error it raises
SOURCE = ".source-"  # what the names of folders with whole videos begin with

# In yt-dlp's words: b and w, the best and the worst file with sound and pictures; bv, wv and ba, with one of them.
# More than 480 lines are of no use here. A video without sound comes as its pictures alone, which tells why.
FORMAT = "b[height<=?480]/((bv[height<=?480]/wv),ba)/w"

# What yt-dlp says, most specific first; the texts are YouTube's own and HTTP's.
LIMITED = r"HTTP Error 429|rate-limited|confirm you're not a bot|captcha"
PRIVATE = r"private video|video is private"
UNAVAILABLE = (
    r"video (is )?unavailable|video is not available|video isn't available|video is no longer available"
    r"|video has been removed|account .*terminated|video does not exist|confirm your age|age-restricted"
    r"|inappropriate for some users|in your country|from your location|copyright (claim|grounds)|members-only"
    r"|channel's members|premium members|requires payment|recording is not available|DRM protect|HTTP Error 4(04|10)"
)


class Limited(Exception):
    """The server wants fewer requests."""


class Stopped(Exception):
    """The collection ends, this clip is left for the next time."""


class RateLimiter:
    """When workers may ask the server: after a rate limit all of them pause, twice as long each time.

    first, longest: s, the first pause and the cap. YouTube's limits last up to an hour.
    retries: pauses that one clip is given before it counts as failed.
    """

    def __init__(self, first: float = 60.0, longest: float = 3600.0, retries: int = 6) -> None:
        self.first, self.longest, self.retries = first, longest, retries
        self.pauses: list[float] = []  # s, in order
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._pause = 0.0  # s, the last one
        self._paused = self._until = -math.inf  # on the monotonic clock

    def wait(self) -> float:
        """Wait for the end of a pause; when that was, for the other two. Raises Stopped."""
        while (left := self._until - time.monotonic()) > 0 and not self.stop.wait(left):
            pass
        if self.stop.is_set():
            raise Stopped
        return time.monotonic()

    def limited(self, asked: float) -> None:
        """Pause because of an answer to what was asked at ``asked``."""
        with self._lock:
            if asked < self._paused:  # one of several requests under way when the pause began
                return
            self._pause = min(self._pause * 2 or self.first, self.longest)
            self._paused = time.monotonic()
            self._until = self._paused + self._pause
            self.pauses.append(self._pause)
        say(f"the server limits the rate of requests: every download waits {self._pause:.0f} s")

    def passed(self, asked: float) -> None:
        """The server answered again, so the next pause is a short one."""
        with self._lock:
            if asked >= self._paused:
                self._pause = 0.0


def watch_address(clip: ListedClip) -> str:
    return f"https://www.youtube.com/watch?v={quote(clip.video, safe='')}"


def fetch_clip(
    clip: ListedClip,
    target: Path,
    limiter: RateLimiter,
    address: Callable[[ListedClip], str],
    cookies: Path | None = None,
) -> float:
    """Write the listed seconds of a clip's video to ``target`` (mp4), and return how long they last (s).

    Raises Unusable, MediaError, Stopped, and OSError where files cannot be written.
    """
    for _ in range(limiter.retries + 1):
        asked = limiter.wait()
        with TemporaryDirectory(dir=target.parent, prefix=SOURCE) as folder:
            try:
                files = _download(address(clip), Path(folder), cookies)
            except Limited as error:
                limiter.limited(asked)
                text = str(error)
                continue
            except Unusable:
                limiter.passed(asked)
                raise
            limiter.passed(asked)
            with atomic(target) as temporary:
                cut(files[0], temporary, clip.start, clip.end, sound_from=files[-1])
                return examine(temporary, clip.end - clip.start)
    advice = "run the same command again later, with cookies of a signed-in browser if it goes on"
    raise Unusable("error", f"rate-limited, {limiter.retries} times in a row; {advice}: {text}")


def status_of(text: str) -> str:
    """The status that yt-dlp's error text means: private, unavailable, error, or 'limited'."""
    plain = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    for status, pattern in (("limited", LIMITED), ("private", PRIVATE), ("unavailable", UNAVAILABLE)):
        if re.search(pattern, plain, re.IGNORECASE):
            return status
    return "error"


def _download(address: str, folder: Path, cookies: Path | None) -> list[Path]:
    """The whole video, in one file or in two, pictures first. Raises Limited, Unusable, and OSError for a full disk."""
    import yt_dlp

    options: dict[str, Any] = {
        "format": FORMAT,
        "outtmpl": {"default": "source.%(format_id)s.%(ext)s"},
        "paths": {"home": str(folder)},
        "logger": SILENT,
        "quiet": True,
        "noprogress": True,
        "color": "never",
        "fixup": "never",  # needs ffmpeg
        "cachedir": False,
        "socket_timeout": 30,
        "retries": 3,
    }
    if cookies is not None:
        options["cookiefile"] = io.StringIO(cookies.read_text(encoding="utf-8"))  # a file would be written to
    try:
        with yt_dlp.YoutubeDL(options) as loader:
            info: Any = loader.extract_info(address)
        return [Path(part["filepath"]) for part in info["requested_downloads"]]
    except yt_dlp.utils.YoutubeDLError as error:
        text = " ".join(str(error).removeprefix("ERROR: ").split())
        if os.strerror(errno.ENOSPC) in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        status = status_of(text)
        if status == "limited":
            raise Limited(text) from error
        raise Unusable(status, text) from error
