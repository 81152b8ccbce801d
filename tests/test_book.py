"""The built book: its links, numbers and looks in a real browser. All that needs it is here: it is built once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup

from avrepro import checkout, runs
from avrepro.parameters import CHAPTERS

pytestmark = pytest.mark.book

CHAPTER = "lightweight_fusion"
WIDE, NARROW = 1280, 390  # px, of a laptop and of a telephone
LEAST_CONTRAST = 4.5  # WCAG 2.1, level AA

# Harmless mistakes of the theme itself: sphinx-thebe writes its line twice, no colour mode is stored at first.
OF_THE_THEME = ("Identifier 'THEBE_JS_URL' has already been declared", "Resetting to auto.")

TOC = yaml.safe_load((checkout.ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [f"{name}.html" for name in (TOC["root"], *(entry["file"] for entry in TOC["chapters"]))]
EACH_PAGE = pytest.mark.parametrize("name", PAGES)


@pytest.fixture(scope="session")
def html() -> Path:
    """The folder of the proof book; what is built already and still fresh is not built again."""
    return runs.build_book("ci").parent


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
        self.page.on("pageerror", lambda error: self._note(f"uncaught: {error.message}"))
        self.page.on("response", lambda one: self._note(f"{one.status}: {one.url}", one.status >= 400))
        self.page.goto(f"{address}/{name}", wait_until="load")

    def at(self, width: int) -> Any:
        self.page.set_viewport_size({"width": width, "height": 900})
        return self.page

    def _route(self, route: Any) -> None:
        if route.request.url.startswith((self.address, "data:", "blob:")):
            route.continue_()
        else:
            self.outside.add(route.request.url)
            route.abort()

    def _console(self, message: Any) -> None:
        of_blocked = message.location.get("url", "") in self.outside
        self._note(f"console: {message.text}", message.type == "error" and not of_blocked)

    def _note(self, text: str, is_error: bool = True) -> None:
        if is_error and not text.endswith(OF_THE_THEME):
            self.errors.append(text)


@pytest.fixture(scope="session")
def visits(browser: Any, address: str) -> dict[str, Visit]:
    return {name: Visit(browser, address, name) for name in PAGES}


def soup_of(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


# --- files ---------------------------------------------------------------------------------------------------


def broken_links(folder: Path) -> list[str]:
    """Every href and src within ``folder`` that leads to no file there, or to an anchor that its page lacks."""
    pages = [path for path in folder.rglob("*.html") if "_static" not in path.parts]  # the theme keeps templates there
    soups = {path.resolve(): soup_of(path) for path in pages}
    anchors = {path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in soups.items()}
    broken = []
    for path, soup in soups.items():
        links = [tag[key] for key in ("href", "src") for tag in soup.find_all(attrs={key: True})]
        for link in links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            fragment = unquote(parts.fragment)
            if not target.is_file() or (fragment and fragment not in anchors.get(target, {fragment})):
                broken.append(f"{path.relative_to(folder.resolve())}: {link}")
    return broken


def test_every_page_is_there_and_every_link_leads_somewhere(html: Path) -> None:
    assert [name for name in ["index.html", *PAGES] if not (html / name).is_file()] == []
    assert broken_links(html) == []
    source = yaml.safe_load((checkout.ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert source["html"]["announcement"] == "", "the book itself bears no proof's banner"


@EACH_PAGE
def test_pictures_and_tables_have_texts(html: Path, name: str) -> None:
    article = soup_of(html / name).article
    assert article is not None
    for image in article.find_all("img"):
        assert image.get("alt", "").strip(), f"no alternative text: {str(image)[:120]}"
    measured = [table for output in article.select(".cell_output") for table in output.find_all("table")]
    for table in measured:  # tables of prose stand under their heading
        folded = table.find_parent("details")
        title = table.find("caption") or (folded and folded.find("summary"))
        assert title and title.get_text(strip=True), f"no caption: {str(table)[:200]}"
    assert bool(measured) == (Path(name).stem in CHAPTERS)
    assert "{glue" not in article.get_text(), "a number in a sentence that was not put in"
    bare = [output.get_text(strip=True) for output in article.select(".cell_output .text_plain")]
    assert bare == [], "values that a cell left on the page, as numbers for sentences do unless its output is removed"


# --- in the browser ------------------------------------------------------------------------------------------


@EACH_PAGE
def test_a_page_in_the_browser(visits: dict[str, Visit], name: str) -> None:
    visit = visits[name]
    assert visit.errors == [] and visit.outside == set()
    headings = visit.page.locator("article h1")
    assert headings.count() == 1 and headings.first.is_visible()
    assert visit.page.get_by_text(runs.PROOF).first.is_visible()
    for image in visit.page.locator("article img").all():
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


# Tables that neither lie in a closed fold nor fit: their captions, and by how many px.
TOO_WIDE = """scrolling => [...document.querySelectorAll("article table")].flatMap((table) => {
  if (!table.getClientRects().length) return [];
  const frame = table.closest(".wide, .pst-scrollable-table-container");
  const [edge, outer] = [table, frame ?? table.closest("article")].map((one) => one.getBoundingClientRect().right);
  const over = Math.max(outer - document.documentElement.clientWidth, frame && scrolling ? 0 : edge - outer);
  return over > 1 ? [`${table.caption?.textContent ?? table.textContent.slice(0, 80)}: ${over}`] : [];
})"""


@EACH_PAGE
def test_nothing_is_wider_than_the_page(visits: dict[str, Visit], name: str) -> None:
    """On a telephone, a table may scroll in a frame of its own."""
    page = visits[name].at(WIDE)
    assert page.evaluate(TOO_WIDE, False) == []
    page = visits[name].at(NARROW)
    assert page.evaluate(TOO_WIDE, True) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW
    visits[name].at(WIDE)


CUT = """() => [...document.querySelectorAll("article mjx-container")].filter((one) => one.getClientRects().length)
  .map((one) => [one.closest("p, div.math, td, li") ?? one.parentElement, one])
  .filter(([frame, one]) => one.getBoundingClientRect().right > frame.getBoundingClientRect().right + 1)
  .map(([frame, one]) => one.textContent.slice(0, 60))"""


def test_formulas_are_set_without_a_network_and_not_cut(visits: dict[str, Visit]) -> None:
    for chapter in ("lightweight_fusion", "unsynchronized_mil", "attention_fusion"):
        page = visits[f"book/{chapter}.html"].at(WIDE)
        assert page.locator("article .math").count() > 10
        page.wait_for_function("document.querySelectorAll('article .math mjx-container').length > 10", timeout=20_000)
        assert page.locator("article mjx-merror").count() == 0
        assert page.evaluate(CUT) == [], chapter


# WCAG contrast of texts that the package sets against what lies under them, where it is less than is wanted.
FAINT = """least => {
  const parts = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const texts = "caption > div, thead th, tbody th, td, td strong, small, summary, figcaption, figcaption a, svg text";
  return [...document.querySelectorAll(`article .avrepro :is(${texts})`)].flatMap((one) => {
    let ground = [255, 255, 255];
    const around = [], style = getComputedStyle(one);
    for (let at = one; at; at = at.parentElement) around.unshift(parts(getComputedStyle(at).backgroundColor));
    for (const [r, g, b, a = 1] of around) ground = [r, g, b].map((c, k) => a * c + (1 - a) * ground[k]);
    const colour = one instanceof SVGElement ? style.fill : style.color;
    const [low, high] = [light(parts(colour)), light(ground)].sort((x, y) => x - y);
    const contrast = (high + 0.05) / (low + 0.05);
    return contrast < least ? [`${one.textContent.slice(0, 60)}: ${contrast.toFixed(1)}`] : [];
  });
}"""
PICTURES = """() => [...new Set([...document.querySelectorAll("article .avrepro figure > img:not([style])")]
  .map((one) => getComputedStyle(one))
  .map((style) => `${style.backgroundColor}, ${style.filter}`))]"""


@EACH_PAGE
def test_texts_and_pictures_can_be_read_in_light_and_dark_mode(visits: dict[str, Visit], name: str) -> None:
    page = visits[name].page
    for mode in ("dark", "light"):
        page.evaluate("mode => { document.documentElement.dataset.theme = mode }", mode)
        assert page.evaluate(FAINT, LEAST_CONTRAST) == [], mode
        assert set(page.evaluate(PICTURES)) <= {"rgb(255, 255, 255), none"}, mode


def test_players_play(visits: dict[str, Visit]) -> None:
    ready = """one => new Promise((done) => {
      const end = () => done([one.error?.message ?? "", one.duration > 0]);
      if (one.readyState >= 1 || one.error) return end();
      for (const event of ["loadedmetadata", "error"]) one.addEventListener(event, end);
      one.preload = "metadata"; one.load();
    })"""
    players = [clip for visit in visits.values() for clip in visit.page.locator("article :is(video, audio)").all()]
    assert players
    assert {tuple(clip.evaluate(ready)) for clip in players} == {("", True)}


def test_the_front_page_leads_to_the_book(browser: Any, address: str) -> None:
    page = Visit(browser, address, "index.html").page
    page.wait_for_url(f"{address}/{PAGES[0]}")
    page.locator(f"article a[href*='{CHAPTER}']").first.click()
    page.wait_for_url(f"**/{CHAPTER}.html")
