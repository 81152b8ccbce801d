"""The data manifests: all valid, their facts against the files themselves, lists apart, printed numbers cited."""

from __future__ import annotations

import csv
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from avrepro import manifests
from avrepro.fetch import at_hand, check
from avrepro.manifests import ManifestError, Member, Wheel, manifest_path, source, sources

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "data_manifests"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in ("claims", "demo_world"))
# What lies in the mirror, by its own README.
MIRRORED = {
    "ast_per_class": "audioset/ast_per_class",
    "audioset": "audioset",
    "dcase2017_task4": "dcase2017_task4",
    "esc10": "esc10",
    "imagenet_samples": "imagenet_samples",
    "paired": "paired",
    "published_predictions": "published_predictions",
    "real_clips": "real_clips",
}
TORCH_HUB = re.compile(r"-([0-9a-f]{8,})\.pth$")


def test_every_manifest_validates() -> None:
    known = sources()
    assert list(known) == NAMES and {"alexnet", "caffenet", "glove_840b", "vggish", "yamnet", *MIRRORED} <= set(known)
    for name, entry in known.items():
        assert entry.name == name and entry == source(name)


def test_the_folder_holds_manifests_and_their_listings_alone() -> None:
    listings = {yaml.safe_load((FOLDER / f"{name}.yaml").read_text()).get("listing") for name in NAMES}
    there = {path.name for path in FOLDER.iterdir() if path.is_file()}
    assert there == {"claims.yaml", "demo_world.yaml", *(f"{name}.yaml" for name in NAMES), *(listings - {None})}


@pytest.mark.parametrize("name", NAMES)
def test_addresses_fit_their_files(name: str) -> None:
    for file in source(name).files:
        stem = file.name.rsplit("/", 1)[-1]
        suffix = "" if stem.endswith(".official_output.txt") else Path(stem).suffix
        for address in file.addresses:
            if isinstance(address, Wheel):
                package, version = address.wheel.split("==")
                assert address.file == stem and stem.startswith(f"{package.replace('-', '_')}-{version}-")
                continue
            path = unquote(urlsplit(address.member if isinstance(address, Member) else address).path)
            assert path.endswith(suffix)
            assert not isinstance(address, str) or re.fullmatch(r"[!-~]+", address)
            if "raw.githubusercontent.com" in str(address) and not file.unverifiable:
                assert re.search(r"/[0-9a-f]{40}/", str(address)), f"{address}: a branch may change"
        if hub := TORCH_HUB.search(stem):
            assert (file.sha256 or file.sha256_prefix).startswith(hub[1])


def bibtex(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(key, field -> value) of every entry."""
    for key, body in re.findall(r"@\w+\{(\w+),\n(.*?)\n\s*\}(?=\n|$)", text, re.DOTALL):
        yield key, {name: " ".join(value.split()) for name, value in re.findall(r"(\w+)\s*= \{(.*)\},?", body)}


@pytest.mark.parametrize("name", NAMES)
def test_citations_agree_with_the_book(name: str) -> None:
    book = dict(bibtex((ROOT / "book" / "references.bib").read_text(encoding="utf-8")))
    assert {"gemmeke2017", "mesaros2017", "pennington2014"} <= set(book)
    entries = dict(bibtex(source(name).bibtex))
    assert len(entries) == source(name).bibtex.count("@")
    for key, fields in entries.items():
        assert {"title", "author", "year"} <= set(fields) and key.rstrip("0123456789abcdefghijklmnopqrstuvwxyz") == ""
        if key in book:
            assert fields == book[key]


@pytest.mark.parametrize("name", MIRRORED)
def test_sizes_and_hashes_are_those_of_the_files(name: str, mirror: Path) -> None:
    """By sha256sum and stat: nothing of avrepro reads the files here."""
    folder = mirror / MIRRORED[name]
    files = source(name).files
    lines = "".join(f"{file.sha256}  {file.name}\n" for file in files)
    ran = subprocess.run(["sha256sum", "--check", "--strict", "--quiet"], input=lines, cwd=folder, text=True)
    assert ran.returncode == 0
    assert {file.name: (folder / file.name).stat().st_size for file in files} == {f.name: f.size for f in files}


@pytest.mark.parametrize("name", ["dcase2017_task4", "esc10", "imagenet_samples", "paired", "real_clips"])
def test_no_file_of_the_mirror_is_left_out(name: str, mirror: Path) -> None:
    about = {"SOURCE.txt", "README.md", "LICENSE", "APACHE_LICENSE.txt", "manifest.csv"}
    folder = mirror / MIRRORED[name]
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there - about == {file.name for file in source(name).files}


def test_the_mirror_is_clean(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    for name in MIRRORED:
        checked = check(name)
        assert checked.good and not checked.missing and not checked.corrupt and at_hand(name), name


def uncited(node: Any, at: str, cited: bool = False) -> Iterator[str]:
    """Where a printed value stands without a table and page, or section and page, at it or above it."""
    if isinstance(node, dict):
        if "where" in node:
            where = node["where"]
            good = (
                isinstance(where, dict)
                and isinstance(where.get("page"), int)
                and where["page"] > 0
                and any(isinstance(where.get(key), str) and where[key] for key in ("table", "section", "figure"))
                and set(where) <= {"table", "section", "figure", "page"}
            )
            if not good:
                yield f"{at}: where: {where}"
            cited = True
        for key, value in node.items():
            if key != "where":
                yield from uncited(value, f"{at}.{key}", cited)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from uncited(value, f"{at}[{index}]", cited)
    elif not cited and not isinstance(node, str):
        yield f"{at}: {node}"


@pytest.mark.parametrize("path", sorted((FOLDER / "published").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_published_number_is_cited(path: Path) -> None:
    published = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert not list(uncited(published, path.stem))
    assert published["paper"] in dict(bibtex((ROOT / "book" / "references.bib").read_text(encoding="utf-8")))


FILE: dict[str, Any] = {"name": "a.bin", "addresses": ["https://a.org/a.bin"], "sha256": "0" * 64}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr(manifests, "FOLDER", tmp_path)

    def write(**changes: Any) -> None:
        entries = {
            "what": "w",
            "page": "https://a.org",
            "licence": "l",
            "bibtex": "@misc{a}",
            "files": [FILE],
            **changes,
        }
        given = {key: value for key, value in entries.items() if value is not None}
        (tmp_path / "made.yaml").write_text(yaml.safe_dump(given))

    return write


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"colour": "red"}, "colour"),
        ({"licence": None}, "licence"),
        ({"bibtex": "Somebody (2017)"}, "bibtex"),
        ({"page": "a.org"}, "page"),
        ({"files": []}, "at least 1 item"),
        ({"files": [FILE, FILE]}, "named twice: a.bin"),
        ({"files": [FILE | {"addresses": []}]}, "by_hand must say"),
        ({"listing": "none.csv"}, "none.csv"),
        ({"files": [FILE | {"md5": "0"}]}, "md5"),
        ({"files": [FILE | {"sha256": ""}]}, "found none"),
        ({"files": [FILE | {"sha256": "0" * 63}]}, "sha256"),
        ({"files": [FILE | {"sha1": "0" * 40}]}, "found sha256, sha1"),
        ({"files": [FILE | {"sha256": "", "sha256_prefix": "0" * 7}]}, "sha256_prefix"),
        ({"files": [FILE | {"size": "3"}]}, "size"),
        *(({"files": [FILE | {"name": name}]}, "below the source's folder") for name in ("/a", "../a", "a//b", "")),
        ({"files": [FILE | {"addresses": ["ftp://a.org/a"]}]}, "addresses"),
        ({"files": [FILE | {"addresses": [{"wheel": "a>=1", "file": "a.whl"}]}]}, "wheel"),
        ({"files": [FILE | {"addresses": [{"wheel": "a==1", "file": "../a.whl"}]}]}, "file"),
    ],
)
def test_a_wrong_source_is_refused(changes: dict[str, Any], expected: str, write: Callable[..., None]) -> None:
    write(**changes)
    with pytest.raises(ManifestError, match=rf"(?s)made\.yaml: .*{expected}"):
        source("made")


def test_a_listing(tmp_path: Path, write: Callable[..., None]) -> None:
    rows = [
        ["name", "size", "sha256", "upstream", "label"],
        ["dog/1.ogg", "7", "1" * 64, "001 - Dog [bark]/1.ogg", "Dog"],
        ["labels.csv", "8", "2" * 64, "", ""],
    ]
    with (tmp_path / "made.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    write(listing="made.csv", base="https://a.org/c", by_hand="Ask.")
    first, second, third = source("made").files
    assert (first.name, first.size, first.sha256) == ("dog/1.ogg", 7, "1" * 64)
    assert first.addresses == ["https://a.org/c/001%20-%20Dog%20%5Bbark%5D/1.ogg"]
    assert second.addresses == [] and third.name == "a.bin" and source("made").size is None


def test_a_manifest_path_that_is_not_there() -> None:
    assert manifest_path("esc10.csv").is_file()
    with pytest.raises(FileNotFoundError, match="pip install -e"):
        manifest_path("nothing.yaml")
