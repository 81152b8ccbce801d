"""YAMNet against the published network's own outputs, and the patches that it and VGGish take."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from avrepro.backbones.patches import patches
from avrepro.backbones.yamnet import YAMNet
from avrepro.features import LogMel
from avrepro.fetch import FetchError, fetch


@pytest.fixture(scope="module")
def network() -> YAMNet:
    """With the published weights: from the mirror, the cache, or the network."""
    try:
        return YAMNet.pretrained(fetch("yamnet"))
    except FetchError as error:
        pytest.skip(f"the weights of YAMNet cannot be had: {error}")


def test_equals_the_tensorflow_network(network: YAMNet, mirror: Path) -> None:
    reference = np.load(mirror / "yamnet" / "yamnet_float_reference.npz")
    names = [key.removesuffix("__x") for key in reference if key.endswith("__x")]
    assert len(names) == 5
    for name in names:
        waveform = torch.from_numpy(reference[f"{name}__x"])
        expected = {key: torch.from_numpy(reference[f"{name}__{key}"]) for key in ("logmel", "emb", "scores")}
        scores, embeddings = network(waveform)
        frames = expected["logmel"].shape[0]
        padded = F.pad(waveform, (0, 400 + 160 * (frames - 1) - waveform.numel()))
        log_mel = network.log_mel(padded[None])[0]
        # Single precision is what differs: where a band is nearly silent the logarithm enlarges it, and the same
        # log-mel in double precision is as far (2e-4) from TensorFlow's, which is in single precision too.
        torch.testing.assert_close(log_mel, expected["logmel"], atol=5e-4, rtol=0)
        torch.testing.assert_close(embeddings, expected["emb"], atol=1e-4, rtol=0)
        torch.testing.assert_close(scores, expected["scores"], atol=1e-4, rtol=0)


def test_class_names_are_the_published_map(network: YAMNet, mirror: Path) -> None:
    with (mirror / "yamnet" / "yamnet_class_map.csv").open(newline="") as file:
        assert network.classes == tuple(row["display_name"] for row in csv.DictReader(file))


def test_batched_equals_one_by_one(network: YAMNet) -> None:
    clips = 0.1 * torch.from_numpy(np.random.default_rng(4).standard_normal((3, 32_000)).astype(np.float32))
    scores, embeddings = network(clips)
    assert scores.shape == (3, 4, 521) and embeddings.shape == (3, 4, 1024)
    assert scores.dtype == embeddings.dtype == torch.float32
    for clip, score, embedding in zip(clips, scores, embeddings, strict=True):
        for found, expected in zip(network(clip.numpy()), (score, embedding), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("samples", "count"),
    # Parekh et al. (2018), section 4: "For a 10 second recording, this yields 20"
    [(0, 1), (399, 1), (15_600, 1), (15_601, 2), (23_280, 2), (23_281, 3), (160_000, 20)],
)
def test_patches(samples: int, count: int) -> None:
    """They are cut from the log-mel spectrogram of the waveform and as many zeros as complete the last one."""
    waveform = torch.from_numpy(np.random.default_rng(3).standard_normal((2, samples)).astype(np.float32))
    log_mel = LogMel.yamnet()
    found = patches(log_mel, waveform)
    assert found.shape == (2, count, 96, 64)
    spectrogram = log_mel(F.pad(waveform, (0, 20_000)))
    for number in range(count):
        torch.testing.assert_close(found[:, number], spectrogram[:, 48 * number : 48 * number + 96])
    torch.testing.assert_close(patches(log_mel, waveform[1].numpy()), found[1])
    with pytest.raises(ValueError, match=rf"waveform: expected \[samples\] or .*, found \[1, 2, {samples}\]"):
        patches(log_mel, waveform[None])
