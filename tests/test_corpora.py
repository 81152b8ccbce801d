"""What all corpora share: recipes and digests, identity by modality, folds by source."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from clip_files import film

from avrepro import corpora
from avrepro.corpora import Clip, Corpus, CorpusError, folds_by_source, identity, recipe, training_rows
from avrepro.corpora.base import ListedClip
from avrepro.corpora.download import collect, corpus_of
from avrepro.corpora.esc10 import load_esc10
from avrepro.corpora.folder import load_folder

# --- names and parameters


def test_importing_corpora_loads_nothing_heavy() -> None:
    code = "import sys, avrepro.corpora; print(*({'torch', 'cv2', 'pandas', 'av', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("call", [corpora.load, recipe])
@pytest.mark.parametrize(
    ("name", "choices", "message"),
    [
        ("demo_null", {}, "did you mean 'demo-null'"),
        ("demo", {"profile": "paper"}, "ci, demo"),
        ("demo", {"asynchrony": 1.5}, "found 1.5"),
        ("demo", {"seed": -1}, "found -1"),
        ("demo", {"clips": "x"}, "takes no clips; these do: folder, paired"),
        ("demo-null", {"asynchrony": 0.5, "gap": 2.0}, "asynchrony or gap, not both"),
        ("demo", {"gap": -0.5}, "'never'; found -0.5"),
        ("demo", {"gap": float("nan")}, "'never'; found nan"),
        ("paired", {"gap": "never"}, "corpus 'paired' takes no gap; these do: demo, demo-null"),
        ("paired", {"seed": -1}, "found -1"),
    ],
)
def test_what_a_corpus_does_not_take(call, name: str, choices: dict, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        call(name, **choices)


def test_a_folder_needs_clips_and_labels() -> None:
    with pytest.raises(CorpusError, match="labels"):
        corpora.load("folder", clips="somewhere")


# --- recipes, digests and identities


def test_recipes_of_demo_worlds_follow_their_choices_and_nothing_else(home: Path) -> None:
    recipes = [
        recipe(name, profile="ci", **choices)
        for name in ("demo", "demo-null")
        for choices in ({}, {"seed": 1}, {"asynchrony": 0.0}, {"gap": 2.0}, {"gap": "never"})
    ] + [recipe("demo"), recipe("demo-null")]
    assert len({one.key for one in recipes}) == len(recipes)
    assert {one.name for one in recipes} == {"corpus/demo", "corpus/demo-null"} and not home.exists()
    assert recipe("demo").key == recipe("demo", seed=2017, asynchrony=0.5).key  # the description's own


def test_identity_by_modality() -> None:
    """What differs in its pictures alone is one corpus to a system that only uses sound."""
    worlds = [(name, choices) for name in ("demo", "demo-null") for choices in ({}, {"gap": 2.0}, {"asynchrony": 0.0})]
    for modalities, distinct in ((("audio",), 1), (("video",), 6), (("audio", "video"), 6)):
        assert len({identity(name, modalities, profile="ci", **choices) for name, choices in worlds}) == distinct
    assert identity("demo", ["audio"]) == recipe("demo").key != identity("demo", ["audio"], seed=1)
    corpus = Corpus("demo-null", (), (), (), "digest", sound_digest="of sound")
    assert [corpus.identity(used) for used in (["audio"], ["video"])] == ["of sound", "digest"]


def test_recipes_of_files_have_no_data() -> None:
    for name in ("folder", "dcase2017", "audioset"):
        one = recipe(name, seed=3)
        assert (one.name, dict(one.settings), one.data) == (f"corpus/{name}", {"seed": 3}, "")
    assert recipe("esc10").settings == {}
    small, large = recipe("paired", profile="ci"), recipe("paired")  # of the published listing; no file is read
    assert small.data == large.data != recipe("paired", strict=True).data
    assert large.settings == {"seed": 0, "clips_per_class": 60, "strict": False} and small.key != large.key


def folder_corpus(folder: Path, classes: tuple[str, str], swapped: bool, split: str, tone: int) -> Corpus:
    for k in range(2):
        film(folder / f"{k}.mp4", tone + 100 * k)
    labels = classes[::-1] if swapped else classes
    rows = [f"{k}.mp4,{label},{split if k else 'train'}\n" for k, label in enumerate(labels)]
    (folder / "labels.csv").write_text("clip,labels,split\n" + "".join(rows))
    return load_folder(folder, folder / "labels.csv")


def listed_corpus(folder: Path, classes: tuple[str, str], swapped: bool, split: str, tone: int) -> Corpus:
    listed = [
        ListedClip(f"v{k}_0.000_2.000", f"v{k}", 0.0, 2.0, split if k else "train", (classes[k ^ swapped],))
        for k in range(2)
    ]
    for k, clip in enumerate(listed):
        film(folder / f"{clip.id}.mp4", tone + 100 * k)
    collect(listed, folder / "status", media=folder)
    corpus = corpus_of("dcase2017", tuple(sorted(classes)), listed, folder / "status")
    assert [clip.sources for clip in corpus.clips] == [("v0",), ("v1",)]
    return corpus


def esc10_corpus(folder: Path, classes: tuple[str, str], swapped: bool, split: str, tone: int) -> Corpus:
    for k in range(2):
        (folder / classes[k ^ swapped]).mkdir()
        (folder / classes[k ^ swapped] / f"1-{k}.ogg").write_bytes(f"{split} {tone + k}".encode())
    return load_esc10(folder)


@pytest.mark.parametrize("make", [folder_corpus, listed_corpus, esc10_corpus])
def test_a_digest_covers_classes_labels_splits_and_content(make, tmp_path: Path) -> None:
    digests = {}
    for name, changes in {
        "plain": (("Banana", "Cow"), False, "test", 300),
        "again": (("Banana", "Cow"), False, "test", 300),
        "renamed": (("Whistle", "Cow"), False, "test", 300),  # another name of a class, in another place of their order
        "swapped": (("Banana", "Cow"), True, "test", 300),
        "split": (("Banana", "Cow"), False, "validation", 300),
        "content": (("Banana", "Cow"), False, "test", 500),
    }.items():
        (tmp_path / name).mkdir()
        digests[name] = make(tmp_path / name, *changes).digest
    assert digests.pop("plain") == digests["again"]
    assert len(set(digests.values())) == len(digests)


# --- folds


def made_clips(sources: list[tuple[str, ...]], labels: list[str] | None = None) -> list[Clip]:
    return [Clip(str(k), Path(), "train", (labels[k],) if labels else (), one) for k, one in enumerate(sources)]


def slow_training_rows(clips: list[Clip], fold_of: np.ndarray, fold: int) -> list[int]:
    def shared(row: int) -> bool:
        inside = [other for other in range(len(clips)) if fold_of[other] == fold]
        return any(set(clips[row].sources) & set(clips[other].sources) for other in inside)

    return [row for row in range(len(clips)) if fold_of[row] != fold and not shared(row)]


def test_clips_of_a_small_group_share_a_fold() -> None:
    """Chains of three: the first and the last share nothing and belong together all the same."""
    chains = [(f"{k}a",) for k in range(20)], [(f"{k}a", f"{k}b") for k in range(20)], [(f"{k}b",) for k in range(20)]
    clips = made_clips([one for part in chains for one in part])
    for seed in range(5):
        fold_of = folds_by_source(clips, 5, seed)
        assert np.bincount(fold_of).tolist() == [12] * 5
        assert (fold_of[:20] == fold_of[20:40]).all() and (fold_of[:20] == fold_of[40:]).all()
        for fold in range(5):
            assert training_rows(clips, fold_of, fold).tolist() == np.flatnonzero(fold_of != fold).tolist()
    assert not np.array_equal(folds_by_source(clips, 5, 0), folds_by_source(clips, 5, 1))


def test_a_large_group_is_dealt_so_that_much_is_left_to_train_on() -> None:
    """Four big sources of 20 clips, all joined by a few clips that share two of them, and 40 clips of no source."""
    sources = [(f"big {k // 20}",) for k in range(80)] + [(f"big {k}", f"big {(k + 1) % 4}") for k in range(4)]
    clips = made_clips(sources + [()] * 36)
    order = np.random.default_rng(0).permutation(len(clips))
    clips = [clips[k] for k in order]
    fold_of = folds_by_source(clips, 4, seed=0)
    assert np.bincount(fold_of).tolist() == [30] * 4
    left = [training_rows(clips, fold_of, fold) for fold in range(4)]
    chance = np.random.default_rng(1).permutation(len(clips)) % 4
    for fold in range(4):
        assert left[fold].tolist() == slow_training_rows(clips, fold_of, fold)
        assert len(left[fold]) >= 90 - 2 * 21  # of the 90 outside, at most those of the two joined sources are lost
        assert training_rows(clips, chance, fold).tolist() == slow_training_rows(clips, chance, fold)
        assert len(left[fold]) > len(training_rows(clips, chance, fold))
    for k in range(4):  # the clips of a big source alone stay together
        assert len({fold_of[row] for row, clip in enumerate(clips) if clip.sources == (f"big {k}",)}) == 1


def test_labels_are_shared_out_where_sources_allow() -> None:
    labels = ["common"] * 60 + ["rare"] * 10 + ["rarer"] * 5
    fold_of = folds_by_source(made_clips([()] * 75, labels), 5, seed=3)
    for label, count in Counter(labels).items():
        assert {sum(fold_of[k] == fold and labels[k] == label for k in range(75)) for fold in range(5)} == {count // 5}
