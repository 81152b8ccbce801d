"""What the systems of Li et al. (2017) reach on real recordings: committed results, with their passports."""

from __future__ import annotations

import json

import numpy as np
import seaborn as sns
from matplotlib import pyplot

from avrepro.report import origin, percent, published, say, show_figure, show_passport, show_table
from avrepro.report.li2017 import SYSTEMS, verdict
from avrepro.results import COMMITTED, Results, ResultsError, read

NAMES = ("esc10", "paired", "paired, photographs")


def real_recordings() -> dict[str, Results]:
    """The committed results by corpus; of ``paired`` the means over seeds.

    :raises ResultsError: where one is missing.
    """
    table = read(folders=(COMMITTED,)).select(chapter="lightweight_fusion")
    found = {}
    for name in NAMES:
        rows = table[(table["corpus"] == name) & table["parameters"].map(lambda text: "seeds" in json.loads(text))]
        if rows.empty:
            raise ResultsError(f"{COMMITTED}: no results of corpus {name!r}; measure them: avrepro results --measure")
        found[name] = Results(rows)
    return found


def seeds_of(results: Results) -> int:
    """Number of runs with different seeds that the numbers are means of."""
    return len(json.loads(results.passport()["parameters"])["seeds"])


def esc10_table(results: Results) -> None:
    """Accuracy on ESC-10: published baselines, the CRNN, and the probe on a network that has heard AudioSet."""
    told = published("esc10")
    note = f"published, {told['corpus']}"
    rows = [[name, note, f"{value:.1f}"] for name, value in told["accuracy"].items() if name != "where"]
    rows.append(["human listeners", note, f"{told['human_accuracy']['value']:.1f}"])
    for system, title in (
        ("audio", f"CRNN of Li et al., trained on these recordings alone, mean of {seeds_of(results)} seeds"),
        ("linear probe on YAMNet", "linear probe on YAMNet, which has heard AudioSet"),
    ):
        rows.append([title, origin(results), percent(results.number(system, "accuracy", "test"))])
    spread = percent(results.number("audio", "accuracy_sd_over_seeds", "test"))
    clips = int(results.select(metric="accuracy")["clips"].iloc[0])
    classes = results.select(system="audio", metric="class_accuracy")["label"].nunique()
    show_table(
        ["system", "origin", "accuracy, %"],
        rows,
        f"Real sound: accuracy on the {clips} recordings of ESC-10 in five folds, each recording tested once by a "
        "system that heard none of its fold, with 95 % intervals (bootstrap over recordings). Standard deviation of "
        f"the CRNN over seeds: {spread} points. Guessing has {100 / classes:.0f} %.",
        results,
    )


def paired_table(results: Results) -> None:
    """Micro F1 and the gain over audio alone on clips of real sounds and photographs."""
    rows = []
    for system, title in SYSTEMS.items():
        score = results.number(system, "micro_f1", "test")
        gain = "–" if system == "audio" else percent(results.number(system, "micro_f1_gain", "test"), signed=True)
        rows.append([title, percent(score), gain])
    show_table(
        ["system", "micro F1, %", "gain over audio only, points"],
        rows,
        f"Real sounds and real photographs ({origin(results)}): test clips, means of {seeds_of(results)} seeds, "
        "each with its own split, clips and training, and 95 % intervals over seeds (Student's t). Sounds and "
        "photographs of a clip belong together by class alone.",
        results,
    )


def paired_figure(results: Results) -> None:
    """Class F1 of audio only and of the fusion on real sounds and photographs."""
    labels = list(results.select(system="audio", metric="class_f1", split="test")["label"])
    figure, axes = pyplot.subplots(figsize=(10, 5))
    colours = sns.color_palette("colorblind")
    for offset, system, colour in ((-0.2, "audio", colours[0]), (0.2, "fused", colours[1])):
        numbers = [results.number(system, "class_f1", "test", label) for label in labels]
        values = np.array([number.value for number in numbers])
        errors = np.array([[number.value - number.low, number.high - number.value] for number in numbers]).T
        axes.bar(np.arange(len(labels)) + offset, 100 * values, 0.4, yerr=100 * errors.clip(min=0), color=colour,
                 label=SYSTEMS[system], error_kw={"elinewidth": 0.8})  # fmt: skip
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set(ylabel="class F1 on test clips, %", ylim=(0, 100), title=origin(results))
    axes.legend(loc="upper right")
    gains = {label: results.number("fused", "class_f1_gain", "test", label).value for label in labels}
    better = [label for label, gain in gains.items() if gain > 0]
    show_figure(
        figure,
        f"F1 of each class (%) on clips of real sounds and photographs, means of {seeds_of(results)} seeds with 95 "
        f"% intervals over seeds: audio only and audio + video. Higher with pictures in {len(better)} of the "
        f"{len(labels)}.",
        f"Bar chart of class F1 for {len(labels)} classes; higher with pictures in {', '.join(better) or 'none'}.",
        results,
    )


def photographs_table(results: Results) -> None:
    """The zero-shot picture branch on photographs, class by class."""
    systems = {"video, plain words": "plain words, %", "video, corrected words": "corrected words, %"}
    rows = [["all", *(percent(results.number(system, "accuracy", "test")) for system in systems)]]
    labels = list(results.select(system="video, plain words", metric="class_accuracy")["label"])
    rows += [
        [label, *(percent(results.number(system, "class_accuracy", "test", label)) for system in systems)]
        for label in labels
    ]
    clips = int(results.select(metric="accuracy")["clips"].iloc[0])
    show_table(
        ["photographs of", *systems.values()],
        rows,
        f"The picture branch with nothing learnt: share of {clips} real photographs ({origin(results)}) whose "
        f"likeliest event, out of the {len(labels)} labels that have photographs, is their label; 95 % intervals "
        f"(bootstrap over photographs). Guessing has {100 / len(labels):.0f} %.",
        results,
    )


def say_numbers(real: dict[str, Results]) -> None:
    """Name the numbers that sentences use."""
    paired, seen = real["paired"], real["paired, photographs"]
    gain = paired.number("fused", "micro_f1_gain", "test")
    texts = {
        "real_origin": f"{origin(paired)}, {seeds_of(paired)} seeds",
        "real_audio_f1": percent(paired.number("audio", "micro_f1", "test")),
        "real_fused_f1": percent(paired.number("fused", "micro_f1", "test")),
        "real_gain": percent(gain, signed=True),
        "real_verdict": verdict(gain),
    }
    for name, text in texts.items():
        say(name, text, paired)
    for name, system in (("photographs_plain", "plain words"), ("photographs_corrected", "corrected words")):
        say(name, percent(seen.number(f"video, {system}", "accuracy", "test")), seen)


def passports(real: dict[str, Results]) -> None:
    for results in real.values():
        show_passport(results)
