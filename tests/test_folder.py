"""A folder of clips: rows read, mistakes listed, unusable clips left out, balanced splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clip_files import film

from avrepro.corpora.base import CorpusError
from avrepro.corpora.folder import load_folder, stratified_split


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for index, name in enumerate(("-a b.mp4", "ü'%d.mp4", 'c:"d".mp4', "e.mp4", "f.mp4")):
        film(folder / name, 300 + 50 * index)
    return folder


def table_of(folder: Path, text: str) -> Path:
    table = folder / "labels.csv"
    table.write_text(text, encoding="utf-8")
    return table


def test_rows_with_odd_names_and_labels(clips: Path, tmp_path: Path) -> None:
    table = table_of(
        tmp_path,
        "\ufeffclip,labels,split\r\n-a b.mp4,Tapping (guitar technique)|Dog,train\r\nü'%d.mp4,,validation\r\n"
        '"c:""d"".mp4","Bell, church|Dog|Dog",test\r\n\r\ne.mp4,Dog,evaluation\r\n',
    )
    corpus = load_folder(clips, table)
    assert corpus.name == "folder" and corpus.missing == ()
    assert corpus.classes == ("Bell, church", "Dog", "Tapping (guitar technique)")
    assert [clip.split for clip in corpus.clips] == ["train", "validation", "test", "evaluation"]
    assert corpus.clips[2].id == 'c:"d".mp4' and corpus.clips[2].labels == ("Bell, church", "Dog")
    assert corpus.targets().sum(axis=1).tolist() == [2, 0, 2, 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("clip,label\ne.mp4,Dog\n", ["line 1", "did you mean 'labels'?"]),
        ("", ["empty", "clip,labels"]),
        ("clip,labels\n", ["holds no row"]),
        ("clip,labels\nee.mp4,Dog\nf.mp4,Dog\nz.avi,Dog\n", ["line 2", "did you mean 'e.mp4'?", "line 4", "z.avi"]),
        ("clip,labels\ne.mp4,Dog\nf.mp4,\n./e.mp4,Cat\n", ["line 4: expected each file once"]),
        ("clip,labels,split\ne.mp4,Dog,training\n", ["line 2: expected one of the splits", "did you mean 'train'?"]),
        ("clip,labels\ne.mp4,Dog,Cat\nf.mp4\n", ["line 2, saw 3", "double quotes"]),
        ("clip,labels\ne.mp4,Dog\nf.mp4\n", ["line 3: expected 2 cells (clip,labels)"]),
    ],
)
def test_mistakes_are_listed_with_their_lines(clips: Path, tmp_path: Path, text: str, expected: list[str]) -> None:
    with pytest.raises(CorpusError) as caught:
        load_folder(clips, table_of(tmp_path, text))
    for part in expected:
        assert part in str(caught.value)


def test_no_folder_no_table_and_another_encoding(clips: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_bytes("clip,labels\ne.mp4,Hündin\n".encode("latin-1"))
    for folder, labels, message in (
        (tmp_path / "none", table, "not a folder"),
        (clips, tmp_path / "none.csv", "no such file"),
        (clips, table, "not UTF-8"),
    ):
        with pytest.raises(CorpusError, match=message):
            load_folder(folder, labels)


def test_unusable_clips_are_missing_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    film(folder / "good.mp4")
    (folder / "empty.mp4").touch()
    (folder / "cut.mp4").write_bytes((folder / "good.mp4").read_bytes()[:1000])
    table = table_of(tmp_path, "clip,labels\ngood.mp4,Dog\nempty.mp4,Cat\ncut.mp4,\n")
    corpus = load_folder(folder, table)
    assert [clip.id for clip in corpus.clips] == ["good.mp4"]
    reasons = {clip.id: clip.reason for clip in corpus.missing}
    assert "empty" in reasons["empty.mp4"] and "truncated" in reasons["cut.mp4"]
    assert corpus.classes == ("Cat", "Dog")
    film(folder / "empty.mp4", 700)
    repaired = load_folder(folder, table)
    before, after = ({clip.id: clip.split for clip in (*one.clips, *one.missing)} for one in (corpus, repaired))
    assert before == after and repaired.digest != corpus.digest


def imbalance(targets: np.ndarray, parts: np.ndarray, shares: tuple[float, ...]) -> float:
    """Mean over labels and parts of |share of the label's clips in the part - the part's share|."""
    got = np.array([targets[parts == part].sum(axis=0) for part in range(len(shares))]) / targets.sum(axis=0)
    return float(np.abs(got - np.array(shares)[:, None]).mean())


def test_stratified_split_balances_labels_better_than_chance() -> None:
    rng = np.random.default_rng(5)
    frequency = np.geomspace(0.3, 0.02, 17)
    targets = rng.random((600, 17)) < frequency
    shares = (0.6, 0.2, 0.2)
    parts = stratified_split(targets, shares, seed=1)
    assert np.array_equal(parts, stratified_split(targets, shares, seed=1))
    assert np.abs(np.bincount(parts) / 600 - shares).max() < 0.02
    chance = [imbalance(targets, rng.choice(3, 600, p=shares), shares) for _ in range(20)]
    assert imbalance(targets, parts, shares) < 0.25 * min(chance)


def test_stratified_split_of_few_clips_and_of_none_labelled() -> None:
    assert sorted(np.bincount(stratified_split(np.zeros((10, 2), bool), (0.6, 0.2, 0.2), 0))) == [2, 2, 6]
    single = np.repeat(np.eye(3, dtype=bool), 5, axis=0)
    parts = stratified_split(single, (0.6, 0.2, 0.2), 0)
    assert all(np.bincount(parts[single[:, label]], minlength=3).tolist() == [3, 1, 1] for label in range(3))
