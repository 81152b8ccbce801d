"""AudioSet's lists and classes, and the clips that are here."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from clip_files import film

from avrepro import corpora
from avrepro.corpora import audioset, dcase2017
from avrepro.corpora.audioset import load_audioset
from avrepro.corpora.base import CorpusError, ListedClip, MissingClip
from avrepro.corpora.download import collect

SIZES = {"balanced": (22160, 52882), "evaluation": (20371, 51804)}


def test_classes_are_those_of_the_ontology(mirror: Path) -> None:
    names = audioset.read_classes(mirror / "audioset/class_labels_indices.csv")
    ontology = {node["id"]: node["name"] for node in json.loads((mirror / "audioset/ontology.json").read_text())}
    assert len(names) == len(set(names.values())) == 527 and names.items() <= ontology.items()
    assert dcase2017.NAME_OF_ID.items() <= names.items()  # Task 4's classes are AudioSet's, by the same names


@pytest.mark.parametrize("name", SIZES)
def test_lists(mirror: Path, name: str) -> None:
    names = audioset.read_classes(mirror / "audioset/class_labels_indices.csv")
    listed = audioset.listed_in(name)
    source, file, split = audioset.LISTS[name]
    lines = (mirror / source / file).read_text().splitlines()[3:]
    assert (len(listed), sum(len(clip.labels) for clip in listed)) == SIZES[name]
    for line, clip in zip(lines, listed, strict=True):
        video, start, end, identifiers = re.fullmatch(r'(\S{11}), (\S+), (\S+), "(\S+)"', line).groups()
        labels = tuple(names[identifier] for identifier in identifiers.split(","))
        assert clip == ListedClip(f"{video}_{start}_{end}", video, float(start), float(end), split, labels)
    with pytest.raises(CorpusError, match="no list 'eval', only balanced, unbalanced, evaluation"):
        audioset.listed_in("eval")


NAMES = {"/m/1": "One", "/m/2": "Two, too", "/m/3": "Three"}
HEADER = "# Segments csv created\n# num_ytids={0}, num_segs={0}, num_unique_labels=2, num_positive_labels={1}\n# YTID\n"
ROW = '-abcdefghij, 0.000, 10.000, "/m/1,/m/2"\n'
CLASS_ROWS = 'index,mid,display_name\n0,/m/1,"One"\n'
READ_LIST, READ_CLASSES = partial(audioset.read_segments, names=NAMES), audioset.read_classes
BAD = [
    (READ_LIST, HEADER.format(2, 4) + ROW, "holds 1 clips with 2 labels, line 2 says .*num_segs=2"),  # cut short
    (READ_LIST, HEADER.format(1, 2) + ROW.replace("/m/2", "/m/4"), "line 4: expected identifiers out of the 3 classes"),
    (READ_LIST, HEADER.format(1, 2) + ROW.replace("-abcdefghij", "abc"), "line 4: expected YouTube's id .*'abc'"),
    (READ_LIST, HEADER.format(1, 2) + ROW.replace(" 0.000", " 10.000"), "line 4: expected an end after the start"),
    (READ_LIST, HEADER.format(2, 4) + ROW + ROW, "line 5: expected each clip once"),
    (READ_CLASSES, CLASS_ROWS + '2,/m/2,"Two"\n', "line 3: expected classes numbered 0, 1, 2"),
    (READ_CLASSES, CLASS_ROWS + '1,/m/2,"One"\n', "line 3: expected each name once"),
]


@pytest.mark.parametrize(("read", "text", "message"), BAD)
def test_bad_line_is_named(tmp_path: Path, read: Callable[[Path], Any], text: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(CorpusError, match=rf"table\.csv.*{message}"):
        read(path)


# --- clips that are here: made lists of a few clips, small real files, and what becomes of all the others

BALANCED, UNBALANCED, EVALUATION = (audioset.LISTS[name][1] for name in ("balanced", "unbalanced", "evaluation"))


@pytest.fixture
def lists(tmp_path: Path, home: Path) -> Path:
    """Forty training clips, four evaluation clips and three classes."""
    folder = tmp_path / "lists"
    folder.mkdir()
    write_list(folder / BALANCED, "b", 40)
    write_list(folder / EVALUATION, "e", 4)
    rows = [f'{number},{identifier},"{name}"\n' for number, (identifier, name) in enumerate(NAMES.items())]
    (folder / audioset.CLASS_LIST).write_text("index,mid,display_name\n" + "".join(rows))
    return folder


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media" / "below"
    folder.mkdir(parents=True)
    return folder


def write_list(path: Path, letter: str, count: int) -> None:
    """Clips of two seconds; all have the second class, the even ones the first one too."""
    labels = [("/m/1,/m/2", "/m/2")[number % 2] for number in range(count)]
    head = HEADER.format(count, sum(one.count("/m/") for one in labels))
    path.write_text(head + "".join(f'{video(letter, k)}, 3.000, 5.000, "{one}"\n' for k, one in enumerate(labels)))


def video(letter: str, number: int) -> str:
    return f"-{letter}{number:09d}"


def validation(corpus: corpora.Corpus) -> set[str]:
    return {clip.id for clip in (*corpus.clips, *corpus.missing) if clip.split == "validation"}


def test_clips_of_each_label_are_counted(lists: Path) -> None:
    assert audioset.read_classes(lists / audioset.CLASS_LIST) == NAMES
    counts = audioset.label_counts(audioset.read_segments(lists / BALANCED, NAMES), NAMES)
    assert list(counts.items()) == [("Two, too", 40), ("One", 20), ("Three", 0)]


def test_clips_that_lie_in_a_folder(lists: Path, media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {
        f"{video('b', 0)}_3.000_5.000": ("One", "Two, too"),
        f"{video('b', 1)}_3.000_5.000": ("Two, too",),
        f"{video('e', 2)}_3.000_5.000": ("One", "Two, too"),
    }
    for name in labels:
        film(media / f"Y{name}.mp4")
    film(media / "nobody listed this.mp4")
    (media / f"{video('e', 1)}.mp4").write_bytes(b"no film")

    corpus = load_audioset(media.parent, lists)
    assert corpus.name == "audioset" and corpus.classes == ("One", "Two, too", "Three")
    assert {clip.id: clip.labels for clip in corpus.clips} == labels
    split = {clip.id: clip.split for clip in (*corpus.clips, *corpus.missing)}
    assert len(split) == 44 and Counter(split.values()) == {"train": 36, "validation": 4, "evaluation": 4}
    assert all((place == "evaluation") == (name[1] == "e") for name, place in split.items())
    reasons = {clip.id: clip.reason for clip in corpus.missing}
    assert len(reasons) == 41 and reasons.pop(f"{video('e', 1)}_3.000_5.000").startswith("error: ")
    assert set(reasons.values()) == {"not fetched: avrepro data clips fetches it"}
    assert f"put {UNBALANCED} into {lists}" in "".join(capsys.readouterr())


def test_the_unbalanced_list_comes_first(lists: Path, media: Path, home: Path) -> None:
    write_list(lists / UNBALANCED, "u", 10)
    clip = ListedClip(f"{video('b', 0)}_3.000_5.000", video("b", 0), 3.0, 5.0, "train", ("One",))
    film(media / f"{clip.id}.mp4")
    collect([clip], home / "clips" / "audioset", media=media)  # as avrepro data clips does of the balanced list
    corpus = load_audioset(lists=lists)
    assert not corpus.clips and all(one.id[1] in "ue" for one in corpus.missing)
    assert Counter(one.split for one in corpus.missing) == {"train": 9, "validation": 1, "evaluation": 4}
    (lists / UNBALANCED).unlink()
    assert [one.id for one in load_audioset(lists=lists).clips] == [clip.id]  # without a folder: what was found before


def test_validation_is_drawn_by_seed(lists: Path, media: Path) -> None:
    drawn = {seed: validation(load_audioset(lists=lists, seed=seed)) for seed in (0, 1)}
    assert drawn[0] == validation(load_audioset(lists=lists)) != drawn[1]
    film(media / f"{min(drawn[0])}.mp4")  # whether a clip is here does not matter
    corpus = corpora.load("audioset", clips=media, labels=lists)
    assert validation(corpus) == drawn[0] and [clip.split for clip in corpus.clips] == ["validation"]
    (media / f"{video('b', 3)}.mp4").write_bytes(b"")  # missing for another reason: no part of the digest
    assert load_audioset(media, lists).digest == corpus.digest != load_audioset(lists=lists, seed=1).digest


def test_very_many_missing_clips_are_one_entry(lists: Path, media: Path) -> None:
    write_list(lists / UNBALANCED, "u", 1200)
    film(media / f"{video('u', 0)}.mp4")
    corpus = load_audioset(media, lists)
    here = Counter(clip.split for clip in corpus.clips)
    entry = MissingClip(f"{1080 - here['train']:,} clips", "train", "not fetched: avrepro data clips fetches it")
    assert entry in corpus.missing
    counts = Counter(clip.split for clip in corpus.missing)
    assert counts == {"train": 1, "validation": 120 - here["validation"], "evaluation": 4}
