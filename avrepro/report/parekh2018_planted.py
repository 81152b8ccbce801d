"""What planted truth tells of the systems of Parekh et al. (2018): where they point, and what a gap in time does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib import pyplot

from avrepro.evaluation.intervals import Interval
from avrepro.report import origin, percent, show_figure, show_note, show_table
from avrepro.report.parekh2018 import SYSTEMS, cell, gap_of, held_out, judged, measured, number
from avrepro.results import Results

MEASURES = {
    "sound_ap": "sound: average precision",
    "sound_pointing": "sound: pointing",
    "sight_overlap": "sight: overlap",
    "sight_pointing": "sight: pointing",
}
LOCATED = ("two_stream", "one_stream", "audio_only", "video_only", "wsddn")
DEAF, BLIND = ("video_only", "wsddn"), ("audio_only",)
OF_GAPS = ("two_stream", "synchronous", "audio_only")
CHANCE = "chance"
BLUE, ORANGE, GREEN = sns.color_palette("colorblind")[:3]
STYLES: dict[str, dict[str, Any]] = {
    "two_stream": {"color": BLUE, "marker": "o"},
    "one_stream": {"color": ORANGE, "marker": "s"},
    "synchronous": {"color": ORANGE, "marker": "s"},
    "audio_only": {"color": GREEN, "marker": "^"},
    CHANCE: {"color": "0.4", "marker": "|"},
}


def planted(results: Results) -> bool:
    """Whether this run has planted truth to measure against; else a note says that it has not."""
    if not measured(results):
        return False
    if len(results.select(metric="sound_ap")):
        return True
    show_note(f"Not measured: only the demo world knows what was planted, not {results.passport()['corpus']}.")
    return False


def localisation_tables(results: Results) -> None:
    """Where systems point, against what was planted; gains over chance; leads of two streams."""
    if not planted(results):
        return
    split = held_out(results)
    reachable = percent(results.number("proposals", "sight_reachable", split))
    told = (
        "Where the systems point, against what was planted, in percent. Sound: average precision over the segments of "
        "all clips, mean over classes; pointing: the share of sounding classes whose highest segment lies in their "
        "sound. Sight: of the sounding classes whose source is in view, the share whose highest region overlaps a true "
        f"box (IoU at least 0.5), and the share whose centre lies in one. In {reachable} % some region overlaps so "
        "much: nothing that chooses among regions can have more."
    )
    for suffix, systems, unit, caption in (
        ("", (*LOCATED, CHANCE), "%", told),
        ("_gain", LOCATED, "points", "The same less chance, a proposal at random, in points."),
        ("_lead", LOCATED[1:], "points", "How far two streams on sound and pictures are ahead, in points."),
    ):
        show_table(
            [f"{split} clips, {origin(results)}", *(f"{name}, {unit}" for name in MEASURES.values())],
            [
                [SYSTEMS.get(system, CHANCE), *(_where(results, system, metric, suffix) for metric in MEASURES)]
                for system in systems
            ],
            f"{caption} 95 % intervals, bootstrap over clips.",
            results,
        )


def _where(results: Results, system: str, metric: str, suffix: str) -> str:
    if system in (DEAF if metric.startswith("sound") else BLIND):
        return "–"
    if suffix:
        return judged(number([results], system, metric + suffix))
    return cell([results], system, metric)


def sounds_figure(results: Results) -> None:
    """When a class sounds, class by class: average precision and pointing of two streams, of one, and of chance."""
    if not planted(results):
        return
    labels = [label for label in results.select(system="two_stream", metric="sound_ap")["label"] if label]
    titles = {"two_stream": "two streams", "one_stream": "one stream", CHANCE: "chance"}
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 0.32 * len(labels) + 1.4), sharey=True)
    for panel, metric in zip(panels, ("sound_ap", "sound_pointing"), strict=True):
        for shift, (system, title) in zip((-0.15, 0.15, 0), titles.items(), strict=True):
            known = [number([results], system, metric, label) for label in labels]
            there = [(k + shift, one) for k, one in enumerate(known) if one is not None]
            values, errors = _bars([one for _, one in there])
            places = [place for place, _ in there]
            panel.errorbar(values, places, xerr=errors, linestyle="none", elinewidth=0.8, label=title, **STYLES[system])
        panel.set(xlabel=f"{MEASURES[metric]}, %", xlim=(-2, 102))
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].invert_yaxis()
    panels[1].legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, fontsize=8)
    by_class = {
        system: [number([results], system, "sound_ap", label) for label in labels] for system in ("two_stream", CHANCE)
    }
    pairs = zip(labels, *by_class.values(), strict=True)
    above = [label for label, one, chance in pairs if one and chance and one.value > chance.value]
    show_figure(
        figure,
        f"When a class sounds, by class, {held_out(results)} clips ({origin(results)}). Left: average precision over "
        "all segments; its chance is the share of segments that lie in a sound of the class. Right: share of sounding "
        "clips whose highest segment lies in the sound. Lines are 95 % intervals, where there are any.",
        f"Two dot charts of {len(labels)} classes; by average precision two streams are above chance in {len(above)}: "
        f"{', '.join(above) or 'none'}.",
        results,
    )


def recall_table(results: Results) -> None:
    """Recall by the planted gap between hearing and seeing, in this run."""
    if not planted(results):
        return
    split = held_out(results)
    rows = []
    for label in results.select(system="corpus", metric="events", split=split)["label"]:
        events = results.number("corpus", "events", split, label).value
        rows.append([label, f"{events:.0f}", *(cell([results], system, "recall", label) for system in OF_GAPS)])
    show_table(
        ["from hearing to seeing", "events", *(f"recall, {SYSTEMS[system]}, %" for system in OF_GAPS)],
        rows,
        f"Recall of events by how far apart they are heard and seen, {split} clips of this run ({origin(results)}), in "
        "percent with 95 % intervals, bootstrap over clips.",
        results,
    )


def gap_name(results: Results) -> str:
    """The gap that was asked for: ``4 s``, or ``never``."""
    gap = gap_of(results)
    return gap if isinstance(gap, str) else f"{gap:g} s"


def gap_figure(gaps: Sequence[Results]) -> None:
    """Micro F1 as the planted gap between hearing and seeing grows."""
    if not gaps:
        show_note("Not measured: no results by planted gap are kept with this book.")
        return
    figure, axes = pyplot.subplots(figsize=(8, 4.4))
    told = []
    for shift, system in zip((0, 0.06, -0.06), OF_GAPS, strict=True):
        known = [number([one], system, "micro_f1") for one in gaps]
        there = [(k + shift, one) for k, one in enumerate(known) if one is not None]
        values, errors = _bars([one for _, one in there])
        places = [place for place, _ in there]
        axes.errorbar(places, values, yerr=errors, linestyle="none", capsize=3, label=SYSTEMS[system], **STYLES[system])
        growing = sum(not isinstance(gap_of(gaps[round(place)]), str) for place in places)  # "never" is no larger gap
        axes.plot(places[:growing], values[:growing], color=STYLES[system]["color"])
        told.append(f"{SYSTEMS[system]}: {', '.join(f'{value:.0f}' for value in values)}")
    axes.set_xticks(range(len(gaps)), [gap_name(one) for one in gaps])
    axes.set(xlabel="planted gap between hearing and seeing", ylabel="micro F1, %", title=origin(gaps[0]))
    axes.legend()
    show_figure(
        figure,
        f"Micro F1 (%) on {held_out(gaps[0])} clips as the planted gap grows ({origin(gaps[0])}): for each gap a demo "
        "world of its own, in which the systems are trained and tested; never: no source is seen. Bars are 95 % "
        "intervals, bootstrap over clips.",
        f"Line chart of micro F1 in percent at gaps {', '.join(map(gap_name, gaps))}. {'; '.join(told)}.",
        gaps[0],
    )


def gap_table(gaps: Sequence[Results]) -> None:
    """The numbers of the figure, and how far two streams are ahead at each gap."""
    if not gaps:
        return
    rows = []
    for one in gaps:
        planted_gaps = one.select(system="corpus", metric="planted_gap")["value"].dropna()
        mean = "–" if planted_gaps.empty else f"{planted_gaps.iloc[0]:.1f}"
        scores = [cell([one], system, "micro_f1") for system in OF_GAPS]
        leads = [judged(number([one], system, "micro_f1_lead")) for system in OF_GAPS[1:]]
        rows.append([gap_name(one), mean, *scores, *leads])
    head = ["gap asked for", "gap planted, s (mean)", *(f"micro F1, {SYSTEMS[system]}, %" for system in OF_GAPS)]
    show_table(
        [*head, "two streams less synchronous, points", "two streams less sound only, points"],
        rows,
        f"Micro F1 and the leads of two streams by planted gap, {held_out(gaps[0])} clips ({origin(gaps[0])}); 95 % "
        "intervals, bootstrap over clips, paired for the leads.",
        gaps[0],
    )


def _bars(known: Sequence[Interval]) -> tuple[np.ndarray, np.ndarray]:
    """Values in percent, float [n], and how far their intervals reach down and up, [2, n]; 0 where there are none."""
    numbers = 100 * np.array([[one.value, one.low, one.high] for one in known]).reshape(-1, 3)
    values = numbers[:, 0]
    return values, np.nan_to_num(np.stack([values - numbers[:, 1], numbers[:, 2] - values])).clip(min=0)
