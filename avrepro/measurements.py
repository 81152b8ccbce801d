"""The plan of what is measured once and committed, and its execution: ``avrepro measure``.

Trainings and scores are cached by the protocol, so that a plan that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from avrepro import protocol
from avrepro.evaluation import planted_localisation
from avrepro.files import atomic
from avrepro.measure import measure
from avrepro.measure_once import PHOTOGRAPHS, measure_costs, measure_esc10, measure_photographs
from avrepro.progress import say
from avrepro.recipes import digest
from avrepro.results import KEY, PASSPORT, Results, Run, number_recipe
from avrepro.systems import SYSTEMS, Condition, of_paper

SEEDS, FUSION_SEEDS = 5, 10  # at least what the rule of verdicts asks for, see data_manifests/claims.yaml
VARIED_SEEDS = 3  # where training clips or the world are varied
CURVES = (  # a baseline and the proposed system of each paper, and what goes beyond them
    "li2017/audio", "li2017/fused", "parekh2018/audio_only", "parekh2018/two_stream", "fayek2020/audio",
    "fayek2020/average", "fayek2020/attention", "beyond/bottleneck", "beyond/union",
)  # fmt: skip
IMPAIRED = (  # with sound and pictures, whose scores can suffer if either is missing or late
    "li2017/fused", "parekh2018/two_stream", "parekh2018/one_stream", "parekh2018/synchronous", "fayek2020/average",
    "fayek2020/attention", "beyond/bottleneck", "beyond/union",
)  # fmt: skip
GAPS = ("two_stream", "synchronous", "synchronous_audio_only", "audio_only")

Trainings = list[protocol.Training]


@dataclass(frozen=True)
class Measurement:
    """What is measured in one go and committed as one file.

    Several conditions are told apart by the label of their numbers.
    """

    name: str  # column ``measured`` of the results
    corpus: str
    systems: tuple[str, ...]  # measured under every condition
    conditions: Mapping[str, Condition]  # label -> condition without its seed
    seeds: int = SEEDS  # 0, 1, ... of each condition
    more_seeds: Mapping[tuple[str, ...], int] = field(default_factory=dict)  # systems -> seeds
    impaired: tuple[str, ...] = ()  # impairments of the test clips
    extras: tuple[Callable[[Run, Sequence[Condition]], None], ...] = ()
    once: Callable[[Sequence[str], Condition], Run] | None = None  # measures it in a way of its own
    chapter: str = "side_by_side"

    def parts(self) -> Iterator[tuple[str, tuple[str, ...], list[Condition]]]:
        """Label, systems and conditions of each part; a number that two parts have is that of the first."""
        for label, condition in self.conditions.items():
            for systems, seeds in [*self.more_seeds.items(), (self.systems, self.seeds)]:
                yield label, systems, [replace(condition, seed=seed) for seed in range(seeds)]


def plan(names: Sequence[str] | None = None) -> list[Measurement]:
    """Measurements by their names, or by name/corpus; all of them by default.

    :raises ValueError: there is no measurement of a name.
    """
    every = tuple(name for name in SYSTEMS if "_true_" not in name)  # without those that are told what was planted
    fusions = {tuple(of_paper("fayek2020")): FUSION_SEEDS}
    demo = Condition()
    shares = {f"{share:g}": replace(demo, share=share) for share in (0.125, 0.25, 0.5, 1.0)}
    noise = {f"{share:g}": replace(demo, noise=share) for share in (0.0, 0.2, 0.4)}
    gaps = {str(gap): replace(demo, gap=gap) for gap in (0, 3, 6, "never")}
    late = tuple(f"delay {seconds} s" for seconds in (1, 3, 5))
    measurements = [
        *(Measurement("protocol", corpus, systems, {"": Condition(corpus)}, more_seeds=fusions)
          for corpus, systems in (("paired", every), ("demo", tuple(SYSTEMS)), ("demo-null", every))),
        Measurement("robustness", "demo", IMPAIRED, {"": demo}, impaired=("silent", "black", *late)),
        Measurement("learning", "demo", CURVES, shares, VARIED_SEEDS),
        Measurement("noise", "demo", CURVES, noise, VARIED_SEEDS),
        Measurement("gaps", "demo", tuple(f"parekh2018/{name}" for name in GAPS), gaps, VARIED_SEEDS,
                    extras=(planted_localisation.add_gap,), chapter="unsynchronized_mil"),
        Measurement("costs", "demo", every, {"": demo}, 1, once=measure_costs),
        Measurement("esc10", "esc10", ("li2017/audio",), {"": Condition("esc10")}, VARIED_SEEDS, once=measure_esc10,
                    chapter="lightweight_fusion"),
        Measurement("photographs", PHOTOGRAPHS, ("li2017/video", "li2017/video_corrected"), {"": Condition("paired")},
                    seeds=1, once=measure_photographs, chapter="lightweight_fusion"),
    ]  # fmt: skip
    if names is None:
        return measurements
    known = [{one.name, f"{one.name}/{one.corpus}"} for one in measurements]
    if unknown := sorted(set(names) - set().union(*known)):
        raise ValueError(f"no measurement {', '.join(unknown)}; there are {', '.join(sorted(set().union(*known)))}")
    return [one for one, own in zip(measurements, known, strict=True) if own & set(names)]


def measure_all(measurements: Sequence[Measurement], folder: Path, jobs: int = 1, dry_run: bool = False) -> list[str]:
    """Say what will be trained, train it, and write the numbers of each measurement, in place of its older ones.

    :param jobs: trainings at a time, each in a process of its own; they share the processors evenly.
    :param dry_run: only say what would be trained.
    :returns: what failed and why, a line each; all else is done.
    """
    todo = announce(measurements)
    if dry_run:
        return []
    failed = train_all(todo, jobs) if todo else []
    for one in measurements:
        try:
            results = measure_one(one, folder)
            say(f"{one.name} on {one.corpus}: {len(results.table)} numbers, run {results.passport()['run']}")
        except Exception as error:  # whatever it is, the others go on
            failed.append(f"{one.name} on {one.corpus}: {type(error).__name__}: {error}")
    return failed


def announce(measurements: Sequence[Measurement]) -> Trainings:
    """Trainings that are not cached, each once, in an order in which parts come before what uses them; says so."""
    found: dict[Path, protocol.Training] = {}
    for one in measurements:
        before = len(found)
        for _, systems, conditions in one.parts() if one.once not in (measure_esc10, measure_photographs) else ():
            for training in protocol.untrained(systems, conditions):
                found.setdefault(protocol.checkpoint_path(*training), training)
        say(f"{one.name} on {one.corpus}: {protocol.work(list(found.values())[before:])}")
    todo = list(found.values())
    say(f"together {protocol.work(todo)}, features and scores besides")
    return todo


def train_all(todo: Trainings, jobs: int) -> list[str]:
    """Train systems, those that use others after these; what failed and why, a line each."""
    extract_features(todo)
    # Before the processes start: each takes its share of the processors.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    context, failed = multiprocessing.get_context("spawn"), []
    for number, wave in enumerate(waves(todo), start=1):
        with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
            running = {pool.submit(_train, *training): training for training in wave}
            for done in as_completed(running):
                name, condition = running[done]
                training = f"{name}, {protocol.describe(condition)}"
                say(f"wave {number} of trainings, {len(wave)}: {training}")
                if error := done.exception():
                    failed.append(f"{training}: {type(error).__name__}: {error}")
    return failed


def extract_features(todo: Trainings) -> None:
    """Compute the features of all trainings here, so that processes side by side do not each compute them."""
    seen = set()
    for name, condition in todo:
        data = protocol.load(replace(condition, share=1.0, noise=0.0, fold=None))
        for feature in SYSTEMS[name].features(condition).values():
            if (key := (data.corpus.digest, feature.recipe.key)) not in seen:
                seen.add(key)
                data.arrays(feature)


def waves(todo: Trainings) -> list[Trainings]:
    """Trainings in groups: whatever a system uses is trained in an earlier one, or was before."""
    level: dict[Path, int] = {}
    groups: list[Trainings] = []
    for training in todo:
        used = [level.get(protocol.checkpoint_path(*part), -1) for part in protocol.parts_of(*training)]
        level[protocol.checkpoint_path(*training)] = own = 1 + max(used, default=-1)
        groups += [[] for _ in range(own + 1 - len(groups))]
        groups[own].append(training)
    return groups


def measure_one(measurement: Measurement, folder: Path) -> Results:
    """Write the numbers of a measurement; files of older ones of its name and corpus go."""
    with TemporaryDirectory() as name:
        fresh = Path(name)
        if measurement.once is not None:
            (condition,) = measurement.conditions.values()
            results = measurement.once(measurement.systems, condition).write(fresh)
        else:
            parts = [
                (label, measure(measurement.chapter, systems, conditions, measured=measurement.name, folder=fresh,
                                impaired=measurement.impaired, extras=measurement.extras))
                for label, systems, conditions in measurement.parts()
            ]  # fmt: skip
            results = joined(measurement, parts)
    passport = results.passport()
    path = folder / f"{passport['chapter']}-{passport['measured']}-{passport['run']}.parquet"
    with atomic(path) as temporary:
        results.table.to_parquet(temporary, index=False)
    for other in folder.glob(f"{measurement.chapter}-{measurement.name}-*.parquet"):
        if other != path and measurement.corpus in set(pd.read_parquet(other, columns=["corpus"])["corpus"]):
            other.unlink()
    return results


def joined(measurement: Measurement, parts: Sequence[tuple[str, Results]]) -> Results:
    """One run of several: numbers on test clips and those of no split, without curves of trainings.

    Of conditions that are told apart by a label, it has the numbers of all classes together.
    """
    base = Condition(measurement.corpus)
    tables = []
    for label, results in parts:
        table = results.table[results.table["split"].isin(["", "test"]) & (results.table["step"] == -1)]
        if label:
            table = table[(table["label"] == "") & (table["split"] == "test")].assign(label=label)
        tables.append(table)
    table = pd.concat(tables).drop_duplicates(KEY[1:]).reset_index(drop=True)
    recipes = {name: number_recipe(name, base).key[:16] for name in table["system"].unique()}
    passports = [results.passport() for _, results in parts]
    digests = sorted({one["corpus_digest"] for one in passports})
    shared: dict[str, Any] = {
        "run": digest([one["run"] for one in passports])[:16],
        "corpus_digest": digests[0] if len(digests) == 1 else digest(digests),
        "seeds": max((one["seeds"] for one in passports), key=len),
        "condition": json.dumps(asdict(base), sort_keys=True),
        "seconds": sum(one["seconds"] for one in passports),
        "recipes": json.dumps({k: v for one in passports for k, v in json.loads(one["recipes"]).items()}),
        "time": max(one["time"] for one in passports),
    }
    table = table.assign(**{**passports[0], **shared}, recipe=[recipes[name] for name in table["system"]])
    return Results(table[[*PASSPORT, *(name for name in table.columns if name not in PASSPORT)]])


def _train(name: str, condition: Condition) -> None:
    protocol.fit(name, condition)
