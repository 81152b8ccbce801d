"""From scores to numbers: the one function behind every quality, difference and claim that the book shows.

It takes one seed or ten. Seeds that share their test clips give a bootstrap over seeds and clips together; seeds that
each split one pool of clips anew give the corrected resampled t (see :mod:`avrepro.evaluation.seeds`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from avrepro.claims import Claim
from avrepro.corpora.base import Corpus
from avrepro.evaluation.calibration import platt
from avrepro.evaluation.intervals import Interval, d_prime_interval
from avrepro.evaluation.metrics import tagging_scores
from avrepro.evaluation.resampling import Resampled, resample
from avrepro.evaluation.seeds import bonferroni_level, summarise, summarise_by_class
from avrepro.evaluation.thresholds import tune_thresholds
from avrepro.systems import SYSTEMS, System

OVERALL = {
    "micro_f1": "micro_f1", "micro_precision": "precision", "micro_recall": "recall", "macro_f1": "macro_f1",
    "map": "map", "mauc": "mauc", "calibration_error": "calibration_error",
}  # fmt: skip
BY_CLASS = ("class_f1", "average_precision", "roc_auc")
OF_CLASSES = {"micro_f1": "class_f1", "map": "average_precision"}  # what a difference is shown by, class by class
RULES = {
    "class": "one for each class, tuned for micro F1 on validation clips",
    "single": "one for all classes, tuned for micro F1 on validation clips",
    "half": "0.5 for all classes",
}

Pair = tuple[str, str]


@dataclass(frozen=True)
class SeedScores:
    """Scores of one training seed, float32 [clips, classes] each, clips in the order of the corpus."""

    corpus: Corpus
    seed: int
    scores: Mapping[str, np.ndarray]
    impaired: Mapping[tuple[str, str], np.ndarray]  # (system, impairment) -> likewise


class Summary:
    """Numbers of a split over seeds, computed when they are asked for."""

    def __init__(self, seeds: Sequence[SeedScores], split: str) -> None:
        self.seeds, self.split = seeds, split
        self.classes = seeds[0].corpus.classes
        self._resampled: dict[tuple[str, str, int], Resampled] = {}

    @cached_property
    def resplit(self) -> tuple[int, int] | None:
        """Training and test clips of a seed, where each seed splits one pool of clips anew."""
        if len({one.corpus.digest for one in self.seeds}) == 1:
            return None
        sizes = [[len(one.corpus.split(split).clips) for split in ("train", self.split)] for one in self.seeds]
        train, test = np.mean(sizes, axis=0).round().astype(int)
        return int(train), int(test)

    @property
    def draws(self) -> int:
        """Resamples of clips: with test clips of their own, several seeds need none."""
        return 0 if self.resplit is not None and len(self.seeds) > 1 else 2000

    def of(self, system: str, number: int, impaired: str = "") -> Resampled:
        """Metrics of a system on the clips of the split, of the seed with this number."""
        key = system, impaired, number
        if key not in self._resampled:
            one, about = self.seeds[number], SYSTEMS[system]
            truth, held = one.corpus.targets(), rows_of(one.corpus, "validation")
            rows, scores = rows_of(one.corpus, self.split), one.scores[system]
            thresholds = thresholds_of(about, truth[held], scores[held], one.seed)
            shown = (one.impaired[system, impaired] if impaired else scores)[rows]
            probabilities = shown if about.probabilities else platt(truth[held], scores[held])(shown)
            self._resampled[key] = resample(truth[rows], shown, thresholds, self.draws, 0, np.clip(probabilities, 0, 1))
        return self._resampled[key]

    def rows(self, system: str, metric: str, impaired: str = "") -> list[np.ndarray]:
        """A metric of every seed, [1 + resamples] or [1 + resamples, classes]."""
        name = OVERALL.get(metric, metric)
        return [getattr(self.of(system, number, impaired), name) for number in range(len(self.seeds))]

    def overall(self, system: str, metric: str, against: str = "", impaired: str = "") -> Interval:
        """A number of all classes together, or how much higher it is than that of another system."""
        if metric == "d_prime":
            return d_prime_interval(self.overall(system, "mauc", impaired=impaired))
        found = self.rows(system, metric, impaired)
        if against:
            found = [one - other for one, other in zip(found, self.rows(against, metric), strict=True)]
        return summarise(found, resplit=self.resplit, paired=bool(against))

    def loss(self, system: str, metric: str, impaired: str) -> Interval:
        """What a metric loses where the test clips are impaired."""
        pairs = zip(self.rows(system, metric), self.rows(system, metric, impaired), strict=True)
        return summarise([whole - worse for whole, worse in pairs], resplit=self.resplit, paired=True)

    def by_class(self, system: str, metric: str, against: str = "", level: float = 0.95) -> dict[str, Interval]:
        """A number of each class that has a positive clip, or how much higher it is than another system's."""
        found = self.rows(system, metric)
        if against:
            found = [one - other for one, other in zip(found, self.rows(against, metric), strict=True)]
        there = ~np.isnan(np.mean([one[0] for one in found], axis=0))
        names = [name for name, known in zip(self.classes, there, strict=True) if known]
        parts = [one[:, there] for one in found]
        intervals = summarise_by_class(parts, resplit=self.resplit, paired=bool(against), level=level) if names else []
        return dict(zip(names, intervals, strict=True))

    def class_differences(self, system: str, metric: str, against: str) -> dict[str, Interval]:
        """Differences class by class, at a level corrected for the number of classes."""
        level = bonferroni_level(0.95, len(self.classes))
        return self.by_class(system, OF_CLASSES[metric], against, level)

    def claim(self, claim: Claim, level: float = 0.95) -> Interval | None:
        """A claim's quantity; None where none of its classes is in the corpus."""
        pairs = zip(self.rows(claim.system, claim.metric), self.rows(claim.against, claim.metric), strict=True)
        values = [quantity(claim, self.classes, one - other) for one, other in pairs]
        if np.isnan(values[0][0]):
            return None
        bounds = (-2.0, 2.0) if claim.kind == "contrast" else None
        return summarise(values, resplit=self.resplit, paired=True, level=level, bounds=bounds)


def quantity(claim: Claim, classes: Sequence[str], gain: np.ndarray) -> np.ndarray:
    """What is greater than zero where a claim is true, [1 + resamples].

    :param gain: metric of the claim's system minus that of the other, [1 + resamples] or [1 + resamples, classes].
    """

    def mean(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Over the classes named, or all, as far as they have a positive test clip."""
        asked = np.array([not names or name in names for name in classes]) & ~np.isnan(gain[0])
        return np.nanmean(values[:, asked], axis=1) if asked.any() else np.full(len(values), np.nan)

    if gain.ndim == 1:
        return gain
    if claim.kind == "contrast":
        return mean(gain, claim.classes) - mean(gain, claim.other_classes)
    if claim.kind == "count":
        assert claim.expected is not None  # the registry sees to that
        return mean(np.where(np.isnan(gain), np.nan, gain > 0), claim.classes) - claim.expected
    return mean(gain, claim.classes)


def rows_of(corpus: Corpus, split: str) -> np.ndarray:
    """Rows of the clips of a split, int [clips]."""
    return np.array([row for row, clip in enumerate(corpus.clips) if clip.split == split], dtype=int)


def thresholds_of(system: System, y_true: np.ndarray, scores: np.ndarray, seed: int) -> np.ndarray:
    """Thresholds of a system's decisions, chosen on validation clips alone, [classes]; both [clips, classes]."""
    if system.threshold_rule == "half":
        return np.full(scores.shape[1], 0.5)
    if system.threshold_rule == "single":
        tried = np.unique(np.quantile(scores, np.linspace(0, 1, 201)))
        best = max(tried, key=lambda one: tagging_scores(y_true, scores >= one).f1)
        return np.full(scores.shape[1], best)
    return tune_thresholds(y_true, scores, seed)


def comparisons(names: Sequence[str]) -> Iterator[Pair]:
    """Pairs of systems whose difference is noted, first minus second.

    A paper's proposed system and each of its others, each of them and its sound-only baseline; what goes beyond the
    papers and every other.
    """
    there = set(names)
    pairs: dict[Pair, None] = {}
    for proposed, baseline in PAPERS.values():
        paper = proposed.split("/")[0]
        for name in (name for name in names if name.startswith(f"{paper}/")):
            pairs |= dict.fromkeys([(proposed, name), (name, baseline)])
    for ours in (name for name in names if name.startswith("beyond/")):
        pairs |= dict.fromkeys((ours, name) for name in names)
    yield from (pair for pair in pairs if set(pair) <= there and pair[0] != pair[1])


PAPERS: dict[str, Pair] = {  # a paper's proposed system, and what it would be with sound alone
    "li2017": ("li2017/fused", "li2017/audio"),
    "parekh2018": ("parekh2018/two_stream", "parekh2018/audio_only"),
    "fayek2020": ("fayek2020/attention", "fayek2020/audio"),
}
