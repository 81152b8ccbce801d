"""Code listings: the true lines of the package, each with a link to where it stands."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from avrepro.checkout import PACKAGE, ROOT
from avrepro.corpora.base import Corpus
from avrepro.models.li2017 import CRNN, fuse
from avrepro.report import code, write_sources
from avrepro.report.listings import shortened, source_of
from avrepro.systems import Data


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("html") / "source"
    write_sources(folder)
    return folder


@pytest.mark.parametrize("thing", [fuse, CRNN.forward, CRNN, Corpus.targets, Data.targets, Data.delay])
def test_a_listing_is_the_source_itself(thing: object, pages: Path, shown: Callable) -> None:
    text, file, line = source_of(thing)
    there = (ROOT / file).read_text(encoding="utf-8").splitlines()[line - 1 :]
    indent = len(there[0]) - len(there[0].lstrip())
    assert text.splitlines() == [one[indent:] for one, _ in zip(there, text.splitlines(), strict=False)]

    (output,) = shown(code, thing)
    page = BeautifulSoup(output.data["text/html"], "html.parser")
    assert page.a is not None and page.pre is not None
    place, name = re.fullmatch(r"\.\./source/(.+)#line-(\d+)", str(page.a["href"])), page.a.get_text()
    assert place is not None and place.groups() == (file.with_suffix(".html").as_posix(), str(line))
    assert output.data["text/plain"] == f"# {name}, {file}, line {line}\n{shortened(text)}"
    assert page.pre.get_text() == shortened(text)
    head = next(one for one in text.splitlines() if not one.startswith("@"))
    assert re.match(rf"(def|class) {name.rpartition('.')[2]}\b", head)
    target = BeautifulSoup((pages / place[1]).read_text(encoding="utf-8"), "html.parser")
    assert target.find(id=f"line-{line}") and target.h1 is not None and target.h1.get_text() == file.as_posix()


def test_every_source_file_has_its_page(pages: Path) -> None:
    wanted = {path.relative_to(ROOT).with_suffix(".html") for path in PACKAGE.rglob("*.py")}
    assert {path.relative_to(pages) for path in pages.rglob("*.html")} == wanted
    page = BeautifulSoup((pages / "avrepro/results.html").read_text(encoding="utf-8"), "html.parser")
    lines = (ROOT / "avrepro/results.py").read_text(encoding="utf-8").splitlines()
    assert [tag["id"] for tag in page.select("pre a[id]")] == [f"line-{k}" for k in range(1, len(lines) + 1)]
    for number in page.select("pre .linenos"):
        number.extract()
    assert page.pre is not None and page.pre.get_text().splitlines() == lines


def test_docstrings_end_with_their_first_line() -> None:
    source = (
        "class A:\n    '''One.\n\n    More.\n    '''\n\n    x = '''kept\n    whole'''\n\n"
        '    def f(self):\n        r"""A long\n        beginning."""\n        return """a\n        b"""\n\n'
        '    def g(self):\n        """Short."""\n'
    )
    assert shortened(source) == (
        "class A:\n    '''One.'''\n\n    x = '''kept\n    whole'''\n\n"
        '    def f(self):\n        r"""A long ..."""\n        return """a\n        b"""\n\n'
        '    def g(self):\n        """Short."""\n'
    )


def test_code_of_others_is_refused() -> None:
    with pytest.raises(ValueError, match=r"re\.compile: expected code of avrepro"):
        source_of(re.compile)
