"""Code on the page: listings taken from the package's own source, and the whole source as pages to link to."""

from __future__ import annotations

import ast
import html
import inspect
import textwrap
from pathlib import Path
from typing import Any

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from avrepro.checkout import PACKAGE, ROOT
from avrepro.report.display import send

SOURCE = "../source"  # as pages of chapters see it: they lie in book/, beside it
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{name}</title>
<style>{light}
@media (prefers-color-scheme: dark) {{ body {{ background: #0d1117; color: #e6edf3 }} {dark} }}
body {{ font-family: sans-serif; margin: 1em 2em }} .highlight {{ overflow-x: auto }}
.linenos {{ padding-right: 1em; user-select: none }} a:target + span, a:target {{ outline: 2px solid orange }}
</style></head><body><h1>{name}</h1>
{code}</body></html>
"""


def code(*things: Any) -> None:
    """List functions, methods or classes of the package, each with its name, which leads to its place in the file.

    Of docstrings, the first lines alone are listed.
    """
    parts, texts = [], []
    for thing in things:
        source, path, line = source_of(thing)
        text, name = shortened(source), _name(thing)
        address = f"{SOURCE}/{path.with_suffix('.html').as_posix()}#line-{line}"
        lines = highlight(text, PythonLexer(), HtmlFormatter(nowrap=True))
        parts.append(
            f'<div><a href="{address}"><code>{html.escape(name)}</code></a>'
            f'<div class="highlight-python notranslate"><div class="highlight"><pre>{lines}</pre></div></div></div>'
        )
        texts.append(f"# {name}, {path}, line {line}\n{text}")
    send("".join(parts), "\n".join(texts))


def source_of(thing: Any) -> tuple[str, Path, int]:
    """Source without indentation, its file within the checkout, and the number of its first line.

    :raises ValueError: it is not of this package.
    """
    thing = _function(thing)
    path = Path(inspect.getsourcefile(thing) or "")
    if not path.is_relative_to(PACKAGE):
        raise ValueError(f"{_name(thing)}: expected code of {PACKAGE.name}, found {path}")
    lines, first = inspect.getsourcelines(thing)
    return textwrap.dedent("".join(lines)), path.relative_to(ROOT), first


def shortened(source: str) -> str:
    """Source whose docstrings end with their first line."""
    lines = source.splitlines()
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
            first, last = node.body[0].lineno - 1, node.body[0].end_lineno or 0
            if last > first + 1:
                quotes = lines[first].lstrip().lstrip("r")[:3]
                lines[first] += ("" if lines[first].endswith((".", "?", "!")) else " ...") + quotes
                left_out |= set(range(first + 1, last))
    return "\n".join(line for number, line in enumerate(lines) if number not in left_out) + "\n"


def write_sources(folder: Path) -> None:
    """Write every source file of the package as a page ``folder/avrepro/....html`` whose lines are ``#line-60``."""
    formatter = {
        mode: HtmlFormatter(style=f"a11y-high-contrast-{mode}", linenos="inline", lineanchors="line")
        for mode in ("light", "dark")
    }
    styles = {mode: one.get_style_defs(".highlight") for mode, one in formatter.items()}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(ROOT)
        text = highlight(path.read_text(encoding="utf-8"), PythonLexer(stripnl=False), formatter["light"])
        page = folder / name.with_suffix(".html")
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(PAGE.format(name=name.as_posix(), code=text, **styles), encoding="utf-8")


def _function(thing: Any) -> Any:
    """What a property, a cached property or a wrapper is made of."""
    return inspect.unwrap(getattr(thing, "fget", None) or getattr(thing, "func", None) or thing)


def _name(thing: Any) -> str:
    function = _function(thing)
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}"
