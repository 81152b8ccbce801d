"""Multiply-accumulates against counts by hand; energy from counters in a folder; peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from avrepro.experiments import costs
from avrepro.experiments.costs import Energy, multiply_accumulates, peak_memory_mb

B, T, C, H = 2, 7, 16, 10  # clips, steps, channels, hidden
STEPS = torch.zeros(B, T, C)


def test_linear_and_convolutions() -> None:
    assert multiply_accumulates(nn.Linear(C, 5), STEPS) == B * T * C * 5
    picture = torch.zeros(B, 8, 9, 11)
    assert multiply_accumulates(nn.Conv2d(8, 4, 3, padding=1), picture) == B * 9 * 11 * 3 * 3 * 8 * 4
    assert multiply_accumulates(nn.Conv2d(8, 8, 3, padding=1, groups=8), picture) == B * 9 * 11 * 3 * 3 * 8
    assert multiply_accumulates(nn.Conv2d(8, 4, 3, stride=2), picture) == B * 4 * 5 * 3 * 3 * 8 * 4
    assert multiply_accumulates(nn.Conv3d(8, 4, (3, 1, 1)), picture[:, :, None].repeat(1, 1, 3, 1, 1)) == (
        B * 1 * 9 * 11 * 3 * 8 * 4
    )


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
def test_gru(directions: int, layers: int) -> None:
    gru = nn.GRU(C, H, num_layers=layers, batch_first=True, bidirectional=directions == 2)
    expected = 0
    for layer in range(layers):
        inputs = C if layer == 0 else H * directions
        for _ in range(directions):
            for _ in range(T):
                expected += B * 3 * H * inputs + B * 3 * H * H  # three gates, of the input and of the state
    assert multiply_accumulates(gru, STEPS) == expected
    assert multiply_accumulates(gru.eval(), STEPS) == expected


@pytest.mark.parametrize("training", [True, False])
def test_attention(training: bool) -> None:
    """Also where torch would take a fused kernel, which hides what it does."""
    products = B * T * T * C * 2  # queries with keys, weights with values; heads share out the channels
    projections = B * T * C * C * 4
    heads = torch.zeros(B, 4, T, C // 4)
    assert multiply_accumulates(F.scaled_dot_product_attention, heads, heads, heads) == products
    attention = nn.MultiheadAttention(C, 4, batch_first=True).train(training)
    for weights in (True, False):
        found = multiply_accumulates(lambda x, w=weights: attention(x, x, x, need_weights=w), STEPS)
        assert found == products + projections
    layer = nn.TransformerEncoderLayer(C, 4, 32, batch_first=True).train(training)
    assert multiply_accumulates(layer, STEPS) == products + projections + B * T * C * 32 * 2
    assert torch.backends.mha.get_fastpath_enabled()


def test_what_calls_for_inference_mode_itself_is_counted_too() -> None:
    model = nn.Sequential(nn.Linear(C, 5), nn.ReLU(), nn.Linear(5, 3))
    assert multiply_accumulates(torch.inference_mode()(model), STEPS) == B * T * (C * 5 + 5 * 3)


@pytest.fixture
def without_gpu() -> None:
    if torch.cuda.is_initialized():
        pytest.skip("this process has used a GPU, and then no energy is told")


def put(folder: Path, zone: str, name: str, energy: int, span: int = 1_000_000) -> Path:
    """A counter as the powercap framework of Linux shows it."""
    path = folder / zone
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{span}\n")
    count(path, energy)
    return path


def count(zone: Path, energy: int) -> None:
    (zone / "new").write_text(f"{energy}\n")
    os.replace(zone / "new", zone / "energy_uj")  # never half written


@pytest.mark.usefixtures("without_gpu")
def test_energy_is_that_of_packages_and_memory(tmp_path: Path) -> None:
    first = put(tmp_path, "intel-rapl:0", "package-0", 100_000)
    second = put(tmp_path, "intel-rapl:1", "package-1", 900_000)
    parts = [put(tmp_path, f"intel-rapl:0:{i}", name, 0) for i, name in enumerate(("core", "uncore"))]
    memory = put(tmp_path, "intel-rapl:0:2", "dram", 5)
    everything = put(tmp_path, "intel-rapl:2", "psys", 0)
    with Energy(tmp_path) as energy:
        assert energy.joules is None
        count(first, 600_000)
        count(second, 200_000)  # around once: 300 mJ
        count(memory, 50_005)
        for zone in (*parts, everything):
            count(zone, 400_000)
    assert energy.reason == "" and energy.joules == pytest.approx(0.5 + 0.3 + 0.05)


@pytest.mark.usefixtures("without_gpu")
def test_a_counter_that_wraps_around_twice_is_read_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "READ_EVERY", 0.005)
    zone = put(tmp_path, "intel-rapl:0", "package-0", 500_000)
    with Energy(tmp_path) as energy:
        for value in (900_000, 300_000, 700_000, 100_000, 600_000):  # 400 mJ each, but 500 mJ the last
            count(zone, value)
            time.sleep(0.2)
    assert energy.joules == pytest.approx(4 * 0.4 + 0.5)


@pytest.mark.usefixtures("without_gpu")
def test_energy_says_why_there_is_none(tmp_path: Path) -> None:
    with Energy(tmp_path / "missing") as energy:
        pass
    assert energy.joules is None and "no energy counter" in energy.reason
    zone = put(tmp_path, "intel-rapl:0", "package-0", 0)
    with Energy(tmp_path) as energy:
        (zone / "energy_uj").unlink()
    assert energy.joules is None and "cannot be read" in energy.reason and "energy_uj" in energy.reason
    with Energy(tmp_path) as energy:
        pass
    assert energy.joules is None and "cannot be read" in energy.reason


def test_energy_of_this_machine_is_a_number_or_a_reason() -> None:
    with Energy() as energy:
        np.linalg.svd(np.ones((300, 300)))
    assert (energy.joules is None) == bool(energy.reason)


def test_peak_memory_is_what_this_process_has_held_and_not_its_parent() -> None:
    """A process that holds 300 MiB for a while, started by one that holds 400 MiB."""
    ours = np.ones(400 * 2**20 // 8)
    code = (
        "from avrepro.experiments.costs import peak_memory_mb\n"
        "before = peak_memory_mb()\n"
        "bytearray(b'1') * (300 * 2**20)\n"
        "print(before, peak_memory_mb())\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, after = map(float, said.split())
    assert 200 < after - before < 320
    if costs.STATUS.exists():
        assert before < peak_memory_mb() - 100
    assert ours[0] == 1
