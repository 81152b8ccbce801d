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

from avrepro import manifests
from avrepro.home import home
from avrepro.manifests import File, Member, Source, Wheel
from avrepro.progress import say, track


class FetchError(RuntimeError):
    """A file that cannot be had, or is not what it should be: says what was tried and what to do."""


class WrongHash(FetchError):
    """A file on this machine with other contents than its manifest says."""


@dataclass(frozen=True)
class Checked:
    """What of a source is on this machine: names of its files, and of corrupt ones what is wrong."""

    good: list[str]
    missing: list[str]
    corrupt: dict[str, WrongHash]


def fetch(source: str, name: str | None = None) -> Path:
    """A file of a source, checked: from ``AVREPRO_MIRROR``, the cache, or the network; of one file no name is needed.

    Raises ManifestError where there is no such source or file, WrongHash where the copy in the mirror or cache is
    another file, and FetchError where it cannot be had.
    """
    entry = manifests.source(source)
    return _fetch(entry, entry.file(name), bar=sys.stderr.isatty())


def find(source: str, name: str | None = None) -> Path | None:
    """The same without the network: None where the file is neither in the mirror nor in the cache."""
    entry = manifests.source(source)
    return _find(entry, entry.file(name))


def fetch_all(source: str, jobs: int = 8) -> dict[str, Path]:
    """Every file of a source, name -> path, ``jobs`` at a time; errors as `fetch`, the first one stops it."""
    entry = manifests.source(source)
    if len(entry.files) == 1:
        return {entry.files[0].name: fetch(source)}
    with ThreadPoolExecutor(jobs) as pool:
        futures = {file.name: pool.submit(_fetch, entry, file, False) for file in entry.files}
        try:
            for done in track(as_completed(futures.values()), f"fetching {source}", len(futures), "files"):
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
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
    if path is not None and (fault := _fault(path, file)):
        raise WrongHash(f"{path}: {fault}; delete it and fetch again")
    return path


def _fault(path: Path, file: File) -> str:
    """What is wrong with the contents of ``file`` at ``path``, or nothing."""
    size = path.stat().st_size
    with path.open("rb") as opened:
        found = "" if file.unverifiable else hashlib.file_digest(opened, "sha1" if file.sha1 else "sha256").hexdigest()
    expected = file.sha256 or file.sha1 or file.sha256_prefix
    if not found.startswith(expected):
        return f"expected {file.check} {expected}, found {found} ({size} bytes)"
    if file.size is not None and size != file.size:
        return f"expected {file.size} bytes, found {size} bytes"
    return ""


def _fetch(source: Source, file: File, bar: bool) -> Path:
    path = _find(source, file)
    if path is not None:
        return path
    target = home() / "downloads" / source.name / file.name
    if not file.addresses:
        where = _places(source, file.name)
        raise FetchError(f"{source.name}/{file.name} has no public address. {source.by_hand} {where}")
    reasons = []
    for address in file.addresses:
        if bar or len(source.files) == 1:
            say(f"fetching {file.name} ({in_words(file.size)}): {address}")
        try:
            _download(address, file, target, bar)
            return target
        except FetchError as error:
            reasons.append(f"{address}: {error}")
        except OSError as error:
            raise FetchError(
                f"{target} ({in_words(file.size)}) cannot be written: {error.strerror}. Make room or change that, "
                f"or let AVREPRO_HOME name a folder on another disk (now AVREPRO_HOME={home()})."
            ) from error
    tried = "\n  ".join(reasons)
    raise FetchError(
        f"{source.name}/{file.name} cannot be fetched:\n  {tried}\n"
        f"Is there a network? Try again later, or get it elsewhere. {_places(source, file.name)}"
    )


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
    fault = ""
    for _ in range(2):  # it may be damaged on its way
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as folder:
            path = _get(address, Path(folder), bar)
            fault = _fault(path, file)
            if not fault:
                os.replace(path, target)
                return
    raise FetchError(f"fetched twice and wrong both times: {fault}")


def _get(address: str | Wheel | Member, folder: Path, bar: bool) -> Path:
    """The path of what is at an address, somewhere in ``folder``."""
    import pooch
    import requests

    if isinstance(address, Wheel):
        return _get_wheel(address, folder)
    if isinstance(address, Member):
        return _member(address, _get(address.archive, folder, bar), folder)
    path = folder / "fetched"
    try:
        pooch.HTTPDownloader(progressbar=bar)(address, str(path), None)
    except requests.RequestException as error:
        raise FetchError(error) from error
    return path


def _member(address: Member, archive: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [name for name in opened.namelist() if f"/{name}".endswith(f"/{address.member}")]
            if len(names) != 1:
                raise FetchError(f"expected one {address.member} in the archive, found {len(names)}")
            return Path(opened.extract(names[0], folder))
    except zipfile.BadZipFile as error:
        raise FetchError(f"not a zip archive ({error})") from error


def _get_wheel(address: Wheel, folder: Path) -> Path:
    """By pip, so that the user's own index, proxy and certificates are used. The wheel is not installed."""
    words = ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), address.wheel]
    ran = subprocess.run([*_pip(), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode:
        raise FetchError(" ".join(ran.stdout.strip().splitlines()[-3:]))
    return folder / address.file


def _pip() -> list[str]:
    """This interpreter's pip, else any on the path: environments made by uv have none of their own."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run([*own, "--version"], capture_output=True).returncode == 0:
        return own
    other = shutil.which("pip")
    if other is None:
        raise FetchError(f"there is no pip; {sys.executable} -m ensurepip installs it")
    return [other]
