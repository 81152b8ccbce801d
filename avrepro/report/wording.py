"""How numbers, systems, metrics and corpora are written: the same on every page."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

import pandas as pd
import yaml

from avrepro.evaluation.intervals import Interval
from avrepro.manifests import manifest_path
from avrepro.results import Results
from avrepro.systems import SYSTEMS

CORPORA = {
    "paired": "real recordings", "demo": "demo world", "demo-null": "control", "folder": "your clips",
    "esc10": "ESC-10", "dcase2017": "DCASE 2017 Task 4", "audioset": "AudioSet",
}  # fmt: skip
PAPERS = {
    "li2017": "Li et al. (2017)", "parekh2018": "Parekh et al. (2018)", "fayek2020": "Fayek and Kumar (2020)",
    "beyond": "beyond the papers",
}  # fmt: skip
METRICS = {  # others by their own name
    "micro_f1": "micro F1", "macro_f1": "macro F1", "class_f1": "class F1", "map": "mAP", "mauc": "mAUC",
    "roc_auc": "ROC AUC", "d_prime": "d′", "macs": "multiply-accumulates",
}  # fmt: skip
# Metrics that are no fractions, by how they are written. All others are shown in percent.
COUNTS = {
    "parameters", "macs", "clips", "labels", "classes", "items", "strict_items", "groups", "events", "timed_events",
    "untimed_events", "photographs", "renderings", "positive_clips", "clips_with_label", "also_in_audioset",
}  # fmt: skip
NUMBERS = {"d_prime", "loss", "validation_loss", "imbalance", "labels_per_clip", "hours", "correlation"}

NBSP = "\N{NO-BREAK SPACE}"
MISSING = "–"
NOT_MEASURED = "not measured in this run"


def written(number: Interval | float, metric: str = "", signed: bool = False) -> str:
    """A number in its metric's own form, with its interval: ``51.2 [46.9, 55.4]``, without a line break inside.

    :param metric: decides between percent (most metrics), counts, seconds and plain numbers.
    :param signed: for differences. One whose interval is the point zero is zero by construction and written ``0``.
    """
    known = number if isinstance(number, Interval) else Interval(float(number), math.nan, math.nan, "")
    if math.isnan(known.value):
        return MISSING
    if signed and is_identical(known):
        return "0"
    kind = kind_of(metric)
    scale = 100.0 if kind == "percent" else 1.0
    digits = {"percent": 1, "count": 0, "number": 2}.get(kind)
    if digits is None:  # seconds: about three digits
        size = abs(known.value)
        digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 4
    value, low, high = (_decimal(scale * one, digits, signed) for one in (known.value, known.low, known.high))
    return value if math.isnan(known.low) or math.isnan(known.high) else f"{value}{NBSP}[{low},{NBSP}{high}]"


def _decimal(value: float, digits: int, signed: bool) -> str:
    """A number with so many decimal places; what rounds to zero has no sign."""
    text = f"{value:{'+' if signed else ''},.{digits}f}"
    return text if text.strip("+-0.,") else text.lstrip("+-")


def percent(number: Interval | float, signed: bool = False) -> str:
    """A fraction in percent, with its interval where it has one; an en dash for a missing number."""
    return written(number, "", signed)


def with_unit(number: Interval | float, metric: str = "", signed: bool = False) -> str:
    """The same with the unit behind it: ``%``, ``points`` for differences of fractions, or ``s``."""
    unit = {"percent": "points" if signed else "%", "seconds": "s"}.get(kind_of(metric))
    return f"{written(number, metric, signed)}{NBSP}{unit}" if unit else written(number, metric, signed)


def kind_of(metric: str) -> str:
    """How a metric is written: percent, count, seconds or number."""
    if metric.endswith("seconds"):
        return "seconds"
    if metric in NUMBERS or metric.endswith("correlation"):
        return "number"
    return "count" if metric in COUNTS else "percent"


def is_identical(number: Interval) -> bool:
    """Whether a difference is zero by construction: no resample and no seed gives another one."""
    return number.value == number.low == number.high == 0


def metric_name(metric: str) -> str:
    """A metric in sentences: ``micro F1``."""
    return METRICS.get(metric, metric.replace("_", " ").removesuffix(" seconds"))


def metric_title(metric: str, signed: bool = False) -> str:
    """A metric's name with its unit, for the head of a column or an axis."""
    name, kind = metric_name(metric), kind_of(metric)
    if kind == "percent":
        return f"points of {name}" if signed else f"{name}, %"
    return f"{name}, s" if kind == "seconds" else name


def title(system: str) -> str:
    """A system's name in tables; of what is no registered system, its own name."""
    return SYSTEMS[system].title if system in SYSTEMS else system.rpartition("/")[2].replace("_", " ")


def published(paper: str) -> dict[str, Any]:
    """A paper's own numbers, from ``data_manifests/published``."""
    return yaml.safe_load(manifest_path(f"published/{paper}.yaml").read_text(encoding="utf-8"))


def measured(results: Results | None) -> bool:
    """Whether there are numbers of systems to show: not of a dry run, nor of clips too few to train on."""
    if results is None or set(results.table["system"]) <= {"corpus"}:
        return False
    return not any(json.loads(condition).get("dry") for condition in results.table["condition"].unique())


def origin(results: Results | None) -> str:
    """The badge of results: their corpus, the profile where it is not the book's own, and whether they are stale."""
    if results is None or results.table.empty:
        return NOT_MEASURED
    names = [CORPORA.get(name, name) for name in results.table["corpus"].unique()]
    profiles = [f"profile {name}" for name in results.table["profile"].unique() if name != "demo"]
    return ", ".join([*names, *profiles, *(["stale"] if is_stale(results) else [])])


def is_stale(results: Results) -> bool:
    """Whether any number is older than what it depends on; asked once of the same numbers."""
    rows = results.table[["system", "condition", "recipe"]].drop_duplicates()
    return _stale(tuple(rows.itertuples(index=False, name=None)))


@cache
def _stale(rows: tuple[tuple[str, str, str], ...]) -> bool:
    return Results(pd.DataFrame(rows, columns=["system", "condition", "recipe"])).stale
