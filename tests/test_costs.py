"""Costs: multiply-accumulates against counts by hand, and of one clip from its file."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from avrepro import costs
from avrepro.corpora.base import Clip, Corpus, CorpusError
from avrepro.costs import costs_of, multiply_accumulates
from avrepro.features.store import Feature
from avrepro.protocol import Fitted
from avrepro.recipes import Recipe
from avrepro.systems import SYSTEMS, Checkpoint, Condition, Data, System

B, T, C, H = 2, 7, 16, 10  # clips, steps, channels, hidden
STEPS = torch.zeros(B, T, C)


def test_linear_and_convolutions() -> None:
    assert multiply_accumulates(nn.Linear(C, 5), STEPS) == B * T * C * 5
    picture = torch.zeros(B, 8, 9, 11)
    assert multiply_accumulates(nn.Conv2d(8, 8, 3, padding=1, groups=8), picture) == B * 9 * 11 * 3 * 3 * 8
    assert multiply_accumulates(nn.Conv2d(8, 4, 3, stride=2), picture) == B * 4 * 5 * 3 * 3 * 8 * 4
    frames = picture[:, :, None].repeat(1, 1, 3, 1, 1)
    assert multiply_accumulates(nn.Conv3d(8, 4, (3, 1, 1)), frames) == B * 1 * 9 * 11 * 3 * 8 * 4


def test_gru() -> None:
    gru = nn.GRU(C, H, num_layers=2, batch_first=True, bidirectional=True)
    gates = 3 * H * C + 3 * H * H + 3 * H * 2 * H + 3 * H * H  # three, of the input and of the state, of two layers
    assert multiply_accumulates(gru, STEPS) == 2 * T * B * gates
    assert multiply_accumulates(torch.inference_mode()(gru.eval()), STEPS) == 2 * T * B * gates


@pytest.mark.parametrize("training", [True, False])
def test_attention(training: bool) -> None:
    """Also where torch would take a fused kernel, which hides its products."""
    products = B * T * T * C * 2  # queries with keys, weights with values; heads share the channels
    projections = B * T * C * C * 4
    attention = nn.MultiheadAttention(C, 4, batch_first=True).train(training)
    for weights in (True, False):
        found = multiply_accumulates(lambda x, w=weights: attention(x, x, x, need_weights=w), STEPS)
        assert found == products + projections
    layer = nn.TransformerEncoderLayer(C, 4, 32, batch_first=True).train(training)
    assert multiply_accumulates(torch.inference_mode()(layer), STEPS) == products + projections + B * T * C * 32 * 2
    assert torch.backends.mha.get_fastpath_enabled()


class Tiny(System):
    """A frozen product of [T, C] and [C, H] a clip, then the mean of a layer of 3 classes; adds up what it uses."""

    profiles: ClassVar = {"demo": Checkpoint()}
    decoded: ClassVar[list[str]] = []

    def __init__(self, name: str, uses: tuple[str, ...] = ()) -> None:
        super().__init__(name, name, "")
        self.uses = uses

    def features(self, condition: Condition) -> dict[str, Feature]:
        def read(clip: Clip) -> np.ndarray:
            self.decoded.append(clip.id)
            return np.ones((T, C), np.float32)

        def compute(read: np.ndarray) -> np.ndarray:
            return (torch.from_numpy(read) @ torch.ones(C, H)).numpy()

        return {"frozen": Feature(Recipe("frozen", 1), "audio", read, compute, lambda: np.zeros((T, H), np.float32))}

    def fit(self, *given: object) -> Checkpoint:  # type: ignore[override]
        return Checkpoint(profile="demo", classes=["a", "b", "c"], seconds=2.0, parameters=H * 3)

    def scores(self, checkpoint: Checkpoint, data: Data, given: dict) -> np.ndarray:  # type: ignore[override]
        frozen = torch.from_numpy(data.arrays(self.features(data.condition)["frozen"])[:])
        return nn.Linear(H, 3)(frozen).mean(dim=1).detach().numpy() + sum(given.values())


class Student(Tiny):
    """Learns from the scores of what it uses, and gives its own without them."""

    def scores(self, checkpoint: Checkpoint, data: Data, given: dict) -> np.ndarray:  # type: ignore[override]
        return super().scores(checkpoint, data, {})


def test_costs_are_those_of_one_clip_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes out of a cache, other clips cost nothing, and parts count."""
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    parts = {}
    for system in (Tiny("tiny/one"), Tiny("tiny/both", ("tiny/one",)), Student("tiny/student", ("tiny/one",))):
        name, uses = system.name, system.uses
        monkeypatch.setitem(SYSTEMS, name, system)
        parts[name] = Fitted(system, system.fit(), {used: parts[used] for used in uses}, tmp_path)
    clips = tuple(Clip(f"{row}", Path(), ("train", "test", "test")[row], ()) for row in range(3))
    data = Data(Corpus("demo", ("a", "b", "c"), clips, (), "digest"), Condition(), torch.device("cpu"))
    own = T * C * H + T * H * 3
    for name, times, trained in (("tiny/one", 1, 1), ("tiny/both", 2, 2), ("tiny/student", 1, 2)):
        Tiny.decoded.clear()
        found = costs_of(parts[name], data)
        assert (found["macs"], found["parameters"]) == (times * own, trained * H * 3)
        assert found["training_seconds"] == trained * 2
        assert 0 < found["inference_seconds"] < 1
        assert set(Tiny.decoded) == {"1"} and len(Tiny.decoded) >= 1 + costs.REPEATS
    assert not (tmp_path / "scores").exists() and not (tmp_path / "features").exists()
    with pytest.raises(CorpusError, match="test clip"):
        costs_of(parts["tiny/one"], Data(data.corpus.split("train"), Condition(), torch.device("cpu")))
