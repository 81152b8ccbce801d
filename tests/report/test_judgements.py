"""Claims of the papers: their verdicts as a table, a plot and for a terminal, by the one rule."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib import pyplot
from test_figures import content

from avrepro.claims import Claim, load_claims, published_text
from avrepro.report import claims_text, forest, protocol, verdicts
from avrepro.report.judgements import FRONT, JUDGED, comparison, difference
from avrepro.results import Results, ResultsError
from avrepro.systems import SYSTEMS

RULE, CLAIMS = load_claims()
KINDS = {  # bounds in points -> the verdict by the rule: above 0; below the margin of 2 points; neither
    (5.0, 1.0, 9.0): "holds",
    (-1.0, -3.0, 1.0): "does not hold",
    (1.0, -1.0, 1.9): "does not hold",
    (1.0, -1.0, 2.1): "undecided",
    (0.0, 0.0, 0.0): "",
    None: "not measured",
}


def expected(number: int, corpus: str) -> tuple[float, float, float] | None:
    """What was measured of a claim: another kind in every column and row."""
    return list(KINDS)[(number + 2 * JUDGED.index(corpus)) % len(KINDS)]


@pytest.fixture
def worlds(make: Callable, commit: Callable) -> dict[str, Results]:
    for corpus in JUDGED:
        rows = [
            (one.system, "claim", *(part / 100 for part in found), {"against": one.against, "label": name})
            for number, (name, one) in enumerate(CLAIMS.items())
            if (found := expected(number, corpus))
        ]
        strict = [(*row[:-1], {**row[-1]}) for row in rows[:1]]
        commit(make(corpus, *rows, *((row[0], "claim_corrected", *row[2:]) for row in strict)))
    return {corpus: protocol(corpus) for corpus in JUDGED}


def written(found: tuple[float, float, float] | None) -> str:
    if found is None:
        return "not measured"
    if not any(found):
        return "0"
    value, low, high = (f"{part:+.1f}" if part else "0.0" for part in found)
    return f"{value} [{low}, {high}] {KINDS[found]}"


def rows_of(output: Any) -> list[list[str]]:
    page = BeautifulSoup(output.data["text/html"], "html.parser")
    return [[c.get_text().replace("\xa0", " ") for c in row.find_all(["th", "td"])] for row in page.select("tbody tr")]


@pytest.mark.usefixtures("worlds")
@pytest.mark.parametrize("paper", [None, "li2017", "fayek2020"])
def test_each_verdict_stands_in_its_place(paper: str | None, shown: Callable) -> None:
    (output,) = shown(verdicts, paper, "", "verdicts")
    rows = rows_of(output)
    those = [(k, one) for k, one in enumerate(CLAIMS.values()) if paper in (None, one.paper)]
    assert len(rows) == len(those) > 5
    for row, (number, one) in zip(rows, those, strict=True):
        assert row[0].startswith(one.sentence) and row[1].startswith(published_text(one))
        assert f"page {one.where.page}" in row[1]
        assert row[2:] == [written(expected(number, corpus)) for corpus in JUDGED], one.id
    page = BeautifulSoup(output.data["text/html"], "html.parser")
    assert [one.get_text() for one in page.select("thead th")] == [
        "claim", "published", "real recordings", "demo world", "control",
    ]  # fmt: skip
    assert {link["href"] for link in page.select("tbody a")} == {f"{one.chapter}.html" for _, one in those}
    assert [word.get_text() for word in page.select("strong.holds")].count("holds") == str(rows).count("] holds'")
    assert RULE.words in page.get_text() and "reproduces no published number" in page.get_text()
    assert output.metadata["avrepro"]["runs"] == ["rundemo", "rundemo-null", "runpaired"]
    assert output.metadata["scrapbook"]["name"] == "verdicts"


@pytest.mark.usefixtures("worlds")
def test_verdicts_for_a_terminal() -> None:
    lines = claims_text().split("\n")
    assert len(lines) == 5 * len(CLAIMS)
    for number, (name, one) in enumerate(CLAIMS.items()):
        head, printed, *found = lines[5 * number : 5 * number + 5]
        assert head.startswith(f"{name}: {one.sentence}") and printed.endswith(published_text(one))
        assert found == [
            f"    {title}: {written(expected(number, corpus))}"
            for corpus, title in zip(JUDGED, ("real recordings", "demo world", "control"), strict=True)
        ]


def test_a_claim_has_one_number_and_what_was_not_measured_says_so(
    worlds: dict[str, Results], commit: Callable, shown: Callable
) -> None:
    twice = Results(pd.concat([worlds["demo"].table] * 2))
    with pytest.raises(ResultsError, match="2 numbers of claim"):
        difference(twice, twice.select(metric="claim").iloc[0]["label"])
    commit(Results(worlds["paired"].table.assign(corpus="esc10", run="other")))
    assert difference(protocol("dcase2017"), FRONT[0]) is None


@pytest.mark.usefixtures("commit")
def test_nothing_is_shown_where_nothing_is_committed(shown: Callable) -> None:
    (note,) = shown(verdicts)
    (plot,) = shown(forest)
    assert note.data["text/plain"].startswith("Verdicts: not measured")
    words = "published +5.3; real recordings not measured; demo world not measured; control not measured."
    assert words in plot.data["text/plain"] and "avrepro" not in plot.metadata


def test_comparisons_in_words() -> None:
    fused, audio = (SYSTEMS[f"li2017/{name}"].title for name in ("fused", "audio"))
    assert comparison(CLAIMS["li2017_fusion_above_audio"]) == f"micro F1: {fused} minus {audio}"
    assert comparison(CLAIMS["li2017_classes_improved"]) == (
        f"share of classes with a higher class F1 by {fused} than by {audio}, minus 79.4 %"
    )
    words = comparison(CLAIMS["li2017_car_passing_by"])
    assert words == f"class F1: {fused} minus {audio}, on Car passing by, minus that on 16 classes"


def test_the_forest_plot_is_drawn_at_the_numbers(
    worlds: dict[str, Results], shown: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    plots: list[Any] = []
    monkeypatch.setattr(pyplot, "close", plots.append)
    (output,) = shown(forest)
    monkeypatch.undo()
    (axes,) = plots[0].axes
    order = ["published", "real recordings", "demo world", "control"]
    assert [text.get_text() for text in plots[0].legends[0].get_texts()] == order
    page = BeautifulSoup(output.data["text/html"], "html.parser")
    data = pd.read_csv(io.BytesIO(content(str(page.a["href"]))), keep_default_na=True)  # type: ignore[index]
    wanted = []
    for place, name in enumerate(FRONT):
        one: Claim = CLAIMS[name]
        number = list(CLAIMS).index(name)
        found = [(one.published.value, np.nan, np.nan), *(expected(number, corpus) for corpus in JUDGED)]
        for source, bounds in zip(order, found, strict=True):
            if bounds is None:
                continue
            wanted.append([name, source, *bounds])
            container = axes.containers[order.index(source)]
            at = [(x, y) for x, y in zip(*container[0].get_data(), strict=True) if round(y) == place]
            assert len(at) == 1 and at[0][0] == pytest.approx(bounds[0])
            if source != "published":
                (segment,) = [s for s in container[2][0].get_segments() if round(s[0][1]) == place]
                assert segment[:, 0] == pytest.approx(bounds[1:])
    np.testing.assert_array_equal(
        data[["id", "source", "value", "low", "high"]].round(6).astype(object).fillna("-").to_numpy(),
        pd.DataFrame(wanted).astype(object).fillna("-").to_numpy(),
    )
    assert [line.get_xdata()[0] for line in axes.lines[:2]] == [0, 2], "nothing, and the margin"
    alt = str(page.img["alt"]).replace("\xa0", " ")  # type: ignore[index]
    number = list(CLAIMS).index(FRONT[0])
    assert f"published +5.3; real recordings {written(expected(number, 'paired'))}" in alt
    assert output.metadata["avrepro"]["runs"] == ["rundemo", "rundemo-null", "runpaired"]
    pyplot.close("all")
