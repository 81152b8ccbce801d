"""Building blocks of synthetic sound: noise, tones, filters, envelopes, hits, engines, motion, rooms.

Signals are float arrays [samples]; times are in s, frequencies in Hz, phases in cycles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import signal

SPEED_OF_SOUND = 343.0  # m/s, dry air at 20 degrees C
TABLE = 8192  # points of a wavetable; read without interpolation it is about 70 dB clean
DECAY = 6.91  # ln(1000): exp(-DECAY t / T) has fallen by 60 dB at t = T

Section = tuple[str, float] | tuple[str, float, float] | tuple[str, float, float, float]
Span = tuple[float, float]  # start and end, s


def rms(waveform: np.ndarray) -> float:
    """Root mean square."""
    wide = np.asarray(waveform, dtype=np.float64)
    return float(np.sqrt(np.dot(wide, wide) / len(wide)))


def normalised(waveform: np.ndarray) -> np.ndarray:
    """The same shape with RMS 1; silence stays silence."""
    return waveform / max(rms(waveform), 1e-12)


@dataclass(frozen=True)
class Studio:
    """Length, sample rate and random generator of one sound, with the instruments that need them."""

    samples: int
    rate: int  # samples per second
    rng: np.random.Generator

    def __call__(self, samples: float) -> Studio:
        """The same studio for a sound of another length."""
        return Studio(max(int(samples), 8), self.rate, self.rng)

    @property
    def duration(self) -> float:
        """Length of the sound, s."""
        return self.samples / self.rate

    @cached_property
    def time(self) -> np.ndarray:
        """Time of every sample, s."""
        return np.arange(self.samples) / self.rate

    def draw(self, low: float, high: float) -> float:
        """A number uniform between ``low`` and ``high``."""
        return float(self.rng.uniform(low, high))

    def draws(self, low: float, high: float, count: int) -> np.ndarray:
        """``count`` such numbers."""
        return self.rng.uniform(low, high, count)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < probability)

    def filter(self, waveform: np.ndarray, *sections: Section) -> np.ndarray:
        """``waveform`` through second-order sections in series: (kind, Hz[, Q = 0.707[, gain in dB]]).

        Kinds are "low", "high", "band" (0 dB at its centre) and "peak". The formulas are the bilinear
        transforms of R. Bristow-Johnson's audio EQ cookbook.
        """
        rows = []
        for kind, frequency, *rest in sections:
            omega = 2 * np.pi * min(frequency, 0.47 * self.rate) / self.rate
            cosine, alpha = np.cos(omega), np.sin(omega) / (2 * (rest[0] if rest else 0.707))
            b, a = [alpha, 0.0, -alpha], [1 + alpha, -2 * cosine, 1 - alpha]
            if kind == "low":
                b = [(1 - cosine) / 2, 1 - cosine, (1 - cosine) / 2]
            elif kind == "high":
                b = [(1 + cosine) / 2, -(1 + cosine), (1 + cosine) / 2]
            elif kind == "peak":
                root = 10 ** (rest[1] / 40)
                b = [1 + alpha * root, -2 * cosine, 1 - alpha * root]
                a = [1 + alpha / root, -2 * cosine, 1 - alpha / root]
            rows.append(np.array([*b, *a]) / a[0])
        return signal.sosfilt(np.stack(rows), waveform)

    def noise(self, *sections: Section) -> np.ndarray:
        """White noise through ``sections``, RMS 1."""
        # uniform numbers: the same flat spectrum as Gaussian ones in a third of the time
        white = (self.rng.random(self.samples, dtype=np.float32) - np.float32(0.5)) * np.float32(12**0.5)
        return normalised(self.filter(white, *sections)) if sections else white

    def smooth(self, rate: float) -> np.ndarray:
        """Slow random curve: standard normal values ``rate`` times a second, joined by straight lines."""
        knots = int(self.duration * rate) + 2
        return np.interp(self.time, np.arange(knots) / rate, self.rng.standard_normal(knots))

    def fade(self, attack: float, release: float) -> np.ndarray:
        """Envelope with raised-cosine flanks of ``attack`` and ``release`` s, half the length at most."""
        envelope = np.ones(self.samples)
        for seconds, ordered in ((attack, envelope), (release, envelope[::-1])):
            width = min(int(seconds * self.rate), self.samples // 2)
            ordered[:width] *= 0.5 - 0.5 * np.cos(np.pi * (np.arange(width) + 0.5) / max(width, 1))
        return envelope

    def gate(self, spans: Sequence[Span], flank: float) -> np.ndarray:
        """Envelope: 1 inside the ``spans`` with flanks of ``flank`` s, 0 outside."""
        envelope = np.zeros(self.samples)
        for start, end in spans:
            first, last = max(int(start * self.rate), 0), min(int(end * self.rate), self.samples)
            if last - first >= 8:
                inside = self(last - first).fade(flank, flank)
                envelope[first:last] = np.maximum(envelope[first:last], inside)
        return envelope

    def spells(self, on: Span, off: Span, latest: float = 0.5) -> list[Span]:
        """Spans as long as ``on`` (range, s) that alternate with pauses of ``off`` until the end."""
        spans, start = [], self.draw(0, min(latest, 0.2 * self.duration))
        while start < self.duration:
            spans.append((start, start + self.draw(*on)))
            start = spans[-1][1] + self.draw(*off)
        return spans

    def phase(self, frequency: np.ndarray | float) -> np.ndarray:
        """Cycles of an oscillator that runs at ``frequency``."""
        if np.ndim(frequency) == 0:
            return self.time * frequency
        return np.cumsum(frequency) / self.rate

    def harmonics(self, highest: float, slope: float, odd: float = 0.0) -> np.ndarray:
        """Amplitudes of harmonics falling by ``slope`` dB an octave, all below half the sample rate.

        ``highest`` is the highest fundamental (Hz); ``odd`` (0..1) weakens even harmonics, as in a square wave.
        """
        numbers = np.arange(1, max(int(0.46 * self.rate / highest), 1) + 1)
        return numbers ** (-slope / 6.02) * np.where(numbers % 2 == 0, 1 - odd, 1.0)

    def tone(self, frequency: np.ndarray | float, amplitudes: Sequence[float] | np.ndarray = (1.0,)) -> np.ndarray:
        """Harmonic tone of these ``amplitudes`` at random phases along ``frequency``."""
        spectrum = np.zeros(TABLE // 2 + 1, dtype=complex)
        turns = np.exp(2j * np.pi * self.rng.random(len(amplitudes)))
        spectrum[1 : len(amplitudes) + 1] = np.asarray(amplitudes) * turns
        table = np.fft.irfft(spectrum) * TABLE / 2
        return table[(self.phase(frequency) * TABLE).astype(np.int64) & (TABLE - 1)]

    def struck(self, frequencies: Sequence[float] | np.ndarray, gains: Sequence[float] | np.ndarray,
               decays: Sequence[float] | np.ndarray) -> np.ndarray:  # fmt: skip
        """One hit of a resonant body: partials (Hz), gains, decays to -60 dB (s); at most 4 s long."""
        time = np.arange(int(min(max(decays), 4.0) * self.rate)) / self.rate
        hit = np.zeros(len(time))
        for frequency, gain, decay in zip(frequencies, gains, decays, strict=True):
            part = time[: int(decay * self.rate)]
            wave = np.sin(2 * np.pi * (min(frequency, 0.47 * self.rate) * part + self.rng.random()))
            hit[: len(part)] += gain * np.exp(-DECAY / decay * part) * wave
        return hit * self(len(hit)).fade(0.0005, 0.005)

    def body(self, low: float, high: float, shortest: float, longest: float, count: int = 6) -> np.ndarray:
        """One hit of an unknown thing: ``count`` random partials between ``low`` and ``high`` Hz."""
        return self.struck(
            self.draws(low, high, count), self.draws(0.3, 1, count), self.draws(shortest, longest, count)
        )

    def burst(self, length: float, low: float, high: float) -> np.ndarray:
        """One knock: noise between ``low`` and ``high`` Hz that decays by 60 dB in ``length`` s, RMS 1."""
        knock = self(length * self.rate)
        decay = np.exp(-DECAY * np.arange(knock.samples) / knock.samples)
        shaped = knock.filter(knock.noise() * decay, ("high", low), ("low", high))
        return normalised(shaped) * knock.fade(0.0005, 0.001)

    def scatter(self, times: Sequence[float] | np.ndarray, gains: Sequence[float] | np.ndarray | float,
                grain: np.ndarray) -> np.ndarray:  # fmt: skip
        """Copies of ``grain`` at ``times`` (s) with ``gains``, cut to the length."""
        clicks = np.zeros(self.samples)
        places = (np.asarray(times) * self.rate).astype(int)
        inside = (places >= 0) & (places < self.samples)
        np.add.at(clicks, places[inside], np.broadcast_to(gains, len(places))[inside])
        if inside.sum() > 40:
            return signal.oaconvolve(clicks, grain)[: self.samples]
        out = np.zeros(self.samples)
        for place in np.flatnonzero(clicks):
            out[place : place + len(grain)] += clicks[place] * grain[: self.samples - place]
        return out

    def engine(self, speed: np.ndarray | float, cylinders: int, *, width: float, unevenness: float,
               clatter: float, breath: float, late: float = 0.0) -> np.ndarray:  # fmt: skip
        """Four-stroke engine at ``speed`` (crankshaft revolutions/s): exhaust pulses of RMS 1 and noise.

        A cylinder fires once in two revolutions (Heywood, Internal Combustion Engine Fundamentals, 1988),
        so that pulses repeat at speed * cylinders / 2; cylinders that differ (``unevenness``) add the
        orders between these harmonics. ``width`` is a pulse's share of the firing period (small is bright),
        ``clatter`` the level of the knock at each firing (Diesel), ``breath`` of the flow noise, ``late``
        the share of a period by which every other cylinder fires late (V-twins).
        """
        cycles = self.phase(np.asarray(speed) / 2) + self.rng.random()
        pulses, knocks = np.zeros(TABLE), np.zeros(TABLE)
        for cylinder in range(cylinders):
            fires = (cylinder + late * (cylinder % 2)) / cylinders
            since = (np.arange(TABLE) / TABLE - fires) % 1.0 * cylinders  # firing periods since this cylinder fired
            strength = max(1 + unevenness * self.rng.standard_normal(), 0.2)
            pulses += strength * since / width * np.exp(1 - since / width)  # the blow-down pressure wave
            knocks += strength * np.exp(-since / (0.3 * width))
        pulses = normalised(pulses - pulses.mean())
        index = (cycles * TABLE).astype(np.int64) & (TABLE - 1)
        firing = (cycles * cylinders).astype(np.int64)
        strengths = 1 + 0.6 * unevenness * self.rng.standard_normal(firing[-1] + 1)
        noise = self.noise(("band", self.draw(1200, 2600), 0.6))
        return pulses[index] * strengths[firing] + noise * (breath + clatter * normalised(knocks)[index])

    def passing(
        self, source: Callable[[Studio], np.ndarray], speed: float, distance: float, nearest: float
    ) -> np.ndarray:
        """What a listener hears of a ``source`` that drives past on a straight line.

        It passes at ``speed`` (m/s), closest at ``distance`` (m) at time ``nearest`` (s). The path's delay
        makes the Doppler shift; pressure falls as 1 / path and is the source's own at the nearest point.
        """
        path = np.hypot(distance, speed * (self.time - nearest))
        emitted = (self.time + (path.max() - path) / SPEED_OF_SOUND) * self.rate
        sound = source(self(emitted.max() + 2))
        whole = emitted.astype(np.int64)
        share = emitted - whole
        return (sound[whole] * (1 - share) + sound[whole + 1] * share) * (distance / path)

    def room(self, reverberation: float) -> np.ndarray:
        """Impulse response of unit energy: direct path and noise decaying by 60 dB in ``reverberation`` s.

        The reverberant share of the energy is random, 5 to 50 %; the tail starts 2 to 15 ms late and is
        darker than the direct sound; 0 s gives the direct path alone. (Moorer, About this reverberation
        business, Computer Music Journal, 1979)
        """
        delay, share, dark = self.draw(0.002, 0.015), self.draw(0.05, 0.5), self.draw(3000, 8000)
        if reverberation * self.rate < 8:
            return np.ones(1)
        late = self(reverberation * self.rate)
        tail = late.filter(late.noise() * np.exp(-DECAY / reverberation * late.time), ("low", dark, 0.5))
        response = np.concatenate([np.zeros(int(delay * self.rate) + 1), tail])
        response *= np.sqrt(share / (1 - share) / np.sum(response**2))
        response[0] = 1.0
        return response / np.sqrt(np.sum(response**2))
