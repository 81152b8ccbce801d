"""Code listings: the true lines of the package, each with a link to where it stands (pages: test_book.py)."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from bs4 import BeautifulSoup

from avrepro.checkout import ROOT
from avrepro.corpora.base import Corpus
from avrepro.models.li2017 import CRNN, fuse
from avrepro.report import code
from avrepro.report.listings import shortened, source_of
from avrepro.systems import Data


@pytest.mark.parametrize("thing", [fuse, CRNN.forward, Corpus.targets, Data.delay])
def test_a_listing_is_the_source_itself_and_leads_to_its_line(thing: object, shown: Callable) -> None:
    text, file, line = source_of(thing)
    there = (ROOT / file).read_text(encoding="utf-8").splitlines()[line - 1 :]
    indent = len(there[0]) - len(there[0].lstrip())
    assert text.splitlines() == [one[indent:] for one, _ in zip(there, text.splitlines(), strict=False)]

    (output,) = shown(code, thing)
    page = BeautifulSoup(output.data["text/html"], "html.parser")
    assert page.a is not None and page.pre is not None and page.pre.get_text() == shortened(text)
    assert page.a["href"] == f"../source/{file.with_suffix('.html').as_posix()}#line-{line}"
    head = next(one for one in text.splitlines() if not one.startswith("@"))
    assert re.match(rf"def {page.a.get_text().rpartition('.')[2]}\b", head)


def test_docstrings_end_with_their_first_line() -> None:
    source = 'def f():\n    r"""A long\n    beginning."""\n    x = """kept\n    whole"""\n'
    assert shortened(source) == 'def f():\n    r"""A long ..."""\n    x = """kept\n    whole"""\n'
