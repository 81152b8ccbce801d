"""What a number depends on, as SHA-256 digests: code, locked dependencies, data manifests."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent  # the checkout
COMMITTED = ROOT / "results"  # numbers of runs that the default build cannot repeat


def of_files(paths: Iterable[Path], base: Path) -> str:
    """Digest over names (relative to ``base``) and contents, in sorted order."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.relative_to(base).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def of_values(values: Any) -> str:
    """Digest of plain values (what JSON can hold), whatever the order of names."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def code(*parts: str) -> str:
    """Digest of the package's source, or of the named files and folders of it alone.

    :param parts: paths in the package, for example ``"models/li2017.py"``; none: everything.
    """
    files: list[Path] = []
    for part in parts or (".",):
        path = PACKAGE / part
        found = [path] if path.is_file() else sorted(path.rglob("*.py"))
        if not found:
            raise FileNotFoundError(f"{path}: no such source file or folder in the package")
        files += found
    return of_files(files, PACKAGE)


@cache
def dependencies() -> str:
    """Digest of ``requirements.lock`` and of what is really installed of the packages that compute."""
    lock = ROOT / "requirements.lock"
    locked = of_files([lock], ROOT) if lock.is_file() else "no lock"
    return of_values([locked, versions()])


def manifests() -> str:
    """Digest of ``data_manifests/``."""
    folder = ROOT / "data_manifests"
    return of_files((path for path in folder.rglob("*") if path.is_file()), ROOT)


@cache
def versions() -> dict[str, str]:
    """Versions of the packages that decode and compute."""
    names = ("av", "librosa", "numpy", "opencv-contrib-python-headless", "pandas", "scipy", "timm", "torch")
    return {name: importlib.metadata.version(name) for name in names}


@cache
def commit() -> str:
    """The checkout's git commit, with ``+`` where files differ from it; empty outside a checkout."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return ""
