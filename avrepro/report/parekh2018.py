"""Tables and figures of the chapter on Parekh et al. (2018): its Tables 1 and 2 beside ours, and what they rest on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import pandas as pd

from avrepro.corpora.base import SPLITS
from avrepro.evaluation.intervals import Interval
from avrepro.experiments.parekh2018_profiles import PROFILES
from avrepro.report import origin, percent, published, show_note, show_passport, show_table
from avrepro.report.li2017 import NOT_TRAINED
from avrepro.results import COMMITTED, Results, read

CHAPTER = "unsynchronized_mil"
PAPER = published("parekh2018")
SYSTEMS = {
    "two_stream": "(a) two streams, sound and pictures",
    "audio_only": "(b) two streams, sound only",
    "video_only": "(c) two streams, pictures only",
    "wsddn": "(d) pictures only, WSDDN type",
    "one_stream": "(e) one stream, sound and pictures",
    "cvssp_fusion": "(f) CVSSP fusion, sound only",
    "cvssp_gated_crnn": "(g) CVSSP gated CRNN, sound only",
    "synchronous": "synchronous: one proposal a second (ours)",
    "class frequency": "class frequencies alone (guessing)",
}
MISSING = "not measured"
SCORES = {"f1": "F1", "precision": "precision", "recall": "recall"}
HALF_UNIT = 0.05  # percent; the paper prints one decimal


@dataclass(frozen=True)
class Committed:
    """Results that were measured once and are kept with the book; what is not there is None or missing."""

    cvssp: Results | None  # (f) and (g) on the demo world
    paired: Results | None  # all systems on real recordings, means over seeds
    gaps: tuple[Results, ...]  # one demo world a planted gap, the smallest first, "never" last

    @property
    def there(self) -> list[Results]:
        return [one for one in (self.cvssp, self.paired, *self.gaps) if one is not None]


def committed() -> Committed:
    """The committed results of this chapter, by what was measured."""
    table = read(folders=(COMMITTED,)).table
    found: dict[str, list[Results]] = {"cvssp": [], "paired": [], "gap": []}
    for _, rows in table[table["chapter"] == CHAPTER].groupby("run", sort=False):
        one = Results(rows)
        if (what := _parameters(one).get("measured")) in found:
            found[what].append(one)
    gaps = sorted(found["gap"], key=lambda one: (isinstance(gap_of(one), str), gap_of(one)))
    return Committed(next(iter(found["cvssp"]), None), next(iter(found["paired"]), None), tuple(gaps))


def gap_of(results: Results) -> float | str:
    """The gap that was asked for, s, or ``"never"``."""
    return _parameters(results)["gap"]


def measured(results: Results | None) -> TypeGuard[Results]:
    """Whether there is anything to show; else a note says why not."""
    if results is None:
        show_note("Not measured: no such results are kept with this book.")
    elif _parameters(results).get("dry"):
        show_note("A dry run: two training steps on a few clips, to see that everything runs. It has no results.")
    elif "micro_f1" not in set(results.table["metric"]):
        show_note(NOT_TRAINED)
    else:
        return True
    return False


def held_out(results: Results) -> str:
    """The split that chose nothing: the last one that was scored."""
    scored = set(results.select(metric="micro_f1")["split"])
    return [split for split in SPLITS if split in scored][-1]


def number(found: Sequence[Results], system: str, metric: str, label: str = "") -> Interval | None:
    """A number on held-out clips, of the first results that have it."""
    for one in found:
        if len(one.select(system=system, metric=metric, split=held_out(one), label=label)):
            return one.number(system, metric, held_out(one), label)
    return None


def cell(found: Sequence[Results], system: str, metric: str, label: str = "", signed: bool = False) -> str:
    """The same in percent, for a table."""
    known = number(found, system, metric, label)
    return MISSING if known is None else percent(known, signed)


def beside(results: Results, cvssp: Results | None) -> list[Results]:
    """This run's results, and those of (f) and (g) where they were measured on the same corpus and profile."""
    here = results.passport()
    fits = cvssp is not None and all(cvssp.passport()[name] == here[name] for name in ("corpus", "profile"))
    return [results, cvssp] if cvssp is not None and fits else [results]


def verdict(lead: Interval) -> str:
    """The rule, fixed beforehand: a 95 % interval wholly above zero is ahead, wholly below it behind."""
    if lead.low > 0:
        return "ahead: the interval lies above zero"
    return "behind: the interval lies below zero" if lead.high < 0 else "undecided: the interval holds zero"


def judged(lead: Interval | None) -> str:
    """A difference in points with the verdict's first word, for a table."""
    return MISSING if lead is None else f"{percent(lead, signed=True)} {verdict(lead).partition(':')[0]}"


def settings_table(profile: str) -> None:
    """Where this run's settings differ from the paper's profile."""
    here, paper = (pd.json_normalize(PROFILES[name].values(), sep=": ").iloc[0] for name in (profile, "paper"))
    rows = [[name.replace("_", " "), here.get(name), paper[name]] for name in paper.index]
    rows = [[name, *map(str, values)] for name, *values in rows if str(values[0]) != str(values[1])]
    caption = f"Settings in which profile {profile} differs from profile paper; all others are the same."
    show_table(["setting", f"profile {profile}", "profile paper"], rows, caption)


def table1(results: Results, real: Results | None, cvssp: Results | None) -> None:
    """Table 1 of the paper beside ours: micro-averaged F1, precision and recall in percent."""
    if not measured(results):
        return
    ours, told = beside(results, cvssp), PAPER["table1"]
    places = [f"published, {PAPER['corpus']}", origin(results), _real(real)]
    rows = []
    for system, title in SYSTEMS.items():
        row = [title]
        row += [f"{told[system][name]:.1f}" if system in told else "–" for name in SCORES]
        for found in (ours, [real] if real else []):
            row += [cell(found, system, f"micro_{name}") for name in SCORES]
        rows.append(row)
    rules = ", ".join(sorted({rule for rule in results.table["threshold_rule"] if rule}))
    kept = f" (f) and (g) were measured once ({origin(ours[1])}) and are kept." if len(ours) > 1 else ""
    show_table(
        ["system", *(f"{title}, % ({place})" for place in places for title in SCORES.values())],
        rows,
        "Table 1. Micro-averaged F1, precision and recall in percent: published (Parekh et al. 2018, Table 1, page "
        f"{told['where']['page']}), on the {held_out(results)} clips of this run (95 % intervals over clips), and on "
        "clips of real sounds and photographs (means over seeds, 95 % intervals over seeds). They are different "
        f"corpora and cannot be compared with each other. Thresholds: {rules or 'none'}.{kept}",
        results,
    )


def f1_range(precision: float, recall: float) -> tuple[float, float]:
    """The least and the largest F1 of a precision and a recall that are printed so, all in percent.

    F1 grows with both, so the corners of what rounding hides are its bounds.
    """
    corners = [(precision + sign * HALF_UNIT, recall + sign * HALF_UNIT) for sign in (-1, 1)]
    low, high = (2 * p * r / (p + r) for p, r in corners)
    return low, high


def follows(row: dict[str, float]) -> bool:
    """Whether a printed F1 can come from the printed precision and recall: what rounding leaves open overlaps."""
    low, high = f1_range(row["precision"], row["recall"])
    return low <= row["f1"] + HALF_UNIT and high >= row["f1"] - HALF_UNIT


def published_rows() -> dict[str, dict]:
    """System -> its row of the published Table 1."""
    return {name: row for name, row in PAPER["table1"].items() if name != "where"}


def published_check() -> None:
    """Does each published F1 follow from its own precision and recall? Arithmetic on the paper's numbers alone."""
    rows = []
    for row in published_rows().values():
        p, r = row["precision"], row["recall"]
        low, high = f1_range(p, r)
        title = f"({row['letter']}) {row['name']}"
        span = f"{2 * p * r / (p + r):.2f} ({low:.2f} to {high:.2f})"
        rows.append([title, p, r, span, row["f1"], "yes" if follows(row) else "no"])
    others = ", ".join(f"({row[0][1]}): {row[-1]}" for row in rows[-2:])
    classes, told = len(PAPER["table2"]["classes"]), PAPER["data"]["classes"]["value"]
    show_table(
        ["system", "precision, %", "recall, %", "F1 from these, % (range)", "F1 as printed, %", "follows"],
        rows,
        f"Does Table 1 (page {PAPER['table1']['where']['page']}, {PAPER['corpus']}) agree with itself? F1 from the "
        "printed precision and recall, 2PR / (P + R); the range is what rounding them to one decimal allows. "
        f"{sum(row[-1] == 'yes' for row in rows)} of {len(rows)} follow; of the two of other authors, {others}. "
        f"Table 2 has {classes} classes, section 4 names {told}.",
    )


def leads_table(results: Results, real: Results | None, cvssp: Results | None) -> None:
    """How far two streams are ahead of each other system, beside the published differences."""
    if not measured(results):
        return
    ours, told = beside(results, cvssp), published_rows()
    rows = []
    for system, title in SYSTEMS.items():
        if system != "two_stream":
            theirs = f"{told['two_stream']['f1'] - told[system]['f1']:+.1f}" if system in told else "–"
            leads = [number(found, system, "micro_f1_lead") for found in (ours, [real] if real else [])]
            rows.append([title, theirs, *map(judged, leads)])
    show_table(
        [
            "two streams (a) less",
            f"points (published, {PAPER['corpus']})",
            f"points ({origin(results)})",
            f"points ({_real(real)})",
        ],
        rows,
        "How far two streams on sound and pictures are ahead in micro F1: the published differences, and ours with 95 "
        "% intervals (this run: paired bootstrap over clips; real recordings: over seeds). Ahead: the whole interval "
        "lies above zero; behind: below; else undecided.",
        results,
    )


def table2(results: Results | None, cvssp: Results | None = None) -> None:
    """Table 2 of the paper beside ours: F1 of each class in percent."""
    if not measured(results):
        return
    ours, told = beside(results, cvssp), PAPER["table2"]
    rows = []
    for label in results.select(system="two_stream", metric="class_f1", split=held_out(results))["label"]:
        theirs = [f"{value:.1f}" for value in told["classes"].get(label, {}).get("f1", [])]
        mine = [cell(ours, system, "class_f1", label) for system in told["systems"]]
        rows.append([label, *(theirs or ["–"] * len(mine)), *mine])
    heads = [SYSTEMS[system] for system in told["systems"]]
    show_table(
        ["F1, %", *(f"{head} (published)" for head in heads), *(f"{head} ({origin(results)})" for head in heads)],
        rows,
        f"Table 2. F1 of each class in percent: published (Parekh et al. 2018, Table 2, page {told['where']['page']}, "
        f"{PAPER['corpus']}) and measured here ({origin(results)}) with 95 % intervals, each class by itself.",
        results,
    )


def passports(results: Results, kept: Committed) -> None:
    """Where all numbers of the chapter come from."""
    for one in (results, *kept.there):
        show_passport(one)


def _real(real: Results | None) -> str:
    return f"real recordings: {origin(real) if real else MISSING}"


def _parameters(results: Results) -> dict:
    return json.loads(results.passport()["parameters"])
