"""What every system costs: what is trained of it, and what it takes to ask it about one clip of the demo world."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from avrepro.corpora.base import Clip
from avrepro.experiments import fayek2020, fayek2020_others, gated_crnn, li2017, parekh2018
from avrepro.experiments.bottleneck import PROFILES as BOTTLENECKS
from avrepro.experiments.bottleneck import BottleneckNetwork, Tokens
from avrepro.experiments.costs import multiply_accumulates
from avrepro.experiments.key_frame_baselines import other_key_frame_times
from avrepro.experiments.side_by_side_systems import Condition, Said, parameters_of, picture_scores
from avrepro.features.edges import edge_detector
from avrepro.features.objects import key_frame_objects, key_frame_times
from avrepro.features.regions import proposals, region_features
from avrepro.features.store import Feature
from avrepro.models.fayek2020 import AudioConvNet, Fusions, VisualNetwork
from avrepro.models.fayek2020_others import JointAudioVisual, ResidualAudio, VideoR2Plus1D
from avrepro.models.gated_crnn import GatedCRNN
from avrepro.models.li2017 import CRNN
from avrepro.models.parekh2018 import MILConfig, MILNetwork
from avrepro.parameters import LightweightFusion, UnsynchronizedMIL
from avrepro.training import choose_device

REPEATS = 3  # of what is timed; the quickest counts, for whatever else runs only makes it slower


@dataclass(frozen=True)
class Cost:
    """What a system, or a part of one, costs."""

    parameters: int = 0  # that are trained
    macs: int = 0  # multiply-accumulates from decoded sound and pictures to scores, frozen networks' too
    inference_seconds: float = 0.0  # from the file to scores, decoding too, one clip by itself on the processor

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters,
            self.macs + other.macs,
            self.inference_seconds + other.inference_seconds,
        )


def of_costs(condition: Condition) -> Said:
    """No scores: what every system costs on the first test clip.

    Networks are as they start: their sizes are those of the profile, whatever they have learnt. As multiply-accumulates
    Fourier transforms, the search for edges and boxes, and all that works by element are not counted; all that takes
    its time.
    """
    inputs = parekh2018.load_inputs(parameters_of(UnsynchronizedMIL, condition))
    row = int(inputs.rows("test")[0])
    clip, classes = inputs.corpus.clips[row], len(inputs.corpus.classes)
    costs = _li2017(condition, clip, classes) | _fayek2020(condition, clip, classes)
    costs |= _gated(condition, clip, classes) | _parekh2018(inputs, clip, row, classes)
    # Mixing with what the words say costs a few numbers a class.
    joined = _fusion("attention", fayek2020.PROFILES[condition.profile].fusion_units, classes)
    union = costs["fayek2020/audio"] + costs["parekh2018/two_stream"] + joined
    costs |= {"beyond/union_without_words": union, "beyond/union": union + costs["li2017/video"]}
    return Said(inputs.corpus, costs={system: asdict(cost) for system, cost in costs.items()})


def _asked(function: Callable, *inputs: Any, parameters: int = 0) -> Cost:
    with torch.inference_mode():
        return Cost(parameters, multiply_accumulates(function, *inputs), _seconds(lambda: function(*inputs)))


def _of(feature: Feature, clip: Clip) -> Cost:
    """Of a frozen feature, its decoding among the seconds."""
    seconds = _seconds(lambda: feature.compute(feature.read(clip)))
    return Cost(0, multiply_accumulates(feature.compute, feature.read(clip)), seconds)


def _on(network: torch.nn.Module, *rows: np.ndarray | None, asked: Callable | None = None) -> Cost:
    """Of a network on arrays of one clip, [1, ...] each; ``asked``: what is called of it instead of itself."""
    network.eval()
    parameters = sum(one.numel() for one in network.parameters() if one.requires_grad)
    given = (None if one is None else torch.from_numpy(np.asarray(one)).float() for one in rows)
    return _asked(asked or network, *given, parameters=parameters)


def _seconds(function: Callable[[], Any]) -> float:
    return min(timeit.repeat(function, number=1, repeat=REPEATS))


def _fusion(name: str, units: int, classes: int) -> Cost:
    said = np.full((1, classes), 0.5)
    return _on(Fusions((name,), classes, units), said, said)


def _li2017(condition: Condition, clip: Clip, classes: int) -> dict[str, Cost]:
    on_cpu = parameters_of(LightweightFusion, condition).model_copy(update={"device": "cpu"})
    inputs = li2017.load_inputs(on_cpu)
    profile, network, k = inputs.profile, inputs.network, inputs.parameters.key_frames
    hearing = li2017.log_mel_feature()
    crnn = CRNN(_like(profile.crnn, classes=classes))
    audio = _of(hearing, clip) + _on(crnn, hearing.compute(hearing.read(clip))[None], asked=crnn.clip)
    settings = (network, profile.frames_per_second, profile.dissimilarity_size, k)
    choosing = key_frame_times(*settings)
    times = {clip.id: choosing.compute(choosing.read(clip))}
    looking = key_frame_objects(network, times, choosing, profile.frame_size)
    pooled = looking.compute(looking.read(clip))
    seen = _of(looking, clip) + _asked(picture_scores(inputs), pooled[None])
    video = _of(choosing, clip) + seen
    return {
        "li2017/audio": audio,
        "li2017/video": video,
        "li2017/video_even": _of(other_key_frame_times(*settings, "even"), clip) + seen,
        "li2017/video_kmeans": _of(other_key_frame_times(*settings, "kmeans"), clip) + seen,
        "li2017/fused": audio + video,
        "li2017/fused_tuned": audio + video,
    }


def _fayek2020(condition: Condition, clip: Clip, classes: int) -> dict[str, Cost]:
    profile, others = fayek2020.PROFILES[condition.profile], fayek2020_others.PROFILES[condition.profile]
    hearing = fayek2020.log_mel_feature(profile.audio_pooled)
    network = fayek2020.load_backbone(profile.backbone, choose_device("cpu"))
    seeing = fayek2020.picture_feature(network, profile.frames, profile.frame_size)
    log_mel, pictures = hearing.compute(hearing.read(clip)), seeing.compute(seeing.read(clip))
    heard = _of(hearing, clip)
    audio = heard + _on(AudioConvNet(_like(profile.audio, classes=classes)), log_mel[None])
    shape = {"classes": classes, "inputs": len(pictures)}
    visual = _of(seeing, clip) + _on(VisualNetwork(_like(profile.visual, **shape)), pictures[None])
    both = audio + visual
    fused = {f"fayek2020/{name}": both + _fusion(name, profile.fusion_units, classes) for name in fayek2020.FUSIONS}
    film = fayek2020_others.video_frames_feature(others.frames, others.size)
    frames, filmed = film.compute(film.read(clip)), _of(film, clip)
    trunks = (_like(others.audio, classes=classes), _like(others.video, classes=classes))
    joint = JointAudioVisual(*trunks, others.hidden)
    return fused | {
        "fayek2020/audio": audio,
        "fayek2020/audio_first_generation": audio,
        "fayek2020/visual": visual,
        "fayek2020/average": both,
        "fayek2020/attention_class_weights": fused["fayek2020/attention"],
        "fayek2020/resnet_audio": heard + _on(ResidualAudio(trunks[0]), log_mel[None]),
        "fayek2020/r2plus1d_visual": filmed + _on(VideoR2Plus1D(trunks[1]), frames[None]),
        "fayek2020/gblend": heard + filmed + _on(joint, log_mel[None], frames[None]),
    }


def _gated(condition: Condition, clip: Clip, classes: int) -> dict[str, Cost]:
    hearing = gated_crnn.log_mel_feature()
    network = GatedCRNN(_like(gated_crnn.PROFILES[condition.profile].network, classes=classes))
    one = _on(network, hearing.compute(hearing.read(clip))[None])
    heard = _of(hearing, clip)
    members = sum([one] * gated_crnn.MEMBERS, start=Cost())
    return {"parekh2018/cvssp_gated_crnn": heard + one, "parekh2018/cvssp_fusion": heard + members}


def _parekh2018(inputs: parekh2018.Inputs, clip: Clip, row: int, classes: int) -> dict[str, Cost]:
    profile, device = inputs.profile, choose_device("cpu")
    boxes = {clip.id: inputs.boxes[row]}
    proposing = proposals(edge_detector(), profile.proposal_size, profile.search)
    network = parekh2018.image_network(profile.image_network, device)
    describing = region_features(network, boxes, proposing, profile.image_size, profile.pooled)  # type: ignore[arg-type]
    listening = parekh2018.segment_feature(parekh2018.audio_network(profile.audio_networks), device)
    seen, heard = _of(proposing, clip) + _of(describing, clip), _of(listening, clip)
    costs = {}
    for name in parekh2018.SYSTEMS:
        regions, segments = parekh2018.proposals_of(inputs, name)
        mil = MILConfig(
            system="audio_only" if name == "synchronous" else name,  # type: ignore[arg-type]  # one of the others
            classes=classes,
            region_features=regions.features if regions is not None else 0,
            segment_features=segments.features if segments is not None else 0,
            region_units=profile.region_units,
            segment_units=profile.segment_units + (profile.region_units if name == "synchronous" else 0),
        )
        bags = [one if one is None else one[[row]]
                for used in (regions, segments) for one in (used, used and used.mask)]  # fmt: skip
        parts = [_on(MILNetwork(mil), *bags)]
        parts += [seen] if name != "audio_only" else []
        parts += [heard] if name not in ("video_only", "wsddn") else []
        costs[f"parekh2018/{name}"] = sum(parts, start=Cost())
    costs["parekh2018/two_stream_without_l2"] = costs["parekh2018/two_stream"]
    tokens = Tokens.of(inputs)
    widths = {"frame_features": inputs.regions.features, "segment_features": inputs.segments.features}
    config = _like(BOTTLENECKS[inputs.parameters.profile].network, classes=classes, **widths)
    bottleneck = _on(BottleneckNetwork(config), *(one[[row]] for one in tokens.rows()))
    return costs | {"beyond/bottleneck": bottleneck + seen + heard}


def _like(config: Any, **changes: Any) -> Any:
    """A configuration with the corpus's sizes."""
    return type(config)(**{**config.values(), **changes})
