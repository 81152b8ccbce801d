"""What a number, a feature, a trained model or a rendered world depends on.

A recipe is a name, a version that a person raises when what it makes changes, its settings, and the recipes that it
builds on. Source code is no part of it: a renamed variable makes nothing stale. That versions are raised when they
must be is tested against ``tests/fingerprints.json``, which holds what each recipe makes of a tiny fixed input.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """How something is made.

    :param name: unique in the project, for example ``"log-mel/li2017"``.
    :param version: raised by hand whenever the same settings make something else.
    :param settings: plain values (what JSON can hold).
    :param parts: recipes of what it is made from.
    :param data: digest of the data it is made from, where that is no recipe (weights, a person's clips).
    """

    name: str
    version: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[Recipe, ...] = ()
    data: str = ""

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex) of all of it: names what is cached."""
        parts = [part.key for part in self.parts]
        return digest([self.name, self.version, dict(self.settings), parts, self.data])

    @cached_property
    def versions(self) -> dict[str, int]:
        """Version of this recipe and of all that it builds on, by name."""
        return {name: version for part in self.parts for name, version in part.versions.items()} | {
            self.name: self.version
        }


def digest(values: Any) -> str:
    """SHA-256 (hex) of plain values (what JSON can hold), whatever the order of names."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
