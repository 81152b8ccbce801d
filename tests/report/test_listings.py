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


def in_order(lines: list[str], source: list[str]) -> bool:
    rest = iter(source)
    return all(line in rest for line in lines)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("html") / "source"
    write_sources(folder)
    return folder


@pytest.mark.parametrize("thing", [fuse, CRNN.forward, CRNN, Corpus.targets, Data.targets, Data.delay])
def test_a_listing_is_the_source_itself(thing: object, pages: Path, shown: Callable) -> None:
    short, whole = shown(code, thing) + shown(lambda: code(thing, docstrings=True))
    page = BeautifulSoup(whole.data["text/html"], "html.parser")
    assert page.a is not None and page.pre is not None
    file, line = re.fullmatch(r"\.\./source/(.+)\.html#line-(\d+)", str(page.a["href"])).groups()  # type: ignore[union-attr]
    name = page.a.get_text()
    assert name.startswith(file.replace("/", "."))
    source = (ROOT / f"{file}.py").read_text(encoding="utf-8").splitlines()
    listed = page.pre.get_text().rstrip("\n").splitlines()
    there = source[int(line) - 1 : int(line) - 1 + len(listed)]
    indent = len(there[0]) - len(there[0].lstrip())
    assert listed == [one[indent:] for one in there], "these very lines of the file"
    head = next(one for one in listed if not one.startswith("@"))
    assert head.split("(")[0].split()[1].rstrip(":") == name.split(".")[-1]

    few = BeautifulSoup(short.data["text/html"], "html.parser").pre.get_text().splitlines()  # type: ignore[union-attr]
    code_of = [one for one in few if not one.strip().startswith('"""')]
    assert in_order(code_of, listed) and compile("\n".join(few), name, "exec"), "nothing but docstrings is left out"
    assert whole.data["text/plain"].startswith(f"# {name}, {file}.py, line {line}\n")

    target = BeautifulSoup((pages / f"{file}.html").read_text(encoding="utf-8"), "html.parser")
    assert target.find(id=f"line-{line}") and target.h1 is not None and target.h1.get_text() == f"{file}.py"


def test_every_source_file_has_its_page(pages: Path) -> None:
    wanted = {path.relative_to(ROOT).with_suffix(".html") for path in PACKAGE.rglob("*.py")}
    assert {path.relative_to(pages) for path in pages.rglob("*.html")} == wanted
    for name in ("avrepro/report/listings", "avrepro/results"):
        page = BeautifulSoup((pages / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
        lines = (ROOT / f"{name}.py").read_text(encoding="utf-8").splitlines()
        anchors = [(tag["id"], tag.find_next(class_="linenos").get_text().strip()) for tag in page.select("pre a[id]")]
        assert anchors == [(f"line-{k}", str(k)) for k in range(1, len(lines) + 1)]
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
