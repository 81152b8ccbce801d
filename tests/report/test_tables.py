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
from avrepro.report import ahead, compare, measured, note, origin, passports, settings, table, tidy
from avrepro.report.wording import with_unit
from avrepro.results import PASSPORT, Results
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
    interval, gain = Interval(0.5117, 0.4689, 0.5542, ""), Interval(0.0312, -0.0021, 0.0641, "")
    for expected, number, metric, signed in (
        ("51.2 [46.9, 55.4] %", interval, "", False),
        ("+3.1 [-0.2, +6.4] points", gain, "", True),
        ("30.0 %", Interval(0.3, math.nan, math.nan, ""), "", False),  # one seed has no interval
        ("0.0 points", -0.0004, "", True),  # no sign of nothing
        ("+1.0 [0.0, +2.0] points", Interval(0.01, -0.0004, 0.02, ""), "", True),
        ("0 points", Interval(0.0, 0.0, -0.0, ""), "", True),  # the same by construction
        ("– %", math.nan, "", False),
        ("1,234,567", 1234567, "parameters", False),
        ("1.35", 1.3456, "d_prime", False),
        ("+0.50", 0.5, "rank_correlation", True),
        ("12.3 s", 12.34, "training_seconds", False),
        ("0.0123 s", 0.0123, "inference_seconds", False),
    ):
        assert with_unit(number, metric, signed).replace("\xa0", " ") == expected


def test_a_table_has_five_columns_at_most_and_names_that_are_no_markup(shown: Callable) -> None:
    with pytest.raises(ValueError, match=r"'Too wide\.': expected at most 5 columns, found 6"):
        table([*"abcdef"], [], "Too wide.")
    with pytest.raises(ValueError, match=r"'Uneven': expected rows of 2 cells, found .'x'"):
        table(["a", "b"], [["x"]], "Uneven")
    (output,) = shown(table, [*"abcde"], [["x", 0.25, 1234, Interval(0.5, 0.25, 0.75, ""), math.nan]], "Wide enough.")
    assert parsed(output) == ("Wide enough.", [*"abcde"], {"x": ["25.0", "1,234", "50.0 [25.0, 75.0]", "–"]})
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
    columns, printed = {"real": worlds["paired"], "demo world": worlds["demo"]}, {FUSED: 55.5, AUDIO: 50.25}
    gains, lead = shown(
        lambda: (
            compare([FUSED, VIDEO], "micro_f1", columns, "Gains.", against=AUDIO, published={FUSED: 5.3}),
            ahead(FUSED, [AUDIO, VIDEO], "micro_f1", columns, "Ahead.", printed),
        )
    )
    caption, head, rows = parsed(gains)
    assert caption == "Gains. real: real recordings." and head[0] == "points of micro F1, gain over Audio only"
    assert [*rows.values()] == [["+5.3", "-1.2 [-5.0, +2.6]", "0"], ["–", "–", "0.0"]]
    assert [*parsed(lead)[2].values()] == [["+5.25", "-1.2 [-5.0, +2.6]", "0"], ["–", "–", "–"]]


def test_what_was_not_measured_says_so_and_where_numbers_are_from_is_a_badge(make: Callable, shown: Callable) -> None:
    few = make("folder", ("corpus", "clips", 8, {"split": ""}))
    dry = make("demo", (AUDIO, "micro_f1", 0.9), dry=True)
    for unmeasured in (few, dry, None):
        assert not measured(unmeasured)
        (output,) = shown(lambda one=unmeasured: compare([AUDIO], "micro_f1", {"this run": one}, "Table 1."))
        assert output.data["text/plain"] == "Table 1: not measured in this run."
        assert tidy(unmeasured, "micro_f1").empty
    assert origin(make("demo-null", (AUDIO, "map", 0.1), stale=True)) == "control, stale"
    assert origin(make("dcase2017", (AUDIO, "map", 0.1), profile="paper")) == "DCASE 2017 Task 4, profile paper"
    assert origin(None) == "not measured in this run"


def test_tidy_tables(worlds: dict[str, Results], make: Callable) -> None:
    found = tidy(worlds["demo"], "class_f1", [VIDEO, AUDIO])
    assert found[["system", "label", "value"]].to_numpy().tolist() == [
        [VIDEO, "Bus", 30.0], [VIDEO, "Car", 20.0], [AUDIO, "Bus", 40.0],
    ]  # fmt: skip
    assert tidy(worlds["demo"], "class_f1", label="Car")["value"].tolist() == [20.0]
    one = tidy(worlds["paired"], "micro_f1", [AUDIO])  # of test clips, and no difference
    assert one[["value", "low", "high"]].to_numpy().round(6).tolist() == [[51.2, 46.9, 55.4]]
    assert tidy(worlds["paired"], "micro_f1", against=AUDIO)["value"].round(6).tolist() == [-1.2]
    curve = make("demo", *((AUDIO, "loss", 1 / k, {"split": "", "step": k}) for k in (1, 2, 4)))
    assert tidy(curve, "loss", split="")[["step", "value"]].to_numpy().tolist() == [[1, 1], [2, 0.5], [4, 0.25]]


def test_settings_that_differ_from_the_papers(shown: Callable) -> None:
    @dataclass
    class Profile:
        channels: tuple[int, ...]
        batch_size: int | None
        dropout: float = 0.2

    profiles = {"paper": Profile((32, 64), 95), "demo": Profile((16, 32), None)}
    (output,) = shown(settings, profiles, "demo")
    assert parsed(output)[2] == {"channels": ["16, 32", "32, 64"], "batch size": ["None", "95"]}
    (same,) = shown(settings, profiles, "paper")
    assert same.data["text/plain"] == "Profile paper has the settings of profile paper."


def test_passports_are_folded_a_run_each(worlds: dict[str, Results], make: Callable, shown: Callable) -> None:
    made = (AUDIO, "map", 0.5, {"threshold_rule": "half", "interval": "t"})
    one = make("esc10", made, seeds="[7]", measured="chapter")
    outputs = shown(passports, worlds["paired"], one, None, worlds["paired"])
    summaries = [BeautifulSoup(output.data["text/html"], "html.parser").summary.get_text() for output in outputs]
    assert summaries == ["Passport: protocol, real recordings, 3 seeds", "Passport: chapter, ESC-10, seed 7"]
    _, _, facts = parsed(outputs[1])
    assert set(PASSPORT) < set(facts)
    assert facts["clips, test"] == ["200 scored, 3 missing"] and facts["seeds"] == [json.dumps([7])]
    assert facts["threshold rules"] == ["half"] and facts["intervals"] == ["t"]


def test_a_table_sorts_by_pointer_and_keyboard(open_page: Callable, shown: Callable) -> None:
    rows = [["Émile", Interval(0.095, 0.09, 0.1, "")], ["zebra", math.nan], ["bee <b>", 0.3], ["apple", -0.03]]
    one, other = shown(lambda: [table(["system", "score, %"], rows, text, sortable=True) for text in ("A.", "B.")])
    page = open_page(one.data["text/html"] + other.data["text/html"])
    first, second = page.locator("table").all()

    def order(table: Any) -> list[str]:
        return table.locator("tbody th").all_inner_texts()

    given = order(first)
    first.get_by_role("button", name="score, %").click()
    assert order(first) == ["apple", "Émile", "bee <b>", "zebra"], "by size, not by letters; missing last"
    assert first.get_by_role("columnheader", name="score, %").get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert order(first) == ["bee <b>", "Émile", "apple", "zebra"], "missing last again"
    page.keyboard.press("Enter")
    assert order(first) == given and order(second) == given, "tables do not sort each other"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert order(first) == ["apple", "bee <b>", "Émile", "zebra"], "letters as one looks them up"
    assert page.faults == []
