"""The papers' own settings run through: true architectures and file formats, random weights, a few short clips."""

from __future__ import annotations

import csv
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from chapters import one_track
from weight_files import CAFFENET, caffemodel, random_weights

from avrepro import backbones, fetch, protocol, systems
from avrepro.backbones.caffenet import read_caffemodel
from avrepro.backbones.vggish import VGGish
from avrepro.conditions import Condition
from avrepro.corpora.dcase2017 import CLASSES, NAME_OF_ID
from avrepro.encode import write_clip
from avrepro.features.words import words_of
from avrepro.systems import SYSTEMS, fayek2020

pytestmark = pytest.mark.chapter

LABELS = [("Car", "Bus"), ("Train",), ("Screaming",), ("Car",), ("Bus",), ("Train", "Train horn"), ("Car",), ("Bus",)]
ALL, HELD_OUT = 7, 3  # clips of a dry run: four to train on, one for validation, two to test


def weight_file(name: str, folder: Path) -> Path:
    """Random weights of a source of the manifests, in the format of its file."""
    path = folder / (f"{name}.zip" if name == "glove_840b" else name)
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    if name == "glove_840b":  # a zipped text of words with 300 numbers
        words = sorted({word for phrase in (*CLASSES, *backbones.CLASSES) for word in words_of(phrase)})
        text = "".join(f"{word} {' '.join(f'{value:.4f}' for value in rng.normal(size=300))}\n" for word in words)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("glove.840B.300d.txt", text)
    elif name == "caffenet":
        arrays = {}
        for layer, shape in CAFFENET.items():
            gain = np.float32((2 / np.prod(shape[1:])) ** 0.5)
            arrays[f"{layer}.weight"] = rng.standard_normal(shape, np.float32) * gain
            arrays[f"{layer}.bias"] = rng.standard_normal(shape[0], np.float32) / 10
        path.write_bytes(caffemodel(arrays))
    else:  # torchvision's, timm's and torchvggish's
        build: dict[str, Callable[[], torch.nn.Module]] = {
            "alexnet": torchvision.models.alexnet,
            "inception_v4": lambda: timm.create_model("inception_v4", num_classes=1001),
            "resnet152": torchvision.models.resnet152,
            "vggish": VGGish,
        }
        with torch.device("meta"):
            network = build[name]()
        torch.save(random_weights(network, 0), path)
    return path


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Makes weight files when they are asked for, in an empty cache; all of it is taken away: it is large."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AVREPRO_MIRROR", raising=False)

    for module in (backbones, fetch):  # the files cannot be those of the manifests, and so cannot have their hashes
        monkeypatch.setattr(module, "fetch", partial(weight_file, folder=folder))
    backbones.load.cache_clear()
    yield partial(weight_file, folder=folder)
    backbones.load.cache_clear()
    shutil.rmtree(tmp_path)


@pytest.fixture
def condition(tmp_path: Path) -> Condition:
    """Six training clips, two testing clips, and one for evaluation that nobody has, by lists of the official form."""
    lists, clips = tmp_path / "lists", tmp_path / "clips"
    (lists / "groundtruth_release").mkdir(parents=True)
    clips.mkdir()
    identifiers = {name: identifier for identifier, name in NAME_OF_ID.items()}
    lines = []
    rng = np.random.default_rng(0)
    for number, labels in enumerate(LABELS):
        cells = [",".join(labels), ",".join(identifiers[label] for label in labels)]
        quoted = [f'"{cell}"' if "," in cell else cell for cell in cells]
        lines.append(",".join([f"-video{number:05d}", "3.000", "5.000", *quoted]))
        frames = rng.integers(0, 256, (4, 48, 64, 3), dtype=np.uint8).repeat(6, axis=0)
        sound = 0.1 * rng.standard_normal(64000, dtype=np.float32)
        write_clip(clips / f"-video{number:05d}_3.000_5.000.mp4", frames, 12, sound, 32000)
    (lists / "training_set.csv").write_text("\n".join(lines[:6]) + "\n")
    (lists / "testing_set.csv").write_text("\n".join(lines[6:]) + "\n")
    weak = lists / "groundtruth_release" / "groundtruth_weak_label_evaluation_set.csv"
    weak.write_text("nobodyhasit_0.000_10.000.wav\t0.000\t10.000\tTruck\n")
    return Condition("dcase2017", "paper", dry=True, clips=str(clips), labels=str(lists), device="cpu")


def computed(home: Path) -> Counter[str]:
    """How many clips each feature was computed of."""
    return Counter(path.parents[1].name.rpartition("-")[0] for path in (home / "features").rglob("*.npy"))


def run(name: str, condition: Condition) -> tuple[Any, np.ndarray]:
    """Fit a system and score the clips with it."""
    data, fitted = protocol.load(condition), protocol.fit(name, condition)
    sizes = {split: len(data.rows(split)) for split in ("train", "validation", "test", "evaluation")}
    assert sizes == {"train": 4, "validation": 1, "test": 2, "evaluation": 0} and data.classes == CLASSES
    assert [clip.id for clip in data.corpus.missing] == ["nobodyhasit_0.000_10.000"]
    scores = protocol.scores(fitted, data)[data.rows("test")]
    assert scores.shape == (2, 17) and np.isfinite(scores).all() and scores.std() > 0
    assert all(len(part.checkpoint.history) in (0, 1) for part in (fitted, *fitted.parts.values()))
    return fitted, scores


def test_li2017(weights: Callable, condition: Condition, tmp_path: Path) -> None:
    _, scores = run("li2017/fused", condition)
    # Nothing is learnt from pictures: nobody needs those of training clips.
    wanted = {"log-mel-li2017": ALL, "key-frames": HELD_OUT, "key-frame-objects": HELD_OUT}
    assert computed(tmp_path / "home") == wanted
    assert ((scores >= 0) & (scores <= 1)).all()
    data = protocol.load(condition)
    pooled, spectra = (
        data.select(data.rows("test")).arrays(SYSTEMS[f"li2017/{name}"].features(condition)[feature])
        for name, feature in (("video", "objects"), ("audio", "log_mel"))
    )
    assert (pooled[0].shape, spectra[0].shape) == ((4, 1536), (2000, 60))


@pytest.mark.parametrize("name", ["li2017/audio", "parekh2018/cvssp_gated_crnn"])
def test_a_system_of_sound_needs_no_pictures(weights: Callable, condition: Condition, name: str) -> None:
    """Nor is anything computed of those that there are: its training clips are sound alone."""
    clips = Path(condition.clips)
    rows = [["clip", "labels", "split"]]
    for number, labels in enumerate(LABELS):
        video = f"-video{number:05d}_3.000_5.000.mp4"
        sound = Path(video).with_suffix(".m4a")
        if number < 5:
            one_track(clips / video, "audio", clips / sound)
        split = "train" if number < 5 else "validation" if number < 6 else "test"
        rows.append([str(sound) if number < 5 else video, "|".join(labels), split])
    with (clips / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    condition = replace(condition, corpus="folder", labels=str(clips / "labels.csv"))
    data, fitted = protocol.load(condition), protocol.fit(name, condition)
    assert len(data.rows("train")) == 4 and np.isfinite(protocol.scores(fitted, data)).all()
    assert computed(clips.parent / "home") == {f"log-mel-{'li2017' if 'audio' in name else 'xu2018'}": ALL}


def test_parekh2018(weights: Callable, condition: Condition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = read_caffemodel(weights("caffenet"))
    begun: list[float] = []
    fit = systems.base.fit

    def watched(network: Any, *given: Any) -> Any:
        begun.append(from_file(network.regions.layers.state_dict(), published))
        return fit(network, *given)

    monkeypatch.setattr(systems.base, "fit", watched)
    fitted, _ = run("parekh2018/two_stream", condition)
    state = fitted.checkpoint.state
    layers = {name.removeprefix("regions.layers."): value for name, value in state.items() if "regions.layers" in name}
    assert begun == [0] and 0 < from_file(layers, published) < 3e-5  # two steps of Adam at 1e-5 go no further
    assert {float(value) for name, value in state.items() if name.endswith(".scale")} == {1.0}
    data = protocol.load(condition)
    bags = dict(zip(("regions", "segments"), fitted.system.bags(data, []), strict=True))
    assert (bags["segments"].sizes == 4).all()  # of 2 s: 0 to 0.96, ..., 1.44 to 2.4 s
    for part, located in protocol.localisation(fitted, data).items():
        assert [one.shape for one in located] == [(size, 17) for size in bags[part].sizes]
        # nor are features of random weights all zeros, or beyond half precision
        assert all(np.isfinite(bag).all() and bag.any() for bag in bags[part].arrays)
    assert computed(tmp_path / "home") == {"proposals": ALL, "regions": ALL, "segments-vggish": ALL}


def test_fayek2020(weights: Callable, condition: Condition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paper = fayek2020.PROFILES["paper"]
    assert paper.frames == 64  # of each clip, minutes for a processor; two of them show as much
    monkeypatch.setitem(fayek2020.PROFILES, "paper", replace(paper, frames=2))
    fitted, scores = run("fayek2020/attention", condition)
    weights_of_sound = protocol.modality_weights(fitted, protocol.load(condition))
    assert weights_of_sound.shape == (ALL, 17)
    assert all(((one >= 0) & (one <= 1)).all() for one in (scores, weights_of_sound))
    audio = fitted.parts["fayek2020/audio"]
    assert audio.parts and audio.checkpoint.state["blocks.B5.0.weight"].shape == (2048, 512, 3, 2)  # Table 1
    assert computed(tmp_path / "home") == {"log-mel-fayek2020": ALL, "mean-frames": ALL}


def from_file(layers: dict[str, torch.Tensor], published: dict[str, torch.Tensor]) -> float:
    """How far fc6 and fc7 are from those of the file at most."""
    assert set(layers) == {"fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias"}
    return max(float((value - published[name]).abs().max()) for name, value in layers.items())
