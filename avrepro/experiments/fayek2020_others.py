"""Training the other systems of Table 3 of Fayek and Kumar (2020) on a corpus, and their checkpoints.

What the systems are is in ``models/fayek2020_others.py``. All are trained by binary cross entropy; the mean average
precision on validation clips chooses the epoch. Published numbers come from 2 million clips, ours from what there is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro import digests
from avrepro.corpora.base import Clip, Corpus
from avrepro.evaluation import average_precision
from avrepro.features.store import ClipArrays, Feature
from avrepro.files import atomic
from avrepro.home import home
from avrepro.media import read_frames
from avrepro.models.fayek2020_others import (
    HEADS,
    JointAudioVisual,
    Losses,
    ResidualAudio,
    ResidualAudioConfig,
    VideoR2Plus1D,
    VideoR2Plus1DConfig,
    blended_loss,
    blending_weights,
)
from avrepro.progress import say
from avrepro.training import Fit, Optimisation, Rows, Verdict, fit

CODE = ("evaluation/metrics.py", "experiments/fayek2020_others.py", "models/fayek2020_others.py", "training.py")
DURATION = 10.0  # s of a clip that are looked at
BATCH = 64  # clips at once where nothing is trained
SAMPLE = 64  # training clips that tell the scale of inputs


@dataclass(frozen=True)
class Profile:
    """How large the three systems are. Gradient blending trains the two networks of the others, together."""

    audio: ResidualAudioConfig
    audio_optimisation: Optimisation
    video: VideoR2Plus1DConfig
    video_optimisation: Optimisation
    frames: int  # of a clip
    size: tuple[int, int]  # height, width of a frame, px
    hidden: int  # units of the joint head's hidden layer
    measured: int  # epochs of the first trainings of gradient blending, which measure the heads
    blend_optimisation: Optimisation  # of those as of the last one

    def values(self) -> dict:
        return asdict(self)


# Small enough for about a minute each on one core with 600 clips. The validation clips of the demo world chose the rate
# and the batch: with smaller rates or larger batches next to nothing is learnt in that time. Log-mel frames are 20 ms
# apart already in profile demo; four of them are averaged to one.
SMALL = Optimisation("adam", 5e-3, batch=8, epochs=20)
DEMO = Profile(
    audio=ResidualAudioConfig(block="basic", layers=(1, 1, 1, 1), channels=(16, 32, 64, 128), stride=4),
    audio_optimisation=SMALL,
    video=VideoR2Plus1DConfig(block="basic", layers=(0, 1, 1, 1), channels=(8, 16, 32, 64)),
    video_optimisation=replace(SMALL, epochs=12),
    frames=8,
    size=(48, 64),
    hidden=64,
    measured=2,
    blend_optimisation=replace(SMALL, epochs=10),
)
PROFILES = {
    "ci": replace(
        DEMO,
        audio_optimisation=replace(SMALL, epochs=1),
        video_optimisation=replace(SMALL, epochs=1),
        measured=1,
        blend_optimisation=replace(SMALL, epochs=1),
    ),
    "demo": DEMO,
    # The depths are those of the papers named; frames, sizes and optimisation are ours.
    "paper": Profile(
        audio=ResidualAudioConfig(),
        audio_optimisation=Optimisation("adam", 1e-3, batch=64, epochs=20),
        video=VideoR2Plus1DConfig(),
        video_optimisation=Optimisation("adam", 1e-3, batch=32, epochs=20),
        frames=32,
        size=(112, 112),
        hidden=2048,
        measured=5,
        blend_optimisation=Optimisation("adam", 1e-3, batch=32, epochs=20),
    ),
}


@dataclass(frozen=True)
class Trained:
    """A trained system."""

    scores: np.ndarray  # probability of each class, float32 [clips, classes], in the order of the corpus's clips
    seconds: float  # of all its trainings, from where a killed one last went on
    parameters: int
    paths: tuple[Path, ...]  # its checkpoint
    weights: dict[str, float] = field(default_factory=dict)  # gradient blending: head -> weight of its loss


def video_frames_feature(frames: int, size: tuple[int, int]) -> Feature:
    """What the (2+1)D network sees, uint8 [frames, H, W, 3] RGB: the middles of equal parts of 10 s.

    A shorter clip goes on with its last frame.
    :param size: height and width the frames are scaled to, px; the aspect ratio is not kept.
    """
    times = (np.arange(frames) + 0.5) * DURATION / frames

    def read(clip: Clip) -> np.ndarray:
        return read_frames(clip.path, times=times, size=size)[0]

    code = digests.code("experiments/fayek2020_others.py", "media.py")
    digest = digests.of_values([frames, list(size), DURATION, code, digests.versions()])
    return Feature("video-frames", "video", digest, read, lambda decoded: decoded)


def train_resnet_audio(
    corpus: Corpus, log_mel: ClipArrays, profile: Profile, seed: int, device: torch.device
) -> Trained:
    """``resnet_audio`` (Ford et al.): trained on the train split, or taken from the checkpoint of the same training.

    :param corpus: clips in splits; ``train`` and ``validation`` are needed.
    :param log_mel: float16 or float32 [frames, mels] of each clip, in their order.
    :raises ValueError: ``log_mel`` is of other clips, or one of those splits has no clip with a label.
    """
    config = replace(profile.audio, classes=len(corpus.classes))
    data = _Data(corpus, (log_mel,), device)
    return _train_one("resnet-audio", ResidualAudio, config, profile.audio_optimisation, data, seed)


def train_r2plus1d(corpus: Corpus, frames: ClipArrays, profile: Profile, seed: int, device: torch.device) -> Trained:
    """``r2plus1d_visual`` (Wang et al.): as :func:`train_resnet_audio`.

    :param frames: :func:`video_frames_feature` of each clip, in their order.
    """
    config = replace(profile.video, classes=len(corpus.classes))
    data = _Data(corpus, (frames,), device)
    return _train_one("r2plus1d-visual", VideoR2Plus1D, config, profile.video_optimisation, data, seed)


def train_gblend(
    corpus: Corpus, log_mel: ClipArrays, frames: ClipArrays, profile: Profile, seed: int, device: torch.device
) -> Trained:
    """``gblend`` (Wang et al., offline gradient blending): as :func:`train_resnet_audio`.

    From the same initial weights each head is first trained alone, with what is below it, for ``measured`` epochs; its
    losses before and after, on all training and validation clips, give its weight. Ours: of those epochs the one with
    the least validation loss counts, for with few clips the last one may lie anywhere. Then the network starts anew
    and all heads are trained together. The scores are the joint head's; its average precision chooses the epoch.
    """
    audio = replace(profile.audio, classes=len(corpus.classes))
    video = replace(profile.video, classes=len(corpus.classes))
    optimisation = profile.blend_optimisation
    data = _Data(corpus, (log_mel, frames), device)
    settings = [audio.values(), video.values(), profile.hidden, profile.measured, optimisation.values()]
    path = data.path("gblend", settings, seed)
    if path.is_file():
        return _load(path)
    torch.manual_seed(seed)
    network = JointAudioVisual(audio, video, profile.hidden)
    network.prepare(*data.sample())
    initial = copy.deepcopy(network.to(device).state_dict())

    def run(part: str, weights: dict[str, float], epochs: int) -> Fit:
        def loss(model: nn.Module, x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
            return blended_loss(model(x, y, tuple(weights)), labels, weights)

        def judge(model: nn.Module) -> Verdict:
            verdict = data.verdict(model, "joint" if part == "network" else part)
            return verdict if part == "network" else replace(verdict, score=-verdict.loss)

        label, settings = f"G-Blend, {part}, seed {seed}", replace(optimisation, epochs=epochs)
        network.load_state_dict(initial)
        return fit(network, loss, data.training, judge, settings, seed, device, label, _state(path, part))

    start = dict.fromkeys(HEADS, data.losses(network.eval(), "audio"))  # all heads begin alike
    end, seconds = {}, 0.0
    for head in HEADS:
        seconds += run(head, {head: 1.0}, profile.measured).seconds
        end[head] = data.losses(network, head)
    weights = blending_weights(start, end)
    say(f"G-Blend, seed {seed}: weights " + ", ".join(f"{head} {weight:.3f}" for head, weight in weights.items()))
    seconds += run("network", weights, optimisation.epochs).seconds
    return _keep(path, network, "joint", data, seconds, weights)


class _Data:
    """Clips of a corpus as a system takes them; errors as of :func:`train_resnet_audio`."""

    def __init__(self, corpus: Corpus, inputs: tuple[ClipArrays, ...], device: torch.device) -> None:
        self.classes, self.all, self.device = list(corpus.classes), inputs, device
        self.rows, self.labels, self.inputs = {}, {}, {}
        for given in inputs:
            if len(given) != len(corpus.clips):
                raise ValueError(f"{corpus.name}: expected arrays of its {len(corpus.clips)} clips, found {len(given)}")
        for split in ("train", "validation"):
            rows = [row for row, clip in enumerate(corpus.clips) if clip.split == split]
            self.rows[split], self.labels[split] = rows, corpus.targets()[rows]
            self.inputs[split] = tuple(ClipArrays(tuple(given.paths[row] for row in rows)) for given in inputs)
            if not self.labels[split].any():
                raise ValueError(f"{corpus.name}: split {split} has no clip with a label; the system needs some")
        self.training: tuple[Rows, ...] = (*self.inputs["train"], self.labels["train"])

    def path(self, name: str, settings: list, seed: int) -> Path:
        """Of the checkpoint of one training of these clips; labels of test clips play no part."""
        key = digests.of_values(
            {
                "clips": [[given.digest_names for given in self.all], self.rows],
                "labels": [self.classes, {split: of.astype(int).tolist() for split, of in self.labels.items()}],
                "settings": [settings, seed, self.device.type],
                "code": digests.code(*CODE),
                "dependencies": digests.dependencies(),
            }
        )
        return home() / "models" / f"fayek2020-{name}-{key[:16]}.pt"

    def sample(self) -> list[Tensor]:
        """Some training clips of each input, and the labels of all of them: what ``prepare`` of a network takes."""
        count = len(self.rows["train"])
        rows = np.linspace(0, count - 1, min(count, SAMPLE)).astype(int)
        some = [torch.from_numpy(given[rows]).float() for given in self.inputs["train"]]
        return [*some, torch.from_numpy(self.labels["train"])]

    def logits(self, model: nn.Module, inputs: tuple[ClipArrays, ...], head: str | None) -> Tensor:
        """What the model, or its ``head``, says of clips, float32 [clips, classes] on the CPU."""
        parts = []
        with torch.inference_mode():
            for rows in torch.arange(len(inputs[0])).split(BATCH):
                batch = [torch.from_numpy(given[rows.numpy()]).float().to(self.device) for given in inputs]
                parts.append((model(*batch) if head is None else model(*batch, (head,))[head]).float().cpu())
        return torch.cat(parts)

    def verdict(self, model: nn.Module, head: str | None = None, split: str = "validation") -> Verdict:
        """Binary cross entropy, nats a clip and class, and mean average precision over the classes that occur."""
        labels, logits = self.labels[split], self.logits(model, self.inputs[split], head)
        loss = float(F.binary_cross_entropy_with_logits(logits, torch.from_numpy(labels).float()))
        return Verdict(loss, float(np.nanmean(average_precision(labels, logits.numpy()))), {})

    def losses(self, model: nn.Module, head: str) -> Losses:
        return Losses(self.verdict(model, head, "train").loss, self.verdict(model, head).loss)


def _train_one(
    name: str, kind: Callable[[Any], Any], config: Any, optimisation: Optimisation, data: _Data, seed: int
) -> Trained:
    path = data.path(name, [config.values(), optimisation.values()], seed)
    if path.is_file():
        return _load(path)
    torch.manual_seed(seed)
    network = kind(config)
    network.prepare(*data.sample())

    def loss(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(inputs), labels)

    label, state = f"{name}, seed {seed}", _state(path, "network")
    seconds = fit(network, loss, data.training, data.verdict, optimisation, seed, data.device, label, state).seconds
    return _keep(path, network, None, data, seconds, {})


def _keep(
    path: Path, network: nn.Module, head: str | None, data: _Data, seconds: float, weights: dict[str, float]
) -> Trained:
    """Write the checkpoint, then remove what a killed training would have gone on from."""
    checkpoint = {
        "scores": torch.sigmoid(data.logits(network, data.all, head)),
        "weights": network.cpu().state_dict(),
        "classes": data.classes,
        "seconds": seconds,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "blending": weights,
    }
    with atomic(path) as temporary:
        torch.save(checkpoint, temporary)
    for part in ("network", *HEADS):
        _state(path, part).unlink(missing_ok=True)
    return _load(path)


def _load(path: Path) -> Trained:
    kept = torch.load(path, map_location="cpu", weights_only=True)
    return Trained(kept["scores"].numpy(), kept["seconds"], kept["parameters"], (path,), kept["blending"])


def _state(path: Path, part: str) -> Path:
    """Where a training under way is saved: of the whole network, or of a head alone."""
    return path.with_name(f"{path.stem}-{part}.state.pt")
