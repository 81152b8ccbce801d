"""Tables of results: each number in its cell, as it is written, and nothing that a page cannot hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from bs4 import BeautifulSoup

from avrepro.evaluation import Interval
from avrepro.report import (
    ahead,
    compare,
    costs,
    measured,
    note,
    origin,
    passports,
    percent,
    settings,
    table,
    tidy,
    with_unit,
)
from avrepro.report.wording import decimal, kind_of
from avrepro.results import PASSPORT, Results, ResultsError
from avrepro.systems import SYSTEMS

AUDIO, VIDEO, FUSED = "li2017/audio", "li2017/video", "li2017/fused"


def parsed(output: Any) -> tuple[str, list[str], dict[str, list[str]]]:
    """Caption, head and rows of a table by the head of the row, with plain spaces."""
    page = BeautifulSoup(output.data["text/html"], "html.parser")
    assert page.caption is not None
    head, *rows = [
        [c.get_text().replace("\xa0", " ") for c in row.find_all(["th", "td"])] for row in page.find_all("tr")
    ]
    return page.caption.get_text().strip(), head, {first: rest for first, *rest in rows}


@pytest.fixture
def worlds(make: Callable) -> dict[str, Results]:
    return {
        "paired": make(
            "paired", (AUDIO, "micro_f1", 0.512, 0.469, 0.554), (FUSED, "micro_f1", 0.5, 0.45, 0.55),
            (AUDIO, "micro_f1", 0.7, {"split": "validation"}), (AUDIO, "map", 0.2),
            (FUSED, "micro_f1", -0.012, -0.05, 0.026, {"against": AUDIO}),
        ),
        "demo": make(
            "demo", (AUDIO, "micro_f1", 0.601, 0.55, 0.65), (VIDEO, "micro_f1", 0.333, 0.3, 0.366),
            (FUSED, "micro_f1", 0.0, 0.0, 0.0, {"against": AUDIO}), (VIDEO, "micro_f1", -0.0002, {"against": AUDIO}),
            (AUDIO, "class_f1", 0.4, {"label": "Bus"}), (VIDEO, "class_f1", 0.3, {"label": "Bus"}),
            (VIDEO, "class_f1", 0.2, {"label": "Car"}),
        ),
    }  # fmt: skip


def test_numbers_as_they_are_written() -> None:
    interval = Interval(0.5117, 0.4689, 0.5542, "")
    assert percent(interval) == "51.2\xa0[46.9,\xa055.4]", "no line can break inside"
    assert with_unit(interval).replace("\xa0", " ") == "51.2 [46.9, 55.4] %"
    gain = Interval(0.0312, -0.0021, 0.0641, "")
    assert with_unit(gain, signed=True).replace("\xa0", " ") == "+3.1 [-0.2, +6.4] points"
    assert percent(0.25) == "25.0" and percent(math.nan) == "–"
    for near in (-0.0, 0.0, -0.0004, 0.0004):
        assert percent(near) == percent(near, signed=True) == "0.0", "no sign of nothing"
    assert percent(Interval(0.01, -0.0004, 0.02, ""), signed=True) == "+1.0\xa0[0.0,\xa0+2.0]"
    identical = Interval(0.0, 0.0, -0.0, "")
    assert percent(identical, signed=True) == "0" and percent(identical) == "0.0\xa0[0.0,\xa00.0]"
    assert percent(Interval(0.3, math.nan, math.nan, "")) == "30.0", "one seed has no interval"
    assert decimal(-1234.56, 1) == "-1,234.6"
    assert with_unit(1234567, "parameters") == "1,234,567" and with_unit(1.3456, "d_prime") == "1.35"
    assert [with_unit(s, "training_seconds") for s in (1234.5, 12.34, 0.0123)] == [
        "1,234\xa0s",
        "12.3\xa0s",
        "0.0123\xa0s",
    ]
    assert kind_of("rank_correlation") == "number" and kind_of("pointing_gain") == "percent"


def test_six_columns_and_uneven_rows_are_refused(shown: Callable) -> None:
    with pytest.raises(ValueError, match=r"'Too wide\.': expected at most 5 columns, found 6"):
        table([*"abcdef"], [], "Too wide.")
    with pytest.raises(ValueError, match=r"'Uneven': expected rows of 2 cells, found .'x'"):
        table(["a", "b"], [["x"]], "Uneven")
    (output,) = shown(table, [*"abcde"], [["x", 0.25, 1234, Interval(0.5, 0.25, 0.75, ""), math.nan]], "Wide enough.")
    assert parsed(output) == ("Wide enough.", [*"abcde"], {"x": ["25.0", "1,234", "50.0 [25.0, 75.0]", "–"]})
    assert output.data["text/plain"] == "Wide enough.\na\tb\tc\td\te\nx\t25.0\t1,234\t50.0\xa0[25.0,\xa075.0]\t–"


def test_names_are_text_and_no_markup(shown: Callable) -> None:
    hostile = "<script>window.hit=1</script>\"'&"
    outputs = shown(lambda: (table([hostile], [[hostile]], hostile, fold=hostile, footnote=hostile), note(hostile)))
    for output in outputs:
        page = BeautifulSoup(output.data["text/html"], "html.parser")
        assert page.script is None and page.get_text().count(hostile) == (5 if page.table else 1)


def test_each_number_of_a_comparison_is_in_its_cell(worlds: dict[str, Results], shown: Callable) -> None:
    columns = {"real recordings": worlds["paired"], "demo world": worlds["demo"], "control": None}
    (output,) = shown(
        lambda: compare([FUSED, AUDIO, VIDEO], "micro_f1", columns, "Table 1.", published={AUDIO: 54.9, FUSED: 60.0})
    )
    caption, head, rows = parsed(output)
    assert head == ["micro F1, %", "published", "real recordings", "demo world", "control"]
    assert rows == {
        "Audio + video (0.8 / 0.2) (Table 1)": ["60.0", "50.0 [45.0, 55.0]", "–", "–"],
        "Audio only (Table 1)": ["54.9", "51.2 [46.9, 55.4]", "60.1 [55.0, 65.0]", "–"],
        f"{SYSTEMS[VIDEO].title} ({SYSTEMS[VIDEO].place})": ["–", "–", "33.3 [30.0, 36.6]", "–"],
    }
    assert caption == "Table 1. control: not measured in this run."
    assert output.metadata == {"avrepro": {"runs": ["rundemo", "runpaired"]}}, "of all runs shown"


def test_differences_are_signed_and_what_is_zero_by_construction_is_0(
    worlds: dict[str, Results], shown: Callable
) -> None:
    columns = {"real": worlds["paired"], "demo world": worlds["demo"]}
    (output,) = shown(
        lambda: compare(
            [FUSED, VIDEO], "micro_f1", columns, "Gains.", against=AUDIO, published={FUSED: 5.3}, fold="More"
        )
    )
    caption, head, rows = parsed(output)
    assert head == ["points of micro F1, gain over Audio only", "published", "real", "demo world"]
    assert [*rows.values()] == [["+5.3", "-1.2 [-5.0, +2.6]", "0"], ["–", "–", "0.0"]]
    assert caption == "Gains. real: real recordings."
    assert "<details><summary>More</summary>" in output.data["text/html"]


def test_a_comparison_without_results_says_so_and_unknown_systems_are_refused(
    worlds: dict[str, Results], make: Callable, shown: Callable
) -> None:
    few = make("folder", ("corpus", "clips", 8, {"split": ""}))
    dry = make("demo", (AUDIO, "micro_f1", 0.9), dry=True)
    for unmeasured in (few, dry, None):
        assert not measured(unmeasured)
        (output,) = shown(lambda one=unmeasured: compare([AUDIO], "micro_f1", {"this run": one}, "Table 1."))
        assert output.data["text/plain"] == "Table 1: not measured in this run."
        assert tidy(unmeasured, "micro_f1").empty
    with pytest.raises(ResultsError, match=r"no system 'li2017/adio' is registered, nor was its micro_f1 measured"):
        compare(["li2017/adio"], "micro_f1", {"demo world": worlds["demo"]}, "Table 1.")


def test_how_far_a_system_is_ahead_of_others(shown: Callable, worlds: dict[str, Results]) -> None:
    published = {FUSED: 55.5, AUDIO: 50.25}
    (output,) = shown(lambda: ahead(FUSED, [AUDIO, VIDEO], "micro_f1", worlds, "Ahead.", published))
    _, head, rows = parsed(output)
    assert head[1:] == ["published", "paired", "demo"] and head[0].endswith(" minus")
    assert list(rows.values()) == [["+5.25", "-1.2 [-5.0, +2.6]", "0"], ["–", "–", "–"]]


def test_origin_is_a_badge(worlds: dict[str, Results], make: Callable) -> None:
    assert (origin(worlds["paired"]), origin(worlds["demo"])) == ("real recordings", "demo world")
    assert origin(make("demo-null", (AUDIO, "map", 0.1), stale=True)) == "control, stale"
    assert origin(make("dcase2017", (AUDIO, "map", 0.1), profile="paper")) == "DCASE 2017 Task 4, profile paper"
    assert origin(None) == "not measured in this run"


def test_tidy_tables(worlds: dict[str, Results], make: Callable) -> None:
    found = tidy(worlds["demo"], "class_f1", [VIDEO, AUDIO])
    assert found[["system", "label", "value"]].to_numpy().tolist() == [
        [VIDEO, "Bus", 30.0], [VIDEO, "Car", 20.0], [AUDIO, "Bus", 40.0],
    ]  # fmt: skip
    assert found["title"].tolist() == [SYSTEMS[VIDEO].title] * 2 + ["Audio only"]
    assert tidy(worlds["demo"], "class_f1", label="Car")["value"].tolist() == [20.0]
    one = tidy(worlds["paired"], "micro_f1", [AUDIO])
    assert one[["value", "low", "high"]].to_numpy().round(6).tolist() == [[51.2, 46.9, 55.4]], (
        "test clips, no difference"
    )
    assert tidy(worlds["paired"], "micro_f1", against=AUDIO)["value"].round(6).tolist() == [-1.2]
    curve = make("demo", *((AUDIO, "loss", 1 / k, {"split": "", "step": k}) for k in (1, 2, 4)))
    assert tidy(curve, "loss", split="")[["step", "value"]].to_numpy().tolist() == [[1, 1], [2, 0.5], [4, 0.25]]


def test_settings_that_differ_from_the_papers(shown: Callable) -> None:
    @dataclass
    class Network:
        channels: tuple[int, ...]
        dropout: float = 0.2

    @dataclass
    class Profile:
        network: Network
        batch_size: int

    profiles = {"paper": Profile(Network((32, 64)), 95), "demo": Profile(Network((16, 32)), 95)}
    (output,) = shown(settings, profiles, "demo")
    _, head, rows = parsed(output)
    assert head == ["setting", "profile demo", "profile paper"] and rows == {"network.channels": ["16, 32", "32, 64"]}
    (same,) = shown(settings, profiles, "paper")
    assert same.data["text/plain"] == "Profile paper has the settings of profile paper."


def test_costs(make: Callable, shown: Callable) -> None:
    rows = [(AUDIO, "parameters", 123456), (AUDIO, "inference_seconds", 0.0123), (AUDIO, "macs", 5e6)]
    results = make("demo", *((*row, {"split": ""}) for row in rows), (FUSED, "training_seconds", 321.4))
    (output,) = shown(costs, results, [AUDIO, FUSED])
    caption, head, cells = parsed(output)
    assert head == ["system", "parameters", "multiply-accumulates", "inference, s", "training, s"]
    assert [*cells.values()] == [["123,456", "5,000,000", "0.0123", "–"], ["–", "–", "–", "321"]]
    assert "demo world" in caption and "two cores" in caption


def test_passports_are_folded_a_run_each(worlds: dict[str, Results], make: Callable, shown: Callable) -> None:
    one = make(
        "esc10", (AUDIO, "map", 0.5, {"threshold_rule": "half", "interval": "t"}), seeds="[7]", measured="chapter"
    )
    outputs = shown(passports, worlds["paired"], one, None, worlds["paired"])
    pages = [BeautifulSoup(output.data["text/html"], "html.parser") for output in outputs]
    assert [page.summary.get_text() for page in pages if page.summary] == [
        "Passport: protocol, real recordings, 3 seeds", "Passport: chapter, ESC-10, seed 7",
    ]  # fmt: skip
    facts = {row.th.get_text(): row.td.get_text() for row in pages[1].find_all("tr") if row.th and row.td}
    assert set(PASSPORT) < set(facts)
    assert facts["clips, test"] == "200 scored, 3 missing" and facts["seeds"] == json.dumps([7])
    assert facts["threshold rules"] == "half" and facts["intervals"] == "t"


def test_a_table_sorts_by_pointer_and_keyboard(open_page: Callable, shown: Callable) -> None:
    rows = [["Émile", Interval(0.095, 0.09, 0.1, "")], ["zebra", math.nan], ["bee <b>", 0.3], ["apple", -0.03]]
    one, other = shown(lambda: [table(["system", "score, %"], rows, text, sortable=True) for text in ("A.", "B.")])
    page = open_page(one.data["text/html"] + other.data["text/html"])
    first, second = page.locator("table").all()

    def order(table: Any) -> list[str]:
        return table.locator("tbody th").all_inner_texts()

    given = ["Émile", "zebra", "bee <b>", "apple"]
    button = first.get_by_role("button", name="score, %")
    button.click()
    assert order(first) == ["apple", "Émile", "bee <b>", "zebra"], "by size, not by letters; missing last"
    assert first.get_by_role("columnheader", name="score, %").get_attribute("aria-sort") == "ascending"
    assert first.get_by_role("status").inner_text() == "Sorted by score, %, ascending."
    button.click()
    assert order(first) == ["bee <b>", "Émile", "apple", "zebra"], "missing last again"
    button.click()
    assert order(first) == given and order(second) == given, "tables do not sort each other"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert order(first) == ["apple", "bee <b>", "Émile", "zebra"], "letters as one looks them up"
    assert page.faults == []
    plain = open_page(one.data["text/html"], scripts=False)
    assert plain.locator("button").count() == 0 and order(plain.locator("table")) == given


@pytest.mark.parametrize("width", [360, 900])
def test_five_columns_do_not_widen_the_page_and_no_interval_is_broken(
    open_page: Callable, shown: Callable, width: int
) -> None:
    numbers = [Interval(0.512, 0.469, 0.554, "")] * 4
    head = ["system", "published", "real recordings", "demo world", "control"]
    (output,) = shown(table, head, [["Audio and video, weights tuned on validation clips", *numbers]], "Long. " * 40)
    page = open_page(output.data["text/html"], width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("caption > div").bounding_box()["width"] <= width
    lines = "cell => { const r = document.createRange(); r.selectNodeContents(cell); return r.getClientRects().length }"
    assert [cell.evaluate(lines) for cell in page.locator("td").all()] == [1] * 4
