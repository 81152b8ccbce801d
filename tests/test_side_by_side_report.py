"""The report of all systems side by side: made-up results in their places, judged by the rule, in tables that sort."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from chapters import table_of
from matplotlib import pyplot

from avrepro import results
from avrepro.claims import SYSTEMS, NullWorldError, load_claims, quantities
from avrepro.corpora.base import Clip, Corpus
from avrepro.corpora.dcase2017 import CLASSES
from avrepro.digests import ROOT
from avrepro.evaluation.intervals import Interval
from avrepro.parameters import check
from avrepro.report import side_by_side as report
from avrepro.report import side_by_side_evidence as evidence_of
from avrepro.report import side_by_side_figures as figures
from avrepro.report import side_by_side_said as said
from avrepro.report import side_by_side_tables as tables
from avrepro.report.sortable import MISSING, Cell, show_sortable
from avrepro.results import Results, Run

RULE, CLAIMS = load_claims()
NAMES = [f"{paper}/{name}" for paper, systems in SYSTEMS.items() for name in systems]
RANKED = [name for name in NAMES if not name.endswith(("_half", "_single"))]  # the others differ by thresholds alone
LABELS = CLASSES[:5]
MAIN = said.MAIN
LATE = ("silent", "black", "delay 1 s", "delay 3 s", "delay 5 s")
LEAD = Interval(0.04, 0.01, 0.06, "made up")


def text_of(one: Interval, sign: str = "+") -> str:
    return "{} [{}, {}]".format(*(format(100 * part, f"{sign}.1f") for part in (one.value, one.low, one.high)))


def judged(one: Interval) -> str:
    """The verdict and the difference, written out again."""
    word = "holds" if one.low > 0 else "does not hold" if one.high < RULE.margin else "undecided"
    return f"{word}: {100 * one.value:+.1f} points [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"


class Maker:
    """Evidence of random numbers; ``noted`` remembers them by where they belong."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rng = folder, np.random.default_rng(0)
        self.noted: dict[tuple, Interval] = {}
        self.count = itertools.count()

    def run(self, corpus: str, measured: str, chapter: str = evidence_of.CHAPTER, **parameters: Any) -> Run:
        seeds = {"li2017": [0, 1, 2, 3, 4], "fayek2020": list(range(10))}
        told = {
            "profile": "demo",
            "seed": 0,
            "corpus": corpus,
            "seeds": seeds,
            "measured": measured,
            "claims": quantities(load_claims()[1]),
            **parameters,
        }
        clips = tuple(Clip(split, Path(f"{split}.mp4"), split, (LABELS[0],)) for split in ("train", "test"))
        return Run(
            chapter, told, Corpus(corpus, LABELS, clips, (), f"{corpus}{next(self.count)}"), parts=("results.py",)
        )

    def add(self, run: Run, system: str, metric: str, low: float, high: float, label: str = "") -> Interval:
        value = self.rng.uniform(low, high)
        one = Interval(value, value - self.rng.uniform(0.01, 0.05), value + self.rng.uniform(0.01, 0.05), "made up")
        run.add(system, "test", metric, one, label=label)
        key = (run.parameters["corpus"], run.parameters["measured"], system, metric, label)
        self.noted[key] = one
        return one

    def protocol(self, corpus: str, low: float = -0.1, energy: bool = False) -> Results:
        """Quality, costs and claims; the differences of claims are from ``low`` to 10 points."""
        run = self.run(corpus, "protocol")
        for k, system in enumerate(NAMES):
            run.add(system, "", "seeds", 5)
            for metric in ("micro_f1", "macro_f1"):
                self.add(run, system, metric, 0.2, 0.9)
            if system in RANKED:
                for metric in ("map", "mauc", "calibration_error"):
                    self.add(run, system, metric, 0.2, 0.9)
                self.add(run, system, "d_prime", 0.5, 3)
                run.add(system, "", "macs", 10.0 ** self.rng.uniform(4, 10))
                run.add(system, "", "parameters", 1234567 + k)
                if k % 3:
                    run.add(system, "", "training_seconds", 1.5 + 100 * k)
                    run.add(system, "", "inference_seconds", 0.00125 * (k + 1))
                if energy:
                    run.add(system, "", "energy_joules", 1500.0)
        for name in CLAIMS:
            run.add(name, "", "seeds", 5)
            self.add(run, name, "difference", low, 0.1)
        for name in MAIN:
            for label in LABELS:
                self.add(run, name, "class_difference", -0.1, 0.1, label)
        best = tables.best_of_papers(evidence_of.Measured(pd.DataFrame(run.rows)))
        for mine, other in itertools.product(("beyond/union", "beyond/bottleneck"), best.values()):
            self.add(run, mine, "map_lead", -0.1, 0.1, other)
        return run.write(self.folder)

    def null(self) -> Results:
        """A world in which nothing that is claimed is to be seen."""
        run = self.run("demo-null", "protocol")
        for name in CLAIMS:
            one = Interval(-0.01, -0.03, 0.01, "made up")
            run.add(name, "test", "difference", one)
            self.noted["demo-null", "protocol", name, "difference", ""] = one
        return run.write(self.folder)

    def robustness(self) -> Results:
        run = self.run("demo", "robustness")
        for system, label in itertools.product(("fayek2020/attention", "parekh2018/two_stream"), LATE):
            for metric in ("micro_f1", "map"):
                self.add(run, system, metric, 0.2, 0.9, label)
                self.add(run, system, f"{metric}_loss", -0.1, 0.2, label)
        return run.write(self.folder)

    def varied(self, measured: str, labels: tuple[str, ...]) -> Results:
        run = self.run("demo", measured)
        for system, label in itertools.product(RANKED, labels):
            for metric in ("micro_f1", "map"):
                self.add(run, system, metric, 0.2, 0.9, label)
        return run.write(self.folder)

    def live(self, chapter: str, metric: str, systems: dict[str, Interval], **other: Any) -> Results:
        """What a chapter of the build measured itself."""
        told = check(chapter, {}).model_dump() | {"image_network": "made up"} | other
        clips = (Clip("test", Path("test.mp4"), "test", (LABELS[0],)),)
        run = Run(chapter, told, Corpus("demo", LABELS, clips, (), f"live{next(self.count)}"))
        for system, one in systems.items():
            run.add(system, "test", metric, one)
        return run.write(self.folder)

    def load(self, profile: str = "demo") -> evidence_of.Evidence:
        """What the report finds where this maker's folder is all there is."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evidence_of, "read", lambda: results.read(folders=(self.folder,)))
            return evidence_of.load(profile)


@dataclass(frozen=True)
class World:
    """All that can be measured, and where each number belongs."""

    noted: dict[tuple, Interval]
    evidence: evidence_of.Evidence


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    maker = Maker(tmp_path_factory.mktemp("world"))
    maker.protocol("demo")
    maker.protocol("paired")
    maker.null()
    maker.robustness()
    maker.varied("noise", ("0", "0.2", "0.4"))
    maker.varied("learning", ("0.125", "0.25", "0.5", "1"))
    maker.live("lightweight_fusion", "micro_f1_gain", {"fused": LEAD})
    return World(maker.noted, maker.load())


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


# --- tables that sort -------------------------------------------------------------------------------------

HEAD = ["system", "score, %", "multiply-accumulates"]
ROWS: list[list[Cell | str]] = [
    ["Émile", Cell("9.5 [9.0, 10.0]", 9.5), Cell("1,000", 1000)],
    ["zebra", MISSING, Cell("20", 20.0)],
    [Cell("bee & <b>co</b>", "bee"), Cell("10.5", 10.5), Cell("300", 300)],
    ["apple", Cell("-3.0", -3.0), MISSING],
]


def page_of(browser: Any, folder: Path, markup: str, width: int = 900, scripts: bool = True) -> tuple[Any, list[str]]:
    """A page that shows the markup, and the faults and requests to come."""
    file = folder / f"page-{width}-{scripts}.html"
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    file.write_text(f"{head}<title>made up</title><body>{markup}", encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900}, java_script_enabled=scripts)
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(error.message))
    page.on("request", lambda request: faults.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    return page, faults


def firsts(table: Any) -> list[str]:
    return table.locator("tbody th").all_inner_texts()


def test_a_table_sorts_by_pointer_and_keyboard(browser: Any, shown: Callable, tmp_path: Path) -> None:
    outputs = shown(show_sortable, HEAD, ROWS, "A caption.") + shown(show_sortable, HEAD, ROWS, "Another.")
    page, faults = page_of(browser, tmp_path, "".join(output.data["text/html"] for output in outputs))
    first, second = page.locator("table").all()
    as_given = ["Émile", "zebra", "bee & <b>co</b>", "apple"]
    assert firsts(first) == as_given and first.locator("b").count() == 0
    score = first.get_by_role("columnheader", name="score, %")
    assert score.get_attribute("aria-sort") is None

    button = first.get_by_role("button", name="score, %", exact=True)
    button.click()
    assert firsts(first) == ["apple", "Émile", "bee & <b>co</b>", "zebra"], "by size, not by letters; missing last"
    assert score.get_attribute("aria-sort") == "ascending"
    assert first.get_by_role("status").inner_text() == "Sorted by score, %, ascending."
    button.click()
    assert firsts(first) == ["bee & <b>co</b>", "Émile", "apple", "zebra"], "missing last again"
    assert score.get_attribute("aria-sort") == "descending"
    button.click()
    assert firsts(first) == as_given and score.get_attribute("aria-sort") is None

    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text().startswith("multiply-accumulates")
    outline = page.locator(":focus").evaluate("button => getComputedStyle(button).outlineStyle")
    assert outline == "solid", "one sees where the keyboard is"
    page.keyboard.press("Enter")
    assert firsts(first) == ["zebra", "bee & <b>co</b>", "Émile", "apple"]
    assert [one.get_attribute("aria-sort") for one in first.get_by_role("columnheader").all()] == [
        None,
        None,
        "ascending",
    ]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert firsts(first) == ["apple", "bee & <b>co</b>", "Émile", "zebra"], "letters as one looks them up"

    assert firsts(second) == as_given, "tables do not sort each other"
    assert [row.inner_text() for row in first.locator("tbody tr").nth(0).locator("th, td").all()] == [
        "apple",
        "-3.0",
        "–",
    ]
    assert faults == []
    page.close()


def test_without_scripts_it_is_a_plain_table(browser: Any, shown: Callable, tmp_path: Path) -> None:
    (output,) = shown(show_sortable, HEAD, ROWS, "A & caption.")
    page, faults = page_of(browser, tmp_path, output.data["text/html"], scripts=False)
    table = page.locator("table")
    assert table.locator("thead th").all_inner_texts() == HEAD and table.locator("button").count() == 0
    assert table.locator("caption").inner_text().strip() == "A & caption."
    assert table.locator("tbody tr").count() == 4 and faults == []
    assert output.data["text/plain"].split("\n")[:3] == [
        "A & caption.",
        "system\tscore, %\tmultiply-accumulates",
        "Émile\t9.5 [9.0, 10.0]\t1,000",
    ]
    page.close()


def test_wide_tables_do_not_widen_the_page(browser: Any, world: World, shown: Callable, tmp_path: Path) -> None:
    evidence = world.evidence
    outputs = shown(report.verdict_table, evidence) + shown(tables.protocol_table, evidence, "demo")
    outputs += shown(tables.classes_table, evidence, *MAIN)
    markup = "".join(output.data["text/html"] for output in outputs)
    for width in (360, 1300):
        page, faults = page_of(browser, tmp_path, markup, width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for caption in page.locator("caption > div").all():
            assert caption.bounding_box()["width"] <= width
        for k, table in enumerate(page.locator("table").all()):
            rows = table.locator("tbody tr").count()
            button = table.locator("thead button").nth(3)
            button.focus()
            page.keyboard.press("Enter")
            keys = table.locator("tbody tr td:nth-child(4)").evaluate_all("cells => cells.map(one => one.dataset.key)")
            numbers = [float(key) for key in keys if key]
            assert len(keys) == rows and numbers == sorted(numbers) and len(numbers) > 3, k
            assert keys[len(numbers) :] == [""] * (rows - len(numbers))
        assert faults == []
        page.close()


# --- evidence ---------------------------------------------------------------------------------------------


def test_runs_are_found_by_corpus_and_what_was_measured(world: World, maker: Maker) -> None:
    assert (maker.load().runs, maker.load().any) == ({}, None)
    evidence = world.evidence
    assert set(evidence.runs) == {
        ("demo", "protocol"), ("paired", "protocol"), ("demo-null", "protocol"), ("demo", "robustness"),
        ("demo", "noise"), ("demo", "learning"),
    }  # fmt: skip
    assert all(one.passport()["corpus"] == corpus for (corpus, _), one in evidence.runs.items())
    assert evidence.run("paired", "noise") is None and set(evidence.live) == {"lightweight_fusion"}
    assert evidence_of.place(evidence.run("demo")) == "demo, profile demo, 5 to 10 seeds"
    other = maker.run("demo", "protocol", claims="of yesterday")
    other.add("li2017/audio", "test", "map", 0.5)
    assert evidence_of.place(other.write(maker.folder)).endswith(
        "5 to 10 seeds, stale: measured for other claims than today's"
    )  # type: ignore[arg-type]


def test_this_build_is_compared_as_its_chapters_note_it(maker: Maker) -> None:
    gain, tuned = Interval(0.05, 0.02, 0.09, "made up"), Interval(0.03, 0.01, 0.04, "made up")
    maker.live("lightweight_fusion", "micro_f1_gain", {"fused": gain, "fused, tuned weights": tuned})
    maker.live("unsynchronized_mil", "micro_f1_lead", {"audio_only": LEAD})
    maker.live("attention_fusion", "map_lead", {"audio": LEAD, "mlp": Interval(-0.02, -0.05, 0.01, "made up")})
    evidence = maker.load()
    assert set(evidence.live) == {"lightweight_fusion", "unsynchronized_mil", "attention_fusion"}
    here = {name: evidence_of.measured_here(evidence, claim) for name, claim in CLAIMS.items()}
    found = {name: (one.value, one.low, one.high) for name, one in here.items() if one is not None}
    assert found == {
        "li2017_fusion_above_audio": (0.05, 0.02, 0.09),
        "parekh2018_two_stream_above_audio_only": (0.04, 0.01, 0.06),
        "fayek2020_attention_above_audio": (0.04, 0.01, 0.06),
        "fayek2020_attention_above_mlp": (-0.02, -0.05, 0.01),
    }
    turned = {"system": "fayek2020/mlp", "against": "fayek2020/attention"}
    one = evidence_of.measured_here(evidence, CLAIMS["fayek2020_attention_above_mlp"].model_copy(update=turned))
    assert one is not None and (one.value, one.low, one.high) == (0.02, -0.01, 0.05)
    turned = {"system": "li2017/audio", "against": "li2017/fused_tuned"}
    one = evidence_of.measured_here(evidence, CLAIMS["li2017_fusion_above_audio"].model_copy(update=turned))
    assert one is not None and (one.value, one.low, one.high) == (-0.03, -0.04, -0.01)
    assert maker.load("ci").live == {}


def test_this_build_is_neither_stale_nor_of_other_parameters(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in ({"seed": 3}, {"profile": "ci"}, {"corpus": "demo-null"}, {"key_frames": 8}, {"dry": True}):
        maker.live("lightweight_fusion", "micro_f1_gain", {"fused": LEAD}, **other)
    assert maker.load().live == {}
    maker.live("lightweight_fusion", "micro_f1_gain", {"fused": LEAD})
    assert set(maker.load().live) == {"lightweight_fusion"}
    monkeypatch.setattr(evidence_of, "is_stale", lambda row: True)
    assert maker.load().live == {}


# --- verdicts ---------------------------------------------------------------------------------------------


def test_each_verdict_stands_in_its_place(world: World, shown: Callable) -> None:
    evidence = world.evidence
    outputs = shown(report.verdict_table, evidence)
    assert len(outputs) == 3
    seen = {}
    for output in outputs:
        caption, head, rows = table_of(output)
        assert head == [
            "claim", "published", "real recordings (paired, profile demo, 5 to 10 seeds)",
            "demo world (demo, profile demo, 5 to 10 seeds)",
            "control: pictures of other clips (demo-null, profile demo, 5 to 10 seeds)",
            "this build (demo, profile demo, one seed)",
        ]  # fmt: skip
        assert "reproduces no published number" in caption and "last column is empty" not in caption
        seen |= rows
    assert len(seen) == len(CLAIMS)
    for name, claim in CLAIMS.items():
        (row,) = [cells for first, cells in seen.items() if first == f"{claim.sentence} ({report.tested(claim)})"]
        differences = [
            world.noted[corpus, "protocol", name, "difference", ""] for corpus in ("paired", "demo", "demo-null")
        ]
        assert row[1:4] == [judged(one) for one in differences]
        assert row[4] == (f"{text_of(LEAD).replace(' [', ' points [')}" if name == "li2017_fusion_above_audio" else "–")
        assert row[0].endswith(f"section {claim.where.section}, page {claim.where.page}")
        if claim.published.value is not None:
            assert row[0].startswith(f"{claim.published.value:g} ")


def test_the_front_page_has_the_same_verdicts_under_names(world: World, shown: Callable) -> None:
    chapter, front = (shown(one, world.evidence) for one in (report.verdict_table, report.front_page))
    names = [output.metadata["scrapbook"]["name"] for output in front]
    assert names == ["verdicts_li2017", "verdicts_parekh2018", "verdicts_fayek2020"]
    for whole, short in zip(map(table_of, chapter), map(table_of, front), strict=True):
        assert short[1] == whole[1][:-1] and short[2] == {first: cells[:-1] for first, cells in whole[2].items()}
    page = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    assert re.findall(r"```\{glue:any\} (\w+)\n:doc: side_by_side\.ipynb\n```", page) == names


def test_a_verdict_is_a_word_and_a_claim_a_link(world: World, shown: Callable) -> None:
    links: Counter[str] = Counter()
    for output in shown(report.verdict_table, replace(world.evidence, live={})):
        page = BeautifulSoup(output.data["text/html"], "html.parser")
        links.update(str(one["href"]) for one in page.select("tbody th a"))
        for row in page.select("tbody tr"):
            for cell in row.find_all("td")[1:4]:
                assert cell.strong is not None
                assert cell.strong.get_text() in ("holds", "does not hold", "undecided")
        assert page.caption is not None and "last column is empty" in page.caption.get_text()
    assert links == Counter(f"{claim.chapter}.html" for claim in CLAIMS.values())


def test_comparisons_in_words() -> None:
    words = {
        "li2017_fusion_above_audio": "micro F1: fused less audio",
        "parekh2018_pictures_strong_on_vehicles": "class F1: video only less audio only, mean over the 8 vehicles, "
        "less that over the 9 warning sounds",
        "li2017_car_passing_by": "class F1: fused less audio, of Car passing by, less that over the 16 other classes",
        "fayek2020_classes_improved": "share of the classes in which average precision of attention is above that of "
        "audio, less 83.0 %",
        "fayek2020_average_best_by_mauc": "mAUC: average less attention",
    }
    assert {name: report.tested(CLAIMS[name]) for name in words} == words


def test_the_rule_is_that_of_the_registry(maker: Maker, shown: Callable) -> None:
    caption, head, rows = table_of(shown(report.rule_table, maker.load())[0])
    assert RULE.words in caption and "95 %" in head[1]
    assert rows["does not hold"] == ["does not, and lies wholly below 2 points"]
    assert list(rows) == ["holds", "does not hold", "undecided", "not measured"]


def test_counts_of_verdicts(world: World, maker: Maker, shown: Callable) -> None:
    evidence = world.evidence
    counts = Counter(
        judged(world.noted["demo", "protocol", name, "difference", ""]).partition(":")[0] for name in CLAIMS
    )
    assert min(counts.values()) > 1 and len(counts) == 3
    wanted = f"{counts['holds']} hold, {counts['does not hold']} do not hold, {counts['undecided']} undecided"
    assert report.tally(evidence, "demo") == wanted
    assert report.tally(evidence, "demo-null") == f"0 hold, {len(CLAIMS)} do not hold, 0 undecided"
    few = maker.run("paired", "protocol")
    for name, low in zip(list(CLAIMS)[:3], (0.01, -0.2, -0.01), strict=True):
        few.add(name, "test", "difference", Interval(low + 0.05, low, low + 0.1, "made up"))
    few.add(list(CLAIMS)[3], "test", "difference", np.nan)
    alone = evidence_of.Evidence(
        RULE, CLAIMS, {("paired", "protocol"): evidence_of.Measured(few.write(maker.folder).table)}, {}
    )
    missing = len(CLAIMS) - 3
    assert report.tally(alone, "paired") == f"1 holds, 1 does not hold, 1 undecided, {missing} not measured"


def test_the_build_stops_where_looking_helps_without_anything_to_see(maker: Maker, shown: Callable) -> None:
    assert shown(report.check, maker.load())[0].data["text/plain"].startswith("Not measured")
    maker.null()
    (output,) = shown(report.check, maker.load())
    helped = sum(claim.vision_helps for claim in CLAIMS.values())
    assert f"of the {helped} claims that looking helps, none holds" in output.data["text/plain"]
    assert "demo-null, profile demo" in output.data["text/plain"] and "avrepro" in output.metadata
    maker.protocol("demo-null", low=0.09)
    with pytest.raises(NullWorldError, match="li2017_fusion_above_audio"):
        report.check(maker.load())


def test_verdicts_for_a_terminal(world: World, maker: Maker) -> None:
    text = report.claims_text(world.evidence)
    lines = text.split("\n")
    assert re.split(r"  +", lines[0]) == [
        "claim", "paired (real recordings)", "demo (demo world)", "demo-null (control: pictures of other clips)",
    ]  # fmt: skip
    for line, name in zip(lines[1:], CLAIMS, strict=False):
        ours = [world.noted[corpus, "protocol", name, "difference", ""] for corpus in ("paired", "demo", "demo-null")]
        assert re.split(r"  +", line) == [name, *map(judged, ours)]
    for claim in CLAIMS.values():
        assert f"{claim.id}: {claim.sentence}" in text
    (maker.folder / "empty").mkdir()
    nothing = Maker(maker.folder / "empty").load()
    assert re.split(r"  +", report.claims_text(nothing).split("\n")[1])[1:] == ["not measured"] * 3


# --- one protocol, classes, what is impaired, beyond ------------------------------------------------------


def test_the_protocol_has_each_number_in_its_place(world: World, maker: Maker, shown: Callable) -> None:
    evidence = world.evidence
    caption, head, rows = table_of(shown(tables.protocol_table, evidence, "paired")[0])
    assert "Energy: not readable on this machine." in caption and "paired, profile demo" in caption
    assert head == ["system", "from", "micro F1, %", "macro F1, %", "mAP, %", "mAUC, %", "d'", "calibration error, %",
                    "parameters", "multiply-accumulates a clip, millions", "training, s",
                    "inference, ms a clip"]  # fmt: skip
    assert len(rows) == len({(SYSTEMS[a][b], b) for a, _, b in (name.partition("/") for name in NAMES)})
    k = NAMES.index("fayek2020/r2plus1d_visual")
    row = rows[f"r2plus1d visual: {SYSTEMS['fayek2020']['r2plus1d_visual']}"]
    of = {metric: world.noted["paired", "protocol", "fayek2020/r2plus1d_visual", metric, ""] for metric in
          ("micro_f1", "macro_f1", "map", "mauc", "d_prime", "calibration_error")}  # fmt: skip
    assert row[0] == "Fayek and Kumar (2020)"
    assert row[1:5] == [text_of(of[metric], "") for metric in ("micro_f1", "macro_f1", "map", "mauc")]
    d_prime = of["d_prime"]
    assert row[5] == f"{d_prime.value:.2f} [{d_prime.low:.2f}, {d_prime.high:.2f}]"
    assert row[6] == text_of(of["calibration_error"], "")
    assert row[7] == f"{1234567 + k:,}" and k % 3
    assert row[9:] == [f"{1.5 + 100 * k:,.1f}", f"{1.25 * (k + 1):.2f}"]
    half = rows[f"audio half: {SYSTEMS['li2017']['audio_half']}"]
    assert half[3:] == ["–"] * 8 and half[1] != "–"
    told = evidence_of.Evidence(
        RULE, CLAIMS, {("demo", "protocol"): evidence_of.Measured(maker.protocol("demo", energy=True).table)}, {}
    )
    caption, head, _ = table_of(shown(tables.protocol_table, told, "demo")[0])
    assert head[-1] == "energy of training, kJ" and "not readable" not in caption


def test_classes_are_counted_at_the_corrected_level(world: World, shown: Callable) -> None:
    evidence = world.evidence
    caption, head, rows = table_of(shown(tables.classes_table, evidence, *MAIN)[0])
    assert set(rows) == set(LABELS) and len(head) == 1 + 6
    assert "99.00 % (5 classes)" in caption, "1 - 0.05 / 5"
    columns = list(itertools.product(MAIN, ("paired", "demo")))
    for k, (name, corpus) in enumerate(columns):
        better = worse = 0
        for label in LABELS:
            one = world.noted[corpus, "protocol", name, "class_difference", label]
            better, worse = better + (one.low > 0), worse + (one.high < 0)
            word = "better" if one.low > 0 else "worse" if one.high < 0 else "undecided"
            assert rows[label][k] == f"{text_of(one).replace(' [', ' points [')} {word}"
        counted = f"better in {better} of 5, worse in {worse}"
        assert f"{corpus}: {counted}" in caption
        assert tables.sides(tables.differences(evidence, corpus, name)) == counted
    assert head[1].startswith("fused (Li et al.) less audio (Li et al.), points of class F1 (paired")
    assert head[-1].startswith(
        "attention (Fayek and Kumar) less audio (Fayek and Kumar), points of average precision (demo"
    )


def test_losses_where_something_is_missing(world: World, shown: Callable) -> None:
    outputs = shown(tables.robustness_table, world.evidence)
    assert len(outputs) == 2
    for output, metric in zip(outputs, ("micro_f1", "map"), strict=True):
        _, head, rows = table_of(output)
        assert head[2:] == [f"lost, {label}" for label in LATE]
        assert list(rows) == ["two stream (Parekh et al.)", "attention (Fayek and Kumar)"]
        for system, row in zip(("parekh2018/two_stream", "fayek2020/attention"), rows.values(), strict=True):
            assert row[0] == text_of(world.noted["demo", "protocol", system, metric, ""], "")
            for label, cell in zip(LATE, row[1:], strict=True):
                loss = world.noted["demo", "robustness", system, f"{metric}_loss", label]
                word = "loses" if loss.low > 0 else "gains" if loss.high < 0 else "undecided"
                assert cell == f"{text_of(loss).replace(' [', ' points [')} {word}"


def test_what_rounds_to_nothing_is_no_loss() -> None:
    words = {(1e-7, 2e-5): "same", (-4e-4, 4e-4): "same", (1e-7, 6e-4): "loses", (-0.01, -1e-7): "gains"}
    words[-0.01, 0.01] = "undecided"
    for (low, high), word in words.items():
        assert tables._loses(Interval((low + high) / 2, low, high, "made up")) == word


def test_beyond_the_papers(world: World, shown: Callable) -> None:
    evidence = world.evidence
    outputs, ours = shown(tables.beyond_table, evidence), [name for name in NAMES if name.startswith("beyond/")]
    for output, corpus in zip(outputs, ("demo", "paired"), strict=True):
        caption, head, rows = table_of(output)
        assert corpus in caption
        assert head[4:] == [f"{report.system_name(name)} less this one, mAP" for name in ours]
        for paper in ("li2017", "parekh2018", "fayek2020"):
            scores = {name: world.noted[corpus, "protocol", name, "map", ""].value for name in RANKED if paper in name}
            best = max(scores, key=scores.__getitem__)
            row = rows[report.system_name(best)]
            assert row[1] == text_of(world.noted[corpus, "protocol", best, "map", ""], "")
            lead = world.noted[corpus, "protocol", "beyond/union", "map_lead", best]
            assert row[3 + ours.index("beyond/union")].startswith(f"{text_of(lead).replace(' [', ' points [')} ")
        assert set(rows["union (beyond the papers)"][3:]) == {"–"} and len(rows) == len(ours) + 3


# --- figures ----------------------------------------------------------------------------------------------


def alt_and_caption(output: Any) -> tuple[str, str]:
    page = BeautifulSoup(output.data["text/html"], "html.parser")
    assert page.img is not None and page.figcaption is not None
    return str(page.img["alt"]), page.figcaption.get_text()


def test_marks_lie_at_cost_and_quality_and_names_apart(world: World, shown: Callable) -> None:
    points = {name: (10.0 ** (4 + k / 7), 30 + 5 * np.sin(k)) for k, name in enumerate(RANKED)}
    figure, axes = pyplot.subplots(figsize=(7, 6))
    left_out = figures.draw_costs(axes, points)
    drawn = {tuple(np.round(xy, 6)) for one in axes.collections for xy in np.asarray(one.get_offsets())}
    assert drawn == {tuple(np.round(xy, 6)) for xy in points.values()} and axes.get_xscale() == "log"
    assert len(axes.texts) == len(points) - left_out and left_out < len(points) / 2
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box.contains(*mark) for box in boxes for mark in axes.transData.transform(list(points.values())))
    assert (
        len({(one.get_paths()[0].vertices.tobytes(), tuple(one.get_facecolor()[0])) for one in axes.collections}) == 4
    )
    pyplot.close(figure)
    evidence = world.evidence
    alt, caption = alt_and_caption(shown(figures.cost_figure, evidence, "demo")[0])
    assert "demo, profile demo" in caption and "percent" in caption and "multiply-accumulates" in caption
    best = max(RANKED, key=lambda name: world.noted["demo", "protocol", name, "map", ""].value)
    assert f"Highest mAP: {report.system_name(best)}, " in alt and f"{len(RANKED)} systems" in alt


def test_curves_are_drawn_at_the_numbers(world: World, shown: Callable) -> None:
    evidence = world.evidence
    learning = evidence.run("demo", "learning")
    assert learning is not None
    found = figures.curve(learning, "fayek2020/mlp", "map")
    assert list(found) == [0.125, 0.25, 0.5, 1.0]
    figure, axes = pyplot.subplots()
    figures.draw_curves(axes, {"fayek2020/mlp": found})
    line = axes.containers[0][0]
    np.testing.assert_allclose(line.get_xdata().astype(float), [12.5, 25, 50, 100])
    ours = [world.noted["demo", "learning", "fayek2020/mlp", "map", label] for label in ("0.125", "0.25", "0.5", "1")]
    np.testing.assert_allclose(line.get_ydata().astype(float), [100 * one.value for one in ours])
    pyplot.close(figure)
    for function, measured, first in (
        (figures.learning_figure, "learning", "12.5"),
        (figures.noise_figure, "noise", "0"),
    ):
        alt, caption = alt_and_caption(shown(function, evidence)[0])
        assert "demo, profile demo" in caption and "percent" in caption
        label = "0.125" if measured == "learning" else "0"
        one = world.noted["demo", measured, "li2017/audio", "map", label]
        assert f"audio (Li et al.): mAP {100 * one.value:.1f} % at {first} %" in alt


def test_curves_as_tables(world: World, shown: Callable) -> None:
    evidence = world.evidence
    _, head, rows = table_of(shown(figures.noise_table, evidence)[0])
    assert head[1:] == [
        f"{metric}, %: {share} % of labels wrong" for metric in ("micro F1", "mAP") for share in (0, 20, 40)
    ]
    wanted = [text_of(world.noted["demo", "noise", "beyond/union", metric, label], "")
              for metric in ("micro_f1", "map") for label in ("0", "0.2", "0.4")]  # fmt: skip
    assert rows["union (beyond the papers)"] == wanted and len(rows) == len(RANKED)
    assert "12.5 % of the clips" in table_of(shown(figures.learning_table, evidence)[0])[1][1]


# --- sentences, and what is not there ---------------------------------------------------------------------


def said_by(outputs: list[Any]) -> dict[str, str]:
    found = {one.metadata["scrapbook"]["name"]: one.data["text/plain"] for one in outputs}
    assert len(found) == len(outputs)
    return {name: text[1:-1] for name, text in found.items()}


def test_sentences_are_made_of_the_numbers(world: World, shown: Callable) -> None:
    evidence = world.evidence
    texts = said_by(shown(said.say_all, evidence))
    for name in said.ON_FRONT_PAGE:
        for corpus, short in (("paired", "paired"), ("demo", "demo"), ("demo-null", "null")):
            one = world.noted[corpus, "protocol", name, "difference", ""]
            assert texts[f"claim_{name}_{short}"] == judged(one)
        assert texts[f"claim_{name}_published"].startswith(f"{CLAIMS[name].published.value:g} points")
    assert texts["origin_paired"] == "paired, profile demo, 5 to 10 seeds"
    assert texts["verdicts_demo"] == report.tally(evidence, "demo")
    assert (texts["rule_margin"], texts["rule_level"], texts["rule_resamples"]) == ("2 points", "95 %", "2,000")
    assert texts["claims"] == str(len(CLAIMS)) and texts["expected_by_chance"] == f"{0.025 * len(CLAIMS):.0f}"
    assert texts[f"classes_{MAIN[0]}_null"] == "not measured"
    assert re.fullmatch(r"better in \d of 5, worse in \d", texts[f"classes_{MAIN[0]}_paired"])
    assert re.fullmatch(r"[+-].* points \[.*\], (ahead|behind|undecided)", texts["union_less_li2017_demo"])


def test_all_that_the_chapter_names_is_said_even_if_little_was_measured(maker: Maker, shown: Callable) -> None:
    maker.protocol("paired")
    texts = said_by(shown(said.say_all, maker.load()))
    notebook = json.loads((ROOT / "book" / "side_by_side.ipynb").read_text(encoding="utf-8"))
    prose = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    named = set(re.findall(r"\{glue:text\}`([^`:]+)`", prose))
    assert len(named) > 10 and named <= set(texts)
    assert texts["verdicts_demo"] == texts["origin_noise"] == "not measured"
    assert texts["claim_li2017_fusion_above_audio_demo"] == "not measured"


SHOWING: list[tuple[Callable, tuple[str, ...]]] = [
    (report.verdict_table, ()), (tables.protocol_table, ("demo",)), (figures.cost_figure, ("paired",)),
    (tables.classes_table, MAIN), (tables.robustness_table, ()), (figures.noise_figure, ()), (figures.noise_table, ()),
    (figures.learning_figure, ()), (figures.learning_table, ()), (tables.beyond_table, ()), (report.check, ()),
    (said.say_all, ()),
]  # fmt: skip


@pytest.mark.parametrize(("function", "arguments"), SHOWING, ids=[one.__name__ for one, _ in SHOWING])
def test_what_was_not_measured_says_so(function: Callable, arguments: tuple, maker: Maker, shown: Callable) -> None:
    (output,) = shown(function, maker.load(), *arguments)
    assert output.data["text/plain"].startswith("Not measured") and not re.search(r"\d", output.data["text/plain"])


def test_every_run_has_its_passport(world: World, shown: Callable) -> None:
    outputs = shown(report.passports, world.evidence)
    runs = {output.metadata["avrepro"]["run"] for output in outputs}
    assert len(outputs) == len(runs) == 7
