"""An entry of a data manifest -> a verified file on this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from avrepro.files import atomic
from avrepro.home import home
from avrepro.manifests import manifest_path


class FetchError(RuntimeError):
    """A file that cannot be had, or is not what it should be: says what was tried and what to do."""


class RemoteFile(BaseModel):
    """One file that the project uses and does not hold."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    what: str
    address: str
    licence: str
    sha256: str = Field(default="", pattern="^[0-9a-f]*$")  # 64 digits, or the prefix that a torch-hub name carries
    unverifiable: str = ""  # why there is no hash


def remote_files(manifest: str = "weights.yaml") -> dict[str, RemoteFile]:
    """File name -> entry of a manifest; :raises pydantic.ValidationError: for a manifest that is wrong."""
    entries = yaml.safe_load(manifest_path(manifest).read_text(encoding="utf-8"))
    return {name: RemoteFile(**entry) for name, entry in entries.items()}


def fetch(name: str, manifest: str = "weights.yaml") -> Path:
    """The file ``name`` of a manifest: from ``AVREPRO_MIRROR``, the cache, or the network, in this order.

    :raises FetchError: no such entry, no network, or a wrong hash (fetched once more before that is said).
    """
    entries = remote_files(manifest)
    if name not in entries:
        raise FetchError(f"{manifest} has no file {name!r}, only {', '.join(entries)}")
    entry = entries[name]
    mirror = os.environ.get("AVREPRO_MIRROR")
    if mirror:
        for path in sorted(Path(mirror).expanduser().rglob(name)):
            verify(path, entry)
            return path
    kept = home() / "downloads" / name
    if kept.is_file():
        verify(kept, entry)
        return kept
    for attempt in (1, 2):
        with atomic(kept) as path:
            _download(entry, path)
            try:
                verify(path, entry)
                break
            except FetchError as error:
                if attempt == 2:
                    raise FetchError(f"{entry.address} was fetched twice. {error}") from None
                continue
    return kept


def verify(path: Path, entry: RemoteFile) -> None:
    """:raises FetchError: names the file, the hash it should have and the one it has."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(entry.sha256):
        raise FetchError(f"{path}: SHA-256 should begin with {entry.sha256}, found {found}; delete it and fetch again")


def _download(entry: RemoteFile, path: Path) -> None:
    import pooch

    try:
        got = pooch.retrieve(entry.address, None, fname=path.name + ".download", path=path.parent, progressbar=True)
    except OSError as error:
        raise FetchError(
            f"{entry.address} cannot be reached ({error}). Without a network, put the file {path.parent} or into "
            "the folder that AVREPRO_MIRROR names."
        ) from error
    shutil.move(got, path)
