"""The systems of Fayek and Kumar (2020): against loops written out, out of fold, streamed, interrupted."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from fayek2020_data import made_up_data
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro import protocol, systems
from avrepro.conditions import Condition
from avrepro.encode import write_clip
from avrepro.features.frames import mean_frame_features, video_frames
from avrepro.models.fayek2020 import AudioConfig, AudioConvNet, Regression, VisualConfig
from avrepro.systems import SYSTEMS, Checkpoint, Data, System
from avrepro.systems.fayek2020 import AUDIO, FIRST, PROFILES, VISUAL
from avrepro.training import Optimisation

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SPLITS = ["train"] * 30 + ["validation"] * 16 + ["test"] * 6
TINY = {
    "audio": AudioConfig(channels=(2, 3, 4, 4), instance=6, units=5),
    "mixing": 0.0,
    "audio_optimisation": Optimisation("adam", 1e-2, batch=8, epochs=3),
    "visual": VisualConfig(hidden=(8, 8, 6, 6)),
    "visual_optimisation": Optimisation("adam", 0.0, batch=8, epochs=3),
    "visual_rates": (1e-3, 1e-2),
    "fusion_optimisation": Optimisation("adam", 0.0, batch=8, epochs=4),
    "fusion_rates": (1e-2,),
    "units": 16,
}


def condition(**options: object) -> Condition:
    return Condition("made-up", "ci", options=tuple((TINY | options).items()))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "x.partial"


def made_up(of: Condition | None = None) -> Data:
    """Log-mel and mean frame features; of class k some bands are louder, and some features larger."""
    of, rng = of or condition(), np.random.default_rng(0)
    labels = rng.random((52, 3)) < 0.4
    labels[:3] |= np.eye(3, dtype=bool)
    log_mel = rng.normal(-5, 1, (52, 96, 64))
    for k in range(3):
        log_mel[labels[:, k], 20 * k : 20 * k + 50, 18 * k : 18 * k + 9] += 2
    frames = (labels @ rng.normal(0, 1, (3, 10)) + rng.normal(0, 1, (52, 10))).astype(np.float32)
    present = np.ones(52, dtype=bool)
    present[[5, 33]] = False  # a clip of train and one of validation without pictures
    features = [
        (SYSTEMS[AUDIO].features(of)["log_mel"], [*log_mel.astype(np.float16)], None),
        (SYSTEMS[VISUAL].features(of)["frames"], [*frames], present),
    ]
    return made_up_data(of, labels, SPLITS, features)


def outputs() -> tuple[Data, dict[str, np.ndarray]]:
    """Clips, and made-up outputs of both models that know something of them."""
    data, rng = made_up(), np.random.default_rng(1)
    given = {
        name: np.clip(0.2 + 0.4 * data.targets + rng.normal(0, 0.2, data.targets.shape), 0, 1).astype(np.float32)
        for name in (AUDIO, VISUAL)
    }
    return data, given


def by_scikit(truth: np.ndarray, scores: np.ndarray) -> float:
    """mAP of classes with a positive clip."""
    there = np.flatnonzero(truth.any(axis=0))
    return float(np.mean([average_precision_score(truth[:, k], scores[:, k]) for k in there]))


def literally(
    network: nn.Module,
    loss: Callable[..., Tensor],
    data: tuple[Tensor, ...],
    score: Callable[[nn.Module], float],
    optimisation: Optimisation,
    rate: float,
) -> nn.Module:
    """Adam on shuffled batches; the first of the epochs with the highest score. Seed 5."""
    order = torch.Generator().manual_seed(5)
    torch.manual_seed(5)
    adam = torch.optim.Adam(network.parameters(), rate)
    best, selected = -1.0, network
    for _ in range(optimisation.epochs):
        network.train()
        shuffled = torch.randperm(len(data[0]), generator=order).tolist()
        while shuffled:
            rows, shuffled = shuffled[: optimisation.batch], shuffled[optimisation.batch :]
            adam.zero_grad()
            loss(network, *(one[rows] for one in data)).backward()
            adam.step()
        network.eval()
        with torch.no_grad():
            found = score(network)
        if found > best:
            best, selected = found, copy.deepcopy(network)
    return selected


def best_map(trained: Checkpoint) -> float:
    return max(row["validation_score"] for row in trained.history)


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], **tolerance: float) -> None:
    torch.testing.assert_close({**found}, {**expected}, **tolerance)


# --- the two models ----------------------------------------------------------------------------------------


def test_generations_learn_from_the_one_before(state: Path) -> None:
    """Each begins anew, on (1 - weight) y + weight p with p the scores that the previous generation gives."""
    weight, data = 0.6, made_up(condition(generations=3, teacher_weight=0.6))
    train, held = data.rows("train"), data.rows("validation")
    log_mel = torch.from_numpy(data.arrays(SYSTEMS[AUDIO].features(data.condition)["log_mel"])[:]).float()
    labels = torch.from_numpy(data.targets).float()
    targets, expected = labels[train], []
    for _ in range(3):
        torch.manual_seed(5)
        network = AudioConvNet(replace(TINY["audio"], classes=3))  # type: ignore[type-var]
        network.prepare(log_mel[train], labels[train])
        network = literally(
            network,
            lambda network, log_mel, y: F.binary_cross_entropy(network(log_mel), y),
            (log_mel[train], targets),
            lambda network: by_scikit(data.targets[held], network(log_mel[held]).numpy()),
            TINY["audio_optimisation"],  # type: ignore[arg-type]
            1e-2,
        )  # fmt: skip
        with torch.no_grad():
            expected.append(network(log_mel))
        pairs = zip(labels[train], expected[-1][train], strict=True)
        targets = torch.stack([(1 - weight) * y + weight * p for y, p in pairs])
    first = SYSTEMS[FIRST].fit(data, {}, 5, state)
    given = {FIRST: SYSTEMS[FIRST].scores(first, data, {})}
    np.testing.assert_allclose(given[FIRST], expected[0], atol=1e-5)
    last = SYSTEMS[AUDIO].fit(data, given, 5, state)
    np.testing.assert_allclose(SYSTEMS[AUDIO].scores(last, data, given), expected[2], atol=1e-5)
    assert not np.allclose(expected[0], expected[2], atol=1e-3)
    assert best_map(last) == pytest.approx(by_scikit(data.targets[held], expected[2][held].numpy()))


def test_a_student_of_labels_alone_is_its_teacher_and_a_single_generation_the_first(state: Path) -> None:
    data = made_up(condition(teacher_weight=0.0))
    first = SYSTEMS[FIRST].fit(data, {}, 5, state)
    state.unlink()
    given = {FIRST: SYSTEMS[FIRST].scores(first, data, {})}
    same(SYSTEMS[AUDIO].fit(data, given, 5, state).state, first.state, atol=0, rtol=0)
    single = made_up(condition(generations=1))
    found = SYSTEMS[AUDIO].fit(single, given, 5, state)
    assert SYSTEMS[AUDIO].scores(found, single, given) is given[FIRST] and found.parameters == 0


def test_validation_chooses_the_visual_models_rate(state: Path) -> None:
    found = {}
    for rates in ((1e-3, 1e-2), (1e-3,), (1e-2,)):
        data = made_up(condition(visual_rates=rates))
        found[rates] = SYSTEMS[VISUAL].fit(data, {}, 0, state)
        state.unlink(missing_ok=True)
    both, *alone = found.values()
    maps = [best_map(one) for one in alone]
    assert maps[0] != maps[1] and both.numbers["rates"] == [[1e-3, maps[0]], [1e-2, maps[1]]]
    same(both.state, alone[int(np.argmax(maps))].state, atol=0, rtol=0)
    held = [row for row in data.rows("validation") if row != 33]
    scores = SYSTEMS[VISUAL].scores(both, data, {})
    assert max(maps) == pytest.approx(by_scikit(data.targets[held], scores[held]))
    frames = data.arrays(SYSTEMS[VISUAL].features(data.condition)["frames"])
    with_pictures = [row for row in range(30) if row != 5]  # normalised by the training clips that have any
    np.testing.assert_allclose(both.state["mean"], frames[with_pictures].mean(axis=0), atol=1e-6)


# --- fusions -----------------------------------------------------------------------------------------------


def test_regression_by_a_plain_loop(state: Path) -> None:
    data, given = outputs()
    train, held = data.rows("train"), data.rows("validation")
    h = {name: torch.from_numpy(one) for name, one in given.items()}
    moments = [(one[train].mean(dim=0), one[train].std(dim=0, correction=0)) for one in h.values()]
    labels = torch.from_numpy(data.targets).float()

    def joined(a: Tensor, v: Tensor) -> Tensor:
        return torch.cat([(one - mean) / deviation for one, (mean, deviation) in zip((a, v), moments, strict=True)], 1)

    def loss(fusion: nn.Module, a: Tensor, v: Tensor, y: Tensor) -> Tensor:
        p = torch.sigmoid(joined(a, v) @ fusion.linear.weight.T + fusion.linear.bias)  # type: ignore[operator]
        entropy = (-y * p.log() - (1 - y) * (1 - p).log()).mean()
        return entropy + 1e-5 * sum(w**2 for w in fusion.linear.weight.flatten())  # type: ignore[union-attr, operator]

    torch.manual_seed(5)
    network = Regression(3)
    frequencies = labels[train].mean(dim=0)
    network.linear.bias.data = torch.log(frequencies / (1 - frequencies))
    expected = literally(
        network, loss, (h[AUDIO][train], h[VISUAL][train], labels[train]),
        lambda fusion: by_scikit(data.targets[held], fusion.linear(joined(h[AUDIO][held], h[VISUAL][held])).numpy()),
        TINY["fusion_optimisation"], 1e-2,
    )  # fmt: skip
    system = SYSTEMS["fayek2020/regression"]
    found = system.fit(data, given, 5, state)
    for name in ("linear.weight", "linear.bias"):
        torch.testing.assert_close(found.state[name], expected.state_dict()[name], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.state["moments"], torch.stack([torch.stack(one) for one in moments]))
    scores = system.scores(found, data, given)
    assert best_map(found) == pytest.approx(by_scikit(data.targets[held], scores[held]))


def test_the_average_is_of_plain_outputs() -> None:
    data, given = outputs()
    found = SYSTEMS["fayek2020/average"].scores(Checkpoint(), data, given)
    np.testing.assert_allclose(found, 0.5 * given[AUDIO] + 0.5 * given[VISUAL])


def test_weights_of_classes_are_means_over_training_clips(state: Path) -> None:
    data, given = outputs()
    attention, fixed = SYSTEMS["fayek2020/attention"], SYSTEMS["fayek2020/attention_class_weights"]
    trained = attention.fit(data, given, 5, state)
    alpha = attention.modality_weights(trained, data, given)  # type: ignore[attr-defined]
    model = attention.network(trained, data)  # type: ignore[attr-defined]
    found = fixed.fit(data, given, 5, state)
    same(found.state, trained.state, atol=0, rtol=0)
    mean = alpha[:30].mean(axis=0)
    assert alpha.std(axis=0).max() > 1e-3
    np.testing.assert_allclose(fixed.modality_weights(found, data, given), np.tile(mean, (52, 1)), atol=1e-6)
    with torch.no_grad():
        h_a, h_v = model.normalised(*(torch.from_numpy(given[name]) for name in (AUDIO, VISUAL)))
        mixed = torch.from_numpy(mean) * model.n_a(h_a) + torch.from_numpy(1 - mean) * model.n_v(h_v)
        np.testing.assert_allclose(fixed.scores(found, data, given), torch.sigmoid(model.n_av(mixed)), atol=1e-6)


class Memorising(System):
    """1 for every class of a clip that it was trained on, else a random number."""

    profiles: ClassVar = PROFILES

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        return Checkpoint(numbers={"trained": data.rows("train").tolist()})

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        found = np.random.default_rng(2).random(data.targets.shape)
        found[checkpoint.numbers["trained"]] = 1
        return found


@pytest.mark.parametrize(("profile", "folds"), [("ci", 3), ("demo", 3), ("paper", 0)])
def test_fusions_learn_from_models_not_trained_on_the_clip(
    profile: str, folds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both of them; in profile paper, as in the paper, from their outputs on their own training clips."""
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    corpus = made_up().corpus
    for name in (AUDIO, VISUAL):
        monkeypatch.setitem(systems.SYSTEMS, name, Memorising(name, name, "test"))
    monkeypatch.setattr(protocol, "_corpus", lambda condition: corpus)
    protocol.load.cache_clear()
    for name in ("fayek2020/mlp", "fayek2020/attention"):
        trained = Condition("made-up", profile)
        assert SYSTEMS[name].folds(trained) == folds
        moments = protocol.fit(name, trained).checkpoint.state["moments"].numpy()
        expected = np.random.default_rng(2).random((52, 3))[:30] if folds else np.ones((30, 3))
        for one in moments:
            np.testing.assert_allclose(one[0], expected.mean(axis=0), rtol=1e-5)
            np.testing.assert_allclose(one[1], np.maximum(expected.std(axis=0), 1e-6), rtol=1e-5)
    average = protocol.scores(protocol.fit("fayek2020/average", trained), protocol.load(trained))
    assert (average[:30] == 1).all()  # of the plain outputs
    protocol.load.cache_clear()


def test_frames_are_of_the_middles_of_equal_parts(tmp_path: Path) -> None:
    """A clip whose grey level tells the second: 8 frames of 10 s are of 0.6, 1.9, 3.1, 4.4, 5.6, 6.9, 8.1, 9.4 s."""
    from avrepro import backbones
    from avrepro.corpora.base import Clip

    for seconds, expected in ((10, [0, 1, 3, 4, 5, 6, 8, 9]), (4, [0, 1, 3, 3, 3, 3, 3, 3])):
        clip = Clip(str(seconds), tmp_path / f"{seconds}.mp4", "train", ())
        grey = np.repeat(np.arange(seconds) * 20 + 20, 12).astype(np.uint8)
        write_clip(clip.path, np.broadcast_to(grey[:, None, None, None], (len(grey), 48, 64, 3)).copy(), 12,
                   np.zeros(seconds * 16_000, np.float32), 16_000)  # fmt: skip
        frames = video_frames(8, (24, 32)).of(clip)
        assert frames.shape == (8, 24, 32, 3) and frames.dtype == np.uint8
        levels = frames.reshape(8, -1).astype(float)
        np.testing.assert_allclose(levels, np.broadcast_to(np.array(expected)[:, None] * 20 + 20, levels.shape), atol=4)
        network = backbones.load("efficientnet-lite0", CPU)
        found = mean_frame_features("efficientnet-lite0", 8, (24, 32), CPU).of(clip)
        np.testing.assert_allclose(found, sum(network.pooled(frame[None])[0] for frame in frames) / 8, atol=1e-4)
    black = mean_frame_features("efficientnet-lite0", 8, (24, 32), CPU).nothing()
    np.testing.assert_allclose(black, network.pooled(np.zeros((1, 24, 32, 3), np.uint8))[0], atol=1e-4)
