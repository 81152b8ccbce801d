"""AudioSet's clips that are here: made lists of a few clips, small real files, and what is told of all the others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_audioset import HEADER

from avrepro import corpora
from avrepro.corpora import audioset
from avrepro.corpora.audioset import load_audioset
from avrepro.corpora.base import CorpusError, ListedClip, MissingClip
from avrepro.corpora.download import collect
from avrepro.encode import write_clip
from avrepro.parameters import ParameterError, check

BALANCED, UNBALANCED, EVALUATION = (audioset.LISTS[name][1] for name in ("balanced", "unbalanced", "evaluation"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def lists(tmp_path: Path) -> Path:
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


def film(path: Path, seed: int = 0) -> Path:
    """A real file of 2 s, with a sound of its own."""
    sound = 0.1 * np.random.default_rng(seed).standard_normal(32000, dtype=np.float32)
    write_clip(path, np.full((8, 48, 64, 3), 100, dtype=np.uint8), 4, sound, 16000)
    return path


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
    told = capsys.readouterr()
    told = told.out + told.err
    assert "the balanced list, 40 clips, of which 4 are for validation; the paper's training list" in told
    assert f"put {UNBALANCED} into {lists}" in told


def test_the_unbalanced_list_comes_first(lists: Path, media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_list(lists / UNBALANCED, "u", 10)
    clip = ListedClip(f"{video('b', 0)}_3.000_5.000", video("b", 0), 3.0, 5.0, "train", ("One",))
    film(media / f"{clip.id}.mp4")
    collect([clip], corpora_folder(), media=media)  # as avrepro data clips does of the balanced list
    corpus = load_audioset(lists=lists)
    assert not corpus.clips
    assert Counter(one.split for one in corpus.missing) == {"train": 9, "validation": 1, "evaluation": 4}
    assert all(one.id[1] in "ue" for one in corpus.missing)
    told = "".join(capsys.readouterr())
    assert "the unbalanced list, 10 clips, of which 1 are for validation\n" in told
    assert "1 clips that were fetched are in none of these lists" in told
    (lists / UNBALANCED).unlink()
    assert [one.id for one in load_audioset(lists=lists).clips] == [clip.id]  # without a folder: what was found before


def test_validation_is_drawn_by_seed(lists: Path, media: Path) -> None:
    drawn = {seed: validation(load_audioset(lists=lists, seed=seed)) for seed in (0, 0, 1)}
    assert drawn[0] == validation(load_audioset(lists=lists)) != drawn[1]
    film(media / f"{min(drawn[0])}.mp4")  # whether a clip is here does not matter
    corpus = corpora.load("audioset", clips=media, labels=lists)
    assert validation(corpus) == drawn[0] and [clip.split for clip in corpus.clips] == ["validation"]


def test_the_digest_is_of_lists_seed_and_files(lists: Path, media: Path) -> None:
    film(media / f"{video('b', 0)}.mp4")
    empty = load_audioset(lists=lists).digest
    here = load_audioset(media, lists).digest
    assert here == load_audioset(lists=lists).digest  # found again without its folder
    broken = media / f"{video('b', 3)}.mp4"
    broken.write_bytes(b"")
    assert load_audioset(media, lists).digest == here  # missing with another reason
    other = {load_audioset(lists=lists, seed=1).digest, empty, here}
    write_list(lists / EVALUATION, "e", 6)
    assert len(other | {load_audioset(lists=lists).digest}) == 4


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


def test_official_lists(mirror: Path) -> None:
    """Five of the real clips are of the evaluation list, and one of the balanced list, as their sheet says."""
    corpus = corpora.load("audioset", clips=mirror / "real_clips")
    assert len(corpus.classes) == 527
    sheet = pd.read_csv(mirror / "real_clips" / "labels.csv", index_col="clip")["labels"].to_dict()
    assert {clip.path.name: "|".join(clip.labels) for clip in corpus.clips} == sheet
    assert Counter(clip.split for clip in corpus.clips)["evaluation"] == 5
    if not audioset.at_hand("audioset_unbalanced"):
        held_out = round(0.1 * 22160)
        assert any(clip.id == f"{held_out:,} clips" and clip.split == "validation" for clip in corpus.missing)


def test_only_the_chapter_on_audioset_takes_it() -> None:
    given = {"corpus": "audioset", "clips": "a", "labels": "lists"}
    assert check("attention_fusion", given).model_dump().items() >= given.items()
    for chapter in ("lightweight_fusion", "unsynchronized_mil"):
        with pytest.raises(ParameterError, match="'paired' or 'dcase2017'"):
            check(chapter, given)
    with pytest.raises(ParameterError, match='strict belongs to corpus="paired"'):
        check("attention_fusion", {**given, "strict": True})


def validation(corpus: corpora.Corpus) -> set[str]:
    return {clip.id for clip in (*corpus.clips, *corpus.missing) if clip.split == "validation"}


def corpora_folder() -> Path:
    from avrepro.home import home

    return home() / "clips" / "audioset"
