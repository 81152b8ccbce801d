"""Every row of every table of the three papers, and what goes beyond them, as systems with one interface."""

from __future__ import annotations

from avrepro.systems import beyond, fayek2020, fayek2020_others, li2017, li2017_planted, parekh2018
from avrepro.systems.base import CLIP_SECONDS, Checkpoint, CheckpointError, Condition, Data, System

__all__ = ["CLIP_SECONDS", "SYSTEMS", "Checkpoint", "CheckpointError", "Condition", "Data", "System", "of_paper"]

MODULES = (li2017, li2017_planted, parekh2018, fayek2020, fayek2020_others, beyond)
SYSTEMS: dict[str, System] = {system.name: system for module in MODULES for system in module.ROWS}


def of_paper(paper: str) -> list[str]:
    """Names of a paper's systems (li2017, parekh2018, fayek2020, beyond), in the order of its tables."""
    return [name for name in SYSTEMS if name.startswith(f"{paper}/")]
