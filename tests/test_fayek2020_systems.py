"""The systems of Fayek and Kumar (2020): against loops written out, what validation chooses, and out of fold."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch.nn import functional as F
from toy_clips import FAYEK, Toy

from avrepro import backbones
from avrepro.conditions import Condition
from avrepro.corpora.base import Clip
from avrepro.encode import write_clip
from avrepro.features.frames import mean_frame_features, video_frames
from avrepro.models.fayek2020 import AudioConfig, AudioConvNet
from avrepro.systems import SYSTEMS, Checkpoint, of_paper
from avrepro.systems.fayek2020 import AUDIO, FIRST, VISUAL, LearntFusion
from avrepro.training import Optimisation

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
TINY = FAYEK | {
    "audio": AudioConfig(channels=(2, 3, 4, 4), instance=6, units=5),
    "audio_optimisation": Optimisation("adam", 1e-2, batch=16, epochs=3),
    "visual_optimisation": Optimisation("adam", 0.0, batch=8, epochs=3),
    "fusion_optimisation": Optimisation("adam", 0.0, batch=8, epochs=4),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def map_of(toy: Toy, scores: np.ndarray, rows: np.ndarray) -> float:
    return float(average_precision_score(toy.targets[rows], scores[rows]))


def best_map(trained: Checkpoint) -> float:
    return max(row["validation_score"] for row in trained.history)


def trained_by_a_plain_loop(toy: Toy, log_mel: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """Scores of the audio model, seed 5: Adam on shuffled batches, the first of the epochs with the highest mAP."""
    train, held, settings = toy.rows("train"), toy.rows("validation"), TINY["audio_optimisation"]
    torch.manual_seed(5)
    network = AudioConvNet(replace(TINY["audio"], classes=3))
    network.prepare(log_mel[train], torch.from_numpy(toy.targets[train]).float())
    order = torch.Generator().manual_seed(5)
    torch.manual_seed(5)
    adam = torch.optim.Adam(network.parameters(), settings.learning_rate)
    best, selected = -1.0, network
    for _ in range(settings.epochs):
        network.train()
        shuffled = train[torch.randperm(len(train), generator=order)]
        for start in range(0, len(train), settings.batch):
            rows = shuffled[start : start + settings.batch]
            adam.zero_grad()
            F.binary_cross_entropy(network(log_mel[rows]), targets[rows]).backward()
            adam.step()
        network.eval()
        with torch.no_grad():
            found = map_of(toy, network(log_mel).numpy(), held)
        if found > best:
            best, selected = found, copy.deepcopy(network)
    with torch.no_grad():
        return selected(log_mel).numpy()


def test_generations_learn_from_the_one_before() -> None:
    """Each begins anew, on (1 - weight) y + weight p with p the scores that the previous generation gives."""
    toy = Toy(TINY | {"generations": 3, "teacher_weight": 0.6})
    log_mel = torch.from_numpy(np.stack(toy.made["log-mel"]))
    labels = torch.from_numpy(toy.targets).float()
    expected = [trained_by_a_plain_loop(toy, log_mel, labels)]
    for _ in range(2):
        expected.append(trained_by_a_plain_loop(toy, log_mel, 0.4 * labels + 0.6 * torch.from_numpy(expected[-1])))
    given = {FIRST: toy.scores(FIRST, toy.fit(FIRST, 5))}
    np.testing.assert_allclose(given[FIRST], expected[0], atol=1e-5)
    last = SYSTEMS[AUDIO].fit(toy, given, 5, Path("state.partial"))
    np.testing.assert_allclose(SYSTEMS[AUDIO].scores(last, toy, given), expected[2], atol=1e-5)
    assert not np.allclose(expected[0], expected[2], atol=1e-3)
    assert best_map(last) == pytest.approx(map_of(toy, expected[2], toy.rows("validation")))
    single = Toy(TINY | {"generations": 1})
    found = SYSTEMS[AUDIO].fit(single, given, 5, Path("state.partial"))
    assert SYSTEMS[AUDIO].scores(found, single, given) is given[FIRST] and found.parameters == 0


class OnDisk:
    """Scores of which only some rows are read at a time."""

    def __init__(self, scores: np.ndarray, most: int) -> None:
        self.scores, self.most = scores, most

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        assert len(rows) <= self.most, "more rows than a batch or a chunk are read"
        return self.scores[rows]


def test_fusions_never_hold_the_scores_of_all_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """AudioSet's two million clips times 527 classes are 4 GB a model; read by parts, they give the same fusion."""
    monkeypatch.setattr("avrepro.systems.fayek2020.CHUNK", 8)
    toy, name, random = Toy(TINY), "fayek2020/attention", np.random.default_rng(0)
    whole = {used: random.random(toy.targets.shape, dtype=np.float32) for used in (AUDIO, VISUAL)}
    parts = {used: OnDisk(scores, most=9) for used, scores in whole.items()}  # a batch of 8, and one more to end with
    found = SYSTEMS[name].fit(toy, parts, 0, Path("state.partial"))
    np.testing.assert_array_equal(
        SYSTEMS[name].scores(found, toy, parts),
        SYSTEMS[name].scores(SYSTEMS[name].fit(toy, whole, 0, Path("other.partial")), toy, whole),
    )


@pytest.mark.parametrize(("name", "option"), [(VISUAL, "visual_rates"), ("fayek2020/mlp", "fusion_rates")])
def test_validation_chooses_the_rate(name: str, option: str) -> None:
    rates = (1e-3, 1e-2)
    both, *alone = (Toy(TINY | {option: tried}).fit(name) for tried in (rates, rates[:1], rates[1:]))
    maps = [best_map(one) for one in alone]
    assert maps[0] != maps[1] and both.numbers["rates"] == [[rates[0], maps[0]], [rates[1], maps[1]]]
    chosen = alone[int(np.argmax(maps))].state
    assert all(torch.equal(value, chosen[key]) for key, value in both.state.items())
    toy = Toy(TINY)
    assert max(maps) == pytest.approx(map_of(toy, toy.scores(name, both), toy.rows("validation")))


def test_clips_without_pictures_teach_the_visual_model_nothing() -> None:
    """Nor do they choose its epoch."""
    toy = Toy(TINY)
    toy.without_pictures = [0, 1]  # of train and of validation
    trained = toy.fit(VISUAL)
    mean = np.mean([toy.made["mean-frames"][row] for row in toy.rows("train")[1:]], axis=0)
    np.testing.assert_allclose(trained.state["mean"], mean, atol=1e-6)
    scores = toy.scores(VISUAL, trained)
    assert best_map(trained) == pytest.approx(map_of(toy, scores, toy.rows("validation")[1:]))


# --- fusions -----------------------------------------------------------------------------------------------


def test_fusions_learn_from_outputs_out_of_fold_but_in_the_paper() -> None:
    """Of both models; the average is of plain outputs."""
    for name in of_paper("fayek2020"):
        folds = [SYSTEMS[name].folds(Condition(profile=profile)) for profile in ("ci", "demo", "paper")]
        assert folds == ([3, 3, 0] if isinstance(SYSTEMS[name], LearntFusion) else [0, 0, 0]), name
    toy, name = Toy(TINY), "fayek2020/average"
    given = toy.given(name)
    np.testing.assert_allclose(toy.scores(name, Checkpoint()), 0.5 * given[AUDIO] + 0.5 * given[VISUAL])


def test_fusions_start_from_training_clips() -> None:
    """From the moments of both outputs and the share of clips with each class, where no step changes anything."""
    toy, name = Toy(TINY | {"fusion_rates": (0.0,)}), "fayek2020/regression"
    train, state = toy.rows("train"), toy.fit(name).state
    shares = toy.targets[train].mean(axis=0)
    np.testing.assert_allclose(state["linear.bias"], np.log(shares / (1 - shares)), rtol=1e-5)
    outputs = [toy.given(name)[model][train] for model in (AUDIO, VISUAL)]
    np.testing.assert_allclose(state["moments"], [[one.mean(axis=0), one.std(axis=0)] for one in outputs], rtol=1e-5)


def test_weights_of_classes_are_means_over_training_clips() -> None:
    toy = Toy(TINY)
    attention, fixed = SYSTEMS["fayek2020/attention"], SYSTEMS["fayek2020/attention_class_weights"]
    given, train = toy.given(fixed.name), toy.rows("train")
    trained, found = toy.fit(attention.name, 5), toy.fit(fixed.name, 5)
    assert all(torch.equal(value, trained.state[key]) for key, value in found.state.items())
    alpha = attention.modality_weights(trained, toy, given)  # type: ignore[attr-defined]
    model = attention.network(trained, toy)  # type: ignore[attr-defined]
    mean = alpha[train].mean(axis=0)
    assert alpha.std(axis=0).max() > 1e-3
    class_weights = fixed.modality_weights(found, toy, given)  # type: ignore[attr-defined]
    np.testing.assert_allclose(class_weights, np.tile(mean, (160, 1)), atol=1e-6)
    with torch.no_grad():
        h_a, h_v = model.normalised(*(torch.from_numpy(given[name]) for name in (AUDIO, VISUAL)))
        mixed = torch.from_numpy(mean) * model.n_a(h_a) + torch.from_numpy(1 - mean) * model.n_v(h_v)
        np.testing.assert_allclose(toy.scores(fixed.name, found), torch.sigmoid(model.n_av(mixed)), atol=1e-6)


def test_frames_are_of_the_middles_of_equal_parts(tmp_path: Path) -> None:
    """A clip whose grey level tells the second: 8 frames of 10 s are of 0.6, 1.9, 3.1, 4.4, 5.6, 6.9, 8.1, 9.4 s."""
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
