"""Tables, figures and players of the data chapter: corpora, demo world, sources. It computes nothing."""

from __future__ import annotations

import base64
import html
import io
from fractions import Fraction

import av
import numpy as np
import seaborn as sns
from matplotlib import pyplot

from avrepro.experiments.data import Example, Span
from avrepro.experiments.data_hearing import FAMILIES
from avrepro.manifests import source, sources
from avrepro.report import percent, say, show_figure, show_note, show_table
from avrepro.results import Results

COLOURS = sns.color_palette("colorblind")


def missing_note(results: Results | None, *names: str) -> bool:
    """Whether a part of the chapter has nothing to show, with a note that says why and what to do."""
    if results is None:
        what = "; ".join(source(name).what for name in names)
        commands = " and ".join(f"avrepro data fetch {name}" for name in names)
        show_note(f"Not fetched: {what}. Run: {commands}; then this chapter again.")
    return results is None


def count(results: Results, system: str, metric: str, label: str = "", split: str = "") -> str:
    """A whole number, with separators."""
    return f"{results.number(system, metric, split, label).value:,.0f}"


def corpora_table(world: Results, manifests: Results, dcase2017: Results | None, audioset: Results | None) -> None:
    """The corpora of the book: how large, on what terms, and whether this run had them."""
    made = "none needed; drawings CC BY-SA 4.0"
    items = ", ".join(
        f"{count(manifests, 'paired', f'{kind}_items')} {name}"
        for kind, name in (("audio", "sounds"), ("image", "pictures"))
    )
    esc10 = [count(manifests, "esc10", "clips"), count(manifests, "esc10", "classes"), "1"]
    hours = f"{manifests.number('esc10', 'hours').value:.1f}"
    rows = [
        ["demo (made)", *_sizes(world, "corpus"), "rendered", made],
        ["demo-null (made)", *_sizes(world, "corpus"), "rendered when used", made],
        ["paired (real)", items, count(manifests, "paired", "classes"), "1", "–", _here(manifests, "paired"),
         _licence("paired")],
        ["esc10 (real)", *esc10, hours, _here(manifests, "esc10"), _licence("esc10")],
        _listed_row("dcase2017", "dcase2017_task4", dcase2017, manifests),
        _listed_row("audioset", "audioset", audioset, manifests),
    ]  # fmt: skip
    show_table(
        ["corpus", "clips", "classes", "labels a clip", "hours", "in this run", "licence"],
        rows,
        "The corpora of this book. Sizes of published corpora are those of their official lists; the clips "
        "themselves are fetched apart from them. The section on sources has the whole licences.",
        manifests,
    )


def world_table(world: Results) -> None:
    """The demo world by split: clips, labels, and clips of each class."""
    splits = ("train", "validation", "test")
    rows = [
        ["clips", *(count(world, "corpus", "clips", split=split) for split in splits)],
        ["labels a clip", *(f"{world.number('corpus', 'labels_per_clip', split).value:.2f}" for split in splits)],
    ]
    for label in world.select(system="corpus", metric="clips_with_label", split="train")["label"]:
        rows.append([label, *(count(world, "corpus", "clips_with_label", label, split) for split in splits)])
    profile = world.passport()["profile"]
    show_table(["", *splits], rows, f"The demo world, profile {profile}: clips that bear each label, by split.", world)


def timeline(shown: Example) -> None:
    """Spectrogram, what sounds and what is in view in one clip, on one axis of time."""
    heard = [(f"hear: {span.name}", span) for span in shown.heard]
    seen: dict[str, list[Span]] = {}
    for span in shown.seen:
        seen.setdefault(f"see: {span.name}", []).append(span)
    rows = [(name, [span]) for name, span in heard] + list(seen.items())
    figure, (top, bottom) = pyplot.subplots(
        2, 1, figsize=(8.5, 3.0 + 0.32 * len(rows)), height_ratios=(2.4, 0.36 * len(rows) + 0.2), sharex=True,
        layout="constrained",
    )  # fmt: skip
    top.imshow(
        shown.log_mel.T,
        origin="lower",
        aspect="auto",
        cmap="magma",
        extent=(0, shown.duration, 0, shown.log_mel.shape[1]),
    )
    top.set(ylabel="mel band", title=f"{shown.clip.id}: {', '.join(shown.clip.labels)}")
    for place, (name, spans) in enumerate(rows):
        sound = name.startswith("hear")
        for span in spans:
            colour = (COLOURS[0] if sound else COLOURS[1]) if span.label else "0.7"
            hatch = "" if sound else "//"
            bottom.barh(place, span.end - span.start, 0.7, span.start, color=colour, hatch=hatch, edgecolor="white")
    bottom.set_yticks(range(len(rows)), [_with_class(name, spans[0]) for name, spans in rows])
    bottom.invert_yaxis()
    bottom.set(xlabel="time, s", xlim=(0, shown.duration))
    bottom.grid(axis="x", alpha=0.4)
    told = "; ".join(
        f"{_with_class(name, spans[0])} {' and '.join(f'{span.start:.1f} to {span.end:.1f} s' for span in spans)}"
        for name, spans in rows
    )
    show_figure(
        figure,
        f"Test clip {shown.clip.id} of the demo world. Above: its log-mel spectrogram, natural logarithm of energy. "
        "Below: what was planted. Plain bars: sounds; hatched: things in view. Blue and orange belong to one of "
        f"the 17 classes, grey bars to none. Background: {', '.join(shown.beds) or 'the recorder alone'}. Models "
        "are told the labels in the title and nothing else.",
        f"Spectrogram of {shown.duration:g} s above bars of time: {told}.",
    )


def frames_figure(shown: Example) -> None:
    """Pictures of one clip at equal distances."""
    figure, panels = pyplot.subplots(2, len(shown.times) // 2, figsize=(8.5, 4.6), layout="constrained")
    for axes, time, picture in zip(panels.flat, shown.times, shown.pictures, strict=True):
        axes.imshow(picture)
        axes.set_title(f"{time:.2f} s", fontsize=9)
        axes.axis("off")
    things = list(dict.fromkeys(span.name for span in shown.seen))
    height, width = shown.pictures.shape[1:3]
    show_figure(
        figure,
        f"Pictures of clip {shown.clip.id}, {width} × {height} px. Drawings: OpenMoji, CC BY-SA 4.0.",
        f"{len(shown.times)} small pictures of a made street; in view in the clip: {', '.join(things) or 'nothing'}.",
    )


def clip_player(shown: Example) -> None:
    """The very file of one clip, playable in the page."""
    sounds = ", ".join(f"{span.name} from {span.start:.1f} to {span.end:.1f} s" for span in shown.heard)
    caption = (
        f"Clip {shown.clip.id} as models read it ({shown.clip.path.stat().st_size / 1000:.0f} kB of mp4): {sounds}."
    )
    video = (
        f'<video controls preload="auto" width="384" aria-label="{html.escape(caption, quote=True)}" '
        f'src="data:video/mp4;base64,{base64.b64encode(shown.clip.path.read_bytes()).decode()}"></video>'
    )
    _show_players(f"<figure>{video}<figcaption>{html.escape(caption)}</figcaption></figure>", caption)


def sound_players(sounds: dict[str, tuple[np.ndarray, int]]) -> None:
    """A player for each class: waveform float32 [samples] and its rate (Hz)."""
    figures = []
    for label, (waveform, rate) in sounds.items():
        spoken = html.escape(f"Made sound of {label}, {len(waveform) / rate:g} s", quote=True)
        audio = (
            f'<audio controls preload="metadata" style="width:100%" aria-label="{spoken}" '
            f'src="data:audio/mpeg;base64,{base64.b64encode(mp3(waveform, rate)).decode()}"></audio>'
        )
        figures.append(f'<figure style="margin:0">{audio}<figcaption>{html.escape(label)}</figcaption></figure>')
    grid = '<div style="display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:0.8rem">'
    caption = f"The {len(sounds)} classes as the demo world makes them: one rendering each, without room or background."
    _show_players(f"{grid}{''.join(figures)}</div><p>{html.escape(caption)}</p>", f"{caption} {', '.join(sounds)}")


def mp3(waveform: np.ndarray, rate: int) -> bytes:
    """Sound as mp3, which every browser plays: waveform float32 [samples], -1..1, at ``rate`` Hz."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=rate, layout="mono", format="fltp")
        stream.bit_rate = 48_000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform[None], np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def families_table() -> None:
    """Which of AudioSet's names count as right for which class."""
    classes: dict[tuple[str, ...], list[str]] = {}
    for label, family in FAMILIES.items():
        classes.setdefault(family, []).append(label)
    rows = [["; ".join(labels), "; ".join(family)] for family, labels in classes.items()]
    show_table(
        ["classes", "names that count as right"], rows, "Families, written down before anything was listened to."
    )


def photographs_table(photographs: Results | None) -> None:
    """What the picture network says of photographs of its own classes."""
    if missing_note(photographs, "imagenet_samples") or photographs is None:
        return
    system = "EfficientNet-lite0"
    counts = [count(photographs, system, metric) for metric in ("photographs", "right")]
    show_table(
        ["network", "photographs", "named right at once", "share, %"],
        [[system, *counts, percent(photographs.number(system, "accuracy"))]],
        "The picture network of profile demo on sample photographs of ImageNet, one of each of some classes. They may "
        "be pictures it was taught on: the share tells that weights and preparation are right, not how well it names "
        "new ones.",
        photographs,
    )


def hearing_table(world: Results) -> None:
    """What YAMNet says of each class's sounds."""
    if not len(world.select(system="YAMNet")):
        missing_note(None, "yamnet")
        return
    heard = world.select(system="YAMNet", metric="heard").sort_values("value", ascending=False, kind="stable")
    rows = []
    for label in FAMILIES:
        names = heard[heard["label"].str.startswith(f"{label} | ")]
        said = "; ".join(f"{row.label.split(' | ')[1]} ({100 * row.value:.0f} %)" for row in names.head(3).itertuples())
        first, five = (world.number("YAMNet", f"family_{place}", label=label) for place in ("first", "among_five"))
        rows.append([label, said, percent(first), percent(five)])
    overall = [world.number("YAMNet", f"family_{place}") for place in ("first", "among_five")]
    rows.append(["all classes", "", *map(percent, overall)])
    firsts, fives = (count(world, "YAMNet", f"classes_family_{place}") for place in ("first", "among_five"))
    renderings = count(world, "YAMNet", "renderings")
    show_table(
        ["class", "YAMNet's first name (share of renderings; three at most)", "first name in the family, %",
         "one of the first five in the family, %"],
        rows,
        f"What YAMNet, which never heard the demo world, calls its sounds: {renderings} renderings of each class, "
        f"alone. In more than half of the renderings the family is right for {firsts} of {len(FAMILIES)} classes by "
        f"the first name, and for {fives} if one of the first five names may be it. Brackets: 95 % intervals "
        f"(bootstrap over renderings). Profile {world.passport()['profile']}.",
        world,
    )  # fmt: skip


def sources_table(manifests: Results) -> None:
    """What the project uses and does not hold."""
    rows = []
    for name, one in sources().items():
        size = manifests.select(system="source", metric="bytes", label=name)
        checks = ", ".join(dict.fromkeys(file.check for file in one.files))
        megabytes = f"{size.iloc[0]['value'] / 1e6:,.1f} MB" if len(size) else "size not told"
        here = _here(manifests, name)
        what = f"{one.what}. Licence: {one.licence}"
        rows.append([name, here, what, f"{count(manifests, 'source', 'files', name)}; {megabytes}", checks])
    show_table(
        ["source", "in this run", "what, and on what terms", "files", "checked by"],
        rows,
        "Sources, from the manifests in data_manifests. Files at hand lie in the cache or in the folder of "
        "AVREPRO_MIRROR.",
        manifests,
    )


def say_numbers(world: Results) -> None:
    """Name the numbers that the chapter's sentences use; those of the demo world, which is always there."""
    texts = {
        "world_clips": count(world, "corpus", "clips"),
        "world_hours": f"{world.number('corpus', 'hours').value:.1f}",
        "world_labels": f"{world.number('corpus', 'labels_per_clip').value:.2f}",
        "world_events": count(world, "planted", "events"),
        "world_profile": world.passport()["profile"],
        "events_labelled": percent(world.number("planted", "events_labelled")),
        "sources_seen": percent(world.number("planted", "sources_seen")),
        "seen_while_heard": percent(world.number("planted", "seen_while_heard")),
        "seen_silent": percent(world.number("planted", "seen_silent")),
    }
    for name, text in texts.items():
        say(name, text, world)


def _sizes(results: Results, system: str) -> list[str]:
    return [
        count(results, system, "clips"),
        count(results, system, "classes"),
        f"{results.number(system, 'labels_per_clip').value:.2f}",
        f"{results.number(system, 'hours').value:,.1f}",
    ]


def _listed_row(name: str, manifest: str, results: Results | None, manifests: Results) -> list[str]:
    sizes = ["–"] * 4 if results is None else _sizes(results, "list")
    here = f"lists {_here(manifests, manifest)}"
    if results is not None and len(results.select(metric="clips_at_hand")):
        here += f", {count(results, 'list', 'clips_at_hand')} clips"
    return [f"{name} (published)", *sizes, here, _licence(manifest)]


def _licence(name: str) -> str:
    return source(name).licence.split(";")[0]


def _here(manifests: Results, name: str) -> str:
    share = manifests.number("source", "at_hand", label=name).value
    return "at hand" if share == 1 else "partly fetched" if share else "not fetched"


def _with_class(name: str, span: Span) -> str:
    return f"{name} ({span.label})" if span.label and span.label != span.name else name


def _show_players(markup: str, text: str) -> None:
    from IPython.display import display

    display({"text/html": markup, "text/plain": text}, raw=True)
