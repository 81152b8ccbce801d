"""A clip that plays in the page with its spectrogram, spans and scores in step, without libraries."""

from __future__ import annotations

import html
import io
import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
from matplotlib import colormaps, image

from avrepro.features.logmel import LogMel
from avrepro.media import probe, read_audio
from avrepro.report.display import Shown, note, send
from avrepro.report.figures import embedded
from avrepro.report.heat_strips import Localisation, Row, Spans, bars, boxes_at, in_words, rows_of, summary, times_text

EMBEDDED = 700_000  # bytes; larger clips are not put into the page
NARROW, BROAD = 480, 640  # px; how wide a clip is shown, where the page has the room
COLUMNS = 1000  # of a spectrogram at most

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


def player(path: Path, spans: Mapping[str, Spans], caption: str, results: Shown = None) -> None:
    """A clip with its spectrogram and, in step with it, spans over time.

    :param spans: name -> start and end of each, s, such as when an event was planted.
    """
    rows = [bars(name, those) for name, those in spans.items()]
    words = "; ".join([caption, *(f"{name}: {times_text(those)}" for name, those in spans.items())])
    duration = probe(path).duration
    _play(path, _spectrogram(path, duration), rows, "", caption, words, results, duration)


def localisation_player(found: Localisation, results: Shown = None) -> None:
    """A clip with the boxes of the current second over it, and the scores of regions and segments below it."""
    caption = (
        f"{summary(found)} Boxes: regions of the current second; the more opaque, the higher the score. Strips: scores "
        "of regions and of segments over time, brought to 0 (black) to 1 (white) in this clip; the blue line is now."
    )
    words = f"{summary(found)} {in_words(found)}"
    _play(found.clip.path, "", rows_of(found), _boxes(found), caption, words, results, found.duration)


def _play(
    path: Path, above: str, rows: Sequence[Row], over: str, caption: str, words: str, results: Shown, duration: float
) -> None:
    """The clip with a drawing over it, and rows below it; ``words`` are for those who do not see it."""
    content, width = path.read_bytes(), probe(path).width
    if len(content) > EMBEDDED:
        size, largest = (f"{size / 1000:.0f} kB" for size in (len(content), EMBEDDED))
        note(f"Clip {path.stem} is not embedded: it has {size}, pages take clips of up to {largest}. {words}", results)
        return
    kind = mimetypes.guess_type(path.name)[0] or "video/mp4"
    tag = "video" if width else "audio"
    mark = f"player-{uuid4().hex}"  # a page may hold several, and one clip twice
    markup = (
        f'<figure id="{mark}" style="width:{min(max(width, NARROW), BROAD)}px"><div style="position:relative">'
        f'<{tag} controls preload="auto" style="display:block;width:100%" aria-label="{html.escape(words)}" '
        f'src="{embedded(content, kind)}"></{tag}>{over}</div>'
        f'<div style="font-size:.85em;line-height:1.2">{above}{"".join(_row(row, duration) for row in rows)}'
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
        scored = boxes_at(found, time)
        boxes = "".join(
            f'<rect x="{left:.4f}" y="{top:.4f}" width="{right - left:.4f}" height="{bottom - top:.4f}" fill="none" '
            f'stroke="lime" stroke-width="3" stroke-opacity="{score:.3f}" vector-effect="non-scaling-stroke"/>'
            for (left, top, right, bottom), score in scored
        )
        best = f"highest region of the frame: {scored[-1][1]:.2f}"
        hidden = ' style="display:none"' if number else ""
        groups.append(f'<g data-time="{time:g}" data-best="{best}"{hidden}>{boxes}</g>')
    drawn = "".join(groups)
    return f'<svg viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true" style="{OVER}">{drawn}</svg>'


def _row(row: Row, duration: float) -> str:
    """A row with its name: bars, or a strip of scores with a line that moves."""
    if not len(row.spans):
        return f"<div>{html.escape(row.name)}: no scores</div>" if row.is_score else ""
    drawn = "".join(
        f'<rect x="{start:.3f}" width="{end - start:.3f}" height="1" fill="{colour}"/>'
        for (start, end), colour in zip(row.spans, row.colours, strict=True)
    )
    if row.is_score:
        label = f"Scores of {row.name} over time, {len(row.spans)} of them"
        return f"<div>{html.escape(row.name)}</div>{_over_time(drawn + CURSOR, duration, '1.1rem', label)}"
    label = f"{row.name}: {times_text(row.spans)}"
    return f"<div>{html.escape(label)}</div>{_over_time(drawn, duration, '.35rem', label)}"


def _over_time(drawn: str, duration: float, height: str, label: str) -> str:
    style = f"display:block;width:100%;height:{height};outline:1px solid gray"
    return (
        f'<svg role="img" aria-label="{html.escape(label)}" viewBox="0 0 {duration:g} 1" preserveAspectRatio="none" '
        f'shape-rendering="crispEdges" style="{style}">{drawn}</svg>'
    )
