"""What the chapter on Parekh et al. (2018) works with and what it costs: features, proposals, sampler, own clips."""

from __future__ import annotations

import numpy as np
import seaborn as sns
from matplotlib import pyplot
from matplotlib.patches import Rectangle
from scipy.special import logsumexp

from avrepro.evaluation.localisation import segment_times
from avrepro.experiments.parekh2018 import Inputs, Systems
from avrepro.media import read_frames
from avrepro.report import origin, published, show_figure, show_note, show_table
from avrepro.report.parekh2018 import SYSTEMS, measured
from avrepro.results import Results

PAPER = published("parekh2018")["settings"]


def features_table(inputs: Inputs) -> None:
    """What proposals come from and what is frozen, in the paper and in this run."""
    regions, segments = (bags.arrays[0].shape[1] for bags in (inputs.regions, inputs.segments))
    rows = [
        ["edges for EdgeBoxes", "structured edges (MATLAB)", inputs.edges],
        ["network that sees regions", f"CaffeNet, {PAPER['region_features']['value']} values",
         f"{inputs.image_network}, {regions} values"],
        ["network that hears segments", f"VGGish, {PAPER['segment_features']['value']} values",
         f"{inputs.audio_network}, {segments} values"],
    ]  # fmt: skip
    caption = "What the proposals come from and which frozen networks describe them."
    show_table(["", "paper (section 4)", "this run"], rows, caption)


def proposals_figure(inputs: Inputs, row: int) -> None:
    """A clip as the systems get it: frames with their best boxes, and the segments of the sound."""
    clip, regions = inputs.corpus.clips[row], inputs.proposals(row)
    segments = int(inputs.segments.sizes[row])
    if not len(regions.times) or not segments:
        show_note(f"Clip {clip.id} has only one of sound and pictures; its proposals are not drawn.")
        return
    every = np.unique(regions.times)
    times = every[np.linspace(0, len(every) - 1, min(3, len(every))).astype(int)]
    frames, _ = read_frames(clip.path, times=times)
    height, width = frames.shape[1:3]
    figure = pyplot.figure(figsize=(10, 5), layout="constrained")
    grid = figure.add_gridspec(2, len(times), height_ratios=(2.2, 1))
    for column, (time, frame) in enumerate(zip(times, frames, strict=True)):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(frame)
        boxes = regions.boxes[regions.times == time]
        for rank, (left, top, right, bottom) in enumerate(boxes * [width, height, width, height]):
            axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, linewidth=1.5,
                                     color=sns.color_palette("viridis", len(boxes))[rank]))  # fmt: skip
        axes.set_title(f"{time:.1f} s: {len(boxes)} boxes", fontsize=9)
        axes.axis("off")
    below = figure.add_subplot(grid[1, :])
    for k, (start, end) in enumerate(segment_times(segments)):
        below.barh(k % 2, end - start, left=start, height=0.8, color=("0.75", "0.55")[k % 2], edgecolor="white")
    end = segment_times(segments)[-1, 1]
    below.set(xlabel="time, s", yticks=[], xlim=(0, max(end, every[-1] + 0.5)), title=f"{segments} segments of sound")
    show_figure(
        figure,
        f"Clip {clip.id} ({', '.join(clip.labels) or 'no labelled event'}) as proposals: {len(regions.times)} regions "
        f"in {len(every)} frames, here {len(times)} of them with their boxes, the best darkest; and {segments} "
        f"segments of 0.96 s every 0.48 s, drawn in two rows because they overlap. The last ends at {end:.2f} s.",
        f"{len(times)} frames of a clip with boxes drawn on them, above a strip of {segments} overlapping segments.",
    )


def sampler_figure(results: Results) -> None:
    """Positive clips of each class in training, and in as many draws of the balanced batches."""
    if not measured(results):
        return
    labels = list(results.select(system="corpus", metric="positive_clips", split="train")["label"])
    counts = {
        system: np.array([results.number(system, "positive_clips", "train", label).value for label in labels])
        for system in ("corpus", "sampler")
    }
    order = np.argsort(-counts["corpus"], kind="stable")
    figure, axes = pyplot.subplots(figsize=(8, 0.3 * len(labels) + 1.2))
    blue, orange = sns.color_palette("colorblind")[:2]
    axes.hlines(range(len(labels)), counts["corpus"][order], counts["sampler"][order], color="0.8")
    for system, title, colour, marker in (
        ("corpus", "as they are", blue, "o"),
        ("sampler", "in balanced batches", orange, "s"),
    ):
        axes.plot(counts[system][order], range(len(labels)), marker, color=colour, label=title)
    axes.set_yticks(range(len(labels)), [labels[k] for k in order])
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel="clips with the label (logarithmic)", title=origin(results))
    axes.set_xlim(0, 2 * max(values.max() for values in counts.values()))
    axes.legend()
    spans = {system: f"{values.min():.0f} to {values.max():.0f}" for system, values in counts.items()}
    show_figure(
        figure,
        f"Training clips that have each label, and draws that have it in as many draws of the balanced batches "
        f"({origin(results)}). A clip with several labels counts for each.",
        f"Dot chart of {len(labels)} classes on a logarithmic axis: {spans['corpus']} clips of a class as they are, "
        f"{spans['sampler']} in balanced batches.",
        results,
    )


def costs_table(results: Results) -> None:
    """Time and memory of features and trainings."""
    if not measured(results):
        return
    device = results.passport()["device"]
    rows = [
        [f"training, {SYSTEMS[system]}", f"{results.number(system, 'training_seconds').value:.0f} s"]
        for system in SYSTEMS
        if len(results.select(system=system, metric="training_seconds"))
    ]
    rows.append(["proposals and features, a clip", f"{results.number('features', 'seconds_per_clip').value:.2f} s"])
    rows.append(["peak memory", f"{results.number('corpus', 'peak_memory_mb').value / 1024:.1f} GB"])
    steps, batch = PAPER["steps"]["value"], PAPER["batch"]["value"]
    show_table(
        ["", f"here, on {device}"],
        rows,
        f"What the systems cost ({origin(results)}). The paper trains for {steps:,} steps of {batch} clips (section 4) "
        "and says neither how long that took nor on what.",
        results,
    )


def own_clips_table(inputs: Inputs, systems: Systems) -> None:
    """Own clips scored by a checkpoint: their labels beside what is heard and seen, and when."""
    if inputs.trains:
        return
    name = inputs.parameters.system
    trained, located = systems.trained[name], systems.located[name]
    rows = []
    for row, clip in enumerate(inputs.corpus.clips):
        said = [systems.classes[k] for k in np.flatnonzero(systems.scores[name][row] >= trained.thresholds)]
        times = {"segments": segment_times(int(inputs.segments.sizes[row])).mean(axis=1),
                 "regions": inputs.proposals(row).times}  # fmt: skip
        parts = [
            _best(located[part][row], times[part], systems.classes, name == "one_stream") if part in located else "–"
            for part in times
        ]
        rows.append([clip.id, "; ".join(clip.labels), *parts, "; ".join(said) or "none"])
    show_table(
        ["clip", "its labels", "heard most (where highest)", "seen most (where highest)", "said by the system"],
        rows,
        f"{len(rows)} own clips scored by the checkpoint {trained.path.name} ({SYSTEMS[name]}); nothing was trained on "
        f"them. It knows {len(systems.classes)} classes of its own: labels outside them cannot be found.",
    )
    if inputs.corpus.missing:
        left_out = [[clip.id, clip.reason] for clip in inputs.corpus.missing]
        show_table(["clip", "reason"], left_out, "Clips that could not be used.")


def _best(scores: np.ndarray, times: np.ndarray, classes: tuple[str, ...], soft_maximum: bool) -> str:
    """The three likeliest classes of one modality, each with the time of its highest proposal.

    scores: D (A, with a soft maximum) of one clip, [proposals, classes]; times: the middle of each proposal, s.
    """
    if not len(scores):
        return "nothing"
    whole = logsumexp(scores, axis=0) if soft_maximum else scores.sum(axis=0)
    top = np.argsort(-whole, kind="stable")[:3]
    return "; ".join(f"{classes[k]} ({times[scores[:, k].argmax()]:.1f} s)" for k in top)
