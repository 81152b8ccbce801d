"""Manifests of real sounds and photographs: rows read, mistakes listed, groups dealt to splits."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import test_paired
from test_paired import COLOUR, write_tone

from avrepro.corpora import CorpusError
from avrepro.corpora.paired import load_paired
from avrepro.corpora.paired_items import SHARES, Item, find_events, read_items, read_manifest, split_groups
from avrepro.manifests import manifest_path

items = test_paired.items


def _published() -> list[Item]:
    """The items of data_manifests/paired.csv, which states labels, groups and contents without the files."""
    return read_items(manifest_path("paired.csv"), None)


@pytest.mark.parametrize("seed", range(3))
def test_published_items_split_by_group(seed: int) -> None:
    published = _published()
    split_of = split_groups(published, seed)
    assert split_of == split_groups(published, seed) != split_groups(published, seed + 1)
    assert set(split_of) == {item.group for item in published}  # one split a group, whatever its labels
    assert sum(len({i.label for i in published if i.group == group}) > 1 for group in split_of) == 10
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    for item in published:
        found[item.modality, item.label][split_of[item.group]] += 1
        groups[item.modality, item.label].add(item.group)
    for kind, counts in found.items():
        if len(groups[kind]) == 2:
            assert kind == ("audio", "Car passing by") and counts == {"train": 47, "test": 18}
            continue
        assert min(counts[split] for split in SHARES) >= 2, kind
        if kind[0] == "image":  # a photograph a group or nearly so: shares are met
            for split, share in SHARES.items():
                assert counts[split] == pytest.approx(share * counts.total(), abs=3)
    events, few = find_events(published)
    assert few == {"Car passing by": 2} and len(events) == 12 and "Bicycle" not in events


def test_strict_rows_alone(items: Path) -> None:
    sure = {item.path for item in read_items(items / "manifest.csv", items, strict=True)}
    assert {item.path for item in read_items(items / "manifest.csv", items)} - sure == {f"{k} 3.png" for k in COLOUR}


def test_stated_contents_stand_for_the_files(items: Path, tmp_path: Path) -> None:
    rows = read_manifest(items / "manifest.csv")
    rows["sha256"] = [hashlib.sha256((items / path).read_bytes()).hexdigest() for path in rows["path"]]
    rows.to_csv(tmp_path / "stated.csv", index=False)
    assert read_items(tmp_path / "stated.csv", None) == read_items(items / "manifest.csv", items)
    rows.loc[3, "sha256"] = "0" * 64
    rows.to_csv(tmp_path / "stated.csv", index=False)
    with pytest.raises(CorpusError, match="line 3: expected a file with the SHA-256 that is stated"):
        read_items(tmp_path / "stated.csv", items)


def test_published_listing_is_the_files(mirror: Path) -> None:
    folder = mirror / "paired"
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as handle:
        given = {row.pop("path"): row for row in csv.DictReader(handle)}
    listed = {row.pop("path"): row for row in read_manifest(manifest_path("paired.csv")).to_dict("records")}
    assert set(listed) == set(given) and list(listed) == sorted(listed)
    for path, row in listed.items():
        assert row | given[path] == row  # sizes and hashes: test_manifests


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,label\na.wav,A\n", ["line 1", "modality"]),
        ("path,label,modality\n\nb.wav,A,audio\n", ["line 3: expected a file in", "'b.wav', did you mean 'a.wav'"]),
        ("path,label,modality\na.wav,,audio\n", ["line 2: expected a label"]),
        ("path,label,modality\na.wav,A,sound\n", ["modality audio or image, found 'sound'"]),
        ("path,label,modality,strict\na.wav,A,audio,yes\n", ["strict 0 or 1, found 'yes'"]),
        ("path,label,modality,strict\na.wav,A,audio,0\n", ["strict = 1"]),
        ("path,label,modality\na.wav,A,audio\n", ["no label has 3 groups", "1 group(s)"]),
    ],
)
@pytest.mark.usefixtures("home")
def test_mistakes_in_the_manifest(text: str, expected: list[str], tmp_path: Path) -> None:
    write_tone(tmp_path / "a.wav", 500)
    (tmp_path / "manifest.csv").write_text(text, "utf-8")
    with pytest.raises(CorpusError) as caught:
        load_paired(tmp_path, strict="strict" in text, jobs=1)
    for part in expected:
        assert part in str(caught.value)
