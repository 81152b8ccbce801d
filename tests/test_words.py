"""Word vectors and the way from objects to sound events, against gensim, literal loops and hand cases."""

from __future__ import annotations

import gzip
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors

from avrepro.features.words import (
    clip_objects,
    corrected_similarities,
    load_glove_text,
    map_objects_to_events,
    packaged_glove,
    phrase_vector,
    phrase_vectors,
    rectify,
    similarities,
    words_of,
)

OBJECTS = ["fire engine, fire truck", "school bus", "mountain bike", "golden retriever", "steam-locomotive"]
EVENTS = [
    "Ambulance (siren)",
    "Bus",
    "Bicycle",
    "Fire engine, fire truck (siren)",
    "Train",
    "Air horn, truck horn",
]


@pytest.fixture(scope="module")
def glove() -> KeyedVectors:
    return packaged_glove({word for phrase in OBJECTS + EVENTS for word in words_of(phrase)})


def keyed(**words: list[float]) -> KeyedVectors:
    vectors = KeyedVectors(2)
    vectors.add_vectors(list(words), np.array(list(words.values()), dtype=np.float32))
    return vectors


def test_packaged_glove_holds_the_published_vectors(glove: KeyedVectors) -> None:
    assert len(glove) == len({word for phrase in OBJECTS + EVENTS for word in words_of(phrase)})
    the = packaged_glove(["the", "no such word"])
    assert len(the) == 1
    # first numbers of the first line of glove.6B.50d.txt
    np.testing.assert_allclose(the["the"][:4], [0.418, 0.24968, -0.41242, 0.1217], atol=1e-6)


def test_packaged_glove_whole_and_quick() -> None:
    start = time.perf_counter()
    whole = packaged_glove()
    assert time.perf_counter() - start < 10  # about 1.2 s where nothing else runs
    assert len(whole) == 400_000 and whole.vector_size == 50
    assert whole.most_similar("truck", topn=1)[0][0] in {"trucks", "car", "tractor", "pickup"}
    few = packaged_glove(["siren", "skateboard"])
    for word in ("siren", "skateboard"):
        np.testing.assert_array_equal(few[word], whole[word])


def test_corrected_similarities_are_cosines_less_mean_and_first_component() -> None:
    from sklearn.decomposition import PCA

    whole = packaged_glove()
    found = corrected_similarities(OBJECTS, EVENTS, whole)
    # 20,000 words tell the common direction of all 400,000 well enough for a check of sign, order and size
    sample = PCA(1).fit(whole.vectors[np.random.default_rng(0).choice(400_000, 20_000, replace=False)])
    for row, thing in enumerate(OBJECTS):
        for column, event in enumerate(EVENTS):
            sums = []
            for phrase in (thing, event):
                words = np.stack([whole[word] for word in words_of(phrase)])
                sums.append((words - sample.mean_ - sample.transform(words) @ sample.components_).sum(axis=0))
            cosine = sums[0] @ sums[1] / np.linalg.norm(sums[0]) / np.linalg.norm(sums[1])
            assert found[row, column] == pytest.approx(cosine, abs=0.02)
    assert np.abs(found - similarities(OBJECTS, EVENTS, whole)).max() > 0.1  # it is a correction
    unknown = corrected_similarities([*OBJECTS, "xqzzyq"], EVENTS, whole)
    assert np.isneginf(unknown[-1]).all()
    np.testing.assert_allclose(unknown[:-1], found, atol=1e-6)


LINES = [
    b", 0.5 -0.25 1e-1",
    b"truck 1 2 3",
    b"fire engine 9 9 9",  # a word with a space whose beginning is asked for too
    b"fire 4 5 6",
    b". . . 7 7 7",
    b"at name@domain.com 8 8 8",
    b"fire 0 0 0",  # again: the first one counts
    "sir\u00e8ne\u2028x 1 1 1".encode(),  # a separator that is no end of line in this format
    "caf\u00e9 0.1 0.2 0.3".encode(),
    b"last -1 -2 -3",
]


def written(folder: Path, form: str, lines: list[bytes]) -> Path:
    content = b"\n".join(lines) + b"\n"
    path = folder / f"tiny.{form}"
    if form == "txt":
        path.write_bytes(content)
    elif form == "gz":
        path.write_bytes(gzip.compress(content))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("tiny.txt", content)
    return path


@pytest.mark.parametrize("form", ["txt", "gz", "zip"])
def test_glove_text(tmp_path: Path, form: str) -> None:
    path = written(tmp_path, form, LINES)
    vectors = load_glove_text(path, ["fire", "truck", ". . .", "caf\u00e9", "last", "absent"], dimension=3)
    assert set(vectors.index_to_key) == {"fire", "truck", ". . .", "caf\u00e9", "last"}
    np.testing.assert_array_equal(vectors["fire"], [4, 5, 6])
    np.testing.assert_array_equal(vectors["truck"], [1, 2, 3])
    np.testing.assert_array_equal(vectors[". . ."], [7, 7, 7])
    np.testing.assert_allclose(vectors["caf\u00e9"], [0.1, 0.2, 0.3], rtol=1e-6)
    assert vectors.vectors.dtype == np.float32
    spaced = load_glove_text(path, ["fire engine", "sir\u00e8ne\u2028x"], dimension=3)
    np.testing.assert_array_equal(spaced["fire engine"], [9, 9, 9])
    assert "sir\u00e8ne\u2028x" in spaced and "fire" not in spaced


def test_glove_text_agrees_with_gensim(tmp_path: Path, glove: KeyedVectors) -> None:
    path = tmp_path / "some.txt"
    glove.save_word2vec_format(str(path), write_header=False)
    loaded = load_glove_text(path, glove.index_to_key, dimension=50)
    oracle = KeyedVectors.load_word2vec_format(str(path), no_header=True)
    for word in glove.index_to_key:
        np.testing.assert_array_equal(loaded[word], oracle[word])


def test_glove_text_errors(tmp_path: Path) -> None:
    path = written(tmp_path, "txt", LINES)
    with pytest.raises(ValueError, match=r"tiny\.txt, line 1: expected a word and 300 numbers"):
        load_glove_text(path, ["fire"])
    with pytest.raises(ValueError, match="line 1"):
        load_glove_text(path, ["fire"], dimension=4)
    with pytest.raises(ValueError, match="none of the 2 words"):
        load_glove_text(path, ["absent", "missing"], dimension=3)
    with pytest.raises(ValueError, match="line 2"):
        load_glove_text(written(tmp_path, "txt", [LINES[0], b"truck 1 two 3"]), ["truck"], dimension=3)
    noise = [b"w%d %f %f %f" % (i, *row) for i, row in enumerate(np.random.default_rng(0).normal(size=(5000, 3)))]
    for form in ("gz", "zip"):
        cut = written(tmp_path, form, noise)
        cut.write_bytes(cut.read_bytes()[:40_000])
        with pytest.raises(ValueError, match=f"tiny.{form} is cut short or damaged"):
            load_glove_text(cut, ["w4999"], dimension=3)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.txt", b"a 1 2 3\n")
        archive.writestr("b.txt", b"b 1 2 3\n")
    with pytest.raises(ValueError, match=r"one \.txt file, found 2"):
        load_glove_text(tmp_path / "two.zip", ["a"], dimension=3)


def test_words_of() -> None:
    assert words_of("Fire engine, fire truck (siren)") == ["fire", "engine", "fire", "truck", "siren"]
    assert words_of("jack-o'-lantern") == ["jack", "o", "lantern"]
    assert words_of("Carpenter's kit, tool_kit 2") == ["carpenter", "kit", "tool", "kit"]
    assert words_of("Caf\u00e9") == ["caf\u00e9"]
    with pytest.raises(ValueError, match="'42'"):
        words_of("42")


def test_phrase_vectors_report_unknown_words() -> None:
    vectors = keyed(red=[1.0, 0.0], truck=[0.0, 3.0])
    np.testing.assert_allclose(phrase_vector("Red truck, truck", vectors), [1 / 3, 2.0])
    table = phrase_vectors(["red zeppelin", "Zeppelin-moth", "truck"], vectors)
    assert table.phrases == ("red zeppelin", "Zeppelin-moth", "truck")
    assert table.missing == {"red zeppelin": ("zeppelin",), "Zeppelin-moth": ("zeppelin", "moth")}
    np.testing.assert_array_equal(table.vectors, [[1, 0], [0, 0], [0, 3]])
    assert table.vectors.dtype == np.float32


def test_similarities_agree_with_gensim(glove: KeyedVectors) -> None:
    table = similarities(OBJECTS, EVENTS, glove)
    for i, thing in enumerate(OBJECTS):
        for j, event in enumerate(EVENTS):
            assert table[i, j] == pytest.approx(glove.n_similarity(words_of(thing), words_of(event)), abs=1e-5)
    single = similarities(["bus"], ["train"], glove)
    assert single[0, 0] == pytest.approx(glove.similarity("bus", "train"), abs=1e-5)


def test_real_vectors_send_objects_where_one_expects(glove: KeyedVectors) -> None:
    nearest = similarities(OBJECTS, EVENTS, glove).argmax(axis=1)
    assert EVENTS[nearest[0]].startswith("Fire engine")
    assert [EVENTS[i] for i in nearest[1:3]] == ["Bus", "Bicycle"]


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
    with pytest.raises(ValueError, match=r"\(7, 12\) and \(5, 12\)"):
        map_objects_to_events(p, s.T)
    s[4, 2] = np.nan
    with pytest.raises(ValueError, match="object 4"):
        map_objects_to_events(p, s)


def literal_rectify(p: list[float], keep: int) -> list[float]:
    order = sorted(range(len(p)), key=lambda c: (-p[c], c))[:keep]
    total = sum(p[c] for c in order)
    return [p[c] / total if c in order else 0.0 for c in range(len(p))]


def test_rectify_by_hand() -> None:
    np.testing.assert_allclose(rectify(np.array([0.1, 0.5, 0.1, 0.3]), keep=2), [0, 0.625, 0, 0.375])
    np.testing.assert_allclose(rectify(np.array([0.25] * 4), keep=2), [0.5, 0.5, 0, 0])  # the first of equals
    np.testing.assert_allclose(rectify(np.array([2.0, 6.0])), [0.25, 0.75])  # fewer classes
    two = rectify(np.array([[1.0, 0, 0], [0, 3.0, 1.0]]), keep=2)
    np.testing.assert_allclose(two, np.array([[1.0, 0.0, 0.0], [0.0, 0.75, 0.25]]))


def test_clip_objects_literally() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.full(40, 0.3), size=(6, 4))  # [clips, key frames, classes]
    got = clip_objects(p, keep=5)
    for clip in range(6):
        frames = [literal_rectify(frame.tolist(), 5) for frame in p[clip]]
        expected = literal_rectify(np.sum(frames, axis=0).tolist(), 5)
        np.testing.assert_allclose(got[clip], np.array(expected), atol=1e-12)
    np.testing.assert_allclose(got.sum(axis=1), 1)
    assert ((got > 0).sum(axis=1) <= 5).all()
    assert ((clip_objects(p) > 0).sum(axis=1) == 10).all()


@pytest.mark.parametrize("bad", [np.nan, -0.1, np.inf])
def test_rectify_names_the_distribution(bad: float) -> None:
    p = np.full((2, 3, 4), 0.25)
    p[1, 2, 0] = bad
    with pytest.raises(ValueError, match=r"\(1, 2\)"):
        rectify(p)


def test_rectify_errors() -> None:
    with pytest.raises(ValueError, match=r"\(1,\)"):
        rectify(np.array([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="keep = 0"):
        rectify(np.ones(3), keep=0)
    with pytest.raises(ValueError, match=r"\(2, 0, 3\)"):
        clip_objects(np.ones((2, 0, 3)))


MEASURED = """
import sys
from pathlib import Path

import gensim.models  # what loading it takes is not counted

from avrepro.features.words import load_glove_text

def peak():  # of this process alone: getrusage would tell the parent's, which fork hands down
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))

before = peak()
vectors = load_glove_text(Path(sys.argv[1]), ["truck", "siren", "last", "absent"])
print(type(vectors).__name__, sorted(vectors.index_to_key), vectors.vector_size, before, peak())
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("form", ["txt", "gz", "zip"])
def test_a_large_file_is_streamed(tmp_path: Path, form: str) -> None:
    """Of 300 MB of text (glove.840B.300d has 5.6 GB) the process that reads three words holds only a little."""
    numbers = b" ".join(b"%.5f" % value for value in np.random.default_rng(2).normal(size=300))
    chunk = b"".join(b"word%d %s\n" % (i, numbers) for i in range(4000))  # 10 MB
    path = tmp_path / f"large.{form}"

    def parts() -> Iterator[bytes]:
        yield b"truck %s\n" % numbers
        for _ in range(15):
            yield chunk
        yield b"siren %s\n" % numbers
        for _ in range(15):
            yield chunk
        yield b"last %s\n" % numbers

    if form == "txt":
        with path.open("wb") as file:
            file.writelines(parts())
        assert path.stat().st_size > 280e6
    elif form == "gz":
        with gzip.open(path, "wb", compresslevel=1) as packed:
            packed.writelines(parts())
    else:
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("large.txt", "w") as member,
        ):
            member.writelines(parts())
    done = subprocess.run([sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, check=True)
    *found, before, after = done.stdout.rsplit(maxsplit=2)
    assert found == ["KeyedVectors ['last', 'siren', 'truck'] 300"]
    assert int(after) < 500_000, "peak of the whole process, kB"
    assert int(after) - int(before) < 50_000, "what reading added to it, kB"
