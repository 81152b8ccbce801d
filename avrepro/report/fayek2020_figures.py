"""Figures 2, 3 and 4 of Fayek and Kumar (2020) drawn of ours, and the counts of classes that it tells of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from avrepro.report import origin, show_figure, show_note, show_table
from avrepro.report.fayek2020 import MISSING, PAPER, by_class, held_out, measured, real_place
from avrepro.results import Results

BLUE, RED, GREY = "#2166ac", "#b2182b", "#595959"  # ends of ColorBrewer's RdBu: told apart by the colour-blind too
POINT = 1.5  # typographic points of a bubble's diameter, a point of AP
NAMED = 3  # classes named in figure 2 of each kind
CHANGE_BINS = 2.5  # points of AP
WEIGHT_BINS = 20
COUNTS = {  # the claims of sections 5.1 and 5.2 -> how they are counted here
    "improved": "improved",
    "improved_surely": "improved, the whole interval above zero",
    "improved_10": "improved by more than 10 points",
    "worse_surely": "deteriorated, the whole interval below zero",
    "worse_5": "deteriorated by more than 5 points",
    "worse_10": "deteriorated by more than 10 points",
    "visual_better": "visual better than audio",
    "weight_one": "mean weight of sound about 1 (here: above 0.99)",
    "weight_high": "mean weight of sound above 0.9",
    "weight_low": "mean weight of sound at most 0.1",
    "weight_zero": "mean weight of sound about 0 (here: below 0.01)",
}


@dataclass(frozen=True)
class OfClass:
    """A class in figure 2: average precision of audio and visual, and the change by attention fusion; percent."""

    label: str
    audio: float
    visual: float
    change: float  # points; against the better of the two

    @property
    def colour(self) -> str:
        return GREY if self.change == 0 else BLUE if self.change > 0 else RED


def classes_of(results: Results) -> list[OfClass]:
    """All classes that have the three numbers on held-out clips, the largest change first."""
    audio, visual = (by_class(results, system, "average_precision") for system in ("audio", "visual"))
    change = by_class(results, "attention", "ap_change")
    found = [
        OfClass(label, 100 * audio[label].value, 100 * visual[label].value, 100 * one.value)
        for label, one in change.items()
        if label in audio and label in visual
    ]
    return sorted(found, key=lambda one: -abs(one.change))


def drawn(results: Results | None) -> bool:
    """Whether there are classes to draw; else a note says why not."""
    if not measured(results):
        return False
    if classes_of(results):
        return True
    show_note(f"Not measured class by class ({origin(results)}).")
    return False


def named(classes: Sequence[OfClass]) -> list[OfClass]:
    """The classes that figure 2 names: the first few by change, and by what one model has over the other."""
    orders = (lambda one: -abs(one.change), lambda one: one.visual - one.audio, lambda one: one.audio - one.visual)
    found = [one for order in orders for one in sorted(classes, key=order)[:NAMED]]
    return list(dict.fromkeys(found))


def figure2(results: Results | None) -> None:
    """Average precision of audio against visual; a bubble's diameter is the change by attention fusion."""
    if not drawn(results) or results is None:
        return
    classes = classes_of(results)
    figure, axes = pyplot.subplots(figsize=(7.2, 7))
    draw_bubbles(axes, classes)
    axes.set(title=origin(results))
    keys = [("improved", BLUE, "-", 10.0), ("deteriorated", RED, "--", 10.0), ("1 point", GREY, "-", 1.0),
            ("20 points", GREY, "-", 20.0)]  # fmt: skip
    handles = [
        axes.scatter(
            [], [], s=(POINT * points) ** 2, facecolors=(colour, 0.35), edgecolors=colour, linestyles=line, label=text
        )
        for text, colour, line, points in keys
    ]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1), labelspacing=1.4, frameon=False)
    write_names(axes, classes)
    tallied = counts(results)
    show_figure(
        figure,
        f"Figure 2. Average precision of audio (right) and visual (up) for each class, {held_out(results)} clips "
        f"({origin(results)}). A bubble's diameter is the change by attention fusion against the better of the two: "
        "blue, improved; red and dashed, deteriorated. Below the dashed line audio is better. Named: the "
        f"{NAMED} classes that change most, and those in which audio and visual differ most either way, where there is "
        "room.",
        f"Bubble chart of {len(classes)} classes. Improved: {_of(tallied, 'improved')}. Visual better than audio: "
        f"{_of(tallied, 'visual_better')}. Largest changes: "
        f"{'; '.join(in_words(one) for one in classes[:NAMED])}.",
        results,
    )


def draw_bubbles(axes: Axes, classes: Sequence[OfClass]) -> None:
    """A disc, its edge and a dot at its middle for each class."""
    axes.axline((0, 0), slope=1, color="0.7", linestyle="--", linewidth=1, zorder=0)
    for one in classes:  # the largest first, so that the small lie on top
        size = (POINT * abs(one.change)) ** 2  # of a marker: its diameter in typographic points, squared
        line = "-" if one.change >= 0 else "--"
        axes.scatter([one.audio], [one.visual], s=size, color=one.colour, alpha=0.35, linewidths=0, gid=one.label)
        axes.scatter([one.audio], [one.visual], s=size, facecolors="none", edgecolors=one.colour, linestyles=line)
        axes.scatter([one.audio], [one.visual], s=6, color=one.colour, linewidths=0)
    axes.set(xlim=(-4, 104), ylim=(-4, 104), aspect="equal")
    axes.set(xlabel="average precision of audio, %", ylabel="average precision of visual, %")


def in_words(one: OfClass) -> str:
    """A class with its numbers, for readers who do not see the bubble."""
    return f"{one.label}: audio {one.audio:.1f} %, visual {one.visual:.1f} %, change {one.change:+.1f} points"


def write_names(axes: Axes, classes: Sequence[OfClass]) -> None:
    """Names beside their bubbles, each where it lies on no name before it."""
    axes.figure.canvas.draw()  # only then is known where anything lies
    taken: list = []
    for one in named(classes):
        away = POINT * abs(one.change) / 2 + 3  # typographic points
        places = [((away, 0), "left", "center"), ((-away, 0), "right", "center"),
                  ((0, away), "center", "bottom"), ((0, -away), "center", "top")]  # fmt: skip
        for offset, across, along in places:
            text = axes.annotate(one.label, (one.audio, one.visual), offset, textcoords="offset points", fontsize=8,
                                 ha=across, va=along, annotation_clip=False,
                                 path_effects=[withStroke(linewidth=2.5, foreground="white")])  # fmt: skip
            box = text.get_window_extent()
            inside = box.x1 <= axes.bbox.x1 and box.x0 >= axes.bbox.x0
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def figure3(results: Results | None) -> None:
    """How many classes attention fusion improves or deteriorates, by how much."""
    if not drawn(results) or results is None:
        return
    change = np.array([one.change for one in classes_of(results)])
    figure, axes = pyplot.subplots(figsize=(8, 3.6))
    draw_changes(axes, change)
    axes.set(title=origin(results))
    kinds = {"improved": change > 0, "unchanged": change == 0, "deteriorated": change < 0}
    told = ", ".join(f"{those.sum()} {name}" for name, those in kinds.items())
    show_figure(
        figure,
        "Figure 3. Change in average precision by attention fusion against the better of audio and visual: classes "
        f"by points, {held_out(results)} clips ({origin(results)}).",
        f"Histogram of {len(change)} classes from {change.min():+.1f} to {change.max():+.1f} points: {told}; median "
        f"{np.median(change):+.1f}.",
        results,
    )


def draw_changes(axes: Axes, change: np.ndarray) -> None:
    """Histogram of changes (float [classes], points) whose bins part at zero; improved and deteriorated told apart."""
    first = CHANGE_BINS * min(0, np.floor(change.min() / CHANGE_BINS))
    last = CHANGE_BINS * max(1, np.ceil(change.max() / CHANGE_BINS))
    bins = np.arange(first, last + CHANGE_BINS / 2, CHANGE_BINS)
    parts = [("deteriorated", change < 0, RED), ("unchanged", change == 0, GREY), ("improved", change > 0, BLUE)]
    names, those, colours = zip(*(part for part in parts if part[1].any()), strict=True)
    axes.hist([change[one] for one in those], list(bins), stacked=True, edgecolor="white", color=colours, label=names)
    axes.axvline(0, color="0.3", linewidth=1)
    axes.set(xlabel="change in average precision, points", ylabel="classes")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


def figure4(results: Results | None) -> None:
    """How many classes attention fusion leaves to sound, and how many to pictures."""
    if not measured(results):
        return
    weights = np.array([one.value for one in by_class(results, "attention", "attention_weight").values()])
    if not len(weights):
        show_note(f"No attention weights were measured class by class ({origin(results)}).")
        return
    figure, axes = pyplot.subplots(figsize=(8, 3.6))
    draw_weights(axes, weights)
    axes.set(title=origin(results))
    show_figure(
        figure,
        f"Figure 4. Mean attention weight of sound, by class: the mean over the {held_out(results)} clips that contain "
        f"the class ({origin(results)}). Pictures have the rest of the weight.",
        f"Histogram of {len(weights)} classes; weights from {weights.min():.2f} to {weights.max():.2f}, median "
        f"{np.median(weights):.2f}; above one half in {(weights > 0.5).sum()}.",
        results,
    )


def draw_weights(axes: Axes, weights: np.ndarray) -> None:
    """Histogram of mean weights of sound (float [classes], 0..1)."""
    axes.hist(weights, list(np.linspace(0, 1, WEIGHT_BINS + 1)), color=GREY, edgecolor="white")
    axes.set(xlim=(0, 1), ylabel="classes")
    axes.set(xlabel="← pictures dominate          mean attention weight of sound          sound dominates →")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def counts(results: Results) -> dict[str, tuple[int, int] | None]:
    """The counts of sections 5.1 and 5.2: how many classes of how many; None where nothing was measured."""
    change = list(by_class(results, "attention", "ap_change").values())
    weights = [one.value for one in by_class(results, "attention", "attention_weight").values()]
    audio, visual = (by_class(results, system, "average_precision") for system in ("audio", "visual"))
    both = [label for label in audio if label in visual]
    conditions: Mapping[str, list[bool]] = {
        "improved": [one.value > 0 for one in change],
        "improved_surely": [one.low > 0 for one in change],
        "improved_10": [one.value > 0.10 for one in change],
        "worse_surely": [one.high < 0 for one in change],
        "worse_5": [one.value < -0.05 for one in change],
        "worse_10": [one.value < -0.10 for one in change],
        "visual_better": [visual[label].value > audio[label].value for label in both],
        "weight_one": [one > 0.99 for one in weights],
        "weight_high": [one > 0.9 for one in weights],
        "weight_low": [one <= 0.1 for one in weights],
        "weight_zero": [one < 0.01 for one in weights],
    }
    return {name: (sum(those), len(those)) if those else None for name, those in conditions.items()}


def published_counts() -> dict[str, str]:
    """The paper's own counts: ``439 of 527``."""
    classes = PAPER["audioset"]["classes"]
    told = {name: f"{count}" for name, count in PAPER["changes"].items() if name in COUNTS}
    told |= {name: f"{one['words']} {one['value']}" for name, one in PAPER["weights"].items() if name in COUNTS}
    return {name: f"{text} of {classes}" for name, text in told.items()}


def counts_table(results: Results, real: Results | None) -> None:
    """The paper's counts of classes beside ours."""
    if not measured(results):
        return
    told, here, there = published_counts(), counts(results), counts(real) if real else {}
    rows = [[title, told.get(name, "–"), _of(here, name), _of(there, name)] for name, title in COUNTS.items()]
    show_table(
        ["classes", f"published, {PAPER['corpus']}", origin(results), real_place(real)],
        rows,
        "Classes by what attention fusion changes against the better of audio and visual, and by the mean attention "
        f"weight of sound: published (sections 5.1 and 5.2) and here, {held_out(results)} clips. Counted by the values "
        "alone, without regard to intervals, but where the row says so.",
        results,
    )


def _of(tallied: Mapping[str, tuple[int, int] | None], name: str) -> str:
    known = tallied.get(name)
    return f"{known[0]} of {known[1]}" if known else MISSING
