"""Both models of Fayek and Kumar (2020) and their fusions in one file, to score clips too few to train on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avrepro import digests
from avrepro.experiments.fayek2020_training import Trained, TrainedFusions
from avrepro.files import atomic
from avrepro.home import home
from avrepro.models.fayek2020 import AudioConfig, AudioConvNet, Fusions, VisualConfig, VisualNetwork


class CheckpointError(ValueError):
    """A file that does not hold these models, or models that know other features."""


@dataclass(frozen=True)
class Models:
    """Trained models: what hears, by generation, what sees, and what fuses what the two say."""

    classes: tuple[str, ...]
    audio: list[Trained]
    visual: Trained
    fusions: TrainedFusions
    features: dict[str, object]  # what they read


def save_models(models: Models) -> Path:
    """Write the last generation, the visual model and the fusions; the same models have the same name."""
    audio, visual = models.audio[-1], models.visual
    banks = {
        bank: [name for name, its in models.fusions.banks.items() if its is bank]
        for bank in models.fusions.banks.values()
    }
    kept = {
        "classes": list(models.classes),
        "features": models.features,
        "audio": _state(audio),
        "visual": _state(visual),
        "fusions": [
            {"names": list(bank.members), "used": used, "units": bank.units, "weights": bank.cpu().state_dict()}
            for bank, used in banks.items()
        ],
        "rates": models.fusions.rates,
        "validation_map": models.fusions.validation_map,
        "seconds": models.fusions.seconds,
    }
    key = digests.of_values([str(path.name) for path in (audio.path, visual.path, *models.fusions.paths)])
    path = home() / "models" / f"attention-fusion-{key[:16]}.pt"
    with atomic(path) as temporary:
        torch.save(kept, temporary)
    return path


def load_models(path: Path, features: dict[str, object]) -> Models:
    """Read what :func:`save_models` wrote.

    :param features: what the clips to be scored are described by.
    :raises CheckpointError: names the file, what was expected and what was found.
    """
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        classes = tuple(kept["classes"])
        audio = AudioConvNet(AudioConfig(**kept["audio"]["config"]))
        visual = VisualNetwork(VisualConfig(**kept["visual"]["config"]))
        parts = [(audio, kept["audio"]), (visual, kept["visual"])]
        banks: dict[str, Fusions] = {}
        for one in kept["fusions"]:
            bank = Fusions(tuple(one["names"]), len(classes), one["units"])
            parts.append((bank, one))
            banks |= dict.fromkeys(one["used"], bank)
        for network, told in parts:
            network.load_state_dict(told["weights"])
            network.eval()
        hearing, seeing = (Trained(network, told["score"], [], told["seconds"], path) for network, told in parts[:2])
        fusions = TrainedFusions(banks, kept["rates"], kept["validation_map"], kept["seconds"], (path,))
        learnt_on = kept["features"]
    except Exception as error:  # torch.load raises anything from EOFError to IndexError for files that are not its own
        raise CheckpointError(
            f"{path}: expected a checkpoint of both models and their fusions, found something else "
            f"({type(error).__name__}). Train one with `avrepro run attention_fusion`."
        ) from error
    if digests.of_values(learnt_on) != digests.of_values(features):
        raise CheckpointError(
            f"{path}: it was trained on features {learnt_on}, this run's are {features}. Use its profile."
        )
    return Models(classes, [hearing], seeing, fusions, learnt_on)


def _state(trained: Trained) -> dict[str, Any]:
    network = trained.network.cpu()
    config = network.config.values()  # type: ignore[operator]
    return {"config": config, "weights": network.state_dict(), "score": trained.score, "seconds": trained.seconds}
