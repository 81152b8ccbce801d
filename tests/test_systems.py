"""What all trained systems have in common, on made-up clips: what they learn, from which clips, and impaired clips."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_clips import OPTIONS, Toy, short

from avrepro import protocol, training
from avrepro.conditions import Condition
from avrepro.evaluation import roc_auc
from avrepro.systems import SYSTEMS, Checkpoint, CheckpointError, of_paper
from avrepro.systems.parekh2018 import MIL, Synchronous
from avrepro.training import Optimisation

pytestmark = pytest.mark.usefixtures("one_thread")

MIL_ROWS = {name for name in of_paper("parekh2018") if isinstance(SYSTEMS[name], MIL)}
TRAINED = [name for name in OPTIONS if name != "fayek2020/average"]
ONE_OF_A_KIND = [
    "li2017/audio",
    *(f"parekh2018/{row}" for row in ("two_stream", "synchronous", "cvssp_gated_crnn", "cvssp_fusion")),
    *(f"fayek2020/{row}" for row in ("audio_first_generation", "audio", "visual", "mlp", "attention_class_weights")),
    *(f"fayek2020/{row}" for row in ("resnet_audio", "gblend")),
    "beyond/bottleneck",
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AVREPRO_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", TRAINED)
def test_planted_classes_are_learnt(name: str) -> None:
    """On test clips; and a checkpoint that was saved gives the same scores."""
    toy, system = Toy(OPTIONS[name]), SYSTEMS[name]
    checkpoint = toy.fit(name)
    checkpoint.save(Path("trained.pt"))
    scores, test = toy.scores(name, checkpoint), toy.rows("test")
    assert scores.shape == (160, 3) and scores.dtype == np.float32
    np.testing.assert_array_equal(toy.scores(name, Checkpoint.load(Path("trained.pt"))), scores)
    assert roc_auc(toy.targets[test], scores[test]).mean() > 0.85
    if system.probabilities:
        assert scores.min() >= 0 and scores.max() <= 1
    if isinstance(system, MIL):
        check_places(toy, system, system.localisation(checkpoint, toy))
    trained = [one for key, one in checkpoint.state.items() if is_trained(key)]
    assert checkpoint.parameters == sum(one.numel() for one in trained)
    assert checkpoint.seconds > 0 and not [*Path().glob("*.partial")]


def check_places(toy: Toy, system: MIL, located: dict[str, list[np.ndarray]]) -> None:
    """Proposals that are 8 deviations high are found by labels of clips alone.

    More than half of the way from chance, one over the bag's size, to always. A second has several, so there only how
    many there are is checked.
    """
    if isinstance(system, Synchronous):
        sizes = [math.ceil((48 * (len(bag) - 1) + 72) / 100) for bag in toy.made["segments"]]
        assert set(located) == {"seconds"}
        assert [one.shape for one in located["seconds"]] == [(size, 3) for size in sizes]
        return
    assert set(located) == {{"audio": "segments", "video": "regions"}[one] for one in system.modalities}
    margins = []
    for part, found in located.items():
        bags = toy.made[part]
        assert [one.shape for one in found] == [(len(bag), 3) for bag in bags]
        asked = [(row, k) for row in toy.rows("test") for k in np.flatnonzero(toy.targets[row])]
        hits = np.mean([found[row][:, k].argmax() == bags[row][:, k].argmax() for row, k in asked])
        margins.append(hits - (1 + np.mean([1 / len(bags[row]) for row, _ in asked])) / 2)
    each = system.l2 and system.architecture != "one_stream"  # else one modality can do the work of both
    assert (min(margins) if each else max(margins)) > 0


def is_trained(key: str) -> bool:
    """Whether an entry of a state is trained by gradient: no scale of inputs, no running mean."""
    last = key.rpartition(".")[2]
    return last not in ("scale", "mean", "deviation", "moments", "num_batches_tracked") and "running" not in last


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_the_seed_and_the_clips_of_training_and_validation_decide_all(name: str) -> None:
    """Clips of test, and their labels, decide nothing; those of validation the epoch alone."""

    def state(change: Callable[[Toy], None] = lambda toy: None, seed: int = 0) -> dict[str, torch.Tensor]:
        toy = Toy(short(name))
        torch.rand(seed + 3)  # whatever was drawn before
        change(toy)
        return toy.fit(name, seed).state

    def with_other(split: str) -> Callable[[Toy], None]:
        def change(toy: Toy) -> None:
            for made in toy.made.values():
                for row in toy.rows(split):
                    made[row] = made[row] + np.ones((), made[row].dtype)
            toy.targets[toy.rows(split)] ^= True

        return change

    def same(other: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(first[key], other[key]) for key in first)

    first = state()
    assert same(state()) and same(state(with_other("test")))
    assert not same(state(seed=1)) and not same(state(with_other("train")))
    if isinstance(SYSTEMS[name], MIL) or "cvssp" in name:
        assert same(state(with_other("validation")))


FALLING = Optimisation("sgd", 20.0, 12, epochs=6, momentum=0.8, clip_norm=1.0, decay=0.5, patience=1)  # too high a rate


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("li2017/audio", {"optimisation": FALLING}),
        ("fayek2020/audio", {"generations": 3}),
        ("fayek2020/visual", {}),
        ("fayek2020/gblend", {}),
        ("parekh2018/cvssp_fusion", {}),
    ],
)
def test_a_killed_training_goes_on_to_the_very_same_numbers(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any epoch, of the first part and of the last; epochs that were saved are not run again."""
    epochs: list[str] = []
    whole_say, stop_at = training.say, 0

    def counting(line: str) -> None:
        whole_say(line)
        epochs.append(line)
        if len(epochs) == stop_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "say", counting)
    options = short(name) | options
    whole = Toy(options).fit(name)
    count = len(epochs)
    assert count >= 4
    if name == "li2017/audio":
        assert len({row["learning_rate"] for row in whole.history}) > 1
    for stop_at in (2, count - 1):
        epochs.clear()
        with pytest.raises(KeyboardInterrupt):
            Toy(options).fit(name)
        states = [*Path().glob("*.partial")]
        for path in states:
            saved = torch.load(path, weights_only=True)
            torch.save(saved | {"seconds": saved["seconds"] + 1000}, path)  # as if its epochs had taken so long
        stopped, stop_at = stop_at, 0
        epochs.clear()
        resumed = Toy(options).fit(name)
        assert sum("goes on" not in line for line in epochs) == count - stopped + 1  # the interrupted one once more
        assert all(torch.equal(whole.state[key], resumed.state[key]) for key in whole.state)
        np.testing.assert_equal((resumed.history, resumed.numbers), (whole.history, whole.numbers))
        assert states and resumed.seconds > 1000 * len(states)
        assert not [*Path().glob("*.partial")]


@pytest.mark.parametrize("name", ["li2017/audio", "parekh2018/two_stream", "fayek2020/visual", "fayek2020/mlp"])
def test_one_training_clip_is_an_error_that_says_so(name: str) -> None:
    toy = Toy(short(name))
    train = toy.rows("train")[1:]
    clips = [replace(clip, split="left out") if row in train else clip for row, clip in enumerate(toy.corpus.clips)]
    toy.corpus = replace(toy.corpus, clips=tuple(clips))
    with pytest.raises(ValueError, match=f"{name}: expected at least 2 training clips, found 1"):
        toy.fit(name)


CVSSP = {"parekh2018/cvssp_fusion", "parekh2018/cvssp_gated_crnn"}
NOT_FUSED = {"fayek2020/audio_first_generation", "fayek2020/audio", "fayek2020/visual", "fayek2020/average"}


@pytest.mark.parametrize(
    ("systems", "option", "value", "unchanged"),
    [
        (MIL_ROWS | CVSSP, "optimisation", replace(OPTIONS["parekh2018/two_stream"]["optimisation"], steps=9), CVSSP),
        (MIL_ROWS | CVSSP, "gated_crnn", OPTIONS["parekh2018/two_stream"]["gated_crnn"], MIL_ROWS),
        (MIL_ROWS, "pooled", 2, {name for name in MIL_ROWS if "audio_only" in name}),
        (NOT_FUSED, "generations", 3, {"fayek2020/audio_first_generation", "fayek2020/visual"}),
        (NOT_FUSED, "teacher_weight", 0.5, {"fayek2020/audio_first_generation", "fayek2020/visual"}),
        (NOT_FUSED | {"fayek2020/mlp"}, "folds", 5, NOT_FUSED),
        (NOT_FUSED | {"fayek2020/mlp"}, "units", 64, NOT_FUSED),
        (NOT_FUSED | {"fayek2020/mlp"}, "frames", 4, {"fayek2020/audio_first_generation", "fayek2020/audio"}),
        ({"li2017/audio", "li2017/video", "li2017/fused"}, "mixing", 0.1, {"li2017/video"}),
        ({"li2017/audio", "li2017/video", "li2017/fused"}, "words", "glove.840B.300d", {"li2017/audio"}),
    ],
)
def test_what_depends_on_a_setting_has_another_key(
    systems: set[str], option: str, value: object, unchanged: set[str]
) -> None:
    plain, turned = (Condition(profile="ci", device="cpu", options=one) for one in ((), ((option, value),)))
    keys = {name: [protocol.recipe_of(name, one).key for one in (plain, turned)] for name in systems}
    assert {name for name, (before, after) in keys.items() if before == after} == unchanged


def test_trainings_of_a_dry_run_are_two_batches_long() -> None:
    for system in SYSTEMS.values():
        settings = system.settings(Condition(profile="paper", device="cpu", dry=True))
        trainings = [one for one in vars(settings).values() if isinstance(one, training.Optimisation)]
        assert {(one.epochs, one.steps) for one in trainings} <= {(1, 0), (1, 2)} and trainings


# --- systems on bags ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [True, False])
def test_features_are_scaled_by_those_of_the_training_clips(scaled: bool) -> None:
    options = short("parekh2018/two_stream") | {"scaled": scaled}
    toy, streams, seconds, sound = Toy(options), "two_stream", "synchronous", "synchronous_audio_only"
    bags = [np.concatenate([toy.made[part][row] for row in toy.rows("train")]) for part in ("segments", "regions")]
    squares = [np.sqrt(np.mean(one.astype(float) ** 2)) for one in bags]
    found = {name: toy.fit(f"parekh2018/{name}") for name in (streams, seconds, sound)}
    scales = [float(found[streams].state[f"{part}.scale"]) for part in ("segments", "regions")]
    assert scales == pytest.approx(squares if scaled else [1, 1], rel=1e-6)
    assert found[seconds].numbers["scales"] == pytest.approx(squares, rel=1e-6)
    assert found[sound].numbers["scales"] == pytest.approx(squares[:1], rel=1e-6)


def test_impaired_clips() -> None:
    """Scores change where a system reads what is lacking; where pictures come late, where it takes note of time."""
    found = {}
    for name in (*MIL_ROWS, "beyond/bottleneck"):
        checkpoint = Toy(short(name)).fit(name)
        whole, silent, black, late = (
            Toy(short(name), impaired=how).scores(name, checkpoint) for how in ("", "silent", "black", "delay 3 s")
        )
        found[name] = whole, silent, black
        modalities = SYSTEMS[name].modalities
        assert np.array_equal(silent, whole) == ("audio" not in modalities), name
        assert np.array_equal(black, whole) == ("video" not in modalities), name
        assert np.array_equal(late, whole) == (name not in ("parekh2018/synchronous", "beyond/bottleneck")), name
    whole, silent, black = found["parekh2018/two_stream"]  # without a modality two streams are the other stream
    for one in (silent, black):  # scores of one modality alone are of length 1
        np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(silent + black, whole, atol=1e-6)
    assert (found["parekh2018/audio_only"][1] == 0).all()


@pytest.mark.parametrize("name", ["parekh2018/two_stream", "beyond/bottleneck"])
def test_clips_described_by_other_features_are_refused(name: str) -> None:
    checkpoint = Toy(short(name)).fit(name)
    checkpoint.numbers["features"]["regions"] = "another"
    with pytest.raises(CheckpointError, match=rf"{name}: trained on other features \(regions\)"):
        Toy(short(name)).scores(name, checkpoint)


def test_the_fusion_is_the_mean_of_networks_of_other_seeds() -> None:
    name, fused = "parekh2018/cvssp_gated_crnn", "parekh2018/cvssp_fusion"
    toy, fusion = Toy(short(name)), SYSTEMS[fused]
    members = [toy.scores(name, toy.fit(name, seed)) for seed in (4, 1004, 2004)]
    assert not np.array_equal(members[0], members[1]) and not np.array_equal(members[1], members[2])
    given = {name: members[0]}
    found = fusion.scores(fusion.fit(toy, given, 4, Path("state.partial")), toy, given)
    np.testing.assert_allclose(found, sum(members) / 3, rtol=1e-6)
