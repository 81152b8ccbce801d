"""Every system on one protocol, by many seeds: what is trained, and the numbers that come of it.

``avrepro sweep side_by_side`` trains what is missing and writes the numbers to ``results/``, where they are committed
with their passports; the book reads them from there.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from avrepro import digests
from avrepro.experiments.costs import Energy, peak_memory_mb
from avrepro.experiments.side_by_side_systems import Condition, Said
from avrepro.home import home
from avrepro.manifests import manifest_path
from avrepro.progress import say

CHAPTER = "side_by_side"
# What a system says depends on all that trains it. Trainings are kept by digests of their own, so that a change which
# does not touch them costs no more than asking again.
CODE = (
    "corpora/base.py", "corpora/demo", "corpora/paired.py", "corpora/paired_items.py", "corpora/paired_render.py",
    "encode.py", "evaluation/localisation.py", "evaluation/metrics.py", "evaluation/thresholds.py",
    "experiments/bottleneck.py", "experiments/fayek2020.py", "experiments/fayek2020_others.py",
    "experiments/fayek2020_profiles.py", "experiments/fayek2020_training.py", "experiments/gated_crnn.py",
    "experiments/key_frame_baselines.py", "experiments/li2017.py", "experiments/li2017_profiles.py",
    "experiments/parekh2018.py", "experiments/parekh2018_profiles.py", "experiments/parekh2018_training.py",
    "experiments/side_by_side_beyond.py", "experiments/side_by_side_systems.py", "features/edges.py",
    "features/key_frames.py", "features/logmel.py", "features/objects.py", "features/regions.py",
    "features/store.py", "features/words.py", "media.py", "models/bottleneck.py", "models/efficientnet.py",
    "models/fayek2020.py", "models/fayek2020_others.py", "models/gated_crnn.py", "models/li2017.py",
    "models/parekh2018.py", "models/protobuf.py", "models/tensorflow_checkpoint.py", "models/weights.py",
    "models/yamnet.py", "sampling.py", "training.py",
)  # fmt: skip
COST_CODE = ("experiments/costs.py", "experiments/side_by_side_costs.py")
DATA = ("demo_world.yaml", "paired.csv", "paired.yaml")
FAMILIES = ("li2017", "parekh2018", "fayek2020", "bottleneck", "union", "cvssp", "others")
SEEDS = {"fayek2020": 10}  # of a family; of the others:
FEWER = 5
VARIED = 3  # seeds where training clips are noisy or few
COST_SEED = 1000  # of trainings that nobody has done before, so that they can be timed
NOISE = (0.2, 0.4)  # of training labels that are made wrong
SHARES = (0.125, 0.25, 0.5)
CORE = ("li2017", "parekh2018", "fayek2020", "bottleneck", "union")  # on the control and with wrong labels, too


@dataclass(frozen=True)
class Unit:
    """One training of a family of systems: what a sweep does or finds."""

    family: str
    condition: Condition

    @cached_property
    def path(self) -> Path:
        """Where what was said is kept. Peak memory and energy in it are of the unit's own process."""
        given = asdict(self.condition)
        data = [digests.of_files([manifest_path(name)], digests.ROOT) for name in DATA]
        code = (*CODE, *COST_CODE) if self.family == "costs" else CODE
        key = digests.of_values([self.family, given, data, digests.code(*code), digests.dependencies()])
        c = self.condition
        name = f"{self.family}-{c.corpus}-seed{c.seed}-share{c.share:g}-noise{c.noise:g}-{key[:12]}.npz"
        return home() / CHAPTER / name


def plan() -> list[Unit]:
    """All that is trained, the most needed first."""
    units = [Unit(family, Condition(seed=COST_SEED)) for family in (*FAMILIES, "costs")]
    for corpus, families in {"demo": FAMILIES, "paired": FAMILIES, "demo-null": CORE}.items():
        units += [Unit(one, Condition(corpus, seed)) for one in families for seed in range(SEEDS.get(one, FEWER))]
    for family in FAMILIES:
        for seed in range(VARIED):
            units += [Unit(family, Condition(seed=seed, share=share)) for share in SHARES]
            units += [Unit(family, Condition(seed=seed, noise=noise)) for noise in NOISE if family in CORE]
    return units


def sweep(units: Sequence[Unit] | None = None, jobs: int = 1) -> list[str]:
    """Train what is not there yet, each unit in a process of its own; goes on where it was stopped.

    :param jobs: processes at a time; they share the processors evenly. Trainings to be timed run one at a time.
    :returns: what failed and why, a line a unit; the others are done.
    """
    units = plan() if units is None else list(units)
    todo = [unit for unit in units if not unit.path.is_file()]
    say(f"{len(units) - len(todo)} of {len(units)} trainings are there")
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    os.environ.setdefault("OMP_NUM_THREADS", threads)  # before the processes start
    # A neighbour would slow a timed one, and what it drew would count as this one's: energy is the whole machine's.
    timed = [unit for unit in todo if unit.condition.seed == COST_SEED]
    return _train_all(timed, 1) + _train_all([unit for unit in todo if unit not in timed], jobs)


def _train_all(units: Sequence[Unit], jobs: int) -> list[str]:
    failed = []
    # A process a unit: what it holds of memory is its own, and is given back.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        running = {pool.submit(train, unit): unit for unit in units}
        for number, one in enumerate(as_completed(running), start=1):
            unit = running[one]
            error = one.exception()
            if error is not None:
                failed.append(f"{unit.family}, {unit.condition}: {type(error).__name__}: {error}")
            say(f"{number} / {len(units)} trainings: {unit.path.stem}{f' failed: {error}' if error else ''}")
    return failed


def train(unit: Unit) -> None:
    """Train one family on one condition and write what its systems say, and what the process took."""
    with Energy() as energy:
        said = family_of(unit.family)(unit.condition)
    told = {"peak_memory_mb": peak_memory_mb(), "energy_joules": energy.joules}
    for costs in said.costs.values():
        if "training_seconds" in costs:
            costs |= {name: value for name, value in told.items() if value is not None}
    said.write(unit.path)


def family_of(name: str) -> Callable[[Condition], Said]:
    """The function that trains a family."""
    from avrepro.experiments import side_by_side_beyond as beyond
    from avrepro.experiments import side_by_side_systems as systems
    from avrepro.experiments.side_by_side_costs import of_costs

    families = {
        "li2017": systems.of_li2017,
        "parekh2018": systems.of_parekh2018,
        "cvssp": systems.of_cvssp,
        "fayek2020": systems.of_fayek2020,
        "others": systems.of_others,
        "bottleneck": beyond.of_bottleneck,
        "union": beyond.of_union,
        "costs": of_costs,
    }
    return families[name]
