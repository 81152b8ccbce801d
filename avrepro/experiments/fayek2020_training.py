"""Training the audio model, the visual model and the fusions of Fayek and Kumar (2020)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avrepro import digests
from avrepro.evaluation import average_precision
from avrepro.experiments.fayek2020_profiles import Profile
from avrepro.features.store import ClipArrays
from avrepro.files import atomic
from avrepro.home import home
from avrepro.models.fayek2020 import AudioConvNet, Fusions, VisualNetwork, clip_loss, co_supervised
from avrepro.models.li2017 import mix_clips
from avrepro.training import Optimisation, Rows, Verdict, fit, predict

CODE = (  # of a checkpoint
    "evaluation/metrics.py", "experiments/fayek2020_training.py", "models/fayek2020.py", "models/li2017.py",
    "training.py",
)  # fmt: skip
SAMPLE = {"log-mel": 256, "pictures": 10_000}  # training clips that normalisation is taken from


@dataclass(frozen=True)
class Split:
    """Clips that a model learns from or is chosen on: what it reads, and bool [clips, classes]."""

    inputs: tuple[Rows, ...]
    targets: Rows


@dataclass(frozen=True)
class Trained:
    """A trained network and how its training went."""

    network: nn.Module
    score: float  # mean average precision on validation, 0..1
    history: list[dict[str, float]]
    seconds: float
    path: Path

    @property
    def parameters(self) -> int:
        """Numbers that were trained."""
        return sum(one.numel() for one in self.network.parameters() if one.requires_grad)


def train_audio(
    train: Split, validation: Split, profile: Profile, seed: int, device: torch.device, generations: int, weight: float
) -> list[Trained]:
    """The audio model's generations: the first learns from labels, each other one also from the one before.

    Sequential co-supervision (Kumar and Ithapu 2020): a student's targets are (1 - weight) y + weight p with p what its
    teacher, the previous generation, says of the training clips. Every generation begins anew.

    :param train, validation: log-mel, float [clips, frames, 64].
    """
    config = replace(profile.audio, classes=_classes(train))
    log_mel, labels = train.inputs[0], _labels(train)
    found: list[Trained] = []
    for generation in range(generations):
        targets = labels
        if found:
            teacher = torch.from_numpy(predict(found[-1].network, log_mel, device))
            targets = co_supervised(labels, teacher, weight)

        def build() -> nn.Module:
            network = AudioConvNet(config)
            network.prepare(_sample(log_mel, SAMPLE["log-mel"]), labels)
            return network

        def loss(network: nn.Module, log_mel: Tensor, targets: Tensor) -> Tensor:
            log_mel, targets = mix_clips(log_mel, targets, profile.mixing)
            return clip_loss(network(log_mel), targets)

        earlier = found[-1].path.stem if found else ""
        settings = {"config": config.values(), "mixing": profile.mixing, "teacher": [earlier, weight if found else 0]}
        label = f"audio model, generation {generation}"
        found.append(
            _train(
                label, build, loss, (log_mel, targets), validation, profile.audio_optimisation, seed, device, settings
            )
        )
    return found


def train_visual(train: Split, validation: Split, profile: Profile, seed: int, device: torch.device) -> Trained:
    """The visual model; of the learning rates the one with the highest validation mAP is taken (section 4.2).

    :param train, validation: mean features of the clips' frames, float [clips, d].
    """
    features = train.inputs[0]
    config = replace(profile.visual, classes=_classes(train), inputs=int(np.shape(features[np.arange(1)])[1]))

    def build() -> nn.Module:
        network = VisualNetwork(config)
        network.prepare(_sample(features, SAMPLE["pictures"]), _labels(train))
        return network

    def loss(network: nn.Module, features: Tensor, targets: Tensor) -> Tensor:
        return clip_loss(network(features), targets)

    tried = []
    for rate in profile.visual_rates:
        optimisation = replace(profile.visual_optimisation, learning_rate=rate)
        settings = {"config": config.values()}
        data = (features, _labels(train))
        label = f"visual model, rate {rate:g}"
        tried.append(_train(label, build, loss, data, validation, optimisation, seed, device, settings))
    return max(tried, key=lambda one: one.score)


@dataclass(frozen=True)
class TrainedFusions:
    """Fusions by name, each of the learning rate that validation chose for it."""

    banks: dict[str, Fusions]  # several names share one
    rates: dict[str, float]
    validation_map: dict[str, float]
    seconds: float  # of all trainings together
    paths: tuple[Path, ...]

    def scores(self, name: str, audio: Rows, visual: Rows, device: torch.device) -> np.ndarray:
        """Probabilities of one fusion, float32 [clips, classes]; audio and visual are the outputs h_a and h_v."""
        bank = self.banks[name].to(device)
        at = list(bank.members).index(name)
        return _by_batch(lambda h_a, h_v: bank(h_a, h_v)[:, at], (audio, visual), device)

    def weights(self, name: str, audio: Rows, visual: Rows, device: torch.device) -> np.ndarray:
        """alpha_a of one attention fusion, float32 [clips, classes]."""
        bank = self.banks[name].to(device)
        return _by_batch(lambda h_a, h_v: bank.weights(h_a, h_v, name), (audio, visual), device)


def train_fusions(
    names: tuple[str, ...],
    train: Split,
    validation: Split,
    moments: tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    frequencies: np.ndarray,
    profile: Profile,
    seed: int,
    device: torch.device,
) -> TrainedFusions:
    """Train fusions side by side, in one pass over the data an epoch, once for each learning rate.

    Outputs may be memory maps larger than memory. Every fusion keeps its best epoch on validation; a training that was
    killed goes on after its last epoch, on a CPU with the same numbers.

    :param train, validation: outputs of the audio and of the visual model, 0..1, each [clips, classes].
    :param moments: mean and deviation of the training clips' outputs, of audio and of visual, each [classes].
    :param frequencies: share of the training clips that have each class, [classes].
    """
    classes = _classes(train)
    held = np.asarray(validation.targets[np.arange(len(validation.targets))], dtype=bool)

    def build() -> nn.Module:
        bank = Fusions(names, classes, profile.fusion_units)
        audio, visual = ((torch.from_numpy(m).float(), torch.from_numpy(d).float()) for m, d in moments)
        bank.prepare(audio, visual, torch.from_numpy(frequencies).float())
        return bank

    def loss(bank: nn.Module, audio: Tensor, visual: Tensor, targets: Tensor) -> Tensor:
        return bank.loss(audio, visual, targets)  # type: ignore[operator]

    tried: dict[float, Trained] = {}
    for rate in profile.fusion_rates:

        def validate(bank: nn.Module) -> Verdict:
            scores = _by_batch(lambda h_a, h_v: bank(h_a, h_v, best=False), validation.inputs, device)
            bank.keep_best({name: mean_ap(held, scores[:, at]) for at, name in enumerate(names)})  # type: ignore[operator]
            # It rises whenever one of them does, so the state that is kept holds the best epoch of each.
            return Verdict(float("nan"), float(bank.best_scores.mean()), {})  # type: ignore[operator]

        optimisation = replace(profile.fusion_optimisation, learning_rate=rate)
        settings = {"names": names, "units": profile.fusion_units}
        data = (*train.inputs, train.targets)
        label = f"fusions, rate {rate:g}"
        tried[rate] = _train(label, build, loss, data, validation, optimisation, seed, device, settings, validate)
    best = {
        name: max(tried, key=lambda rate: float(tried[rate].network.best_scores[at]))  # type: ignore[index]
        for at, name in enumerate(names)
    }
    return TrainedFusions(
        {name: tried[rate].network for name, rate in best.items()},  # type: ignore[misc]
        best,
        {name: float(tried[best[name]].network.best_scores[at]) for at, name in enumerate(names)},  # type: ignore[index]
        sum(one.seconds for one in tried.values()),
        tuple(one.path for one in tried.values()),
    )


def mean_ap(targets: np.ndarray, scores: np.ndarray) -> float:
    """Mean average precision over the classes that have a positive clip; both [clips, classes]."""
    found = average_precision(targets, scores)
    return float(np.nanmean(found)) if np.isfinite(found).any() else 0.0


def load(path: Path, network: nn.Module) -> Trained:
    """Read a checkpoint of a network of the same sizes.

    :raises RuntimeError: it does not fit.
    """
    kept = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(kept["weights"])
    return Trained(network.eval(), kept["score"], kept["history"], kept["seconds"], path)


def _train(
    label: str,
    build: Callable[[], nn.Module],
    loss: Callable[..., Tensor],
    data: tuple[Any, ...],
    validation: Split,
    optimisation: Optimisation,
    seed: int,
    device: torch.device,
    settings: dict[str, Any],
    validate: Callable[[nn.Module], Verdict] | None = None,
) -> Trained:
    """Train what ``build`` builds, or take the checkpoint of the very same training."""
    key = digests.of_values(
        {
            "data": [_fingerprint(rows) for rows in (*data, *validation.inputs, validation.targets)],
            "settings": [label, settings, optimisation.values(), seed, device.type],
            "code": digests.code(*CODE),
            "dependencies": digests.dependencies(),
        }
    )
    path = home() / "models" / f"fayek2020-{label.split(',')[0].replace(' ', '-')}-{key[:16]}.pt"
    torch.manual_seed(seed)
    network = build()
    if path.is_file():
        return load(path, network)
    held = _labels(validation)

    def by_map(network: nn.Module) -> Verdict:
        scores = predict(network, validation.inputs[0], device)
        return Verdict(float(clip_loss(torch.from_numpy(scores), held)), mean_ap(held.numpy() > 0, scores), {})

    partial = path.with_suffix(".partial")
    fitted = fit(network, loss, data, validate or by_map, optimisation, seed, device, label, state_path=partial)
    kept = {
        "weights": network.cpu().state_dict(),
        "score": fitted.best.score,
        "history": fitted.history,
        "seconds": fitted.seconds,
    }
    with atomic(path) as temporary:
        torch.save(kept, temporary)
    partial.unlink()
    return load(path, network)


def _fingerprint(rows: Any) -> Any:
    """What identifies data: of clips their files' digests, of a memory map its file, of an array its contents."""
    if isinstance(rows, ClipArrays):
        return rows.digest_names
    if isinstance(rows, np.memmap):
        file = Path(str(rows.filename))
        return [str(file), rows.shape, str(rows.dtype), rows.offset, file.stat().st_mtime_ns]
    array = np.ascontiguousarray(rows.numpy() if isinstance(rows, Tensor) else rows)
    return [hashlib.sha256(array.tobytes()).hexdigest(), array.shape, str(array.dtype)]


def _by_batch(
    function: Callable[[Tensor, Tensor], Tensor], rows: Sequence[Rows], device: torch.device, batch: int = 4096
) -> np.ndarray:
    """Run a function over rows of several arrays, float32 NumPy array of its outputs."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows[0]), batch):
            at = np.arange(start, min(start + batch, len(rows[0])))
            given = [torch.from_numpy(np.asarray(one[at])).float().to(device) for one in rows]
            parts.append(function(*given).float().cpu())
    return torch.cat(parts).numpy()


def _sample(rows: Rows, most: int) -> Tensor:
    """At most so many clips, evenly spread."""
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)
    return torch.from_numpy(np.asarray(rows[chosen])).float()


def _labels(split: Split) -> Tensor:
    return torch.from_numpy(np.asarray(split.targets[np.arange(len(split.targets))])).float()


def _classes(split: Split) -> int:
    return int(np.shape(split.targets[np.arange(1)])[1])
