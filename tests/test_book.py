"""The built book: its links and pictures, how it looks in a real browser, and which numbers it refuses."""

from __future__ import annotations

import ast
import json
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup

from avrepro import digests, results, runs
from avrepro.claims import load_claims
from avrepro.parameters import CHAPTERS, check
from avrepro.report import check_executed, check_page
from avrepro.results import ResultsError

pytestmark = pytest.mark.book

CHAPTER = "lightweight_fusion"

# Harmless mistakes of the theme itself: sphinx-thebe writes its line twice, no colour mode is stored at first.
OF_THE_THEME = ("Identifier 'THEBE_JS_URL' has already been declared", "Resetting to auto.")


def pages_of_toc() -> list[str]:
    toc = yaml.safe_load((digests.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [f"{name}.html" for name in (toc["root"], *(entry["file"] for entry in toc["chapters"]))]


PAGES = pages_of_toc()


@pytest.fixture(scope="session")
def html() -> Path:
    """The folder of the proof book; what is built already and still fresh is not built again."""
    return runs.build_book("ci").parent


def executed_copy(chapter: str) -> Path:
    """The executed chapter that the proof book was made of."""
    key = runs.run_key(chapter, {"profile": "ci"})
    return runs.BUILD / "executed" / f"{chapter}-{key}.ipynb"


@pytest.fixture(scope="session")
def executed(html: Path) -> Path:
    return executed_copy(CHAPTER)


@pytest.fixture(scope="session")
def address(html: Path) -> Iterator[str]:
    """The book served on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(html))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Visit:
    """A page opened without any network but loopback, and all that went wrong on it."""

    def __init__(self, browser: Any, address: str, name: str) -> None:
        self.address = address
        self.outside: set[str] = set()  # requests to other machines, all of them blocked
        self.errors: list[str] = []
        self.page = browser.new_context(service_workers="block").new_page()
        self.page.route("**/*", self._route)
        self.page.on("console", self._console)
        self.page.on("pageerror", self._uncaught)
        self.page.on("response", self._response)
        self.page.goto(f"{address}/{name}", wait_until="load")

    def _route(self, route: Any) -> None:
        if route.request.url.startswith(self.address):
            route.continue_()
        else:
            self.outside.add(route.request.url)
            route.abort()

    def _console(self, message: Any) -> None:
        of_blocked = message.location.get("url", "") in self.outside
        if message.type == "error" and not of_blocked and not message.text.endswith(OF_THE_THEME):
            self.errors.append(f"console: {message.text}")

    def _uncaught(self, error: Any) -> None:
        if not error.message.endswith(OF_THE_THEME):
            self.errors.append(f"uncaught: {error.message}")

    def _response(self, response: Any) -> None:
        if response.status >= 400:
            self.errors.append(f"{response.status}: {response.url}")


@pytest.fixture(scope="session")
def visits(browser: Any, address: str) -> dict[str, Visit]:
    return {name: Visit(browser, address, name) for name in PAGES}


def soup_of(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def broken_links(folder: Path) -> list[str]:
    """Every href and src within ``folder`` that leads to no file there, or to an anchor that its page lacks."""
    pages = [path for path in folder.rglob("*.html") if "_static" not in path.parts]  # the theme keeps templates there
    soups = {path.resolve(): soup_of(path) for path in pages}
    anchors = {
        path: {tag[key] for key in ("id", "name") for tag in soup.find_all(attrs={key: True})}
        for path, soup in soups.items()
    }
    broken = []
    for path, soup in soups.items():
        links = [tag[key] for key in ("href", "src") for tag in soup.find_all(attrs={key: True})]
        for meta in soup.find_all("meta", attrs={"http-equiv": "Refresh"}):
            links.append(meta["content"].partition("url=")[2].strip("'\""))
        for link in links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                broken.append(f"{path.relative_to(folder.resolve())}: {link}")
            elif parts.fragment and target in anchors and unquote(parts.fragment) not in anchors[target]:
                broken.append(f"{path.relative_to(folder.resolve())}: {link} (no such anchor)")
    return broken


def test_the_link_checker_finds_what_is_broken(tmp_path: Path) -> None:
    (tmp_path / "b.html").write_text("<h1 id='ünï 1'>b</h1>")
    good = "<a href='b.html?x=1#%C3%BCn%C3%AF%201'>b</a><a href='#'>top</a><a href='https://example.org/x'>out</a>"
    bad = "<a href='b.html#gone'>b</a><a href='c.html'>c</a><img src='no.png'><a href='#here'>here</a>"
    (tmp_path / "a.html").write_text(good + bad)
    found = sorted(line.removeprefix("a.html: ").split()[0] for line in broken_links(tmp_path))
    assert found == ["#here", "b.html#gone", "c.html", "no.png"]


def test_every_page_is_there_and_every_link_leads_somewhere(html: Path) -> None:
    assert [name for name in ["index.html", *PAGES] if not (html / name).is_file()] == []
    assert broken_links(html) == []


@pytest.mark.parametrize("name", PAGES)
def test_pictures_and_tables_say_what_they_are(html: Path, name: str) -> None:
    article = soup_of(html / name).find("article")
    assert article is not None
    for image in article.find_all("img"):
        assert image.get("alt", "").strip(), f"no alternative text: {str(image)[:120]}"
        assert not urlsplit(image["src"]).netloc, f"a picture from elsewhere: {image['src']}"
    measured = [table for output in article.select(".cell_output") for table in output.find_all("table")]
    for table in measured:  # tables of prose stand under their heading
        folded = table.find_parent("details")
        title = table.find("caption") if folded is None else folded.find("summary")
        assert title is not None and title.get_text(strip=True), f"no caption: {str(table)[:200]}"
    assert bool(measured) == (Path(name).stem in CHAPTERS)
    bare = [output.get_text(strip=True) for output in article.select(".cell_output .text_plain")]
    assert bare == [], "values that a cell left on the page, as numbers for sentences do unless its output is removed"


def text_of(html: Path, chapter: str) -> str:
    return " ".join(soup_of(html / f"book/{chapter}.html").find("article").get_text(" ").split())  # type: ignore[union-attr]


@pytest.mark.parametrize("chapter", [CHAPTER, "unsynchronized_mil", "attention_fusion", "side_by_side"])
def test_numbers_in_sentences_are_said_on_the_page(html: Path, chapter: str) -> None:
    text = text_of(html, chapter)
    assert "glue" not in text and "{" not in text.partition("What was measured here")[2].partition("Parameters")[0]
    notebook = json.loads(executed_copy(chapter).read_text())
    named = set(re.findall(r"\{glue:text\}`([^`:]+)`", "".join("".join(cell["source"]) for cell in notebook["cells"])))
    said = {
        output["metadata"]["scrapbook"]["name"]: "".join(output["data"]["text/plain"])
        for output in outputs_of(notebook)
        if "scrapbook" in output.get("metadata", {})
    }
    assert len(named) > 10
    assert [name for name in named if ast.literal_eval(said[name]) not in text] == []


def test_a_number_in_a_sentence_is_that_of_the_store(html: Path) -> None:
    text = text_of(html, CHAPTER)
    found = results.read().select(chapter=CHAPTER, profile="ci", corpus="demo", split="test", label="")
    digest = results.passport_digest(CHAPTER, check(CHAPTER, {"profile": "ci"}).model_dump())
    row = found[(found["digest"] == digest) & (found["system"] == "audio") & (found["metric"] == "micro_f1")].iloc[0]
    low, high = (f"{100 * row[end]:.1f}" for end in ("low", "high"))
    assert f"reaches a micro F1 of {100 * row['value']:.1f} [{low}, {high}] % on the test clips" in text


@pytest.mark.parametrize("name", PAGES)
def test_a_page_in_the_browser(visits: dict[str, Visit], html: Path, name: str) -> None:
    visit = visits[name]
    assert visit.errors == [], f"(blocked outside requests: {sorted(visit.outside)})"
    headings = visit.page.locator("article h1")
    assert headings.count() == 1 and headings.first.is_visible()
    banner = visit.page.get_by_text(runs.PROOF)
    assert banner.first.is_visible()

    article = visit.page.locator("article")
    for image in article.locator("img").all():
        image.scroll_into_view_if_needed()
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    # All prose can be read although everything outside was blocked.
    tags = soup_of(html / name).select("article p, article li, article th")
    written = [tag for tag in tags if not tag.select_one(".math")]  # formulas are set by a script: tested apart
    seen = " ".join(article.text_content().split())
    assert len(written) > 10
    assert [text for tag in written if (text := " ".join(tag.get_text().split())) not in seen] == []


def test_no_page_asks_anything_of_other_machines(visits: dict[str, Visit]) -> None:
    outside = {url for visit in visits.values() for url in visit.outside}
    assert outside == set(), f"{len(outside)} requests to other machines were blocked"


def test_formulas_are_set_without_a_network(visits: dict[str, Visit]) -> None:
    page = visits[f"book/{CHAPTER}.html"].page
    formulas = page.locator("article .math")
    assert formulas.count() > 10
    page.wait_for_function("document.querySelectorAll('article .math mjx-container').length > 10", timeout=20_000)
    assert page.locator("article mjx-merror").count() == 0


def test_the_front_page_leads_to_the_book(browser: Any, address: str) -> None:
    page = Visit(browser, address, "index.html").page
    page.wait_for_url(f"{address}/{PAGES[0]}")
    page.get_by_role("link", name="Fusing sound and pictures by class").first.click()
    page.wait_for_url(f"**/{CHAPTER}.html")


def test_the_front_page_says_what_became_of_every_claim(html: Path) -> None:
    rows = soup_of(html / "book/index.html").select('article table[id^="sortable"] tbody tr')
    claims = load_claims()[1].values()
    assert [row.a.get_text() for row in rows if row.a] == [claim.sentence for claim in claims]
    words = [[(cell.strong or cell).get_text() for cell in row.find_all("td")[1:]] for row in rows]
    assert {len(verdicts) for verdicts in words} == {3}
    assert {word for verdicts in words for word in verdicts} <= {"holds", "does not hold", "undecided", "not measured"}


def test_a_passport_opens(visits: dict[str, Visit], executed: Path) -> None:
    page = visits[f"book/{CHAPTER}.html"].page
    passports = page.locator("details", has=page.get_by_text("Passport of run"))
    assert passports.count() >= 1
    passport = passports.first
    cell = passport.get_by_role("cell", name=digests.code(), exact=True)
    assert not cell.is_visible()
    passport.locator("summary").click()
    assert cell.is_visible()
    told = set(passport.locator("th").all_inner_texts())
    assert set(results.PASSPORT) - {"clips", "missing"} <= told
    assert {"clips, test", "threshold rule", "intervals"} <= told


def test_the_proof_is_kept_apart(html: Path) -> None:
    assert html.is_relative_to(runs.BUILD / "proof")
    source = yaml.safe_load((digests.ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert source["html"]["announcement"] == "", "the book itself bears no proof's banner"


def outputs_of(notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for cell in notebook["cells"]:
        yield from cell.get("outputs", [])


@pytest.fixture
def own_store(executed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the results store in a home of its own, which the test may damage."""
    copy = tmp_path / "home" / "results"
    shutil.copytree(results.store(), copy)
    monkeypatch.setenv("AVREPRO_HOME", str(copy.parent))
    check_executed(CHAPTER, executed, allow_ci=True)
    return copy


def test_a_number_of_profile_ci_is_refused(executed: Path) -> None:
    with pytest.raises(ResultsError, match="profile ci"):
        check_executed(CHAPTER, executed, allow_ci=False)


def test_a_run_that_is_not_in_the_store_is_refused(executed: Path, own_store: Path) -> None:
    shown = {run for output in outputs_of(json.loads(executed.read_text())) for run in marks(output)}
    committed = set(results.read(folders=(results.COMMITTED,)).table["run"])
    assert len(shown & committed) == 3, "ESC-10, paired, and its photographs"
    assert len(shown - committed) == 2, "the demo world and demo-null"
    for run in sorted(shown - committed):
        (file,) = own_store.glob(f"*-{run}.parquet")
        kept = file.rename(file.with_suffix(".away"))
        with pytest.raises(ResultsError, match=f"shows run {run}, which is not in the results store"):
            check_executed(CHAPTER, executed, allow_ci=True)
        kept.rename(file)


def marks(output: dict[str, Any]) -> set[str]:
    return {output["metadata"]["avrepro"]["run"]} if "avrepro" in output.get("metadata", {}) else set()


def test_a_stale_number_is_refused(executed: Path, own_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(digests, "code", lambda *parts: "code of tomorrow")
        with pytest.raises(ResultsError, match="older than today's code"):
            check_executed(CHAPTER, executed, allow_ci=True)
    for file in own_store.glob("*.parquet"):
        pd.read_parquet(file).assign(digest="0" * 64).to_parquet(file, index=False)
    with pytest.raises(ResultsError, match="older than today's code"):
        check_executed(CHAPTER, executed, allow_ci=True)


def test_a_number_missing_in_the_text_is_refused(executed: Path, own_store: Path, tmp_path: Path) -> None:
    notebook = json.loads(executed.read_text())
    for cell in notebook["cells"]:
        names = [output.get("metadata", {}).get("scrapbook", {}).get("name") for output in cell.get("outputs", [])]
        if "audio_f1" in names:
            del cell["outputs"][names.index("audio_f1")]
    copy = tmp_path / "chapter.ipynb"
    copy.write_text(json.dumps(notebook))
    with pytest.raises(ResultsError, match="numbers missing in the text: audio_f1"):
        check_executed(CHAPTER, copy, allow_ci=True)


@pytest.mark.parametrize(
    "text", ["{glue:text}`side_by_side.ipynb::gone:s`", "```{glue:any} gone\n:doc: side_by_side.ipynb\n```\n"]
)
def test_a_page_of_prose_that_names_what_no_chapter_says_is_refused(tmp_path: Path, text: str) -> None:
    page, notebook = tmp_path / "page.md", tmp_path / "side_by_side.ipynb"
    page.write_text(f"# A page\n\n{text}")
    notebook.write_text(json.dumps({"cells": []}))
    with pytest.raises(ResultsError, match=r"page\.md: numbers missing in the text: gone"):
        check_page(page, {"side_by_side": notebook})
    with pytest.raises(ResultsError, match="shows numbers of side_by_side, which is not in the book"):
        check_page(page, {})


def test_a_chapter_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="shows no results"):
        check_executed(CHAPTER, runs.notebook_of(CHAPTER), allow_ci=True)


def test_the_key_of_an_executed_chapter_follows_its_notebook(executed: Path) -> None:
    assert executed.is_file()
    parameters = next(
        cell for cell in json.loads(executed.read_text())["cells"] if "injected-parameters" in cell["metadata"]["tags"]
    )
    assert re.search(r'^profile = "ci"$', "".join(parameters["source"]), re.MULTILINE)
