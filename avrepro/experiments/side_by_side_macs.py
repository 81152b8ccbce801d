"""Multiply-accumulates of one clip of the demo world, from decoded sound and pictures to scores, for every system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from avrepro.corpora.base import Clip
from avrepro.experiments import fayek2020, fayek2020_others, gated_crnn, li2017, parekh2018
from avrepro.experiments.bottleneck import PROFILES as BOTTLENECKS
from avrepro.experiments.bottleneck import BottleneckNetwork, Tokens
from avrepro.experiments.costs import multiply_accumulates
from avrepro.experiments.side_by_side_systems import Condition, parameters_of, picture_scores
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


def multiply_accumulates_of(condition: Condition) -> dict[str, int]:
    """System -> multiply-accumulates of the first test clip, frozen networks and what is trained together.

    Networks are as they start: their sizes are those of the profile, whatever they have learnt. Fourier transforms, the
    search for edges and boxes, and all that works by element are not counted.
    """
    inputs = parekh2018.load_inputs(parameters_of(UnsynchronizedMIL, condition))
    row = int(inputs.rows("test")[0])
    clip, classes = inputs.corpus.clips[row], len(inputs.corpus.classes)
    counted = _li2017(condition, clip, classes) | _fayek2020(condition, clip, classes)
    counted |= _gated(condition, clip, classes) | _parekh2018(inputs, clip, row, classes)
    # What is joined costs what its parts cost; what joins them a few numbers a class.
    union = counted["fayek2020/audio"] + counted["parekh2018/two_stream"]
    counted |= {"beyond/union_without_words": union, "beyond/union": union + counted["li2017/video"]}
    return counted


def _of(feature: Feature, clip: Clip) -> int:
    return multiply_accumulates(feature.compute, feature.read(clip))


def _on(network: torch.nn.Module | Callable, *arrays: np.ndarray) -> int:
    if isinstance(network, torch.nn.Module):
        network.eval()
    return multiply_accumulates(network, *(torch.from_numpy(np.asarray(one)).float()[None] for one in arrays))


def _li2017(condition: Condition, clip: Clip, classes: int) -> dict[str, int]:
    inputs = li2017.load_inputs(parameters_of(LightweightFusion, condition))
    profile, network, k = inputs.profile, inputs.network, inputs.parameters.key_frames
    hearing = li2017.log_mel_feature()
    crnn = CRNN(_like(profile.crnn, classes=classes)).eval()
    audio = _on(crnn.clip, hearing.compute(hearing.read(clip)))
    choosing = key_frame_times(network, profile.frames_per_second, profile.dissimilarity_size, k)
    times = {clip.id: choosing.compute(choosing.read(clip))}
    looking = key_frame_objects(network, times, choosing, profile.frame_size)
    pooled = looking.compute(looking.read(clip))
    naming = multiply_accumulates(picture_scores(inputs), pooled[None])
    video = _of(choosing, clip) + _of(looking, clip) + naming
    return {
        "li2017/audio": audio,
        "li2017/video": video,
        "li2017/video_even": video - _of(choosing, clip),  # which looks at no other frames
        "li2017/video_kmeans": video,
        "li2017/fused": audio + video,
        "li2017/fused_tuned": audio + video,
    }


def _fayek2020(condition: Condition, clip: Clip, classes: int) -> dict[str, int]:
    profile, others = fayek2020.PROFILES[condition.profile], fayek2020_others.PROFILES[condition.profile]
    hearing = fayek2020.log_mel_feature(profile.audio_pooled)
    network = fayek2020.load_backbone(profile.backbone, choose_device("cpu"))
    seeing = fayek2020.picture_feature(network, profile.frames, profile.frame_size)
    log_mel, pictures = hearing.compute(hearing.read(clip)), seeing.compute(seeing.read(clip))
    audio = _on(AudioConvNet(_like(profile.audio, classes=classes)), log_mel)
    shape = {"classes": classes, "inputs": len(pictures)}
    visual = _of(seeing, clip) + _on(VisualNetwork(_like(profile.visual, **shape)), pictures)
    both, said = audio + visual, np.full(classes, 0.5)
    names = tuple(fayek2020.FUSIONS)
    fusions = {name: _on(Fusions((name,), classes, profile.fusion_units), said, said) for name in names}
    film = fayek2020_others.video_frames_feature(others.frames, others.size)
    frames = film.compute(film.read(clip))
    trunks = (_like(others.audio, classes=classes), _like(others.video, classes=classes))
    return {
        "fayek2020/audio": audio,
        "fayek2020/audio_first_generation": audio,
        "fayek2020/visual": visual,
        "fayek2020/average": both,
        **{f"fayek2020/{name}": both + count for name, count in fusions.items()},
        "fayek2020/attention_class_weights": both + fusions["attention"],
        "fayek2020/resnet_audio": _on(ResidualAudio(trunks[0]), log_mel),
        "fayek2020/r2plus1d_visual": _on(VideoR2Plus1D(trunks[1]), frames),
        "fayek2020/gblend": _on(JointAudioVisual(*trunks, others.hidden), log_mel, frames),
    }


def _gated(condition: Condition, clip: Clip, classes: int) -> dict[str, int]:
    hearing = gated_crnn.log_mel_feature()
    network = GatedCRNN(_like(gated_crnn.PROFILES[condition.profile].network, classes=classes))
    one = _on(network, hearing.compute(hearing.read(clip)))
    return {"parekh2018/cvssp_gated_crnn": one, "parekh2018/cvssp_fusion": gated_crnn.MEMBERS * one}


def _parekh2018(inputs: parekh2018.Inputs, clip: Clip, row: int, classes: int) -> dict[str, int]:
    profile, device = inputs.profile, choose_device("cpu")
    boxes = {clip.id: inputs.boxes[row]}
    proposing = proposals(edge_detector(), profile.proposal_size, profile.search)
    network = parekh2018.image_network(profile.image_network, device)
    describing = region_features(network, boxes, proposing, profile.image_size, profile.pooled)  # type: ignore[arg-type]
    listening = parekh2018.segment_feature(parekh2018.audio_network(profile.audio_networks), device)
    seen, heard = _of(describing, clip), _of(listening, clip)
    counted = {}
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
        bags = [torch.from_numpy(one[[row]]).float() if one is not None else None
                for used in (regions, segments) for one in (used, used and used.mask)]  # fmt: skip
        own = multiply_accumulates(MILNetwork(mil).eval(), *bags)
        looks, listens = name != "audio_only", name not in ("video_only", "wsddn")
        counted[f"parekh2018/{name}"] = own + looks * seen + listens * heard
    counted["parekh2018/two_stream_without_l2"] = counted["parekh2018/two_stream"]
    tokens = Tokens.of(inputs)
    widths = {"frame_features": inputs.regions.features, "segment_features": inputs.segments.features}
    config = _like(BOTTLENECKS[inputs.parameters.profile].network, classes=classes, **widths)
    bottleneck = BottleneckNetwork(config).eval()
    given = [torch.from_numpy(np.asarray(one[[row]])).float() for one in tokens.rows()]
    counted["beyond/bottleneck"] = multiply_accumulates(bottleneck, *given) + seen + heard
    return counted


def _like(config: Any, **changes: Any) -> Any:
    """A configuration with the corpus's sizes."""
    return type(config)(**{**config.values(), **changes})
