"""Where everything that can be made or fetched again is kept."""

from __future__ import annotations

import os
from pathlib import Path

SCORES_FILE = "AVREPRO_SCORES"  # environment variable of a chapter: where `avrepro run` wants scores of own clips


def home() -> Path:
    """The cache folder: ``AVREPRO_HOME``, or avrepro's folder in the user's cache. Not created here."""
    named = os.environ.get("AVREPRO_HOME")
    if named:
        return Path(named).expanduser().resolve()
    from platformdirs import user_cache_path  # only where it is needed: importing avrepro stays cheap

    return user_cache_path("avrepro")
