"""What all trained systems have in common, on made-up clips: what they learn, from which clips, and going on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_clips import OPTIONS, Toy, short

from avrepro import protocol, training
from avrepro.conditions import Condition
from avrepro.evaluation import roc_auc
from avrepro.systems import SYSTEMS, Checkpoint, of_paper
from avrepro.systems.parekh2018 import MIL

pytestmark = pytest.mark.usefixtures("one_thread")

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
    trained = [one for key, one in checkpoint.state.items() if is_trained(key)]
    assert checkpoint.parameters == sum(one.numel() for one in trained)
    assert checkpoint.seconds > 0 and not [*Path().glob("*.partial")]


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


@pytest.mark.parametrize("name", ["fayek2020/audio", "fayek2020/visual", "fayek2020/gblend", "parekh2018/cvssp_fusion"])
def test_a_killed_training_of_several_parts_goes_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any epoch it ends in the same weights, and epochs that were saved are not run again."""
    options = short(name) | {"generations": 3} if name == "fayek2020/audio" else short(name)
    epochs: list[str] = []
    whole_say, stop_at = training.say, 0

    def counting(line: str) -> None:
        whole_say(line)
        epochs.append(line)
        if len(epochs) == stop_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "say", counting)
    whole = Toy(options).fit(name).state
    count = len(epochs)
    assert count >= 4
    for stop_at in (2, count - 1):
        epochs.clear()
        with pytest.raises(KeyboardInterrupt):
            Toy(options).fit(name)
        assert [*Path().glob("*.partial")]
        stopped, stop_at = stop_at, 0
        epochs.clear()
        resumed = Toy(options).fit(name).state
        assert sum("goes on" not in line for line in epochs) == count - stopped + 1  # the interrupted one once more
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
        assert not [*Path().glob("*.partial")]


@pytest.mark.parametrize("name", ["li2017/audio", "parekh2018/two_stream", "fayek2020/visual", "fayek2020/mlp"])
def test_one_training_clip_is_an_error_that_says_so(name: str) -> None:
    toy = Toy(short(name))
    train = toy.rows("train")[1:]
    clips = [replace(clip, split="left out") if row in train else clip for row, clip in enumerate(toy.corpus.clips)]
    toy.corpus = replace(toy.corpus, clips=tuple(clips))
    with pytest.raises(ValueError, match=f"{name}: expected at least 2 training clips, found 1"):
        toy.fit(name)


MIL_ROWS = {name for name in of_paper("parekh2018") if isinstance(SYSTEMS[name], MIL)}
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
