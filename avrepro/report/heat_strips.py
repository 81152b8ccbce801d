"""Where and when a system finds an event in a clip, as figures 3 and 4 of Parekh et al. (2018) show it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from avrepro.corpora.base import Clip
from avrepro.media import probe, read_frames
from avrepro.report.figures import figure
from avrepro.report.wording import origin, title
from avrepro.results import Results

SOUND, SIGHT = "#0173b2", "#de8f05"  # blue and orange of the colour-blind palette
HEAT = colormaps["hot"]
WIDTH, STRIP = 7.6, 0.26  # in, width of a row of frames, height of a strip
FRAMES = 3  # of a clip in figure 3
WIDE = 2.0  # s of the time axis that a frame takes in figure 4
HIGH = 0.5  # of scaled scores, from which they are named in words

Spans = Sequence[tuple[float, float]]  # start and end of each, s, by start


@dataclass(frozen=True)
class Localisation:
    """A clip and one class: a system's score of the clip, of its regions and of its segments."""

    clip: Clip
    label: str  # the class
    system: str
    score: float  # of the clip
    threshold: float  # of the class, NaN where there is none
    duration: float  # s of the clip that the system uses
    times: np.ndarray  # float [regions], s; empty where it uses no pictures
    boxes: np.ndarray  # float [regions, 4]: left, top, right, bottom as fractions 0..1 of the frame
    region_scores: np.ndarray  # float [regions], brought to 0..1 in this clip for this class
    segments: np.ndarray  # float [segments, 2], start and end of each, s; empty where it uses no sound
    segment_scores: np.ndarray  # float [segments], likewise 0..1
    sounding: Spans = ()  # when the class was planted to sound; empty where nobody knows
    seen: Spans = ()  # when its source was planted to be in view; likewise


@dataclass(frozen=True)
class Row:
    """Spans of a clip in colours, which stand for a score or for what was planted; a row of a figure or a player."""

    name: str
    spans: Spans
    colours: Sequence[str]  # one a span, in hexadecimal
    is_score: bool


def bars(name: str, spans: Spans, colour: str = SOUND) -> Row:
    """Spans in one colour."""
    return Row(name, spans, [colour] * len(spans), False)


def strip(name: str, edges: np.ndarray, scores: np.ndarray) -> Row:
    """Scores [n], 0..1, from black to white between edges [n + 1], s."""
    spans = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    return Row(name, spans, [to_hex(colour) for colour in HEAT(np.asarray(scores, dtype=float))], True)


def rows_of(found: Localisation) -> list[Row]:
    """What was planted and what was scored, over time; pictures first."""
    return [
        bars("planted, in view", found.seen, SIGHT),
        strip("regions", edges_of_regions(found), found.region_scores),
        bars("planted, sounding", found.sounding, SOUND),
        strip("segments", edges_of_segments(found), found.segment_scores),
    ]


def localisation_figure(found: Localisation, results: Results | None = None, in_time: bool = False) -> None:
    """Frames with their boxes above the scores of all regions and segments over time.

    :param in_time: as figure 4: a frame every two seconds, right above that time of the scores; else as figure 3: the
        frames with the highest regions.
    """
    from matplotlib import pyplot
    from matplotlib.cm import ScalarMappable

    starts = np.arange(0, found.duration - WIDE / 2, WIDE)
    times = [best_time(found, start, start + WIDE) for start in starts] if in_time else best_times(found)
    has_pictures = bool(probe(found.clip.path).width)
    pictures = read_frames(found.clip.path, times=times)[0] if has_pictures else np.empty((0, 1, 1, 3), np.uint8)
    rows = [row for row in rows_of(found) if row.is_score or len(row.spans)]
    columns = len(times)
    height = WIDTH / columns * pictures.shape[1] / pictures.shape[2] if has_pictures else 0.1
    heights = [height, *(STRIP if row.is_score else STRIP / 3 for row in rows)]
    fig = pyplot.figure(figsize=(WIDTH + 1.8, sum(heights) + 0.2 * len(rows) + 0.6), layout="constrained")
    grid = fig.add_gridspec(len(heights), columns, height_ratios=heights, wspace=0.02)
    for column, picture in enumerate(pictures):
        draw_frame(fig.add_subplot(grid[0, column]), found, times[column], picture)
    for place, row in enumerate(rows, start=1):
        axes = fig.add_subplot(grid[place, :])
        draw_row(axes, row, found.duration)
        if place == len(rows):
            axes.set(xticks=np.arange(0, found.duration + 0.1, WIDE), xlabel="time, s")
    scale = ScalarMappable(cmap=HEAT)
    fig.colorbar(scale, ax=fig.axes, label="score, scaled", ticks=[0, 0.5, 1], pad=0.01, aspect=30)
    frames = f"Frames at {', '.join(f'{time:.1f}' for time in times)} s" if has_pictures else "No pictures"
    badge = f" ({origin(results)})" if results is not None else ""
    legend = (
        " Boxes: the more opaque, the higher the score. Strips: scores of all regions and segments over time, from 0 "
        "(black) to 1 (white) in this clip."
    )
    rest = f"{frames}. {in_words(found)}"
    figure(fig, f"{summary(found)}{badge} {rest}{legend}", f"{summary(found)} {rest}", results)


def draw_frame(axes: Any, found: Localisation, time: float, picture: np.ndarray) -> None:
    """A frame (uint8 [H, W, 3]) with the boxes found in it; opacity is the score."""
    from matplotlib.patches import Rectangle

    axes.imshow(picture, extent=(0, 1, 1, 0), aspect="auto")  # boxes are fractions of the frame
    for (left, top, right, bottom), score in boxes_at(found, time):
        place, width, height = (left, top), right - left, bottom - top
        axes.add_patch(Rectangle(place, width, height, fill=False, edgecolor="lime", linewidth=2, alpha=score))
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    axes.set_title(f"{time:.1f} s", fontsize=9, pad=3)


def draw_row(axes: Any, row: Row, duration: float) -> None:
    """A row over the time of the clip."""
    axes.broken_barh([(start, end - start) for start, end in row.spans], (0, 1), facecolors=row.colours, linewidth=0)
    axes.set(xlim=(0, duration), ylim=(0, 1), xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.set_ylabel(row.name, rotation=0, ha="right", va="center", fontsize=9)
    if not len(row.spans):
        axes.text(0.5, 0.5, f"no scores of {row.name}", transform=axes.transAxes, ha="center", va="center")


def boxes_at(found: Localisation, time: float) -> list[tuple[np.ndarray, float]]:
    """Boxes of the frame at a time (s) with their scores, the highest last, so that it is drawn on top."""
    there = np.flatnonzero(found.times == time)
    order = there[np.argsort(found.region_scores[there], kind="stable")]
    return [(found.boxes[at], float(found.region_scores[at])) for at in order]


def best_times(found: Localisation) -> list[float]:
    """Times (s) of the frames with the highest regions; at equal distances where none has regions."""
    times = np.unique(found.times)
    if not len(times):
        return list((np.arange(FRAMES) + 0.5) * found.duration / FRAMES)
    highest = [found.region_scores[found.times == time].max() for time in times]
    return sorted(times[np.argsort(-np.array(highest), kind="stable")[:FRAMES]])


def best_time(found: Localisation, start: float, end: float) -> float:
    """Time (s) of the frame with the highest region in a part of the clip; its middle where none has regions."""
    there = np.flatnonzero((found.times >= start) & (found.times < end))
    return float(found.times[there[found.region_scores[there].argmax()]]) if len(there) else (start + end) / 2


def edges_of_segments(found: Localisation) -> np.ndarray:
    """Where, in s, one segment's part of a strip ends and the next one's begins, float [segments + 1]."""
    if not len(found.segments):
        return np.empty(0)
    middles = found.segments.mean(axis=1)
    return np.concatenate([found.segments[:1, 0], (middles[1:] + middles[:-1]) / 2, found.segments[-1:, 1]])


def edges_of_regions(found: Localisation) -> np.ndarray:
    """Where, in s, the regions are drawn: those of a frame share its second, side by side; float [regions + 1]."""
    times, counts = np.unique(found.times, return_counts=True)
    seconds = np.append(np.floor(times), found.duration)  # the last frame stays on show until the end
    parts = [np.linspace(a, b, n, endpoint=False) for a, b, n in zip(seconds[:-1], seconds[1:], counts, strict=True)]
    return np.concatenate([*parts, seconds[-1:]])


def summary(found: Localisation) -> str:
    """Clip, class, system, score and threshold."""
    threshold = ""
    if np.isfinite(found.threshold):
        threshold = f" (threshold {found.threshold:.2f}, {'' if found.score >= found.threshold else 'not '}reached)"
    labels = ", ".join(found.clip.labels) or "none"
    return (
        f"Clip {found.clip.id} (labels: {labels}), class {found.label}, {title(found.system)}: score {found.score:.2f}"
        f"{threshold}."
    )


def in_words(found: Localisation) -> str:
    """The highest scores and what was planted."""
    parts = []
    if found.region_scores.any():
        best = int(found.region_scores.argmax())
        left, top, right, bottom = found.boxes[best]
        place = f"{_third((top + bottom) / 2, 'upper', 'lower')} {_third((left + right) / 2, 'left', 'right')}".strip()
        part = f"{place} part" if place else "centre"
        parts.append(f"Highest region: {part} of the frame at {found.times[best]:.1f} s.")
    if found.segment_scores.any():
        spans = np.minimum(found.segments, found.duration)  # silence completes the last one
        high = times_text(merged(spans[found.segment_scores >= HIGH]))
        best_span = times_text([spans[int(found.segment_scores.argmax())]])
        parts.append(f"Highest segment: {best_span}; scores of {HIGH} and more: {high}.")
    if found.sounding:
        seen = f"in view {times_text(found.seen)}" if found.seen else "never in view"
        parts.append(f"Planted: it sounds {times_text(found.sounding)}; its source is {seen}.")
    return " ".join(parts) or "No region and no segment stands out."


def merged(spans: Iterable[Sequence[float]]) -> list[tuple[float, float]]:
    """Spans by start, those that touch or overlap made one."""
    joined: list[tuple[float, float]] = []
    for start, end in spans:
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def times_text(spans: Iterable[Sequence[float]]) -> str:
    """Spans in words: ``1.2 to 3.5 s and 4.0 to 6.0 s``."""
    return " and ".join(f"{start:.1f} to {end:.1f} s" for start, end in spans)


def _third(place: float, low: str, high: str) -> str:
    return low if place < 1 / 3 else high if place > 2 / 3 else ""
