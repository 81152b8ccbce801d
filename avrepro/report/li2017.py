"""Tables and figures of the chapter on Li et al. (2017)."""

from __future__ import annotations

import json

import numpy as np
import seaborn as sns
from matplotlib import pyplot

from avrepro.corpora.base import SPLITS
from avrepro.evaluation.intervals import Interval
from avrepro.experiments.li2017_profiles import PROFILES
from avrepro.report import origin, percent, published, say, show_figure, show_note, show_table
from avrepro.results import Results

PAPER = published("li2017")
COLUMNS = {"development": "validation", "test": "test", "evaluation": "evaluation"}  # the paper's names -> ours
SYSTEMS = {
    "class frequency": "Class frequencies alone (guessing)",
    "audio": "Audio only",
    "video": "Video only",
    "video, corrected words": "Video only, corrected words",
    "fused": "Audio + video (0.8 / 0.2)",
    "fused, corrected words": "Audio + video (0.8 / 0.2), corrected words",
    "fused, tuned weights": "Audio + video, tuned weights",
}
PLANTED = {
    "fused": "Audio + video as it is",
    "fused, true objects": "with the true objects in place of the recognised ones",
    "fused, true sources": "and with their true sound events in place of the words'",
}
NOT_TRAINED = "Not measured in this run: the clips are too few to train on, they were scored by a checkpoint."


def measured(results: Results) -> bool:
    """Whether the run trained and scored; else a note says that it did not."""
    if json.loads(results.passport()["parameters"])["dry"]:
        show_note("A dry run: two training steps on a few clips, to see that everything runs. It has no results.")
        return False
    if "micro_f1" in set(results.table["metric"]):
        return True
    show_note(NOT_TRAINED)
    return False


def splits_of(results: Results) -> list[str]:
    return [split for split in SPLITS if len(results.select(system="audio", metric="micro_f1", split=split))]


def settings_table(profile: str) -> None:
    """Where this run's settings differ from the paper's profile."""
    here, paper = (_flat(PROFILES[name].values()) for name in (profile, "paper"))
    rows = [[name.replace("_", " "), here[name], paper[name]] for name in paper if here[name] != paper[name]]
    caption = f"Settings in which profile {profile} differs from profile paper; all others are the same."
    show_table(["setting", f"profile {profile}", "profile paper"], rows, caption)


def table1(results: Results, real: Results) -> None:
    """Table 1 of the paper beside ours: micro F1 in percent. ``real`` was measured on real recordings."""
    if not measured(results):
        return
    told, place = PAPER["micro_f1"], f"published, {PAPER['corpus']}"
    measured_on = {name: split for name, split in COLUMNS.items() if split in splits_of(results)}
    lacking = [name for name in COLUMNS if name not in measured_on]
    head = [
        "micro F1, %",
        *(f"{name} ({place})" for name in COLUMNS),
        f"test (real recordings: {origin(real)})",
        *(f"{name} ({origin(results)})" for name in measured_on),
    ]
    rows = []
    for system, title in SYSTEMS.items():
        theirs = [told[system][name] if system in told else "–" for name in COLUMNS]
        ours = [percent(results.number(system, "micro_f1", split)) for split in measured_on.values()]
        rows.append([title, *theirs, percent(real.number(system, "micro_f1", "test")), *ours])
    show_table(
        head,
        rows,
        "Table 1. Micro-averaged F1 in percent: published (Li et al. 2017, Table 1, page 4), on clips of real "
        "sounds and photographs (mean over seeds, 95 % intervals over seeds), and on the corpus of this run (95 % "
        "intervals, bootstrap over clips). They are different corpora and cannot be compared with each other. "
        "Thresholds and weights were chosen on development clips, which makes that column too good."
        + (f" {results.passport()['corpus']} has no {', '.join(lacking)} clips." if lacking else ""),
        results,
    )


def gains_table(results: Results, null: Results | None = None) -> None:
    """What pictures add to audio alone, paired over clips; beside the world whose pictures tell nothing."""
    if not measured(results):
        return
    columns = [results] + ([null] if null is not None else [])
    head = ["gain over audio only, points of micro F1", *(f"test clips ({origin(one)})" for one in columns)]
    rows = [
        [
            SYSTEMS[name],
            *(percent(one.number(name, "micro_f1_gain", splits_of(one)[-1]), signed=True) for one in columns),
        ]
        for name in ("video", "fused", "fused, corrected words", "fused, tuned weights")
    ]
    caption = "Difference in micro F1 from audio only on the test clips, paired bootstrap over clips, 95 % intervals."
    show_table(head, rows, caption, results)
    if null is not None:
        ladder = [name for name in PLANTED if len(results.select(system=name))]
        show_table(
            head,
            [[PLANTED[n], *(percent(one.number(n, "micro_f1_gain", splits_of(one)[-1]), True) for one in columns)]
             for n in ladder],
            "Where the picture branch loses: the same differences with its parts replaced by what was planted. "
            "Second row: no mistake of the recogniser; third: none of the word vectors either.",
            results,
        )  # fmt: skip
        show_table(
            ["system", *(f"micro F1, % ({origin(one)})" for one in columns)],
            [
                [SYSTEMS[n], *(percent(one.number(n, "micro_f1", splits_of(one)[-1])) for one in columns)]
                for n in SYSTEMS
            ],
            "The same systems where every clip shows the pictures of another clip.",
            null,
        )


def figure3(results: Results) -> None:
    """Figure 3 of the paper: class-wise F1, audio only against fused, video-weighted classes marked."""
    if not measured(results):
        return
    split = splits_of(results)[-1]
    labels = list(results.select(system="audio", metric="class_f1", split=split)["label"])
    weights = {label: results.number("fused", "video_weight", label=label).value for label in labels}
    names = [f"{label} (V)" if weights[label] > 0.5 else label for label in labels]
    figure, axes = pyplot.subplots(figsize=(10, 5.5))
    colours = sns.color_palette("colorblind")
    for offset, system, colour in ((-0.2, "audio", colours[0]), (0.2, "fused", colours[1])):
        numbers = [results.number(system, "class_f1", split, label) for label in labels]
        values = np.array([number.value for number in numbers])
        errors = np.array([[number.value - number.low, number.high - number.value] for number in numbers]).T
        places = np.arange(len(labels)) + offset
        axes.bar(places, 100 * values, 0.4, yerr=100 * errors.clip(min=0), color=colour, label=SYSTEMS[system],
                 error_kw={"elinewidth": 0.8})  # fmt: skip
    axes.set_xticks(range(len(labels)), names, rotation=45, ha="right")
    axes.set(ylabel="class F1 on test clips, %", ylim=(0, 100), title=origin(results))
    axes.legend(loc="upper right")
    better = [label for label in labels if results.number("fused", "class_f1_gain", split, label).value > 0]
    show_figure(
        figure,
        "Figure 3. F1 of each class (%), audio only and audio + video, on the test clips; lines are 95 % "
        "intervals. (V): classes in which the video branch was better on validation and weighs 0.8. Measured on "
        f"{origin(results)}; the paper's Figure 3 shows the same for {PAPER['corpus']}.",
        f"Bar chart of class F1 for {len(labels)} classes; fusion is higher than audio only in {len(better)}: "
        f"{', '.join(better)}.",
        results,
    )


def classes_table(results: Results) -> None:
    """Class by class: F1 of each branch, gain, and who weighs more, beside the paper's seven classes."""
    if not measured(results):
        return
    split = splits_of(results)[-1]
    labels = list(results.select(system="audio", metric="class_f1", split=split)["label"])
    rows = []
    for label in labels:
        numbers = [results.number(system, "class_f1", split, label) for system in ("audio", "video", "fused")]
        gain = results.number("fused", "class_f1_gain", split, label)
        weights = [results.number(s, "video_weight", label=label).value for s in ("fused", "fused, tuned weights")]
        theirs = "video" if label in PAPER["claims"]["video_better"]["classes"] else "audio"
        rows.append(
            [label, *(percent(n) for n in numbers), percent(gain, signed=True), *(f"{w:.1f}" for w in weights), theirs]
        )
    head = ["class", "audio F1, %", "video F1, %", "fused F1, %", "gain, points", "weight of video", "tuned weight"]
    head.append("better in the paper")
    caption = (
        f"F1 of each class on the test clips ({origin(results)}) with 95 % intervals (each class by itself), "
        "weights chosen on validation, and which branch the paper found better on validation (section 3.4, "
        f"{PAPER['corpus']})."
    )
    show_table(head, rows, caption, results)


def learning_curves(results: Results) -> None:
    """Loss and validation micro F1 by epoch, for the chosen optimiser and for the paper's."""
    if not measured(results):
        return
    systems = [
        name for name in ("audio", "audio, paper's optimiser") if len(results.select(system=name, metric="loss"))
    ]
    titles = {"audio": "this profile's optimiser", "audio, paper's optimiser": "the paper's optimiser"}
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 3.6))
    last = []
    for system, colour in zip(systems, sns.color_palette("colorblind"), strict=False):
        for metric, style in (("loss", "--"), ("validation_loss", "-")):
            curve = results.select(system=system, metric=metric).sort_values("step")
            name = f"{titles[system]}, {metric.replace('_', ' ')}"
            panels[0].plot(curve["step"], curve["value"], style, color=colour, label=name)
        curve = results.select(system=system, metric="validation_score").sort_values("step")
        panels[1].plot(curve["step"], 100 * curve["value"], color=colour, label=titles[system])
        last.append(f"{titles[system]} reaches {100 * curve['value'].max():.0f} % in {len(curve)} epochs")
    panels[0].set(xlabel="epoch", ylabel="cross entropy, nats")
    panels[1].set(xlabel="epoch", ylabel="validation micro F1, %", ylim=(0, 100))
    for panel in panels:
        panel.legend(fontsize=8)
    show_figure(
        figure,
        f"Learning curves of the audio branch ({origin(results)}). Left: cross entropy on training and validation "
        "clips. Right: micro F1 on the validation clips with thresholds tuned after each epoch.",
        f"Two line charts by epoch; {'; '.join(last)}.",
        results,
    )


def costs_table(results: Results) -> None:
    """Time and memory of both branches, ours and the paper's."""
    if not measured(results):
        return
    device = results.passport()["device"]
    claims = PAPER["claims"]
    training, scanning = claims["audio_training_hours"], claims["video_hours"]
    per_clip = results.number("video", "seconds_per_clip").value
    minutes = results.number("audio", "training_seconds").value / 60
    rows = [
        [
            "audio branch, training",
            f"{training['value']} h on a {training['device']}",
            f"{minutes:.1f} min on {device}",
        ],
        [
            "video branch, a clip",
            f"under {3600 * scanning['value'] / scanning['clips']:.2f} s ({scanning['value'] * 60:.0f} min for "
            f"{scanning['clips']} clips)",
            f"{per_clip:.2f} s on {device}",
        ],
        ["both branches, peak memory", "not said", f"{results.number('audio', 'peak_memory_mb').value / 1024:.1f} GB"],
    ]
    caption = (
        f"What the branches cost: the paper (section 3.5, {PAPER['corpus']}) and here ({origin(results)}). Other "
        "data, other networks: only the orders of magnitude say something."
    )
    show_table(["", "paper", "here"], rows, caption, results)


def say_numbers(results: Results, null: Results | None = None) -> None:
    """Name the numbers that the chapter's sentences use."""
    if not measured(results):
        return
    split = splits_of(results)[-1]
    labels = list(results.select(system="audio", metric="class_f1", split=split)["label"])
    audio, guess = (results.number(system, "micro_f1", split) for system in ("audio", "class frequency"))
    gains = [results.number("fused", "class_f1_gain", split, label).value for label in labels]
    weighted = [label for label in labels if results.number("fused", "video_weight", label=label).value > 0.5]
    texts = {
        "origin": origin(results),
        "audio_f1": percent(audio),
        "video_f1": percent(results.number("video", "micro_f1", split)),
        "fused_f1": percent(results.number("fused", "micro_f1", split)),
        "tuned_f1": percent(results.number("fused, tuned weights", "micro_f1", split)),
        "guess_f1": percent(guess),
        "above_guess": f"{100 * (audio.value - guess.value):.1f}",
        "gain": percent(results.number("fused", "micro_f1_gain", split), signed=True),
        "gain_verdict": verdict(results.number("fused", "micro_f1_gain", split)),
        "improved": f"{sum(gain > 0 for gain in gains)} of {len(labels)}",
        "video_weighted": f"{len(weighted)} of {len(labels)} ({', '.join(weighted) or 'none'})",
    }
    if len(results.select(metric="recogniser_accuracy")):
        texts["recogniser"] = percent(results.number("video", "recogniser_accuracy"))
    if null is not None:
        place = splits_of(null)[-1]
        texts["true_objects_gain"] = percent(results.number("fused, true objects", "micro_f1_gain", split), signed=True)
        texts["true_sources_gain"] = percent(results.number("fused, true sources", "micro_f1_gain", split), signed=True)
        texts["true_sources_null_gain"] = percent(
            null.number("fused, true sources", "micro_f1_gain", splits_of(null)[-1]), signed=True
        )
        texts["null_origin"] = origin(null)
        texts["null_gain"] = percent(null.number("fused", "micro_f1_gain", place), signed=True)
        texts["null_verdict"] = verdict(null.number("fused", "micro_f1_gain", place))
        texts["null_video_f1"] = percent(null.number("video", "micro_f1", place))
    for name, text in texts.items():
        say(name, text, results)


def verdict(gain: Interval) -> str:
    """The rule, fixed beforehand: a 95 % interval wholly above zero is a gain, wholly below a loss."""
    if gain.low > 0:
        return "the pictures help: the interval lies above zero"
    return "the pictures hurt: the interval lies below zero" if gain.high < 0 else "undecided: the interval holds zero"


def _flat(values: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{name}: ") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
