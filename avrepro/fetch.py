"""An entry of a data manifest -> a verified file on this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from avrepro.files import atomic
from avrepro.home import home
from avrepro.manifests import manifest_path


class FetchError(RuntimeError):
    """A file that cannot be had, or is not what it should be: says what was tried and what to do."""


class WrongHash(FetchError):
    """A file with other contents than its manifest says."""

    def __init__(self, path: Path, expected: str, found: str) -> None:
        super().__init__(f"{path}: SHA-256 should begin with {expected}, found {found}; delete it and fetch again")
        self.found = found


class RemoteFile(BaseModel):
    """One file that the project uses and does not hold."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    what: str
    address: str
    licence: str
    sha256: str = Field(default="", pattern="^[0-9a-f]*$")  # 64 digits, or the prefix that a torch-hub name carries
    unverifiable: str = ""  # why there is no hash

    @model_validator(mode="after")
    def hash_or_reason(self) -> RemoteFile:
        if bool(self.sha256) == bool(self.unverifiable):
            raise ValueError("either sha256, or unverifiable with the reason why there is no hash")
        return self


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
    try:
        _download(entry, kept)
    except WrongHash:  # damaged on its way, perhaps
        try:
            _download(entry, kept)
        except WrongHash as error:
            raise FetchError(
                f"{entry.address} was fetched twice and is not the file it should be: SHA-256 should begin with "
                f"{entry.sha256}, found {error.found}. Look for another copy and put it at {kept}."
            ) from None
    return kept


def verify(path: Path, entry: RemoteFile) -> None:
    """:raises WrongHash: names the file, the hash it should have and the one it has."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(entry.sha256):
        raise WrongHash(path, entry.sha256, found)


def _download(entry: RemoteFile, kept: Path) -> None:
    import pooch

    with atomic(kept) as path:  # nothing has the final name before its hash is known to be right
        try:
            got = pooch.retrieve(entry.address, None, fname=path.name + ".download", path=path.parent, progressbar=True)
        except OSError as error:
            raise FetchError(
                f"{entry.address} cannot be fetched ({error}). Without a network, put the file at {kept} or into "
                "the folder that AVREPRO_MIRROR names."
            ) from error
        shutil.move(got, path)
        verify(path, entry)
