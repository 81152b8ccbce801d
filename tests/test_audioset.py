"""AudioSet's lists, classes and ontology against each other, their statistics, and a published summary."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from avrepro import fetch
from avrepro.corpora import audioset, dcase2017
from avrepro.corpora.base import CorpusError
from avrepro.evaluation.published import per_class_summary

SIZES = {"balanced": (22160, 52882), "evaluation": (20371, 51804)}


@pytest.fixture(scope="module")
def names(mirror: Path) -> dict[str, str]:
    return audioset.read_classes(mirror / "audioset/class_labels_indices.csv")


def test_classes_and_ontology_say_the_same(mirror: Path, names: dict[str, str]) -> None:
    ontology = audioset.ontology()
    assert len(names) == len(set(names.values())) == 527 and len(ontology) == 632
    assert audioset.classes() == tuple(names.values())
    assert {identifier: ontology[identifier].name for identifier in names} == names
    assert not any(ontology[identifier].abstract for identifier in names)
    restrictions = [(category.abstract, category.blacklisted) for category in ontology.values()]
    text = (mirror / "audioset/ontology.json").read_text()
    assert sum(abstract for abstract, _ in restrictions) == text.count('"abstract"')
    assert sum(blacklisted for _, blacklisted in restrictions) == text.count('"blacklist"')
    children = {child for category in ontology.values() for child in category.children}
    roots = [category.name for identifier, category in ontology.items() if identifier not in children]
    assert len(roots) == 7 and "Music" in roots
    assert dcase2017.NAME_OF_ID.items() <= names.items()  # Task 4's classes are AudioSet's, by the same names


@pytest.mark.parametrize("split", SIZES)
def test_lists(mirror: Path, names: dict[str, str], split: str) -> None:
    table = audioset.segments(split)
    source, name, _ = audioset.LISTS[split]
    lines = (mirror / source / name).read_text().splitlines()[3:]
    assert (len(table), table["labels"].map(len).sum()) == SIZES[split] and len(lines) == len(table)
    for line, row in zip(lines, table.itertuples(), strict=True):
        video, start, end, identifiers = re.fullmatch(r'(\S{11}), (\S+), (\S+), "(\S+)"', line).groups()
        assert (row.video, row.start, row.end) == (video, float(start), float(end))
        assert row.labels == tuple(names[identifier] for identifier in identifiers.split(","))
        assert row.clip == f"{video}_{start}_{end}"


def test_listed_clips(mirror: Path) -> None:
    training, evaluation = audioset.listed("balanced"), audioset.listed("evaluation")
    assert {clip.split for clip in training} == {"train"} and {clip.split for clip in evaluation} == {"evaluation"}
    assert (len(training), len(evaluation)) == (22160, 20371)
    assert not {clip.video for clip in training} & {clip.video for clip in evaluation}
    assert training[0].id == "--PJHxphWEs_30.000_40.000" and training[0].labels == ("Speech", "Gush")
    with pytest.raises(CorpusError, match="no list 'eval', only balanced, unbalanced, evaluation"):
        audioset.listed("eval")


@pytest.mark.parametrize("split", SIZES)
def test_label_statistics(mirror: Path, names: dict[str, str], split: str) -> None:
    table = audioset.segments(split)
    found = audioset.label_statistics(table, names)
    counts = Counter(label for labels in table["labels"] for label in labels)
    assert found.counts.to_dict() == counts and len(counts) == 527
    assert found.labels_per_clip == pytest.approx(SIZES[split][1] / SIZES[split][0])
    assert found.commonest == ("Music", max(counts.values()))  # as in Fayek & Kumar, section 4.1
    assert found.rarest[1] == counts[found.rarest[0]] == min(counts.values()) == 59  # "at least 59 videos for each"
    assert (np.diff(found.counts) <= 0).all()


def test_unbalanced_list(mirror: Path, names: dict[str, str]) -> None:
    if not fetch.at_hand("audioset_unbalanced"):
        pytest.skip("the unbalanced list has not been fetched: avrepro data fetch audioset_unbalanced")
    found = audioset.label_statistics(audioset.segments("unbalanced"), names)
    assert found.clips == 2_041_789 and found.commonest[0] == "Music"


HEADER = "# Segments csv created\n# num_ytids={0}, num_segs={0}, num_unique_labels=2, num_positive_labels={1}\n# YTID\n"
ROW = '-abcdefghij, 0.000, 10.000, "/m/1,/m/2"\n'
BAD = [
    (HEADER.format(2, 4) + ROW, r"holds 1 clips with 2 labels, line 2 says .*num_segs=2"),  # cut short
    (HEADER.format(1, 2) + ROW.replace("/m/2", "/m/3"), r"line 4: expected identifiers out of the 2 classes"),
    (HEADER.format(1, 2) + ROW.replace("/m/2", "/m/1"), r"line 4: expected identifiers .*each once"),
    (HEADER.format(1, 2) + ROW.replace("-abcdefghij", "abc"), r"line 4: expected YouTube's id .*found \['abc'"),
    (HEADER.format(1, 2) + ROW.replace(" 0.000", " 10.000"), r"line 4: expected an end after the start"),
    (HEADER.format(1, 2) + ROW.replace('"', ""), r"line 4: expected 4 fields .*found"),
    (HEADER.format(2, 4) + ROW + ROW, r"line 5: expected each clip once"),
    (HEADER.format(0, 0), r"holds no clip"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad_list_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "segments.csv"
    path.write_text(text)
    with pytest.raises(CorpusError, match=rf"segments\.csv.*{message}"):
        audioset.read_segments(path, {"/m/1": "One", "/m/2": "Two, too"})


def test_good_list_of_two_classes(tmp_path: Path) -> None:
    path = tmp_path / "segments.csv"
    path.write_text(HEADER.format(1, 2) + ROW)
    names = {"/m/1": "One", "/m/2": "Two, too", "/m/3": "Three"}
    table = audioset.read_segments(path, names)
    assert table.iloc[0].tolist() == ["-abcdefghij_0.000_10.000", "-abcdefghij", 0.0, 10.0, ("One", "Two, too")]
    assert audioset.label_statistics(table, names).rarest == ("Three", 0)


def test_bad_classes_and_ontology_are_named(tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    path.write_text('index,mid,display_name\n0,/m/1,"One"\n2,/m/2,"Two"\n')
    with pytest.raises(CorpusError, match=r"classes\.csv, line 3: expected classes numbered 0, 1, 2"):
        audioset.read_classes(path)
    path.write_text('index,mid,display_name\n0,/m/1,"One"\n1,/m/2,"One"\n')
    with pytest.raises(CorpusError, match="line 3: expected each name once"):
        audioset.read_classes(path)
    node = {"id": "/m/1", "name": "One", "description": "", "child_ids": ["/m/9"], "restrictions": []}
    path.write_text(json.dumps([node]))
    with pytest.raises(CorpusError, match="category 'One' has a child '/m/9'"):
        audioset.read_ontology(path)
    path.write_text(json.dumps([{"id": "/m/1"}]))
    with pytest.raises(CorpusError, match="expected a JSON list of categories, found KeyError"):
        audioset.read_ontology(path)


@pytest.mark.parametrize("run", ["full", "balanced"])
def test_published_summary(mirror: Path, run: str) -> None:
    folder = mirror / "audioset/ast_per_class"
    published = np.loadtxt(folder / f"{run}_result.csv", delimiter=",")[-1]  # mAP, mean AUC, -, -, d', ...
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = per_class_summary(folder / f"{run}_last_epoch.csv")
    assert ours.mean_average_precision == pytest.approx(published[0], abs=1e-9)
    assert ours.mean_auc == pytest.approx(published[1], abs=1e-9)
    assert ours.d_prime == pytest.approx(published[4], abs=1e-8)


def test_bad_table_by_class_is_named(tmp_path: Path) -> None:
    path = tmp_path / "by_class.csv"
    for rows, message in (("1,0.5,0.5\n", "numbered from 0"), ("0,50,0.5\n", "as fractions 0..1")):
        path.write_text("class_index,average_precision,roc_auc\n" + rows)
        with pytest.raises(CorpusError, match=rf"by_class\.csv: expected .*{message}"):
            per_class_summary(path)
