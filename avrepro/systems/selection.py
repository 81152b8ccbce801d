"""Training of systems whose epoch and learning rate are those with the highest mAP on validation clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.evaluation import average_precision
from avrepro.features.store import ClipArrays, Feature
from avrepro.systems.base import Checkpoint, Data
from avrepro.training import Optimisation, Rows, Validation, fit

CHUNK = 4096  # rows that are read at a time


@dataclass(frozen=True)
class Selected:
    """Some rows of an array or memory map, which are read when they are asked for."""

    array: Any
    rows: np.ndarray  # int [rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.asarray(self.array[self.rows[rows]])


def usable(data: Data, split: str, *features: Feature) -> tuple[np.ndarray, tuple[ClipArrays, ...]]:
    """Rows of a split's clips that have the streams of all features, int [clips], and those features of them."""
    arrays, rows = [data.arrays(one) for one in features], data.rows(split)
    rows = rows[np.all([one.present[rows] for one in arrays], axis=0)]
    return rows, tuple(one.select(rows) for one in arrays)


def train(
    label: str,
    build: Callable[[], nn.Module],
    loss: Callable[..., Tensor],
    inputs: tuple[Rows, ...],
    judge: Callable[[nn.Module], Validation],
    optimisation: Optimisation,
    seed: int,
    device: torch.device,
    state_path: Path,
    rates: Sequence[float] = (),
) -> Checkpoint:
    """Train what ``build`` builds, and keep the best epoch of the best learning rate.

    :param loss, inputs: as of :func:`avrepro.training.fit`; the last of the inputs are labels.
    :param judge: validation of a model in evaluation mode, such as :func:`judged`.
    :param rates: tried one after the other; empty: that of ``optimisation``.
    :raises ValueError: fewer than two training clips, of which no batch can be normalised.
    """
    if len(inputs[0]) < 2:
        raise ValueError(f"{label}: expected at least 2 training clips, found {len(inputs[0])}")
    rates = rates or (optimisation.learning_rate,)
    paths = [state_path] if len(rates) == 1 else [state_path.with_suffix(f".{rate:g}.partial") for rate in rates]
    tried: dict[float, Checkpoint] = {}
    for rate, path in zip(rates, paths, strict=True):
        torch.manual_seed(seed)
        model = build()
        fitted = fit(
            model, loss, inputs, replace(optimisation, learning_rate=rate), seed, device, f"{label}, rate {rate:g}",
            validate=judge, state_path=path,
        )  # fmt: skip
        numbers = {"rate": rate, "best_epoch": fitted.best_epoch, "validation_map": fitted.best.score}
        count = sum(one.numel() for one in model.parameters() if one.requires_grad)
        tried[rate] = Checkpoint(model.cpu().state_dict(), numbers, fitted.history, fitted.seconds, count)
    for path in paths:
        if path != state_path:  # that one is removed by whoever gave it
            path.unlink(missing_ok=True)
    best = max(tried.values(), key=lambda one: one.numbers["validation_map"])
    by_rate = [[rate, one.numbers["validation_map"]] for rate, one in tried.items()]
    seconds = sum(one.seconds for one in tried.values())
    return replace(best, numbers=best.numbers | {"rates": by_rate}, seconds=seconds)


def judged(probability: np.ndarray, truth: np.ndarray) -> Validation:
    """Binary cross entropy and mAP; probabilities 0..1 and labels, [clips, classes]."""
    entropy = F.binary_cross_entropy(torch.from_numpy(probability), torch.from_numpy(truth).float())
    return Validation(float(entropy), mean_ap(truth, probability))


def mean_ap(truth: np.ndarray, scores: np.ndarray) -> float:
    """Mean average precision over the classes that have a positive clip; both [clips, classes]."""
    found = average_precision(truth, scores)
    return float(np.nanmean(found)) if np.isfinite(found).any() else 0.0


def predict_chunks(
    model: Callable[..., Tensor], inputs: Sequence[Rows], device: torch.device, chunk: int = CHUNK
) -> np.ndarray:
    """Run a model over rows of several arrays, float32 NumPy array of its outputs."""
    parts = []
    with torch.inference_mode():
        for rows in np.array_split(np.arange(len(inputs[0])), range(chunk, len(inputs[0]), chunk)):
            batch = [torch.from_numpy(np.asarray(one[rows])).float().to(device) for one in inputs]
            parts.append(model(*batch).float().cpu())
    return torch.cat(parts).numpy()


def moments(rows: Rows) -> Tensor:
    """Mean and deviation of each column, float32 [2, columns]; a chunk at a time."""
    total, squares = 0.0, 0.0
    chunks = np.array_split(np.arange(len(rows)), range(CHUNK, len(rows), CHUNK))
    for chunk in chunks:
        total = total + np.asarray(rows[chunk], np.float64).sum(axis=0)
    mean = total / len(rows)
    for chunk in chunks:
        squares = squares + ((np.asarray(rows[chunk], np.float64) - mean) ** 2).sum(axis=0)
    return torch.from_numpy(np.stack([mean, np.sqrt(squares / len(rows))])).float()


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """At most ``most`` of ``count`` rows, int."""
    return np.linspace(0, count - 1, min(count, most)).astype(int)
