"""Measure systems under conditions: train what is missing, score, and write the numbers with their passports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from avrepro import protocol
from avrepro.claims import control_level, load_claims
from avrepro.corpora.base import SPLITS
from avrepro.evaluation.summary import BY_CLASS, OF_CLASSES, OVERALL, PAPERS, RULES, Summary, comparisons, seed_scores
from avrepro.results import Results, Run
from avrepro.systems import SYSTEMS, Condition

Extra = Callable[[Run, Sequence[Condition]], None]


def measure(
    chapter: str,
    names: Sequence[str],
    conditions: Sequence[Condition],
    *,
    measured: str = "chapter",
    extras: Sequence[Extra] = (),
    folder: Path | None = None,
    impaired: Sequence[str] = (),
) -> Results:
    """Numbers of systems under conditions that differ in their seed alone; writes and returns them.

    Where the clips are too few to train on, only what is known of the clips is noted.

    :param names: of systems. :param measured: what of the chapter, for example ``"protocol"``, which has the claims.
    :param extras: what a chapter measures besides, called with the run and the conditions.
    :param folder: where the numbers go; default: the results store.
    :param impaired: impairments of the test clips, such as ``"silent"``; with them, losses alone are noted.
    """
    corpora = [protocol.load(condition).corpus for condition in conditions]
    run = Run(chapter, measured, conditions[0], tuple(one.seed for one in conditions), corpora)
    run.add("corpus", "clips", len(corpora[0].clips))
    if protocol.trains(conditions[0]):
        protocol.announce(names, conditions)
        seeds = [seed_scores(names, condition, impaired) for condition in conditions]
        for split in SPLITS[1:]:
            if corpora[0].split(split).clips:
                summary = Summary(seeds, split)
                if impaired:
                    _add_losses(run, names, impaired, summary)
                else:
                    _add_numbers(run, names, summary)
                    if measured == "protocol" and split == "test":
                        _add_claims(run, names, summary)
        for name in names if not impaired else ():
            _add_training(run, name, conditions[0])
        _add_counts(run)
        for extra in extras:
            extra(run, conditions)
    return run.write(folder)


def _add_numbers(run: Run, names: Sequence[str], summary: Summary) -> None:
    split = summary.split
    for name in names:
        rule = RULES[SYSTEMS[name].threshold_rule]
        for metric in (*OVERALL, "d_prime"):
            decided = rule if "f1" in metric or metric.startswith("micro") else ""
            run.add(name, metric, summary.overall(name, metric), split=split, rule=decided)
        for metric in BY_CLASS:
            for label, found in summary.by_class(name, metric).items():
                run.add(name, metric, found, split=split, label=label, rule=rule if metric == "class_f1" else "")
    for system, against in comparisons(names):
        for metric in ("micro_f1", "map"):
            found = summary.overall(system, metric, against)
            run.add(system, metric, found, against=against, split=split)
            if (system, against) in PAPERS.values():
                for label, one in summary.class_differences(system, metric, against).items():
                    run.add(system, OF_CLASSES[metric], one, against=against, split=split, label=label)


def _add_losses(run: Run, names: Sequence[str], impaired: Sequence[str], summary: Summary) -> None:
    for name in names:
        for how in impaired:
            for metric in ("micro_f1", "map"):
                found = summary.overall(name, metric, impaired=how)
                run.add(name, metric, found, split=summary.split, label=how)
                run.add(name, f"{metric}_loss", summary.loss(name, metric, how), split=summary.split, label=how)


def _add_claims(run: Run, names: Sequence[str], summary: Summary) -> None:
    """Every claim about these systems, and on the control at the level that is corrected for their number, too."""
    rule, claims = load_claims()
    for claim in claims.values():
        if claim.system in names and claim.against in names:
            found = summary.claim(claim)
            if found is None:
                continue
            run.add(claim.system, "claim", found, against=claim.against, split="test", label=claim.id)
            if run.condition.corpus == "demo-null":
                strict = summary.claim(claim, control_level(claims, rule))
                assert strict is not None
                run.add(claim.system, "claim_corrected", strict, against=claim.against, split="test", label=claim.id)


def _add_training(run: Run, name: str, condition: Condition) -> None:
    fitted = protocol.fit(name, condition)
    run.add(name, "training_seconds", fitted.seconds)
    run.add(name, "parameters", fitted.parameters)
    for row in fitted.checkpoint.history:
        for metric in ("loss", "validation_loss", "validation_score"):
            run.add(name, metric, row[metric], step=int(row["epoch"]))


def _add_counts(run: Run) -> None:
    """Clips of each class in each split of the first seed."""
    corpus = run.corpora[0]
    for split in SPLITS:
        part = corpus.split(split)
        if part.clips:
            for label, count in zip(corpus.classes, part.targets().sum(axis=0), strict=True):
                run.add("corpus", "positive_clips", int(count), split=split, label=label)
