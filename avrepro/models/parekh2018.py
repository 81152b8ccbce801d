"""Parekh et al. (2018): multiple-instance learning over image regions and audio segments that need not be in step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.models.caffenet import CaffeNet

System = Literal["two_stream", "audio_only", "video_only", "wsddn", "one_stream"]  # (a), (b), (c), (d), (e) of Table 1


@dataclass(frozen=True)
class MILConfig:
    """Which system, and its sizes; the defaults are the paper's (section 4, implementation details)."""

    system: System = "two_stream"
    classes: int = 17
    region_features: int = 9216  # conv5 of CaffeNet in 6 x 6 cells of each region, 256 x 6 x 6
    segment_features: int = 128  # VGGish; YAMNet has 1024
    region_units: int = 4096  # fc6 and fc7, each
    segment_units: int = 128
    dropout: float = 0.5  # after fc6 and after fc7
    sharpness: float = 1.0  # r of the one-stream system's log-sum-exp; the plain operator has 1

    def values(self) -> dict:
        return asdict(self)


class Submodule(nn.Module):
    """One modality of figure 2: fully connected layers, then the proposal scoring network (section 3.2)."""

    scale: Tensor  # that features are divided by; 1 in the paper

    def __init__(self, layers: nn.Sequential, units: int, config: MILConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("scale", torch.ones(()))
        self.layers = layers
        self.classify = nn.Linear(units, config.classes)  # W_cls
        # W_loc. A bias would add the same to all proposals of a class, which the softmax over proposals undoes.
        self.localise = None if config.system == "one_stream" else nn.Linear(units, config.classes, bias=False)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of proposals and of clips, before l2 normalisation.

        :param features: float [clips, proposals, features]; ``mask``: bool [clips, proposals], False for padding.
        :returns: D = A * softmax(B) of each proposal and its sum over proposals (two streams), or A and its
            log-sum-exp (one stream); float32 [clips, proposals, classes] and [clips, classes], 0 where the mask is
            False and in clips without a proposal.
        """
        z = self.layers(features[mask] / self.scale)  # (N, d), Z of all clips: padding never reaches a layer
        a = _unpacked(self.classify(z), mask)  # (B, P, C)
        if self.localise is None:
            return a, log_sum_exp(a, mask, self.config.sharpness)
        if self.config.system == "wsddn":
            a = a.softmax(dim=2)  # Bilen and Vedaldi (2016): what is this proposal, one of the classes?
        weights = softmax_over_proposals(_unpacked(self.localise(z), mask), mask)  # (B, P, C)
        d = a * weights
        return d, d.sum(dim=1)


class MILNetwork(nn.Module):
    """Class scores of clips from bags of proposals: systems (a) to (e) of Table 1.

    ReLU after each fully connected layer: CaffeNet's, and ours for the audio layer, of which the paper says nothing.
    """

    def __init__(self, config: MILConfig) -> None:
        super().__init__()
        self.config = config
        self.regions: Submodule | None = None
        self.segments: Submodule | None = None
        if config.system != "audio_only":
            layers = [
                ("fc6", nn.Linear(config.region_features, config.region_units)),
                ("relu6", nn.ReLU()),
                ("dropout6", nn.Dropout(config.dropout)),
                ("fc7", nn.Linear(config.region_units, config.region_units)),
                ("relu7", nn.ReLU()),
                ("dropout7", nn.Dropout(config.dropout)),
            ]
            self.regions = Submodule(nn.Sequential(OrderedDict(layers)), config.region_units, config)
        if config.system not in ("video_only", "wsddn"):
            dense = nn.Sequential(nn.Linear(config.segment_features, config.segment_units), nn.ReLU())
            self.segments = Submodule(dense, config.segment_units, config)

    def forward(
        self,
        regions: Tensor | None,
        region_mask: Tensor | None,
        segments: Tensor | None,
        segment_mask: Tensor | None,
    ) -> Tensor:
        """phi(V; w): one score for each clip and class, higher meaning likelier.

        A modality that the system does not use may be None. A clip without proposals in a modality gets 0 from it
        and is scored by the other.

        :param regions: float [clips, R, region_features]; ``segments``: float [clips, S, segment_features].
        :param region_mask: [clips, R], and ``segment_mask`` [clips, S]: true (or 1) for proposals, 0 for padding.
        :returns: float32 [clips, classes]: within -1..1 a modality; probabilities for ``wsddn``.
        :raises ValueError: a modality that the system needs is missing, or features and mask do not fit.
        """
        parts = self._parts(regions, region_mask, segments, segment_mask)
        scores = [submodule(features, mask)[1] for _, submodule, features, mask in parts]  # (B, C) each
        if self.config.system == "wsddn":
            return scores[0]
        return torch.stack([F.normalize(score, dim=1) for score in scores]).sum(dim=0)  # l2, section 3.2

    def localisation(
        self,
        regions: Tensor | None,
        region_mask: Tensor | None,
        segments: Tensor | None,
        segment_mask: Tensor | None,
    ) -> dict[str, Tensor]:
        """Scores that the classifiers assign to each proposal, by modality: what figures 3 and 4 show, unscaled.

        D = A * softmax(B), as in Bilen and Vedaldi (2016), where the paper only says "scores"; A for the one-stream
        system. :func:`scaled` brings them to 0..1 for display.

        :returns: ``regions`` [clips, R, classes] and ``segments`` [clips, S, classes], as far as the system has
            them, float32; NaN where the mask is False.
        """
        parts = self._parts(regions, region_mask, segments, segment_mask)
        return {
            name: submodule(features, mask)[0].masked_fill(~mask[..., None], torch.nan)
            for name, submodule, features, mask in parts
        }

    def fine_tune(self, caffenet: CaffeNet) -> None:
        """Start fc6 and fc7 from those of a network that was trained on ImageNet (section 3.1)."""
        assert self.regions is not None
        for name in ("fc6", "fc7"):
            getattr(self.regions.layers, name).load_state_dict(getattr(caffenet, name).state_dict())

    def prepare(self, regions: Bags | None, segments: Bags | None) -> None:
        """Scale each modality by the root mean square of its features in some training clips.

        Ours, for base networks whose features differ in size a hundredfold and layers that all start anew.
        """
        for submodule, bags in ((self.regions, regions), (self.segments, segments)):
            if submodule is not None and bags is not None:
                submodule.scale.fill_(root_mean_square(bags))

    def loss(self, scores: Tensor, weak_labels: Tensor) -> Tensor:
        """What the system is trained with; scores of :meth:`forward` and labels 0 or 1, both [clips, classes]."""
        return (binary_log_loss if self.config.system == "wsddn" else hinge_loss)(scores, weak_labels)

    def _parts(
        self, regions: Tensor | None, region_mask: Tensor | None, segments: Tensor | None, segment_mask: Tensor | None
    ) -> list[tuple[str, Submodule, Tensor, Tensor]]:
        """Of each modality that the system uses: its name, submodule, features and bool mask."""
        parts = []
        for name, submodule, size, features, mask in (
            ("regions", self.regions, self.config.region_features, regions, region_mask),
            ("segments", self.segments, self.config.segment_features, segments, segment_mask),
        ):
            if submodule is None:
                continue
            if features is None or mask is None:
                raise ValueError(f"system {self.config.system!r} needs {name} and their mask, found None")
            if features.ndim != 3 or features.shape[2] != size or features.shape[:2] != mask.shape:
                raise ValueError(
                    f"{name}: expected features [clips, proposals, {size}] and a mask [clips, proposals], "
                    f"found {list(features.shape)} and {list(mask.shape)}"
                )
            parts.append((name, submodule, features, mask.bool()))
        return parts


def root_mean_square(bags: Bags, clips: int = 200) -> float:
    """Of all features of up to ``clips`` clips, evenly spaced; 1 where there is none."""
    chosen = np.unique(np.linspace(0, len(bags) - 1, min(len(bags), clips)).astype(int))
    found = [bags.arrays[int(row)].astype(np.float64) for row in chosen]
    squares, count = sum(float((bag**2).sum()) for bag in found), sum(bag.size for bag in found)
    return float(np.sqrt(squares / count)) if squares > 0 else 1.0


def softmax_over_proposals(b: Tensor, mask: Tensor) -> Tensor:
    """Equation 1 for padded bags: each class's weights of a clip's proposals, which sum to 1.

    :param b: float [clips, proposals, classes]; ``mask``: bool [clips, proposals].
    :returns: like ``b``; 0 for padding, and all 0 in a clip without proposals.
    """
    kept = mask[..., None]
    # The least number instead of -inf: a clip of padding alone would give 0 / 0, and NaN gradients even where masked.
    return b.masked_fill(~kept, torch.finfo(b.dtype).min).softmax(dim=1) * kept


def log_sum_exp(a: Tensor, mask: Tensor, sharpness: float = 1.0) -> Tensor:
    """Soft maximum over proposals, 1/r log sum_p exp(r a_p), at least the maximum and at most log(P)/r above it.

    The paper names the operator without r, and so does Bilen and Vedaldi's baseline: r = 1.

    :param a: float [clips, proposals, classes]; ``mask``: bool [clips, proposals].
    :returns: [clips, classes], 0 in a clip without proposals.
    """
    kept = mask[..., None]
    lowest = torch.finfo(a.dtype).min
    pooled = (sharpness * a).masked_fill(~kept, lowest).logsumexp(dim=1) / sharpness  # (B, C)
    return torch.where(kept.any(dim=1), pooled, 0.0)


def hinge_loss(scores: Tensor, weak_labels: Tensor) -> Tensor:
    """Equation 2: max(0, 1 - y phi) averaged over clips and classes, y = +1 for a label and -1 for none.

    :param scores: float [clips, classes]; ``weak_labels``: 0 or 1, [clips, classes].
    """
    y = 2 * weak_labels - 1
    return (1 - y * scores).clamp(min=0).mean()


def binary_log_loss(probabilities: Tensor, weak_labels: Tensor) -> Tensor:
    """Bilen and Vedaldi (2016), equation 3, without weight decay: -log(y (phi - 1/2) + 1/2), averaged as equation 2.

    :param probabilities: float [clips, classes], 0..1; ``weak_labels``: 0 or 1, [clips, classes].
    """
    right = torch.where(weak_labels > 0, probabilities, 1 - probabilities)
    return -right.clamp(min=1e-7).log().mean()


def scaled(scores: np.ndarray) -> np.ndarray:
    """Each clip's and class's scores brought to 0..1 for display (figures 3 and 4: black is 0, white is 1).

    :param scores: float [..., proposals, classes], NaN for padding.
    :returns: of the same shape, NaN where ``scores`` is; all 0 where the scores of a bag do not differ.
    """
    padding = np.isnan(scores)
    low = np.where(padding, np.inf, scores).min(axis=-2, keepdims=True, initial=np.inf)
    high = np.where(padding, -np.inf, scores).max(axis=-2, keepdims=True, initial=-np.inf)
    span = np.where(high > low, high - low, 1.0)
    return np.where(padding, np.nan, (scores - np.where(padding, 0.0, low)) / span)


class BagArrays(Protocol):
    """The bag of each clip, float [proposals, features]."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> np.ndarray: ...


@dataclass(frozen=True)
class _Selected:
    arrays: BagArrays
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.arrays[int(self.rows[row])]


@dataclass(frozen=True)
class BagFiles:
    """Bags of clips on disk, float [proposals, features] each, read when they are asked for."""

    paths: tuple[Path | None, ...]  # None: a clip without this modality, an empty bag
    features: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> np.ndarray:
        path = self.paths[row]
        return np.zeros((0, self.features), np.float16) if path is None else np.load(path, allow_pickle=False)

    def size(self, row: int) -> int:
        """Proposals of a clip; of the file only the header is read."""
        path = self.paths[row]
        if path is None:
            return 0
        with path.open("rb") as file:
            np.lib.format.read_magic(file)  # always version 1: the header of an array of numbers is short
            return np.lib.format.read_array_header_1_0(file)[0][0]


@dataclass(frozen=True)
class Bags:
    """One modality's proposals of clips, as rows for training: padded to the longest bag among those asked for.

    :attr:`mask` is to be given beside it, and is asked for the same rows.
    """

    arrays: BagArrays  # float [proposals, features] of each clip; [0, features]: none
    sizes: np.ndarray  # int [clips], proposals of each
    features: int

    @classmethod
    def of(cls, arrays: Sequence[np.ndarray] | BagFiles) -> Bags:
        """Bags with their sizes, of one clip at least."""
        if isinstance(arrays, BagFiles):
            sizes = [arrays.size(row) for row in range(len(arrays))]
            return cls(arrays, np.array(sizes, dtype=int), arrays.features)
        return cls(arrays, np.array([len(array) for array in arrays], dtype=int), arrays[0].shape[1])

    def select(self, rows: np.ndarray) -> Bags:
        """The bags of some clips, int [clips]; still read when they are asked for."""
        return Bags(_Selected(self.arrays, rows), self.sizes[rows], self.features)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """float [rows, longest bag, features], zeros for padding; at least one proposal long."""
        chosen = np.arange(len(self))[rows]
        bags = [self.arrays[int(row)] for row in chosen]
        padded = np.zeros((len(bags), _longest(self.sizes[chosen]), self.features), bags[0].dtype)
        for target, bag in zip(padded, bags, strict=True):
            target[: len(bag)] = bag
        return padded

    @property
    def mask(self) -> BagMask:
        return BagMask(self.sizes)


@dataclass(frozen=True)
class BagMask:
    """Which of the padded rows of :class:`Bags` are proposals: bool [rows, longest bag]."""

    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, rows: Any) -> np.ndarray:
        chosen = self.sizes[rows]
        return np.arange(_longest(chosen)) < chosen[:, None]


def score(
    network: MILNetwork, regions: Bags | None, segments: Bags | None, device: torch.device, batch: int = 64
) -> np.ndarray:
    """:meth:`MILNetwork.forward` over many clips: float32 [clips, classes]."""
    network.to(device).eval()
    with torch.inference_mode():
        return np.concatenate([network(*bags).cpu().numpy() for bags in _batches(regions, segments, device, batch)])


def locate(
    network: MILNetwork, regions: Bags | None, segments: Bags | None, device: torch.device, batch: int = 64
) -> dict[str, list[np.ndarray]]:
    """:meth:`MILNetwork.localisation` over many clips: by modality, float32 [proposals, classes] of each clip."""
    network.to(device).eval()
    found: dict[str, list[np.ndarray]] = {}
    with torch.inference_mode():
        for bags in _batches(regions, segments, device, batch):
            masks = {"regions": bags[1], "segments": bags[3]}
            for name, values in network.localisation(*bags).items():
                kept = zip(values, masks[name].bool(), strict=True)  # type: ignore[union-attr]
                found.setdefault(name, []).extend(value[mask].cpu().numpy() for value, mask in kept)
    return found


def _batches(
    regions: Bags | None, segments: Bags | None, device: torch.device, batch: int
) -> Iterator[list[Tensor | None]]:
    """Arguments of the network: regions, their mask, segments, their mask."""
    inputs: list[Bags | BagMask | None] = []
    for bags in (regions, segments):
        inputs += [bags, bags.mask if bags is not None else None]
    lengths = {len(one) for one in inputs if one is not None}
    if len(lengths) != 1:
        raise ValueError(f"expected regions and segments of the same clips, found {sorted(lengths)} clips")
    for start in range(0, lengths.pop(), batch):
        rows = slice(start, start + batch)
        yield [None if one is None else torch.from_numpy(one[rows]).float().to(device) for one in inputs]


def _longest(sizes: np.ndarray) -> int:
    return max(1, int(sizes.max(initial=0)))  # an empty dimension would have no maximum


def _unpacked(packed: Tensor, mask: Tensor) -> Tensor:
    """[proposals of all clips, classes] -> float32 [clips, proposals, classes], 0 for padding.

    From here on in single precision, whatever autocast does in the layers: the sums and norms need it.
    """
    full = packed.new_zeros((*mask.shape, packed.shape[1]), dtype=torch.float32)
    full[mask] = packed.float()
    return full
