"""Word vectors and the way from objects to sound events, against gensim, literal loops and hand cases."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors
from sklearn.decomposition import PCA

from avrepro.features.words import (
    clip_objects,
    corrected_similarities,
    load_glove_text,
    map_objects_to_events,
    packaged_glove,
    rectify,
    similarities,
    words_of,
)

OBJECTS = ["fire engine, fire truck", "school bus", "mountain bike", "golden retriever", "steam-locomotive"]
EVENTS = ["Ambulance (siren)", "Bus", "Bicycle", "Fire engine, fire truck (siren)", "Train", "Air horn, truck horn"]


@pytest.fixture(scope="module")
def glove() -> KeyedVectors:
    return packaged_glove()


def keyed(**words: list[float]) -> KeyedVectors:
    vectors = KeyedVectors(2)
    vectors.add_vectors(list(words), np.array(list(words.values()), dtype=np.float32))
    return vectors


def test_packaged_glove_holds_the_published_vectors(glove: KeyedVectors) -> None:
    assert len(glove) == 400_000 and glove.vector_size == 50 and glove.vectors.dtype == np.float32
    # first numbers of the first line of glove.6B.50d.txt
    np.testing.assert_allclose(glove["the"][:4], [0.418, 0.24968, -0.41242, 0.1217], atol=1e-6)


# --- the text of glove.840B.300d


def line(word: str, value: float) -> bytes:
    return f"{word}{f' {value}' * 300}\n".encode()


LINES = [
    line(",", 0.5),
    line("truck", 1),
    line("fire engine", 9),  # a word with a space whose beginning is asked for
    line("fire", -2.5e-1),
    line("at name@domain.com", 8),
    line("fire", 0),  # again: the first one counts
    line("sirène\u2028x", 1),  # a separator that is no end of line in this format
    line("café", 0.1),
]


def zipped(folder: Path, lines: list[bytes]) -> Path:
    path = folder / "tiny.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny.txt", b"".join(lines))
    return path


def test_glove_text(tmp_path: Path) -> None:
    vectors = load_glove_text(zipped(tmp_path, LINES), ["fire", "truck", "café", "absent", "at"])
    assert set(vectors.index_to_key) == {"fire", "truck", "café"} and vectors.vectors.dtype == np.float32
    for word, value in {"fire": -0.25, "truck": 1, "café": 0.1}.items():
        np.testing.assert_array_equal(vectors[word], np.full(300, value, np.float32))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([LINES[0], b"fire 1 2 3\n"], "line 2: expected a word and 300 numbers"),
        ([LINES[0], LINES[1], line("fire", 1).replace(b"1", b"one")], "line 3: expected a word and 300 numbers"),
        (LINES[:3], "holds none of the 1 words asked for"),
    ],
)
def test_other_texts_are_refused(tmp_path: Path, lines: list[bytes], message: str) -> None:
    with pytest.raises(ValueError, match=rf"tiny\.zip.*{message}"):
        load_glove_text(zipped(tmp_path, lines), ["fire"])


def test_a_text_cut_short_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=1000)
    path = zipped(tmp_path, [line(f"w{number}", value) for number, value in enumerate(noise)])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"tiny\.zip is cut short or damaged"):
        load_glove_text(path, ["w999"])


# --- from objects to events


def test_words_of() -> None:
    for phrase, words in {
        "Fire engine, fire truck (siren)": ["fire", "engine", "fire", "truck", "siren"],
        "jack-o'-lantern": ["jack", "o", "lantern"],
        "Carpenter's kit, tool_kit 2": ["carpenter", "kit", "tool", "kit"],
        "Café": ["café"],
    }.items():
        assert words_of(phrase) == words
    with pytest.raises(ValueError, match="'42'"):
        words_of("42")


def test_similarities_agree_with_gensim(glove: KeyedVectors) -> None:
    table = similarities(OBJECTS, EVENTS, glove)
    for i, thing in enumerate(OBJECTS):
        for j, event in enumerate(EVENTS):
            assert table[i, j] == pytest.approx(glove.n_similarity(words_of(thing), words_of(event)), abs=1e-5)
    assert [EVENTS[nearest] for nearest in table.argmax(axis=1)[:3]] == [EVENTS[3], "Bus", "Bicycle"]


def test_corrected_similarities_are_cosines_less_mean_and_first_component(glove: KeyedVectors) -> None:
    found = corrected_similarities([*OBJECTS, "xqzzyq"], EVENTS, glove)
    # 20,000 words tell the common direction of all 400,000 well enough for a check of sign, order and size
    sample = PCA(1).fit(glove.vectors[np.random.default_rng(0).choice(400_000, 20_000, replace=False)])
    for row, thing in enumerate(OBJECTS):
        for column, event in enumerate(EVENTS):
            sums = []
            for phrase in (thing, event):
                words = np.stack([glove[word] for word in words_of(phrase)])
                sums.append((words - sample.mean_ - sample.transform(words) @ sample.components_).sum(axis=0))
            cosine = sums[0] @ sums[1] / np.linalg.norm(sums[0]) / np.linalg.norm(sums[1])
            assert found[row, column] == pytest.approx(cosine, abs=0.02)
    assert np.abs(found[:-1] - similarities(OBJECTS, EVENTS, glove)).max() > 0.1  # it is a correction
    assert np.isneginf(found[-1]).all()


def test_unknown_descriptions_neither_give_nor_receive() -> None:
    vectors = keyed(red=[1.0, 0.0], truck=[0.0, 3.0], dull=[-1.0, -1.0])
    table = similarities(["truck", "zeppelin", "dull"], ["moth", "red", "truck"], vectors)
    assert np.isneginf(table[1]).all() and np.isneginf(table[:, 0]).all()
    assert np.isfinite(table[np.ix_([0, 2], [1, 2])]).all()
    given = map_objects_to_events(np.array([[0.5, 0.3, 0.2]]), table)
    np.testing.assert_allclose(given, [[0.0, 0.2, 0.5]])  # of equals the first receives


def test_map_objects_to_events_literally() -> None:
    rng = np.random.default_rng(0)
    p, s = rng.random((7, 12)), rng.normal(size=(12, 5))
    literal = np.zeros((7, 5))
    for clip in range(7):
        for thing in range(12):
            nearest = max(range(5), key=lambda event: s[thing, event])
            literal[clip, nearest] += p[clip, thing]
    np.testing.assert_allclose(map_objects_to_events(p, s), literal, atol=1e-12)


def test_rectify_by_hand() -> None:
    np.testing.assert_allclose(rectify(np.array([0.1, 0.5, 0.1, 0.3]), keep=2), [0, 0.625, 0, 0.375])
    np.testing.assert_allclose(rectify(np.array([0.25] * 4), keep=2), [0.5, 0.5, 0, 0])  # the first of equals
    np.testing.assert_allclose(rectify(np.array([[2.0, 6.0], [1.0, 0.0]])), [[0.25, 0.75], [1, 0]])  # fewer classes


def test_clip_objects_literally() -> None:
    def literal(p: list[float], keep: int) -> list[float]:
        order = sorted(range(len(p)), key=lambda c: (-p[c], c))[:keep]
        total = sum(p[c] for c in order)
        return [p[c] / total if c in order else 0.0 for c in range(len(p))]

    p = np.random.default_rng(1).dirichlet(np.full(40, 0.3), size=(6, 4))  # [clips, key frames, classes]
    for clip, found in zip(p, clip_objects(p, keep=5), strict=True):
        frames = [literal(frame.tolist(), 5) for frame in clip]
        np.testing.assert_allclose(found, literal(np.sum(frames, axis=0).tolist(), 5), atol=1e-12)
    assert ((clip_objects(p) > 0).sum(axis=1) == 10).all()
