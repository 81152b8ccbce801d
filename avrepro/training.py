"""The one training loop: minimise, ask the validation clips after each epoch, keep the best."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from avrepro.files import atomic
from avrepro.progress import say, track
from avrepro.sampling import BalancedBatches


class Rows(Protocol):
    """Clips in rows: an array, a memory map, or files that are read when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclass(frozen=True)
class Selected:
    """Some rows of an array or memory map, which are read when they are asked for."""

    array: np.ndarray
    rows: np.ndarray  # int [rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.asarray(self.array[self.rows[rows]])


@dataclass(frozen=True)
class Optimisation:
    """How a model is trained."""

    optimiser: Literal["sgd", "adam"]
    learning_rate: float
    batch: int  # clips
    epochs: int
    steps: int = 0  # balanced batches an epoch; 0: every clip once
    momentum: float = 0.0  # Nesterov, sgd alone
    weight_decay: float = 0.0
    clip_norm: float | None = None  # largest norm of the gradient; None: not clipped
    clip_value: float | None = None  # largest absolute value of each number of the gradient
    decay: float = 1.0  # factor of the learning rate ...
    patience: int = 3  # ... when the validation loss has not fallen for so many epochs

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        if self.optimiser == "sgd":
            return torch.optim.SGD(
                parameters,
                self.learning_rate,
                self.momentum,
                nesterov=self.momentum > 0,
                weight_decay=self.weight_decay,
            )
        return torch.optim.Adam(parameters, self.learning_rate, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Validation:
    """How the model does on the validation clips after an epoch."""

    loss: float  # steers the learning rate
    score: float  # chooses the best epoch; higher is better


@dataclass(frozen=True)
class Fit:
    """How a training went, which left the best epoch's weights in the model."""

    best_epoch: int
    history: list[dict[str, float]]  # one row an epoch: epoch, loss, validation_loss, validation_score, learning_rate
    seconds: float  # of training, those before an interruption included


def fit(
    model: nn.Module,
    loss: Callable[..., Tensor],
    inputs: Sequence[Rows],
    settings: Optimisation,
    seed: int,
    device: torch.device,
    label: str,
    validate: Callable[[nn.Module], Validation] | None = None,
    state_path: Path | None = None,
) -> Fit:
    """Train ``model`` in place and leave it with the weights of its best epoch.

    :param loss: called with the model and one batch of each of ``inputs``, on ``device``.
    :param inputs: arrays of the same length (clips), the last of weak labels; half precision and integers become
        float32 by batch. NumPy arrays may be memory maps: only a batch at a time is read.
    :param validate: called after each epoch with the model in evaluation mode; None: the last epoch is the best.
    :param seed: of the order of clips and of dropout.
    :param state_path: where each epoch is saved, so that a killed training goes on from its last epoch
        (on a CPU with the very same numbers); removed at the end by whoever keeps the result.
    """
    model.to(device)
    optimiser = settings.build(model.parameters())
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=settings.decay, patience=settings.patience - 1, threshold=0.0  # the least fall counts
    ) if settings.decay < 1 else None  # fmt: skip
    batches = BalancedBatches(np.asarray(inputs[-1]), settings.batch, seed) if settings.steps else None
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    history: list[dict[str, float]] = []
    best_epoch, best_weights, before = 0, {}, 0.0
    if state_path is not None and state_path.is_file():
        state = torch.load(state_path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        if plateau is not None:
            plateau.load_state_dict(state["plateau"])
        order.set_state(state["order"].cpu())
        torch.set_rng_state(state["random"].cpu())
        history, best_epoch, best_weights = state["history"], state["best_epoch"], state["best_weights"]
        before = state["seconds"]
        say(f"{label}: goes on after epoch {len(history)}")

    start = time.monotonic() - before
    for epoch in range(len(history) + 1, settings.epochs + 1):
        model.train()
        total, count = torch.zeros((), device=device), 0
        rows_of_batches = list(_rows(len(inputs[0]), settings, order, batches, epoch))
        for rows in track(rows_of_batches, label, unit="batches") if settings.steps else rows_of_batches:
            batch = [_take(array, rows).to(device, non_blocking=True) for array in inputs]
            optimiser.zero_grad(set_to_none=True)
            batch_loss = loss(model, *batch)
            batch_loss.backward()
            if settings.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            if settings.clip_value is not None:
                nn.utils.clip_grad_value_(model.parameters(), settings.clip_value)
            optimiser.step()
            total += batch_loss.detach() * len(rows)
            count += len(rows)
        model.eval()
        with torch.inference_mode():
            found = validate(model) if validate is not None else Validation(float("nan"), float(epoch))
        history.append(
            {
                "epoch": epoch,
                "loss": float(total) / count,
                "validation_loss": found.loss,
                "validation_score": found.score,
                "learning_rate": optimiser.param_groups[0]["lr"],
            }
        )
        if plateau is not None:
            plateau.step(found.loss)
        if not best_epoch or found.score > history[best_epoch - 1]["validation_score"]:
            best_epoch, best_weights = epoch, copy.deepcopy(model.state_dict())
        line = f"{label}: epoch {epoch} / {settings.epochs}, loss {history[-1]['loss']:.4f}"
        if validate is not None:
            line += f", validation loss {found.loss:.4f}, score {found.score:.3f} (best in epoch {best_epoch})"
        say(f"{line}, {time.monotonic() - start:.0f} s")
        if state_path is not None:
            state = {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "plateau": plateau.state_dict() if plateau is not None else {},
                "order": order.get_state(),
                "random": torch.get_rng_state(),
                "history": history,
                "best_epoch": best_epoch,
                "best_weights": best_weights,
                "seconds": time.monotonic() - start,
            }
            with atomic(state_path) as path:
                torch.save(state, path)
    model.load_state_dict(best_weights)
    model.eval()
    return Fit(best_epoch, history, time.monotonic() - start)


def _rows(
    clips: int, settings: Optimisation, order: torch.Generator, batches: BalancedBatches | None, epoch: int
) -> Iterator[Tensor]:
    """Rows of each batch of an epoch."""
    if batches is None:
        # A last batch of one clip has no deviation to be normalised by: it joins the batch before it.
        parts = list(torch.randperm(clips, generator=order).split(settings.batch))
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        yield from parts
    else:
        for number in torch.randperm(settings.steps, generator=order):
            yield torch.from_numpy(batches[(epoch - 1) * settings.steps + int(number)])


def in_batches(inputs: Sequence[Rows], device: torch.device, batch: int = 64) -> Iterator[list[Tensor]]:
    """Arrays of the same length, so many clips at a time and in their order, as float32 on ``device``."""
    for rows in torch.arange(len(inputs[0])).split(batch):
        yield [_take(array, rows).to(device) for array in inputs]


def predict(model: Callable[..., Tensor], inputs: Sequence[Rows], device: torch.device, batch: int = 64) -> np.ndarray:
    """Run a model over clips: its outputs for arrays of the same length, float32."""
    with torch.inference_mode():
        parts = [model(*arrays).float().cpu() for arrays in in_batches(inputs, device, batch)]
    return torch.cat(parts).numpy()


def choose_device(name: str) -> torch.device:
    """``auto`` takes the GPU where there is one.

    :raises ValueError: if a GPU is asked for and none is there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device = 'cuda', but torch sees no GPU; use device = 'cpu' or 'auto'")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """``cpu``, or what the GPU calls itself; for passports."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _take(array: Rows, rows: Tensor) -> Tensor:
    batch = array[rows] if isinstance(array, Tensor) else torch.from_numpy(np.asarray(array[rows.numpy()]))
    return batch.float()
