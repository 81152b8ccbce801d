"""Numbers in sentences: each name of the grammar gets its own number, and a book with a missing one is refused."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avrepro import results as store
from avrepro.claims import load_claims
from avrepro.report import check_executed, check_page, glue, runs_shown, sentences
from avrepro.report.sentences import sentence
from avrepro.results import Results, ResultsError

AUDIO, FUSED = "li2017/audio", "li2017/fused"
FUSION, CLASSES, DS3 = "li2017_fusion_above_audio", "li2017_classes_improved", "li2017_key_frames_above_even"
TWO_STREAM = "parekh2018_two_stream_above_audio_only"


def claim(name: str, *bounds: float) -> tuple[Any, ...]:
    one = load_claims()[1][name]
    return one.system, "claim", *bounds, {"against": one.against, "label": name}


@pytest.fixture
def run(make: Callable) -> Results:
    return make(
        "demo", (AUDIO, "micro_f1", 0.512, 0.469, 0.554), (FUSED, "micro_f1", 0.031, -0.002, 0.064, {"against": AUDIO}),
        (AUDIO, "class_f1", 0.25, 0.2, 0.3, {"label": "Car no. 2"}),
        (AUDIO, "parameters", 12345, {"split": ""}), ("efficientnet-lite0", "accuracy", 0.9, {"split": ""}),
        (AUDIO, "macro_f1", 0.4, 0.3, 0.5, {"split": "validation"}), (FUSED, "map", float("nan")),
        chapter="lightweight_fusion", measured="chapter", run="live",
    )  # fmt: skip


@pytest.fixture
def worlds(make: Callable, commit: Callable) -> None:
    commit(make("paired", (AUDIO, "micro_f1", 0.333, 0.3, 0.366), claim(FUSION, 0.042, -0.014, 0.098),
                claim(CLASSES, 0.2, 0.1, 0.3), claim(TWO_STREAM, 0.1, 0.05, 0.15)))  # fmt: skip
    commit(make("demo", (AUDIO, "micro_f1", 0.6, 0.5, 0.7), claim(FUSION, 0.05, 0.01, 0.09), stale=True))
    commit(make("demo-null", claim(FUSION, -0.01, -0.03, 0.01), claim(DS3, 0, 0, 0)))


TEXTS = {
    f"run.{AUDIO}.micro_f1": "51.2 [46.9, 55.4] %",
    f"run.{FUSED}-{AUDIO}.micro_f1": "+3.1 [-0.2, +6.4] points",
    f"run.{AUDIO}.class_f1.Car no. 2": "25.0 [20.0, 30.0] %",
    f"run.{AUDIO}.parameters": "12,345",
    "run.efficientnet-lite0.accuracy": "90.0 %",
    f"paired.{AUDIO}.micro_f1": "33.3 [30.0, 36.6] %",
    f"claim.{FUSION}.paired": "+4.2 [-1.4, +9.8] points, undecided",
    f"claim.{FUSION}.demo": "+5.0 [+1.0, +9.0] points, holds",
    f"claim.{FUSION}.demo-null": "-1.0 [-3.0, +1.0] points, does not hold",
    f"claim.{DS3}.demo-null": "0 points, the same by construction",
    f"published.{FUSION}": "5.3 points of micro F1 (DCASE 2017 Task 4, evaluation)",
    "published.parekh2018_out_of_step": f"“{load_claims()[1]['parekh2018_out_of_step'].published.words}”",
    "count.holds.paired": "2",
    "count.holds.paired.li2017": "1",
    "count.does not hold.demo-null": "1",
    "count.identical.demo-null": "1",
    "count.not measured.demo": str(len(load_claims()[1]) - 1),
    "origin.run": "demo world",
    "origin.paired": "real recordings",
    "origin.demo": "demo world, stale",
    "rule.margin": "2 points",
    "rule.level": "95 %",
    "rule.seeds": "5",
}


@pytest.mark.usefixtures("worlds")
def test_every_name_has_its_text(run: Results) -> None:
    assert {name: sentence(name, {"run": run})[0].replace("\xa0", " ") for name in TEXTS} == TEXTS


@pytest.mark.usefixtures("worlds")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"run.{FUSED}.micro_f1", "micro_f1 of li2017/fused was not measured"),
        (f"run.{AUDIO}.macro_f1", "macro_f1 of li2017/audio was not measured"),  # of another split alone
        (f"run.{FUSED}.map", "map of li2017/fused was not measured"),  # not a number
        (f"claim.{CLASSES}.demo", "was not measured"),
        ("origin.esc10", "nothing was measured on esc10"),
        ("count.hold.paired", "expected a verdict"),
        ("count.holds.esc10", "no claim was measured"),
        (f"pared.{AUDIO}.micro_f1", "found 'pared'"),
        ("rule.words", "a name of the grammar"),
    ],
)
def test_a_missing_or_unknown_number_is_refused_by_name(run: Results, name: str, reason: str) -> None:
    with pytest.raises(ResultsError) as error:
        sentence(name, {"run": run})
    assert f"`{name}`" in str(error.value) and reason in str(error.value)


@pytest.mark.usefixtures("worlds")
def test_what_this_run_does_not_measure_says_so(make: Callable) -> None:
    few = make("folder", ("corpus", "clips", 8, {"split": ""}))
    for unmeasured in (few, make("demo", (AUDIO, "micro_f1", 0.9), dry=True), None):
        assert sentence(f"run.{AUDIO}.micro_f1", {"run": unmeasured})[0] == "not measured in this run"
        assert sentence(f"paired.{AUDIO}.micro_f1", {"run": unmeasured})[0].startswith("33.3")
    assert sentence("run.corpus.clips", {"run": few})[0] == "8"
    with pytest.raises(ResultsError, match="clips of lists was not measured"):  # nor was anything else
        sentence("lists.lists.clips", {"lists": Results(few.table[:0])})
    assert sentence("origin.run", {"run": few})[0] == "your clips"


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A chapter that names two numbers, and a page of prose that names a third and a figure."""
    folder = tmp_path / "book"
    folder.mkdir()
    prose = f"It is {{glue:text}}`run.{AUDIO}.micro_f1`, or\n{{glue:text}}`origin.paired`."
    cells = [
        {"cell_type": "markdown", "source": prose},
        {"cell_type": "code", "source": "{glue:text}`x`", "outputs": []},
    ]
    (folder / "chapter.ipynb").write_text(json.dumps({"cells": cells}))
    page = f"{{glue:text}}`chapter.ipynb::claim.{FUSION}.demo:s` {{glue:text}}`other.ipynb::origin.run:s`\n"
    (folder / "index.md").write_text(page)
    monkeypatch.setattr(sentences, "BOOK", folder)
    return folder


def executed(book: Path, outputs: list[Any]) -> Path:
    """The chapter as it is after its run."""
    notebook = json.loads((book / "chapter.ipynb").read_text())
    notebook["cells"][1]["outputs"] = [{"data": one.data, "metadata": one.metadata} for one in outputs]
    path = book / "executed.ipynb"
    path.write_text(json.dumps(notebook))
    return path


@pytest.mark.usefixtures("worlds")
def test_all_that_the_chapter_and_other_pages_name_is_glued_and_checked(
    book: Path, run: Results, commit: Callable, shown: Callable
) -> None:
    outputs = shown(glue, "chapter", run)
    texts = {one.metadata["scrapbook"]["name"]: ast.literal_eval(one.data["text/plain"]) for one in outputs}
    names = [f"run.{AUDIO}.micro_f1", "origin.paired", f"claim.{FUSION}.demo"]
    assert {name: text.replace("\xa0", " ") for name, text in texts.items()} == {name: TEXTS[name] for name in names}
    path = executed(book, outputs)
    assert runs_shown(json.loads(path.read_text())) == {"live", "runpaired", "rundemo"}
    with pytest.raises(ResultsError, match="chapter: shows run live, which is not in the results store"):
        check_executed("chapter", path)
    commit(run)
    check_executed("chapter", path)

    page = book / "index.md"
    page.write_text(page.read_text().replace("other.ipynb", "chapter.ipynb"))
    with pytest.raises(ResultsError, match=r"index\.md: numbers missing in the text: origin\.run"):
        check_page(page, {"chapter": path})
    page.write_text("```{glue:any} forest\n:doc: chapter.ipynb\n```\n")
    with pytest.raises(ResultsError, match=r"index\.md: numbers missing in the text: forest"):
        check_page(page, {"chapter": path})
    with pytest.raises(ResultsError, match="shows numbers of chapter, which is not in the book"):
        check_page(page, {})

    missing = executed(book, outputs[1:])
    with pytest.raises(ResultsError, match=f"chapter: numbers missing in the text: run.{AUDIO}.micro_f1$"):
        check_executed("chapter", missing)
    with pytest.raises(ResultsError, match="chapter: shows no results at all"):
        check_executed("chapter", book / "chapter.ipynb")


@pytest.mark.usefixtures("worlds")
def test_numbers_of_profile_ci_and_stale_ones_are_refused(book: Path, run: Results, shown: Callable) -> None:
    path = executed(book, shown(glue, "chapter", run))
    file = store.store() / "lightweight_fusion-chapter-live.parquet"
    file.parent.mkdir(parents=True)
    for damage, reason in (({"recipe": "x"}, "older than"), ({"profile": "ci"}, "profile ci")):
        run.table.assign(**damage).to_parquet(file, index=False)
        with pytest.raises(ResultsError, match=reason):
            check_executed("chapter", path)
    check_executed("chapter", path, allow_ci=True)
