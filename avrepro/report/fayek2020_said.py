"""The numbers that the sentences of the chapter on Fayek and Kumar (2020) use; every judgement follows a stated rule.

Every name is always said: what a run cannot know reads ``not measured``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from avrepro.evaluation.intervals import Interval
from avrepro.report import origin, percent, say
from avrepro.report.fayek2020 import (
    ABLATIONS,
    FUSIONS,
    MISSING,
    OTHERS,
    ROWS,
    SYSTEMS,
    Committed,
    beside,
    held_out,
    known,
    measured,
    plain,
    seeds,
)
from avrepro.report.fayek2020_figures import COUNTS, counts, published_counts
from avrepro.report.fayek2020_planted import FOLLOWS, LOSES, PLANTED, RELIANCES, SHIFTS, weight, worded
from avrepro.report.fayek2020_published import summary
from avrepro.report.fayek2020_training import generations, sizes_of
from avrepro.report.parekh2018 import verdict
from avrepro.report.parekh2018_said import tally
from avrepro.results import Results

BEARS = [*FUSIONS, "gblend"]  # systems that can miss one of two modalities


def say_numbers(results: Results, null: Results | None, kept: Committed) -> None:
    """Name the numbers that the chapter's sentences use."""
    if not measured(results):
        return
    ours, real = beside(results, kept.others), kept.paired
    texts = {
        "origin": origin(results),
        "published_follow": summary(),
        **{f"published_{name}": text for name, text in published_counts().items()},
        **_of_fusions(ours, results),
        **_planted(results),
        **_null(results, null if null is not None and "map" in set(null.table["metric"]) else None),
    }
    _say(texts, results)
    _say({f"others_{name}": text for name, text in _others(kept.others).items()}, kept.others or results)
    of_real = {"origin": f"{origin(real)}, {seeds(real)} seeds" if real else MISSING}
    of_real |= _of_fusions([real] if real else [], real)
    _say({f"real_{name}": text for name, text in of_real.items()}, real or results)
    _say({f"simulated_{name}": text for name, text in _simulated(kept.simulated).items()}, kept.simulated or results)


def _say(texts: dict[str, str], results: Results) -> None:
    for name, text in texts.items():
        say(name, text, results)


def _of_fusions(found: Sequence[Results], results: Results | None) -> dict[str, str]:
    """Scores, leads, counts of classes, what a missing modality costs, the mean weight."""
    texts = {}
    for system in SYSTEMS:
        texts[f"map_{system}"] = _percent(known(found, system, "map"))
        texts[f"mauc_{system}"] = _percent(known(found, system, "mauc"))
        texts[f"d_prime_{system}"] = _plain(known(found, system, "d_prime"))
    texts |= _leads(found)
    for what in ("scored", "left_out"):
        number = known(found, "corpus", f"classes_{what}")
        texts[f"classes_{what}"] = MISSING if number is None else f"{number.value:.0f}"
    here = counts(results) if results is not None else {}
    for name in COUNTS:
        counted = here.get(name)
        texts[name] = f"{counted[0]} of {counted[1]}" if counted else MISSING
    for system in BEARS:
        for what in ("silent", "black"):
            texts[f"{what}_map_{system}"] = _percent(known(found, system, f"map_{what}"))
            loss = known(found, system, f"map_{what}_loss")
            texts[f"{what}_loss_{system}"] = MISSING if loss is None else _points(loss, _reason(loss, LOSES))
    texts["weight"] = _plain(weight(results) if results is not None else None)
    return texts | _generations(results)


def _leads(found: Sequence[Results]) -> dict[str, str]:
    """How far attention leads each other system, and the verdicts of each of the paper's tables together."""
    leads = {system: known(found, system, "map_lead") for system in SYSTEMS if system != "attention"}
    texts = {f"lead_{name}": MISSING if one is None else _points(one, verdict(one)) for name, one in leads.items()}
    groups = {"leads": list(leads), "leads_table2": ROWS["table2"][:-1], "lead_ablations": ABLATIONS}
    for name, systems in groups.items():
        texts[name] = _tally([(SYSTEMS[system], leads[system]) for system in systems])
    return texts


def _others(others: Results | None) -> dict[str, str]:
    """The other authors' systems of Table 3 that were trained once."""
    found = [others] if others is not None else []
    leads = {system: known(found, system, "map_lead") for system in OTHERS}
    texts = {"origin": MISSING if others is None else origin(others)}
    texts |= {f"map_{system}": _percent(known(found, system, "map")) for system in OTHERS}
    texts |= {f"lead_{name}": MISSING if one is None else _points(one, verdict(one)) for name, one in leads.items()}
    return {**texts, "leads": _tally([(SYSTEMS[system], one) for system, one in leads.items()])}


def _planted(results: Results) -> dict[str, str]:
    """Rank correlations of weight and reliance with what was planted."""
    texts = {}
    for system, prefix in RELIANCES.values():
        for metric, (_, expected) in PLANTED.items():
            one = known([results], system, prefix + metric)
            name = f"{prefix}{metric.removesuffix('_correlation')}_{system}"
            texts[name] = MISSING if one is None else f"{plain(one, signed=True)}, {_reason(one, FOLLOWS, expected)}"
    return texts


def _generations(results: Results | None) -> dict[str, str]:
    """What the generations of co-supervision brought, the last less the first."""
    texts = dict.fromkeys(("generations", "generation_gain", "generation_gain_validation"), MISSING)
    if results is None:
        return texts
    for name, split in (("generation_gain", held_out(results)), ("generation_gain_validation", "validation")):
        steps = [one for one in generations(results).get(split, {}).values() if not math.isnan(one.value)]
        if steps:
            texts["generations"] = str(len(steps))
        if len(steps) > 1:
            first, last = steps[0], steps[-1]
            gain, judgement = Interval(last.value - first.value, math.nan, math.nan, ""), ""
            if len(results.select(system="audio", metric="generation_gain", split=split)):
                gain = results.number("audio", "generation_gain", split)
                judgement = f", {verdict(gain)}"
            points = f"{percent(gain, signed=True)} points, from {percent(first)} to {percent(last)} %"
            texts[name] = points + judgement
    return texts


def _null(results: Results, null: Results | None) -> dict[str, str]:
    """The world whose pictures tell nothing."""
    found = [null] if null is not None else []
    texts = {"null_origin": MISSING if null is None else origin(null)}
    for system in ("audio", "visual", "average", "attention"):
        texts[f"null_map_{system}"] = _percent(known(found, system, "map"))
    lead, moved = known(found, "audio", "map_lead"), known(found, "attention", "weight_shift")
    texts["null_lead"] = MISSING if lead is None else _points(lead, verdict(lead))
    texts["null_weight"] = _plain(weight(null) if null is not None else None)
    texts["null_weight_shift"] = MISSING if moved is None else f"{plain(moved, True)}, {_reason(moved, SHIFTS)}"
    return texts


def _simulated(simulated: Results | None) -> dict[str, str]:
    """The size of what was simulated; no scores, which would say nothing."""
    if simulated is None or "map" not in set(simulated.table["metric"]):
        return dict.fromkeys(("origin", "clips", "classes"), MISSING)
    classes = known([simulated], "corpus", "classes_scored")
    return {
        "origin": origin(simulated),
        "clips": ", ".join(f"{clips:,} {split}" for split, clips in sizes_of(simulated).items()),
        "classes": MISSING if classes is None else f"{classes.value:.0f}",
    }


def _reason(one: Interval, words: tuple[str, str, str], expected: int = 1) -> str:
    """A verdict in other words, with its reason: ``follows: the interval lies above zero``."""
    return f"{worded(one, words, expected)}: {verdict(one).partition(': ')[2]}"


def _points(one: Interval, judgement: str) -> str:
    return f"{percent(one, signed=True)} points, {judgement}"


def _percent(one: Interval | None) -> str:
    return MISSING if one is None else percent(one)


def _plain(one: Interval | None) -> str:
    return MISSING if one is None else plain(one)


def _tally(leads: Sequence[tuple[str, Interval | None]]) -> str:
    there = [(name, one) for name, one in leads if one is not None]
    return tally(there) if there else MISSING
