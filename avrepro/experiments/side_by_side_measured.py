"""The numbers of what a sweep trained: quality of every system, the claims' differences, and what else was varied.

On the demo worlds all seeds have the same test clips: intervals are by a bootstrap over seeds and clips together. On
``paired`` each seed has test clips of its own, so that the spread of the seeds holds that of the clips too: intervals
are Student's t over seeds.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from avrepro import digests
from avrepro.claims import Claim, load_claims, quantities
from avrepro.corpora.base import Clip, Corpus, MissingClip
from avrepro.evaluation import seed_interval, tagging_scores, tune_thresholds
from avrepro.evaluation.calibration import calibration_resamples, platt
from avrepro.evaluation.intervals import Interval
from avrepro.evaluation.ranking import Resampled, resampled
from avrepro.evaluation.seeds import Counted, corrected, counted, over_seeds_by_class
from avrepro.experiments.side_by_side import CHAPTER, CODE, COST_CODE, COST_SEED, NOISE, SHARES, VARIED, Unit, plan
from avrepro.progress import track
from avrepro.results import Results, Run
from avrepro.training import choose_device, device_name

PARTS = (
    *CODE, *COST_CODE, "claims.py", "evaluation/calibration.py", "evaluation/intervals.py", "evaluation/ranking.py",
    "evaluation/seeds.py", "experiments/side_by_side.py", "experiments/side_by_side_measured.py",
)  # fmt: skip
TUNED = "class by class on validation clips, for micro F1"
ONE_FOR_ALL = {"half": "0.5 for all classes", "single": "one for all classes, on validation clips"}
NO_PROBABILITIES = "parekh2018/"  # scores of these systems become probabilities by Platt scaling first


@dataclass(frozen=True)
class Scored:
    """One system of one seed on test clips: row 0 of each array is of the clips as they are, the rest of resamples."""

    counts: Counted
    ranks: Resampled | None = None
    calibration: np.ndarray | None = None  # [1 + resamples]

    def metric(self, name: str) -> np.ndarray:
        """Of all classes [1 + resamples], or ``class_f1`` and ``average_precision`` [1 + resamples, classes]."""
        if name in ("micro_f1", "macro_f1", "class_f1"):
            return getattr(self.counts, name)
        if name == "calibration_error":
            assert self.calibration is not None
            return self.calibration
        assert self.ranks is not None
        return getattr(self.ranks, {"map": "mean_ap", "mauc": "mean_auc"}.get(name, name))


class Told:
    """What the systems of several families said in one condition but for the seed: scores by seed and system."""

    def __init__(self, corpus: str, units: Sequence[Unit]) -> None:
        self.corpus, self.units = corpus, [unit for unit in units if unit.path.is_file()]
        self.scored: dict[str, dict[int, Scored]] = {}  # system -> seed -> ...
        self.about: list[dict[str, Any]] = []
        for unit in track(self.units, f"scores on {corpus}", unit="trainings"):
            self._read(unit)

    def _read(self, unit: Unit) -> None:
        seed = unit.condition.seed
        draws = seed if self.corpus == "paired" else 0
        with np.load(unit.path) as file:
            arrays = dict(file)
        about = json.loads(str(arrays.pop("told")))
        self.about.append(about)
        truth, held = (arrays.pop(f"{split}/targets") for split in ("test", "validation"))
        for name, scores in arrays.items():
            split, _, system = name.partition("/")
            if split == "validation":
                continue
            base = system.partition("@")[0]
            tuning = arrays[f"validation/{base}"]
            chosen = {"": tune_thresholds(held, tuning, seed)}
            if system in ("li2017/audio", "li2017/fused"):
                chosen |= {"half": np.full(len(chosen[""]), 0.5), "single": best_single(held, tuning)}
            for rule, thresholds in chosen.items():
                counts = counted(truth, scores >= thresholds, seed=draws)
                if rule:
                    self.scored.setdefault(f"{system}_{rule}", {})[seed] = Scored(counts)
                    continue
                probability = scores
                if system.startswith(NO_PROBABILITIES):
                    probability = platt(held, tuning)(scores)
                # Sums of probabilities pass 1 by rounding.
                error = calibration_resamples(truth, np.clip(probability, 0, 1), seed=draws)
                self.scored.setdefault(system, {})[seed] = Scored(counts, resampled(truth, scores, seed=draws), error)

    def intervals(self, values: Sequence[np.ndarray], paired: bool = False, level: float = 0.95) -> list[Interval]:
        """Means over seeds of numbers, one array [1 + resamples, numbers] a seed."""
        if self.corpus == "paired":
            return [seed_interval(list(column), level) for column in np.stack([one[0] for one in values]).T]
        return over_seeds_by_class(values, level=level, paired=paired)

    def interval(self, values: Sequence[np.ndarray], paired: bool = False) -> Interval:
        """The same of one number, [1 + resamples] a seed."""
        return self.intervals([one[:, None] for one in values], paired)[0]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.about[0]["classes"])

    @cached_property
    def seeds(self) -> dict[str, list[int]]:
        """Seeds of each family that are there."""
        found: dict[str, list[int]] = {}
        for unit in self.units:
            found.setdefault(unit.family, []).append(unit.condition.seed)
        return found

    def together(self) -> Corpus:
        """As many clips as were scored, for the passport: of one seed where all have the same, else of all seeds."""
        by_digest = {about["digest"]: about for about in self.about}
        clips, missing = [], []
        for digest, about in by_digest.items():
            for split, (count, lacking) in about["sizes"].items():
                names = about["clips"] if split == "test" else [f"{split}-{row}" for row in range(count)]
                clips += [Clip(f"{digest[:8]}-{name}", Path(), split, ()) for name in names]
                missing += [MissingClip(f"{digest[:8]}-{split}-{row}", split, "") for row in range(lacking)]
        digest = digests.of_values(sorted(by_digest))
        return Corpus(self.corpus, self.classes, tuple(clips), tuple(missing), digest)


def costs_of(units: Iterable[Unit]) -> dict[str, dict[str, float]]:
    """System -> what it costs, by name, and what it cost to train, timed in a process of its own."""
    found: dict[str, dict[str, float]] = {}
    for unit in units:
        if unit.path.is_file():
            with np.load(unit.path) as file:
                about = json.loads(str(file["told"]))
            for system, costs in about["costs"].items():
                found.setdefault(system, {}).update(costs)
    return found


def best_single(y_true: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The threshold that is best for all classes alike by micro F1, of 200 quantiles of the scores; [classes]."""
    tried = np.unique(np.quantile(scores, np.linspace(0, 1, 201)))
    best = max(tried, key=lambda one: tagging_scores(y_true, scores >= one).f1)
    return np.full(scores.shape[1], best)


def measure(folder: Path) -> Iterator[Results]:
    """Numbers of all that is trained, into ``folder``; older ones of this chapter go at the end."""
    units, written = plan(), []
    for run in _runs(units):
        results = run.write(folder)
        written.append(f"{CHAPTER}-{results.passport()['run']}.parquet")
        yield results
    for path in folder.glob(f"{CHAPTER}-*.parquet"):
        if path.name not in written:
            path.unlink()


def _runs(units: Sequence[Unit]) -> Iterator[Run]:
    whole: dict[str, Told] = {}
    for corpus in dict.fromkeys(unit.condition.corpus for unit in units):
        here = [unit for unit in units if unit.condition.corpus == corpus and unit.condition.plain]
        told = whole[corpus] = Told(corpus, with_enough_seeds(here))
        if told.units:
            yield _protocol(told, costs_of(unit for unit in here if unit.condition.seed == COST_SEED))
    if whole["demo"].units:
        yield _robustness(whole["demo"])
        yield from _varied(units, whole["demo"])


def with_enough_seeds(units: Sequence[Unit]) -> list[Unit]:
    """Trainings of the families that have as many seeds as the rule asks for: of fewer nothing is said."""
    rule = load_claims()[0]
    there = [unit for unit in units if unit.condition.seed != COST_SEED and unit.path.is_file()]
    counts = Counter(unit.family for unit in there)
    needed = {family: rule.fusion_seeds if family == "fayek2020" else rule.seeds for family in counts}
    return [unit for unit in there if counts[unit.family] >= needed[unit.family]]


def _run(told: Told, measured: str) -> Run:
    parameters: dict[str, Any] = {"profile": "demo", "seed": 0, "corpus": told.corpus, "seeds": told.seeds}
    parameters |= {"measured": measured}
    if measured == "protocol":
        parameters |= {"claims": quantities(load_claims()[1])}
    return Run(CHAPTER, parameters, told.together(), device_name(choose_device("auto")), PARTS)


def _protocol(told: Told, costs: Mapping[str, Mapping[str, float]]) -> Run:
    """Quality and cost of every system, and every claim's difference."""
    run = _run(told, "protocol")
    for system, seeds in told.scored.items():
        if "@" in system:
            continue
        run.add(system, "", "seeds", len(seeds))
        metrics = ["micro_f1", "macro_f1"]
        if next(iter(seeds.values())).ranks is not None:
            metrics += ["map", "mauc", "d_prime", "calibration_error"]
        for metric in metrics:
            found = told.interval([one.metric(metric) for one in seeds.values()])
            run.add(system, "test", metric, found, threshold_rule=_rule(system, metric))
        for metric in ("class_f1", "average_precision") if len(metrics) > 2 else ("class_f1",):
            mean = np.mean([one.metric(metric)[0] for one in seeds.values()], axis=0)
            for label, value in zip(told.classes, mean, strict=True):
                if not np.isnan(value):
                    run.add(system, "test", metric, float(value), label=label, threshold_rule=_rule(system, metric))
        for cost, value in costs.get(system, {}).items():
            run.add(system, "", cost, value)
    _add_leads(run, told)
    for claim in load_claims()[1].values():
        if claim.system in told.scored and claim.against in told.scored:
            _add_claim(run, told, claim)
    return run


def _add_leads(run: Run, told: Told) -> None:
    """How far what goes beyond the papers is ahead of every other system, by mAP; the label is the other one."""
    ranked = {
        name: seeds for name, seeds in told.scored.items() if all(one.ranks is not None for one in seeds.values())
    }
    for ours in (name for name in ranked if name.startswith("beyond/") and "@" not in name):
        for theirs in (name for name in ranked if name != ours and "@" not in name):
            shared = [seed for seed in ranked[ours] if seed in ranked[theirs]]
            leads = [ranked[ours][seed].metric("map") - ranked[theirs][seed].metric("map") for seed in shared]
            if leads:
                run.add(ours, "test", "map_lead", told.interval(leads, paired=True), label=theirs)


def _add_claim(run: Run, told: Told, claim: Claim) -> None:
    """What the claim says is greater than zero; class by class too, where it is about the mean of all classes."""
    ours, theirs = told.scored[claim.system], told.scored[claim.against]
    seeds = [seed for seed in ours if seed in theirs]
    quantity = quantity_of(claim, told.classes)
    pairs = [(ours[seed], theirs[seed]) for seed in seeds]
    values = [quantity(one.metric(claim.metric), other.metric(claim.metric)) for one, other in pairs]
    if np.isnan(values[0][0]):
        return  # none of its classes is in this corpus
    run.add(claim.id, "", "seeds", len(seeds))
    run.add(claim.id, "test", "difference", told.interval(values, paired=True))
    by_class = {"micro_f1": "class_f1", "map": "average_precision"}.get(claim.metric)
    if claim.kind == "difference" and by_class:
        gains = [one.metric(by_class) - other.metric(by_class) for one, other in pairs]
        known = ~np.isnan(np.mean([one[0] for one in gains], axis=0))
        level = corrected(0.95, int(known.sum()))
        found = told.intervals([one[:, known] for one in gains], paired=True, level=level)
        names = [label for label, there in zip(told.classes, known, strict=True) if there]
        for label, one in zip(names, found, strict=True):
            run.add(claim.id, "test", "class_difference", one, label=label)


def quantity_of(claim: Claim, classes: Sequence[str]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """What is greater than zero where the claim is true, [1 + resamples], of both systems' metric."""

    def mean(gain: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Over the classes named, or all, as far as they have a positive test clip."""
        asked = np.array([not names or name in names for name in classes])
        kept = gain[:, asked & ~np.isnan(gain[0])]
        return np.nanmean(kept, axis=1) if kept.shape[1] else np.full(len(gain), np.nan)

    def quantity(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        gain = ours - theirs
        if gain.ndim == 1:
            return gain
        if claim.kind == "contrast":
            return mean(gain, claim.classes) - mean(gain, claim.other_classes)
        if claim.kind == "count":
            assert claim.expected is not None  # the registry sees to that
            return mean(np.where(np.isnan(gain), np.nan, gain > 0), claim.classes) - claim.expected
        return mean(gain, claim.classes)

    return quantity


def _robustness(told: Told) -> Run:
    """Test clips that lack something, by systems that were trained on whole ones."""
    run = _run(told, "robustness")
    for name, seeds in told.scored.items():
        system, at, how = name.partition("@")
        for metric in ("micro_f1", "map") if at else ():
            impaired = [one.metric(metric) for one in seeds.values()]
            losses = [told.scored[system][seed].metric(metric) - one.metric(metric) for seed, one in seeds.items()]
            run.add(system, "test", metric, told.interval(impaired), label=how)
            run.add(system, "test", f"{metric}_loss", told.interval(losses, paired=True), label=how)
    return run


def _varied(units: Sequence[Unit], plain: Told) -> Iterator[Run]:
    """Learning curves and label noise, of systems with all their seeds; the plain condition with the same seeds too."""
    for measured, name, values, usual in (("learning", "share", SHARES, 1.0), ("noise", "noise", NOISE, 0.0)):
        found = {
            value: Told("demo", [unit for unit in units if getattr(unit.condition, name) == value]) for value in values
        }
        points = [(value, system) for value, told in found.items() for system in _complete(told)]
        if not points:
            continue
        varied = {system for _, system in points}
        points += [(usual, system) for system in _complete(plain) if system in varied]
        run = _run(found[points[0][0]], measured)
        for value, system in points:
            seeds = (found | {usual: plain})[value].scored[system]
            for metric in ("micro_f1", "map"):
                score = plain.interval([seeds[seed].metric(metric) for seed in range(VARIED)])
                run.add(system, "test", metric, score, label=f"{value:g}")
        yield run


def _complete(told: Told) -> list[str]:
    """Systems on whole clips that rank them and have as many seeds as a curve asks for."""
    return [
        name for name, seeds in told.scored.items()
        if "@" not in name and all(seed in seeds and seeds[seed].ranks is not None for seed in range(VARIED))
    ]  # fmt: skip


def _rule(system: str, metric: str) -> str:
    """How decisions were made, for metrics that need some."""
    if metric not in ("micro_f1", "macro_f1", "class_f1"):
        return ""
    return ONE_FOR_ALL.get(system.rpartition("_")[2], TUNED)
