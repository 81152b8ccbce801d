"""The systems of Parekh et al. (2018): MIL over regions and segments, its baselines, and the CVSSP team's networks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from avrepro import backbones
from avrepro.conditions import Condition
from avrepro.features.audio import log_mel, segment_embeddings
from avrepro.features.bags import Bags, root_mean_square
from avrepro.features.edges import edge_detector
from avrepro.features.logmel import LogMel
from avrepro.features.regions import Search, proposals, region_features
from avrepro.features.segments import Seconds
from avrepro.features.store import Feature
from avrepro.fetch import find
from avrepro.home import home
from avrepro.models.gated_crnn import GatedCRNN, GatedCRNNConfig
from avrepro.models.parekh2018 import MILConfig, MILNetwork, binary_log_loss
from avrepro.systems.base import Checkpoint, Data, Examples, System, partial_paths
from avrepro.training import Optimisation, Rows, choose_device, in_batches, predict

MEMBERS = 3  # networks of the CVSSP fusion; ours


@dataclass(frozen=True)
class Settings:
    """Sizes of a run; every difference of another profile from ``paper`` is a stated deviation."""

    search: Search  # of boxes in a frame
    proposal_size: tuple[int, int] | None  # height, width of the frames that are searched, px; None: as filmed
    image_network: str  # base visual network, frozen
    image_size: tuple[int, int] | None  # height, width of the frames that it gets, px
    pooled: int  # cells of a region, in height and in width
    audio_networks: tuple[str, ...]  # base audio network, frozen: the first whose weights are at hand
    region_units: int  # of fc6 and fc7
    segment_units: int
    scaled: bool  # features by their root mean square; pretrained layers that follow expect them as they are
    optimisation: Optimisation
    gated_crnn: GatedCRNNConfig
    gated_crnn_optimisation: Optimisation


# Section 4, implementation details: 25K iterations of Adam, here saved every 1,000. Rate and batches of the gated CRNN
# are its authors'. They average its scores after 2000, 2100, ... 2900 steps; here its last weights are used.
PAPER = Settings(
    search=Search(),
    proposal_size=None,
    image_network="caffenet",
    image_size=None,
    pooled=6,
    audio_networks=("vggish",),
    region_units=4096,
    segment_units=128,
    scaled=False,
    optimisation=Optimisation("adam", learning_rate=1e-5, batch=24, epochs=25, steps=1000),
    gated_crnn=GatedCRNNConfig(),
    gated_crnn_optimisation=Optimisation("adam", learning_rate=1e-3, batch=44, epochs=29, steps=100),
)
# Frames of the demo world have 144 x 192 px; at 112 x 144 boxes and features cost half as much. Rate, steps and scaling
# were chosen on validation clips. The gated CRNN is small, and pooled over time to 30 frames as the authors' other
# network is; three times their rate, and no more steps than those after which validation clips no longer gain.
DEMO = Settings(
    search=Search(alpha=0.45, min_score=0.03),
    proposal_size=(112, 144),
    image_network="efficientnet-lite0",
    image_size=(112, 144),
    pooled=3,
    audio_networks=("vggish", "yamnet"),
    region_units=128,
    segment_units=128,
    scaled=True,
    optimisation=Optimisation("adam", learning_rate=1e-3, batch=24, epochs=1, steps=600),
    gated_crnn=GatedCRNNConfig(
        channels=(8, 32, 32), pool_time=(2, 2, 2), pool_mel=(4, 2, 2), features=64, hidden=64
    ),
    gated_crnn_optimisation=Optimisation("adam", learning_rate=3e-3, batch=24, epochs=1, steps=300),
)  # fmt: skip
CI = replace(
    DEMO,
    optimisation=replace(DEMO.optimisation, steps=8),
    gated_crnn_optimisation=replace(DEMO.gated_crnn_optimisation, batch=12, steps=4),
)
PROFILES = {"ci": CI, "demo": DEMO, "paper": PAPER}


class MIL(System):
    """Systems (a) to (e): a network on bags of regions and segments, trained on weak labels (section 3).

    Batches are balanced and their number is fixed; validation clips choose nothing.

    :param network: as in :class:`MILConfig`. :param l2: whether the scores of each modality are normalised.
    """

    profiles = PROFILES
    fields = ("region_units", "segment_units", "scaled", "optimisation")
    minutes = 0.4

    def __init__(self, name: str, title: str, place: str, network: str, l2: bool = True) -> None:
        super().__init__(name, title, place)
        self.architecture, self.l2 = network, l2
        self.probabilities = network == "wsddn"
        audio, video = network not in ("video_only", "wsddn"), network != "audio_only"
        self.modalities = tuple(one for one, used in (("audio", audio), ("video", video)) if used)

    def features(self, condition: Condition) -> dict[str, Feature]:
        settings, device = self.settings(condition), choose_device(condition.device)
        found: dict[str, Feature] = {}
        if "video" in self.modalities:
            found["proposals"] = proposals(edge_detector(), settings.proposal_size, settings.search)
            found["regions"] = region_features(
                settings.image_network, found["proposals"], settings.image_size, settings.pooled, device
            )
        if "audio" in self.modalities:
            found["segments"] = segment_embeddings(segment_network(settings.audio_networks), device)
        return found

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        settings, rows, scales = self.settings(data.condition), data.rows("train"), self.scales(data)
        regions, segments = (bags.select(rows) for bags in self.bags(data, scales))

        def build() -> nn.Module:
            network = MILNetwork(self.config(data, (regions, segments)))
            if settings.scaled:
                network.scale_features(root_mean_square(regions), root_mean_square(segments))
            if settings.image_network == "caffenet" and network.regions is not None:
                network.fine_tune(backbones.load("caffenet", torch.device("cpu")))
            return network

        def loss(network: MILNetwork, *batch: Tensor) -> Tensor:
            *inputs, weak_labels = batch
            return network.loss(network(*inputs), weak_labels)

        examples = Examples(rows, with_masks(regions, segments), data.targets[rows])
        found = self.train(data, build, loss, examples, settings.optimisation, seed, state_path)
        return replace(found, numbers=found.numbers | {"scales": scales})

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        """phi(V; w) of each clip: within -2..2, probabilities for (d)."""
        network, inputs = self._trained(checkpoint, data)
        return predict(network, inputs, data.device)

    def localisation(self, checkpoint: Checkpoint, data: Data) -> dict[str, list[np.ndarray]]:
        """D (A for one stream) by modality, float32 [proposals, classes] of each clip."""
        network, inputs = self._trained(checkpoint, data)
        found: dict[str, list[np.ndarray]] = {}
        with torch.inference_mode():
            for batch in in_batches(inputs, data.device):
                masks = {"regions": batch[1].bool(), "segments": batch[3].bool()}
                for name, (scores, _) in network.by_modality(*batch).items():
                    clips = zip(scores, masks[name], strict=True)
                    found.setdefault(name, []).extend(values[mask].cpu().numpy() for values, mask in clips)
        return found

    def bags(self, data: Data, scales: Sequence[float]) -> tuple[Bags, Bags]:
        """Regions and segments of all clips; empty bags where the system does not use them."""
        features, nothing = self.features(data.condition), _empty_bags(len(data.corpus.clips))
        regions, segments = (
            Bags.of(data.arrays(features[name])) if name in features else nothing for name in ("regions", "segments")
        )
        return regions, segments

    def scales(self, data: Data) -> list[float]:
        """Numbers that the proposals are made with and that depend on the training clips; none here."""
        return []

    def config(self, data: Data, bags: tuple[Bags, Bags]) -> MILConfig:
        """The network's sizes."""
        settings, (regions, segments) = self.settings(data.condition), bags
        return MILConfig(
            self.architecture, len(data.classes), regions.features, segments.features,  # type: ignore[arg-type]
            settings.region_units, settings.segment_units, l2=self.l2,
        )  # fmt: skip

    def _trained(self, checkpoint: Checkpoint, data: Data) -> tuple[MILNetwork, tuple[Rows, ...]]:
        """The trained network and its inputs of all clips."""
        self.check_features(checkpoint, data.condition)
        network = checkpoint.load_into(MILNetwork(MILConfig(**checkpoint.numbers["config"])))
        return network.to(data.device), with_masks(*self.bags(data, checkpoint.numbers["scales"]))


def _empty_bags(clips: int) -> Bags:
    return Bags.of([np.zeros((0, 0), np.float32)] * clips)


def with_masks(video: Bags, audio: Bags) -> tuple[Rows, ...]:
    """What a network on bags reads: those of pictures, their mask, those of sound, their mask."""
    return video, video.mask, audio, audio.mask


class Synchronous(MIL):
    """Ours: two streams that take for granted that an event is in view while it sounds; their proposals are seconds.

    :param video: without it, the same network on seconds of sound alone.
    """

    def __init__(self, name: str, title: str, place: str, video: bool = True) -> None:
        super().__init__(name, title, place, "audio_only")
        self.modalities = ("audio", "video") if video else ("audio",)

    def bags(self, data: Data, scales: Sequence[float]) -> tuple[Bags, Bags]:
        regions, segments = super().bags(data, scales)
        video: tuple[Bags | None, Bags | None] = (None, None)
        if "video" in self.modalities:
            video = regions, Bags.of(data.arrays(self.features(data.condition)["proposals"]))
        seconds = Seconds(segments, *video, tuple(scales), data.delay)
        return _empty_bags(len(segments)), Bags(seconds, seconds.sizes, seconds.features)

    def scales(self, data: Data) -> list[float]:
        """Root mean squares of the features of segments and, with video, of regions in the training clips."""
        regions, segments = (bags.select(data.rows("train")) for bags in super().bags(data, []))
        used = (segments, regions) if "video" in self.modalities else (segments,)
        return [root_mean_square(one) for one in used]

    def config(self, data: Data, bags: tuple[Bags, Bags]) -> MILConfig:
        config = super().config(data, bags)  # as many units a proposal as both streams have together
        return replace(config, segment_units=config.segment_units + config.region_units)

    def localisation(self, checkpoint: Checkpoint, data: Data) -> dict[str, list[np.ndarray]]:
        return {"seconds": super().localisation(checkpoint, data)["segments"]}


class GatedCRNNAlone(System):
    """System (g): the CVSSP team's gated CRNN on log-mel, trained in balanced batches; its last weights are used."""

    profiles = PROFILES
    modalities = ("audio",)
    fields = ("gated_crnn", "gated_crnn_optimisation")
    minutes = 1.0

    def features(self, condition: Condition) -> dict[str, Feature]:
        return {"log_mel": log_mel(LogMel.xu2018(), "xu2018")}

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        settings, examples = self.settings(data.condition), self.examples(data, "train")
        config = replace(settings.gated_crnn, classes=len(data.classes))
        return self.train(
            data, lambda: examples.prepare(GatedCRNN(config)), lambda network, x, y: binary_log_loss(network(x), y),
            examples, settings.gated_crnn_optimisation, seed, state_path,
        )  # fmt: skip

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        model = checkpoint.load_into(GatedCRNN(GatedCRNNConfig(**checkpoint.numbers["config"])))
        return predict(model.to(data.device), self.arrays(data), data.device)


class Fusion(GatedCRNNAlone):
    """System (f): the mean of three gated CRNNs' probabilities, of which (g) is the first.

    Ours is that they differ by their seed alone. Fusions of different seeds below 1000 share no network.
    """

    uses = ("parekh2018/cvssp_gated_crnn",)
    minutes = 2.0

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        fused = Checkpoint()
        with partial_paths(state_path, range(1, MEMBERS)) as paths:
            for n, path in enumerate(paths, 1):
                member = super().fit(data, {}, seed + 1000 * n, path)
                fused.state |= {f"{n}.{name}": value for name, value in member.state.items()}
                fused.numbers, fused.history = member.numbers, member.history
                fused.seconds += member.seconds
                fused.parameters += member.parameters
        return fused

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        found = [given[self.uses[0]]]
        for n in range(1, MEMBERS):
            own = {name.removeprefix(f"{n}."): x for name, x in checkpoint.state.items() if name.startswith(f"{n}.")}
            found.append(super().scores(Checkpoint(own, checkpoint.numbers), data, {}))
        return np.mean(np.stack(found), axis=0)


def segment_network(names: Sequence[str]) -> str:
    """The base audio network: the first of ``names`` whose weights are at hand, else the last one."""
    places = (str(home()), os.environ.get("AVREPRO_MIRROR", ""))  # part of the cache's key
    return next((name for name in names[:-1] if _at_hand(name, places)), names[-1])


@cache
def _at_hand(source: str, places: tuple[str, str]) -> bool:
    """Whether a source's file is in one of the places where files are looked for; checked once, it may be large."""
    return find(source) is not None


ROWS: tuple[System, ...] = (
    MIL("parekh2018/two_stream", "Proposed AV Two Stream", "Table 1 (a)", "two_stream"),
    MIL("parekh2018/audio_only", "TS Audio-Only", "Table 1 (b)", "audio_only"),
    MIL("parekh2018/video_only", "TS Video-Only", "Table 1 (c)", "video_only"),
    MIL("parekh2018/wsddn", "TS Video-Only WSDDN-Type", "Table 1 (d)", "wsddn"),
    MIL("parekh2018/one_stream", "AV One Stream", "Table 1 (e)", "one_stream"),
    Fusion("parekh2018/cvssp_fusion", "CVSSP - Fusion system", "Table 1 (f)"),
    GatedCRNNAlone("parekh2018/cvssp_gated_crnn", "CVSSP - Gated-CRNN-logMel", "Table 1 (g)"),
    Synchronous("parekh2018/synchronous", "AV Two Stream on seconds", "ours"),
    Synchronous("parekh2018/synchronous_audio_only", "TS Audio-Only on seconds", "ours", video=False),
    MIL("parekh2018/two_stream_without_l2", "AV Two Stream without l2", "section 3.2", "two_stream", l2=False),
)
TABLE_1 = tuple(system.name for system in ROWS if system.place.startswith("Table 1"))
