"""Systems (f) and (g) of Parekh et al. (2018), Table 1: the CVSSP team's gated CRNN on log-mel, and a fusion.

Xu et al. (ICASSP 2018; Surrey-CVSSP system for DCASE 2017, task 4) and their public code say what the front end, the
sizes, the optimiser and the balanced batches are. Ours is the fusion of networks that differ by their seed alone: the
team's own was of several trainings, inputs and moments of one training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import nan
from pathlib import Path

import numpy as np
import torch

from avrepro import digests
from avrepro.corpora.base import Clip, Corpus
from avrepro.features.logmel import LogMel, slaney_filters
from avrepro.features.store import ClipArrays, Feature
from avrepro.files import atomic
from avrepro.home import home
from avrepro.media import read_audio
from avrepro.models.gated_crnn import GatedCRNN, GatedCRNNConfig, fuse
from avrepro.sampling import BalancedBatches, Drawn
from avrepro.training import Optimisation, Verdict, fit, predict

CODE = (  # of a checkpoint; models/parekh2018.py has the loss
    "experiments/gated_crnn.py",
    "models/gated_crnn.py",
    "models/parekh2018.py",
    "sampling.py",
    "training.py",
)
MEMBERS = 3  # networks of the fusion; ours


@dataclass(frozen=True)
class Profile:
    """How large the network and its training are."""

    network: GatedCRNNConfig
    batch: int  # clips
    steps: int
    learning_rate: float  # of Adam

    def values(self) -> dict:
        return asdict(self)


# Small, and pooled over time to 30 frames as the authors' other network is. Three times their rate, and no more steps
# than those after which the validation clips of the demo world no longer gain.
SMALL = GatedCRNNConfig(channels=(8, 32, 32), pool_time=(2, 2, 2), pool_mel=(4, 2, 2), features=64, hidden=64)
PROFILES = {
    "ci": Profile(SMALL, batch=12, steps=4, learning_rate=3e-3),
    "demo": Profile(SMALL, batch=24, steps=300, learning_rate=3e-3),
    # The authors' rate and batches. They average what the network says after 2000, 2100, ... 2900 steps; here it is
    # asked once, at the end.
    "paper": Profile(GatedCRNNConfig(), batch=44, steps=2900, learning_rate=1e-3),
}


@dataclass(frozen=True)
class Trained:
    """A trained network, or several of them fused."""

    scores: np.ndarray  # probability of each class, float32 [clips, classes], in the order of the corpus's clips
    seconds: float  # of the training
    paths: tuple[Path, ...]  # a checkpoint for each network


def log_mel_feature(duration: float = 10.0) -> Feature:
    """What the network hears, float16 [frames, 64]: 240 frames for ``duration`` 10 s, 24 a second.

    The authors': 16 kHz, Hamming windows of 1024 samples every 664, none of them beyond the clip's ends; magnitudes,
    scaled so that their squares are a power density; 64 filters on Slaney's mel scale from 0 to 8000 Hz; log(x + 1e-8).
    Ours: a shorter clip ends in silence before the transform, where they append zeros to its logarithm.
    """
    front_end = LogMel(
        sample_rate=16_000,
        window=1024,
        hop=664,
        fft=1024,
        filters=slaney_filters(64, 1024, 16_000),
        power=1,
        offset=1e-8,
    )
    hamming = np.hamming(1024)
    front_end.window.copy_(torch.from_numpy(hamming / np.sqrt(front_end.sample_rate * (hamming**2).sum())))

    def read(clip: Clip) -> np.ndarray:
        return read_audio(clip.path, front_end.sample_rate, duration=duration)

    def compute(waveform: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return front_end(torch.from_numpy(waveform)[None])[0].numpy().astype(np.float16)

    code = digests.code("experiments/gated_crnn.py", "features/logmel.py", "media.py")
    return Feature("logmel-xu2018", "audio", digests.of_values([duration, code, digests.versions()]), read, compute)


def train_gated_crnn(corpus: Corpus, log_mel: ClipArrays, profile: Profile, seed: int, device: torch.device) -> Trained:
    """System (g): trained on the weak labels of the train split in balanced batches, or taken from its checkpoint.

    Nothing is chosen by validation clips: the weights after the last step are kept.

    :param corpus: clips that all have sound. :param log_mel: :func:`log_mel_feature` of each, in their order.
    :raises ValueError: ``log_mel`` is of other clips, or none is in the train split.
    """
    if len(log_mel) != len(corpus.clips):
        raise ValueError(
            f"{corpus.name}: expected log-mel arrays of its {len(corpus.clips)} clips, found {len(log_mel)}"
        )
    config = replace(profile.network, classes=len(corpus.classes))
    rows = np.array([row for row, clip in enumerate(corpus.clips) if clip.split == "train"], dtype=int)
    labels = corpus.targets()[rows]
    key = digests.of_values(
        {
            "clips": [log_mel.digest_names, rows.tolist()],
            "labels": [list(corpus.classes), labels.astype(int).tolist()],
            "settings": [profile.values(), seed, device.type],
            "code": digests.code(*CODE),
            "dependencies": digests.dependencies(),
        }
    )
    path = home() / "models" / f"gated-crnn-{key[:16]}.pt"
    if path.is_file():
        kept = torch.load(path, map_location="cpu", weights_only=True)
        return Trained(kept["scores"].numpy(), kept["seconds"], (path,))

    torch.manual_seed(seed)
    model = GatedCRNN(config)
    heard = ClipArrays(tuple(log_mel.paths[row] for row in rows))
    batches = BalancedBatches(labels, profile.batch, seed)
    sample = heard[np.linspace(0, len(rows) - 1, min(len(rows), 256)).astype(int)]
    model.prepare(torch.from_numpy(sample).float(), torch.from_numpy(labels).float())
    label = f"gated CRNN, seed {seed}"
    fitted = fit(
        model,
        lambda network, x, y: network.loss(network(x), y),
        (Drawn(heard, batches, profile.steps, label), Drawn(labels, batches, profile.steps)),
        lambda network: Verdict(nan, 0.0, {}),
        Optimisation("adam", profile.learning_rate, batch=1, epochs=1),
        seed,
        device,
        label,
    )
    scores = predict(model, log_mel, device)
    model.cpu()
    checkpoint = {
        "config": config.values(),
        "weights": model.state_dict(),
        "classes": list(corpus.classes),
        "scores": torch.from_numpy(scores),
        "seconds": fitted.seconds,
    }
    with atomic(path) as temporary:
        torch.save(checkpoint, temporary)
    return Trained(scores, fitted.seconds, (path,))


def train_fusion(corpus: Corpus, log_mel: ClipArrays, profile: Profile, seed: int, device: torch.device) -> Trained:
    """System (f): the mean of what several networks say, of which :func:`train_gated_crnn` with ``seed`` is the first.

    Arguments as there. Fusions of different seeds below 1000 share no network.
    """
    members = [train_gated_crnn(corpus, log_mel, profile, seed + 1000 * member, device) for member in range(MEMBERS)]
    scores = fuse([member.scores for member in members])
    return Trained(scores, sum(member.seconds for member in members), tuple(member.paths[0] for member in members))
