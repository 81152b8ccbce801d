"""The systems of Parekh et al. (2018): MIL over regions and segments, its baselines, and the CVSSP team's networks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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
from avrepro.models.parekh2018 import MILConfig, MILNetwork
from avrepro.sampling import BalancedBatches
from avrepro.systems.base import Checkpoint, CheckpointError, Data, System
from avrepro.training import Optimisation, choose_device, fit, predict

SAMPLE = 256  # training clips that the bands of log-mel spectrograms are scaled by
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
    scaled: (
        bool  # features by their root mean square; not where pretrained layers follow, which expect them as they are
    )
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
        settings = self.settings(data.condition)
        scales = self.scales(data)
        train = data.rows("train")
        bags = [None if one is None else one.select(train) for one in self.bags(data, scales)]
        labels = data.targets[train]

        torch.manual_seed(seed)
        network = MILNetwork(self.config(data, bags))
        if settings.scaled:
            regions, segments = (1.0 if one is None else root_mean_square(one) for one in bags)
            network.scale_features(regions, segments)
        if settings.image_network == "caffenet" and network.regions is not None:
            network.fine_tune(backbones.load("caffenet", torch.device("cpu")))

        def loss(model: MILNetwork, weak_labels: Tensor, *parts: Tensor) -> Tensor:
            rest = iter(parts)
            inputs = [None if one is None else next(rest) for bag in bags for one in (bag, bag)]
            return model.loss(model(*inputs), weak_labels)

        inputs = (labels, *(one for bag in bags if bag is not None for one in (bag, bag.mask)))
        batches = BalancedBatches(labels, settings.optimisation.batch, seed)
        fitted = fit(
            network, loss, inputs, settings.optimisation, seed, data.device, self.name,
            batches=batches, state_path=state_path,
        )  # fmt: skip
        numbers = {"config": asdict(network.config), "scales": scales, "features": self._keys(data.condition)}
        count = sum(one.numel() for one in network.parameters())
        return Checkpoint(network.cpu().state_dict(), numbers, fitted.history, fitted.seconds, count)

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        """phi(V; w) of each clip: within -2..2, probabilities for (d)."""
        network = self.network(checkpoint).to(data.device).eval()
        with torch.inference_mode():
            found = [network(*inputs).cpu().numpy() for inputs in self._batches(checkpoint, data)]
        return np.concatenate(found)

    def localisation(self, checkpoint: Checkpoint, data: Data) -> dict[str, list[np.ndarray]]:
        """D (A for one stream) by modality, float32 [proposals, classes] of each clip."""
        network = self.network(checkpoint).to(data.device).eval()
        found: dict[str, list[np.ndarray]] = {}
        with torch.inference_mode():
            for inputs in self._batches(checkpoint, data):
                masks = {"regions": inputs[1], "segments": inputs[3]}
                for name, values in network.localisation(*inputs).items():
                    there = zip(values, masks[name].bool(), strict=True)  # type: ignore[union-attr]
                    found.setdefault(name, []).extend(value[mask].cpu().numpy() for value, mask in there)
        return found

    def bags(self, data: Data, scales: Sequence[float]) -> tuple[Bags | None, Bags | None]:
        """Regions and segments of all clips, as far as the system uses them."""
        features = self.features(data.condition)
        regions, segments = (
            Bags.of(data.arrays(features[name])) if name in features else None for name in ("regions", "segments")
        )
        return regions, segments

    def scales(self, data: Data) -> list[float]:
        """Numbers that the proposals are made with and that depend on the training clips; none here."""
        return []

    def config(self, data: Data, bags: Sequence[Bags | None]) -> MILConfig:
        """The network's sizes."""
        settings = self.settings(data.condition)
        regions, segments = (0 if one is None else one.features for one in bags)
        return MILConfig(
            self.architecture, len(data.classes), regions, segments,  # type: ignore[arg-type]
            settings.region_units, settings.segment_units, l2=self.l2,
        )  # fmt: skip

    def network(self, checkpoint: Checkpoint) -> MILNetwork:
        """The trained network."""
        network = MILNetwork(MILConfig(**checkpoint.numbers["config"]))
        network.load_state_dict(checkpoint.state)
        return network

    def _batches(self, checkpoint: Checkpoint, data: Data, batch: int = 64) -> Iterator[list[Tensor | None]]:
        """Arguments of the network: regions, their mask, segments, their mask."""
        if (here := self._keys(data.condition)) != (learnt := checkpoint.numbers["features"]):
            other = ", ".join(name for name in here if here[name] != learnt.get(name))
            raise CheckpointError(
                f"{self.name}: trained on other features ({other}) than those of this run; use the profile, the weight "
                "files and the edge detector that it was trained with, or train it again"
            )
        bags = self.bags(data, checkpoint.numbers["scales"])
        parts = [one for bag in bags for one in (bag, None if bag is None else bag.mask)]
        for start in range(0, len(data.corpus.clips), batch):
            rows = slice(start, start + batch)
            yield [None if one is None else torch.from_numpy(one[rows]).float().to(data.device) for one in parts]

    def _keys(self, condition: Condition) -> dict[str, str]:
        return {name: feature.recipe.key for name, feature in self.features(condition).items()}


class Synchronous(MIL):
    """Ours: two streams that take for granted that an event is in view while it sounds; their proposals are seconds.

    :param video: without it, the same network on seconds of sound alone.
    """

    def __init__(self, name: str, title: str, place: str, video: bool = True) -> None:
        super().__init__(name, title, place, "audio_only")
        self.modalities = ("audio", "video") if video else ("audio",)

    def bags(self, data: Data, scales: Sequence[float]) -> tuple[Bags | None, Bags | None]:
        regions, segments = super().bags(data, scales)
        assert segments is not None
        boxes = Bags.of(data.arrays(self.features(data.condition)["proposals"])) if regions is not None else None
        seconds = Seconds(segments, regions, boxes, tuple(scales), data.delay)
        return None, Bags(seconds, seconds.sizes, seconds.features)

    def scales(self, data: Data) -> list[float]:
        """Root mean squares of the features of segments and of regions in the training clips."""
        rows = data.rows("train")
        regions, segments = super().bags(data, [])
        return [root_mean_square(one.select(rows)) for one in (segments, regions) if one is not None]

    def config(self, data: Data, bags: Sequence[Bags | None]) -> MILConfig:
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
        settings = self.settings(data.condition)
        arrays = data.arrays(self.features(data.condition)["log_mel"])
        train = data.rows("train")
        train = train[arrays.present[train]]
        spectra, labels = arrays.select(train), data.targets[train]

        torch.manual_seed(seed)
        model = GatedCRNN(replace(settings.gated_crnn, classes=len(data.classes)))
        sample = spectra[np.linspace(0, len(spectra) - 1, min(len(spectra), SAMPLE)).astype(int)]
        model.prepare(torch.from_numpy(sample).float(), torch.from_numpy(labels).float())
        fitted = fit(
            model, lambda network, x, y: network.loss(network(x), y), (spectra, labels),
            settings.gated_crnn_optimisation, seed, data.device, f"{self.name}, seed {seed}",
            batches=BalancedBatches(labels, settings.gated_crnn_optimisation.batch, seed), state_path=state_path,
        )  # fmt: skip
        count = sum(one.numel() for one in model.parameters())
        numbers = {"config": asdict(model.config)}
        return Checkpoint(model.cpu().state_dict(), numbers, fitted.history, fitted.seconds, count)

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        model = GatedCRNN(GatedCRNNConfig(**checkpoint.numbers["config"]))
        model.load_state_dict(checkpoint.state)
        arrays = data.arrays(self.features(data.condition)["log_mel"])
        return predict(model.to(data.device).eval(), arrays, data.device)


class Fusion(GatedCRNNAlone):
    """System (f): the mean of three gated CRNNs' probabilities, of which (g) is the first.

    Ours is that they differ by their seed alone: the team fused networks of several trainings and inputs, and from
    several moments of a training. Fusions of different seeds below 1000 share no network.
    """

    uses = ("parekh2018/cvssp_gated_crnn",)
    minutes = 2.0

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        fused = Checkpoint()
        paths = [state_path.with_suffix(f".{n}.partial") for n in range(1, MEMBERS)]
        for n, path in enumerate(paths, 1):
            member = super().fit(data, {}, seed + 1000 * n, path)
            fused.state |= {f"{n}.{name}": value for name, value in member.state.items()}
            fused.numbers, fused.history = member.numbers, member.history
            fused.seconds += member.seconds
            fused.parameters += member.parameters
        for path in paths:
            path.unlink(missing_ok=True)
        return fused

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        members: dict[str, Checkpoint] = {}
        for name, value in checkpoint.state.items():
            n, _, own = name.partition(".")
            members.setdefault(n, Checkpoint({}, checkpoint.numbers)).state[own] = value
        found = [given[self.uses[0]], *(super(Fusion, self).scores(one, data, {}) for one in members.values())]
        return np.mean(np.stack(found), axis=0)


def segment_network(names: Sequence[str]) -> str:
    """The base audio network: the first of ``names`` whose weights are at hand, else the last one."""
    places = (str(home()), os.environ.get("AVREPRO_MIRROR", ""))
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
