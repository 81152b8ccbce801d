"""Figures of the chapter ``side_by_side``: quality against cost, and curves by label noise and number of clips."""

from __future__ import annotations

from collections.abc import Sequence

import seaborn as sns
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from avrepro.evaluation.intervals import Interval
from avrepro.report import percent, show_figure
from avrepro.report.side_by_side import DATA, METRICS, PAPERS, system_name
from avrepro.report.side_by_side_evidence import Evidence, Measured, number, place
from avrepro.report.side_by_side_tables import JUDGED, systems_of, there
from avrepro.report.sortable import MISSING, Cell, show_sortable

MARKERS = dict(zip(PAPERS, "os^D", strict=True))
COLOURS = dict(zip(PAPERS, sns.color_palette("colorblind"), strict=False))
NEARBY = (  # where a name may stand: offset in points, and how it is aligned there
    (5, 0, "left", "center"), (-5, 0, "right", "center"), (0, 5, "center", "bottom"), (0, -5, "center", "top"),
    (4, 4, "left", "bottom"), (4, -4, "left", "top"), (-4, 4, "right", "bottom"), (-4, -4, "right", "top"),
)  # fmt: skip


def cost_figure(evidence: Evidence, corpus: str) -> None:
    """Quality of every system against the multiply-accumulates of a clip; mAP and micro F1."""
    results = evidence.run(corpus)
    if not there(results, f"costs on {DATA[corpus]} ({corpus})"):
        return
    macs = {
        one: found.value for one in systems_of(results, "macs") if (found := number(results, one, "macs", split=""))
    }
    if not macs:
        there(None, f"multiply-accumulates on {DATA[corpus]} ({corpus})")
        return
    figure, panels = pyplot.subplots(2, 1, figsize=(9, 12), sharex=True, layout="constrained")
    left_out = 0
    told = []
    for axes, metric in zip(panels, ("map", "micro_f1"), strict=True):
        quality = {one: found for one in macs if (found := number(results, one, metric))}
        left_out += draw_costs(axes, {one: (macs[one], 100 * found.value) for one, found in quality.items()})
        axes.set(
            xlabel="multiply-accumulates a clip", ylabel=f"{METRICS[metric]} on test clips, %", title=place(results)
        )
        best = max(quality, key=lambda one: quality[one].value, default=None)
        if best is not None:
            told.append(
                f"Highest {METRICS[metric]}: {system_name(best)}, {percent(quality[best].value)} % at {macs[best]:,.0f}"
            )
    panels[0].legend(loc="best", fontsize=9)
    unnamed = " A name that would lie on another or on a mark is left out; the table above has all." if left_out else ""
    show_figure(
        figure,
        f"Quality against cost, {DATA[corpus]} ({place(results)}): mAP (above) and micro F1 (below) in percent on test "
        "clips, over the multiply-accumulates of one clip, frozen networks included, on a logarithmic scale. Marks and "
        f"colours tell whose system it is.{unnamed}",
        f"Two scatter plots of {len(macs)} systems. {'. '.join(told)}.",
        results,
    )


def draw_costs(axes: Axes, points: dict[str, tuple[float, float]]) -> int:
    """A mark a system at (multiply-accumulates, percent), with its name where there is room; how many have none."""
    for paper, title in PAPERS.items():
        those = [point for system, point in points.items() if system.startswith(f"{paper}/")]
        if those:
            axes.scatter(
                [x for x, _ in those],
                [y for _, y in those],
                marker=MARKERS[paper],
                color=COLOURS[paper],
                label=title,
                s=42,
            )
    axes.set_xscale("log")
    axes.margins(0.12)
    axes.grid(alpha=0.3)
    axes.figure.canvas.draw()  # only then is known where anything lies
    marks = [Bbox.from_extents(x - 3, y - 3, x + 3, y + 3) for x, y in axes.transData.transform(list(points.values()))]
    named: list[Bbox] = []
    for system, point in sorted(points.items(), key=lambda one: -one[1][1]):
        for right, up, across, along in NEARBY:
            text = axes.annotate(system.partition("/")[2].replace("_", " "), point, (right, up), fontsize=8.5,
                                 textcoords="offset points", ha=across, va=along,
                                 path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip
            box = text.get_window_extent()
            inside = box.x0 >= axes.bbox.x0 and box.x1 <= axes.bbox.x1
            if inside and not any(box.overlaps(other) for other in (*named, *marks)):
                named.append(box)
                break
            text.remove()
    return len(points) - len(named)


def noise_figure(evidence: Evidence) -> None:
    """How scores fall as more labels of the training clips are wrong."""
    _curves(evidence.run("demo", "noise"), "label noise", "share of training labels that are wrong, %", "linear")


def learning_figure(evidence: Evidence) -> None:
    """How scores grow with the number of training clips."""
    _curves(evidence.run("demo", "learning"), "learning curves", "share of the training clips, %", "log")


def noise_table(evidence: Evidence) -> None:
    """The numbers of the figure of label noise."""
    _curves_table(evidence.run("demo", "noise"), "label noise", "of labels wrong")


def learning_table(evidence: Evidence) -> None:
    """The numbers of the learning curves."""
    _curves_table(evidence.run("demo", "learning"), "learning curves", "of the clips")


def curve(results: Measured, system: str, metric: str) -> dict[float, Interval]:
    """Share (a fraction) -> score of a system, in the order of shares."""
    found = {
        float(label): one for (name, of, _, label), one in results.numbers.items() if (name, of) == (system, metric)
    }
    return dict(sorted(found.items()))


def _curves(results: Measured | None, name: str, across: str, scale: str) -> None:
    """A row of panels a paper, a column a metric, a line a system."""
    if not there(results, name):
        return
    systems = systems_of(results, "map")
    papers = list(dict.fromkeys(system.partition("/")[0] for system in systems))
    shares = sorted({share for system in systems for share in curve(results, system, "map")})
    figure, panels = pyplot.subplots(len(papers), 2, figsize=(11, 3.6 * len(papers)), sharex=True, sharey="col",
                                     squeeze=False, layout="constrained")  # fmt: skip
    for row, paper in zip(panels, papers, strict=True):
        those = [system for system in systems if system.startswith(f"{paper}/")]
        for axes, metric in zip(row, JUDGED, strict=True):
            draw_curves(axes, {system: curve(results, system, metric) for system in those})
            axes.set_xscale(scale)
            axes.set(ylabel=f"{METRICS[metric]} on test clips, %", title=PAPERS[paper])
        row[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9, frameon=False)
    for axes in panels[-1]:
        axes.set_xlabel(across)
        axes.set_xticks([100 * share for share in shares], [f"{100 * share:g}" for share in shares])
        axes.set_xticks([], minor=True)
    figure.suptitle(place(results))
    show_figure(
        figure,
        f"{name.capitalize()} ({place(results)}): micro F1 (left) and mAP (right) in percent on the same test clips, "
        f"by the {across.removesuffix(', %')} (%); a line a system, with 95 % intervals.",
        f"Line charts of {len(systems)} systems, a row a paper. {_told(results, systems)}",
        results,
    )


def draw_curves(axes: Axes, curves: dict[str, dict[float, Interval]]) -> None:
    """Lines with intervals at (share, score), both in percent; told apart by colour, mark and dashes."""
    palette = sns.color_palette("colorblind", 10)
    for k, (system, found) in enumerate(curves.items()):
        values = [100 * one.value for one in found.values()]
        errors = [[100 * max(0.0, one.value - one.low) for one in found.values()],
                  [100 * max(0.0, one.high - one.value) for one in found.values()]]  # fmt: skip
        axes.errorbar([100 * share for share in found], values, yerr=errors, color=palette[k % 10],
                      marker="os^Dv<>Ph*"[k % 10], linestyle=("-", "--", ":")[k // 10 % 3], markersize=4, linewidth=1.2,
                      elinewidth=0.6, label=system.partition("/")[2].replace("_", " "))  # fmt: skip
    axes.grid(alpha=0.3)


def _told(results: Measured, systems: Sequence[str]) -> str:
    """Where the curves begin and end, for readers who do not see them."""
    parts = []
    for system in systems:
        found = list(curve(results, system, "map").items())
        (first, one), (last, other) = found[0], found[-1]
        parts.append(f"{system_name(system)}: mAP {percent(one.value)} % at {100 * first:g} %, "
                     f"{percent(other.value)} % at {100 * last:g} %")  # fmt: skip
    return "; ".join(parts) + "."


def _curves_table(results: Measured | None, name: str, of: str) -> None:
    if not there(results, name):
        return
    systems = systems_of(results, "map")
    shares = sorted({share for system in systems for share in curve(results, system, "map")})
    rows: list[list[Cell | str]] = []
    for system in systems:
        row: list[Cell | str] = [system_name(system)]
        for metric in JUDGED:
            found = curve(results, system, metric)
            row += [Cell(percent(found[one]), found[one].value) if one in found else MISSING for one in shares]
        rows.append(row)
    lacking = " –: not measured." if any(MISSING in row for row in rows) else ""
    show_sortable(
        ["test clips", *(f"{METRICS[metric]}, %: {100 * share:g} % {of}" for metric in JUDGED for share in shares)],
        rows,
        f"The numbers of the {name} ({place(results)}), with 95 % intervals.{lacking}",
        results,
    )
