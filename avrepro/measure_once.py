"""What is measured in a way of its own: costs, sound on ESC-10, and photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from avrepro import protocol
from avrepro.corpora.base import Clip, Corpus
from avrepro.corpora.esc10 import DURATION, FOLDS, folds, load_esc10
from avrepro.corpora.paired import published_folder
from avrepro.corpora.paired_items import read_items
from avrepro.corpora.paired_render import read_photograph
from avrepro.costs import costs_of
from avrepro.evaluation import metric_interval
from avrepro.features import events_seen
from avrepro.features.audio import segment_embeddings
from avrepro.home import home
from avrepro.manifests import manifest_path
from avrepro.progress import track
from avrepro.recipes import digest
from avrepro.results import Run
from avrepro.systems import SYSTEMS, Checkpoint, Condition, Data, li2017
from avrepro.training import choose_device

ESC10_SEEDS = (0, 1, 2)
ESC10_EPOCHS = 40  # of 240 recordings: 800 steps, where the demo world's 600 clips have 1,100 in 22 epochs
PROBE = "yamnet/linear_probe"  # reference on ESC-10
PHOTOGRAPHS = "paired, photographs"  # name of the corpus


def measure_costs(names: Sequence[str], condition: Condition) -> Run:
    """What every system costs, one after the other."""
    data = protocol.load(condition)
    run = Run("side_by_side", "costs", condition, (condition.seed,), [data.corpus])
    for name in track(names, "costs", unit="systems"):
        for metric, value in costs_of(protocol.fit(name, condition), data).items():
            run.add(name, metric, value)
    return run


# --- ESC-10 ----------------------------------------------------------------------------------------------------------


def measure_esc10(names: Sequence[str], condition: Condition) -> Run:
    """Accuracy on ESC-10 by its five folds: the CRNN of Li et al., and a linear probe on YAMNet as a reference.

    Each recording is tested once by a system that was not trained on its fold. The CRNN is trained on three folds and
    validated on a fourth; the probe, of which nothing is tuned, on four. A recording has the class that scores highest.
    """
    longer = replace(li2017.DEMO.optimisation, epochs=ESC10_EPOCHS)
    condition = replace(condition, options=(("optimisation", longer),))
    corpus = load_esc10()
    run = Run("lightweight_fusion", "esc10", condition, ESC10_SEEDS, [corpus])
    (name,) = names
    truth = corpus.targets().argmax(axis=1)
    seconds, right = [], []
    for seed in ESC10_SEEDS:
        found = np.zeros(len(truth), dtype=int)
        for fold in range(1, FOLDS + 1):
            data = of_fold(corpus, fold, replace(condition, seed=seed))
            checkpoint = _trained(name, data, fold)
            found[data.rows("test")] = SYSTEMS[name].scores(checkpoint, data, {})[data.rows("test")].argmax(axis=1)
            seconds.append(checkpoint.seconds)
        right.append(found == truth)
    run.add(name, "training_seconds", float(np.mean(seconds)))
    _add_accuracies(run, name, np.array(right), truth)
    _add_accuracies(run, PROBE, (_probe(corpus) == truth)[None], truth)
    return run


def of_fold(corpus: Corpus, fold: int, condition: Condition) -> Data:
    """ESC-10 with one fold for testing, the next for validation and the others for training."""
    splits = {fold: "test", fold % FOLDS + 1: "validation"}
    pairs = zip(corpus.clips, folds(corpus), strict=True)
    clips = tuple(replace(clip, split=splits.get(int(own), "train")) for clip, own in pairs)
    return Data(replace(corpus, clips=clips), condition, choose_device(condition.device))


def _trained(name: str, data: Data, fold: int) -> Checkpoint:
    """Its training's last state stays, so that a measurement which was stopped goes on where it was."""
    system, condition = SYSTEMS[name], data.condition
    key = digest([system.recipe(condition).key, data.corpus.digest, fold, condition.seed, data.device.type])
    state = home() / "models" / f"{name.replace('/', '-')}-esc10-{key[:16]}.state"
    return system.fit(data, {}, condition.seed, state)


def _probe(corpus: Corpus) -> np.ndarray:
    """Class of each recording by logistic regression on its mean YAMNet embedding, int [clips]."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    device = choose_device("auto")
    segments = Data(corpus, Condition("esc10"), device).arrays(segment_embeddings("yamnet", device, DURATION))
    embeddings = np.stack([one.mean(axis=0, dtype=np.float32) for one in segments])
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    truth = corpus.targets().argmax(axis=1)
    return cross_val_predict(probe, embeddings, truth, cv=PredefinedSplit(folds(corpus)))


# --- photographs -----------------------------------------------------------------------------------------------------


def measure_photographs(names: Sequence[str], condition: Condition) -> Run:
    """Accuracy of the zero-shot picture branch, photograph by photograph, over all labels that have photographs."""
    corpus = photographs()
    run = Run("lightweight_fusion", "photographs", condition, (0,), [corpus])
    truth = corpus.targets().argmax(axis=1)
    for name in names:
        found = nearest_events(corpus, corrected=name == "li2017/video_corrected")
        _add_accuracies(run, name, (found == truth)[None], truth)
    return run


def photographs() -> Corpus:
    """The photographs of corpus ``paired``, each a clip of its own in split ``test``."""
    table = manifest_path("paired.csv")
    folder = published_folder(table)
    items = [item for item in read_items(table, folder) if item.modality == "image"]
    labels = tuple(sorted({item.label for item in items}))
    clips = tuple(Clip(item.path, folder / item.path, "test", (item.label,)) for item in items)
    return Corpus(PHOTOGRAPHS, labels, clips, (), digest([[item.path, item.sha256, item.label] for item in items]))


def nearest_events(corpus: Corpus, corrected: bool = False) -> np.ndarray:
    """The class that each photograph's objects are nearest to, int [clips]; nothing is learnt from them."""
    clips = track(corpus.clips, "objects in photographs", unit="photographs")
    scores = [events_seen(read_photograph(clip.path)[None], corpus.classes, corrected) for clip in clips]
    return np.concatenate(scores).argmax(axis=1)


def _add_accuracies(run: Run, system: str, right: np.ndarray, truth: np.ndarray) -> None:
    """Accuracy over all clips and of each class; ``right`` is bool [seeds, clips], averaged over seeds first."""
    mean = right.mean(axis=0)
    run.add(system, "accuracy", metric_interval(np.mean, mean), split="test")
    for k, label in enumerate(run.corpora[0].classes):
        run.add(system, "class_accuracy", metric_interval(np.mean, mean[truth == k]), split="test", label=label)
