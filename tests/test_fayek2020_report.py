"""The report on Fayek and Kumar (2020): made-up results in their places, and what it counts is counted right."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bs4 import BeautifulSoup
from chapters import table_of
from matplotlib import pyplot
from matplotlib.colors import to_hex

from avrepro.corpora.base import Clip, Corpus
from avrepro.evaluation.intervals import Interval
from avrepro.report import fayek2020 as report
from avrepro.report import fayek2020_bubbles as bubbles
from avrepro.report import fayek2020_figures as figures
from avrepro.report import fayek2020_planted as planted
from avrepro.report import fayek2020_published as printed
from avrepro.report import fayek2020_training as training
from avrepro.report import published
from avrepro.report.fayek2020_said import say_numbers
from avrepro.results import Results, Run

PAPER = published("fayek2020")
TRAINED = [system for system in report.SYSTEMS if system not in report.OTHERS]
SCORES = ("map", "mauc", "d_prime")
LABELS = ("Car", "Bus", "Dog", "Cat", "Tick & <b>tock</b>")
# Class -> AP of audio and visual, change by attention fusion (fractions), and its mean weight of sound.
OF_CLASSES = {
    "Car": (0.50, 0.30, Interval(0.12, 0.02, 0.20, "made up"), 0.995),
    "Bus": (0.40, 0.60, Interval(0.10, -0.01, 0.20, "made up"), 0.10),  # by 10 points, which is not by more
    "Dog": (0.80, 0.20, Interval(-0.06, -0.09, -0.01, "made up"), 0.95),
    "Cat": (0.10, 0.10, Interval(0.0, -0.10, 0.10, "made up"), 0.50),
    "Tick & <b>tock</b>": (0.30, 0.70, Interval(-0.15, -0.30, 0.05, "made up"), 0.005),
}


def alt_and_caption(output: Any) -> tuple[str, str]:
    page = BeautifulSoup(output.data["text/html"], "html.parser")
    assert page.img is not None and page.figcaption is not None
    return str(page.img["alt"]), page.figcaption.get_text()


class Maker:
    """Runs with numbers that are all different, so that none can stand in another's place unseen."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.next = folder, itertools.count(101)
        self.texts: dict[tuple, str] = {}
        self.ids: dict[int, str] = {}

    def run(self, name: str = "demo", **parameters: Any) -> Run:
        splits = ("train", "validation", "test")
        made = tuple(Clip(split, Path(f"{split}.mp4"), split, ("Car",)) for split in splits)
        given = {"profile": "demo", "seed": 0, "corpus": name, **parameters}
        run = Run(report.CHAPTER, given, Corpus(name, LABELS, made, (), name))
        self.ids[id(run)] = run.id  # a digest of all code, which takes its time
        return run

    def add(self, run: Run, system: str, metric: str, label: str = "", sign: int = 1) -> None:
        """A new number with an interval from 3 points below to 1 point above it."""
        value = sign * next(self.next) / 1000
        run.add(system, "test", metric, Interval(value, value - 0.03, value + 0.01, "made up"), label=label)
        style = ".2f" if metric == "d_prime" else "+.1f" if metric.endswith(("lead", "loss")) else ".1f"
        scale = 1 if metric == "d_prime" else 100
        numbers = (format(scale * number, style) for number in (value, value - 0.03, value + 0.01))
        self.texts[self.ids[id(run)], system, metric] = "{} [{}, {}]".format(*numbers)

    def scores(self, run: Run, systems: list[str]) -> None:
        for system in systems:
            for metric in SCORES:
                self.add(run, system, metric)
            if system != "attention":
                self.add(run, system, "map_lead", sign=-1 if system == "mlp" else 1)
        run.add("corpus", "test", "classes_scored", 4)
        run.add("corpus", "test", "classes_left_out", 1)

    def classes(self, run: Run) -> None:
        for label, (audio, visual, change, weight) in OF_CLASSES.items():
            run.add("audio", "test", "average_precision", audio, label=label)
            run.add("visual", "test", "average_precision", visual, label=label)
            run.add("attention", "test", "ap_change", change, label=label)
            run.add("attention", "test", "attention_weight", weight, label=label)

    def demo(self, **parameters: Any) -> Results:
        """All numbers that a run on the demo world has."""
        run = self.run(**{"dry": False, **parameters})
        self.scores(run, TRAINED)
        self.classes(run)
        run.add("audio", "test", "average_precision", np.nan, label="never")  # no positive clip
        for number, system in enumerate(("attention", "mlp", "regression")):
            low = (0.1, -0.1, -0.5)[number]
            run.add(system, "test", "snr_correlation", Interval(low + 0.1, low, low + 0.2, "made up"))
            run.add(system, "test", "visible_correlation", Interval(-low - 0.1, -low - 0.2, -low, "made up"))
            for metric, sign in (("snr_correlation", 1), ("visible_correlation", -1)):
                for place, label in enumerate(LABELS):
                    run.add(system, "test", metric, sign * (number - place) / 10, label=label)
        run.add("attention", "test", "weight_snr_correlation", Interval(0.3, 0.2, 0.4, "made up"))
        run.add("attention", "test", "weight_visible_correlation", Interval(0.3, 0.2, 0.4, "made up"))
        for system in ("average", "regression", "mlp", "attention"):
            for what in ("silent", "black"):
                self.add(run, system, f"map_{what}")
                self.add(run, system, f"map_{what}_loss", sign=-1 if system == "mlp" else 1)
        for split, values in (("validation", (0.40, 0.44, 0.45)), ("test", (0.38, 0.41, 0.43))):
            for step, value in enumerate(values):
                run.add("audio", split, "map_of_generation", Interval(value, value - 0.02, value + 0.02, ""), step=step)
        run.add("audio", "test", "generation_gain", Interval(0.05, 0.01, 0.09, "made up, paired"))
        run.add("audio", "", "training_seconds", 125)
        run.add("audio", "", "parameters", 1234567)
        run.add("attention", "", "parameters", 4321)
        run.add("fusions", "", "training_seconds", 4.04)
        run.add("corpus", "", "peak_memory_mb", 2048)
        return run.write(self.folder)

    def null(self) -> Results:
        run = self.run("demo-null", dry=False)
        for system in ("audio", "visual", "attention"):
            self.add(run, system, "map")
        run.add("audio", "test", "map_lead", Interval(-0.01, -0.03, 0.01, "made up"))
        for label, weight in zip(LABELS, (0.8, 0.9, 0.7, 1.0, 0.6), strict=True):
            run.add("attention", "test", "attention_weight", weight, label=label)
        run.add("attention", "test", "weight_shift", Interval(0.29, 0.21, 0.33, "made up"))
        return run.write(self.folder)

    def kept(self, what: str, systems: list[str], name: str = "demo", **parameters: Any) -> Results:
        run = self.run(name, seeds=[0, 1], measured=what, **parameters)
        self.scores(run, systems)
        if what == "paired":
            self.classes(run)
        return run.write(self.folder)

    def simulated(self) -> Results:
        run = self.run("simulated-audioset", measured="simulated")
        for number, system in enumerate(TRAINED):
            run.add(system, "test", "map", 0.2 + number / 100)
            run.add(system, "", "training_seconds", 1000 * (number + 1))
        run.add("audio", "test", "map_planted", 0.4444)
        run.add("visual", "test", "map_planted", 0.2222)
        run.add("corpus", "train", "clips", 1)
        run.add("corpus", "test", "classes_scored", 527)
        run.add("corpus", "test", "classes_left_out", 0)
        return run.write(self.folder)

    def text(self, results: Results, system: str, metric: str) -> str:
        return self.texts[results.passport()["run"], system, metric]


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


# --- the paper's own numbers ------------------------------------------------------------------------------


def test_the_published_tables_are_as_printed() -> None:
    """Against sums that were added up from the page, and the rows that the tables share."""
    sums = {"table2": ("241.78", "575.74"), "table3": ("208.84", "572.33"), "table4": ("217.94", "482.95")}
    for table, wanted in sums.items():
        rows = [row for name, row in PAPER[table].items() if name != "where"]
        assert tuple(str(sum(Decimal(row[column]) for row in rows)) for column in ("map", "mauc")) == wanted
    for system in ("audio", "visual", "attention"):
        assert PAPER["table2"][system]["map"] == PAPER["table3"][system]["map"]
    assert PAPER["table4"]["attention"] | {"name": ""} == PAPER["table2"]["attention"] | {"name": ""}
    assert PAPER["audioset"]["classes"] == 527 and PAPER["audioset"]["rarest"]["clips"] == 120
    assert set(report.SYSTEMS) == {system for table in report.ROWS.values() for system in table}


@pytest.mark.parametrize("claim", [one for one in printed.claims() if not one.more_than], ids=lambda one: one.words)
def test_claims_follow_where_some_unrounded_numbers_give_them(claim: printed.Claim) -> None:
    """Against trying what rounds to the two printed numbers, hundredth of a unit by hundredth."""
    one, two = (float(text) for text in re.findall(r"(\d+\.\d+)", claim.words.partition(": ")[2]))
    around = np.arange(-50, 51) / 10_000
    a, b = np.meshgrid(one + around, two + around)
    relative = "%" in claim.words
    values = 100 * (a - b) / b if relative else a - b
    assert (claim.low, claim.high) == pytest.approx((values.min(), values.max()))
    unit = 10.0**-claim.decimals
    possible = (np.abs(values - float(claim.printed)) <= unit / 2 + 1e-9).any()
    exact = 100 * (one - two) / two if relative else one - two
    literal = (
        "yes" if abs(exact - float(claim.printed)) <= unit / 2 + 1e-9 else "by rounding alone" if possible else "no"
    )
    assert claim.follows == literal


def test_what_does_not_follow_is_told() -> None:
    wrong = printed.Claim("made up", "4.40", 4.36, 4.35, 4.37, "nowhere")
    assert wrong.follows == "no"
    assert printed.Claim("", "83", 82.9, 82.9, 82.9, "", more_than=True).follows == "no"


def test_the_check_of_the_papers_arithmetic(shown: Callable) -> None:
    caption, _, rows = table_of(shown(printed.published_check)[0])
    first = rows["attention fusion over G-Blend of Wang et al.: 46.16 - 41.80"]
    assert first == ["4.36 (4.35 to 4.37)", "4.35", "abstract (page 1); section 4.2 (page 6); section 6 (page 7)",
                     "by rounding alone"]  # fmt: skip
    assert rows["classes improved: 439 of 527, %"] == ["83.30", "over 83", "section 5.1 (page 6)", "yes"]
    assert rows["classes improved by more than 10 points: 91 of 527, %"][0] == "17.27"
    assert rows["classes in which visual is not better than audio: 410 of 527, %"][0] == "77.80"
    assert rows["attention fusion over average fusion: 46.16 / 42.84 - 1, %"][1:] == [
        "7.7",
        "section 4.2 (page 5)",
        "yes",
    ]
    assert "36.8 and as 36.9 (section 4.2 (page 6) and section 6 (page 7)); both cannot be" in caption
    assert "16 of 18 follow, 2 by rounding alone, 0 not" in caption
    assert rows["visual over visual of Wang et al.: 25.73 - 18.80"][2] == "section 4.2 (page 6); section 6 (page 7)"


# --- tables 2, 3 and 4 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["table2", "table3", "table4"])
def test_tables_have_each_number_in_its_place(name: str, maker: Maker, shown: Callable) -> None:
    results, others = maker.demo(), maker.kept("others", report.OTHERS)
    real = maker.kept("paired", TRAINED, "paired")
    arguments = (results, real, others) if name == "table3" else (results, real)
    (output,) = shown(getattr(report, name), *arguments)
    caption, head, rows = table_of(output)
    assert head[1:4] == ["mAP, % (published, AudioSet)", "mAUC, % (published, AudioSet)", "mAP, % (demo, profile demo)"]
    assert head[5:7] == ["d' (demo, profile demo)", "mAP, % (real recordings: paired, profile demo)"] and len(head) == 9
    systems = [system for system in PAPER[name] if system != "where"]
    assert list(rows) == [report.SYSTEMS[system] for system in systems]
    for system in systems:
        row, told = rows[report.SYSTEMS[system]], PAPER[name][system]
        assert row[:2] == [told["map"], told["mauc"]]
        here = others if system in report.OTHERS else results
        assert row[2:5] == [maker.text(here, system, metric) for metric in SCORES]
        there = system not in report.OTHERS
        assert row[5:] == [maker.text(real, system, metric) if there else "not measured" for metric in SCORES]
    assert caption.startswith(f"Table {name[-1]}. ") and "cannot be compared with each other" in caption
    assert "this run: 4 classes scored, 1 left out" in caption and "means over 2 seeds" in caption
    assert ("measured once (demo, profile demo)" in caption) == (name == "table3")
    assert output.metadata["avrepro"]["run"] == results.passport()["run"]


def test_what_was_not_measured_keeps_its_row(maker: Maker, shown: Callable) -> None:
    results = maker.demo()
    for others in (None, maker.kept("others", report.OTHERS, profile="paper")):  # another profile's may not stand here
        caption, head, rows = table_of(shown(report.table3, results, None, others)[0])
        assert rows[report.SYSTEMS["gblend"]] == ["41.80", "97.50", *["not measured"] * 6]
        assert rows[report.SYSTEMS["resnet_audio"]][0] == "38.0" and head[-1] == "d' (real recordings: not measured)"
        assert "seeds" not in caption and "measured once" not in caption


def test_leads_stand_beside_the_published_ones_with_their_verdict(maker: Maker, shown: Callable) -> None:
    run = maker.run(dry=False)
    run.add("attention", "test", "map", 0.5)
    intervals = {"audio": (0.02, 0.01, 0.03), "mlp": (-0.02, -0.03, -0.01), "attention_self": (0.01, -0.01, 0.03)}
    for system, numbers in intervals.items():
        run.add(system, "test", "map_lead", Interval(*numbers, "made up"))
    others, real = maker.kept("others", report.OTHERS), maker.kept("paired", ["mlp"], "paired")
    _, head, rows = table_of(shown(report.leads_table, run.write(maker.folder), real, others)[0])
    assert len(head) == 4 and report.SYSTEMS["attention"] not in rows and len(rows) == len(report.SYSTEMS) - 1
    assert rows["Audio"] == ["+7.81", "+2.0 [+1.0, +3.0] ahead", "not measured"]
    assert rows["MLP fusion"] == ["+0.56", "-2.0 [-3.0, -1.0] behind", f"{maker.text(real, 'mlp', 'map_lead')} behind"]
    assert rows["Attention, self unimodal"] == ["+0.12", "+1.0 [-1.0, +3.0] undecided", "not measured"]
    blended = f"{maker.text(others, 'gblend', 'map_lead')} ahead"
    assert rows[report.SYSTEMS["gblend"]] == ["+4.36", blended, "not measured"]
    assert rows["Attention without n_a and n_v"][0] == "+7.32"


def test_settings_that_differ_from_the_papers(shown: Callable) -> None:
    from avrepro.experiments.fayek2020_profiles import PROFILES

    _, _, rows = table_of(shown(report.settings_table, "demo")[0])
    demo, paper = PROFILES["demo"], PROFILES["paper"]
    assert rows["backbone"] == [demo.backbone, paper.backbone]
    assert rows["fusion optimisation: batch"] == [str(one.fusion_optimisation.batch) for one in (demo, paper)]
    assert all(here != there for here, there in rows.values())
    assert not table_of(shown(report.settings_table, "paper")[0])[2]


def test_committed_results_are_told_apart(maker: Maker, shown: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "COMMITTED", maker.folder)
    assert report.committed() == report.Committed(None, None, None)
    others = maker.kept("others", report.OTHERS)
    maker.demo()  # this run's own numbers are no committed ones
    kept = report.committed()
    assert kept.others is not None and kept.others.passport()["run"] == others.passport()["run"]
    assert (kept.paired, kept.simulated, len(kept.there)) == (None, None, 1)
    maker.kept("paired", TRAINED, "paired")
    maker.simulated()
    kept = report.committed()
    assert [one.passport()["corpus"] for one in kept.there] == ["demo", "paired", "simulated-audioset"]
    assert len(shown(report.passports, maker.demo(), maker.null(), kept)) == 5
    assert len(shown(report.passports, maker.demo(), None, kept)) == 4


# --- classes: figures 2 to 4 and the counts ---------------------------------------------------------------


def test_classes_are_counted_as_by_hand(maker: Maker, shown: Callable) -> None:
    wanted = {"improved": 2, "improved_surely": 1, "improved_10": 1, "worse_surely": 1, "worse_5": 2, "worse_10": 1,
              "visual_better": 2, "weight_one": 1, "weight_high": 2, "weight_low": 2, "weight_zero": 1}  # fmt: skip
    results = maker.demo()
    assert figures.counts(results) == {name: (count, 5) for name, count in wanted.items()}
    _, head, rows = table_of(shown(figures.counts_table, results, maker.kept("paired", TRAINED, "paired"))[0])
    assert head[1:] == ["published, AudioSet", "demo, profile demo", "real recordings: paired, profile demo"]
    for name, title in figures.COUNTS.items():
        assert rows[title][1:] == [f"{wanted[name]} of 5"] * 2
    published_column = [row[0] for row in rows.values()]
    assert published_column == ["439 of 527", "–", "91 of 527", "–", "15 of 527", "3 of 527", "117 of 527",
                                "more than 110 of 527", "–", "more than 70 of 527", "around 38 of 527"]  # fmt: skip
    _, _, rows = table_of(shown(figures.counts_table, results, None)[0])
    assert {row[2] for row in rows.values()} == {"not measured"}


def test_bubbles_lie_at_the_numbers_and_are_as_wide_as_the_change(maker: Maker) -> None:
    classes = figures.classes_of(maker.demo())
    assert [one.label for one in classes] == ["Tick & <b>tock</b>", "Car", "Bus", "Dog", "Cat"]  # by change
    figure, axes = pyplot.subplots()
    figures.draw_bubbles(axes, classes)
    discs = {str(one.get_gid()): one for one in axes.collections if one.get_gid()}
    assert set(discs) == set(LABELS)
    for label, (audio, visual, change, _) in OF_CLASSES.items():
        np.testing.assert_allclose(discs[label].get_offsets(), [[100 * audio, 100 * visual]])
        diameter = np.sqrt(discs[label].get_sizes()[0])  # scatter: s is the square of the diameter in points
        assert diameter == pytest.approx(figures.POINT * abs(100 * change.value))
        colour = figures.BLUE if change.value > 0 else figures.RED if change.value < 0 else figures.GREY
        assert to_hex(discs[label].get_facecolor()[0]) == colour
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("average precision of audio, %", "average precision of visual, %")
    figures.write_names(axes, classes)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert {text.get_text() for text in axes.texts} <= set(LABELS) and len(boxes) >= 4
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    pyplot.close(figure)


def test_bars_of_figures_3_and_4_count_classes() -> None:
    figure, (left, right) = pyplot.subplots(1, 2)
    change = np.array([-6.0, -0.1, 0.0, 0.1, 2.0, 2.6, 11.0])
    figures.draw_changes(left, change)
    heights: dict[str, dict[float, float]] = {}
    for container, name in zip(left.containers, left.get_legend_handles_labels()[1], strict=True):
        heights[name] = {bar.get_x(): bar.get_height() for bar in container if bar.get_height()}
    assert heights == {
        "deteriorated": {-7.5: 1, -2.5: 1},
        "unchanged": {0.0: 1},
        "improved": {0.0: 2, 2.5: 1, 10.0: 1},
    }
    figures.draw_weights(right, np.array([0.0, 0.01, 0.51, 0.97, 1.0]))
    bars = {round(bar.get_x(), 2): bar.get_height() for bar in right.patches if bar.get_height()}
    assert bars == {0.0: 2, 0.5: 1, 0.95: 2} and right.get_xlim() == (0, 1)
    assert right.get_xlabel().startswith("← pictures dominate") and right.get_xlabel().endswith("sound dominates →")
    pyplot.close(figure)


def test_marks_of_correlations_and_generations_are_at_the_numbers(maker: Maker) -> None:
    results = maker.demo()
    figure, (left, right) = pyplot.subplots(1, 2)
    planted.draw_correlations(left, results, "snr_correlation", LABELS)
    lines = {container.get_label(): container[0] for container in left.containers}
    for number, system in enumerate(("attention", "mlp", "regression")):
        line = lines[report.SYSTEMS[system]]
        np.testing.assert_allclose(line.get_xdata(), [(number - place) / 10 for place in range(5)])
        np.testing.assert_allclose(np.round(line.get_ydata().astype(float)), range(5))
    training.draw_generations(right, training.generations(results))
    lines = {container.get_label(): container[0] for container in right.containers}
    np.testing.assert_allclose(lines["validation"].get_ydata(), [40, 44, 45])
    np.testing.assert_allclose(lines["test"].get_ydata(), [38, 41, 43])
    np.testing.assert_allclose(np.round(lines["test"].get_xdata().astype(float)), [0, 1, 2])
    pyplot.close(figure)


def test_figures_say_what_they_show(maker: Maker, shown: Callable) -> None:
    results = maker.demo()
    words = {
        figures.figure2: "Bubble chart of 5 classes. Improved: 2 of 5. Visual better than audio: 2 of 5. Largest "
        "changes: Tick & <b>tock</b>: audio 30.0 %, visual 70.0 %, change -15.0 points; Car: audio 50.0 %, visual "
        "30.0 %, change +12.0 points;",
        figures.figure3: "from -15.0 to +12.0 points: 2 improved, 1 unchanged, 2 deteriorated; median +0.0",
        figures.figure4: "weights from 0.01 to 0.99, median 0.50; above one half in 2",
        planted.planted_figure: "Attention fusion, signal-to-noise ratio: 0 of 5; MLP fusion, signal-to-noise ratio: 1",
        training.generations_figure: "validation 40.0, 44.0, 45.0; test 38.0, 41.0, 43.0",
    }
    for function, told in words.items():
        (output,) = shown(function, results)
        alt, caption = alt_and_caption(output)
        assert told in alt, alt
        assert "demo, profile demo" in caption and ("test" in caption or "generation" in caption)
        assert output.metadata["avrepro"]["run"] == results.passport()["run"]


# --- figure 2 to point at ---------------------------------------------------------------------------------


def test_the_drawing_is_xml_with_one_mark_a_class(maker: Maker) -> None:
    classes = figures.classes_of(maker.demo())
    root = ElementTree.fromstring(bubbles.drawing(classes, 'a "title" & more'))
    svg = "{http://www.w3.org/2000/svg}"
    assert root.get("role") == "group" and root.get("aria-label") == 'a "title" & more'
    marks = [one for one in root.iter() if one.get("tabindex") is not None]
    assert [one.get("tabindex") for one in marks] == ["0"] * len(classes)
    for one, mark in zip(classes, marks, strict=True):
        title = mark.find(f"{svg}title")
        assert title is not None and title.text == mark.get("aria-label") == figures.in_words(one)
        assert one.label in title.text and mark.get("role") == "img"
        bubble = mark.find(f"{svg}circle[@class='bubble']")
        assert bubble is not None
        place = [float(bubble.get(name, "")) for name in ("cx", "cy", "r")]
        wanted = [64 + 4.8 * one.audio, 44 + 4.8 * (100 - one.visual), 1.2 * abs(one.change)]
        np.testing.assert_allclose(place, wanted, atol=0.06)
        assert bubble.get("fill") == one.colour and bool(bubble.get("stroke-dasharray")) == (one.change < 0)
    ticks = [text.text for text in root.iter(f"{svg}text") if text.text and text.text.isdigit()]
    assert ticks == [str(tick) for tick in range(0, 101, 20) for _ in "xy"]


def test_bubbles_in_a_browser(browser: Any, maker: Maker, shown: Callable, tmp_path: Path) -> None:
    results = maker.demo()
    outputs = shown(bubbles.bubbles, results) + shown(bubbles.bubbles, results)
    assert all(label in outputs[0].data["text/plain"] for label in LABELS)
    markup = "".join(output.data["text/html"] for output in outputs)
    file = tmp_path / "page.html"
    file.write_text(f'<!doctype html><meta charset="utf-8"><body style="margin:40px">{markup}', encoding="utf-8")
    page = browser.new_page(viewport={"width": 900, "height": 1600})
    faults: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(error.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    assert page.locator("svg b").count() == 0, "names are text"
    first, second = (page.locator("figure").nth(number) for number in (0, 1))
    assert first.get_attribute("id") != second.get_attribute("id")
    group = page.get_by_role("group", name="Average precision of audio and of visual for 5 classes, demo, profile demo")
    assert group.count() == 2
    told, at_rest = first.locator("[data-told]"), second.locator("[data-told]").inner_text()
    classes = figures.classes_of(results)

    for one in classes:  # by the keyboard, in the order of change
        page.keyboard.press("Tab")
        assert told.inner_text() == figures.in_words(one)
        ring = page.locator(":focus .ring")
        assert ring.evaluate("ring => getComputedStyle(ring).strokeWidth") == "2.5px"
    assert second.locator("[data-told]").inner_text() == at_rest, "figures do not speak for each other"
    page.keyboard.press("Tab")  # on to the second figure
    assert told.inner_text() == at_rest and "Tick" in second.locator("[data-told]").inner_text()

    for width in (900, 320):  # by the pointer; a class whose bubble has no size can be pointed at too
        page.set_viewport_size({"width": width, "height": 1600})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for one in classes:
            dot = first.get_by_role("img", name=one.label).locator("circle").nth(2).bounding_box()
            page.mouse.move(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2)
            assert told.inner_text() == figures.in_words(one)
        page.mouse.move(5, 5)
        assert told.inner_text() == at_rest
    assert faults == [] and asked == [file.as_uri()]
    page.close()


# --- planted truth, missing modalities, the null world, costs ---------------------------------------------


def test_what_fusions_rely_on_is_judged_by_the_rule(maker: Maker, shown: Callable) -> None:
    caption, head, rows = table_of(shown(planted.planted_table, maker.demo())[0])
    assert head == ["test clips, demo, profile demo", "correlation with signal-to-noise ratio",
                    "correlation with visible share"]  # fmt: skip
    assert rows == {
        "Attention fusion, its learned weight of sound": ["+0.30 [+0.20, +0.40] follows",
                                                          "+0.30 [+0.20, +0.40] runs against it"],
        "Attention fusion, its reliance on sound": ["+0.20 [+0.10, +0.30] follows", "-0.20 [-0.30, -0.10] follows"],
        "MLP fusion, its reliance on sound": ["+0.00 [-0.10, +0.10] undecided", "+0.00 [-0.10, +0.10] undecided"],
        "Regression fusion, its reliance on sound": ["-0.40 [-0.50, -0.30] runs against it",
                                                     "+0.40 [+0.30, +0.50] runs against it"],
    }  # fmt: skip
    assert "Spearman" in caption and "undecided" in caption
    real = maker.kept("paired", TRAINED, "paired", dry=False)
    for function in (planted.planted_table, planted.planted_figure):
        (output,) = shown(function, real)
        assert output.data["text/plain"].endswith("not paired.")


def test_what_is_lost_in_silence_and_in_the_dark(maker: Maker, shown: Callable) -> None:
    results = maker.demo()
    _, _, rows = table_of(shown(planted.missing_table, results)[0])
    assert list(rows) == [report.SYSTEMS[system] for system in ("average", "regression", "mlp", "attention")]
    for system, word in (("average", "loses"), ("mlp", "gains"), ("attention", "loses")):
        wanted = [maker.text(results, system, "map")]
        for what in ("silent", "black"):
            wanted += [maker.text(results, system, f"map_{what}"),
                       f"{maker.text(results, system, f'map_{what}_loss')} {word}"]  # fmt: skip
        assert rows[report.SYSTEMS[system]] == wanted
    (note,) = shown(planted.missing_table, maker.kept("paired", TRAINED, "paired", dry=False))
    assert note.data["text/plain"].startswith("Not measured")


def test_the_world_whose_pictures_tell_nothing(maker: Maker, shown: Callable) -> None:
    results, null = maker.demo(), maker.null()
    _, head, rows = table_of(shown(planted.null_table, results, null)[0])
    assert head == ["test clips", "demo, profile demo", "demo-null, profile demo"]
    for system in ("audio", "visual", "attention"):
        assert rows[f"mAP, %: {report.SYSTEMS[system]}"] == [maker.text(one, system, "map") for one in (results, null)]
    assert rows["attention fusion less audio, points of mAP"] == [
        f"{maker.text(results, 'audio', 'map_lead')} ahead",
        "-1.0 [-3.0, +1.0] undecided",
    ]
    assert rows["mean weight of sound in clips that contain the class, over classes"] == [
        "0.51",
        "0.80",
    ]  # (0.995 + 0.1 + 0.95 + 0.5 + 0.005) / 5
    assert rows["weight of sound in all clips and classes less that on the demo world"] == [
        "–",
        "+0.29 [+0.21, +0.33] towards sound",
    ]
    assert "Not measured" in shown(planted.null_table, results, None)[0].data["text/plain"]


def test_costs_and_scale(maker: Maker, shown: Callable) -> None:
    _, _, rows = table_of(shown(training.costs_table, maker.demo())[0])
    assert rows == {
        "Audio": ["1,234,567", "2.1 min", "cpu"],
        "Attention fusion": ["4,321", "–", "cpu"],
        "All fusions but average, together": ["–", "4.0 s", "cpu"],
        "peak memory": ["2.0 GB", "–", "cpu"],
    }
    caption, _, rows = table_of(shown(training.simulated_table, maker.simulated())[0])
    assert caption.startswith("For scale, never for claims") and "1 train, 1 test clips" in caption
    assert "527 classes scored, 0 left out" in caption
    assert list(rows) == [report.SYSTEMS[system] for system in TRAINED]
    assert rows["Audio"] == ["20.0", "44.4", "16.7 min"] and rows["Visual"] == ["21.0", "22.2", "33.3 min"]
    assert rows["Attention fusion"] == ["25.0", "–", "100.0 min"] and rows["Attention without n_av"][2] == "2.8 h"
    assert "Not measured" in shown(training.simulated_table, None)[0].data["text/plain"]


# --- what may not be shown, and sentences -----------------------------------------------------------------


def test_runs_without_numbers_show_none(maker: Maker, shown: Callable) -> None:
    own = maker.run("folder", dry=False)
    own.add("corpus", "", "clips", 3)
    nothing = report.Committed(None, None, None)
    for reason, results in {"too few to train on": own.write(maker.folder), "A dry run": maker.demo(dry=True)}.items():
        calls: list[tuple[Callable, tuple]] = [
            (report.table2, (results, None)), (report.table3, (results, None, None)), (report.table4, (results, None)),
            (report.leads_table, (results, None, None)), (figures.figure2, (results,)), (figures.figure3, (results,)),
            (figures.figure4, (results,)), (figures.counts_table, (results, None)), (bubbles.bubbles, (results,)),
            (planted.planted_table, (results,)), (planted.planted_figure, (results,)),
            (planted.missing_table, (results,)), (planted.null_table, (results, None)),
            (training.generations_figure, (results,)), (training.costs_table, (results,)),
            (say_numbers, (results, None, nothing)),
        ]  # fmt: skip
        for function, arguments in calls:
            (output,) = shown(function, *arguments)
            assert reason in output.data["text/plain"] and not re.search(r"\d", output.data["text/plain"])


def said_by(shown: Callable, *arguments: Any) -> dict[str, str]:
    outputs = shown(say_numbers, *arguments)
    said = {one.metadata["scrapbook"]["name"]: one.data["text/plain"].strip("'\"") for one in outputs}
    assert len(said) == len(outputs)
    return said


def test_sentences_are_made_of_the_numbers_and_no_name_is_missing(maker: Maker, shown: Callable) -> None:
    results, null = maker.demo(), maker.null()
    others, real = maker.kept("others", report.OTHERS), maker.kept("paired", TRAINED, "paired")
    said = said_by(shown, results, null, report.Committed(others, real, maker.simulated()))
    for system in report.SYSTEMS:
        here = others if system in report.OTHERS else results
        assert said[f"map_{system}"] == maker.text(here, system, "map")
        assert said[f"real_map_{system}"] == (
            "not measured" if system in report.OTHERS else maker.text(real, system, "map")
        )
    assert said["lead_mlp"] == f"{maker.text(results, 'mlp', 'map_lead')} points, behind: the interval lies below zero"
    assert (
        said["leads"].startswith("ahead: 11 of 12 (Audio, Visual, ") and "behind: 1 of 12 (MLP fusion)" in said["leads"]
    )
    assert said["leads_table2"].startswith("ahead: 4 of 5") and said["lead_ablations"].startswith("ahead: 4 of 4")
    assert said["others_leads"].startswith("ahead: 3 of 3") and said["real_leads"].startswith("ahead: 8 of 9")
    assert said["real_origin"] == "paired, profile demo, 2 seeds"
    assert (said["improved"], said["real_weight_low"], said["visual_better"]) == ("2 of 5", "2 of 5", "2 of 5")
    assert (said["published_improved"], said["published_weight_zero"]) == ("439 of 527", "around 38 of 527")
    assert said["published_follow"] == "16 of 18 follow, 2 by rounding alone, 0 not"
    assert said["snr_attention"] == "+0.20 [+0.10, +0.30], follows: the interval lies above zero"
    assert said["visible_attention"] == "-0.20 [-0.30, -0.10], follows: the interval lies below zero"
    assert said["weight_visible_attention"].endswith("runs against it: the interval lies above zero")
    assert said["snr_mlp"] == "+0.00 [-0.10, +0.10], undecided: the interval holds zero"
    loss = maker.text(results, "attention", "map_silent_loss")
    assert said["silent_loss_attention"] == f"{loss} points, loses: the interval lies above zero"
    assert said["black_loss_mlp"].endswith("gains: the interval lies below zero")
    assert said["generation_gain"] == (
        "+5.0 [+1.0, +9.0] points, from 38.0 [36.0, 40.0] to 43.0 [41.0, 45.0] %, ahead: the interval lies above zero"
    )
    assert (
        said["generation_gain_validation"] == "+5.0 points, from 40.0 [38.0, 42.0] to 45.0 [43.0, 47.0] %"
        and said["generations"] == "3"
    )
    assert said["null_weight_shift"] == "+0.29 [+0.21, +0.33], towards sound: the interval lies above zero"
    assert said["null_lead"] == "-1.0 [-3.0, +1.0] points, undecided: the interval holds zero"
    assert (said["classes_scored"], said["simulated_classes"]) == ("4", "527")

    # A bare run, as of one system on one's own clips, says all names that the fullest run says.
    bare = maker.run("folder", dry=False)
    bare.add("audio", "test", "map", np.nan)  # no class had a positive clip
    bare.add("audio", "test", "map_lead", Interval(np.nan, np.nan, np.nan, ""))
    bare.add("audio", "validation", "map_of_generation", np.nan, step=0)
    bare.add("audio", "validation", "map_of_generation", np.nan, step=1)
    results = bare.write(maker.folder)
    less = said_by(shown, results, None, report.Committed(None, None, None))
    assert set(less) == set(said)
    known = {name for name, text in less.items() if text != "not measured"}
    assert known == {"origin", *(name for name in less if name.startswith("published_"))}
    null = maker.run("demo-null", dry=True)
    null.add("corpus", "", "clips", 3)
    assert said_by(shown, results, null.write(maker.folder), report.Committed(None, None, None)) == less
