"""The data manifests: all valid, their facts against the files themselves, lists apart, printed numbers cited."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from avrepro import manifests
from avrepro.manifests import ManifestError, source, sources

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "data_manifests"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in ("claims", "demo_world"))
# What lies in the mirror, by its own README.
MIRRORED = (
    "ast_per_class",
    "audioset",
    "dcase2017_task4",
    "esc10",
    "imagenet_samples",
    "paired",
    "published_predictions",
    "real_clips",
)


def test_every_manifest_validates() -> None:
    known = sources()
    assert list(known) == NAMES and {"alexnet", "caffenet", "glove_840b", "vggish", "yamnet", *MIRRORED} <= set(known)
    for name, entry in known.items():
        assert entry.name == name and entry == source(name)


@pytest.mark.parametrize("name", NAMES)
def test_addresses_name_a_commit(name: str) -> None:
    for file in source(name).files:
        for address in file.addresses:
            if "raw.githubusercontent.com" in str(address) and not file.unverifiable:
                assert re.search(r"/[0-9a-f]{40}/", str(address)), f"{address}: a branch may change"


@pytest.mark.parametrize("name", MIRRORED)
def test_sizes_and_hashes_are_those_of_the_files(name: str, mirror: Path) -> None:
    """By sha256sum and stat: nothing of avrepro reads the files here."""
    folder = mirror / (source(name).mirror or name)
    files = source(name).files
    lines = "".join(f"{file.sha256}  {file.name}\n" for file in files)
    ran = subprocess.run(["sha256sum", "--check", "--strict", "--quiet"], input=lines, cwd=folder, text=True)
    assert ran.returncode == 0
    assert {file.name: (folder / file.name).stat().st_size for file in files} == {f.name: f.size for f in files}


def uncited(node: Any, at: str, cited: bool = False) -> Iterator[str]:
    """Where a printed value stands without a table and page, or section and page, at it or above it."""
    if isinstance(node, dict):
        where = node.get("where", {"page": 1, "table": "none is stated here"})
        if not isinstance(where.get("page"), int) or not where.keys() & {"table", "section", "figure"}:
            yield f"{at}: where: {where}"
        for key, value in node.items():
            if key != "where":
                yield from uncited(value, f"{at}.{key}", cited or "where" in node)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from uncited(value, f"{at}[{index}]", cited)
    elif not cited and not isinstance(node, str):
        yield f"{at}: {node}"


@pytest.mark.parametrize("path", sorted((FOLDER / "published").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_published_number_is_cited(path: Path) -> None:
    published = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert not list(uncited(published, path.stem))
    assert f"{{{published['paper']}," in (ROOT / "book" / "references.bib").read_text(encoding="utf-8")


FILE: dict[str, Any] = {"name": "a.bin", "addresses": ["https://a.org/a.bin"], "sha256": "0" * 64}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr(manifests, "FOLDER", tmp_path)

    def write(**changes: Any) -> None:
        entries = {"what": "w", "page": "https://a.org", "licence": "l", "bibtex": "@misc{a}", "files": [FILE]}
        (tmp_path / "made.yaml").write_text(yaml.safe_dump(entries | changes))

    return write


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"colour": "red"}, "colour"),
        ({"bibtex": "Somebody (2017)"}, "bibtex"),
        ({"files": [FILE, FILE]}, "named twice: a.bin"),
        ({"files": [FILE | {"addresses": []}]}, "by_hand must say"),
        ({"files": [FILE | {"sha256": ""}]}, "found none"),
        ({"files": [FILE | {"sha256": "0" * 63}]}, "sha256"),
        ({"files": [FILE | {"name": "../a"}]}, "below the source's folder"),
        ({"files": [FILE | {"addresses": ["ftp://a.org/a"]}]}, "addresses"),
        ({"files": [FILE | {"addresses": [{"wheel": "a>=1", "file": "a.whl"}]}]}, "wheel"),
    ],
)
def test_a_wrong_source_is_refused(changes: dict[str, Any], expected: str, write: Callable[..., None]) -> None:
    write(**changes)
    with pytest.raises(ManifestError, match=rf"(?s)made\.yaml: .*{expected}"):
        source("made")


def test_a_listing(tmp_path: Path, write: Callable[..., None]) -> None:
    row = f"dog/1.ogg,7,{'1' * 64},001 - Dog [bark]/1.ogg,Dog\nlabels.csv,8,{'2' * 64},,\n"
    (tmp_path / "made.csv").write_text("name,size,sha256,upstream,label\n" + row)
    write(listing="made.csv", base="https://a.org/c", by_hand="Ask.")
    first, second, third = source("made").files
    assert (first.name, first.size, first.sha256) == ("dog/1.ogg", 7, "1" * 64)
    assert first.addresses == ["https://a.org/c/001%20-%20Dog%20%5Bbark%5D/1.ogg"]
    assert second.addresses == [] and third.name == "a.bin" and source("made").size is None
