"""Tables of the chapter on Fayek and Kumar (2020): its Tables 2, 3 and 4 beside ours, and how far attention leads."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import pandas as pd

from avrepro.corpora.base import SPLITS
from avrepro.evaluation.intervals import Interval
from avrepro.experiments.fayek2020_profiles import PROFILES
from avrepro.report import origin, percent, published, show_note, show_passport, show_table
from avrepro.report.li2017 import NOT_TRAINED
from avrepro.report.parekh2018 import MISSING, beside, judged
from avrepro.results import COMMITTED, Results, read

CHAPTER = "attention_fusion"
PAPER = published("fayek2020")
SYSTEMS = {
    "audio": "Audio",
    "visual": "Visual",
    "average": "Average fusion",
    "regression": "Regression fusion",
    "mlp": "MLP fusion",
    "attention": "Attention fusion",
    "attention_self": "Attention, self unimodal",
    "attention_cross": "Attention, cross unimodal",
    "attention_without_na_nv": "Attention without n_a and n_v",
    "attention_without_nav": "Attention without n_av",
    "resnet_audio": "Audio, residual network (after Ford et al.)",
    "r2plus1d_visual": "Visual, (2+1)D convolutions (after Wang et al.)",
    "gblend": "Audio and visual, gradient blending (after Wang et al.)",
}
ROWS = {  # table of the paper -> systems in its order
    name: [system for system in PAPER[name] if system != "where"] for name in ("table2", "table3", "table4")
}
ABLATIONS = ROWS["table4"][:-1]
OTHERS = [system for system in ROWS["table3"] if system not in ROWS["table2"]]
FUSIONS = [*ROWS["table2"][2:], *ABLATIONS]
DIFFERENT = "They are different corpora and cannot be compared with each other."


@dataclass(frozen=True)
class Committed:
    """Results that were measured once and are kept with the book; what is not there is None."""

    others: Results | None  # the other authors' systems of Table 3, on the demo world
    paired: Results | None  # all systems on real recordings, means over seeds
    simulated: Results | None  # all fusions on simulated scores of AudioSet's size

    @property
    def there(self) -> list[Results]:
        return [one for one in (self.others, self.paired, self.simulated) if one is not None]


def committed() -> Committed:
    """The committed results of this chapter, by what was measured."""
    table = read(folders=(COMMITTED,)).table
    found: dict[str, Results] = {}
    for _, rows in table[table["chapter"] == CHAPTER].groupby("run", sort=False):
        one = Results(rows)
        found.setdefault(_parameters(one).get("measured") or "", one)
    return Committed(*(found.get(what) for what in ("others", "paired", "simulated")))


def measured(results: Results | None) -> TypeGuard[Results]:
    """Whether there is anything to show; else a note says why not."""
    if results is None:
        show_note("Not measured: no such results are kept with this book.")
    elif _parameters(results).get("dry"):
        show_note("A dry run: two training steps on a few clips, to see that everything runs. It has no results.")
    elif "map" not in set(results.table["metric"]):
        show_note(NOT_TRAINED)
    else:
        return True
    return False


def seeds(results: Results) -> int:
    """Over how many seeds the numbers are means."""
    return len(_parameters(results).get("seeds") or [0])


def held_out(results: Results) -> str:
    """The split that chose nothing: the last one that was scored."""
    scored = set(results.select(metric="map")["split"])
    return [split for split in SPLITS if split in scored][-1]


def number(found: Sequence[Results], system: str, metric: str, label: str = "", step: int = -1) -> Interval | None:
    """A number on held-out clips, of the first results that have it."""
    for one in found:
        split = held_out(one)
        rows = Results(one.select(metric=metric, system=system))
        if len(rows.select(split=split, label=label, step=step)):
            return rows.number(system, metric, split, label, step)
    return None


def known(found: Sequence[Results], system: str, metric: str, label: str = "") -> Interval | None:
    """As ``number``, and None where there was nothing to measure on, as for a class without a positive clip."""
    one = number(found, system, metric, label)
    return None if one is None or math.isnan(one.value) else one


def by_class(results: Results, system: str, metric: str) -> dict[str, Interval]:
    """A number of each class on held-out clips; classes in which it is undefined are left out."""
    rows = results.select(system=system, metric=metric, split=held_out(results))
    rows = rows[(rows["label"] != "") & rows["value"].notna()]  # once for all: there may be hundreds of classes
    numbers = zip(*(rows[name] for name in ("label", "value", "low", "high", "interval")), strict=True)
    return {str(label): Interval(value, low, high, method) for label, value, low, high, method in numbers}


def cell(found: Sequence[Results], system: str, metric: str) -> str:
    """A number for a table: fractions in percent, d' as it is."""
    one = number(found, system, metric)
    if one is None:
        return MISSING
    return plain(one) if metric == "d_prime" else percent(one)


def plain(one: Interval, signed: bool = False) -> str:
    """A number that is no fraction, with its 95 % interval where it has one: ``1.23 [1.11, 1.35]``."""
    if math.isnan(one.value):
        return "–"
    value, low, high = (f"{part:{'+' if signed else ''}.2f}" for part in (one.value, one.low, one.high))
    return value if math.isnan(one.low) else f"{value} [{low}, {high}]"


def classes_scored(results: Results) -> str:
    """How many classes a mean is over, and how many had no positive clip to be scored on."""
    scored, left_out = (known([results], "corpus", f"classes_{what}") for what in ("scored", "left_out"))
    if scored is None or left_out is None:
        return f"number of classes {MISSING}"
    return f"{scored.value:.0f} classes scored, {left_out.value:.0f} left out for want of a positive clip"


def real_place(real: Results | None) -> str:
    """Head of a column of real recordings."""
    return f"real recordings: {origin(real) if real else MISSING}"


def settings_table(profile: str) -> None:
    """Where this run's settings differ from the paper's profile."""
    here, paper = (pd.json_normalize(PROFILES[name].values(), sep=": ").iloc[0] for name in (profile, "paper"))
    names = dict.fromkeys([*paper.index, *here.index])
    rows = [[name.replace("_", " "), str(here.get(name, "–")), str(paper.get(name, "–"))] for name in names]
    rows = [row for row in rows if row[1] != row[2]]
    caption = f"Settings in which profile {profile} differs from profile paper; all others are the same."
    show_table(["setting", f"profile {profile}", "profile paper"], rows, caption)


def table2(results: Results, real: Results | None) -> None:
    """Table 2 of the paper beside ours: the two models and the fusions of what they say."""
    _scores("table2", "The two models and fusions of their outputs.", results, real, None)


def table3(results: Results, real: Results | None, others: Results | None) -> None:
    """Table 3 of the paper beside ours: other authors' systems, trained here as small ones of their kind."""
    told = "Systems after other authors are small ones of their kind, trained here; published are the authors' own."
    _scores("table3", told, results, real, others)


def table4(results: Results, real: Results | None) -> None:
    """Table 4 of the paper beside ours: attention fusion and what is left without parts of it."""
    _scores("table4", "Attention fusion and its ablations.", results, real, None)


def _scores(table: str, told: str, results: Results, real: Results | None, others: Results | None) -> None:
    """mAP, mAUC and d' of a published table's systems: published, in this run, on real recordings."""
    if not measured(results):
        return
    ours, paper = beside(results, others), PAPER[table]
    rows = []
    for system in ROWS[table]:
        row = [SYSTEMS[system], paper[system]["map"], paper[system]["mauc"]]
        for found in (ours, [real] if real else []):
            row += [cell(found, system, metric) for metric in ("map", "mauc", "d_prime")]
        rows.append(row)
    heads = [
        f"{name} ({place})" for place in (origin(results), real_place(real)) for name in ("mAP, %", "mAUC, %", "d'")
    ]
    kept = f" Those after other authors were measured once ({origin(ours[1])}) and are kept." if len(ours) > 1 else ""
    scored = f"this run: {classes_scored(results)}"
    if real:
        scored += f"; real recordings: {classes_scored(real)}"
    show_table(
        ["system", *(f"{name}, % (published, {PAPER['corpus']})" for name in ("mAP", "mAUC")), *heads],
        rows,
        f"{paper['where']['table']}. {told} Mean average precision and mean area under the ROC curve over classes: "
        f"published (Fayek and Kumar 2020, page {paper['where']['page']}, {PAPER['corpus']}), on the "
        f"{held_out(results)} clips of this run (95 % intervals over clips){_of_real(real)}. {DIFFERENT} d' is that "
        f"of the mean area; the paper prints none. Means over classes: {scored}.{kept}",
        results,
    )


def leads_table(results: Results, real: Results | None, others: Results | None) -> None:
    """How far attention fusion is ahead of each other system, beside the published differences."""
    if not measured(results):
        return
    ours, maps = beside(results, others), dict(published_maps())
    rows = []
    for system, title in SYSTEMS.items():
        if system != "attention":
            theirs = f"{float(maps['attention']) - float(maps[system]):+.2f}"
            leads = [number(found, system, "map_lead") for found in (ours, [real] if real else [])]
            rows.append([title, theirs, *map(judged, leads)])
    show_table(
        [
            "attention fusion less",
            f"points of mAP (published, {PAPER['corpus']})",
            f"points of mAP ({origin(results)})",
            f"points of mAP ({real_place(real)})",
        ],
        rows,
        "How far attention fusion is ahead in mAP: differences of the published numbers, and ours with 95 % intervals "
        f"(this run: paired bootstrap over {held_out(results)} clips; real recordings: over seeds). {DIFFERENT} "
        "Ahead: the whole interval lies above zero; behind: below; else undecided.",
        results,
    )


def published_maps() -> Iterator[tuple[str, str]]:
    """System, its published mAP in percent as printed."""
    for table in ROWS:
        for system in ROWS[table]:
            yield system, PAPER[table][system]["map"]


def passports(results: Results, null: Results | None, kept: Committed) -> None:
    """Where all numbers of the chapter come from."""
    for one in (results, *([null] if null is not None else []), *kept.there):
        show_passport(one)


def _of_real(real: Results | None) -> str:
    if real is None:
        return ""
    return f", and on clips of real sounds and photographs (means over {seeds(real)} seeds, 95 % intervals over seeds)"


def _parameters(results: Results) -> Mapping:
    return json.loads(results.passport()["parameters"])
