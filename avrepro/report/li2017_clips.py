"""Tables and figures of what the chapter on Li et al. (2017) works with: clips, objects, words."""

from __future__ import annotations

import numpy as np
import seaborn as sns
from matplotlib import pyplot

from avrepro.corpora.base import SPLITS, Corpus
from avrepro.experiments.li2017 import Branches, Inputs
from avrepro.media import read_frames
from avrepro.models.li2017 import fuse
from avrepro.report import show_figure, show_table


def corpus_table(corpus: Corpus) -> None:
    """Clips and positive clips a class, by split, and what is missing."""
    parts = {split: corpus.split(split) for split in SPLITS}
    present = [split for split in SPLITS if parts[split].clips or parts[split].missing]
    rows: list[list[object]] = [["clips", *(len(parts[split].clips) for split in present)]]
    rows += [["clips that cannot be used", *(len(parts[split].missing) for split in present)]]
    counts = {split: parts[split].targets().sum(axis=0) for split in present}
    rows += [[label, *(counts[split][k] for split in present)] for k, label in enumerate(corpus.classes)]
    show_table(["", *present], rows, f"Corpus {corpus.name}: clips, and positive clips of each class, by split.")
    if corpus.missing:
        show_table(["clip", "reason"], [[clip.id, clip.reason] for clip in corpus.missing], "Clips left out.")


def clip_figure(inputs: Inputs, row: int) -> None:
    """A clip as both branches get it: its log-mel spectrogram and its key frames."""
    clip = inputs.corpus.clips[row]
    times = np.sort(inputs.key_times[row])
    frames, _ = read_frames(clip.path, times=times)
    figure = pyplot.figure(figsize=(10, 4.6), layout="constrained")
    grid = figure.add_gridspec(2, len(times), height_ratios=(1.2, 1))
    top = figure.add_subplot(grid[0, :])
    image = top.imshow(
        inputs.log_mel[row].T.astype(np.float32), origin="lower", aspect="auto", cmap="magma", extent=(0, 10, 0, 60)
    )
    top.set(xlabel="time, s", ylabel="mel band", title=f"{clip.id}: {', '.join(clip.labels) or 'no labelled event'}")
    figure.colorbar(image, ax=top, label="log energy")
    for column, (time, frame) in enumerate(zip(times, frames, strict=True)):
        axes = figure.add_subplot(grid[1, column])
        axes.imshow(frame)
        axes.set_title(f"{time:.2f} s", fontsize=9)
        axes.axis("off")
        top.axvline(time, color="white", linewidth=1, linestyle=":")
    show_figure(
        figure,
        f"Clip {clip.id}: its log-mel spectrogram (2000 frames of 60 bands) and the {len(times)} key frames that "
        "DS3 chose; dotted lines mark their times.",
        f"Spectrogram of 10 s of sound above {len(times)} small pictures taken from the same clip.",
    )


def objects_table(inputs: Inputs, branches: Branches, row: int) -> None:
    """What the picture branch recognises in a clip, and to which events it gives it."""
    shown = np.argsort(-branches.objects[row], kind="stable")[:10]
    nearest = branches.similarity.argmax(axis=1)
    rows = [
        [
            branches.recogniser.objects[k],
            f"{branches.objects[row, k]:.2f}",
            branches.classes[nearest[k]],
            f"{branches.similarity[k, nearest[k]]:.2f}",
        ]
        for k in shown
        if branches.objects[row, k] > 0
    ]
    clip = inputs.corpus.clips[row]
    caption = (
        f"Objects recognised in clip {clip.id} ({', '.join(clip.labels) or 'no labelled event'}) by the "
        f"{branches.recogniser.name}, and the sound event whose words are nearest. Each event gets the sum of its "
        "objects."
    )
    show_table(["object", "probability", "nearest sound event", "cosine of the words"], rows, caption)


def words_figure(branches: Branches) -> None:
    """How many objects lie nearest to each event: what the word vectors do with the vocabulary."""
    nearest = np.bincount(branches.similarity.argmax(axis=1), minlength=len(branches.classes))
    figure, axes = pyplot.subplots(figsize=(8, 4))
    axes.barh(range(len(nearest)), nearest, color=sns.color_palette("colorblind")[2])
    axes.set_yticks(range(len(nearest)), branches.classes)
    axes.invert_yaxis()
    axes.set(xlabel=f"objects (of {len(branches.recogniser.objects)}) whose nearest event it is")
    missing = sorted({word for words in branches.words.missing.values() for word in words})
    shown = f"{', '.join(missing[:12])}{' and more' if len(missing) > 12 else ''}" if missing else "none"
    show_figure(
        figure,
        f"Objects of the recogniser's vocabulary by nearest sound event. Words without a vector: {shown}.",
        f"Bar chart: objects nearest to each of {len(nearest)} sound events, from {nearest.min()} to {nearest.max()}.",
    )


def sources_table(inputs: Inputs, branches: Branches) -> None:
    """Where the words send the objects that show a sound's source; the demo world knows where they belong."""
    if not inputs.corpus.name.startswith("demo"):
        return
    from avrepro.corpora.demo.pictures import SIGHTS

    belongs: dict[str, list[str]] = {}
    for label, names in SIGHTS.items():
        for name in names:
            belongs.setdefault(name, []).append(label)
    nearest = branches.similarity.argmax(axis=1)
    rows = []
    for name, labels in belongs.items():
        sent = branches.classes[nearest[branches.recogniser.objects.index(name)]]
        rows.append([name, ", ".join(labels), sent, "right" if sent in labels else "wrong"])
    right = sum(row[-1] == "right" for row in rows)
    caption = (
        "The drawn objects that show a source, the sound events they belong to, and the event whose words are "
        f"nearest: {right} of {len(rows)} are right."
    )
    show_table(["object", "shows the source of", "nearest sound event", ""], rows, caption)


def own_clips_table(inputs: Inputs, branches: Branches) -> None:
    """Own clips scored by a checkpoint: their labels beside what each branch hears and sees."""
    if inputs.trains:
        return
    fused = fuse(branches.audio_scores, branches.video_scores, branches.fusion.papers_weights)

    def best(scores: np.ndarray) -> str:
        top = np.argsort(-scores, kind="stable")[:3]
        return ", ".join(f"{branches.classes[k]} {scores[k]:.2f}" for k in top)

    rows = []
    for row, clip in enumerate(inputs.corpus.clips):
        said = [branches.classes[k] for k in np.flatnonzero(fused[row] >= branches.fusion.thresholds["fused"])]
        seen = np.argsort(-branches.objects[row], kind="stable")[:3]
        objects = ", ".join(f"{branches.recogniser.objects[k]} {branches.objects[row, k]:.2f}" for k in seen)
        heard, looked = best(branches.audio_scores[row]), best(branches.video_scores[row])
        rows.append([clip.id, ", ".join(clip.labels), heard, objects, looked, ", ".join(said) or "none"])
    head = [
        "clip",
        "its labels",
        "heard (score)",
        "objects seen (probability)",
        "events they stand for",
        "said by the fusion",
    ]
    caption = (
        f"{len(rows)} own clips scored by the checkpoint {branches.audio.path.name}; nothing was trained on them. "
        f"It knows {len(branches.classes)} classes of its own: labels outside them cannot be found."
    )
    show_table(head, rows, caption)
    if inputs.corpus.missing:
        left_out = [[clip.id, clip.reason] for clip in inputs.corpus.missing]
        show_table(["clip", "reason"], left_out, "Clips that could not be used.")
