"""Tables of the chapter ``side_by_side`` beside its verdicts: systems on one protocol, classes, what is impaired."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeGuard

from avrepro.evaluation.intervals import Interval
from avrepro.report import percent, show_note
from avrepro.report.fayek2020 import plain
from avrepro.report.side_by_side import DATA, METRICS, PAPERS, described, points, system_name
from avrepro.report.side_by_side_evidence import NOT_MEASURED, Evidence, Measured, number, place
from avrepro.report.sortable import MISSING, Cell, show_sortable


class Column(NamedTuple):
    """A column of the table of all systems."""

    head: str
    metric: str
    split: str
    text: Callable[[Interval], str]


def _times(scale: float, style: str) -> Callable[[Interval], str]:
    return lambda one: format(scale * one.value, style)


SCORES = (
    Column("micro F1, %", "micro_f1", "test", percent),
    Column("macro F1, %", "macro_f1", "test", percent),
    Column("mAP, %", "map", "test", percent),
    Column("mAUC, %", "mauc", "test", percent),
    Column("d'", "d_prime", "test", plain),
    Column("calibration error, %", "calibration_error", "test", percent),
)
COSTS = (
    Column("parameters", "parameters", "", _times(1, ",.0f")),
    Column("multiply-accumulates a clip, millions", "macs", "", _times(1e-6, ",.1f")),
    Column("training, s", "training_seconds", "", _times(1, ",.1f")),
    Column("inference, ms a clip", "inference_seconds", "", _times(1e3, ",.2f")),
    Column("peak memory, MB", "peak_memory_mb", "", _times(1, ",.0f")),
    Column("energy of training, kJ", "energy_joules", "", _times(1e-3, ",.1f")),
)
IMPAIRED = ("silent", "black", "delay 1 s", "delay 3 s", "delay 5 s")
ROUNDED = 0.0005  # half of the last digit of points that is shown
JUDGED = ("micro_f1", "map")  # what robustness, noise and learning curves are measured by


def there(results: Measured | None, what: str) -> TypeGuard[Measured]:
    """Whether there is anything to show; else a note says that there is not."""
    if results is None:
        show_note(f"Not measured: {what}. No such results are kept with this book.")
    return results is not None


def systems_of(results: Measured, metric: str) -> list[str]:
    """The systems that have a number of this metric, paper by paper."""
    found = dict.fromkeys(system for system, one, _, _ in results.numbers if one == metric and "/" in system)
    return sorted(found, key=lambda name: list(PAPERS).index(name.partition("/")[0]))


def protocol_table(evidence: Evidence, corpus: str) -> None:
    """Every system on the same clips, splits, thresholds and metrics of a corpus, with what it costs."""
    results = evidence.run(corpus)
    if not there(results, f"all systems on {DATA[corpus]} ({corpus})"):
        return
    columns = [one for one in (*SCORES, *COSTS) if len(results.select(metric=one.metric))]
    metrics = {one.metric for one in columns}
    costs = (
        " Parameters are those trained, and training is theirs alone: features are at hand, and a fusion takes "
        "as long as what it joins. Multiply-accumulates and inference are of one clip with the frozen networks, from "
        "its sound and pictures to its scores, inference with their decoding, on the processor. Memory is the most "
        "that the process took in which its family was trained. –: not measured."
    )
    if not metrics & {one.metric for one in COSTS}:
        costs = " Costs: not measured."
    elif "training_seconds" in metrics and "energy_joules" not in metrics:
        costs += " Energy: not readable on this machine."
    rows = []
    for system in systems_of(results, "micro_f1"):
        row: list[Cell | str] = [described(system), PAPERS[system.partition("/")[0]]]
        for column in columns:
            one = number(results, system, column.metric, split=column.split)
            row.append(MISSING if one is None else Cell(column.text(one), one.value))
        rows.append(row)
    show_sortable(
        ["system", "from", *(column.head for column in columns)],
        rows,
        f"All systems on one protocol: {DATA[corpus]} ({place(results)}), test clips; means over seeds with "
        f"{100 * evidence.rule.level:g} % intervals. Thresholds were chosen on validation clips, class by class but "
        "where the system says otherwise; systems that differ by them alone have no other numbers of their own."
        f"{costs}",
        results,
    )


def classes_table(evidence: Evidence, *names: str) -> None:
    """The named claims class by class: differences at a level that is corrected for the number of classes."""
    corpora = [corpus for corpus in ("paired", "demo") if evidence.run(corpus) is not None]
    if not corpora:
        there(None, "differences class by class")
        return
    columns = {(name, corpus): differences(evidence, corpus, name) for name in names for corpus in corpora}
    labels = list(dict.fromkeys(label for found in columns.values() for label in found))
    rows: list[list[Cell | str]] = []
    for label in labels:
        ours = [found.get(label) for found in columns.values()]
        cells = [MISSING if one is None else Cell(f"{points(one)} {side(one)}", one.value) for one in ours]
        rows.append([label, *cells])
    told = [f"{system_pair(evidence, name)}, {corpus}: {sides(found)}" for (name, corpus), found in columns.items()]
    level = evidence.rule.level
    sizes = sorted({len(found) for found in columns.values() if found})
    corrected = " and ".join(f"{100 * (1 - (1 - level) / size):.2f} % ({size} classes)" for size in sizes)
    show_sortable(
        [
            "class",
            *(f"{system_pair(evidence, name)}, {_of_class(evidence, name)} ({place(evidence.run(corpus))})"
              for name, corpus in columns),
        ],
        rows,
        f"Class by class on test clips: differences in percentage points, with intervals at {corrected}, so that all "
        f"classes together err no more often than one interval at {100 * level:g} % (Bonferroni). Better: the whole "
        f"interval lies above zero; worse: below. Counted: {'; '.join(told)}.",
        evidence.run(corpora[0]),
    )  # fmt: skip


def differences(evidence: Evidence, corpus: str, claim: str) -> dict[str, Interval]:
    """Class -> difference with corrected interval; classes with nothing to measure on are left out."""
    results = evidence.run(corpus)
    found = results.numbers if results is not None else {}
    return {
        label: one for (name, metric, _, label), one in found.items() if (name, metric) == (claim, "class_difference")
    }


def side(one: Interval) -> str:
    """Better, worse or undecided."""
    return "better" if one.low > 0 else "worse" if one.high < 0 else "undecided"


def sides(found: Mapping[str, Interval]) -> str:
    """How many classes are better and worse: ``better in 3 of 17, worse in 0``."""
    if not found:
        return NOT_MEASURED
    words = [side(one) for one in found.values()]
    return f"better in {words.count('better')} of {len(words)}, worse in {words.count('worse')}"


def system_pair(evidence: Evidence, claim: str) -> str:
    """The two systems of a claim: ``fused (Li et al.) less audio (Li et al.)``."""
    one = evidence.claims[claim]
    return f"{system_name(one.system)} less {system_name(one.against)}"


def robustness_table(evidence: Evidence) -> None:
    """What systems lose where a modality is missing or late at test time: a table a metric."""
    results = evidence.run("demo", "robustness")
    if not there(results, "missing and late modalities"):
        return
    whole = evidence.run("demo")
    labels = [label for label in IMPAIRED if len(results.select(label=label))]
    for metric in JUDGED:
        rows = []
        for system in systems_of(results, f"{metric}_loss"):
            score = number(whole, system, metric)
            row: list[Cell | str] = [system_name(system)]
            row.append(MISSING if score is None else Cell(percent(score), score.value))
            for label in labels:
                loss = number(results, system, f"{metric}_loss", label)
                row.append(MISSING if loss is None else Cell(f"{points(loss)} {_loses(loss)}", loss.value))
            rows.append(row)
        show_sortable(
            [f"{METRICS[metric]}, test clips", f"whole, % ({place(whole)})", *(f"lost, {label}" for label in labels)],
            rows,
            f"What is lost in {METRICS[metric]} ({place(results)}) where every test clip falls silent, is black, or "
            "shows its pictures late by some seconds; no system was taught that this can happen. Percentage points, "
            f"whole less impaired, with paired {100 * evidence.rule.level:g} % intervals. Loses: the whole interval is "
            "above zero; gains: below; same: all of it rounds to 0.0; –: not measured, as it does not matter "
            "to the system when a picture is shown.",
            results,
        )


def beyond_table(evidence: Evidence) -> None:
    """What goes beyond the papers, against the best system of each."""
    corpora = [corpus for corpus in ("demo", "paired") if evidence.run(corpus) is not None]
    if not corpora:
        there(None, "systems beyond the papers")
        return
    for corpus in corpora:
        results = evidence.run(corpus)
        assert results is not None
        rivals = best_of_papers(results)
        ours = [name for name in systems_of(results, "map") if name.startswith("beyond/")]
        rows = []
        for system in [*ours, *rivals.values()]:
            row: list[Cell | str] = [system_name(system), PAPERS[system.partition("/")[0]]]
            for metric in ("map", "micro_f1"):
                one = number(results, system, metric)
                row.append(MISSING if one is None else Cell(percent(one), one.value))
            for mine in ours:
                lead = None if system == mine else number(results, mine, "map_lead", system)
                row.append(MISSING if lead is None else Cell(f"{points(lead)} {ahead(lead)}", lead.value))
            rows.append(row)
        show_sortable(
            ["system", "from", "mAP, %", "micro F1, %", *(f"{system_name(one)} less this one, mAP" for one in ours)],
            rows,
            f"Beyond the papers: {DATA[corpus]} ({place(results)}), test clips. With the best system of each paper's "
            "chapter, the one with the highest mAP on these very clips, which flatters it. "
            f"{100 * evidence.rule.level:g} % intervals; differences in percentage points, paired. Ahead: the whole "
            "interval lies above zero; behind: below. –: not measured.",
            results,
        )


def best_of_papers(results: Measured) -> dict[str, str]:
    """Paper -> the system of its chapter with the highest mAP on the test clips."""
    found: dict[str, str] = {}
    for paper in ("li2017", "parekh2018", "fayek2020"):
        scores = {
            system: one.value
            for system in systems_of(results, "map")
            if system.startswith(f"{paper}/") and (one := number(results, system, "map")) is not None
        }
        if scores:
            found[paper] = max(scores, key=scores.__getitem__)
    return found


def ahead(lead: Interval) -> str:
    """Ahead, behind or undecided."""
    return {"better": "ahead", "worse": "behind"}.get(side(lead), "undecided")


def _loses(loss: Interval) -> str:
    if max(abs(loss.low), abs(loss.high)) < ROUNDED:
        return "same"
    return {"better": "loses", "worse": "gains"}.get(side(loss), "undecided")


def _of_class(evidence: Evidence, claim: str) -> str:
    metric = evidence.claims[claim].metric
    return "points of average precision" if metric in ("map", "average_precision") else "points of class F1"
