"""What the paper could not show: does attention follow what was planted, leave useless pictures, bear a loss?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from avrepro.evaluation.intervals import Interval
from avrepro.report import origin, percent, show_figure, show_note, show_table
from avrepro.report.fayek2020 import (
    FUSIONS,
    MISSING,
    SYSTEMS,
    by_class,
    cell,
    held_out,
    known,
    measured,
    number,
    plain,
)
from avrepro.report.fayek2020_figures import BLUE, GREY, RED
from avrepro.report.parekh2018 import judged, verdict
from avrepro.results import Results

RELIANCES = {  # row -> its system, and what stands before the metrics' names
    "Attention fusion, its learned weight of sound": ("attention", "weight_"),
    "Attention fusion, its reliance on sound": ("attention", ""),
    "MLP fusion, its reliance on sound": ("mlp", ""),
    "Regression fusion, its reliance on sound": ("regression", ""),
}
PLANTED = {  # metric -> what was planted, and which way a fusion that follows it must go
    "snr_correlation": ("signal-to-noise ratio", 1),
    "visible_correlation": ("visible share", -1),
}
FOLLOWS = ("follows", "runs against it", "undecided")
LOSES = ("loses", "gains", "undecided")
SHIFTS = ("towards sound", "towards pictures", "undecided")
STYLES = {"attention": (BLUE, "o"), "mlp": (RED, "s"), "regression": (GREY, "^")}


def worded(one: Interval, words: tuple[str, str, str], expected: int = 1) -> str:
    """The rule of ``verdict`` in other words: for an interval wholly above zero, wholly below it, and neither.

    :param expected: -1 turns above and below round.
    """
    turned = one if expected > 0 else Interval(-one.value, -one.high, -one.low, one.method)
    return dict(zip(("ahead", "behind", "undecided"), words, strict=True))[verdict(turned).partition(":")[0]]


def has(results: Results | None, metric: str, why_not: str) -> bool:
    """Whether there are numbers of this kind; else a note says why not."""
    if not measured(results):
        return False
    if len(results.select(metric=metric)):
        return True
    show_note(why_not)
    return False


def planted(results: Results | None) -> bool:
    """Whether this run has planted truth to measure against; else a note says that it has not."""
    corpus = results.passport()["corpus"] if results is not None else ""
    return has(results, "snr_correlation", f"Not measured: only the demo world knows what was planted, not {corpus}.")


def planted_table(results: Results) -> None:
    """Rank correlations of what each fusion relies on with what was planted in each clip."""
    if not planted(results):
        return
    rows = []
    for title, (system, prefix) in RELIANCES.items():
        row = [title]
        for metric, (_, expected) in PLANTED.items():
            one = known([results], system, prefix + metric)
            row.append(MISSING if one is None else f"{plain(one, signed=True)} {worded(one, FOLLOWS, expected)}")
        rows.append(row)
    show_table(
        [
            f"{held_out(results)} clips, {origin(results)}",
            *(f"correlation with {name}" for name, _ in PLANTED.values()),
        ],
        rows,
        "Does a fusion rely on sound where sound is good, and on pictures where the source is in view? Spearman "
        "correlation, over the clips in which a class sounds, with the planted signal-to-noise ratio (dB) and the "
        "planted share of the time that the source is visible; mean over classes, 95 % intervals over clips. A fusion "
        "follows the first if the whole interval lies above zero, and the second if it lies below: the more there is "
        "to see, the less it must rely on sound. It runs against it where the interval lies on the other side; else "
        "undecided. Only attention has a weight. Reliance is measured alike for all three: the share of sound in the "
        "gradient of a class's output; in a linear fusion it is the same for all clips, and follows nothing.",
        results,
    )


def planted_figure(results: Results) -> None:
    """The same class by class: what attention, the MLP and the regression rely on."""
    if not planted(results):
        return
    labels = list(by_class(results, "attention", "snr_correlation"))
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 0.34 * len(labels) + 1.5), sharey=True)
    told = []
    for panel, (metric, (name, expected)) in zip(panels, PLANTED.items(), strict=True):
        draw_correlations(panel, results, metric, labels)
        for system in STYLES:
            values = [expected * one.value for one in by_class(results, system, metric).values()]
            told.append(f"{SYSTEMS[system]}, {name}: {sum(value > 0 for value in values)} of {len(values)}")
        side = "right" if expected > 0 else "left"
        panel.set(xlabel=f"correlation with {name} (follows: {side} of 0)", xlim=(-1.05, 1.05))
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].invert_yaxis()
    panels[1].legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, fontsize=8)
    show_figure(
        figure,
        "Reliance on sound and what was planted, by class: Spearman correlation over the "
        f"{held_out(results)} clips in which the class sounds ({origin(results)}), left with the signal-to-noise "
        "ratio, right with the visible share. Lines are 95 % intervals, where there are any.",
        f"Two dot charts of {len(labels)} classes. Classes whose correlation lies on the side that follows: "
        f"{'; '.join(told)}.",
        results,
    )


def draw_correlations(axes: Axes, results: Results, metric: str, labels: Sequence[str]) -> None:
    """A row a class, in it a mark for each fusion."""
    axes.axvline(0, color="0.6", linewidth=1)
    for shift, (system, (colour, marker)) in zip((-0.2, 0, 0.2), STYLES.items(), strict=True):
        found = by_class(results, system, metric)
        rows = [row for row, label in enumerate(labels) if label in found]
        parts = np.array([[found[labels[row]].value, *bounds(found[labels[row]])] for row in rows]).reshape(-1, 3)
        errors = np.stack([parts[:, 0] - parts[:, 1], parts[:, 2] - parts[:, 0]]).clip(min=0)
        axes.errorbar(parts[:, 0], [row + shift for row in rows], xerr=errors, linestyle="none", marker=marker,
                      color=colour, elinewidth=0.8, markersize=4, label=SYSTEMS[system])  # fmt: skip


def bounds(one: Interval) -> tuple[float, float]:
    """Both ends of an interval, the value itself where there is none."""
    return (one.value, one.value) if np.isnan(one.low) else (one.low, one.high)


def missing_table(results: Results) -> None:
    """What each fusion loses where a test clip is silent, and where it is black."""
    if not has(results, "map_silent", "Not measured: no fusion was tested with one of sound and pictures missing."):
        return
    rows = []
    for system in [name for name in SYSTEMS if number([results], name, "map_silent") or name in FUSIONS[:4]]:
        row = [SYSTEMS[system], cell([results], system, "map")]
        for what in ("silent", "black"):
            row += [cell([results], system, f"map_{what}"), lost(number([results], system, f"map_{what}_loss"))]
        rows.append(row)
    show_table(
        ["system", "mAP, %", "mAP in silence, %", "lost, points", "mAP with black pictures, %", "lost, points"],
        rows,
        f"One of the two missing at test time: all {held_out(results)} clips ({origin(results)}) silent, or all black; "
        "nothing was trained anew. Lost: mAP less that, paired bootstrap over clips, 95 % intervals. Loses: the whole "
        "interval lies above zero; gains: below; else undecided.",
        results,
    )


def lost(loss: Interval | None) -> str:
    """What was lost, in points, and whether it was."""
    return MISSING if loss is None else f"{percent(loss, signed=True)} {worded(loss, LOSES)}"


def null_table(results: Results, null: Results | None) -> None:
    """The demo world beside the one whose pictures belong to other clips: attention must leave them."""
    if not measured(results) or not measured(null):
        return
    rows = [
        [f"mAP, %: {SYSTEMS[system]}", *(cell([one], system, "map") for one in (results, null))]
        for system in ("audio", "visual", "attention")
    ]
    leads = [judged(number([one], "audio", "map_lead")) for one in (results, null)]
    rows.append(["attention fusion less audio, points of mAP", *leads])
    rows.append(
        [
            "mean weight of sound in clips that contain the class, over classes",
            *(MISSING if (w := weight(one)) is None else plain(w) for one in (results, null)),
        ]
    )
    rows.append(["weight of sound in all clips and classes less that on the demo world", "–", shift(null)])
    show_table(
        [f"{held_out(results)} clips", origin(results), origin(null)],
        rows,
        "Where every clip shows the pictures of another clip, pictures tell nothing: attention fusion must not be "
        "ahead of audio, and its weight must move towards sound. 95 % intervals over clips. Ahead, behind: the whole "
        "interval lies above zero, below it; towards sound: the interval of the difference lies above zero.",
        results,
    )


def weight(results: Results) -> Interval | None:
    """Mean weight of sound over clips; where that was not noted, the mean over classes, without an interval."""
    if (noted := known([results], "attention", "attention_weight")) is not None:
        return noted
    weights = [one.value for one in by_class(results, "attention", "attention_weight").values()]
    return Interval(float(np.mean(weights)), np.nan, np.nan, "mean over classes") if weights else None


def shift(null: Results) -> str:
    """How far the weight moved, and which way."""
    moved = known([null], "attention", "weight_shift")
    return MISSING if moved is None else f"{plain(moved, signed=True)} {worded(moved, SHIFTS)}"
