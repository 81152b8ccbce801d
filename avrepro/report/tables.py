"""Tables of results: systems side by side, settings, costs, passports; and the tidy table behind every figure."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import pandas as pd

from avrepro.evaluation.intervals import Interval
from avrepro.report.display import Cell, folded, note, send, table
from avrepro.report.wording import MISSING, NOT_MEASURED, kind_of, measured, metric_title, origin, title, written
from avrepro.results import PASSPORT, Results, ResultsError
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
    signed: bool | None = None,
    fold: str = "",
) -> None:
    """Systems by one metric: a row each, a column a measurement; what was not measured is an en dash.

    :param columns: head of a column -> results; their origin stands in the caption.
    :param published: system -> number as its paper prints it, for a first column.
    :param against: system whose number is subtracted; then ``signed`` is meant unless it says otherwise.
    :raises ResultsError: a system is not registered and was not measured either.
    """
    shown = {head: results for head, results in columns.items() if results is not None and measured(results)}
    if not shown:
        note(f"{caption.rstrip('.')}: {NOT_MEASURED}.")
        return
    signed = bool(against) if signed is None else signed
    first = f"{metric_title(metric, bool(against))}{f', gain over {title(against)}' if against else ''}"
    rows = []
    for system in systems:
        row: list[Any] = [system_cell(system)]
        if published is not None:
            printed = published.get(system)
            row.append(Cell(MISSING, math.nan) if printed is None else Cell(_printed(printed, signed), float(printed)))
        found = [shown[h].find(system, metric, split=split, against=against) if h in shown else None for h in columns]
        if system not in SYSTEMS and not any(found):
            raise ResultsError(f"{caption}: no system {system!r} is registered, nor was its {metric} measured")
        rows.append(row + [_cell(one, metric, signed) for one in found])
    head = [first, *(["published"] if published is not None else []), *columns]
    badges = {name: origin(results) for name, results in columns.items()}
    differing = [f"{name}: {badge}" for name, badge in badges.items() if name != badge]
    more = f" {'; '.join(differing)}." if differing else ""
    table(head, rows, f"{caption}{more}", shown.values(), len(rows) >= MANY, fold)


def ahead(
    system: str,
    others: Sequence[str],
    metric: str,
    columns: Mapping[str, Results | None],
    caption: str,
    published: Mapping[str, float],
    fold: str = "",
) -> None:
    """How far a system is ahead of others on test clips, paired; read like :func:`compare`, which shows them side by
    side."""
    rows = []
    for other in others:
        known = system in published and other in published
        row: list[Any] = [system_cell(other), f"{published[system] - published[other]:+.2f}" if known else MISSING]
        found = [
            None if one is None else one.find(system, metric, split="test", against=other) for one in columns.values()
        ]
        rows.append(row + [_cell(one, metric, True) for one in found])
    shown = [one for one in columns.values() if one is not None]
    table([f"{title(system)} minus", "published", *columns], rows, caption, shown, fold=fold)


def system_cell(system: str) -> Cell:
    """A system's title with the place where its paper has it."""
    place = SYSTEMS[system].place if system in SYSTEMS else ""
    small = f" <small>({html.escape(place)})</small>" if place else ""
    return Cell(f"{title(system)} ({place})" if place else title(system), None, f"{html.escape(title(system))}{small}")


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


def settings(profiles: Mapping[str, Any], profile: str, fold: str = "") -> None:
    """Where a profile differs from profile ``paper``, folded away.

    :param profiles: name -> dataclass of settings, as a paper's systems have them.
    """
    here, paper = flat(profiles[profile]), flat(profiles["paper"])
    names = [name for name in {**paper, **here} if here.get(name) != paper.get(name)]
    if not names:
        note(f"Profile {profile} has the settings of profile paper.")
        return
    rows = [[name.replace("_", " "), here.get(name, MISSING), paper.get(name, MISSING)] for name in names]
    caption = f"Settings in which profile {profile} differs from profile paper; all others are the same."
    table(["setting", f"profile {profile}", "profile paper"], rows, caption, fold=fold or "Settings of this run")


def flat(settings: Any, prefix: str = "") -> dict[str, str]:
    """Settings in settings by names with dots, as text."""
    found: dict[str, str] = {}
    for one in fields(settings):
        value = getattr(settings, one.name)
        if is_dataclass(value):
            found |= flat(value, f"{prefix}{one.name}.")
        else:
            found[prefix + one.name] = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return found


def costs(results: Results | None, systems: Sequence[str], fold: str = "What it costs") -> None:
    """Parameters, multiply-accumulates, and seconds of inference and training of systems, folded away."""
    if results is None or not measured(results):
        note(f"Costs: {NOT_MEASURED}.")
        return
    rows = []
    for system in systems:
        rows.append([system_cell(system), *(_cell(number_of(results, system, metric), metric) for metric in COSTS)])
    first = results.table.iloc[0]
    caption = f"Costs ({origin(results)}): numbers trained, and of one clip and one training, on {first['device']}."
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
        seeds = json.loads(first["seeds"])
        summary = f"Passport: {first['measured']}, {origin(one)}, " + (
            f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
        )
        sizes = rows[rows["split"] != ""].groupby("split", sort=False)[["clips", "missing"]].first()
        more = {f"clips, {split}": f"{row.clips} scored, {row.missing} missing" for split, row in sizes.iterrows()}
        for name, column in (("threshold rules", "threshold_rule"), ("intervals", "interval")):
            more[name] = "; ".join(sorted({text for text in rows[column] if text})) or "none"
        facts = {**{name: first[name] for name in PASSPORT}, **more}
        body = "".join(
            f'<tr><th scope="row">{html.escape(str(name))}</th><td><code>{html.escape(str(value))}</code></td></tr>'
            for name, value in facts.items()
        )
        text = "\n".join(f"{name}: {value}" for name, value in facts.items())
        markup = f'<div class="wide"><table class="table"><tbody>{body}</tbody></table></div>'
        send(folded(markup, summary), f"{summary} ({run})\n{text}", one)


def _cell(number: Interval | None, metric: str, signed: bool = False) -> Cell:
    return Cell(MISSING, math.nan) if number is None else Cell(written(number, metric, signed), number.value)


def _printed(number: float, signed: bool) -> str:
    return f"+{number}" if signed and number > 0 else str(number)
