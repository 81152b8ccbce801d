"""Where a system finds an event: figures 3 and 4 of Parekh et al. (2018). It computes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib import pyplot
from matplotlib.patches import Rectangle

from avrepro.experiments.parekh2018_examples import FIGURE_3, OUT_OF_STEP, Example, Spans
from avrepro.media import probe, read_frames
from avrepro.report import origin, show_figure, show_note
from avrepro.results import Results

COLOURS = sns.color_palette("colorblind")
HEARD, SEEN = COLOURS[0], COLOURS[1]  # as in the chapter on the data
WIDTH = 7.6  # in, of strips and rows of frames
LEFT, RIGHT, STRIP = 1.1, 0.75, 0.26  # in: names left of strips, the scale of colours right of them, height of strips
FRAMES = 3  # of a clip in figure 3
HIGH = 0.5  # of scaled scores, from which they are named in words


def figure3(examples: Sequence[Example], results: Results) -> None:
    """Figure 3 of the paper: boxes on frames, and scores of all regions and segments, an example after the other."""
    if not examples:
        show_note("Figure 3 is not shown: no test clip with pictures is decided rightly for any class.")
    for number, example in enumerate(examples):
        times, pictures = frames_of(example, best_times(example))
        picture_width = (WIDTH - 0.1 * (FRAMES - 1)) / FRAMES
        picture_height = picture_width * pictures.shape[1] / pictures.shape[2] if len(times) else 0.0
        height = picture_height + 2.45
        figure = pyplot.figure(figsize=(LEFT + WIDTH + RIGHT, height))
        for column, (time, picture) in enumerate(zip(times, pictures, strict=True)):
            place = (LEFT + column * (picture_width + 0.1), 2.15, picture_width, picture_height)
            draw_frame(_axes(figure, place), example, time, picture, "lime")
        regions = _axes(figure, (LEFT, 1.55, WIDTH, STRIP))
        image = draw_regions(regions, example)
        segments = _axes(figure, (LEFT, 0.5, WIDTH, STRIP))
        image = draw_segments(segments, example) or image
        _scale(figure, image, (LEFT + WIDTH + 0.12, 0.5, 0.12, 1.05 + STRIP))
        name = f"Figure 3 ({chr(ord('a') + number)}): {example.label}"
        frames = f"Frames at {', '.join(f'{time:.1f}' for time in times)} s" if len(times) else "No pictures"
        if len(example.region_scores):
            frames += ", those with the highest regions"
        legend = " Drawn as in (a)."
        if number == 0:
            legend = (
                " Green: all boxes of the frames; the more opaque a box, the higher its score. Strips: scores of all "
                "regions, frame after frame, and of all segments, brought to 0 (black) to 1 (white) in each clip."
                f"{' Bars above the strips: planted; blue: heard; orange: in view.' if example.heard else ''}"
            )
        last = number == len(examples) - 1
        show_figure(
            figure,
            f"{name}. {summary(example)} Corpus {origin(results)}. {frames}. {in_words(example)}{legend}"
            f"{_left_out(examples) if last else ''}",
            f"{name}. {summary(example)} {frames}. {in_words(example)}",
            results,
        )


def figure4(examples: dict[str, Example], results: Results) -> None:
    """Figure 4 of the paper: clips in which an event is seen and heard apart, frames above the scores of segments."""
    for letter, kind in zip("AB", OUT_OF_STEP, strict=True):
        if kind not in examples:
            show_note(
                f"No example of “{kind}”: it takes a test clip in which that is planted and the label decided rightly."
            )
            continue
        example = examples[kind]
        wide = 2.0  # s of the axis that a frame takes
        starts = np.arange(0, example.duration - wide / 2, wide)
        times, pictures = frames_of(example, [best_time(example, start, start + wide) for start in starts])
        second = WIDTH / example.duration  # in
        picture_width = wide * second - 0.06
        picture_height = picture_width * pictures.shape[1] / pictures.shape[2]
        figure = pyplot.figure(figsize=(LEFT + WIDTH + RIGHT, picture_height + 1.65))
        for start, time, picture in zip(starts, times, pictures, strict=True):
            place = (LEFT + start * second + 0.03, 1.35, picture_width, picture_height)
            draw_frame(_axes(figure, place), example, time, picture, "yellow")
        strip = _axes(figure, (LEFT, 0.5, WIDTH, STRIP))
        image = draw_segments(strip, example, planted=False)
        _bars(strip, (("heard", example.heard, HEARD), ("in view", example.seen, SEEN)))
        _scale(figure, image, (LEFT + WIDTH + 0.12, 0.5, 0.12, 0.75))
        name = f"Figure 4 {letter}: {kind}, {example.label}"
        shown = ", ".join(f"{time:.1f}" for time in times)
        show_figure(
            figure,
            f"{name}. {summary(example)} Corpus {origin(results)}. Above: of every {wide:g} s the frame with the "
            "highest region, with its boxes in yellow; the more opaque a box, the higher its score. Below: scores of "
            "the segments, brought to 0 (black) to 1 (white) in this clip. Bars: planted; blue: heard; orange: in "
            f"view. {in_words(example)}",
            f"{name}. {summary(example)} Frames at {shown} s above a strip of time. {in_words(example)}",
            results,
        )


def draw_frame(axes: Any, example: Example, time: float, picture: np.ndarray, colour: str) -> None:
    """A frame (uint8 [H, W, 3]) with the boxes found in it; opacity is the score."""
    axes.imshow(picture, extent=(0, 1, 1, 0), aspect="auto")  # boxes are fractions of the frame
    there = np.flatnonzero(example.regions.times == time)
    for at in there[np.argsort(example.region_scores[there], kind="stable")]:  # the highest on top
        left, top, right, bottom = example.regions.boxes[at]
        opacity = float(example.region_scores[at])
        axes.add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=2, alpha=opacity)
        )
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    axes.set_title(f"{time:.1f} s", fontsize=9, pad=3)


def draw_regions(axes: Any, example: Example) -> Any:
    """Scores of all regions in the order of time, marked with the times of their frames."""
    scores = example.region_scores
    image = draw_strip(axes, np.arange(len(scores) + 1), scores, "regions")
    times, first, counts = np.unique(example.regions.times, return_index=True, return_counts=True)
    axes.set_xticks(first + counts / 2, [f"{time:.1f}" for time in times])
    axes.set_xlabel(f"{len(scores)} regions in the order of time; time of their frame, s" if len(scores) else "")
    axes.set_ylabel("regions", rotation=0, ha="right", va="center")
    seen = [inside(example.seen, time) for time in times]
    runs = tuple((float(a), float(a + n)) for a, n, one in zip(first, counts, seen, strict=True) if one)
    _bars(axes, (("in view", runs, SEEN),))
    return image


def draw_segments(axes: Any, example: Example, planted: bool = True) -> Any:
    """Scores of all segments over time; they overlap, so each is drawn where its middle is the nearest."""
    image = draw_strip(axes, segment_edges(example), example.segment_scores, "segments")
    axes.set(xlim=(0, example.duration), xlabel="time, s", xticks=np.arange(0, example.duration + 0.01, 1))
    axes.set_ylabel("segments", rotation=0, ha="right", va="center")
    if planted:
        _bars(axes, (("heard", example.heard, HEARD),))
    return image


def draw_strip(axes: Any, edges: np.ndarray, scores: np.ndarray, name: str) -> Any:
    """Scores [n], 0..1, as colours between edges [n + 1]."""
    axes.set_yticks([])
    if not len(scores):
        axes.text(0.5, 0.5, f"no scores of {name}", transform=axes.transAxes, ha="center", va="center")
        return None
    return axes.pcolormesh(edges, [0, 1], scores[None], cmap="hot", vmin=0, vmax=1)


def frames_of(example: Example, times: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Times (s) and pictures, uint8 [frames, H, W, 3]; none of a clip without pictures."""
    if not probe(example.clip.path).width:
        return np.empty(0), np.empty((0, 1, 1, 3), np.uint8)
    return np.asarray(times), read_frames(example.clip.path, times=times)[0]


def best_times(example: Example) -> list[float]:
    """Times (s) of the frames with the highest regions; at equal distances where none has regions."""
    times = np.unique(example.regions.times)
    if not len(times):
        return list((np.arange(FRAMES) + 0.5) * example.duration / FRAMES)
    highest = [example.region_scores[example.regions.times == time].max() for time in times]
    return sorted(times[np.argsort(-np.array(highest), kind="stable")[:FRAMES]])


def best_time(example: Example, start: float, end: float) -> float:
    """Time (s) of the frame with the highest region in a part of the clip; its middle where none has regions."""
    there = np.flatnonzero((example.regions.times >= start) & (example.regions.times < end))
    if not len(there):
        return (start + end) / 2
    return float(example.regions.times[there[example.region_scores[there].argmax()]])


def segment_edges(example: Example) -> np.ndarray:
    """Where, in s, one segment's strip of time ends and the next one's begins, float [segments + 1]."""
    if not len(example.spans):
        return np.empty(0)
    middles = example.spans.mean(axis=1)
    return np.concatenate([example.spans[:1, 0], (middles[1:] + middles[:-1]) / 2, example.spans[-1:, 1]])


def inside(spans: Spans, time: float) -> bool:
    return any(start <= time <= end for start, end in spans)


def summary(example: Example) -> str:
    """Clip, class, system, score and threshold."""
    reached = "reached" if example.score >= example.threshold else "not reached"
    threshold = f"threshold {example.threshold:.2f}, {reached}" if np.isfinite(example.threshold) else "no threshold"
    return (
        f"Clip {example.clip.id} (labels: {', '.join(example.clip.labels) or 'none'}), class {example.label}, system "
        f"{example.system.replace('_', ' ')}: score {example.score:.2f} ({threshold})."
    )


def in_words(example: Example) -> str:
    """What the scores say, in words."""
    told = []
    if example.region_scores.any():
        best = int(example.region_scores.argmax())
        left, top, right, bottom = example.regions.boxes[best]
        place = f"{_third((top + bottom) / 2, 'upper', 'lower')} {_third((left + right) / 2, 'left', 'right')}".strip()
        part = f"{place} part" if place else "centre"
        told.append(f"Highest region: {part} of the frame at {example.regions.times[best]:.1f} s.")
    if example.segment_scores.any():
        best = int(example.segment_scores.argmax())
        spans = np.minimum(example.spans, example.duration)  # silence completes the last one
        high = _times(merged(spans[example.segment_scores >= HIGH]))
        told.append(f"Highest segment: {_times([spans[best]])}; scores of {HIGH} and more: {high}.")
    if example.heard:
        seen = f"in view {_times(example.seen)}" if example.seen else "never in view"
        told.append(f"Planted: heard {_times(example.heard)}; source {seen}.")
    return " ".join(told) or "No region and no segment stands out."


def merged(spans: Iterable[Sequence[float]]) -> list[tuple[float, float]]:
    """Spans by start, those that touch or overlap made one."""
    joined: list[tuple[float, float]] = []
    for start, end in spans:
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _times(spans: Iterable[Sequence[float]]) -> str:
    return " and ".join(f"{start:.1f} to {end:.1f} s" for start, end in spans)


def _third(place: float, low: str, high: str) -> str:
    return low if place < 1 / 3 else high if place > 2 / 3 else ""


def _left_out(examples: Sequence[Example]) -> str:
    """Which classes of the paper's figure have no clip; nothing where the corpus has other classes."""
    labels = {example.label for example in examples}
    lacking = [label for label in FIGURE_3 if label not in labels]
    return f" Left out, for want of a right decision: {', '.join(lacking)}." if labels < set(FIGURE_3) else ""


def _axes(figure: Any, place: Sequence[float]) -> Any:
    """Axes at left, bottom, width, height in in."""
    width, height = figure.get_size_inches()
    left, bottom, wide, high = place
    return figure.add_axes((left / width, bottom / height, wide / width, high / height))


def _bars(axes: Any, rows: Sequence[tuple[str, Spans, Any]]) -> None:
    """Thin bars above a strip, a row a name."""
    for row, (name, spans, colour) in enumerate(reversed([one for one in rows if one[1]])):
        bottom = 1.12 + 0.42 * row  # of the strip's height
        axes.broken_barh(
            [(start, end - start) for start, end in spans], (bottom, 0.26), facecolor=colour,
            transform=axes.get_xaxis_transform(), clip_on=False,
        )  # fmt: skip
        axes.text(
            -0.008, bottom + 0.13, name, transform=axes.transAxes, color=colour, ha="right", va="center", fontsize=8
        )


def _scale(figure: Any, image: Any, place: Sequence[float]) -> None:
    if image is not None:
        figure.colorbar(image, cax=_axes(figure, place), label="score, scaled", ticks=[0, 0.5, 1])
