"""Real recordings: ESC-10 and its folds, and the picture branch on photographs, as far as the mirror is at hand."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avrepro.corpora import CorpusError
from avrepro.corpora.esc10 import folds, load_esc10
from avrepro.corpora.paired_render import read_photograph
from avrepro.features import events_seen
from avrepro.measure_once import PHOTOGRAPHS, nearest_events, of_fold, photographs
from avrepro.results import committed
from avrepro.systems import Condition

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("system", "corrected"), [("li2017/video", False), ("li2017/video_corrected", True)])
def test_photographs_give_the_committed_numbers_again(mirror: Path, system: str, corrected: bool) -> None:
    results, whole = committed("photographs", PHOTOGRAPHS), photographs()
    assert whole.digest == results.passport()["corpus_digest"]
    for label in ("Bicycle", "Train"):
        part = replace(whole, clips=tuple(clip for clip in whole.clips if clip.labels == (label,)))
        share = np.mean(nearest_events(part, corrected) == whole.classes.index(label))
        expected = results.number(system, "class_accuracy", split="test", label=label).value
        assert share == pytest.approx(expected, abs=1.01 / len(part.clips))  # one may tip over on another processor


def test_events_are_found_by_their_names(mirror: Path) -> None:
    """Any names will do, also those of no corpus; each object gives its probability to the nearest of them."""
    picture = read_photograph(mirror / "imagenet_samples" / "n01558993_robin.JPEG")
    pictures = np.stack([picture, np.zeros_like(picture)])
    names = ("Police car (siren)", "Bird singing", "Typing on a keyboard")
    scores = events_seen(pictures, names)
    assert scores.shape == (2, 3) and scores.dtype == np.float32 and (scores >= 0).all()
    assert ((scores.sum(axis=1) > 0.9) & (scores.sum(axis=1) < 1 + 1e-5)).all()  # an object without a vector gives none
    assert scores[0].argmax() == 1 and scores[0, 1] > 0.8
    np.testing.assert_allclose(events_seen(pictures, names[::-1]), scores[:, ::-1], atol=1e-6)


def test_esc10(mirror: Path, tmp_path: Path) -> None:
    corpus = load_esc10()
    assert (len(corpus.clips), len(corpus.classes)) == (400, 10)
    assert (corpus.targets().sum(axis=0) == 40).all() and (corpus.targets().sum(axis=1) == 1).all()
    assert np.bincount(folds(corpus)).tolist() == [0, 80, 80, 80, 80, 80]

    tested = []
    for fold in range(1, 6):
        data = of_fold(corpus, fold, Condition("esc10", device="cpu"))
        rows = [data.rows(split) for split in ("train", "validation", "test")]
        assert [len(one) for one in rows] == [240, 80, 80]
        assert (data.targets[rows[2]].sum(axis=0) == 8).all()
        sources = [{data.corpus.clips[row].path.name.split("-")[1] for row in one} for one in rows]
        assert not (sources[0] & sources[1] or sources[0] & sources[2] or sources[1] & sources[2])
        tested += rows[2].tolist()
    assert sorted(tested) == list(range(400))

    some = tmp_path / "some" / "rain"
    some.mkdir(parents=True)
    with pytest.raises(CorpusError, match="holds no recordings"):
        load_esc10(tmp_path / "some")
    shutil.copy(corpus.clips[0].path, some / "rain.ogg")
    with pytest.raises(CorpusError, match=r"rain\.ogg: expected a name that begins with its fold"):
        load_esc10(tmp_path / "some")
