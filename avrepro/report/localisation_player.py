"""A clip that plays with the boxes and strips of what a system finds in it, in the page and without libraries."""

from __future__ import annotations

import base64
import html
from uuid import uuid4

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from avrepro.experiments.parekh2018_examples import Example, Spans
from avrepro.media import probe
from avrepro.report import origin, show_note, show_player
from avrepro.report.localisation import HEARD, SEEN, in_words, segment_edges, summary
from avrepro.results import Results

EMBEDDED = 700_000  # bytes; larger clips are not put into the page
NARROW, BROAD = 480, 640  # px; how wide a clip is shown, where the page has the room

# Boxes are fractions of the frame, so the drawing is stretched over the video and follows its size by itself.
OVER = "position:absolute;inset:0;width:100%;height:100%;pointer-events:none"
SCRIPT = """(() => {
  const player = document.getElementById("%s");
  const video = player.querySelector("video"), told = player.querySelector("[data-told]");
  const frames = [...player.querySelectorAll("g[data-time]")], cursors = player.querySelectorAll("[data-cursor]");
  const distance = (frame) => Math.abs(frame.dataset.time - video.currentTime);
  let asked = 0;
  const draw = () => {
    const shown = frames.length ? frames.reduce((a, b) => (distance(b) <= distance(a) ? b : a)) : null;
    for (const frame of frames) frame.style.display = frame === shown ? "" : "none";
    for (const cursor of cursors) cursor.setAttribute("transform", `translate(${video.currentTime} 0)`);
    told.textContent = `${video.currentTime.toFixed(1)} s` + (shown ? `; ${shown.dataset.best}` : "");
    cancelAnimationFrame(asked);
    if (!video.paused && !video.ended) asked = requestAnimationFrame(draw);
  };
  for (const event of ["loadedmetadata", "play", "pause", "seeking", "timeupdate"]) video.addEventListener(event, draw);
  draw();
})();"""


def player(example: Example, results: Results) -> None:
    """The clip itself, the boxes of the current second over it, and the scores of regions and segments below it."""
    size = example.clip.path.stat().st_size
    if size > EMBEDDED:
        show_note(
            f"Clip {example.clip.id} is not embedded to play: it has {size / 1000:.0f} kB, "
            f"pages take clips of up to {EMBEDDED / 1000:.0f} kB."
        )
        return
    mark = f"player-{uuid4().hex}"  # a page may hold several players, and one clip twice
    words = f"{summary(example)} {in_words(example)}"
    caption = (
        f"{summary(example)} Corpus {origin(results)}. Boxes: regions of the current second; the more opaque, the "
        "higher the score. Strips: scores of regions and of segments over time, brought to 0 (black) to 1 (white) in "
        f"this clip; the blue line is now.{' Bars: planted.' if example.heard else ''}"
    )
    kind = "video/webm" if example.clip.path.suffix == ".webm" else "video/mp4"
    source = base64.b64encode(example.clip.path.read_bytes()).decode()
    width = min(max(probe(example.clip.path).width, NARROW), BROAD)
    strips = "".join(
        [
            _bars("in view", example.seen, SEEN, example.duration),
            _strip("regions", region_edges(example), example.region_scores, example.duration),
            _bars("heard", example.heard, HEARD, example.duration),
            _strip("segments", segment_edges(example), example.segment_scores, example.duration),
        ]
    )
    markup = (
        f'<figure id="{mark}" style="width:{width}px;max-width:100%;margin:1rem 0">'
        '<div style="position:relative">'
        f'<video controls preload="auto" style="display:block;width:100%" aria-label="{html.escape(words)}" '
        f'src="data:{kind};base64,{source}"></video>{_boxes(example)}</div>'
        f'<div style="font-size:0.8rem;line-height:1.2">{strips}'
        f'<div style="display:flex;justify-content:space-between"><span>0 s</span><span data-told></span>'
        f"<span>{example.duration:g} s</span></div></div>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure><script>{SCRIPT % mark}</script>"
    )
    show_player(markup, f"{caption} {in_words(example)}", results)


def region_edges(example: Example) -> np.ndarray:
    """Where, in s, the regions are drawn: those of a frame share its second, side by side; float [regions + 1]."""
    times, counts = np.unique(example.regions.times, return_counts=True)
    seconds = np.append(np.floor(times), example.duration)  # the last frame stays on show until the end
    parts = [
        np.linspace(start, end, count, endpoint=False)
        for start, end, count in zip(seconds[:-1], seconds[1:], counts, strict=True)
    ]
    return np.concatenate([*parts, seconds[-1:]])


def _boxes(example: Example) -> str:
    """A group of boxes for each frame; a script shows the one of the current second."""
    groups = []
    for number, time in enumerate(np.unique(example.regions.times)):
        there = np.flatnonzero(example.regions.times == time)
        order = there[np.argsort(example.region_scores[there], kind="stable")]  # the highest on top
        boxes = "".join(_box(example.regions.boxes[at], example.region_scores[at]) for at in order)
        best = f"highest region of the frame: {example.region_scores[there].max():.2f}"
        hidden = ' style="display:none"' if number else ""
        groups.append(f'<g data-time="{time:g}" data-best="{best}"{hidden}>{boxes}</g>')
    return (
        f'<svg viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true" style="{OVER}">{"".join(groups)}</svg>'
    )


def _box(box: np.ndarray, opacity: float) -> str:
    left, top, right, bottom = box
    return (
        f'<rect x="{left:.4f}" y="{top:.4f}" width="{right - left:.4f}" height="{bottom - top:.4f}" fill="none" '
        f'stroke="lime" stroke-width="3" stroke-opacity="{opacity:.3f}" vector-effect="non-scaling-stroke"/>'
    )


def _strip(name: str, edges: np.ndarray, scores: np.ndarray, duration: float) -> str:
    """Scores as colours over time, with a line that moves."""
    if not len(scores):
        return f"<div>{name}: no scores</div>"
    colours = colormaps["hot"](scores)
    cells = "".join(
        f'<rect x="{start:.3f}" width="{end - start:.3f}" height="1" fill="{to_hex(colour)}"/>'
        for start, end, colour in zip(edges[:-1], edges[1:], colours, strict=True)
    )
    cursor = (
        '<line data-cursor y2="1" stroke="deepskyblue" stroke-width="3" vector-effect="non-scaling-stroke" '
        'transform="translate(0 0)"/>'
    )
    told = f"Scores of {len(scores)} {name} over time"
    return f"<div>{name}</div>{_over_time(cells + cursor, duration, '1.1rem', told)}"


def _bars(name: str, spans: Spans, colour: tuple[float, float, float], duration: float) -> str:
    """When something was planted, as thin bars over time."""
    if not spans:
        return ""
    bars = "".join(
        f'<rect x="{start:.3f}" width="{end - start:.3f}" height="1" fill="{to_hex(colour)}"/>' for start, end in spans
    )
    told = f"{name}: {', '.join(f'{start:.1f} to {end:.1f} s' for start, end in spans)}"
    return f"<div>planted: {told}</div>{_over_time(bars, duration, '0.35rem', told)}"


def _over_time(drawn: str, duration: float, height: str, told: str) -> str:
    style = f"display:block;width:100%;height:{height};outline:1px solid gray"
    return (
        f'<svg role="img" aria-label="{told}" viewBox="0 0 {duration:g} 1" preserveAspectRatio="none" '
        f'shape-rendering="crispEdges" style="{style}">{drawn}</svg>'
    )
