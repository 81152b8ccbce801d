"""Where and when a system finds an event in a clip, as figures 3 and 4 of Parekh et al. (2018) show it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avrepro.corpora.base import Clip
from avrepro.media import probe, read_frames
from avrepro.report.figures import figure
from avrepro.report.wording import origin, title
from avrepro.results import Results

SOUND, SIGHT = "#0173b2", "#de8f05"  # blue and orange of the colour-blind palette
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


def localisation_figure(found: Localisation, results: Results | None = None, in_time: bool = False) -> None:
    """Frames with their boxes above the scores of all regions and segments.

    :param in_time: as figure 4: a frame every two seconds, right above that time of the segments' scores; else as
        figure 3: the frames with the highest regions.
    """
    from matplotlib import pyplot

    starts = np.arange(0, found.duration - WIDE / 2, WIDE)
    wanted = [best_time(found, start, start + WIDE) for start in starts] if in_time else best_times(found)
    times, pictures = frames_of(found, wanted)
    columns, strips = max(1, len(times)), 1 if in_time else 2
    height = WIDTH / columns * pictures.shape[1] / pictures.shape[2] if len(times) else 0.1
    fig = pyplot.figure(figsize=(WIDTH + 1.8, height + 0.4 + 1.0 * strips), layout="constrained")
    grid = fig.add_gridspec(1 + strips, columns, height_ratios=[height, *[STRIP] * strips], wspace=0.02)
    for column, (time, picture) in enumerate(zip(times, pictures, strict=True)):
        draw_frame(fig.add_subplot(grid[0, column]), found, time, picture)
    image = None if in_time else draw_regions(fig.add_subplot(grid[1, :]), found)
    bars = [("sounding", found.sounding, SOUND), *([("in view", found.seen, SIGHT)] if in_time else [])]
    image = draw_segments(fig.add_subplot(grid[-1, :]), found, bars) or image
    if image is not None:
        fig.colorbar(image, ax=fig.axes, label="score, scaled", ticks=[0, 0.5, 1], pad=0.01, aspect=30)
    frames = f"Frames at {', '.join(f'{time:.1f}' for time in times)} s" if len(times) else "No pictures"
    badge = f" ({origin(results)})" if results is not None else ""
    scores = "segments over time" if in_time else "regions, frame after frame, and of all segments"
    bars_are = " Bars: planted; blue: it sounds; orange: its source is in view." if found.sounding else ""
    legend = (
        f" Boxes: the more opaque, the higher the score. Strips: scores of all {scores}, from 0 (black) to 1 (white) "
        f"in this clip.{bars_are}"
    )
    rest = f"{frames}. {in_words(found)}"
    figure(fig, f"{summary(found)}{badge} {rest}{legend}", f"{summary(found)} {rest}", results)


def draw_frame(axes: Any, found: Localisation, time: float, picture: np.ndarray) -> None:
    """A frame (uint8 [H, W, 3]) with the boxes found in it; opacity is the score."""
    from matplotlib.patches import Rectangle

    axes.imshow(picture, extent=(0, 1, 1, 0), aspect="auto")  # boxes are fractions of the frame
    there = np.flatnonzero(found.times == time)
    for at in there[np.argsort(found.region_scores[there], kind="stable")]:  # the highest on top
        left, top, right, bottom = found.boxes[at]
        alpha = float(found.region_scores[at])
        box = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="lime", linewidth=2, alpha=alpha)
        axes.add_patch(box)
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    axes.set_title(f"{time:.1f} s", fontsize=9, pad=3)


def draw_regions(axes: Any, found: Localisation) -> Any:
    """Scores of all regions in the order of time, marked with the times of their frames."""
    scores = found.region_scores
    image = draw_strip(axes, np.arange(len(scores) + 1), scores, "regions")
    times, first, counts = np.unique(found.times, return_index=True, return_counts=True)
    axes.set_xticks(first + counts / 2, [f"{time:.1f}" for time in times])
    axes.set_xlabel(f"{len(scores)} regions in the order of time; time of their frame, s" if len(scores) else "")
    inside = [any(start <= time <= end for start, end in found.seen) for time in times]
    runs = [(float(a), float(a + n)) for a, n, one in zip(first, counts, inside, strict=True) if one]
    _bars(axes, [("in view", runs, SIGHT)])
    return image


def draw_segments(axes: Any, found: Localisation, bars: Sequence[tuple[str, Spans, str]]) -> Any:
    """Scores of all segments over time; they overlap, so each is drawn where its middle is the nearest."""
    image = draw_strip(axes, edges_of_segments(found), found.segment_scores, "segments")
    axes.set(xlim=(0, found.duration), xlabel="time, s", xticks=np.arange(0, found.duration + 0.01, 1))
    _bars(axes, bars)
    return image


def draw_strip(axes: Any, edges: np.ndarray, scores: np.ndarray, name: str) -> Any:
    """Scores [n], 0..1, as colours between edges [n + 1]; None where there are none."""
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.set_ylabel(name, rotation=0, ha="right", va="center")
    if not len(scores):
        axes.text(0.5, 0.5, f"no scores of {name}", transform=axes.transAxes, ha="center", va="center")
        return None
    return axes.pcolormesh(edges, [0, 1], scores[None], cmap="hot", vmin=0, vmax=1)


def frames_of(found: Localisation, times: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Times (s) and pictures, uint8 [frames, H, W, 3]; none of a clip without pictures."""
    if not probe(found.clip.path).width:
        return np.empty(0), np.empty((0, 1, 1, 3), np.uint8)
    return np.asarray(times), read_frames(found.clip.path, times=times)[0]


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


def _bars(axes: Any, rows: Sequence[tuple[str, Spans, str]]) -> None:
    """Thin bars above a strip, a row a name."""
    for row, (name, spans, colour) in enumerate(reversed([one for one in rows if one[1]])):
        bottom = 1.12 + 0.42 * row  # of the strip's height
        axes.broken_barh(
            [(start, end - start) for start, end in spans], (bottom, 0.26), facecolor=colour,
            transform=axes.get_xaxis_transform(), clip_on=False,
        )  # fmt: skip
        place = {"transform": axes.transAxes, "ha": "right", "va": "center"}
        axes.text(-0.008, bottom + 0.13, name, fontsize=8, **place)
