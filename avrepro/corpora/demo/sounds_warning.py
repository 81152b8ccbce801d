"""The nine warning sounds of DCASE 2017 Task 4, each as a parametric synthesis of how the thing sounds.

A class's function draws all its parameters and returns [samples] at any level; the comment above it names what its
ranges rest on. Sirens share their patterns; the classes differ by how often and in which range, as in life.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from avrepro.corpora.demo.synthesis import Span, Studio, normalised


def horns(s: Studio, tones: Sequence[float] | np.ndarray, edge: float) -> np.ndarray:
    """Air-blown horns together, each detuned, gliding and fluttering; harmonics fall above ``edge`` Hz."""
    out = np.zeros(s.samples)
    steepness = s.draw(1.0, 2.0)
    for tone in tones:
        pressure = 1 - s.draw(0.02, 0.08) * np.exp(-s.time / s.draw(0.03, 0.12))
        pitch = tone * (1 + 0.008 * s.rng.standard_normal()) * pressure * (1 + 0.0015 * s.smooth(25))
        numbers = np.arange(1, int(min(0.46 * s.rate, 9000) / tone) + 1)
        # a short flared horn passes little below its cut-off: harmonics 2 to 5 are as strong as the first
        strengths = np.exp(0.35 * s.rng.standard_normal(len(numbers))) / (
            1 + (numbers * tone / edge) ** (2 * steepness)
        )
        out += s.draw(0.6, 1.0) * s.tone(pitch, strengths)
    return normalised(out) + s.draw(0.02, 0.1) * s.noise(("band", 3000, 0.5))


# Chords of locomotive horns as their makers tune them: Nathan K5LA, P5, P5a and K3L, Leslie RS3L and S-3K (whose bells
# are named by a tenth of their Hz). At a crossing: two long blasts, one short, one long (49 CFR 222.21).
TRAIN_HORNS = (
    (311.1, 370.0, 415.3, 493.9, 622.3),
    (277.2, 329.6, 392.0, 440.0, 554.4),
    (277.2, 329.6, 392.0, 466.2, 554.4),
    (311.1, 370.0, 493.9),
    (255.0, 311.0, 440.0),
    (311.0, 370.0, 480.0),
)


def train_horn(s: Studio) -> np.ndarray:
    chord = np.array(TRAIN_HORNS[s.rng.integers(len(TRAIN_HORNS))]) * s.draw(0.97, 1.03)
    blasts = s.spells((0.4, 0.9) if s.chance(0.25) else (1.5, 3.5), (0.3, 1.0))
    moving = 10 ** (s.draw(-0.3, 0.3) * np.linspace(-1, 1, s.samples))
    blown = horns(s, chord, s.draw(900, 1800)) * s.gate(blasts, s.draw(0.04, 0.12))
    return (blown + s.draw(0.05, 0.3) * s.noise(("low", s.draw(80, 250)))) * moving


# Lorry and ship's horns: one or two low tones, short blasts; UN Regulation No. 28 (audible warning devices)
# asks for more sound between 1800 and 3550 Hz than above, hence the brassy spectrum.
def air_horn(s: Studio) -> np.ndarray:
    low = s.draw(130, 330)
    tones = [low] if s.chance(0.35) else [low, low * s.rng.choice([1.19, 1.25, 1.335])]
    blasts = s.spells(*(((0.15, 0.7), (0.1, 0.8)) if s.chance(0.5) else ((0.8, 2.5), (0.4, 1.6))), latest=0.2)
    return horns(s, tones, s.draw(1600, 3200)) * s.gate(blasts, s.draw(0.01, 0.04))


def loudspeaker(s: Studio, frequency: np.ndarray) -> np.ndarray:
    """A near-square wave through a re-entrant horn, as electronic sirens and alarms play."""
    strengths = s.harmonics(float(frequency.max()), s.draw(6, 11), odd=s.draw(0.3, 0.95))
    return s.filter(s.tone(frequency, strengths), ("high", s.draw(350, 600)), ("low", s.draw(2500, 6000)))


# UN Regulation No. 97 (vehicle alarm systems): 1800-3550 Hz, constant or modulated at 2 +- 1 Hz; six-tone
# alarms run through patterns of a few seconds; other cars pulse their own pair of horns (400-500 Hz).
def car_alarm(s: Studio) -> np.ndarray:
    if s.chance(0.2):
        on = s.time * s.draw(1.0, 2.2) % 1 < s.draw(0.4, 0.6)
        return s.filter(on.astype(float), ("low", 40, 0.5)) * horns(s, [s.draw(380, 440), s.draw(470, 540)], 2000)
    low, high = s.draw(700, 1500), s.draw(1900, 3400)
    frequency, level = np.empty(s.samples), np.ones(s.samples)
    for first, last in stretches(s, (1.2, 4.0)):
        turn = s.time[first:last] * s.draw(1.0, 3.0)
        shapes: dict[str, np.ndarray | float] = {
            "hi-lo": (turn % 1 < 0.5).astype(float),
            "chirps up": (2 * turn) % 1,
            "chirps down": 1 - (2 * turn) % 1,
            "slow sweep": 0.5 - 0.5 * np.cos(np.pi * turn),
            "warble": np.abs(2 * ((turn * 5) % 1) - 1),
            "pulses": s.draw(0, 1),
        }
        pattern = str(s.rng.choice(list(shapes)))
        frequency[first:last] = low * (high / low) ** shapes[pattern]
        if pattern == "pulses":
            level[first:last] = (turn * 2) % 1 < 0.5
    return loudspeaker(s, frequency) * s.filter(level, ("low", 60, 0.5))


def stretches(s: Studio, hold: Span) -> list[tuple[int, int]]:
    """The sound cut into stretches of ``hold`` s, as (first sample, last sample + 1)."""
    cuts = [0]
    while cuts[-1] < s.samples:
        cuts.append(min(cuts[-1] + int(s.draw(*hold) * s.rate), s.samples))
    return list(pairwise(cuts))


# SAE J994 (backup alarms): strongest tone between 700 and 2800 Hz, 60 to 120 cycles a minute, on and off
# about equally long; most are near 1000-1300 Hz.
def reversing_beeps(s: Studio) -> np.ndarray:
    pitch = s.draw(950, 1400) if s.chance(0.75) else s.draw(700, 2800)
    rate, duty = s.draw(0.9, 2.0), s.draw(0.4, 0.6)
    on = s.gate([(start, start + duty / rate) for start in np.arange(0, s.duration, 1 / rate)], s.draw(0.002, 0.01))
    beeps = s.tone(pitch, s.harmonics(pitch, s.draw(9, 20), odd=s.draw(0, 0.8))) * on
    if s.chance(0.5):  # the machine it is fixed to
        idle = s.engine(
            s.draw(10, 20) * (1 + 0.01 * s.smooth(2)), 6, width=0.2, unevenness=0.15, clatter=0.5, breath=0.3
        )
        beeps = beeps + s.draw(0.02, 0.12) * idle
    return beeps


def electronic_siren(
    s: Studio, odds: dict[str, float], wail: Span, yelp: Span, hold: Span, interval: Span, passing: float = 0.4
) -> np.ndarray:
    """A vehicle's siren: patterns by ``odds``, each for ``hold`` s; rates in Hz, hi-lo ``interval``."""
    rates = {"wail": s.draw(*wail), "yelp": s.draw(*yelp), "phaser": s.draw(9, 16), "hi-lo": s.draw(0.4, 1.0)}
    low, high, lower = s.draw(500, 750), s.draw(1150, 1800), s.draw(360, 520)
    upper, steepness, rise = lower * s.draw(*interval), s.draw(1.0, 1.8), s.draw(0.3, 0.55)
    chances = np.array(list(odds.values())) / sum(odds.values())
    frequency, start = np.empty(s.samples), s.draw(0, 5)
    for first, last in stretches(s, hold):
        pattern = str(s.rng.choice(list(odds), p=chances))
        turn = (s.time[first:last] + start) * rates[pattern] % 1.0
        up = rise if pattern == "wail" else 0.5
        triangle = np.where(turn < up, turn / up, (1 - turn) / (1 - up))
        sweep = low + (high - low) * triangle ** (1 / steepness)
        frequency[first:last] = np.where(turn < 0.5, lower, upper) if pattern == "hi-lo" else sweep
    siren = loudspeaker(s, frequency)
    if s.chance(passing):
        return s.passing(lambda t: np.resize(siren, t.samples), s.draw(5, 22), s.draw(5, 30), s.draw(0, s.duration))
    return siren * 10 ** (s.draw(0, 0.35) * s.smooth(0.3))


# Wails of 10-30 and yelps of 150-250 sweeps a minute between about 500 and 2000 Hz, as electronic sirens
# usually have them (SAE J1849, Emergency Vehicle Sirens, describes the devices); DIN 14610: hi-lo with the
# lower tone in 360-630 Hz and the upper 1.333 times it. Ambulances: slow wail, much hi-lo.
def ambulance(s: Studio) -> np.ndarray:
    odds = {"wail": 0.33, "yelp": 0.2, "hi-lo": 0.42, "phaser": 0.05}
    return electronic_siren(s, odds, (0.17, 0.32), (2.5, 3.4), (5, 12), (1.15, 1.35))


# The same devices; police switch patterns often and like yelp and phaser.
def police_car(s: Studio) -> np.ndarray:
    odds = {"wail": 0.33, "yelp": 0.4, "hi-lo": 0.07, "phaser": 0.2}
    return electronic_siren(s, odds, (0.25, 0.5), (3.0, 4.2), (1.5, 5), (1.25, 1.45))


# Fire engines: DIN 14610 hi-lo, electronic wail, or an electromechanical siren (Federal Q type, also in SAE
# J1849) that winds up and coasts down; blasts of an air horn and a Diesel beside it.
def fire_engine(s: Studio) -> np.ndarray:
    if s.chance(0.4):
        frequency = s.draw(850, 1250) * wind_up(s, (1.0, 3.0), (2.0, 5.0), s.draw(0.35, 0.6))
        siren = s.tone(frequency, s.harmonics(1250, s.draw(6, 10))) * frequency  # louder the faster the rotor turns
    else:
        odds = {"wail": 0.45, "yelp": 0.15, "hi-lo": 0.4}
        siren = electronic_siren(s, odds, (0.17, 0.35), (2.5, 3.4), (4, 10), (1.3, 1.37))
    out = normalised(siren)
    if s.chance(0.55):
        blasts = s.gate(s.spells((0.3, 1.4), (1.5, 5.0), latest=3.0), 0.03)
        out = out + s.draw(0.6, 1.4) * blasts * horns(s, [s.draw(180, 260), s.draw(260, 370)], 2000)
    speed = s.draw(15, 28) * (1 + 0.08 * s.smooth(0.5))
    return out + s.draw(0.03, 0.25) * s.engine(speed, 6, width=0.18, unevenness=0.12, clatter=0.6, breath=0.4)


def wind_up(s: Studio, rise: Span, fall: Span, rest: float) -> np.ndarray:
    """Speed of a siren's rotor (0..1): up for ``rise`` s, then coasting to ``rest`` in ``fall`` s."""
    speed, now = np.empty(s.samples), s.draw(rest, 1.0)
    up = s.chance(0.5)
    first = 0
    while first < s.samples:
        span = s.draw(*(rise if up else fall))
        count = min(int(span * s.rate), s.samples - first)
        goal = 1.05 if up else 0.8 * rest
        speed[first : first + count] = goal + (now - goal) * np.exp(-2.0 / span * s.time[:count])
        now, up = float(speed[first + count - 1]), not up
        first += count
    return speed


# Outdoor warning sirens: chopped air at 300-800 Hz (the German E57: 420 Hz), one or two tones; steady, or
# wailing with a period of 4 to 12 s (FEMA CPG 1-17, Outdoor Warning Systems Guide, 1980); heard from afar,
# through moving air and past echoes.
def civil_defense_siren(s: Studio) -> np.ndarray:
    top = s.draw(400, 800)
    speed = np.ones(s.samples) if s.chance(0.2) else wind_up(s, (2.0, 5.0), (2.5, 7.0), s.draw(0.3, 0.75))
    strengths = s.harmonics(top, s.draw(5, 9), odd=s.draw(0, 0.4))
    tone = s.tone(top * speed, strengths)
    if s.chance(0.5):
        tone = tone + s.tone(top * s.rng.choice([0.75, 0.8, 0.833]) * speed, strengths)
    turning = 10 ** (s.draw(0, 0.4) * np.sin(2 * np.pi * (s.time * s.draw(2, 8) / 60 + s.draw(0, 1))))
    tone = s.filter(tone * speed * turning * np.exp(0.2 * s.smooth(4)), ("low", s.draw(1800, 4500), 0.5))
    echo = int(s.draw(0.08, 0.6) * s.rate) % s.samples
    tone[echo:] += s.draw(0.2, 0.6) * tone[: s.samples - echo]
    return tone + s.draw(0.02, 0.1) * s.noise(("low", 500)) * normalised(tone).std()


# Screams: pitch of 600-2000 Hz, far above speech, and roughness: loudness modulated at 30-150 Hz (Arnal et
# al., Human screams occupy a privileged niche in the communication soundscape, Current Biology, 2015).
def screaming(s: Studio) -> np.ndarray:
    out = np.zeros(s.samples)
    for voice in range(1 + s.chance(0.35)):
        tract = s.draw(0.9, 1.25)  # short vocal tracts of women and children
        for start, end in s.spells((0.5, 2.2), (0.15, 0.9), latest=0.2 + 2.0 * voice):
            first, last = int(start * s.rate), min(int(end * s.rate), s.samples)
            if last - first > 0.1 * s.rate:
                out[first:last] += s.draw(0.5, 1.0) * scream(s(last - first), tract)
    return out


def scream(s: Studio, tract: float) -> np.ndarray:
    """One cry: a pitch arc with jitter, roughness, breath; formants of an open [a] times ``tract``."""
    knots = [0, s.draw(0.08, 0.25), s.draw(0.6, 0.85), 1]
    arc = np.interp(s.time / s.duration, knots, [s.draw(0.55, 0.85), 1, s.draw(0.85, 1.05), s.draw(0.45, 0.8)])
    top = s.draw(650, 1500)
    pitch = top * arc * (1 + s.draw(0.01, 0.03) * s.smooth(90) + 0.02 * s.smooth(9))
    rough = 1 + s.draw(0.3, 1.0) * np.sin(2 * np.pi * s.draw(40, 130) * s.time + 3 * s.smooth(12))
    if s.chance(0.5):  # the vocal folds fall into every second period
        rough = rough + s.draw(0.3, 0.9) * np.cos(np.pi * s.phase(pitch))
    voiced = normalised(s.tone(pitch, s.harmonics(1.1 * top, s.draw(3, 7))) * rough) + s.draw(0.15, 0.5) * s.noise()
    shaped = 0.1 * voiced
    for centre, q, gain in ((1000, 3.5, 1.0), (1600, 5, 0.9), (3100, 6, 0.8), (4300, 7, 0.5)):
        shaped = shaped + gain * s.filter(voiced, ("band", tract * centre * s.draw(0.92, 1.08), q))
    return normalised(shaped) * s.fade(s.draw(0.03, 0.12), s.draw(0.08, 0.25))


WARNING_SOUNDS: dict[str, Callable[[Studio], np.ndarray]] = {
    "Train horn": train_horn,
    "Air horn, truck horn": air_horn,
    "Car alarm": car_alarm,
    "Reversing beeps": reversing_beeps,
    "Ambulance (siren)": ambulance,
    "Police car (siren)": police_car,
    "Fire engine, fire truck (siren)": fire_engine,
    "Civil defense siren": civil_defense_siren,
    "Screaming": screaming,
}
