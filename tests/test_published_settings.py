"""Profile ``paper`` of each paper's systems against what the paper says, and the sizes that follow from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from avrepro.conditions import Condition
from avrepro.models.fayek2020 import MLP, Attention, Regression, VisualNetwork
from avrepro.models.fayek2020_others import JointAudioVisual
from avrepro.models.gated_crnn import GatedCRNN
from avrepro.models.parekh2018 import MILConfig, MILNetwork
from avrepro.report import published
from avrepro.systems import SYSTEMS, fayek2020, fayek2020_others, li2017, parekh2018
from avrepro.training import Optimisation

LI, PAREKH, FAYEK = published("li2017"), published("parekh2018"), published("fayek2020")
HOURS = LI["claims"]["audio_training_hours"]["value"]
KNOWN = {name: one.get("value") for name, one in PAREKH["settings"].items()}
FEATURES = {
    name: {key: feature.nothing().shape for key, feature in SYSTEMS[name].features(Condition(profile="paper")).items()}
    for name in ("li2017/audio", "parekh2018/two_stream", "fayek2020/audio")
}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # Li et al., sections 2.2.1 and 3.2 to 3.4
        ((li2017.PAPER.key_frames, li2017.PAPER.frames_per_second * 10), (4, 240)),
        ((li2017.PAPER.words, li2017.PAPER.backbone, li2017.PAPER.mixing), ("glove.840B.300d", "inception-v4", 0.0)),
        ((li2017.PAPER.crnn.hidden, li2017.PAPER.crnn.dropout, li2017.PAPER.crnn.classes), (100, 0.2, 17)),
        (
            li2017.PAPER.optimisation,  # 20 minutes an epoch
            Optimisation("sgd", 0.1, 95, HOURS * 60 // 20, momentum=0.8, clip_value=1e-3, decay=0.8, patience=3),
        ),
        (FEATURES["li2017/audio"]["log_mel"], (10 * 200, 60)),
        # Parekh et al., section 4; nothing is said of decay or clipping
        (parekh2018.PAPER.optimisation, Optimisation("adam", KNOWN["learning_rate"], KNOWN["batch"], 25, 1000)),
        (25 * 1000, KNOWN["steps"]),
        (parekh2018.PAPER.search.boxes, KNOWN["boxes_per_frame"]),
        ((parekh2018.PAPER.region_units, parekh2018.PAPER.segment_units), (4096, KNOWN["audio_layer_units"])),
        ((parekh2018.PAPER.image_network, parekh2018.PAPER.audio_networks), ("caffenet", ("vggish",))),
        (parekh2018.PAPER.scaled, False),
        (FEATURES["parekh2018/two_stream"]["regions"][1], KNOWN["region_features"]),
        (FEATURES["parekh2018/two_stream"]["segments"][1], KNOWN["segment_features"]),
        # Fayek and Kumar, sections 3.1, 3.2 and 4.2
        ((fayek2020.PAPER.backbone, fayek2020.PAPER.frames, fayek2020.PAPER.mixing), ("resnet152", 64, 0.0)),
        (fayek2020.PAPER.visual_optimisation, Optimisation("adam", 1e-4, batch=144, epochs=20)),
        (fayek2020.PAPER.fusion_optimisation, Optimisation("adam", 1e-3, batch=256, epochs=100)),
        ((fayek2020.PAPER.units, fayek2020.PAPER.folds), (512, 0)),
        (fayek2020.PAPER.audio.classes, FAYEK["audioset"]["classes"]),
        (FEATURES["fayek2020/audio"]["log_mel"], (10 * 100, 64)),
    ],
)
def test_the_papers_settings(found: Any, expected: Any) -> None:
    assert found == expected


def test_the_rows_of_the_published_tables_are_systems() -> None:
    table_1 = {f"parekh2018/{name}": row for name, row in PAREKH["table1"].items() if name != "where"}
    assert set(parekh2018.TABLE_1) == set(table_1)
    assert all((SYSTEMS[n].title, SYSTEMS[n].place[-2]) == (row["name"], row["letter"]) for n, row in table_1.items())
    rows = {row for table in ("table2", "table3", "table4") for row in FAYEK[table] if row != "where"}
    assert {f"fayek2020/{row}" for row in rows} <= set(SYSTEMS)


def linear(inputs: int, outputs: int) -> int:
    """Numbers of a linear layer: weights and biases."""
    return inputs * outputs + outputs


PERCEPTRON = linear(2 * 527, 512) + 2 * 512 + linear(512, 527)  # MLP fusion and n_attn, two of batch normalisation
SINGLE = linear(527, 512) + linear(512, 527)  # each of n_a, n_v and n_av


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (
            lambda: MILNetwork(MILConfig()),
            linear(9216, 4096) + linear(4096, 4096) + 2 * 4096 * 17 + 17 + linear(128, 128) + 2 * 128 * 17 + 17,
        ),
        (lambda: Regression(527), linear(2 * 527, 527)),
        (lambda: MLP(527), PERCEPTRON),
        (lambda: Attention(527), PERCEPTRON + 3 * SINGLE),
        (lambda: Attention(527, transforms=False), PERCEPTRON + SINGLE),
        (lambda: Attention(527, combines=False), PERCEPTRON + 2 * SINGLE),
        (lambda: Attention(527, attends="cross"), 2 * (SINGLE + 2 * 512) + 3 * SINGLE),
        (
            lambda: VisualNetwork(fayek2020.PAPER.visual),
            2 * linear(2048, 2048) + linear(2048, 1024) + linear(1024, 1024) + linear(1024, 527),
        ),
    ],
)
def test_networks_have_the_papers_sizes(build: Any, parameters: int) -> None:
    with torch.device("meta"):  # shapes without memory
        assert sum(one.numel() for one in build().parameters()) == parameters


def test_attention_and_mlp_drop_half_of_their_hidden_units() -> None:
    """Section 4.2."""
    for model in (MLP(3), Attention(3), Attention(3, attends="self")):
        assert {one.p for one in model.modules() if isinstance(one, nn.Dropout)} == {0.5}


@pytest.mark.parametrize("name", parekh2018.PROFILES)
def test_the_gated_crnn_has_its_authors_sizes(name: str) -> None:
    with torch.device("meta"):
        model = GatedCRNN(parekh2018.PROFILES[name].gated_crnn)
        probabilities, attention = model.frames(torch.empty(1, 240, 64))
    assert probabilities.shape == attention.shape == (1, 240 if name == "paper" else 30, 17)
    if name == "paper":
        kernels = [tuple(one.weight.shape) for one in model.modules() if isinstance(one, nn.Conv2d)]
        assert kernels == [(128, 1, 3, 3)] + [(128, 64, 3, 3)] * 7 + [(256, 64, 3, 3)]
        for gru in (model.recurrent, model.recurrent_gate):
            assert (gru.input_size, gru.hidden_size, gru.bidirectional) == (256, 128, True)


@pytest.mark.parametrize("profile", fayek2020_others.PROFILES.values())
def test_systems_of_others_take_ten_seconds(profile: Any) -> None:
    with torch.device("meta"):
        model = JointAudioVisual(profile.audio, profile.video, profile.hidden)
        frames = torch.empty(2, profile.video_frames, *profile.video_size, 3)
        logits = model(torch.empty(2, 1000 // profile.audio_pooled, 64), frames)
    assert {head: one.shape for head, one in logits.items()} == dict.fromkeys(("audio", "visual", "joint"), (2, 527))
