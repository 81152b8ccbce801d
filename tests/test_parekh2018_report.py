"""The report on Parekh et al. (2018): made-up results stand where they belong, and the published numbers add up."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from chapters import table_of

from avrepro import digests
from avrepro.corpora.base import Clip, Corpus
from avrepro.evaluation.intervals import Interval
from avrepro.manifests import manifest_path
from avrepro.report import parekh2018 as report
from avrepro.report import parekh2018_clips as clips
from avrepro.report import parekh2018_planted as planted
from avrepro.report import published
from avrepro.report.parekh2018_said import growth, say_numbers, tally
from avrepro.results import Results, Run

PAPER = published("parekh2018")
LABELS = ("Car", "Train horn", "Dog")  # two of the paper's, one that it has not
LEARNT = ("two_stream", "audio_only", "video_only", "wsddn", "one_stream", "synchronous")
CVSSP = ("cvssp_fusion", "cvssp_gated_crnn")
HEARS = ("two_stream", "one_stream", "audio_only")
SEES = ("two_stream", "one_stream", "video_only", "wsddn")


class Maker:
    """Runs with numbers that are all different, so that none can stand in another's place unseen."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.next = folder, itertools.count(101)
        self.texts: dict[tuple, str] = {}

    def run(self, name: str = "demo", **parameters: Any) -> Run:
        splits = ("train", "validation", "test")
        made = tuple(Clip(split, Path(f"{split}.mp4"), split, ("Car",)) for split in splits)
        given = {"profile": "demo", "seed": 0, "corpus": name, **parameters}
        return Run(report.CHAPTER, given, Corpus(name, LABELS, made, (), name))

    def add(self, run: Run, system: str, metric: str, label: str = "", split: str = "test", sign: int = 1) -> None:
        """A new number with an interval from 3 points below to 1 point above it."""
        value = sign * next(self.next) / 1000
        run.add(system, split, metric, Interval(value, value - 0.03, value + 0.01, "made up"), label=label,
                threshold_rule="the rule")  # fmt: skip
        digits = "+.1f" if metric.endswith(("lead", "gain")) else ".1f"
        numbers = (format(100 * number, digits) for number in (value, value - 0.03, value + 0.01))
        self.texts[run.id, system, metric, label] = "{} [{}, {}]".format(*numbers)

    def scores(self, run: Run, systems: tuple[str, ...]) -> None:
        for system in systems:
            for metric in ("micro_f1", "micro_precision", "micro_recall"):
                self.add(run, system, metric)
            for label in LABELS:
                self.add(run, system, "class_f1", label)
            if system != "two_stream":
                self.add(run, system, "micro_f1_lead")

    def demo(self, **parameters: Any) -> Results:
        """All numbers that a run on the demo world has."""
        run = self.run(**{"dry": False, **parameters})
        self.scores(run, (*LEARNT, "class frequency"))
        for metric, systems in (("sound_ap", HEARS), ("sound_pointing", HEARS), ("sight_overlap", SEES),
                                ("sight_pointing", SEES)):  # fmt: skip
            for system in (*systems, "chance"):
                self.add(run, system, metric)
                if metric.startswith("sound"):
                    for label in LABELS:
                        self.add(run, system, metric, label)
            for system in systems:
                self.add(run, system, f"{metric}_gain")
                if system != "two_stream":
                    self.add(run, system, f"{metric}_lead", sign=-1)
        run.add("proposals", "test", "sight_reachable", 0.7654)
        for number, label in enumerate(("0 to 1 s", "heard, not seen")):
            run.add("corpus", "test", "events", 40 + number, label=label)
            for system in ("two_stream", "synchronous"):
                self.add(run, system, "recall", label)
        for number, label in enumerate(LABELS):
            run.add("corpus", "train", "positive_clips", 10**number, label=label)
            run.add("sampler", "train", "positive_clips", 30 + number, label=label)
        run.add("corpus", "", "regions_per_clip", 98.7)
        run.add("corpus", "", "segments_per_clip", 20)
        run.add("corpus", "", "peak_memory_mb", 2048)
        run.add("features", "", "seconds_per_clip", 0.25)
        run.add("two_stream", "", "training_seconds", 61)
        return run.write(self.folder)

    def kept(self, what: str, systems: tuple[str, ...], name: str = "demo", **parameters: Any) -> Results:
        run = self.run(name, seeds=[0, 1], measured=what, **parameters)
        self.scores(run, systems)
        if isinstance(parameters.get("gap"), float):
            run.add("corpus", "test", "planted_gap", parameters["gap"] - 0.14)
        return run.write(self.folder)

    def text(self, results: Results, system: str, metric: str, label: str = "") -> str:
        return self.texts[results.passport()["run"], system, metric, label]


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


# --- the paper's own numbers ------------------------------------------------------------------------------


def test_table_2_is_complete_and_has_its_sums() -> None:
    classes = PAPER["table2"]["classes"]
    world = yaml.safe_load(manifest_path("demo_world.yaml").read_text(encoding="utf-8"))
    assert set(classes) == set(world["classes"])
    assert len(classes) == len({row["short"] for row in classes.values()}) == PAPER["data"]["classes"]["value"] == 17
    assert [row["kind"] for row in classes.values()] == ["vehicle"] * 8 + ["warning"] * 9
    columns = np.array([row["f1"] for row in classes.values()])  # added up from the page, column by column
    np.testing.assert_allclose(columns.sum(axis=0), SUMS, atol=1e-9)
    assert [row["letter"] for row in report.published_rows().values()] == list("abcdefg")


SUMS = (1055.9, 942.1, 734.3, 899.6, 1062.9)


@pytest.mark.parametrize("name", list(report.published_rows()))
def test_f1_follows_where_some_unrounded_precision_and_recall_give_it(name: str) -> None:
    """Against trying what rounds to the printed precision and recall, thousandth by thousandth."""
    row = report.published_rows()[name]
    p, r = np.meshgrid(*(row[key] + np.arange(-50, 51) / 1000 for key in ("precision", "recall")))
    possible = 2 * p * r / (p + r)
    for printed in np.round(row["f1"] + np.arange(-5, 6) / 10, 1):
        literal = bool((np.abs(possible - printed) <= 0.05 + 1e-9).any())
        assert report.follows({**row, "f1": printed}) == literal
    assert report.f1_range(row["precision"], row["recall"]) == pytest.approx((possible.min(), possible.max()))


def test_the_check_of_table_1_shows_its_arithmetic(shown: Callable) -> None:
    (output,) = shown(report.published_check)
    caption, _, rows = table_of(output)
    assert rows["(a) Proposed AV Two Stream"] == ["59.7", "69.4", "64.19 (64.14 to 64.24)", "64.2", "yes"]
    agreeing = sum(row[-1] == "yes" for row in rows.values())
    assert f"{agreeing} of 7 follow" in caption and "Table 2 has 17 classes, section 4 names 17" in caption


# --- tables 1 and 2 ---------------------------------------------------------------------------------------


def test_table_1_has_each_number_in_its_place(maker: Maker, shown: Callable) -> None:
    results = maker.demo()
    cvssp, real = maker.kept("cvssp", CVSSP), maker.kept("paired", (*LEARNT, CVSSP[0]), "paired")
    (output,) = shown(report.table1, results, real, cvssp)
    caption, head, rows = table_of(output)
    assert len(head) == 10 and len(rows) == len(report.SYSTEMS)
    assert head[1:5:3] == ["F1, % (published, DCASE 2017 Task 4)", "F1, % (demo, profile demo)"]
    assert head[7] == "F1, % (real recordings: paired, profile demo)"
    for system, title in report.SYSTEMS.items():
        told = PAPER["table1"].get(system)
        assert rows[title][:3] == ([str(told[key]) for key in ("f1", "precision", "recall")] if told else ["–"] * 3)
        here = cvssp if system in CVSSP else results
        scores = ("micro_f1", "micro_precision", "micro_recall")
        assert rows[title][3:6] == [maker.text(here, system, metric) for metric in scores]
        there = system in LEARNT or system == CVSSP[0]
        assert rows[title][6:] == [maker.text(real, system, m) if there else "not measured" for m in scores]
    assert "Thresholds: the rule." in caption and "(f) and (g) were measured once (demo, profile demo" in caption


def test_what_was_not_measured_keeps_its_row(maker: Maker, shown: Callable) -> None:
    results = maker.demo()
    elsewhere = maker.kept("cvssp", CVSSP, profile="paper")
    for cvssp in (None, elsewhere):  # numbers of another profile may not stand in this one's column
        _, head, rows = table_of(shown(report.table1, results, None, cvssp)[0])
        assert rows[report.SYSTEMS["cvssp_fusion"]] == ["55.6", "61.4", "50.8", *["not measured"] * 6]
        assert rows[report.SYSTEMS["two_stream"]][6:] == ["not measured"] * 3
        assert head[-1] == "recall, % (real recordings: not measured)"


def test_leads_stand_beside_the_published_ones_with_their_verdict(maker: Maker, shown: Callable) -> None:
    run = maker.run(dry=False)
    maker.scores(run, ("two_stream",))
    intervals = {"audio_only": (0.02, 0.01, 0.03), "one_stream": (-0.02, -0.03, -0.01), "wsddn": (0.01, -0.01, 0.03)}
    for system, numbers in intervals.items():
        run.add(system, "test", "micro_f1_lead", Interval(*numbers, "made up"))
    _, _, rows = table_of(shown(report.leads_table, run.write(maker.folder), None, None)[0])
    assert report.SYSTEMS["two_stream"] not in rows
    assert rows[report.SYSTEMS["audio_only"]] == ["+6.9", "+2.0 [+1.0, +3.0] ahead", "not measured"]
    assert rows[report.SYSTEMS["one_stream"]] == ["+8.9", "-2.0 [-3.0, -1.0] behind", "not measured"]
    assert rows[report.SYSTEMS["wsddn"]] == ["+15.4", "+1.0 [-1.0, +3.0] undecided", "not measured"]
    assert rows[report.SYSTEMS["cvssp_gated_crnn"]] == ["+10.0", "not measured", "not measured"]
    assert rows[report.SYSTEMS["synchronous"]][0] == "–"


def test_table_2_has_each_class_beside_the_papers(maker: Maker, shown: Callable) -> None:
    results, cvssp = maker.demo(), maker.kept("cvssp", CVSSP)
    _, head, rows = table_of(shown(report.table2, results, cvssp)[0])
    order = ("two_stream", "audio_only", "video_only", "one_stream", "cvssp_fusion")
    for at, system in enumerate(order, 1):
        assert head[at] == f"{report.SYSTEMS[system]} (published)"
        assert head[at + 5] == f"{report.SYSTEMS[system]} (demo, profile demo)"
    assert list(rows) == list(LABELS)
    assert rows["Car"][:5] == ["75.0", "69.8", "61.2", "74.1", "72.9"]
    assert rows["Train horn"][:5] == ["47.1", "46.9", "32.1", "36.2", "73.6"]
    assert rows["Dog"][:5] == ["–"] * 5
    for label in LABELS:
        sources = [results] * 4 + [cvssp]
        assert rows[label][5:] == [maker.text(*pair, "class_f1", label) for pair in zip(sources, order, strict=True)]
    assert "no such results" in shown(report.table2, None)[0].data["text/plain"]


# --- planted truth ----------------------------------------------------------------------------------------


def test_localisation_asks_each_system_what_it_can_know(maker: Maker, shown: Callable) -> None:
    results = maker.demo()
    values, gains, leads = map(table_of, shown(planted.localisation_tables, results))
    measures = list(planted.MEASURES)
    for system in planted.LOCATED:
        asked = [system in (HEARS if metric.startswith("sound") else SEES) for metric in measures]
        texts = [maker.text(results, system, m) if one else "–" for m, one in zip(measures, asked, strict=True)]
        assert values[2][report.SYSTEMS[system]] == texts
        more = [f"{maker.text(results, system, f'{m}_gain')} ahead" if one else "–"
                for m, one in zip(measures, asked, strict=True)]  # fmt: skip
        assert gains[2][report.SYSTEMS[system]] == more
        if system != "two_stream":
            less = [f"{maker.text(results, system, f'{m}_lead')} behind" if one else "–"
                    for m, one in zip(measures, asked, strict=True)]  # fmt: skip
            assert leads[2][report.SYSTEMS[system]] == less
    assert values[2]["chance"] == [maker.text(results, "chance", metric) for metric in measures]
    assert "In 76.5 % some region" in values[0]
    assert (len(gains[2]), len(leads[2])) == (5, 4)


def test_only_the_demo_world_has_planted_truth(maker: Maker, shown: Callable) -> None:
    real = maker.kept("paired", LEARNT, "paired", dry=False)
    for function in (planted.localisation_tables, planted.sounds_figure, planted.recall_table):
        (output,) = shown(function, real)
        assert output.data["text/plain"].endswith("not paired.")


def test_recall_by_gap(maker: Maker, shown: Callable) -> None:
    results = maker.demo()
    _, _, rows = table_of(shown(planted.recall_table, results)[0])
    for events, label in ((40, "0 to 1 s"), (41, "heard, not seen")):
        texts = [maker.text(results, system, "recall", label) for system in ("two_stream", "synchronous")]
        assert rows[label] == [str(events), *texts, "not measured"]


def test_committed_results_are_told_apart_and_gaps_are_in_order(
    maker: Maker, shown: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "COMMITTED", maker.folder)
    assert (report.committed().cvssp, report.committed().paired, report.committed().gaps) == (None, None, ())
    mixed: list[float | str] = ["never", 6.0, 0.0, 2.0]
    made = {gap: maker.kept("gap", planted.OF_GAPS, gap=gap) for gap in mixed}
    cvssp = maker.kept("cvssp", CVSSP)
    maker.demo()  # this run's own numbers are no committed ones
    kept = report.committed()
    assert [report.gap_of(one) for one in kept.gaps] == [0.0, 2.0, 6.0, "never"]
    assert kept.paired is None and kept.cvssp is not None
    assert kept.cvssp.passport()["run"] == cvssp.passport()["run"]
    assert len(kept.there) == 5

    _, _, rows = table_of(shown(planted.gap_table, kept.gaps)[0])
    assert list(rows) == ["0 s", "2 s", "6 s", "never"]
    assert [row[0] for row in rows.values()] == ["-0.1", "1.9", "5.9", "–"]
    for (name, row), gap in zip(rows.items(), map(report.gap_of, kept.gaps), strict=True):
        assert row[1:4] == [maker.text(made[gap], system, "micro_f1") for system in planted.OF_GAPS], name
        leads = [maker.text(made[gap], system, "micro_f1_lead") for system in planted.OF_GAPS[1:]]
        assert row[4:] == [f"{lead} ahead" for lead in leads]

    (figure,) = shown(planted.gap_figure, kept.gaps)
    alt = re.search(r'alt="([^"]*)"', figure.data["text/html"])
    values = [float(maker.text(made[gap], "synchronous", "micro_f1").split()[0]) for gap in (0.0, 2.0, 6.0, "never")]
    assert alt and f"{report.SYSTEMS['synchronous']}: {', '.join(f'{value:.0f}' for value in values)}" in alt[1]
    assert "Not measured" in shown(planted.gap_figure, ())[0].data["text/plain"]


def test_figures_say_what_they_show(maker: Maker, shown: Callable) -> None:
    results = maker.demo()
    (sampler,) = shown(clips.sampler_figure, results)
    assert "1 to 100 clips of a class as they are, 30 to 32 in balanced batches" in sampler.data["text/html"]
    (sounds,) = shown(planted.sounds_figure, results)
    of_class = {s: [float(maker.text(results, s, "sound_ap", label).split()[0]) for label in LABELS]
                for s in ("two_stream", "chance")}  # fmt: skip
    above = sum(one > other for one, other in zip(*of_class.values(), strict=True))
    assert f"two streams are above chance in {above}" in sounds.data["text/html"]
    for output in (sampler, sounds):
        assert "demo, profile demo" in output.data["text/plain"]
        assert output.metadata["avrepro"]["run"] == results.passport()["run"]
    _, _, costs = table_of(shown(clips.costs_table, results)[0])
    assert costs == {
        "training, (a) two streams, sound and pictures": ["61 s"],
        "proposals and features, a clip": ["0.25 s"],
        "peak memory": ["2.0 GB"],
    }


# --- what may not be shown, and sentences -----------------------------------------------------------------


def test_runs_without_numbers_show_none(maker: Maker, shown: Callable) -> None:
    own = maker.run("folder", dry=False)
    own.add("corpus", "", "clips", 3)
    runs = {"too few to train on": own.write(maker.folder), "A dry run": maker.demo(dry=True)}
    for reason, results in runs.items():
        calls = [(report.table1, (results, None, None)), (report.leads_table, (results, None, None)),
                 (report.table2, (results,)), (say_numbers, (results, report.Committed(None, None, ()))),
                 (clips.sampler_figure, (results,)), (clips.costs_table, (results,)),
                 (planted.localisation_tables, (results,)), (planted.recall_table, (results,))]  # fmt: skip
        for function, arguments in calls:
            (output,) = shown(function, *arguments)
            assert reason in output.data["text/plain"] and not re.search(r"\d", output.data["text/plain"])


def test_every_number_of_the_chapters_sentences_is_said(maker: Maker, shown: Callable) -> None:
    results = maker.demo()
    gaps = tuple(maker.kept("gap", planted.OF_GAPS, gap=gap) for gap in (0.0, 6.0, "never"))
    real = maker.kept("paired", (*LEARNT, *CVSSP), "paired")
    outputs = shown(say_numbers, results, report.Committed(maker.kept("cvssp", CVSSP), real, gaps))
    said = {one.metadata["scrapbook"]["name"]: one.data["text/plain"].strip("'") for one in outputs}
    assert len(said) == len(outputs)
    notebook = json.loads((digests.ROOT / "book" / f"{report.CHAPTER}.ipynb").read_text(encoding="utf-8"))
    prose = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    named = set(re.findall(r"\{glue:text\}`([^`:]+)`", prose))
    assert named and named <= set(said)
    assert said["f1_one_stream"] == maker.text(results, "one_stream", "micro_f1")
    lead = maker.text(results, "one_stream", "micro_f1_lead")
    assert said["lead_one_stream"] == f"{lead} points, ahead: the interval lies above zero"
    assert said["real_f1_two_stream"] == maker.text(real, "two_stream", "micro_f1")
    assert said["real_origin"].startswith("paired, profile demo") and said["real_origin"].endswith("2 seeds")
    assert said["published_follow"] == "7 of 7"
    assert (said["published_warnings_heard"], said["published_vehicles_seen"]) == ("9 of 9", "3 of 8")
    assert said["segments_per_clip"] == "20"
    assert said["leads"].startswith("ahead: 7 of 7 (b, c, d, e, f, g, synchronous);")


def test_the_rules_of_the_verdicts() -> None:
    ahead, behind, undecided, touching = (
        Interval(0.0, low, high, "") for low, high in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (0.0, 0.2))
    )
    words = [report.verdict(one).partition(":")[0] for one in (ahead, behind, undecided, touching)]
    assert words == ["ahead", "behind", "undecided", "undecided"]
    assert tally([("a", ahead), ("b", undecided), ("c", ahead)]) == (
        "ahead: 2 of 3 (a, c); behind: 0 of 3; undecided: 1 of 3 (b)"
    )
    assert growth(behind, ahead).startswith("it grows") and growth(ahead, behind).startswith("it shrinks")
    assert growth(undecided, ahead).startswith("undecided")  # 0.1 belongs to both
