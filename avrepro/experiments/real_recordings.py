"""The systems of Li et al. (2017) on real recordings and photographs.

The recordings are not part of the project, so these numbers are measured once, by ``avrepro results --measure``, and
committed with their passports. Three measurements: the sound branch on ESC-10, the picture branch on photographs,
and both on clips rendered of real sounds and photographs (corpus ``paired``).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from avrepro import digests
from avrepro.corpora.base import Clip, Corpus
from avrepro.corpora.esc10 import DURATION, FOLDS, folds, load_esc10
from avrepro.corpora.paired import published_folder
from avrepro.corpora.paired_items import read_items
from avrepro.corpora.paired_render import read_photograph
from avrepro.evaluation import metric_interval, seed_interval
from avrepro.experiments.li2017 import load_inputs, log_mel_feature, run_branches
from avrepro.experiments.li2017_evaluation import CHAPTER, evaluate
from avrepro.experiments.li2017_profiles import PROFILES
from avrepro.features.store import ClipArrays, Feature, extract
from avrepro.features.words import (
    clip_objects,
    corrected_similarities,
    map_objects_to_events,
    packaged_glove,
    similarities,
)
from avrepro.files import atomic
from avrepro.manifests import manifest_path
from avrepro.media import read_audio
from avrepro.models.efficientnet import EfficientNetLite0
from avrepro.models.li2017 import train_audio
from avrepro.models.yamnet import YAMNet
from avrepro.parameters import LightweightFusion
from avrepro.progress import say, track
from avrepro.results import Results, Run
from avrepro.training import choose_device, device_name

CODE = (  # what the numbers of real recordings depend on; they are committed
    "corpora/base.py", "corpora/esc10.py", "corpora/paired.py", "corpora/paired_items.py", "corpora/paired_render.py",
    "encode.py", "evaluation/intervals.py", "evaluation/metrics.py", "evaluation/thresholds.py",
    "experiments/li2017.py", "experiments/li2017_evaluation.py", "experiments/li2017_profiles.py",
    "experiments/real_recordings.py", "features/key_frames.py", "features/logmel.py", "features/objects.py",
    "features/store.py", "features/words.py", "media.py", "models/efficientnet.py", "models/li2017.py",
    "models/protobuf.py", "models/tensorflow_checkpoint.py", "models/weights.py", "models/yamnet.py", "training.py",
)  # fmt: skip
SEEDS = (0, 1, 2, 3, 4)  # of the clips of real sounds and photographs
ESC10_SEEDS = SEEDS[:3]
ESC10_EPOCHS = 40  # of 240 recordings: 800 steps, where the demo world's 600 clips have 1,100 in 22 epochs


def measure(folder: Path) -> Iterator[Results]:
    """Measure everything anew, one result after the other; at the end they take the place of those in ``folder``.

    One to two hours on 2 cores. What was stopped leaves ``folder`` as it was, and its trainings are found again.
    """
    device = choose_device("auto")
    with TemporaryDirectory() as name:
        fresh = Path(name)
        yield measure_photographs(device).write(fresh)
        yield measure_esc10(device).write(fresh)
        runs, corpora = [], []
        for seed in SEEDS:
            inputs = load_inputs(LightweightFusion(corpus="paired", seed=seed))
            corpora.append(inputs.corpus)
            runs.append(evaluate(inputs, run_branches(inputs), fresh, CODE))
            yield runs[-1]
        yield summarise(runs, corpora, device).write(fresh)
        replace_results(folder, fresh)


def replace_results(folder: Path, fresh: Path) -> None:
    """Put this chapter's results in ``fresh`` into ``folder``, and take older ones away: no number is there twice."""
    folder.mkdir(parents=True, exist_ok=True)
    new = {path.name for path in fresh.glob("*.parquet")}
    for name in new:
        with atomic(folder / name) as temporary:
            shutil.copyfile(fresh / name, temporary)
    for path in folder.glob(f"{CHAPTER}-*.parquet"):
        if path.name not in new:
            path.unlink()


def summarise(runs: Sequence[Results], corpora: Sequence[Corpus], device: torch.device) -> Run:
    """Means over runs that differ in nothing but their seeds, with intervals over seeds; of the test clips alone.

    The clips that the passport counts are those of all runs together.
    """
    digest = digests.of_values([corpus.digest for corpus in corpora])
    clips = tuple(clip for corpus in corpora for clip in corpus.clips)
    missing = tuple(clip for corpus in corpora for clip in corpus.missing)
    whole = replace(corpora[0], clips=clips, missing=missing, digest=digest)
    run = Run(CHAPTER, _parameters(whole, SEEDS), whole, device_name(device), CODE)
    table = pd.concat([one.select(split="test") for one in runs])
    for (system, metric, label), rows in table.groupby(["system", "metric", "label"], sort=False):
        rule = rows["threshold_rule"].iloc[0]
        run.add(system, "test", metric, seed_interval(list(rows["value"])), label=label, threshold_rule=rule)
    return run


def measure_esc10(device: torch.device) -> Run:
    """Accuracy on ESC-10 by its five folds: the CRNN of Li et al., and a linear probe on YAMNet as a reference.

    Each recording is tested once by a system that heard none of its fold. The CRNN learns from three folds and
    chooses its epoch on a fourth; the probe learns from four. A recording has the class with the highest score.
    """
    corpus = load_esc10()
    run = Run(CHAPTER, _parameters(corpus, ESC10_SEEDS), corpus, device_name(device), CODE)
    truth = corpus.targets().argmax(axis=1)
    log_mel, _ = extract(log_mel_feature(DURATION), corpus)
    seconds, right = [], []
    for seed in ESC10_SEEDS:
        scores = np.zeros((len(truth), len(corpus.classes)), dtype=np.float32)
        for fold in range(1, FOLDS + 1):
            say(f"ESC-10, seed {seed}, fold {fold} of {FOLDS}")
            tested = folds(corpus) == fold
            trained, found = _train(corpus, log_mel, fold, seed, device, tested)
            scores[tested] = found
            seconds.append(trained)
        right.append(scores.argmax(axis=1) == truth)
    run.add("audio", "", "training_seconds", float(np.mean(seconds)))
    _add_accuracies(run, "audio", np.array(right), truth)
    _add_accuracies(run, "linear probe on YAMNet", (_probe(corpus, device) == truth)[None], truth)
    return run


def _train(
    corpus: Corpus, log_mel: ClipArrays, fold: int, seed: int, device: torch.device, tested: np.ndarray
) -> tuple[float, np.ndarray]:
    """Seconds of the training with one fold held out, and the scores of that fold."""
    validated = folds(corpus) == fold % FOLDS + 1
    parts = []
    for chosen in (~tested & ~validated, validated, tested):
        rows = np.flatnonzero(chosen)
        parts.append((ClipArrays(tuple(log_mel.paths[row] for row in rows)), corpus.targets()[rows]))
    profile = PROFILES["demo"]
    settings = replace(profile.optimisation, epochs=ESC10_EPOCHS)
    branch = train_audio(parts[0], parts[1], corpus.classes, profile.crnn, settings, seed, device, profile.mixing)
    return branch.seconds, branch.scores(parts[2][0], device)


def _probe(corpus: Corpus, device: torch.device) -> np.ndarray:
    """Class of each recording by logistic regression on its mean YAMNet embedding, int [clips]; nothing is tuned."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    embeddings, _ = extract(yamnet_feature(device), corpus)
    truth, found = corpus.targets().argmax(axis=1), np.zeros(len(corpus.clips), dtype=int)
    for fold in range(1, FOLDS + 1):
        tested = folds(corpus) == fold
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        found[tested] = probe.fit(embeddings[~tested], truth[~tested]).predict(embeddings[tested])
    return found


def yamnet_feature(device: torch.device) -> Feature:
    """Mean of YAMNet's embeddings over a recording's patches, float32 [1024]."""
    network = YAMNet.pretrained().to(device)

    def read(clip: Clip) -> np.ndarray:
        return read_audio(clip.path, network.sample_rate, duration=DURATION)

    def compute(waveform: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(waveform)[1].mean(dim=0).cpu().numpy()

    code = digests.code("features/logmel.py", "media.py", "models/yamnet.py")
    digest = digests.of_values([DURATION, code, digests.versions()])
    return Feature("yamnet-mean", "audio", digest, read, compute)


def measure_photographs(device: torch.device) -> Run:
    """Accuracy of the zero-shot picture branch, photograph by photograph, over all labels that have photographs."""
    corpus = photographs()
    run = Run(CHAPTER, _parameters(corpus, ()), corpus, device_name(device), CODE)
    truth = corpus.targets().argmax(axis=1)
    for system, found in nearest_events(corpus, device).items():
        _add_accuracies(run, system, (found == truth)[None], truth)
    return run


def photographs() -> Corpus:
    """The photographs of corpus ``paired``, each a clip of its own in split ``test``."""
    table = manifest_path("paired.csv")
    folder = published_folder(table)
    items = [item for item in read_items(folder, table) if item.modality == "image"]
    labels = tuple(sorted({item.label for item in items}))
    clips = tuple(Clip(item.path, folder / item.path, "test", (item.label,)) for item in items)
    digest = digests.of_values([[item.path, item.sha256, item.label] for item in items])
    return Corpus("paired, photographs", labels, clips, (), digest)


def nearest_events(corpus: Corpus, device: torch.device) -> dict[str, np.ndarray]:
    """System -> the class that each photograph's objects are nearest to, int [clips]; nothing learns from them.

    The ImageNet network names objects, word vectors take them to the classes (section 2.2.2), with plain phrases as
    in the paper and with corrected ones.
    """
    network = EfficientNetLite0.pretrained(device=device)
    told = [
        network.probabilities(read_photograph(clip.path)[None])[0]
        for clip in track(corpus.clips, "objects in photographs", unit="photographs")
    ]
    objects, vectors = clip_objects(np.array(told)[:, None]), packaged_glove()
    similarity = {
        "video, plain words": similarities(network.classes, corpus.classes, vectors),
        "video, corrected words": corrected_similarities(network.classes, corpus.classes, vectors),
    }
    return {system: map_objects_to_events(objects, one).argmax(axis=1) for system, one in similarity.items()}


def _parameters(corpus: Corpus, seeds: Sequence[int]) -> dict[str, object]:
    return {"profile": "demo", "seed": 0, "seeds": list(seeds), "corpus": corpus.name}


def _add_accuracies(run: Run, system: str, right: np.ndarray, truth: np.ndarray) -> None:
    """Accuracy over all clips and of each class; ``right`` is bool [seeds, clips], averaged over seeds first."""
    mean = right.mean(axis=0)

    def accuracy(_: np.ndarray, share: np.ndarray) -> float:
        return float(share.mean())

    run.add(system, "test", "accuracy", metric_interval(accuracy, truth, mean))
    for k, label in enumerate(run.corpus.classes):
        of_class = mean[truth == k]
        run.add(system, "test", "class_accuracy", metric_interval(accuracy, of_class, of_class), label=label)
    if len(right) > 1:
        run.add(system, "test", "accuracy_sd_over_seeds", float(right.mean(axis=1).std(ddof=1)))
