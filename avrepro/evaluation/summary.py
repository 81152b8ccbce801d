"""From scores to numbers: the one function behind every quality, difference and claim that the book shows.

It takes one seed or ten. Seeds that share their test clips give a bootstrap over seeds and clips together; seeds that
each split one pool of clips anew give the corrected resampled t (see :mod:`avrepro.evaluation.seeds`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from avrepro import protocol
from avrepro.claims import Claim
from avrepro.evaluation.calibration import platt
from avrepro.evaluation.intervals import Interval, d_prime_interval
from avrepro.evaluation.metrics import tagging_scores
from avrepro.evaluation.resampling import Resampled, resample
from avrepro.evaluation.seeds import bonferroni_level, summarise
from avrepro.evaluation.thresholds import tune_thresholds
from avrepro.systems import SYSTEMS, Condition, Data, System

OVERALL = ("micro_f1", "micro_precision", "micro_recall", "macro_f1", "map", "mauc", "calibration_error")
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

    data: Data
    scores: Mapping[str, np.ndarray]
    impaired: Mapping[tuple[str, str], np.ndarray] = field(default_factory=dict)  # (system, impairment) -> likewise


def seed_scores(names: Sequence[str], condition: Condition, impaired: Sequence[str] = ()) -> SeedScores:
    """Scores of systems under one condition, of whole and of impaired clips; trains what is missing."""
    data = protocol.load(condition)
    fitted = {name: protocol.fit(name, condition) for name in names}
    whole = {name: protocol.scores(one, data) for name, one in fitted.items()}
    worse = {
        (name, how): protocol.scores(one, data.with_impairment(how)) for how in impaired for name, one in fitted.items()
    }
    return SeedScores(data, whole, worse)


class Summary:
    """Numbers of a split over seeds, computed when they are asked for."""

    def __init__(self, seeds: Sequence[SeedScores], split: str) -> None:
        self.seeds, self.split = seeds, split
        self.classes = seeds[0].data.classes
        self._resampled: dict[tuple[str, str], list[Resampled]] = {}

    @cached_property
    def resplit(self) -> tuple[int, int] | None:
        """Training and test clips of a seed, where each seed splits one pool of clips anew."""
        if len({one.data.corpus.digest for one in self.seeds}) == 1:
            return None
        sizes = [[len(one.data.rows(split)) for split in ("train", self.split)] for one in self.seeds]
        train, test = np.mean(sizes, axis=0).round().astype(int)
        return int(train), int(test)

    @property
    def draws(self) -> int:
        """Resamples of clips: with test clips of their own, several seeds need none."""
        return 0 if self.resplit is not None and len(self.seeds) > 1 else 2000

    def resampled(self, system: str, impaired: str = "") -> list[Resampled]:
        """Metrics of a system on the clips of the split, of each seed."""
        if (system, impaired) not in self._resampled:
            self._resampled[system, impaired] = [self._resample(one, system, impaired) for one in self.seeds]
        return self._resampled[system, impaired]

    def _resample(self, seed: SeedScores, system: str, impaired: str) -> Resampled:
        about, truth, scores = SYSTEMS[system], seed.data.targets, seed.scores[system]
        rows, held = seed.data.rows(self.split), seed.data.rows("validation")
        shown = (seed.impaired[system, impaired] if impaired else scores)[rows]
        probabilities = shown if about.probabilities else platt(truth[held], scores[held])(shown)
        thresholds = thresholds_of(about, seed.data, scores)
        return resample(truth[rows], shown, thresholds, self.draws, 0, np.clip(probabilities, 0, 1))

    def rows(self, system: str, metric: str, against: str = "", impaired: str = "") -> list[np.ndarray]:
        """A metric of every seed, or how much higher it is than another system's.

        :returns: [1 + resamples] or [1 + resamples, classes] each.
        """
        found = [getattr(one, metric) for one in self.resampled(system, impaired)]
        if not against:
            return found
        return [one - other for one, other in zip(found, self.rows(against, metric), strict=True)]

    def overall(self, system: str, metric: str, against: str = "", impaired: str = "") -> Interval:
        """A number of all classes together, or how much higher it is than that of another system."""
        if metric == "d_prime":
            return d_prime_interval(self.overall(system, "mauc", impaired=impaired))
        return summarise(self.rows(system, metric, against, impaired), resplit=self.resplit, paired=bool(against))

    def loss(self, system: str, metric: str, impaired: str) -> Interval:
        """What a metric loses where the test clips are impaired."""
        pairs = zip(self.rows(system, metric), self.rows(system, metric, impaired=impaired), strict=True)
        return summarise([whole - worse for whole, worse in pairs], resplit=self.resplit, paired=True)

    def by_class(self, system: str, metric: str, against: str = "", level: float = 0.95) -> dict[str, Interval]:
        """A number of each class that has a positive clip, or how much higher it is than another system's."""
        return self.summarise_classes(self.rows(system, metric, against), bool(against), level)

    def summarise_classes(self, rows: Sequence[np.ndarray], paired: bool, level: float = 0.95) -> dict[str, Interval]:
        """The interval of each class that has a positive clip; rows are [1 + resamples, classes] of each seed."""
        known = np.isfinite(np.mean([one[0] for one in rows], axis=0))
        return {
            self.classes[k]: summarise([one[:, k] for one in rows], resplit=self.resplit, paired=paired, level=level)
            for k in np.flatnonzero(known)
        }

    def class_differences(self, system: str, metric: str, against: str) -> dict[str, Interval]:
        """Differences class by class, at a level corrected for the number of classes."""
        level = bonferroni_level(0.95, len(self.classes))
        return self.by_class(system, OF_CLASSES[metric], against, level)

    def claim(self, claim: Claim, level: float = 0.95) -> Interval | None:
        """A claim's quantity; None where none of its classes is in the corpus."""
        gains = self.rows(claim.system, claim.metric, claim.against)
        values = [quantity(claim, self.classes, gain) for gain in gains]
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


def thresholds_of(system: System, data: Data, scores: np.ndarray) -> np.ndarray:
    """Thresholds of a system's decisions, chosen on validation clips alone, [classes]; scores of all clips."""
    if system.threshold_rule == "half":
        return np.full(scores.shape[1], 0.5)
    held = data.rows("validation")
    y_true, scores = data.targets[held], scores[held]
    if system.threshold_rule == "single":
        tried = np.unique(np.quantile(scores, np.linspace(0, 1, 201)))
        best = max(tried, key=lambda one: tagging_scores(y_true, scores >= one).f1)
        return np.full(scores.shape[1], best)
    return tune_thresholds(y_true, scores, data.condition.seed)


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
