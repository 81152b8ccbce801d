"""Sounds outside the 17 classes: beds that last a whole clip, and distractions.

As for the classes, a function draws its parameters and returns [samples] at any level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from avrepro.corpora.demo.synthesis import Span, Studio, normalised


def wind(s: Studio) -> np.ndarray:
    """Turbulence at the microphone in gusts, leaves above it."""
    low = s.noise(("low", s.draw(100, 350), 0.5), ("high", 25))
    leaves = s.noise(("band", s.draw(1500, 4000), 0.4))
    return (low + s.draw(0.02, 0.2) * leaves) * np.exp(0.6 * s.smooth(s.draw(0.4, 1.2)))


def traffic(s: Studio) -> np.ndarray:
    """A distant road: many tyres and engines at once, swelling slowly."""
    tyres = s.noise(("band", s.draw(500, 1000), 0.5), ("low", 2500))
    rumble = s.noise(("band", s.draw(60, 120), 0.7))
    return (tyres + s.draw(0.6, 2.0) * rumble) * np.exp(0.35 * s.smooth(s.draw(0.3, 0.7)))


def speech(s: Studio) -> np.ndarray:
    """Speech without words: 3 to 6 syllables a second, vowels of Peterson and Barney (1952)."""
    edges = np.arange(0, s.duration + 0.1, 1 / s.draw(3, 6))
    pitch = s.draw(90, 240) * (1 + 0.12 * s.smooth(3) + 0.01 * s.smooth(40))
    source = s.tone(pitch, s.harmonics(400, 9)[:40])
    vowels = np.array([(270, 2290), (530, 1840), (730, 1090), (570, 840)])
    out = np.zeros(s.samples)
    vowel = s.rng.integers(-1, len(vowels), len(edges))  # -1: a pause
    for index, (first, second) in enumerate(vowels):
        syllables = s.gate([(at, at + edges[1] - 0.03) for at in edges[vowel == index]], 0.05)
        out += syllables * (s.filter(source, ("band", first, 6)) + 0.5 * s.filter(source, ("band", second, 15)))
    sibilants = s.gate([(at, at + s.draw(0.04, 0.1)) for at in edges if s.chance(0.3)], 0.015)
    return normalised(out) + 0.12 * s.noise(("high", 3500)) * sibilants


def crowd(s: Studio) -> np.ndarray:
    """Talkers in front of speech-shaped babble; one voice, repeated, run backwards and shifted, is all."""
    talker = np.resize(speech(s(s.samples // 2)), s.samples)
    out = talker + sum(0.7 * np.roll(talker[::way], int(s.rng.integers(s.samples))) for way in (-1, 1, -1))
    babble = s.noise(("band", s.draw(400, 700), 0.6), ("low", 3000))
    return out + s.draw(1, 4) * babble * np.exp(0.25 * s.smooth(5))


def music(s: Studio) -> np.ndarray:
    """Chords that change every fourth beat, a bass and a drum."""
    beat = 60 / s.draw(80, 140)
    bars = s.rng.choice([0, 5, 7, 9], int(s.duration / (4 * beat)) + 1)
    ground = s.draw(110, 220) * 2 ** (bars[(s.time / (4 * beat)).astype(int)] / 12)
    strengths = s.harmonics(1500, s.draw(6, 12))
    chord = sum(s.tone(ground * 2 ** (n / 12), strengths) for n in (-12, 0, int(s.rng.choice([3, 4])), 7))
    plucked = np.exp(-s.draw(0.5, 3) * (s.time / beat % 1))
    return normalised(chord * plucked) + s.scatter(np.arange(0, s.duration, beat), 1.5, s.burst(0.15, 50, 6000))


def repeated(s: Studio, gap: Span, grains: Sequence[np.ndarray], steady: bool = False) -> np.ndarray:
    """Grains in turn, ``gap`` s apart (drawn each time, or once when ``steady``), at levels within 6 dB."""
    out, at, turn, pause = np.zeros(s.samples), 0.02, 0, s.draw(*gap)
    while at < s.duration:
        out += s.scatter([at], s.draw(0.5, 1.0), grains[turn % len(grains)])
        at, turn = at + (pause if steady else s.draw(*gap)), turn + 1
    return out


def dog_bark(s: Studio) -> np.ndarray:
    t = s(s.draw(0.12, 0.3) * s.rate)
    arc = np.sin(np.pi * (t.time / t.duration) ** 0.6)
    voice = t.tone(t.draw(350, 900) * (0.7 + 0.5 * arc), t.harmonics(1100, 4)) + 0.8 * t.noise()
    mouth = t.filter(voice, ("band", t.draw(600, 1100), 3)) + 0.7 * t.filter(voice, ("band", t.draw(1400, 2200), 5))
    return repeated(s, (0.35, 1.1), [mouth * arc])


def church_bell(s: Studio) -> np.ndarray:
    # hum, prime, tierce, quint, nominal and above, as a bell is tuned (Rossing, Science of Percussion
    # Instruments, 2000)
    partials = s.draw(180, 500) * np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0])
    decays = s.draw(2, 4) * np.array([1, 0.8, 0.7, 0.4, 0.5, 0.25, 0.25])
    return repeated(s, (1.0, 2.2), [s.struck(partials, [0.6, 0.7, 0.8, 0.3, 1, 0.4, 0.5], decays)], steady=True)


def footsteps(s: Studio) -> np.ndarray:
    return repeated(
        s, (0.35, 0.65), [s.burst(s.draw(0.05, 0.12), 80, s.draw(1500, 5000)) for _ in range(4)], steady=True
    )


def door_slam(s: Studio) -> np.ndarray:
    return repeated(s, (1.0, 3.0), [s.burst(s.draw(0.25, 0.5), 40, s.draw(500, 1500))])


def bird(s: Studio) -> np.ndarray:
    chirps = []
    for _ in range(4):
        t = s(s.draw(0.05, 0.25) * s.rate)
        x = t.time / t.duration
        trill = 1 + t.draw(-0.3, 0.3) * x + t.draw(0, 0.15) * np.sin(2 * np.pi * t.draw(1, 8) * x)
        chirps.append(t.tone(t.draw(2500, 5500) * trill, [1.0, 0.1]) * np.sin(np.pi * x))
    return repeated(s, (0.12, 0.6), chirps)


def hammering(s: Studio) -> np.ndarray:
    return repeated(s, (0.3, 0.7), [s.body(300, 4500, 0.04, 0.25, 8)], steady=True)


def doorbell(s: Studio) -> np.ndarray:
    bars = [
        s.struck(np.array([1, 2.76, 5.4]) * f, [1, 0.3, 0.1], [1.6, 0.5, 0.2])
        for f in s.draw(550, 800) * np.array([1, 0.794])
    ]
    return repeated(s, (0.6, 0.9), bars, steady=True)


def telephone(s: Studio) -> np.ndarray:
    gong = s.struck(s.draw(700, 1400) * np.array([1, 1.25, 2.6, 3.3]), [1, 1, 0.4, 0.3], [0.4, 0.4, 0.2, 0.2])
    strokes = np.arange(0, s.duration, 1 / s.draw(18, 26))
    return s.scatter(strokes, 1.0, gong) * s.gate(s.spells((0.8, 1.6), (0.6, 2.0), latest=0.1), 0.01)


def glass(s: Studio) -> np.ndarray:
    out = s.scatter([0.02], 3.0, s.burst(0.1, 1000, 12000))
    for _ in range(5):
        shards = 0.02 + s.rng.exponential(0.25, 8)
        out += s.scatter(shards, s.draws(0.1, 1.0, 8), s.body(2500, 12000, 0.05, 0.4))
    return out


def clapping(s: Studio) -> np.ndarray:
    out = np.zeros(s.samples)
    for _ in range(int(s.rng.integers(2, 9))):
        times = np.arange(s.draw(0, 0.3), s.duration, s.draw(0.2, 0.35))
        clap = s.burst(s.draw(0.02, 0.05), s.draw(500, 1000), s.draw(2500, 6000))
        out += s.scatter(times + 0.01 * s.rng.standard_normal(len(times)), s.draws(0.3, 1.0, len(times)), clap)
    return out


def rain(s: Studio) -> np.ndarray:
    count = int(s.duration * s.draw(30, 120)) + 1
    patter = s.scatter(s.draws(0, s.duration, count), s.rng.exponential(1.0, count), s.body(1500, 8000, 0.005, 0.02))
    return s.noise(("high", s.draw(800, 2500), 0.5)) + normalised(patter)


def lawn_mower(s: Studio) -> np.ndarray:
    motor = s.engine(s.draw(45, 55) * (1 + 0.02 * s.smooth(2)), 1, width=0.08, unevenness=0.1, clatter=0.5, breath=1.5)
    return s.filter(motor, ("low", s.draw(2500, 5000)))


def thunder(s: Studio) -> np.ndarray:
    return s.noise(("low", s.draw(60, 200), 0.5)) * np.exp(1.2 * s.smooth(s.draw(2, 6))) * s.fade(0.05, 2.0)


def _by_name(*sounds: Callable[[Studio], np.ndarray]) -> dict[str, Callable[[Studio], np.ndarray]]:
    return {sound.__name__.replace("_", " "): sound for sound in sounds}


BED_SOUNDS = _by_name(wind, traffic, crowd, music)
DISTRACTION_SOUNDS = _by_name(
    dog_bark, church_bell, footsteps, door_slam, bird, speech, hammering, doorbell, telephone, glass, clapping, rain,
    lawn_mower, thunder,
)  # fmt: skip
