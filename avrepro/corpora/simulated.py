"""simulated-audioset: outputs of an audio and a visual model, as large as those of Fayek and Kumar (2020).

No clip is behind them, only numbers: 527 classes and up to two million rows, to test what a fusion of models does at
that size. Nothing that is measured here says anything about sounds.

A model gives a clip i and a class c the score ``y separation_c + noise_i e``, e ~ N(0, 1), where y is 1 if the clip
holds the class and noise_i is how unreliable the model is in that clip; both are planted. The e of the two models
correlate: with ``AGREEMENT`` and ``NOISE`` as chosen the average of both has about the paper's mean average precision
(42.84 %), and more can be had from who is reliable where. Separations are solved so that the expected average precision
in AudioSet's evaluation list follows published values by class:

- audio: those of the Audio Spectrogram Transformer (source ``ast_per_class``, trained on the full list) have a
  separation each; all are multiplied by one factor, so that the mean average precision is the paper's, 38.35 %.
- visual: the mean of a class's own and of another, drawn class's separation, likewise scaled to the paper's 25.73 %.
  With a half of each, vision is better in about as many classes as in the paper (117 of 527, section 5.1).

A sigmoid about the score where a positive and a negative clip are equally likely turns scores into 0..1.

How common classes are: in test as in AudioSet's evaluation list; in train and validation by a law, see training_shares.
Labels are drawn independently of each other, so a clip may hold none. In each split every class has at least
``POSITIVES`` clips: one drawn in each quarter of the split holds it in any case. Rare classes of small splits are thus
commoner than in the lists.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
from filelock import FileLock
from scipy.optimize import brentq
from scipy.optimize.elementwise import find_root
from scipy.special import exprel, ndtr

from avrepro import digests, manifests
from avrepro.corpora.audioset import label_statistics, read_classes, segments
from avrepro.corpora.base import CorpusError
from avrepro.fetch import fetch, in_words
from avrepro.home import home
from avrepro.progress import track

PUBLISHED, CLASSES = ("ast_per_class", "full_last_epoch.csv"), ("audioset", "class_labels_indices.csv")
SOURCES = (PUBLISHED, CLASSES, ("audioset", "eval_segments.csv"))
MODALITIES = ("audio", "visual")
FILES = {"audio": np.float16, "visual": np.float16, "targets": np.uint8, "noise": np.float32}  # of each split
MEAN_AVERAGE_PRECISION = {"audio": 0.3835, "visual": 0.2573}  # Table 2
SHARES = {"train": 2_000_000, "validation": 25_000, "test": 20_000}  # section 4.1, about
LEAST_CLIPS = 1000  # of all splits
LEAST_HELD_OUT = 2000  # clips of validation and of test, or a quarter of all clips where those are fewer than 8000
POSITIVES = 4  # clips of each class in each split, at least
NOISE = (0.8, 1.0, 1.25)  # how unreliable a model is in a clip; each is as likely, whatever the other model is
AGREEMENT = 0.75  # correlation of the two models' errors in a clip and class
COMMONEST, RAREST, LABELS = 1 / 2, 120 / 2_000_000, 2.7  # of the training list, section 4.1
BLOCK = 2048  # clips; one block of everything is some 25 MB


@dataclass(frozen=True, eq=False)
class Outputs:
    """What two models say of the clips of a split; read-only memory maps."""

    audio: np.ndarray  # float16 [clips, classes], 0..1
    visual: np.ndarray  # float16 [clips, classes], 0..1
    targets: np.ndarray  # uint8 [clips, classes], 0 or 1: weak labels
    noise: np.ndarray  # float32 [clips, 2], of NOISE: planted, of the audio and the visual model; for evaluation alone


@dataclass(frozen=True, eq=False)
class SimulatedOutputs:
    """Simulated outputs of two models for three splits.

    ``by_class``, one row a class, float64: train, validation, test (probability that a clip of the split holds it);
    for audio and visual: *_separation (of positive clips' scores, in deviations where noise is 1), *_centre (the score
    whose output is 0.5), *_target (expected average precision in AudioSet's evaluation list, 0..1) and *_expected (the
    same in this test split; in small ones chance does more, so that it is higher).
    """

    classes: tuple[str, ...]
    splits: dict[str, Outputs]  # train, validation, test
    by_class: pd.DataFrame
    digest: str  # SHA-256 of all that decides the numbers


def simulate(clips: int, seed: int = 0, splits: Mapping[str, float] = SHARES, block: int = BLOCK) -> SimulatedOutputs:
    """Simulated outputs, made where they are not yet in the cache and found again there; 2.6 kB a clip.

    :param clips: of all splits together, 1000 or more; the paper's size is 2,045,000.
    :param seed: of everything drawn, also of what vision is good at; 0 or more.
    :param splits: how large train, validation and test are, relative to each other; see split_sizes.
    :param block: clips that are drawn and written at a time. It changes memory and nothing else.
    :raises CorpusError: too few clips, no room, or files in the cache that are not what was written.
    :raises avrepro.fetch.FetchError: the published values or AudioSet's lists cannot be had.
    """
    sizes = split_sizes(clips, splits)
    digest = _digest(sizes, seed)
    folder = home() / "simulated" / digest[:16]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):  # a second process waits, and then finds the outputs
            if not folder.is_dir():
                _make(folder, sizes, seed, block)
    return _load(folder, sizes, digest)


def split_sizes(clips: int, splits: Mapping[str, float] = SHARES) -> dict[str, int]:
    """Clips of train, validation and test.

    Validation and test get their share, but at least 2000 clips or a quarter of all; train gets the rest.
    """
    if tuple(splits) != tuple(SHARES) or min(splits.values()) <= 0:
        raise CorpusError(f"splits: expected the shares of {', '.join(SHARES)}, each above 0, found {dict(splits)}")
    if clips < LEAST_CLIPS:
        raise CorpusError(f"expected {LEAST_CLIPS} simulated clips or more for all classes to occur, found {clips}")
    least = min(LEAST_HELD_OUT, clips // 4)
    whole = sum(splits.values())
    held_out = {name: max(round(clips * splits[name] / whole), least) for name in ("validation", "test")}
    train = clips - sum(held_out.values())
    if train < least:
        raise CorpusError(f"splits: {clips} clips leave {train} for training, fewer than {least}")
    return {"train": train, **held_out}


def training_shares(counts: np.ndarray) -> np.ndarray:
    """How common classes are in the training list, which the project does not hold: float64 [classes], 0..1.

    By rank r = 1 ... C in the evaluation list (``counts``, int [classes]; of equals, the first), the share falls as
    ``COMMONEST (RAREST / COMMONEST) ** ((ln r / ln C) ** bend)``. Its ends, a million and 120 of two million clips,
    and 2.7 labels a clip, which decide ``bend``, are of Fayek and Kumar (2020, section 4.1).
    """
    position = np.log(np.arange(1, len(counts) + 1)) / np.log(len(counts))

    def shares(bend: float) -> np.ndarray:
        return COMMONEST * (RAREST / COMMONEST) ** (position**bend)

    bend = brentq(lambda bend: shares(bend).sum() - LABELS, 0.1, 10)
    by_class = np.empty(len(counts))
    by_class[np.argsort(-counts, kind="stable")] = shares(bend)
    return by_class


def expected_average_precision(separation: np.ndarray, share: np.ndarray, clips: int) -> np.ndarray:
    """Expected average precision of scores with a ``separation``, in so many clips; float64 [classes], 0..1.

    Above a positive clip's score lie A of the other positive and B of the negative clips, both about Poisson with means
    a and b. Its precision (1 + A) / (1 + A + B) is then expected to be q + (1 - q) (1 - exp(-m)) / m, where m = a + b
    and q = a / m. The mean over where that clip lies is taken by the trapezoidal rule.

    :param separation: float [classes], 0 or more. :param share: float [classes], above 1 / clips: of positive clips.
    """
    scale = np.array(NOISE)
    e = np.linspace(-6 * scale.max(), 6 * scale.max(), 301)  # (E,) the positive clip's own noise
    density = (np.exp(-((e[:, None] / scale) ** 2) / 2) / scale).sum(axis=1)
    density /= density.sum()  # (E,)
    above_positive = ndtr(-e[:, None] / scale).mean(axis=1)  # (E,)
    above_negative = ndtr(-(separation[:, None, None] + e[:, None]) / scale).mean(axis=2)  # (C, E)
    a = (clips * share - 1)[:, None] * above_positive
    m = a + (clips * (1 - share))[:, None] * above_negative
    q = a / m
    return (q + (1 - q) * exprel(-m)) @ density


def streamed_moments(rows: np.ndarray, block: int = BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (over n, not n - 1) of the columns of ``rows``, float64 [columns] each.

    ``rows``: numbers [clips, columns], one clip or more, for example a memory map larger than the memory. Only
    ``block`` rows at a time are converted. Blocks are merged by their means and squared differences (Chan, Golub and
    LeVeque 1983), as a difference of large sums would lose the digits of rare classes.
    """
    count, mean, squares = 0, np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    for start in range(0, len(rows), block):
        part = np.asarray(rows[start : start + block], dtype=np.float64)
        centre = part.mean(axis=0)
        step, count = centre - mean, count + len(part)
        mean += step * (len(part) / count)
        squares += np.square(part - centre).sum(axis=0) + step**2 * (len(part) * (count - len(part)) / count)
    return mean, np.sqrt(squares / count)


def _digest(sizes: dict[str, int], seed: int) -> str:
    return digests.of_values(
        {
            "sizes": list(sizes.items()),
            "seed": seed,
            "sources": [manifests.source(source).file(name).sha256 for source, name in SOURCES],
            "code": digests.code("corpora/simulated.py"),
            "libraries": [np.__version__, scipy.__version__],
        }
    )


def _plan(sizes: dict[str, int], seed: int) -> pd.DataFrame:
    """SimulatedOutputs.by_class; the sources are fetched."""
    published = pd.read_csv(fetch(*PUBLISHED))["average_precision"].to_numpy()
    names = read_classes(fetch(*CLASSES))
    listed = label_statistics(segments("evaluation"), names)
    counts = listed.counts.reindex(list(names.values())).to_numpy()
    share = counts / listed.clips

    own = find_root(
        lambda separation, share, published: expected_average_precision(separation, share, listed.clips) - published,
        (np.zeros(len(share)), np.full(len(share), 12.0)),
        args=(share, published),
    ).x
    another = own[np.random.default_rng([seed, len(sizes)]).permutation(len(own))]
    plan = pd.DataFrame(index=pd.Index(names.values(), name="class"))
    for split, clips in sizes.items():
        plan[split] = np.maximum(share if split == "test" else training_shares(counts), POSITIVES / clips)
    for modality, separation in zip(MODALITIES, (own, (own + another) / 2), strict=True):
        plan[f"{modality}_separation"] = separation = _scaled(separation, share, listed.clips, modality)
        plan[f"{modality}_centre"] = separation / 2 + np.log((1 - share) / share) / separation
        plan[f"{modality}_target"] = expected_average_precision(separation, share, listed.clips)
        plan[f"{modality}_expected"] = expected_average_precision(separation, plan["test"].to_numpy(), sizes["test"])
    return plan


def _scaled(separation: np.ndarray, share: np.ndarray, clips: int, modality: str) -> np.ndarray:
    """All separations by one factor, so that the mean average precision is the paper's."""

    def excess(factor: float) -> float:
        return expected_average_precision(factor * separation, share, clips).mean() - MEAN_AVERAGE_PRECISION[modality]

    return brentq(excess, 0.01, 2) * separation


def _make(folder: Path, sizes: dict[str, int], seed: int, block: int) -> None:
    """Write all files into a folder that takes its name at the end; what a killed process left is removed first."""
    plan = _plan(sizes, seed)
    needed = sum(sizes.values()) * (5 * len(plan) + 8)
    partial = folder.parent / f".partial-{folder.name}"
    shutil.rmtree(partial, ignore_errors=True)
    if (free := shutil.disk_usage(folder.parent).free) < needed:
        raise CorpusError(
            f"{folder.parent}: {in_words(free)} are free, simulated outputs of {sum(sizes.values())} clips take "
            f"{in_words(needed)}. Make room, ask for fewer clips, or let AVREPRO_HOME name a folder on another disk."
        )
    partial.mkdir()
    try:
        blocks = chain.from_iterable(
            _write(partial, split, clips, plan, np.random.default_rng([seed, number]), block)
            for number, (split, clips) in enumerate(sizes.items())
        )
        total = sum(-(-clips // block) for clips in sizes.values())
        for _ in track(blocks, f"simulating outputs in {folder}", total=total, unit=f"blocks of {block} clips"):
            pass
        plan.to_csv(partial / "by_class.csv")
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(
    folder: Path, split: str, clips: int, plan: pd.DataFrame, random: np.random.Generator, block: int
) -> Iterator[None]:
    """The files of a split, a block at each step. Each kind of number has its own stream, drawn clip after clip."""
    classes = len(plan)
    which, labels, reliability, *errors = random.spawn(5)
    edges = np.arange(POSITIVES + 1) * clips // POSITIVES
    surely = which.integers(edges[:-1], edges[1:], (classes, POSITIVES))  # rows that hold the class in any case
    sure = np.mean(1 / np.diff(edges))  # probability that a row is one of them
    rate = (1 - (1 - plan[split].to_numpy()) / (1 - sure)).clip(0).astype(np.float32)  # (C,) of the other rows
    with ExitStack() as stack:
        opened = {name: stack.enter_context((folder / f"{split}_{name}.npy").open("wb")) for name in FILES}
        for name, file in opened.items():  # plain files: pages of a memory map count as memory of this process
            shape = (clips, len(MODALITIES) if name == "noise" else classes)
            header = {"descr": np.dtype(FILES[name]).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, clips, block):
            rows = min(block, clips - start)
            targets = labels.random((rows, classes), dtype=np.float32) < rate
            column, quarter = np.nonzero((surely >= start) & (surely < start + rows))
            targets[surely[column, quarter] - start, column] = True
            targets.view(np.uint8).tofile(opened["targets"])
            noise = np.array(NOISE, np.float32)[reliability.integers(len(NOISE), size=(rows, 2))]
            noise.tofile(opened["noise"])
            e_a, e_v = (stream.standard_normal((rows, classes), dtype=np.float32) for stream in errors)
            e_v = np.float32(AGREEMENT) * e_a + np.float32(np.sqrt(1 - AGREEMENT**2)) * e_v
            for modality, e, scale in zip(MODALITIES, (e_a, e_v), noise.T, strict=True):
                score = targets * plan[f"{modality}_separation"].to_numpy(np.float32) + scale[:, None] * e
                score -= plan[f"{modality}_centre"].to_numpy(np.float32)
                (1 / (1 + np.exp(-score))).astype(np.float16).tofile(opened[modality])
            yield


def _load(folder: Path, sizes: dict[str, int], digest: str) -> SimulatedOutputs:
    try:
        by_class = pd.read_csv(folder / "by_class.csv", index_col="class")
        splits = {
            split: Outputs(**{name: np.load(folder / f"{split}_{name}.npy", mmap_mode="r") for name in FILES})
            for split in sizes
        }
    except (OSError, ValueError) as error:
        raise CorpusError(f"{folder} is not as it was written ({error}); delete it to have it made again") from error
    return SimulatedOutputs(tuple(by_class.index), splits, by_class, digest)
