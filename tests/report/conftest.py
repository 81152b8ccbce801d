"""Results made by hand, and a place for committed ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pydata_sphinx_theme
import pytest

from avrepro import checkout
from avrepro.results import NUMBER, PASSPORT, Results, number_recipe
from avrepro.systems import Condition

Make = Callable[..., Results]  # (corpus, *rows, run=, stale=, dry=, and any column of a passport)


@pytest.fixture
def make() -> Make:
    """Results of a corpus: rows of (system, metric, value[, low, high]) and of more columns by name."""

    def made(corpus: str, *rows: tuple[Any, ...], run: str = "", stale: bool = False, **passport: Any) -> Results:
        condition = Condition(corpus, passport.get("profile", "demo"), dry=passport.pop("dry", False))
        every = []
        for row in rows:
            more = {"split": "test", **(row[-1] if isinstance(row[-1], dict) else {})}
            system, metric, *bounds = [one for one in row if not isinstance(one, dict)]
            value, low, high = [*bounds, math.nan, math.nan][:3]
            recipe = "older" if stale else number_recipe(system, condition).key[:16]
            empty = {**dict.fromkeys(NUMBER, ""), "step": -1, "clips": 200, "missing": 3}
            numbers = {"system": system, "metric": metric, "value": value, "low": low, "high": high, "recipe": recipe}
            every.append({**empty, **numbers, **more})
        given = {
            **dict.fromkeys(PASSPORT, "-"), "run": run or f"run{corpus}", "chapter": "side_by_side",
            "measured": "protocol", "corpus": corpus, "profile": "demo", "seeds": "[0, 1, 2]", 
            "condition": json.dumps(asdict(condition)), "device": "two cores", **passport,
        }  # fmt: skip
        return Results(pd.DataFrame(every).assign(**given)[[*PASSPORT, *NUMBER]])

    return made


@pytest.fixture
def commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Results], None]]:
    """Put results to those that are committed; there are no others, and no store."""
    monkeypatch.setattr(checkout, "COMMITTED", tmp_path / "results")
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))

    def write(results: Results) -> None:
        for run, rows in results.table.groupby("run"):
            path = tmp_path / "results" / f"{rows.iloc[0]['chapter']}-{rows.iloc[0]['measured']}-{run}.parquet"
            path.parent.mkdir(exist_ok=True)
            rows.to_parquet(path, index=False)

    yield write


@pytest.fixture(scope="session")
def open_page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Open HTML as an output of a page of the book, with the theme's own style sheet; faults of scripts are raised."""
    theme = (
        Path(pydata_sphinx_theme.__file__).parent / "theme/pydata_sphinx_theme/static/styles/pydata-sphinx-theme.css"
    )

    def opened(markup: str, mode: str = "light", width: int = 900, scripts: bool = True) -> Any:
        file = tmp_path_factory.mktemp("page") / "page.html"
        file.write_text(
            f'<!doctype html><html lang="en" data-theme="{mode}"><meta charset="utf-8"><link rel="stylesheet" '
            f'href="{theme.as_uri()}"><title>made up</title><body style="margin:40px"><div class="bd-content">'
            f'<div class="cell_output"><div class="output text_html">{markup}</div></div></div>',
            encoding="utf-8",
        )
        page = browser.new_page(viewport={"width": width, "height": 1500}, java_script_enabled=scripts)
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(error.message))
        page.on("request", lambda request: page.faults.extend({request.url} - {file.as_uri(), theme.as_uri()})
                if request.url.startswith("http") else None)  # fmt: skip
        page.goto(file.as_uri())
        return page

    return opened
