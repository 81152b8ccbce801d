"""Log-mel against librosa, and against slow literal implementations of the published definitions."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from avrepro.features.logmel import LogMel


def waveform(sample_rate: int, seconds: float = 10.0) -> np.ndarray:
    """A rising tone with overtones in noise, then near silence: from loud to the floor of the logarithm."""
    rng = np.random.default_rng(20)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    tone = sum(np.sin(2 * np.pi * k * (150 * time + 20 * time**2)) / k for k in (1, 2, 3))
    sound = 0.3 * tone + 0.05 * rng.standard_normal(time.size)
    sound[time > 0.9 * seconds] *= 1e-4
    return (sound / np.abs(sound).max()).astype(np.float32)


def hershey2017(sound: np.ndarray, offset: float) -> np.ndarray:
    """The definition, frame by frame and filter by filter, in float64."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)

    def mel(frequency: float) -> float:
        return 1127.0 * np.log(1.0 + frequency / 700.0)

    edges = np.linspace(mel(125.0), mel(7500.0), 66)
    filters = np.zeros((64, 257))
    for band in range(64):
        for point in range(1, 257):  # 0 Hz counts nowhere
            position = mel(point * 16_000 / 512)
            low, centre, high = edges[band : band + 3]
            filters[band, point] = max(0.0, min((position - low) / (centre - low), (high - position) / (high - centre)))
    frames = []
    for start in range(0, sound.size - 400 + 1, 160):
        spectrum = np.fft.rfft(sound[start : start + 400].astype(np.float64) * window, 512)
        frames.append(np.log(filters @ np.abs(spectrum) + offset))
    return np.array(frames)


@pytest.mark.parametrize(
    ("name", "sample_rate", "frames", "mels"),
    [
        ("li2017", 20_000, 2000, 60),
        ("fayek2020", 16_000, 1000, 64),
        ("vggish", 16_000, 998, 64),
        ("yamnet", 16_000, 998, 64),
    ],
)
def test_ten_seconds_give_the_published_shape(name: str, sample_rate: int, frames: int, mels: int) -> None:
    log_mel = getattr(LogMel, name)()
    assert log_mel.sample_rate == sample_rate
    result = log_mel(torch.zeros(2, 10 * sample_rate))
    assert result.shape == (2, frames, mels) and result.dtype == torch.float32
    assert torch.isfinite(result).all()  # digital silence
    assert log_mel.frames(10 * sample_rate) == frames and log_mel.mels == mels
    assert (log_mel.filters.sum(0) > 0).all() and not log_mel.state_dict()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("li2017", {"sr": 20_000, "n_fft": 1024, "win_length": 480, "hop_length": 100, "n_mels": 60}),
        ("fayek2020", {"sr": 16_000, "n_fft": 512, "win_length": 256, "hop_length": 160, "n_mels": 64}),
    ],
)
@pytest.mark.parametrize("seconds", [10.0, 0.3337])
def test_equals_librosa(name: str, settings: dict[str, int], seconds: float) -> None:
    """log(max(librosa.feature.melspectrogram(...), 1e-10)) on librosa's defaults, its last frame left out."""
    sound = waveform(settings["sr"], seconds)
    expected = np.log(np.maximum(librosa.feature.melspectrogram(y=sound, **settings).T, 1e-10))
    result = getattr(LogMel, name)()(torch.from_numpy(np.stack([sound[::-1].copy(), sound])))[1].numpy()
    assert expected.shape[0] == result.shape[0] + 1
    assert np.abs(result - expected[:-1]).max() < 1e-3


@pytest.mark.parametrize(("name", "offset"), [("vggish", 0.01), ("yamnet", 0.001)])
def test_equals_the_literal_definition(name: str, offset: float) -> None:
    sound = waveform(16_000, 3.0)
    result = getattr(LogMel, name)()(torch.from_numpy(sound)[None])[0].numpy()
    assert np.abs(result - hershey2017(sound, offset)).max() < 1e-4


def test_mistakes_are_named() -> None:
    for wrong in (torch.zeros(200_000), torch.zeros(1, 200_000, dtype=torch.int16)):
        with pytest.raises(ValueError, match=r"expected floats \[batch, samples\], found"):
            LogMel.li2017()(wrong)
    for log_mel, least in ((LogMel.vggish(), 400), (LogMel.li2017(), 100)):
        with pytest.raises(ValueError, match=f"of {least - 1} samples is too short.* at least {least}"):
            log_mel(torch.zeros(1, least - 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_equal_on_a_gpu() -> None:
    sound = torch.from_numpy(waveform(20_000))[None]
    here, there = LogMel.li2017()(sound), LogMel.li2017().cuda()(sound.cuda()).cpu()
    assert (here - there).abs().max() < 1e-3
