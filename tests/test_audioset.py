"""AudioSet's lists and classes, their statistics, a published summary, and the clips that are here."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_corpora import film

from avrepro import corpora, fetch
from avrepro.corpora import audioset, dcase2017
from avrepro.corpora.audioset import load_audioset
from avrepro.corpora.base import CorpusError, ListedClip, MissingClip
from avrepro.corpora.download import collect
from avrepro.evaluation.published import per_class_summary

SIZES = {"balanced": (22160, 52882), "evaluation": (20371, 51804)}


@pytest.fixture(scope="module")
def names(mirror: Path) -> dict[str, str]:
    return audioset.read_classes(mirror / "audioset/class_labels_indices.csv")


def test_classes_are_those_of_the_ontology(mirror: Path, names: dict[str, str]) -> None:
    ontology = {node["id"]: node["name"] for node in json.loads((mirror / "audioset/ontology.json").read_text())}
    assert len(names) == len(set(names.values())) == 527 and names.items() <= ontology.items()
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


@pytest.mark.parametrize("split", [*SIZES, "unbalanced"])
def test_label_statistics(mirror: Path, names: dict[str, str], split: str) -> None:
    if not fetch.at_hand(audioset.LISTS[split][0]):
        pytest.skip("the unbalanced list has not been fetched: avrepro data fetch audioset_unbalanced")
    table = audioset.segments(split)
    found = audioset.label_statistics(table, names)
    counts = Counter(label for labels in table["labels"] for label in labels)
    assert found.counts.to_dict() == counts and len(counts) == 527
    assert (np.diff(found.counts) <= 0).all() and found.counts.index[0] == "Music"  # Fayek & Kumar, section 4.1
    clips, labels = SIZES.get(split, (2_041_789, counts.total()))
    assert (found.clips, found.labels_per_clip) == (clips, pytest.approx(labels / clips))
    assert split == "unbalanced" or found.counts.iloc[-1] == 59  # "at least 59 videos for each class"


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
    assert audioset.label_statistics(table, names).counts.to_dict() == {"One": 1, "Two, too": 1, "Three": 0}


def test_bad_classes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    path.write_text('index,mid,display_name\n0,/m/1,"One"\n2,/m/2,"Two"\n')
    with pytest.raises(CorpusError, match=r"classes\.csv, line 3: expected classes numbered 0, 1, 2"):
        audioset.read_classes(path)
    path.write_text('index,mid,display_name\n0,/m/1,"One"\n1,/m/2,"One"\n')
    with pytest.raises(CorpusError, match="line 3: expected each name once"):
        audioset.read_classes(path)


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


# --- clips that are here: made lists of a few clips, small real files, and what is said of all the others

BALANCED, UNBALANCED, EVALUATION = (audioset.LISTS[name][1] for name in ("balanced", "unbalanced", "evaluation"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def lists(tmp_path: Path, home: Path) -> Path:
    """Forty training clips, four evaluation clips and two classes."""
    folder = tmp_path / "lists"
    folder.mkdir()
    write_list(folder / BALANCED, "b", 40)
    write_list(folder / EVALUATION, "e", 4)
    (folder / audioset.CLASS_LIST).write_text('index,mid,display_name\n0,/m/1,"One"\n1,/m/2,"Two, too"\n')
    return folder


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media" / "below"
    folder.mkdir(parents=True)
    return folder


def write_list(path: Path, letter: str, count: int) -> None:
    """Clips of two seconds; the even ones have both classes."""
    labels = [("/m/1,/m/2", "/m/2")[number % 2] for number in range(count)]
    head = HEADER.format(count, sum(one.count("/m/") for one in labels))
    path.write_text(head + "".join(f'{video(letter, k)}, 3.000, 5.000, "{one}"\n' for k, one in enumerate(labels)))


def video(letter: str, number: int) -> str:
    return f"-{letter}{number:09d}"


def test_clips_that_lie_in_a_folder(lists: Path, media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {
        f"{video('b', 0)}_3.000_5.000.mp4": (f"{video('b', 0)}_3.000_5.000", ("One", "Two, too")),
        f"Y{video('b', 1)}_3.000.mp4": (f"{video('b', 1)}_3.000_5.000", ("Two, too",)),
        f"{video('e', 2)}.mp4": (f"{video('e', 2)}_3.000_5.000", ("One", "Two, too")),
    }
    for seed, name in enumerate(names):
        film(media / name, seed)
    film(media / "nobody listed this.mp4")
    (media / f"{video('e', 1)}.mp4").write_bytes(b"no film")

    corpus = load_audioset(media.parent, lists)
    assert corpus.name == "audioset" and corpus.classes == ("One", "Two, too")
    assert {clip.id: clip.labels for clip in corpus.clips} == dict(names.values())
    assert {clip.path for clip in corpus.clips} == {media / name for name in names}
    split = {clip.id: clip.split for clip in (*corpus.clips, *corpus.missing)}
    assert len(split) == 44 and Counter(split.values()) == {"train": 36, "validation": 4, "evaluation": 4}
    assert all((place == "evaluation") == (name[1] == "e") for name, place in split.items())
    reasons = {clip.id: clip.reason for clip in corpus.missing}
    assert len(reasons) == 41 and reasons.pop(f"{video('e', 1)}_3.000_5.000").startswith("error: ")
    assert set(reasons.values()) == {"not fetched: avrepro data clips fetches it"}
    printed = "".join(capsys.readouterr())
    assert "the balanced list, 40 clips, of which 4 are for validation; the paper's training list" in printed
    assert f"put {UNBALANCED} into {lists}" in printed


def test_the_unbalanced_list_comes_first(
    lists: Path, media: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_list(lists / UNBALANCED, "u", 10)
    clip = ListedClip(f"{video('b', 0)}_3.000_5.000", video("b", 0), 3.0, 5.0, "train", ("One",))
    film(media / f"{clip.id}.mp4")
    collect([clip], home / "clips" / "audioset", media=media)  # as avrepro data clips does of the balanced list
    corpus = load_audioset(lists=lists)
    assert not corpus.clips
    assert Counter(one.split for one in corpus.missing) == {"train": 9, "validation": 1, "evaluation": 4}
    assert all(one.id[1] in "ue" for one in corpus.missing)
    printed = "".join(capsys.readouterr())
    assert "the unbalanced list, 10 clips, of which 1 are for validation\n" in printed
    assert "1 clips that were fetched are in none of these lists" in printed
    (lists / UNBALANCED).unlink()
    assert [one.id for one in load_audioset(lists=lists).clips] == [clip.id]  # without a folder: what was found before


def test_validation_is_drawn_by_seed(lists: Path, media: Path) -> None:
    drawn = {seed: validation(load_audioset(lists=lists, seed=seed)) for seed in (0, 0, 1)}
    assert drawn[0] == validation(load_audioset(lists=lists)) != drawn[1]
    film(media / f"{min(drawn[0])}.mp4")  # whether a clip is here does not matter
    corpus = corpora.load("audioset", clips=media, labels=lists)
    assert validation(corpus) == drawn[0] and [clip.split for clip in corpus.clips] == ["validation"]


def test_the_digest_is_of_the_clips_that_are_here(lists: Path, media: Path) -> None:
    empty = load_audioset(lists=lists).digest
    film(media / f"{video('b', 0)}.mp4")
    here = load_audioset(media, lists).digest
    assert here == load_audioset(lists=lists).digest != empty  # found again without its folder
    (media / f"{video('b', 3)}.mp4").write_bytes(b"")
    assert load_audioset(media, lists).digest == here  # missing with another reason
    splits = {load_audioset(lists=lists, seed=seed).digest for seed in range(40)}
    assert len(splits) == 2 and here in splits  # by some seeds the clip is one for validation


def test_very_many_missing_clips_are_one_entry(lists: Path, media: Path) -> None:
    write_list(lists / UNBALANCED, "u", 1200)
    for number in range(3):
        film(media / f"{video('u', number)}.mp4", number)
    corpus = load_audioset(media, lists)
    known = Counter(clip.split for clip in corpus.clips)
    count = 1080 - known["train"]
    assert MissingClip(f"{count:,} clips", "train", "not fetched: avrepro data clips fetches them") in corpus.missing
    held_out = 120 - known["validation"]
    assert Counter(clip.split for clip in corpus.missing) == {"train": 1, "validation": held_out, "evaluation": 4}


def test_lists_that_do_not_do_are_named(lists: Path, tmp_path: Path) -> None:
    (lists / EVALUATION).rename(lists / "evaluation.csv")
    with pytest.raises(CorpusError, match=r"eval_segments\.csv: no such file; expected a list"):
        load_audioset(lists=lists)
    with pytest.raises(CorpusError, match="nowhere: not a folder"):
        (lists / "evaluation.csv").rename(lists / EVALUATION)
        load_audioset(tmp_path / "nowhere", lists)


def test_official_lists(mirror: Path, home: Path) -> None:
    """Five of the real clips are of the evaluation list, and one of the balanced list, as their sheet says."""
    corpus = corpora.load("audioset", clips=mirror / "real_clips")
    assert len(corpus.classes) == 527
    sheet = pd.read_csv(mirror / "real_clips" / "labels.csv", index_col="clip")["labels"].to_dict()
    assert {clip.path.name: "|".join(clip.labels) for clip in corpus.clips} == sheet
    assert Counter(clip.split for clip in corpus.clips)["evaluation"] == 5
    if not audioset.at_hand("audioset_unbalanced"):
        held_out = round(0.1 * 22160)
        assert any(clip.id == f"{held_out:,} clips" and clip.split == "validation" for clip in corpus.missing)


def validation(corpus: corpora.Corpus) -> set[str]:
    return {clip.id for clip in (*corpus.clips, *corpus.missing) if clip.split == "validation"}
