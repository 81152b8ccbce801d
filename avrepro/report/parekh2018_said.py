"""The numbers that the sentences of the chapter on Parekh et al. (2018) use; every judgement follows a stated rule."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from avrepro.evaluation.intervals import Interval
from avrepro.report import origin, percent, say
from avrepro.report.parekh2018 import (
    PAPER,
    SYSTEMS,
    Committed,
    beside,
    follows,
    held_out,
    measured,
    number,
    published_rows,
    verdict,
)
from avrepro.report.parekh2018_planted import CHANCE, MEASURES, gap_name
from avrepro.results import Results

OTHERS = [system for system in SYSTEMS if system not in ("two_stream", "class frequency")]


def say_numbers(results: Results, kept: Committed) -> None:
    """Name the numbers that the chapter's sentences use."""
    if not measured(results):
        return
    ours = beside(results, kept.cvssp)
    for name, text in {**_scores(ours), **_classes(ours), **_located(results)}.items():
        say(name, text, results)
    if kept.paired is not None:
        seeds = len(json.loads(kept.paired.passport()["parameters"])["seeds"])
        for name, text in {**_scores([kept.paired]), "origin": f"{origin(kept.paired)}, {seeds} seeds"}.items():
            say(f"real_{name}", text, kept.paired)
    if kept.gaps:
        for name, text in _gaps(kept.gaps).items():
            say(name, text, kept.gaps[0])


def tally(leads: Sequence[tuple[str, Interval]]) -> str:
    """How many of the named leads are ahead, behind, undecided, and which."""
    parts = []
    for word in ("ahead", "behind", "undecided"):
        names = [name for name, lead in leads if verdict(lead).startswith(word)]
        which = f" ({', '.join(names)})" if names else ""
        parts.append(f"{word}: {len(names)} of {len(leads)}{which}")
    return "; ".join(parts)


def growth(first: Interval, last: Interval) -> str:
    """Whether a lead grew from one world to another; the rule, fixed beforehand: their intervals lie apart."""
    if last.low > first.high:
        return "it grows: the intervals lie apart"
    return "it shrinks: the intervals lie apart" if last.high < first.low else "undecided: the intervals overlap"


def _known(found: Sequence[Results], system: str, metric: str) -> Interval | None:
    """As ``number``, and None where there was nothing to measure on, as in a test set of a few clips."""
    one = number(found, system, metric)
    return None if one is None or math.isnan(one.value) else one


def _scores(found: Sequence[Results]) -> dict[str, str]:
    """F1 of every system, the leads of two streams, and all verdicts together."""
    texts = {"origin": origin(found[0])}
    leads = []
    for system in SYSTEMS:
        f1, lead = (_known(found, system, metric) for metric in ("micro_f1", "micro_f1_lead"))
        if f1 is not None:
            texts[f"f1_{system.replace(' ', '_')}"] = percent(f1)
        if lead is not None and system in OTHERS:
            texts[f"lead_{system}"] = f"{percent(lead, signed=True)} points, {verdict(lead)}"
            leads.append((SYSTEMS[system].partition(" ")[0].strip("():"), lead))
    return {**texts, "leads": tally(leads)}


def _classes(found: Sequence[Results]) -> dict[str, str]:
    """Claims about classes, counted in the paper's Table 2 and here."""
    rows = found[0].select(system="two_stream", metric="class_f1", split=held_out(found[0]))["label"]
    told = PAPER["table2"]
    here: dict[str, dict[str, float]] = {}
    for label in rows:
        known = {system: number(found, system, "class_f1", label) for system in told["systems"]}
        here[label] = {system: one.value for system, one in known.items() if one is not None}
    there = {label: dict(zip(told["systems"], row["f1"], strict=True)) for label, row in told["classes"].items()}
    texts = {"published_follow": f"{sum(map(follows, published_rows().values()))} of {len(published_rows())}"}
    for name, classes in (("", here), ("published_", there)):
        kinds = {
            kind: {label: f1 for label, f1 in classes.items() if told["classes"].get(label, {}).get("kind") == kind}
            for kind in ("vehicle", "warning")
        }
        texts[f"{name}both_best"] = _count(classes, "two_stream", "audio_only", "video_only")
        texts[f"{name}vehicles_seen"] = _count(kinds["vehicle"], "video_only", "audio_only")
        texts[f"{name}warnings_heard"] = _count(kinds["warning"], "audio_only", "video_only")
        trained = all("cvssp_fusion" in f1 for f1 in classes.values())  # they are not in a chapter's own run
        texts[f"{name}warnings_cvssp"] = (
            _count(kinds["warning"], "cvssp_fusion", "two_stream") if trained else "not measured"
        )
    return texts


def _count(classes: dict[str, dict[str, float]], system: str, *others: str) -> str:
    """In how many classes a system has a higher F1 than all others named."""
    higher = [all(f1[system] > f1[other] for other in others) for f1 in classes.values()]
    return f"{sum(higher)} of {len(higher)}"


def _located(results: Results) -> dict[str, str]:
    """Bags, and where two streams point, where that was planted."""
    texts = {
        name: f"{results.number('corpus', name).value:.0f}"
        for name in ("regions_per_clip", "segments_per_clip")
    }  # fmt: skip
    for metric in MEASURES:
        found, chance, gain, lead = (
            _known([results], system, metric + suffix)
            for system, suffix in (("two_stream", ""), (CHANCE, ""), ("two_stream", "_gain"), ("one_stream", "_lead"))
        )
        if found and chance and gain and lead:
            texts[metric] = f"{percent(found)} % (chance: {percent(chance.value)} %)"
            texts[f"{metric}_gain"] = f"{percent(gain, signed=True)} points, {verdict(gain)}"
            texts[f"{metric}_lead"] = f"{percent(lead, signed=True)} points, {verdict(lead)}"
    if reachable := _known([results], "proposals", "sight_reachable"):
        texts["sight_reachable"] = percent(reachable)
    return texts


def _gaps(gaps: Sequence[Results]) -> dict[str, str]:
    """The leads of two streams over the synchronous baseline by planted gap, and whether they grow."""
    known = [(one, _known([one], "synchronous", "micro_f1_lead")) for one in gaps]
    leads = [(gap_name(one), lead) for one, lead in known if lead is not None]
    texts = {"gap_origin": origin(gaps[0])}
    if leads:
        texts["gap_leads"] = tally(leads)
    seen = [(name, lead) for name, lead in leads if name != "never"]
    if len(seen) > 1:
        (first, low), (last, high) = seen[0], seen[-1]
        change = f"{percent(low, signed=True)} at {first}, {percent(high, signed=True)} at {last}"
        texts["gap_growth"] = f"{change}: {growth(low, high)}"
    return texts
