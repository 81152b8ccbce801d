"""A clip that plays in the page with its spectrogram, spans and scores in step, without libraries."""

from __future__ import annotations

import html
import io
import mimetypes
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import uuid4

import numpy as np
from matplotlib import colormaps, image
from matplotlib.colors import to_hex

from avrepro.features.logmel import LogMel
from avrepro.media import probe, read_audio
from avrepro.report.display import Shown, note, send
from avrepro.report.figures import embedded
from avrepro.report.heat_strips import (
    SIGHT,
    SOUND,
    Localisation,
    Spans,
    edges_of_segments,
    in_words,
    summary,
    times_text,
)

EMBEDDED = 700_000  # bytes; larger clips are not put into the page
NARROW, BROAD = 480, 640  # px; how wide a clip is shown, where the page has the room
COLUMNS = 1000  # of a spectrogram at most

Drawn = Callable[[float], str]  # seconds of the clip -> strips in HTML

# Boxes are fractions of the frame, so the drawing is stretched over the video and follows its size by itself.
OVER = "position:absolute;inset:0;width:100%;height:100%;pointer-events:none"
CURSOR = (
    '<line data-cursor y2="1" stroke="deepskyblue" stroke-width="3" vector-effect="non-scaling-stroke" '
    'transform="translate(0 0)"/>'
)
SCRIPT = """<script>(() => {
  const player = document.getElementById("%s");
  const clip = player.querySelector("video, audio"), status = player.querySelector("[data-status]");
  const frames = [...player.querySelectorAll("g[data-time]")], cursors = player.querySelectorAll("[data-cursor]");
  const distance = (frame) => Math.abs(frame.dataset.time - clip.currentTime);
  let asked = 0;
  const draw = () => {
    const shown = frames.length ? frames.reduce((a, b) => (distance(b) <= distance(a) ? b : a)) : null;
    for (const frame of frames) frame.style.display = frame === shown ? "" : "none";
    for (const cursor of cursors) cursor.setAttribute("transform", `translate(${clip.currentTime} 0)`);
    status.textContent = `${clip.currentTime.toFixed(1)} s` + (shown ? `; ${shown.dataset.best}` : "");
    cancelAnimationFrame(asked);
    if (!clip.paused && !clip.ended) asked = requestAnimationFrame(draw);
  };
  for (const event of ["loadedmetadata", "play", "pause", "seeking", "timeupdate"]) clip.addEventListener(event, draw);
  draw();
})();</script>"""


def player(
    path: Path,
    scores: Mapping[str, np.ndarray] | None = None,
    spans: Mapping[str, Spans] | None = None,
    caption: str = "",
    results: Shown = None,
) -> None:
    """A clip with its spectrogram and, in step with it, scores and spans over time.

    :param scores: name -> float [steps], 0..1, evenly over the clip; drawn from black (0) to white (1).
    :param spans: name -> start and end of each, s, such as when an event was planted or found.
    """

    def strips(duration: float) -> str:
        drawn = [_spectrogram(path, duration)]
        drawn += [_bars(name, those, duration) for name, those in (spans or {}).items()]
        for name, values in (scores or {}).items():
            drawn.append(_strip(name, np.linspace(0, duration, len(values) + 1), np.asarray(values), duration))
        return "".join(drawn)

    told = [f"{name}: {times_text(those)}" for name, those in (spans or {}).items()]
    _play(path, strips, "", caption, "; ".join([caption or f"Clip {path.stem}", *told]), results)


def localisation_player(found: Localisation, results: Shown = None) -> None:
    """A clip with the boxes of the current second over it, and the scores of regions and segments below it."""

    def strips(duration: float) -> str:
        return (
            _bars("planted, in view", found.seen, duration, SIGHT)
            + _strip("regions", edges_of_regions(found), found.region_scores, duration)
            + _bars("planted, sounding", found.sounding, duration, SOUND)
            + _strip("segments", edges_of_segments(found), found.segment_scores, duration)
        )

    caption = (
        f"{summary(found)} Boxes: regions of the current second; the more opaque, the higher the score. Strips: scores "
        "of regions and of segments over time, brought to 0 (black) to 1 (white) in this clip; the blue line is now."
    )
    _play(
        found.clip.path, strips, _boxes(found), caption, f"{summary(found)} {in_words(found)}", results, found.duration
    )


def edges_of_regions(found: Localisation) -> np.ndarray:
    """Where, in s, the regions are drawn: those of a frame share its second, side by side; float [regions + 1]."""
    times, counts = np.unique(found.times, return_counts=True)
    seconds = np.append(np.floor(times), found.duration)  # the last frame stays on show until the end
    parts = [np.linspace(a, b, n, endpoint=False) for a, b, n in zip(seconds[:-1], seconds[1:], counts, strict=True)]
    return np.concatenate([*parts, seconds[-1:]])


def _play(
    path: Path, strips: Drawn, over: str, caption: str, words: str, results: Shown, duration: float = 0.0
) -> None:
    """The clip, a drawing over it, strips below it; ``words`` are for those who do not see it."""
    size, info = path.stat().st_size, probe(path)
    if size > EMBEDDED:
        note(
            f"Clip {path.stem} is not embedded to play: it has {size / 1000:.0f} kB, pages take clips of up to "
            f"{EMBEDDED / 1000:.0f} kB. {words}",
            results,
        )
        return
    duration = duration or info.duration
    kind = mimetypes.guess_type(path.name)[0] or "video/mp4"
    tag = "video" if info.width else "audio"
    width = min(max(info.width, NARROW), BROAD)
    mark = f"player-{uuid4().hex}"  # a page may hold several, and one clip twice
    markup = (
        f'<figure id="{mark}" style="width:{width}px"><div style="position:relative">'
        f'<{tag} controls preload="auto" style="display:block;width:100%" aria-label="{html.escape(words)}" '
        f'src="{embedded(path.read_bytes(), kind)}"></{tag}>{over}</div>'
        f'<div style="font-size:.85em;line-height:1.2">{strips(duration)}'
        '<div style="display:flex;justify-content:space-between"><span>0 s</span><span data-status></span>'
        f"<span>{duration:g} s</span></div></div>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>{SCRIPT % mark}"
    )
    send(markup, words, results)


def spectrogram(path: Path, duration: float) -> np.ndarray:
    """Log-mel spectrogram of a clip's sound as a picture, uint8 [64, columns, 4], low sounds at the bottom."""
    front_end = LogMel.yamnet()
    import torch

    waveform = torch.from_numpy(read_audio(path, front_end.sample_rate, duration))
    log_mel = front_end(waveform[None])[0].numpy()  # (frames, mels)
    step = -(-len(log_mel) // COLUMNS)
    columns = np.array([log_mel[at : at + step].mean(axis=0) for at in range(0, len(log_mel), step)])
    low, high = np.quantile(columns, [0.02, 0.998])
    scaled = np.clip((columns - low) / max(high - low, 1e-9), 0, 1)
    return (255 * colormaps["magma"](scaled.T[::-1])).astype(np.uint8)


def _spectrogram(path: Path, duration: float) -> str:
    if not probe(path).sample_rate:
        return "<div>no sound</div>"
    file = io.BytesIO()
    image.imsave(file, spectrogram(path, duration), format="png")
    picture = (
        f'<image href="{embedded(file.getvalue(), "image/png")}" width="{duration:g}" height="1" '
        'preserveAspectRatio="none"/>'
    )
    label = "Spectrogram of the sound, low tones at the bottom"
    return f"<div>sound (log-mel)</div>{_over_time(picture + CURSOR, duration, '4.5rem', label)}"


def _boxes(found: Localisation) -> str:
    """A group of boxes for each frame; a script shows the one of the current second."""
    groups = []
    for number, time in enumerate(np.unique(found.times)):
        there = np.flatnonzero(found.times == time)
        order = there[np.argsort(found.region_scores[there], kind="stable")]  # the highest on top
        boxes = "".join(_box(found.boxes[at], found.region_scores[at]) for at in order)
        best = f"highest region of the frame: {found.region_scores[there].max():.2f}"
        hidden = ' style="display:none"' if number else ""
        groups.append(f'<g data-time="{time:g}" data-best="{best}"{hidden}>{boxes}</g>')
    drawn = "".join(groups)
    return f'<svg viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true" style="{OVER}">{drawn}</svg>'


def _box(box: np.ndarray, opacity: float) -> str:
    left, top, right, bottom = box
    return (
        f'<rect x="{left:.4f}" y="{top:.4f}" width="{right - left:.4f}" height="{bottom - top:.4f}" fill="none" '
        f'stroke="lime" stroke-width="3" stroke-opacity="{opacity:.3f}" vector-effect="non-scaling-stroke"/>'
    )


def _strip(name: str, edges: np.ndarray, scores: np.ndarray, duration: float) -> str:
    """Scores [n], 0..1, as colours between edges [n + 1] in s, with a line that moves."""
    if not len(scores):
        return f"<div>{html.escape(name)}: no scores</div>"
    colours = [to_hex(colour) for colour in colormaps["hot"](np.asarray(scores, dtype=float))]
    cells = "".join(_cell(a, b, colour) for a, b, colour in zip(edges[:-1], edges[1:], colours, strict=True))
    label = f"Scores of {name} over time, {len(scores)} of them"
    return f"<div>{html.escape(name)}</div>{_over_time(cells + CURSOR, duration, '1.1rem', label)}"


def _bars(name: str, spans: Spans, duration: float, colour: str = SOUND) -> str:
    """Spans as thin bars over time."""
    if not len(spans):
        return ""
    bars = "".join(_cell(start, end, colour) for start, end in spans)
    label = f"{name}: {times_text(spans)}"
    return f"<div>{html.escape(label)}</div>{_over_time(bars, duration, '.35rem', label)}"


def _cell(start: float, end: float, colour: str) -> str:
    return f'<rect x="{start:.3f}" width="{end - start:.3f}" height="1" fill="{colour}"/>'


def _over_time(drawn: str, duration: float, height: str, label: str) -> str:
    style = f"display:block;width:100%;height:{height};outline:1px solid gray"
    return (
        f'<svg role="img" aria-label="{html.escape(label)}" viewBox="0 0 {duration:g} 1" preserveAspectRatio="none" '
        f'shape-rendering="crispEdges" style="{style}">{drawn}</svg>'
    )
