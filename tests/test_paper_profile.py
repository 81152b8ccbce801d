"""The papers' own settings run through: true architectures and file formats, random weights, a few short clips."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from test_backbones import random_weights
from test_caffenet import SHAPES, caffemodel, old_layer

from avrepro import results
from avrepro.corpora import audioset
from avrepro.corpora.dcase2017 import CLASSES, NAME_OF_ID
from avrepro.encode import write_clip
from avrepro.experiments import (
    fayek2020,
    fayek2020_evaluation,
    li2017,
    li2017_evaluation,
    parekh2018,
    parekh2018_evaluation,
    parekh2018_examples,
    parekh2018_training,
)
from avrepro.features.words import words_of
from avrepro.models import backbones, caffenet, vggish
from avrepro.models.fayek2020 import FUSIONS
from avrepro.models.parekh2018 import MILNetwork
from avrepro.parameters import AttentionFusion, LightweightFusion, UnsynchronizedMIL
from avrepro.report import li2017 as report
from avrepro.results import Results, ResultsError, check_shown

ID_OF_NAME = {name: identifier for identifier, name in NAME_OF_ID.items()}
LABELS = [("Car", "Bus"), ("Train",), ("Screaming",), ("Car",), ("Bus",), ("Train", "Train horn"), ("Car",), ("Bus",)]


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """Six training clips, two testing clips and one evaluation clip that nobody has, as the official lists say it."""
    folder = tmp_path / "lists"
    (folder / "groundtruth_release").mkdir(parents=True)
    lines = []
    for number, labels in enumerate(LABELS):
        cells = [",".join(labels), ",".join(ID_OF_NAME[label] for label in labels)]
        quoted = [f'"{cell}"' if "," in cell else cell for cell in cells]
        lines.append(",".join([f"-video{number:05d}", "3.000", "5.000", *quoted]))
    (folder / "training_set.csv").write_text("\n".join(lines[:6]) + "\n")
    (folder / "testing_set.csv").write_text("\n".join(lines[6:]) + "\n")
    weak = folder / "groundtruth_release" / "groundtruth_weak_label_evaluation_set.csv"
    weak.write_text("nobodyhasit_0.000_10.000.wav\t0.000\t10.000\tTruck\n")
    return folder


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(len(LABELS)):
        frames = rng.integers(0, 256, (4, 48, 64, 3), dtype=np.uint8).repeat(6, axis=0)
        sound = 0.1 * rng.standard_normal(64000, dtype=np.float32)
        write_clip(folder / f"-video{number:05d}_3.000_5.000.mp4", frames, 12, sound, 32000)
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, Path]:
    """The files that the manifests name, in their formats: torchvision's, timm's, and a zipped text of 300 numbers."""
    with torch.device("meta"):
        networks = {
            "alexnet": torchvision.models.alexnet(),
            "inception_v4": timm.create_model("inception_v4", num_classes=1001),
        }
    paths = {name: tmp_path / f"{name}.pth" for name in networks}
    for name, network in networks.items():
        torch.save(random_weights(network, 0), paths[name])
    rng = np.random.default_rng(1)
    words = sorted({word for phrase in (*CLASSES, *backbones.CLASSES) for word in words_of(phrase)})
    text = "\n".join(f"{word} {' '.join(f'{value:.4f}' for value in rng.normal(size=300))}" for word in words)
    paths["glove_840b"] = tmp_path / "glove.840B.300d.zip"
    with zipfile.ZipFile(paths["glove_840b"], "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("glove.840B.300d.txt", text + "\n")
    return paths


def test_lightweight_fusion_runs_dry(
    lists: Path,
    clips: Path,
    weights: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    for module in (backbones, li2017):  # the files cannot be those of the manifests, and so cannot have their hashes
        monkeypatch.setattr(module, "fetch", weights.__getitem__)
    parameters = LightweightFusion(
        profile="paper", corpus="dcase2017", clips=str(clips), labels=str(lists), dry=True, device="cpu"
    )
    inputs = li2017.load_inputs(parameters)
    sizes = {split: len(inputs.corpus.split(split).clips) for split in ("train", "validation", "test", "evaluation")}
    assert sizes == {"train": 4, "validation": 1, "test": 2, "evaluation": 0}
    assert inputs.corpus.classes == CLASSES
    assert [clip.id for clip in inputs.corpus.missing] == ["nobodyhasit_0.000_10.000"]
    assert (inputs.network.name, inputs.pooled[0].shape, inputs.log_mel[0].shape) == (
        "inception-v4", (4, 1536), (2000, 60),
    )  # fmt: skip

    branches = li2017.run_branches(inputs)
    assert (len(branches.audio.history), branches.audio.model.config.channels) == (2, (32, 64, 128))
    assert branches.similarity.shape == (1000, 17) and np.isfinite(branches.similarity).all()
    assert branches.audio_scores.shape == branches.video_scores.shape == (7, 17)
    found = li2017_evaluation.evaluate(inputs, branches)
    fused = found.number("fused", "micro_f1", "test")
    assert 0 <= fused.low <= fused.value <= fused.high <= 1

    check_dry(found, capsys)


@pytest.fixture
def pretrained(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Files of CaffeNet (Caffe's own format) and VGGish with random weights; all of it is taken away: it is large."""
    rng = np.random.default_rng(2)
    arrays = {}
    for name, shape in SHAPES.items():
        gain = np.float32((2 / np.prod(shape[1:])) ** 0.5)
        arrays[f"{name}.weight"] = rng.standard_normal(shape, np.float32) * gain
        arrays[f"{name}.bias"] = rng.standard_normal(shape[0], np.float32) / 10
    paths = {"caffenet": tmp_path / "caffenet.caffemodel", "vggish": tmp_path / "vggish.pth"}
    paths["caffenet"].write_bytes(caffemodel(old_layer, arrays))
    with torch.device("meta"):
        network = vggish.VGGish()
    torch.save(random_weights(network, 3), paths["vggish"])
    yield paths
    shutil.rmtree(tmp_path)


def test_unsynchronized_mil_runs_dry(
    pretrained: dict[str, Path],
    lists: Path,
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    for module in (caffenet, vggish, parekh2018):
        monkeypatch.setattr(module, "fetch", pretrained.__getitem__)
    parameters = UnsynchronizedMIL(
        profile="paper", corpus="dcase2017", clips=str(clips), labels=str(lists), dry=True, device="cpu"
    )
    inputs = parekh2018.load_inputs(parameters)
    assert (inputs.image_network, inputs.audio_network, inputs.corpus.classes) == ("caffenet", "vggish", CLASSES)
    assert (inputs.regions.features, inputs.segments.features) == (9216, 128)
    assert (inputs.segments.sizes == 4).all()  # of 2 s: 0 to 0.96, ..., 1.44 to 2.4 s
    for row in range(7):  # nor are features of random weights all zeros, or beyond half precision
        regions, segments = inputs.regions.arrays[row], inputs.segments.arrays[row]
        assert regions.shape == (len(inputs.proposals(row).times), 9216)
        assert np.isfinite(regions).all() and regions.any() and segments.any()

    published = caffenet.read_caffemodel(pretrained["caffenet"])
    begun: dict[str, tuple[bool, float]] = {}
    fit = parekh2018_training.fit

    def watched(network: MILNetwork, *given: Any) -> Any:
        begun[str(given[-1])] = (from_file(network, published) == 0, scale(network))
        return fit(network, *given)

    monkeypatch.setattr(parekh2018_training, "fit", watched)
    systems = parekh2018.run_systems(inputs)
    looking = {"two_stream", "video_only", "wsddn", "one_stream"}
    assert begun == {name: (name in looking, 1.0) for name in parekh2018.SYSTEMS}  # features as the layers know them
    for name in looking:  # two steps of Adam at 1e-5 go no further
        assert 0 < from_file(systems.trained[name].network, published) < 3e-5
    for name, scores in systems.scores.items():
        assert scores.shape == (7, 17) and np.isfinite(scores).all(), name
    for row in range(7):
        shapes = {part: found[row].shape for part, found in systems.located["two_stream"].items()}
        assert shapes == {"regions": (inputs.regions.sizes[row], 17), "segments": (4, 17)}
    found = parekh2018_evaluation.evaluate(inputs, systems)
    lead = found.number("audio_only", "micro_f1_lead", "test")
    assert -1 <= lead.low <= lead.value <= lead.high <= 1
    assert not parekh2018_examples.unsynchronised(inputs, systems)  # nobody planted anything
    check_dry(found, capsys)


def from_file(network: MILNetwork, published: dict[str, torch.Tensor]) -> float:
    """How far fc6 and fc7 are from those of the file at most; infinitely where there are none."""
    if network.regions is None:
        return float("inf")
    arrays = network.regions.layers.state_dict()
    assert set(arrays) == {"fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias"}
    return max(float((value - published[name]).abs().max()) for name, value in arrays.items())


def scale(network: MILNetwork) -> float:
    """What features are divided by."""
    (found,) = {float(one.scale) for one in (network.regions, network.segments) if one is not None}
    return found


@pytest.fixture
def resnet152(tmp_path: Path) -> Iterator[Path]:
    """torchvision's file with random weights; all of it is taken away: it is large."""
    with torch.device("meta"):
        network = torchvision.models.resnet152()
    path = tmp_path / "resnet152.pth"
    torch.save(random_weights(network, 4), path)
    yield path
    shutil.rmtree(tmp_path)


@pytest.fixture
def audioset_lists(tmp_path: Path) -> Path:
    """Six clips of AudioSet's training list, two for evaluation and one that nobody has; 527 classes."""
    folder = tmp_path / "audioset"
    folder.mkdir()
    rows = [f'-video{number:05d}, 3.000, 5.000, "/m/{number},/m/{number + 500}"\n' for number in range(8)]
    rows.append('nobodyhasit, 0.000, 10.000, "/m/8,/m/526"\n')
    for name, part in (("balanced", rows[:6]), ("evaluation", rows[6:])):
        head = f"# made\n# num_ytids={len(part)}, num_segs={len(part)}, num_positive_labels={2 * len(part)}\n# YTID\n"
        (folder / audioset.LISTS[name][1]).write_text(head + "".join(part))
    classes = "".join(f'{number},/m/{number},"class {number}"\n' for number in range(527))
    (folder / audioset.CLASS_LIST).write_text("index,mid,display_name\n" + classes)
    return folder


def test_attention_fusion_runs_dry(
    resnet152: Path,
    audioset_lists: Path,
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(backbones, "fetch", {"resnet152": resnet152}.__getitem__)
    assert fayek2020.PROFILES["paper"].frames == 64  # of each clip, minutes for a processor; two of them show as much
    monkeypatch.setitem(fayek2020.PROFILES, "paper", replace(fayek2020.PROFILES["paper"], frames=2))
    parameters = AttentionFusion(
        profile="paper", corpus="audioset", clips=str(clips), labels=str(audioset_lists), dry=True, device="cpu"
    )
    inputs = fayek2020.load_inputs(parameters)
    sizes = {split: len(inputs.corpus.split(split).clips) for split in ("train", "validation", "test", "evaluation")}
    assert sizes == {"train": 4, "validation": 1, "test": 0, "evaluation": 0}  # a dry run has none of the last
    assert [clip.id for clip in inputs.corpus.missing] == ["nobodyhasit_0.000_10.000"]
    assert inputs.features["pictures"] == ["resnet152", 2, []]
    assert (inputs.log_mel[0].shape, inputs.pictures[0].shape) == ((1000, 64), (2048,))
    assert all(np.isfinite(inputs.pictures[row]).all() and inputs.pictures[row].any() for row in range(5))

    systems = fayek2020.run_systems(inputs)
    assert set(systems.scores) == {*fayek2020.SYSTEMS} and set(systems.weights) < set(FUSIONS)
    for name, scores in {**systems.scores, **systems.weights}.items():
        assert scores.shape == (5, 527) and ((scores >= 0) & (scores <= 1)).all(), name
    # Table 1, and 2048-2048-1024-1024-527 as section 3.2 has it, each with its biases
    audio, visual = systems.models.audio[-1], systems.models.visual
    assert audio.network.blocks["B5"][0].weight.shape == (2048, 512, 3, 2)  # type: ignore[index, union-attr]
    layers = [one for one in visual.network.modules() if isinstance(one, torch.nn.Linear)]
    assert [(one.in_features, one.out_features) for one in layers] == [
        (2048, 2048), (2048, 2048), (2048, 1024), (1024, 1024), (1024, 527),
    ]  # fmt: skip
    assert len(systems.generations) == parameters.generations == 2
    found = fayek2020_evaluation.evaluate(inputs, systems)
    assert 0 < found.number("attention", "map", "validation").value <= 1
    assert found.number("corpus", "classes_scored", "validation").value == 2  # of the one clip
    check_dry(found, capsys, "audioset")


def check_dry(found: Results, capsys: pytest.CaptureFixture[str], corpus: str = "dcase2017") -> None:
    """The numbers of a dry run are in the store, and shown nowhere."""
    stored = results.read(found.passport()["run"])
    passport = stored.passport()
    assert json.loads(passport["parameters"])["dry"]
    assert (passport["corpus"], passport["profile"]) == (corpus, "paper")
    with pytest.raises(ResultsError, match="dry run checks the machinery, its numbers are never shown"):
        check_shown(stored.table, allow_ci=True)
    assert not report.measured(stored)
    assert "dry run" in capsys.readouterr().out
