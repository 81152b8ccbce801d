"""What of the chapter on Parekh et al. (2018) is measured once and committed, with its passports.

Three measurements, by ``avrepro results --measure``: all systems on clips of real sounds and photographs (corpus
``paired``), which are not part of the project; the gated CRNNs on the demo world and two streams in demo worlds with
other gaps between seeing and hearing, which would take the book too long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from avrepro import corpora, digests
from avrepro.corpora.base import Corpus
from avrepro.evaluation import micro_f1_interval, seed_interval, tune_thresholds
from avrepro.experiments import gated_crnn
from avrepro.experiments.parekh2018 import Inputs, describe, load_inputs, run_systems
from avrepro.experiments.parekh2018_evaluation import CHAPTER, PROPOSED, TUNED, add_scores, decisions, evaluate
from avrepro.features.store import extract
from avrepro.parameters import UnsynchronizedMIL
from avrepro.progress import say
from avrepro.results import Results, Run
from avrepro.training import choose_device, device_name

CODE = (  # what these numbers depend on
    "corpora/base.py", "corpora/paired.py", "corpora/paired_items.py", "corpora/paired_render.py", "encode.py",
    "evaluation/intervals.py", "evaluation/localisation.py", "evaluation/metrics.py", "evaluation/thresholds.py",
    "experiments/gated_crnn.py", "experiments/li2017.py", "experiments/parekh2018.py",
    "experiments/parekh2018_evaluation.py", "experiments/parekh2018_measured.py",
    "experiments/parekh2018_profiles.py", "experiments/parekh2018_training.py", "features/edges.py",
    "features/logmel.py", "features/regions.py", "features/store.py", "media.py", "models/efficientnet.py",
    "models/gated_crnn.py", "models/parekh2018.py", "models/protobuf.py", "models/tensorflow_checkpoint.py",
    "models/vggish.py", "models/weights.py", "models/yamnet.py", "sampling.py", "training.py",
)  # fmt: skip
DEMO = (*CODE, "corpora/demo")  # of those on demo worlds
SEEDS = (0, 1, 2, 3, 4)  # of the clips of real sounds and photographs
GAPS = (0.0, 3.0, 6.0, "never")  # s
GAP_SEEDS = SEEDS[:3]  # of the trainings in each world
OF_GAPS = ("two_stream", "synchronous", "audio_only")


def measure(folder: Path) -> Iterator[Results]:
    """Measure everything anew into ``folder``, one result after the other; what it held before goes at the end.

    About two hours on 2 cores; trainings are found again where it was stopped.
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
    yield measure_cvssp().write(folder)
    for gap in GAPS:
        yield measure_gap(gap).write(folder)


def measure_paired(folder: Path) -> Iterator[Results]:
    """All systems on real sounds and photographs: each seed by itself, then the means over seeds."""
    runs, loaded = [], []
    for seed in SEEDS:
        inputs = load_inputs(UnsynchronizedMIL(corpus="paired", seed=seed))
        loaded.append(inputs)
        runs.append(evaluate(inputs, run_systems(inputs), folder, CODE, cvssp_decisions(inputs)))
        yield runs[-1]
    whole = _together([inputs.corpus for inputs in loaded])
    run = Run(CHAPTER, _parameters(loaded[0], SEEDS, "paired"), whole, _device(), CODE)
    table = pd.concat([one.select(split="test") for one in runs])
    for (system, metric, label), rows in table.groupby(["system", "metric", "label"], sort=False):
        rule = rows["threshold_rule"].iloc[0]
        run.add(system, "test", metric, seed_interval(list(rows["value"])), label=label, threshold_rule=rule)
    yield run.write(folder)


def measure_cvssp() -> Run:
    """Systems (f) and (g) on the demo world of the book, beside the two-stream system as the book trains it."""
    inputs = load_inputs(UnsynchronizedMIL())
    rows = inputs.rows("test")
    proposed = decisions(inputs, run_systems(inputs, (PROPOSED,)))[PROPOSED]
    run = Run(CHAPTER, _parameters(inputs, SEEDS[:1], "cvssp"), inputs.corpus, _device(), DEMO)
    decided = {name: found[rows] for name, found in cvssp_decisions(inputs).items()}
    add_scores(run, "test", inputs.corpus.targets()[rows], decided, proposed[rows])
    return run


def cvssp_decisions(inputs: Inputs) -> dict[str, np.ndarray]:
    """What systems (g) and (f) decide of every clip, bool [clips, classes]; thresholds tuned as for all others.

    :raises ValueError: a clip has no sound.
    """
    corpus, parameters = inputs.corpus, inputs.parameters
    profile, device = gated_crnn.PROFILES[parameters.profile], choose_device(parameters.device)
    log_mel, heard = extract(gated_crnn.log_mel_feature(), corpus)
    if len(heard.clips) < len(corpus.clips):
        raise ValueError(f"{corpus.name}: the gated CRNN needs sound; {len(heard.missing)} clips have none")
    systems = {"cvssp_gated_crnn": gated_crnn.train_gated_crnn, "cvssp_fusion": gated_crnn.train_fusion}
    rows, targets, decided = inputs.rows("validation"), corpus.targets(), {}
    for name, trained in systems.items():
        scores = trained(corpus, log_mel, profile, parameters.seed, device).scores
        decided[name] = scores >= tune_thresholds(targets[rows], scores[rows], parameters.seed)
    return decided


def measure_gap(gap: float | str) -> Run:
    """Two streams beside a synchronous system where every source is seen ``gap`` s before or after it is heard.

    Trained and tested in a demo world of its own, whose sounds are those of the book's. Counts of the trainings with
    different seeds are put together, and clips are drawn for the interval with all of them.
    """
    from avrepro.corpora.demo.truth import planted_gaps

    say(f"demo world with gap {gap}")
    corpus = corpora.load("demo", gap=gap)  # type: ignore[arg-type]  # one of GAPS
    runs = [describe(UnsynchronizedMIL(seed=seed), corpus) for seed in GAP_SEEDS]
    rows = runs[0].rows("test")
    truth = np.tile(corpus.targets()[rows], len(runs))  # [clips, seeds x classes]
    found = [decisions(inputs, run_systems(inputs, OF_GAPS)) for inputs in runs]
    decided = {name: np.concatenate([one[name][rows] for one in found], axis=1) for name in OF_GAPS}
    run = Run(CHAPTER, _parameters(runs[0], GAP_SEEDS, "gap") | {"gap": gap}, corpus, _device(), DEMO)
    for name, one in decided.items():
        run.add(name, "test", "micro_f1", micro_f1_interval(truth, one), threshold_rule=TUNED)
        if name != PROPOSED:
            lead = micro_f1_interval(truth, decided[PROPOSED], one)
            run.add(name, "test", "micro_f1_lead", lead, threshold_rule=TUNED)
    run.add("corpus", "test", "planted_gap", float(planted_gaps(corpus.split("test"))["gap"].mean()))
    return run


def _parameters(inputs: Inputs, seeds: tuple[int, ...], measured: str) -> dict[str, object]:
    told = {"profile": inputs.parameters.profile, "seed": seeds[0], "seeds": list(seeds)}
    return {**told, **inputs.networks, "corpus": inputs.parameters.corpus, "measured": measured}


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
