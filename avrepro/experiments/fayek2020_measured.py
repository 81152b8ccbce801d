"""What of the chapter on Fayek and Kumar (2020) is measured once and committed, with its passports.

Three measurements, by ``avrepro results --measure``: all systems on clips of real sounds and photographs (corpus
``paired``), which are not part of the project; Table 3's other systems on the demo world, which would take the book too
long; and the fusions at AudioSet's number of classes, on simulated outputs, to see what that costs.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from avrepro import digests
from avrepro.corpora.base import Clip, Corpus
from avrepro.corpora.simulated import simulate, streamed_moments
from avrepro.evaluation import seed_interval
from avrepro.experiments.fayek2020 import OTHERS, Inputs, Systems, load_inputs, run_systems, train_other
from avrepro.experiments.fayek2020_evaluation import CHAPTER, add_scores, evaluate
from avrepro.experiments.fayek2020_profiles import PROFILES
from avrepro.experiments.fayek2020_training import Split, train_fusions
from avrepro.models.fayek2020 import FUSIONS
from avrepro.parameters import AttentionFusion
from avrepro.progress import say
from avrepro.results import Results, Run
from avrepro.training import choose_device, device_name

CODE = (  # what these numbers depend on
    "corpora/base.py", "corpora/paired.py", "corpora/paired_items.py", "corpora/paired_render.py", "encode.py",
    "evaluation/intervals.py", "evaluation/metrics.py", "evaluation/ranking.py", "experiments/fayek2020.py",
    "experiments/fayek2020_checkpoint.py", "experiments/fayek2020_evaluation.py", "experiments/fayek2020_measured.py",
    "experiments/fayek2020_others.py", "experiments/fayek2020_profiles.py", "experiments/fayek2020_training.py",
    "experiments/li2017.py", "features/logmel.py", "features/store.py", "media.py", "models/efficientnet.py",
    "models/fayek2020.py", "models/fayek2020_others.py", "models/li2017.py", "models/weights.py", "training.py",
)  # fmt: skip
DEMO = (*CODE, "corpora/demo", "experiments/fayek2020_planted.py")
SIMULATED = ("corpora/simulated.py", "experiments/fayek2020_measured.py", "experiments/fayek2020_training.py",
             "models/fayek2020.py", "training.py", "evaluation/ranking.py")  # fmt: skip
SEEDS = (0, 1, 2, 3, 4)  # of the clips of real sounds and photographs
CLIPS, EPOCHS = 50_000, 2  # of the simulated corpus, and of the training on it
SCORED = 200  # resamples where there are thousands of clips of 527 classes


def measure(folder: Path) -> Iterator[Results]:
    """Measure everything anew into ``folder``, one result after the other; what it held before goes at the end.

    About an hour on 2 cores; trainings are found again where it was stopped.
    """
    written = []
    for results in _all(folder):
        written.append(f"{CHAPTER}-{results.passport()['run']}.parquet")
        yield results
    for path in folder.glob(f"{CHAPTER}-*.parquet"):
        if path.name not in written:
            path.unlink()


def _all(folder: Path) -> Iterator[Results]:
    yield from measure_paired(folder)
    yield measure_others().write(folder)
    yield measure_simulated().write(folder)


def measure_paired(folder: Path) -> Iterator[Results]:
    """All systems on real sounds and photographs: each seed by itself, then the means over seeds."""
    runs, corpora = [], []
    for seed in SEEDS:
        inputs = load_inputs(AttentionFusion(corpus="paired", seed=seed))
        corpora.append(inputs.corpus)
        runs.append(evaluate(inputs, with_others(inputs, run_systems(inputs)), folder, CODE))
        yield runs[-1]
    run = Run(CHAPTER, _parameters("paired", SEEDS, "paired"), _together(corpora), _device(), CODE)
    table = pd.concat([one.select(split="test") for one in runs])
    for (system, metric, label, step), rows in table.groupby(["system", "metric", "label", "step"], sort=False):
        run.add(system, "test", metric, seed_interval(list(rows["value"])), label=label, step=step)
    costs = pd.concat([one.select(metric=["training_seconds", "parameters"]) for one in runs])
    for (system, metric), rows in costs.groupby(["system", "metric"], sort=False):
        run.add(system, "", metric, float(rows["value"].mean()))
    yield run.write(folder)


def measure_others() -> Run:
    """Table 3's other systems on the demo world of the book, beside attention fusion as the book trains it."""
    inputs = load_inputs(AttentionFusion(system="attention"))
    systems = with_others(inputs, run_systems(inputs))
    rows = inputs.rows("test")
    run = Run(CHAPTER, _parameters("demo", SEEDS[:1], "others"), inputs.corpus, _device(), DEMO)
    add_scores(run, "test", inputs.corpus.targets()[rows], {name: one[rows] for name, one in systems.scores.items()})
    for name, other in systems.others.items():
        run.add(name, "", "training_seconds", other.seconds)
        run.add(name, "", "parameters", other.parameters)
    return run


def with_others(inputs: Inputs, systems: Systems) -> Systems:
    """The same with Table 3's other systems trained beside."""
    others = {name: train_other(inputs, name) for name in OTHERS}
    return replace(systems, scores=systems.scores | {name: one.scores for name, one in others.items()}, others=others)


def measure_simulated(clips: int = CLIPS, epochs: int = EPOCHS) -> Run:
    """All fusions at the paper's sizes on simulated outputs of 527 classes, streamed from memory maps: for scale alone.

    :param clips: of all splits. :param epochs: of the training.
    """
    outputs = simulate(clips)
    say(f"simulated-audioset: {clips} clips")
    train, validation, test = (outputs.splits[name] for name in ("train", "validation", "test"))
    parts = tuple(
        Clip(f"{split}-{row}", Path(), split, ())
        for split, one in outputs.splits.items()
        for row in range(len(one.targets))
    )
    corpus = Corpus("simulated-audioset", outputs.classes, parts, (), outputs.digest)
    device = choose_device("auto")
    paper = PROFILES["paper"]
    optimisation = replace(paper.fusion_optimisation, epochs=epochs)
    profile = replace(paper, fusion_optimisation=optimisation, fusion_rates=paper.fusion_rates[:1])
    moments = (streamed_moments(train.audio), streamed_moments(train.visual))
    frequencies = streamed_moments(train.targets)[0]
    taught, held = (Split((one.audio, one.visual), one.targets) for one in (train, validation))
    fusions = train_fusions(tuple(FUSIONS), taught, held, moments, frequencies, profile, 0, device)
    scores = {name: fusions.scores(name, test.audio, test.visual, device) for name in FUSIONS}
    scores |= {"audio": test.audio[:].astype("float32"), "visual": test.visual[:].astype("float32")}
    scores["average"] = (scores["audio"] + scores["visual"]) / 2
    shortened = {"epochs": epochs, "rates": list(profile.fusion_rates)}
    parameters = {"profile": "paper", "seed": 0, "corpus": corpus.name, "measured": "simulated", **shortened}
    run = Run(CHAPTER, parameters, corpus, device_name(device), SIMULATED)
    add_scores(run, "test", test.targets[:].astype(bool), scores, SCORED, by_class=False)
    for name in ("audio", "visual"):
        run.add(name, "test", "map_planted", float(outputs.by_class[f"{name}_expected"].mean()))
    run.add("fusions", "", "training_seconds", fusions.seconds)
    run.add("corpus", "", "peak_memory_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return run


def _parameters(corpus: str, seeds: Sequence[int], measured: str) -> dict[str, object]:
    given = {"corpus": corpus, "seed": seeds[0], "seeds": list(seeds), "measured": measured}
    return AttentionFusion().model_dump() | given


def _together(parts: list[Corpus]) -> Corpus:
    """The clips of all seeds, for the passport."""
    return replace(
        parts[0],
        clips=tuple(clip for corpus in parts for clip in corpus.clips),
        missing=tuple(clip for corpus in parts for clip in corpus.missing),
        digest=digests.of_values([corpus.digest for corpus in parts]),
    )


def _device() -> str:
    return device_name(choose_device("auto"))
