"""Training a system of Parekh et al. (2018) on weak labels, its thresholds and its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from avrepro import digests
from avrepro.corpora.base import Corpus
from avrepro.evaluation import tune_thresholds
from avrepro.experiments.parekh2018_profiles import Profile
from avrepro.files import atomic
from avrepro.home import home
from avrepro.models.caffenet import CaffeNet
from avrepro.models.parekh2018 import Bags, MILConfig, MILNetwork, locate, score
from avrepro.sampling import BalancedBatches, Drawn
from avrepro.training import Optimisation, Verdict, fit

CODE = (  # of a checkpoint
    "evaluation/metrics.py", "evaluation/thresholds.py", "experiments/parekh2018_training.py", "models/parekh2018.py",
    "sampling.py", "training.py",
)  # fmt: skip


class CheckpointError(ValueError):
    """A file that is no checkpoint of a system, or one of a system that knows other features."""


@dataclass(frozen=True)
class Trained:
    """A trained system; thresholds are tuned for F1 on the validation clips (section 4, metrics)."""

    system: str
    network: MILNetwork
    classes: tuple[str, ...]
    thresholds: np.ndarray  # [classes]; positive where the score reaches it
    seconds: float
    path: Path

    def scores(self, regions: Bags | None, segments: Bags | None, device: torch.device) -> np.ndarray:
        """phi(V; w), float32 [clips, classes]."""
        return score(self.network, regions, segments, device)

    def located(self, regions: Bags | None, segments: Bags | None, device: torch.device) -> dict[str, list[np.ndarray]]:
        """D by modality, [proposals, classes] of each clip; ``seconds`` for the synchronous system."""
        found = locate(self.network, regions, segments, device)
        return {"seconds": found["segments"]} if self.system == "synchronous" else found


def train(
    name: str,
    config: MILConfig,
    corpus: Corpus,
    bags: tuple[Bags | None, Bags | None],
    profile: Profile,
    seed: int,
    device: torch.device,
    features: dict[str, object],
) -> Trained:
    """Train a system on split ``train`` for a fixed number of steps, or take the checkpoint of the very same training.

    Adam at a fixed rate, batches in which rare classes are not rare (section 4). Validation clips choose the
    thresholds and nothing else.

    :param bags: regions and segments of all clips of the corpus, as far as the system looks at them.
    :param features: what the bags are made of, kept with the weights.
    """
    targets = corpus.targets()
    train_rows, validation_rows = (
        np.array([row for row, clip in enumerate(corpus.clips) if clip.split == split])
        for split in ("train", "validation")
    )
    key = digests.of_values(
        {
            "system": name,
            "corpus": [corpus.digest, [clip.id for clip in corpus.clips], targets.astype(int).tolist()],
            "settings": [config.values(), profile.values(), features, seed, device.type],
            "code": digests.code(*CODE),
            "dependencies": digests.dependencies(),
        }
    )
    path = home() / "models" / f"parekh2018-{name.replace('_', '-')}-{key[:16]}.pt"
    if path.is_file():
        return load_trained(path, features)

    torch.manual_seed(seed)
    network = MILNetwork(config)
    chosen = [None if one is None else one.select(train_rows) for one in bags]
    if profile.scaled:
        network.prepare(chosen[0], chosen[1])
    if profile.image_network == "caffenet" and network.regions is not None:
        network.fine_tune(CaffeNet.pretrained())
    batches = BalancedBatches(targets[train_rows], profile.batch, seed)
    inputs = [Drawn(targets[train_rows], batches, profile.steps, f"training {name.replace('_', ' ')}, seed {seed}")]
    for used in chosen:
        if used is not None:
            inputs += [Drawn(used, batches, profile.steps), Drawn(used.mask, batches, profile.steps)]

    def loss(model: MILNetwork, labels: Tensor, *given: Tensor) -> Tensor:
        parts = iter(given)
        regions = (next(parts), next(parts)) if bags[0] is not None else (None, None)
        segments = (next(parts), next(parts)) if bags[1] is not None else (None, None)
        return model.loss(model(*regions, *segments), labels)

    # Each row is a whole batch and all of them are one epoch: nothing is chosen in between.
    once = Optimisation("adam", profile.learning_rate, batch=1, epochs=1)
    fitted = fit(network, loss, tuple(inputs), _no_verdict, once, seed, device, name)
    held = [None if used is None else used.select(validation_rows) for used in bags]
    scores = score(network, held[0], held[1], device)
    thresholds = tune_thresholds(targets[validation_rows], scores, seed)
    checkpoint = {
        "system": name,
        "config": config.values(),
        "weights": network.cpu().state_dict(),
        "classes": list(corpus.classes),
        "thresholds": thresholds.tolist(),
        "features": features,
        "seconds": fitted.seconds,
    }
    with atomic(path) as temporary:
        torch.save(checkpoint, temporary)
    return load_trained(path, features)


def load_trained(path: Path, features: dict[str, object]) -> Trained:
    """Read a checkpoint that :func:`train` wrote.

    :param features: what the proposals to be scored are made of.
    :raises CheckpointError: names the file, what was expected and what was found.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        network = MILNetwork(MILConfig(**checkpoint["config"]))
        network.load_state_dict(checkpoint["weights"])
        sizes = {len(checkpoint["classes"]), len(checkpoint["thresholds"]), network.config.classes}
        if len(sizes) != 1:
            raise ValueError(f"classes, thresholds and outputs differ in number: {sizes}")
        learnt_on = checkpoint["features"]
    except Exception as error:  # torch.load raises anything from EOFError to IndexError for files that are not its own
        raise CheckpointError(
            f"{path}: expected a checkpoint of a system (system, config, weights, classes, thresholds, features), "
            f"found something else: {error}. Train one with `avrepro run unsynchronized_mil`."
        ) from error
    if digests.of_values(learnt_on) != digests.of_values(features):
        raise CheckpointError(
            f"{path}: it was trained on features {learnt_on}, this run's are {features}. Use its profile."
        )
    return Trained(
        checkpoint["system"],
        network.eval(),
        tuple(checkpoint["classes"]),
        np.array(checkpoint["thresholds"]),
        checkpoint["seconds"],
        path,
    )


def _no_verdict(model: nn.Module) -> Verdict:
    return Verdict(float("nan"), 0.0, {})
