"""How the systems of Fayek and Kumar (2020) were trained here: generations of co-supervision, costs, and the scale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from avrepro.corpora.base import SPLITS
from avrepro.evaluation.intervals import Interval
from avrepro.report import origin, percent, show_figure, show_note, show_table
from avrepro.report.fayek2020 import (
    FUSIONS,
    OTHERS,
    PAPER,
    SYSTEMS,
    beside,
    cell,
    classes_scored,
    measured,
)
from avrepro.report.fayek2020_figures import BLUE, GREY, RED
from avrepro.results import Results

TOGETHER, TITLE = "fusions", "All fusions but average, together"


def generations_figure(results: Results) -> None:
    """mAP of the audio model, generation after generation of sequential co-supervision."""
    if not measured(results):
        return
    found = generations(results)
    if not found:
        show_note(f"Generations of co-supervision were not measured ({origin(results)}).")
        return
    figure, axes = pyplot.subplots(figsize=(7, 3.8))
    draw_generations(axes, found)
    axes.set(title=origin(results))
    told = [f"{split} {', '.join(percent(one.value) for one in steps.values())}" for split, steps in found.items()]
    show_figure(
        figure,
        "mAP of the audio model by generation of sequential co-supervision: each learns from the labels and from what "
        f"the one before it says; generation 0 from the labels alone ({origin(results)}). Bars: 95 % intervals, where "
        "there are any.",
        f"Line chart of mAP in percent by generation: {'; '.join(told)}.",
        results,
    )


def draw_generations(axes: Axes, found: Mapping[str, Mapping[int, Interval]]) -> None:
    """A line a split, side by side a little, so that the bars do not hide each other."""
    for number, (split, steps) in enumerate(found.items()):
        places = np.array(list(steps)) + 0.04 * (number - (len(found) - 1) / 2)
        parts = 100 * np.array([[one.value, one.low, one.high] for one in steps.values()])
        errors = np.nan_to_num(np.stack([parts[:, 0] - parts[:, 1], parts[:, 2] - parts[:, 0]])).clip(min=0)
        axes.errorbar(places, parts[:, 0], yerr=errors, capsize=3, marker="os^"[number % 3], label=split,
                      color=(GREY, BLUE, RED)[number % 3])  # fmt: skip
    axes.set_xticks(list(next(iter(found.values()))))
    axes.set(xlabel="generation (0: labels alone)", ylabel="mAP of audio, %")
    axes.legend()


def generations(results: Results) -> dict[str, dict[int, Interval]]:
    """Split -> generation -> mAP of the audio model."""
    rows = results.select(system="audio", metric="map_of_generation")
    return {
        split: {
            step: results.number("audio", "map_of_generation", split, step=step)
            for step in sorted(rows[rows["split"] == split]["step"])
        }
        for split in SPLITS
        if (rows["split"] == split).any()
    }


def costs_table(results: Results, others: Results | None = None) -> None:
    """Sizes of the systems, how long their trainings took, and the memory."""
    if not measured(results):
        return
    rows = []
    for one in beside(results, others):
        device = one.passport()["device"]
        for system, title in {**SYSTEMS, TOGETHER: TITLE}.items():
            size, seconds = (of_run(one, system, metric) for metric in ("parameters", "training_seconds"))
            if size is not None or seconds is not None:
                rows.append([title, "–" if size is None else f"{size:,.0f}", duration(seconds), device])
        if (memory := of_run(one, "corpus", "peak_memory_mb")) is not None:
            rows.append([f"peak memory{', systems of others' if one is not results else ''}",
                         f"{memory / 1024:.1f} GB", "–", device])  # fmt: skip
    show_table(
        ["", "parameters that are trained", "training", "on"],
        rows,
        f"What the systems cost ({origin(results)}). Average fusion has nothing to train; the other fusions are "
        "trained together, on what the two models say, and share their time. The paper says nothing of time or "
        "machines.",
        results,
    )


def simulated_table(simulated: Results | None) -> None:
    """All fusions on simulated scores of AudioSet's size: that they run at this size and how long they take."""
    if not measured(simulated):
        return
    rows = []
    for system in [*(name for name in SYSTEMS if name not in (*FUSIONS, *OTHERS)), *FUSIONS]:
        planted = cell([simulated], system, "map_planted")
        seconds = of_run(simulated, system, "training_seconds")
        rows.append([SYSTEMS[system], cell([simulated], system, "map"),
                     "–" if system in FUSIONS else planted, duration(seconds)])  # fmt: skip
    if (together := of_run(simulated, TOGETHER, "training_seconds")) is not None:
        rows.append([TITLE, "–", "–", duration(together)])
    sizes = ", ".join(f"{clips:,} {split}" for split, clips in sizes_of(simulated).items())
    memory = of_run(simulated, "corpus", "peak_memory_mb")
    show_table(
        ["system", "mAP, % (simulated)", "mAP as planted, %", "training"],
        rows,
        f"For scale, never for claims: outputs of an audio and a visual model were drawn at random for {sizes} clips "
        f"({origin(simulated)}; {classes_scored(simulated)}), so that each class has a published average precision. No "
        "clip was heard or seen, so the numbers say nothing of fusion; they show that all fusions train at this size"
        f"{f', in {memory / 1024:.1f} GB of memory' if memory is not None else ''}, on "
        f"{simulated.passport()['device']}. {PAPER['corpus']} "
        f"has about {PAPER['audioset']['training_clips'] / 1e6:g} million clips for training.",
        simulated,
    )


def of_run(results: Results, system: str, metric: str) -> float | None:
    """A number that belongs to no split, as seconds and parameters do."""
    if not len(results.select(system=system, metric=metric, split="")):
        return None
    return results.number(system, metric).value


def sizes_of(results: Results) -> dict[str, int]:
    """Clips of each split that has numbers."""
    sizes = results.table.groupby("split")["clips"].first()
    return {split: int(sizes[split]) for split in SPLITS if split in sizes.index}


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds is None:
        return "–"
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
