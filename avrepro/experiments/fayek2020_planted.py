"""Does attention follow what it should? How far fusions rely on sound, beside what was planted in the demo world."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.stats
import torch

from avrepro.corpora.base import Corpus
from avrepro.corpora.demo.description import load_world_description
from avrepro.corpora.demo.truth import read_events, read_sights
from avrepro.evaluation import Interval, metric_interval
from avrepro.experiments.fayek2020 import Inputs, Systems
from avrepro.results import Run
from avrepro.training import choose_device

FEWEST = 5  # clips of a class for a rank correlation
RESAMPLES = 500
OF = ("attention", "mlp", "regression")


def add_planted(run: Run, inputs: Inputs, systems: Systems) -> None:
    """Rank correlations of reliance on sound with planted signal-to-noise ratio and visibility, on the test clips.

    Over the clips in which a class sounds, class by class, then the mean over classes.
    """
    test, rows = inputs.corpus.split("test"), inputs.rows("test")
    snr = planted_snr(test)
    sounding = np.where(np.isnan(snr), np.nan, planted_visibility(test))  # asked of clips in which the class sounds
    planted = {"snr": snr, "visible": sounding}
    rates = {(name, ""): reliance(inputs, systems, name)[rows] for name in OF if name in systems.models.fusions.banks}
    if "attention" in systems.weights:
        rates["attention", "weight_"] = systems.weights["attention"][rows]
    for (name, prefix), rate in rates.items():
        for what, truth in planted.items():
            metric = f"{prefix}{what}_correlation"
            run.add(name, "test", metric, _interval(mean_correlation, truth, rate))
            for k, label in enumerate(test.classes):
                if np.isfinite(one := correlations(truth[:, [k]], rate[:, [k]])[0]):
                    run.add(name, "test", metric, float(one), label=label)


def planted_snr(corpus: Corpus) -> np.ndarray:
    """Signal-to-noise ratio of the loudest event of each class, dB, [clips, classes]; NaN where it does not sound."""
    return _table(corpus, read_events(corpus).groupby(["clip", "label"])["snr_db"].max(), np.nan)


def planted_visibility(corpus: Corpus) -> np.ndarray:
    """Share 0..1 of each class's source that is in view, mean over the clip's frames, [clips, classes]."""
    sights, told = read_sights(corpus), load_world_description().clip
    frames = round(told.seconds * told.frames_per_second)
    best = sights.groupby(["clip", "label", "frame"])["visible"].max()
    return _table(corpus, best.groupby(["clip", "label"]).sum() / frames, 0.0)


def reliance(inputs: Inputs, systems: Systems, name: str) -> np.ndarray:
    """How far a fusion relies on sound, whether it has attention or not: 0..1, [clips, classes].

    The share of sound in the gradient of a class's output, |d o / d h_a| / (|d o / d h_a| + |d o / d h_v|), each length
    over all normalised inputs of a modality. It is the same for all clips in a linear fusion.
    """
    device = choose_device(inputs.parameters.device)
    bank = systems.models.fusions.banks[name].to(device)
    outputs = [torch.from_numpy(systems.scores[one]).to(device) for one in ("audio", "visual")]
    h_a, h_v = (one.clone().requires_grad_() for one in bank.normalised(*outputs))
    logits = bank.best[name](h_a, h_v)
    shares = []
    for k in range(logits.shape[1]):  # clips do not mix, so the gradient of the sum is each clip's own
        grads = torch.autograd.grad(logits[:, k].sum(), (h_a, h_v), retain_graph=True)
        of_a, of_v = (grad.norm(dim=1) for grad in grads)
        shares.append(of_a / (of_a + of_v).clamp(min=1e-12))
    return torch.stack(shares, dim=1).cpu().numpy()


def correlations(truth: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each class, -1..1, over the clips whose truth is known; both [clips, classes].

    0 where the rate is the same for all clips: it follows nothing. NaN for fewer than 5 clips or equal truths.
    """
    found = np.full(truth.shape[1], np.nan)
    for k in range(truth.shape[1]):
        known = ~np.isnan(truth[:, k])
        a, b = truth[known, k], rate[known, k]
        if len(a) < FEWEST or np.ptp(a) == 0:
            continue
        found[k] = 0 if np.ptp(b) < 1e-6 else np.corrcoef(scipy.stats.rankdata(a), scipy.stats.rankdata(b))[0, 1]
    return found


def mean_correlation(truth: np.ndarray, rate: np.ndarray) -> float:
    """Mean over the classes in which there is one."""
    found = correlations(truth, rate)
    return float(np.nanmean(found)) if np.isfinite(found).any() else np.nan


def _interval(metric: Callable[..., float], truth: np.ndarray, rate: np.ndarray) -> Interval:
    return metric_interval(metric, truth, rate, resamples=RESAMPLES)


def _table(corpus: Corpus, values: object, nothing: float) -> np.ndarray:
    """A series by clip and label as [clips, classes]."""
    wide = values.unstack("label")  # type: ignore[attr-defined]
    wide = wide.reindex(index=[clip.id for clip in corpus.clips], columns=list(corpus.classes))
    return wide.fillna(nothing).to_numpy(dtype=np.float64)
