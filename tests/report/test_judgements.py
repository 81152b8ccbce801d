"""Claims of the papers: their verdicts as a table, a plot and for a terminal, by the one rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bs4 import BeautifulSoup
from matplotlib import pyplot

from avrepro.claims import load_claims, published_text
from avrepro.report import claims_text, forest, verdicts
from avrepro.report.judgements import FRONT, JUDGED

RULE, CLAIMS = load_claims()
TITLES = ("real recordings", "demo world", "control")
KINDS = {  # bounds in points -> the verdict by the rule: above 0; below the margin of 2 points; neither
    (5.0, 1.0, 9.0): "holds",
    (-1.0, -3.0, 1.0): "does not hold",
    (1.0, -1.0, 1.9): "does not hold",
    (1.0, -1.0, 2.1): "undecided",
    (0.0, 0.0, 0.0): "",
    None: "not measured",
}


def expected(claim: str, corpus: str) -> tuple[float, float, float] | None:
    """What was measured of a claim: another kind in every column and row."""
    return list(KINDS)[(list(CLAIMS).index(claim) + 2 * JUDGED.index(corpus)) % len(KINDS)]


@pytest.fixture
def worlds(make: Callable, commit: Callable) -> None:
    """Committed numbers of all claims; intervals at the corrected level are beside them and are not shown."""
    for corpus in JUDGED:
        rows = [
            (one.system, metric, *(part / scale for part in found), {"against": one.against, "label": name})
            for name, one in CLAIMS.items()
            if (found := expected(name, corpus))
            for metric, scale in (("claim", 100), ("claim_corrected", 10))
        ]
        commit(make(corpus, *rows))


def written(claim: str, corpus: str) -> str:
    found = expected(claim, corpus)
    if found is None:
        return "not measured"
    if not any(found):
        return "0"
    value, low, high = (f"{part:+.1f}" if part else "0.0" for part in found)
    return f"{value} [{low}, {high}] {KINDS[found]}"


@pytest.mark.usefixtures("worlds")
@pytest.mark.parametrize("paper", [None, "fayek2020"])
def test_each_verdict_stands_in_its_place(paper: str | None, shown: Callable) -> None:
    (output,) = shown(verdicts, paper, "", "verdicts")
    page = BeautifulSoup(output.data["text/html"].replace("\xa0", " "), "html.parser")
    assert [one.get_text() for one in page.select("thead th")] == ["claim", "published", *TITLES]
    rows = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in page.select("tbody tr")]
    those = [one for one in CLAIMS.values() if paper in (None, one.paper)]
    for row, one in zip(rows, those, strict=True):
        assert row[0].startswith(one.sentence) and row[1].startswith(published_text(one))
        assert row[2:] == [written(one.id, corpus) for corpus in JUDGED], one.id
    assert {link["href"] for link in page.select("tbody a")} == {f"{one.chapter}.html" for one in those}
    assert RULE.words in page.get_text() and "reproduces no published number" in page.get_text()
    assert output.metadata["avrepro"] == {"runs": ["rundemo", "rundemo-null", "runpaired"]}


@pytest.mark.usefixtures("worlds")
def test_verdicts_for_a_terminal() -> None:
    lines = claims_text().split("\n")
    for number, (name, one) in enumerate(CLAIMS.items()):
        head, printed, *found = lines[5 * number : 5 * number + 5]
        assert head.startswith(f"{name}: {one.sentence}") and printed.endswith(published_text(one))
        assert found == [f"    {title}: {written(name, corpus)}" for corpus, title in zip(JUDGED, TITLES, strict=True)]
    share = "(share of classes with a higher class F1 by Audio + video (0.8 / 0.2) than by Audio only, minus 79.4 %)"
    assert share in claims_text()


@pytest.mark.usefixtures("commit")
def test_nothing_is_shown_where_nothing_is_committed(shown: Callable) -> None:
    (note,) = shown(verdicts)
    (plot,) = shown(forest)
    assert note.data["text/plain"].startswith("Verdicts: not measured")
    words = "published +5.3; real recordings not measured; demo world not measured; control not measured."
    assert words in plot.data["text/plain"] and "avrepro" not in plot.metadata


@pytest.mark.usefixtures("worlds")
def test_the_forest_plot_is_drawn_at_the_numbers(shown: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    plots: list[Any] = []
    monkeypatch.setattr(pyplot, "close", plots.append)
    (output,) = shown(forest)
    monkeypatch.undo()
    (axes,) = plots[0].axes
    order = ["published", *TITLES]
    assert [text.get_text() for text in plots[0].legends[0].get_texts()] == order
    for place, name in enumerate(FRONT):
        found = [(CLAIMS[name].published.value, np.nan, np.nan), *(expected(name, corpus) for corpus in JUDGED)]
        for source, bounds, container in zip(order, found, axes.containers, strict=True):
            if bounds is None:
                continue
            ((x, _),) = [at for at in zip(*container[0].get_data(), strict=True) if round(at[1]) == place]
            assert x == pytest.approx(bounds[0])
            if source != "published":
                (segment,) = [one for one in container[2][0].get_segments() if round(one[0][1]) == place]
                assert segment[:, 0] == pytest.approx(bounds[1:])
    assert [line.get_xdata()[0] for line in axes.lines[:2]] == [0, 2], "nothing, and the margin"
    words = output.data["text/plain"].replace("\xa0", " ")
    assert f"published +5.3; real recordings {written(FRONT[0], 'paired')}" in words
    pyplot.close("all")
