"""The project's own folder and what is installed: where results are committed, and facts for passports."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
COMMITTED = ROOT / "results"  # numbers of runs that the default build cannot repeat
COMPUTING = ("av", "librosa", "numpy", "opencv-contrib-python-headless", "pandas", "scipy", "timm", "torch")


def files_digest(paths: Iterable[Path]) -> str:
    """SHA-256 (hex) over names (within the checkout) and contents of files, in sorted order."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(path.relative_to(ROOT).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def pages_digest() -> str:
    """Digest of all that an executed chapter shows besides numbers: package, manifests, committed results."""
    sources = [*PACKAGE.rglob("*.py"), *(ROOT / "data_manifests").rglob("*"), *COMMITTED.glob("*.parquet")]
    return files_digest(path for path in sources if path.is_file())


@cache
def versions() -> dict[str, str]:
    """Versions of the packages that decode and compute."""
    return {name: importlib.metadata.version(name) for name in COMPUTING}


@cache
def lock_digest() -> str:
    """Digest of ``requirements.lock``; empty where it is not at hand."""
    lock = ROOT / "requirements.lock"
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else ""


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
