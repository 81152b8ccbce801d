"""The demo world's sounds against what was planted, measured with independent spectra."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import signal

from avrepro.corpora import dcase2017
from avrepro.corpora.demo import sounds_background, sounds_warning
from avrepro.corpora.demo.scenes import Bed, Distraction, Scene, SoundEvent
from avrepro.corpora.demo.sounds import SOUND_CLASSES, synthesise, synthesise_event, synthesise_layers
from avrepro.corpora.demo.synthesis import SPEED_OF_SOUND, Studio

RATE = 32000
SCENE = Scene(
    clip="planted",
    duration=10.0,
    events=(SoundEvent("Train horn", 1.0, 4.0, 6.0), SoundEvent("Truck", 3.0, 9.0, -8.0)),
    beds=(Bed("traffic", 0.0), Bed("crowd", -6.0)),
    distractions=(Distraction("dog bark", 5.0, 7.0, 3.0),),
    sights=(),
    reverberation=0.6,
    seed=7,
)


def studio(seconds: float = 10.0, seed: int = 0) -> Studio:
    return Studio(int(seconds * RATE), RATE, np.random.default_rng(seed))


def strongest(waveform: np.ndarray, low: float = 0.0, high: float = 16000.0) -> float:
    """Frequency (Hz) of the largest bin of a windowed FFT between two frequencies."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    frequency = np.fft.rfftfreq(len(waveform), 1 / RATE)
    return float(frequency[np.where((frequency >= low) & (frequency <= high), spectrum, 0).argmax()])


def track(waveform: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Time (s) and frequency (Hz) of the strongest bin between two frequencies, frame by frame."""
    frequency, time, power = signal.spectrogram(waveform, RATE, nperseg=2048, noverlap=1536)
    band = (frequency >= low) & (frequency <= high)
    return time, frequency[band][power[band].argmax(axis=0)]


def level(waveform: np.ndarray, window: float = 0.1) -> np.ndarray:
    """RMS of consecutive windows."""
    width = int(window * RATE)
    frames = waveform[: len(waveform) // width * width].reshape(-1, width)
    return np.sqrt(np.mean(frames.astype(float) ** 2, axis=1))


def test_the_classes_are_those_of_dcase_2017_task_4() -> None:
    assert sorted(SOUND_CLASSES) == sorted(dcase2017.CLASSES)  # which are those of the official list: test_dcase2017
    assert SOUND_CLASSES[:9] == tuple(sounds_warning.WARNING_SOUNDS)


@pytest.mark.parametrize("label", SOUND_CLASSES)
def test_every_class_sounds_at_any_length_and_rate(label: str) -> None:
    for duration, rate in ((10.0, RATE), (0.25, RATE), (2.0, 16000)):
        for seed in range(3):
            waveform = synthesise_event(label, duration, np.random.default_rng(seed), rate)
            assert waveform.dtype == np.float32 and waveform.shape == (round(duration * rate),)
            assert np.sqrt(np.mean(waveform.astype(float) ** 2)) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("kind", sounds_background.DISTRACTION_SOUNDS)
def test_every_distraction_sounds(kind: str) -> None:
    for length in (0.3, 2.5):
        scene = replace(SCENE, events=(), distractions=(Distraction(kind, 1.0, 1.0 + length, 0.0),))
        layer = synthesise_layers(scene).distractions[0]
        assert np.isfinite(layer).all() and np.abs(layer[RATE : int((1 + length) * RATE)]).max() > 0
        assert not layer[: RATE - 1].any()


@pytest.mark.parametrize("kind", sounds_background.BED_SOUNDS)
def test_every_bed_lasts_the_whole_clip_at_its_level(kind: str) -> None:
    layers = synthesise_layers(replace(SCENE, events=(), distractions=(), beds=(Bed(kind, -6.0),)))
    assert level(layers.background, 1.0).min() > 0.05
    assert np.sqrt(np.mean(layers.background**2)) == pytest.approx(10 ** (-6 / 20), abs=0.01)


def test_events_do_not_disturb_each_other() -> None:
    alone = synthesise_layers(replace(SCENE, events=SCENE.events[:1], distractions=()))
    other = replace(SCENE.events[1], label="Motorcycle", offset=8.0)
    changed = synthesise_layers(replace(SCENE, events=(SCENE.events[0], other)))
    np.testing.assert_array_equal(alone.events[0], changed.events[0])
    np.testing.assert_array_equal(alone.background, changed.background)


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 15.0])
@pytest.mark.parametrize("beds", [SCENE.beds, (Bed("wind", -20.0),), ()])
def test_snr_comes_out_as_planted(snr_db: float, beds: tuple[Bed, ...]) -> None:
    event = SoundEvent("Reversing beeps", 2.0, 6.5, snr_db)
    scene = replace(SCENE, events=(event,), beds=beds, distractions=(Distraction("rain", 1.0, 4.0, snr_db),))
    layers = synthesise_layers(scene)
    noise = np.sqrt(np.mean(layers.background.astype(float) ** 2))
    active = layers.events[0, int(2.0 * RATE) : int(6.5 * RATE)].astype(float)
    assert 20 * np.log10(np.sqrt(np.mean(active**2)) / noise) == pytest.approx(snr_db, abs=0.05)
    burst = layers.distractions[0, RATE : 4 * RATE].astype(float)
    assert 20 * np.log10(np.sqrt(np.mean(burst**2)) / noise) == pytest.approx(snr_db, abs=0.05)


def test_a_recording_is_the_sum_of_its_layers() -> None:
    layers = synthesise_layers(SCENE)
    mix = layers.background + layers.events.sum(axis=0) + layers.distractions.sum(axis=0)
    passband = signal.butter(4, (300, 3000), "band", fs=RATE, output="sos")  # of every microphone
    recorded, planted = (signal.sosfilt(passband, waveform) for waveform in (synthesise(SCENE), mix))
    assert np.corrcoef(recorded, planted)[0, 1] > 0.99


def test_recordings_are_never_clipped() -> None:
    peaks = [np.abs(synthesise(replace(SCENE, duration=2.0, seed=seed))).max() for seed in range(12)]
    assert max(peaks) <= 0.95 and min(peaks) >= 0.09
    assert max(peaks) / min(peaks) > 2  # the gain is random


@pytest.mark.parametrize("seed", range(3))
def test_reversing_beeps_are_one_tone_on_and_off(seed: int) -> None:
    waveform = synthesise_event("Reversing beeps", 10.0, np.random.default_rng(seed), RATE)
    pitch = strongest(waveform, 500)
    assert 690 <= pitch <= 2810
    sos = signal.butter(4, [pitch * 0.95, pitch * 1.05], "band", fs=RATE, output="sos")
    envelope = level(signal.sosfilt(sos, waveform), 0.02)
    on = envelope > 0.5 * envelope.max()
    cycles = np.sum(np.diff(on.astype(int)) == 1) / 10.0
    assert 0.8 <= cycles <= 2.1  # SAE J994
    assert 0.35 <= on.mean() <= 0.65


@pytest.mark.parametrize(("pattern", "slowest", "fastest"), [("wail", 0.17, 0.5), ("yelp", 2.5, 4.2)])
def test_wail_and_yelp_sweep_at_their_rates(pattern: str, slowest: float, fastest: float) -> None:
    siren = sounds_warning.electronic_siren(
        studio(20), {pattern: 1.0}, (0.17, 0.5), (2.5, 4.2), (30, 31), (1.3, 1.4), 0.0
    )
    time, pitch = track(siren, 450, 1900)
    assert np.percentile(pitch, 95) / np.percentile(pitch, 5) > 1.4
    swing = np.abs(np.fft.rfft((pitch - pitch.mean()) * np.hanning(len(pitch)), 16 * len(pitch)))
    rate = np.fft.rfftfreq(16 * len(pitch), time[1] - time[0])
    assert slowest * 0.9 <= rate[swing.argmax()] <= fastest * 1.1


def test_an_engine_fires_at_half_its_cylinders_times_its_speed() -> None:
    motor = studio(4).engine(1800 / 60, 4, width=0.2, unevenness=0.0, clatter=0.0, breath=0.05)
    assert strongest(motor, 20, 200) == pytest.approx(60.0, abs=0.5)


def test_a_passing_tone_falls_in_pitch_as_doppler_says_and_peaks_when_nearest() -> None:
    speed, distance, nearest = 30.0, 5.0, 5.0
    tone = studio(10).passing(lambda s: np.sin(2 * np.pi * 1000 * s.time), speed, distance, nearest)
    for first, sign in ((0.5, 1), (8.5, -1)):  # s; it comes and goes
        pitch = strongest(tone[int(first * RATE) : int((first + 1) * RATE)])
        assert pitch == pytest.approx(1000 * (1 + sign * speed / SPEED_OF_SOUND), abs=3)
    envelope = level(tone)
    assert envelope.argmax() * 0.1 == pytest.approx(nearest, abs=0.3)
    assert envelope[0] / envelope.max() == pytest.approx(distance / np.hypot(150, 5), rel=0.1)


@pytest.mark.parametrize("seed", range(4))
def test_a_train_horn_is_one_of_the_makers_chords(seed: int) -> None:
    waveform = synthesise_event("Train horn", 8.0, np.random.default_rng(seed), RATE).astype(float)
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)))) ** 2
    frequency = np.fft.rfftfreq(len(waveform), 1 / RATE)

    def share(chord: np.ndarray) -> float:
        """Energy between 240 and 660 Hz that lies within 2 % of the chord's tones or their octaves."""
        band = (frequency > 240) & (frequency < 660)
        near = (np.abs(frequency[:, None] / np.concatenate([chord, 2 * chord]) - 1) < 0.02).any(axis=1)
        return float(spectrum[band & near].sum() / spectrum[band].sum())

    tunings = np.linspace(0.97, 1.03, 13)
    assert max(share(np.array(chord) * t) for chord in sounds_warning.TRAIN_HORNS for t in tunings) > 0.85


def test_a_room_decays_by_60_db_in_its_time() -> None:
    response = studio(1).room(0.8)
    assert response[0] == np.abs(response).max() and np.sum(response**2) == pytest.approx(1.0, abs=1e-6)
    tail = response[int(0.02 * RATE) : int(0.6 * RATE)]
    decay = 20 * np.log10(level(tail, 0.02))
    slope = np.polyfit(np.arange(len(decay)) * 0.02, decay, 1)[0]  # dB/s
    assert slope == pytest.approx(-60 / 0.8, rel=0.1)
