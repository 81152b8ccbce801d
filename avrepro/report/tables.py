"""Tables of results: systems side by side, settings, costs, passports; and the tidy table behind every figure."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from avrepro.evaluation.intervals import Interval
from avrepro.report.display import Cell, note, table
from avrepro.report.wording import MISSING, NOT_MEASURED, kind_of, measured, metric_title, origin, title, written
from avrepro.results import PASSPORT, Results
from avrepro.systems import SYSTEMS

COSTS = ("parameters", "macs", "inference_seconds", "training_seconds")
MANY = 6  # rows from which on a table can be sorted


def compare(
    systems: Sequence[str],
    metric: str,
    columns: Mapping[str, Results | None],
    caption: str,
    *,
    split: str = "test",
    published: Mapping[str, float] | None = None,
    against: str = "",
    fold: str = "",
) -> None:
    """Systems by one metric: a row each, a column a measurement; what was not measured is an en dash.

    :param columns: head of a column -> results; their origin stands in the caption.
    :param published: system -> number as its paper prints it, for a first column.
    :param against: system whose number is subtracted.
    """
    if not any(measured(results) for results in columns.values()):
        note(f"{caption.rstrip('.')}: {NOT_MEASURED}.")
        return
    pairs = {system: (system, against) for system in systems}
    first = f"{metric_title(metric, bool(against))}{f', gain over {title(against)}' if against else ''}"
    printed = None
    if published is not None:
        printed = {name: f"{'+' if against and one > 0 else ''}{one}" for name, one in published.items()}
    _comparison(first, pairs, metric, columns, caption, split, printed, fold)


def ahead(
    system: str,
    others: Sequence[str],
    metric: str,
    columns: Mapping[str, Results | None],
    caption: str,
    published: Mapping[str, float],
    fold: str = "",
) -> None:
    """How far a system is ahead of each of others on test clips, paired; read like :func:`compare`."""
    pairs = {other: (system, other) for other in others}
    printed = {other: f"{published[system] - published[other]:+.2f}" for other in others if other in published}
    _comparison(f"{title(system)} minus", pairs, metric, columns, caption, "test", printed, fold)


def _comparison(
    first: str,
    pairs: Mapping[str, tuple[str, str]],
    metric: str,
    columns: Mapping[str, Results | None],
    caption: str,
    split: str,
    printed: Mapping[str, str] | None,
    fold: str,
) -> None:
    """A row for each system that is named: a number of ``pairs``, a system and what it is measured against."""
    shown = {head: results if measured(results) else None for head, results in columns.items()}
    rows = []
    for name, (system, against) in pairs.items():
        row: list[Any] = [system_cell(name)]
        if printed is not None:
            row.append(Cell(printed[name], float(printed[name])) if name in printed else Cell.of(MISSING))
        found = [
            None if one is None else one.find(system, metric, split=split, against=against) for one in shown.values()
        ]
        rows.append(row + [number_cell(one, metric, bool(against)) for one in found])
    head = [first, *(["published"] if printed is not None else []), *columns]
    badges = [f"{head}: {origin(one)}" for head, one in columns.items() if head != origin(one)]
    more = f" {'; '.join(badges)}." if badges else ""
    table(head, rows, f"{caption}{more}", shown.values(), len(rows) >= MANY, fold)


def system_cell(system: str) -> Cell:
    """A system's title with the place where its paper has it."""
    name, place = html.escape(title(system)), SYSTEMS[system].place
    return Cell(f"{title(system)} ({place})", None, f"{name} <small>({html.escape(place)})</small>")


def number_cell(number: Interval | None, metric: str, signed: bool = False) -> Cell:
    """A number as its metric is written, an en dash where there is none."""
    return Cell.of(MISSING) if number is None else Cell(written(number, metric, signed), number.value)


def tidy(
    results: Results | None,
    metric: str,
    systems: Sequence[str] | None = None,
    split: str = "test",
    label: str | Sequence[str] | None = None,
    against: str = "",
) -> pd.DataFrame:
    """A metric as a tidy table, for figures: system, title, label, step, value, low, high; fractions in percent.

    :param systems: in the order wanted; default: all. :param label: of classes; default: all.
    """
    names = ["system", "title", "label", "step", "value", "low", "high"]
    if results is None or not measured(results):
        return pd.DataFrame(columns=names)
    wanted: dict[str, Any] = {"metric": metric, "split": split, "against": against}
    if label is not None:
        wanted["label"] = [label] if isinstance(label, str) else [*label]
    found = results.select(**wanted)
    if systems is not None:
        order = {name: place for place, name in enumerate(systems)}
        found = found[found["system"].isin(order)].sort_values("system", key=lambda one: one.map(order), kind="stable")
    found = found.assign(title=[title(name) for name in found["system"]])
    scale = 100.0 if kind_of(metric) == "percent" else 1.0
    found = found.assign(**{name: scale * found[name] for name in ("value", "low", "high")})
    return found[names].reset_index(drop=True)


def settings(profiles: Mapping[str, Any], profile: str, fold: str = "Settings of this run") -> None:
    """Where a profile differs from profile ``paper``, folded away.

    :param profiles: name -> dataclass of settings, as a paper's systems have them.
    """

    def text(value: Any) -> str:
        return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)

    here, paper = (pd.json_normalize(asdict(profiles[name])).iloc[0].map(text) for name in (profile, "paper"))
    rows = [[name.replace("_", " "), here[name], paper[name]] for name in paper.index if here[name] != paper[name]]
    if not rows:
        note(f"Profile {profile} has the settings of profile paper.")
        return
    caption = f"Settings in which profile {profile} differs from profile paper; all others are the same."
    table(["setting", f"profile {profile}", "profile paper"], rows, caption, fold=fold)


def costs(results: Results | None, systems: Sequence[str], fold: str = "What it costs") -> None:
    """Parameters, multiply-accumulates, and seconds of inference and training of systems, folded away."""
    if results is None or not measured(results):
        note(f"Costs: {NOT_MEASURED}.")
        return
    rows = []
    for system in systems:
        cells = [number_cell(number_of(results, system, metric), metric) for metric in COSTS]
        rows.append([system_cell(system), *cells])
    device = results.table.iloc[0]["device"]
    caption = f"Costs ({origin(results)}): numbers trained, and of one clip and one training, on {device}."
    table(["system", *map(metric_title, COSTS)], rows, caption, results, len(rows) >= MANY, fold)


def number_of(results: Results, system: str, metric: str, against: str = "", label: str = "") -> Interval | None:
    """A number on test clips or, where a metric belongs to no split, without one; None where it is missing."""
    found = results.find(system, metric, split="test", against=against, label=label)
    return found or results.find(system, metric, against=against, label=label)


def passports(*results: Results | None) -> None:
    """Where numbers come from, folded away, a run each."""
    runs = {run: rows for one in results if one is not None for run, rows in one.table.groupby("run", sort=False)}
    for run, rows in runs.items():
        first, one = rows.iloc[0], Results(rows)
        facts = {name: str(first[name]) for name in PASSPORT}
        for split, row in (
            rows[rows["split"] != ""].groupby("split", sort=False)[["clips", "missing"]].first().iterrows()
        ):
            facts[f"clips, {split}"] = f"{row.clips} scored, {row.missing} missing"
        for name, column in (("threshold rules", "threshold_rule"), ("intervals", "interval")):
            facts[name] = "; ".join(sorted({text for text in rows[column] if text})) or "none"
        seeds = json.loads(first["seeds"])
        of_seeds = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
        summary = f"Passport: {first['measured']}, {origin(one)}, {of_seeds}"
        cells = [[name, Cell(text, None, f"<code>{html.escape(text)}</code>")] for name, text in facts.items()]
        table(["fact", "value"], cells, f"Passport of run {run}.", one, fold=summary)
