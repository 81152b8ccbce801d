"""Li et al. (2017): a CRNN that learns frames from clip labels by max-pooling MIL; fusion with pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from avrepro import digests
from avrepro.evaluation import tagging_scores, tune_thresholds
from avrepro.features.store import ClipArrays
from avrepro.files import atomic
from avrepro.home import home
from avrepro.training import Optimisation, Verdict, fit, predict

CODE = ("evaluation/metrics.py", "evaluation/thresholds.py", "models/li2017.py", "training.py")  # of a checkpoint


class CheckpointError(ValueError):
    """A file that is no checkpoint of the audio branch."""


@dataclass(frozen=True)
class CRNNConfig:
    """Sizes of the network. The paper gives frame rates, GRU and dropout (section 3.2); the rest is open."""

    classes: int = 17
    mels: int = 60
    channels: tuple[int, ...] = (32, 64, 128)  # open in the paper; doubled at each pooling as usual
    pool_time: tuple[int, ...] = (5, 2, 2)  # 200 Hz -> 10 Hz
    pool_mel: tuple[int, ...] = (3, 2, 2)  # 60 bands -> 5
    stride_time: int = 1  # of the first convolution; more trades detail for speed
    hidden: int = 100  # GRU units in each direction
    dropout: float = 0.2

    def values(self) -> dict:
        return asdict(self)


class CRNN(nn.Module):
    """Log-mel spectrogram -> probability of each class in each frame; :meth:`clip` pools them.

    Li et al. (2017), section 3.2 and the left branch of figure 2. Batch normalisation after each
    convolution and 3 x 3 kernels are ours: the paper does not say.
    """

    deviation: Tensor

    def __init__(self, config: CRNNConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("deviation", torch.ones(config.mels))  # of each band; part of the checkpoint
        layers: list[nn.Module] = []
        inputs, stride = 1, config.stride_time
        for outputs, time, mel in zip(config.channels, config.pool_time, config.pool_mel, strict=True):
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1, stride=(stride, 1), bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
                nn.MaxPool2d((time // stride, mel)),
                nn.Dropout(config.dropout),
            ]
            inputs, stride = outputs, 1
        self.convolutions = nn.Sequential(*layers)
        bands = config.mels
        for mel in config.pool_mel:
            bands //= mel
        self.gru = nn.GRU(inputs * bands, config.hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(2 * config.hidden, config.classes)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Frame-wise logits.

        :param log_mel: float [clips, frames, mels], 200 frames a second.
        :returns: float [clips, frames / 20, classes]; the sigmoid of it is P(e_k | x_ij).
        """
        # Less each band's mean over the clip: microphone and steady background go, events stay.
        scaled = (log_mel - log_mel.mean(dim=1, keepdim=True)) / self.deviation
        maps = self.convolutions(scaled.unsqueeze(1))  # (B, C, T, M)
        sequence = maps.permute(0, 2, 1, 3).flatten(2)  # (B, T, C * M)
        hidden, _ = self.gru(sequence)  # (B, T, 2 * H)
        return self.classify(self.dropout(hidden))  # (B, T, K)

    def clip(self, log_mel: Tensor) -> Tensor:
        """Clip-wise logits, float [clips, classes]: section 2.1, P(e_k | x_i) = max_j P(e_k | x_ij).

        The sigmoid grows with its argument, so the maximum of the logits is the logit of the maximum;
        only the maximal frame of a clip receives gradient.
        """
        return self(log_mel).amax(dim=1)  # (B, K)

    def prepare(self, log_mel: Tensor, weak_labels: Tensor) -> None:
        """Fit what is not trained by gradient: the bands' deviations, and the first guess of each class.

        :param log_mel: float [clips, frames, mels] of training clips.
        :param weak_labels: 0 or 1, [clips, classes]; the bias of the output starts at the log odds of its means, so
            that training does not begin by unlearning a half for every class.
        """
        self.deviation.copy_((log_mel - log_mel.mean(dim=1, keepdim=True)).std(dim=(0, 1)).clamp(min=1e-3))
        with torch.no_grad():
            self.classify.bias.copy_(torch.logit(weak_labels.mean(dim=0), eps=1e-3))


def mil_loss(clip_logits: Tensor, weak_labels: Tensor) -> Tensor:
    """Cross entropy averaged over clips and classes (section 2.1, L(x)); both [clips, classes], labels 0 or 1."""
    return nn.functional.binary_cross_entropy_with_logits(clip_logits, weak_labels)


def mix_clips(log_mel: Tensor, weak_labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Lay another clip of the batch over a random ``share`` of the clips; ours, for corpora of few clips.

    Energies add, and so do bags: the mixture holds the instances of both clips and therefore the labels of both.

    :param log_mel: float [clips, frames, mels]; ``weak_labels``: 0 or 1, [clips, classes].
    """
    if share == 0:  # and no random number is drawn
        return log_mel, weak_labels
    chosen = (torch.rand(len(log_mel)) < share).nonzero()[:, 0].to(log_mel.device)
    others = torch.randperm(len(log_mel)).to(log_mel.device)[chosen]
    mixed, united = log_mel.clone(), weak_labels.clone()
    mixed[chosen] = torch.logaddexp(log_mel[chosen], log_mel[others])
    united[chosen] = torch.maximum(weak_labels[chosen], weak_labels[others])
    return mixed, united


@dataclass(frozen=True)
class AudioBranch:
    """The trained audio branch: a network, its thresholds, and how it was trained."""

    model: CRNN
    thresholds: np.ndarray  # [classes], tuned on the validation clips
    classes: tuple[str, ...]
    best_epoch: int
    history: list[dict[str, float]]
    seconds: float  # of the training, on the device of the passport
    path: Path  # its checkpoint

    def scores(self, log_mel: ClipArrays, device: torch.device) -> np.ndarray:
        """P(e_k | x_i) of each clip, float32 [clips, classes]."""
        self.model.to(device).eval()
        return predict(lambda batch: torch.sigmoid(self.model.clip(batch)), log_mel, device)


def train_audio(
    train: tuple[ClipArrays, np.ndarray],
    validation: tuple[ClipArrays, np.ndarray],
    classes: tuple[str, ...],
    config: CRNNConfig,
    settings: Optimisation,
    seed: int,
    device: torch.device,
    mixing: float = 0.0,
) -> AudioBranch:
    """Train the audio branch (section 3.2), or take the checkpoint of the very same training.

    Thresholds are tuned on the validation clips after each epoch, and the epoch with the highest
    validation micro F1 is kept (section 3.3).

    :param train: log-mel arrays [frames, mels] of the training clips and their weak labels, bool [clips, classes].
    :param validation: likewise.
    :param mixing: share of training clips that another clip is laid over (:func:`mix_clips`).
    """
    config = replace(config, classes=len(classes))
    key = digests.of_values(
        {
            "clips": [train[0].digest_names, validation[0].digest_names],
            "labels": [part[1].astype(int).tolist() for part in (train, validation)],
            "settings": [config.values(), settings.values(), mixing, seed, device.type],
            "code": digests.code(*CODE),
            "dependencies": digests.dependencies(),
        }
    )
    path = home() / "models" / f"li2017-{key[:16]}.pt"
    if path.is_file():
        return load_audio(path)

    torch.manual_seed(seed)
    model = CRNN(config)
    _channels_last(model)
    sample = train[0][np.linspace(0, len(train[0]) - 1, min(len(train[0]), 256)).astype(int)]
    model.prepare(torch.from_numpy(sample).float(), torch.from_numpy(train[1]).float())
    targets = torch.from_numpy(validation[1]).float()

    def loss(network: CRNN, log_mel: Tensor, labels: Tensor) -> Tensor:
        log_mel, labels = mix_clips(log_mel, labels, mixing)
        return mil_loss(network.clip(log_mel), labels)

    def validate(network: nn.Module) -> Verdict:
        logits = torch.from_numpy(predict(network.clip, validation[0], device))  # type: ignore[arg-type]
        scores = torch.sigmoid(logits).numpy()
        thresholds = tune_thresholds(validation[1], scores, seed)
        score = tagging_scores(validation[1], scores >= thresholds).f1
        return Verdict(float(mil_loss(logits, targets)), score, {"thresholds": thresholds.tolist()})

    fitted = fit(
        model,
        loss,
        (train[0], train[1]),
        validate,
        settings,
        seed,
        device,
        "audio branch",
        state_path=path.with_suffix(".partial"),
    )
    model.cpu()
    checkpoint = {
        "config": config.values(),
        "weights": model.state_dict(),
        "classes": list(classes),
        "thresholds": fitted.best.notes["thresholds"],
        "best_epoch": fitted.best_epoch,
        "history": fitted.history,
        "seconds": fitted.seconds,
    }
    with atomic(path) as temporary:
        torch.save(checkpoint, temporary)
    path.with_suffix(".partial").unlink()
    return load_audio(path)


def load_audio(path: Path) -> AudioBranch:
    """Read a checkpoint that :func:`train_audio` wrote.

    :raises CheckpointError: names the file, what was expected and what was found.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        model = CRNN(CRNNConfig(**checkpoint["config"]))
        model.load_state_dict(checkpoint["weights"])
        _channels_last(model)
        sizes = {len(checkpoint["classes"]), len(checkpoint["thresholds"]), model.config.classes}
        if len(sizes) != 1:
            raise ValueError(f"classes, thresholds and outputs differ in number: {sizes}")
        return AudioBranch(
            model.eval(),
            np.array(checkpoint["thresholds"]),
            tuple(checkpoint["classes"]),
            checkpoint["best_epoch"],
            checkpoint["history"],
            checkpoint["seconds"],
            path,
        )
    except Exception as error:  # torch.load raises anything from EOFError to IndexError for files that are not its own
        raise CheckpointError(
            f"{path}: expected a checkpoint of the audio branch (a dictionary with config, weights, classes, "
            f"thresholds, history), found something else: {error}. Train one with `avrepro run lightweight_fusion`."
        ) from error


def _channels_last(model: CRNN) -> None:
    """Lay the convolutions' weights out by pixel: a third quicker on CPUs, the same numbers."""
    for parameter in model.convolutions.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def fuse(audio: np.ndarray, video: np.ndarray, video_weights: np.ndarray) -> np.ndarray:
    """Section 2.3: the weighted average of both branches' probabilities, a weight a class.

    :param audio: [clips, classes]; ``video`` likewise.
    :param video_weights: [classes], 0..1; the audio branch has the rest.
    """
    return video_weights * video + (1 - video_weights) * audio


def papers_weights(audio_class_f1: np.ndarray, video_class_f1: np.ndarray) -> np.ndarray:
    """Section 3.4: the video branch weighs 0.8 in the classes where it is better on validation, else 0.2."""
    return np.where(video_class_f1 > audio_class_f1, 0.8, 0.2)


def tuned_weights(y_true: np.ndarray, audio: np.ndarray, video: np.ndarray, seed: int = 0) -> np.ndarray:
    """Weights "tuned toward achieving the best overall F1" (section 2.3), on the validation clips.

    Ours: from the paper's weights on, classes in a random order take the weight out of 0, 0.1, ... 1 that gives
    the highest micro F1 (thresholds of the fused scores tuned anew each time), until a round changes nothing.

    :returns: weight of the video branch, [classes].
    """
    grid = np.linspace(0, 1, 11)
    rng = np.random.default_rng(seed)

    def class_f1(scores: np.ndarray) -> np.ndarray:
        return tagging_scores(y_true, scores >= tune_thresholds(y_true, scores, seed)).class_f1

    def micro_f1(weights: np.ndarray) -> float:
        fused = fuse(audio, video, weights)
        return tagging_scores(y_true, fused >= tune_thresholds(y_true, fused, seed)).f1

    weights = papers_weights(class_f1(audio), class_f1(video))
    best, changed = micro_f1(weights), True
    while changed:
        changed = False
        for column in rng.permutation(len(weights)):
            for weight in grid:
                trial = weights.copy()
                trial[column] = weight
                found = micro_f1(trial)
                if found > best:
                    weights, best, changed = trial, found, True
    return weights


@dataclass(frozen=True)
class Fusion:
    """What the validation clips settle: weights of the video branch and the thresholds of each system, [classes]."""

    papers_weights: np.ndarray
    tuned_weights: np.ndarray
    thresholds: dict[str, np.ndarray]  # by system

    def save(self, audio: AudioBranch) -> Path:
        """Keep the fusion beside its audio branch in one checkpoint; returns its path."""
        checkpoint = torch.load(audio.path, weights_only=True)
        checkpoint["fusion"] = {
            "papers_weights": self.papers_weights.tolist(),
            "tuned_weights": self.tuned_weights.tolist(),
            "thresholds": {name: values.tolist() for name, values in self.thresholds.items()},
        }
        key = digests.of_values([audio.path.name, checkpoint["fusion"]])  # one audio branch has many fusions
        path = audio.path.with_name(f"lightweight-fusion-{key[:16]}.pt")
        with atomic(path) as temporary:
            torch.save(checkpoint, temporary)
        return path

    @classmethod
    def load(cls, path: Path) -> Fusion:
        """:raises CheckpointError: if the checkpoint holds an audio branch and no fusion."""
        fusion = torch.load(path, map_location="cpu", weights_only=True).get("fusion")
        if fusion is None:
            raise CheckpointError(f"{path}: holds an audio branch without its fusion; use a lightweight-fusion-*.pt")
        thresholds = {name: np.array(values) for name, values in fusion["thresholds"].items()}
        return cls(np.array(fusion["papers_weights"]), np.array(fusion["tuned_weights"]), thresholds)
