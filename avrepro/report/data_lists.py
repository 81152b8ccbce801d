"""Tables and figures of the data chapter: official lists, published predictions. It computes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import seaborn as sns
from matplotlib import pyplot

from avrepro.corpora.download import STATUSES
from avrepro.evaluation import Interval
from avrepro.report import percent, show_figure, show_note, show_table
from avrepro.report.data import COLOURS, count, missing_note
from avrepro.results import Results

TUNED = (
    "one threshold, 0.5",
    "one threshold, the best of the sweep",
    "class thresholds, cross-validated",
    "class thresholds, tuned on the same clips",
)


def lists_table(dcase2017: Results | None) -> None:
    """The official lists of DCASE 2017 Task 4: clips and rows."""
    if missing_note(dcase2017, "dcase2017_task4") or dcase2017 is None:
        return
    rows = []
    for name in ("training", "testing", "evaluation"):
        timed = len(dcase2017.select(system="list", metric="strong_rows", label=name)) > 0
        rows.append(
            [
                name,
                count(dcase2017, "list", "clips", name),
                count(dcase2017, "list", "weak_rows", name),
                count(dcase2017, "list", "strong_rows", name) if timed else "none",
                count(dcase2017, "list", "untimed_rows", name) if timed else "–",
                f"{dcase2017.number('list', 'labels_per_clip', label=name).value:.2f}",
                percent(dcase2017.number("list", "clips_with_several_labels", label=name)),
                count(dcase2017, "list", "most_labels", name),
            ]
        )
    show_table(
        ["official list", "clips", "weak rows", "strong rows", "of them without a time", "labels a clip",
         "clips with several labels, %", "most labels of a clip"],
        rows,
        "DCASE 2017 Task 4, counted in the official lists. A weak row is a label of a clip; a strong row is meant "
        "to give its onset and offset too, but some give 0 for both.",
        dcase2017,
    )  # fmt: skip


def overlap_table(dcase2017: Results | None) -> None:
    """How many clips of DCASE 2017 Task 4 a network taught on AudioSet may have met."""
    if dcase2017 is None or dcase2017.select(system="also in AudioSet, balanced").empty:
        return
    show_table(
        ["official list", "clips", "also in AudioSet's balanced list", "also in AudioSet's evaluation list"],
        [
            [name, *(count(dcase2017, *of, name) for of in (
                ("list", "clips"), ("also in AudioSet, balanced", "videos"), ("also in AudioSet, evaluation", "videos"),
            ))]
            for name in ("training", "testing", "evaluation")
        ],
        "Videos of DCASE 2017 Task 4 that AudioSet's lists name too; the others are in its unbalanced training "
        "list or in none. A network that was taught on AudioSet may know clips that it is tested on.",
        dcase2017,
    )  # fmt: skip


def paired_table(paired: Results) -> None:
    """Recordings and photographs by label."""
    heads = {"items": "{}", "groups": "their sources", "sure_items": "surely labelled"}
    kinds = {"audio": "recordings", "image": "photographs"}
    labels = sorted(set(paired.table["label"]) - {""})
    show_table(
        ["label", *(heads[metric].format(title) for title in kinds.values() for metric in heads)],
        [[label, *(count(paired, kind, metric, label) for kind in kinds for metric in heads)] for label in labels],
        f"Corpus paired: {count(paired, 'audio', 'items')} recordings and {count(paired, 'image', 'items')} "
        "photographs, counted in its manifest. Sources: groups of items that come from one recording or are nearly "
        "alike; no group is in two splits. Surely labelled: the label comes from a person or a data set, not from a "
        "model or a stand-in.",
        paired,
    )


def imbalance_figure(dcase2017: Results | None) -> None:
    """Clips of each class in the training list, and in the validation clips that are held out of it."""
    if dcase2017 is None:
        return
    shown = {"the official training list": "training", "held out for validation": "validation"}
    table = {name: dcase2017.select(metric="clips_with_label", system=f"list, {name}") for name in shown.values()}
    order = table["training"].sort_values("value", ascending=False)["label"].tolist()
    figure, panels = pyplot.subplots(1, 2, figsize=(8.5, 4.6), sharey=True, layout="constrained")
    for axes, (title, name), colour in zip(panels, shown.items(), COLOURS, strict=False):
        values = table[name].set_index("label")["value"].loc[order]
        bars = axes.barh(range(len(order)), values, color=colour)
        axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=2, fontsize=8)
        axes.set(title=f"{title}: {count(dcase2017, 'list', 'clips', name)} clips", xlabel="clips with the label")
        axes.margins(x=0.2)
        axes.locator_params(axis="x", nbins=4)
    panels[0].set_yticks(range(len(order)), order)
    panels[0].invert_yaxis()
    ratio = {
        name: f"{dcase2017.number('list', 'imbalance', label=name).value:.2f} : 1"
        for name in ("training", "validation", "train")
    }
    show_figure(
        figure,
        f"DCASE 2017 Task 4, clips of each class. Left: the official training list, imbalance {ratio['training']}. "
        f"Right: the clips held out of it for validation, drawn with seed {dcase2017.passport()['seed']}: "
        f"{ratio['validation']}. What is left to train on has {ratio['train']}, for an even validation set takes a "
        "large part of the rarest classes.",
        f"Two bar charts of {len(order)} classes; in training from {order[0]} (most) to {order[-1]} (fewest), in "
        "validation bars of nearly equal length.",
        dcase2017,
    )


def company_figure(dcase2017: Results | None) -> None:
    """Which labels come together."""
    if dcase2017 is None:
        return
    told = dcase2017.select(system="list", metric="also_labelled")
    pairs = told["label"].str.split(" | ", regex=False, expand=True)
    grid = told.assign(label=pairs[0], other=pairs[1]).pivot(index="label", columns="other", values="value")
    order = list(dict.fromkeys(pairs[0]))
    grid = 100 * grid.loc[order, order]
    figure, axes = pyplot.subplots(figsize=(8.5, 7), layout="constrained")
    sns.heatmap(
        grid, ax=axes, cmap="viridis", annot=True, fmt=".0f", annot_kws={"fontsize": 8}, linewidths=0.5, vmin=0,
        cbar_kws={"label": "% of the row's clips"},
    )  # fmt: skip
    axes.set(xlabel="is a label too", ylabel="of the clips with the label")
    top = told.sort_values("value", ascending=False).head(3)
    pairs_told = "; ".join(
        f"{100 * row.value:.0f} % of the clips with {row.label.replace(' | ', ' have also ')}"
        for row in top.itertuples()
    )
    show_figure(
        figure,
        "Labels that come together in the official training list: share of the clips with the row's label that "
        f"have the column's too, in %. The largest: {pairs_told}.",
        f"Heat map of {len(order)} by {len(order)} classes, mostly near 0 %. The largest: {pairs_told}.",
        dcase2017,
    )


def clips_table(dcase2017: Results | None) -> None:
    """What became of the clips of each class on this machine."""
    if dcase2017 is None:
        return
    found = dcase2017.select(system="clips")
    if not len(found):
        show_note(
            "No clips of DCASE 2017 Task 4 were fetched on this machine. Run: avrepro data clips dcase2017 --split "
            "testing; it gets those that are still there, and a table here then tells by class what is missing, "
            "and why."
        )
        return
    metrics = [name for name in ("listed", *STATUSES, "not fetched") if name in set(found["metric"])]
    labels = dict.fromkeys(found["label"])
    rows = [[label, *(count(dcase2017, "clips", metric, label) for metric in metrics)] for label in labels]
    show_table(
        ["class", *metrics],
        rows,
        "DCASE 2017 Task 4: clips of each class on this machine, all lists together. A clip counts in each of its "
        "classes.",
        dcase2017,
    )


def audioset_table(audioset: Results | None, paper: dict[str, Any]) -> None:
    """Labels of the AudioSet lists beside what the third paper tells of them."""
    if missing_note(audioset, "audioset") or audioset is None:
        return
    told = paper["audioset"]
    rows = [
        [
            f"Fayek and Kumar 2020, section {told['where']['section']}, page {told['where']['page']} (published)",
            f"about {told['training_clips']:,} to train on",
            str(told["classes"]),
            str(told["labels_per_clip"]),
            f"{told['commonest']['name']} (about {told['commonest']['clips']:,})",
            f"{told['rarest']['name']} (about {told['rarest']['clips']:,})",
        ]
    ]
    for name in _audioset_lists(audioset):
        counts = audioset.select(system=f"list, {name}", metric="clips_with_label")
        most, least = counts.iloc[0], counts.iloc[-1]
        ties = int((counts["value"] == least["value"]).sum())
        rows.append(
            [
                f"{name} list (counted here)",
                count(audioset, "list", "clips", name),
                count(audioset, "list", "classes"),
                f"{audioset.number('list', 'labels_per_clip', label=name).value:.2f}",
                f"{most['label']} ({most['value']:,.0f})",
                f"{least['label']} ({least['value']:,.0f}{f'; so have {ties} classes' if ties > 1 else ''})",
            ]
        )
    show_table(
        ["", "clips", "classes", "labels a clip", "commonest class (clips)", "rarest class (clips)"],
        rows,
        "AudioSet's labels. The paper's commonest and rarest class are those of the unbalanced list; the balanced "
        "and the evaluation list were drawn so that every class has clips.",
        audioset,
    )
    if "unbalanced" not in _audioset_lists(audioset):
        missing_note(None, "audioset_unbalanced")


def audioset_figure(audioset: Results | None) -> None:
    """Sorted class counts of the AudioSet lists."""
    if audioset is None:
        return
    figure, axes = pyplot.subplots(figsize=(8.5, 4), layout="constrained")
    told = []
    for name, colour, style in zip(_audioset_lists(audioset), COLOURS, ("-", "--", ":"), strict=False):
        values = audioset.select(system=f"list, {name}", metric="clips_with_label")["value"]
        axes.plot(np.arange(1, len(values) + 1), values, style, color=colour, linewidth=2, label=f"{name} list")
        told.append(f"{name} list {values.iloc[0]:,.0f} to {values.iloc[-1]:,.0f}")
    axes.set(xlabel="class, commonest first", ylabel="clips (logarithmic)", yscale="log")
    axes.legend()
    axes.grid(alpha=0.3)
    show_figure(
        figure,
        f"AudioSet: clips of each class, classes sorted by their number, on a logarithmic scale ({'; '.join(told)}).",
        f"Falling curves over the classes: {'; '.join(told)}; a steep start and a long flat tail.",
        audioset,
    )


def predictions_table(predictions: Results | None) -> None:
    """Published predictions scored by the official evaluator and here."""
    if missing_note(predictions, "dcase2017_task4", "published_predictions") or predictions is None:
        return
    averaged = set(predictions.select(metric="macro_f1")["system"])
    rows = []
    for name in predictions.select(metric="largest_difference")["system"]:
        scores = [_percent3(predictions.number(name, metric)) for metric in ("official", "ours")]
        difference = predictions.number(name, "largest_difference").value
        averages = [
            _percent3(predictions.number(name, metric)) if name in averaged else "–"
            for metric in ("class_average_f1", "macro_f1")
        ]
        rows.append([name, *scores, _tiny(difference), *averages])
    show_table(
        ["predictions", "official micro F1, %", "our micro F1, %", "largest difference, points",
         "F1 of the mean P and R, %", "mean of the classes' F1, %"],
        rows,
        "Predictions on the testing clips, scored by the official evaluator and here. The largest difference "
        "(percentage points) is over all that the evaluator printed: micro and class-wise precision, recall and F1 "
        "of the published files, micro alone of its own samples. The two averages over classes are ours. The "
        "output that the evaluator ships for its sample 'invalid' is that of another version of the file, so there "
        "the two must differ.",
        predictions,
    )  # fmt: skip


def sweep_figure(predictions: Results | None) -> None:
    """Precision, recall and F1 over one threshold for all classes."""
    if predictions is None:
        return
    figure, axes = pyplot.subplots(figsize=(8.5, 4), layout="constrained")
    for metric, colour, style in zip(("precision", "recall", "f1"), COLOURS, ("--", ":", "-"), strict=False):
        curve = predictions.select(system="one threshold", metric=metric)
        name = {"f1": "F1"}.get(metric, metric)
        axes.plot(curve["step"] / 100, 100 * curve["value"], style, color=colour, linewidth=2, label=name)
    best = predictions.number("matrix", "best_threshold").value
    score = percent(predictions.number("one threshold", "f1", step=round(100 * best)))
    axes.axvline(best, color="0.5", linewidth=1)
    axes.set(xlabel="threshold on the probability, the same for all classes", ylabel="micro average, %", ylim=(0, 100))
    axes.legend()
    axes.grid(alpha=0.3)
    clips = count(predictions, "matrix", "clips")
    show_figure(
        figure,
        f"Published probabilities of {clips} testing clips: what one threshold for all classes gives. The grey line "
        f"marks the largest F1, {score} % at {best:.2f}, chosen on the very clips that it is measured on.",
        f"Three curves over the threshold: precision rises, recall falls, F1 has its top of {score} % at {best:.2f}.",
        predictions,
    )


def tuning_table(predictions: Results | None) -> None:
    """What tuned thresholds give on published probabilities."""
    if predictions is None:
        return
    rows = []
    for name in TUNED:
        precision, recall, score = (predictions.number(name, metric) for metric in ("precision", "recall", "micro_f1"))
        gain = "–" if name == TUNED[0] else percent(predictions.number(name, "micro_f1_gain"), signed=True)
        rows.append([name, percent(precision), percent(recall), percent(score), gain])
    show_table(
        ["thresholds", "micro precision, %", "micro recall, %", "micro F1, %", "gain over 0.5, points"],
        rows,
        "The same probabilities with other thresholds; 95 % intervals by bootstrap over clips, differences paired. "
        "Thresholds that were chosen on the clips that they are measured on promise too much; in cross-validation "
        "each fifth of the clips is decided by thresholds tuned on the other four.",
        predictions,
    )


def ranking_table(ranking: Results | None) -> None:
    """A published model's averages from its values by class."""
    if missing_note(ranking, "ast_per_class") or ranking is None:
        return
    rows = []
    for name in dict.fromkeys(ranking.select(system="ours")["label"]):
        for metric, shown in (("mAP", "mAP"), ("mAUC", "mAUC"), ("d_prime", "d′")):
            stated, ours, difference = (
                ranking.number(system, which, label=name).value
                for system, which in (("stated", metric), ("ours", metric), ("ours", f"{metric}_difference"))
            )
            rows.append([f"{shown}, trained on the {name} list", f"{stated:.6f}", f"{ours:.6f}", _tiny(difference)])
    show_table(
        ["", "stated", "ours, from the values by class", "difference"],
        rows,
        "Audio Spectrogram Transformer (Gong et al. 2021) on AudioSet's evaluation list, last epoch: the averages "
        "that its authors state, and those that our functions make of its published average precision and AUC of "
        "527 classes.",
        ranking,
    )


def _audioset_lists(audioset: Results) -> list[str]:
    told = audioset.select(system="list", metric="imbalance")["label"]
    return [name for name in ("unbalanced", "balanced", "evaluation") if name in set(told)]


def _tiny(difference: float) -> str:
    return f"{difference:.1e}" if difference else "0"


def _percent3(number: Interval) -> str:
    return f"{100 * number.value:.3f}"
