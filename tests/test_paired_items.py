"""Manifests of real sounds and photographs: rows read, mistakes listed, groups dealt to splits."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from test_paired import COLOUR, make_items, write_tone

from avrepro.corpora import CorpusError
from avrepro.corpora.paired import load_paired
from avrepro.corpora.paired_items import SHARES, Item, find_events, read_items, read_manifest, split_groups
from avrepro.manifests import manifest_path


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("items")
    make_items(folder)
    return folder


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


def test_split_of_groups_with_several_labels() -> None:
    """One group holds a sound and a photograph, three others both labels; all stay whole and all splits have both."""
    kinds = {"g0": ["A", "B"], "g1": ["A", "B"], "g2": ["A", "B"], "g3": ["B"], "g4": ["B"]}
    mixed = [Item(f"{g}{label}", label, "audio", g) for g, labels in kinds.items() for label in labels]
    mixed += [Item("photo", "A", "image", "g0")]
    for seed in range(20):
        split_of = split_groups(mixed, seed)
        for label in "AB":
            assert {split_of[item.group] for item in mixed if item.label == label} >= set(SHARES)


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
        content = (folder / path).read_bytes()
        assert int(row.pop("size")) == len(content) and row.pop("sha256") == hashlib.sha256(content).hexdigest()
        assert row == given[path]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,label\na.wav,A\n", ["line 1", "modality"]),
        (
            "path,label,modality\nb.wav,A,audio\n\nc.wav,A,audio\n",
            ["line 2", "'b.wav', did you mean 'a.wav'", "line 4: expected a file in"],
        ),
        ("path,label,modality\na.wav,,audio\n", ["line 2: expected a label"]),
        ("path,label,modality\na.wav,A,sound\n", ["modality audio or image, found 'sound'"]),
        ("path,label,modality,strict\na.wav,A,audio,yes\n", ["strict 0 or 1, found 'yes'"]),
        ("path,label,modality,strict\na.wav,A,audio,0\n", ["strict = 1"]),
        ("path,label,modality\na.wav,A,audio\n", ["no label has 3 groups", "1 group(s)"]),
    ],
)
def test_mistakes_in_the_manifest(
    text: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    write_tone(tmp_path / "a.wav", 500)
    (tmp_path / "manifest.csv").write_text(text, "utf-8")
    with pytest.raises(CorpusError) as caught:
        load_paired(tmp_path, strict="strict" in text, jobs=1)
    for part in expected:
        assert part in str(caught.value)


def test_many_mistakes_are_cut_short(tmp_path: Path) -> None:
    rows = "".join(f"{k}.wav,A,audio\n" for k in range(50))
    (tmp_path / "manifest.csv").write_text("path,label,modality\n" + rows, "utf-8")
    with pytest.raises(CorpusError, match="and 30 more"):
        load_paired(tmp_path)
