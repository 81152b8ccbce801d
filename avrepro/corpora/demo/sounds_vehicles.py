"""The eight vehicle sounds of DCASE 2017 Task 4, each as a parametric synthesis of how the thing sounds.

A class's function draws all its parameters and returns [samples] at any level; the comment above it names
what its ranges rest on. Engines share their mechanism; the classes differ by firing rate, brightness, gears
and what sounds beside them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from avrepro.corpora.demo.synthesis import Span, Studio, normalised


def drive(s: Studio, idle: float, shift: float, pull: Span) -> tuple[np.ndarray, np.ndarray]:
    """Crankshaft speed (revolutions/s) and load (0..1): idling, pulling away, cruising or slowing down.

    ``idle`` and ``shift`` (at a change of gear) are in revolutions a minute; a gear lasts ``pull`` s.
    """
    manner = s.rng.choice(["idle", "pull away", "cruise", "slow down"], p=[0.25, 0.4, 0.2, 0.15])
    knots = [(0.0, idle, 0.2)]  # time, speed, load
    if manner == "pull away":
        knots.append((s.draw(0.01, 1.5), idle, 0.2))
        while knots[-1][0] < s.duration:
            at, speed, _ = knots[-1]
            top = shift * s.draw(0.85, 1.0)
            end = at + s.draw(*pull)
            knots += [
                (at + 0.05, speed, 1.0),
                (end, top, 0.9),
                (end + s.draw(0.2, 0.5), top * s.draw(0.55, 0.72), 0.15),
            ]
    elif manner == "cruise":
        knots = [(0.0, s.draw(0.45, 0.8) * shift, 0.6)]
    elif manner == "slow down":
        knots = [(0.0, s.draw(0.6, 0.9) * shift, 0.3), (s.draw(2, 5), idle, 0.15)]
    times, speeds, loads = np.array(knots).T
    return np.interp(s.time, times, speeds) / 60 * (1 + 0.012 * s.smooth(3)), np.interp(s.time, times, loads)


def exhaust(s: Studio, sound: np.ndarray, low: float, high: float) -> np.ndarray:
    """Engine sound through the exhaust, RMS 1: two resonances from ``low`` Hz, a roll-off at ``high``."""
    first = s.draw(1.0, 1.7) * low
    second = ("peak", first * s.draw(2.2, 3.5), 2.0, s.draw(3, 9))
    boost = s.draw(4, 10)
    return normalised(s.filter(sound, ("high", 0.5 * low), ("peak", first, 2.0, boost), second, ("low", high, 0.5)))


def road(s: Studio) -> np.ndarray:
    """Tyre noise, a hump near 1 kHz (Sandberg and Ejsmont, Tyre/Road Noise Reference Book, 2002)."""
    return s.noise(("band", s.draw(700, 1300), s.draw(0.5, 0.9)), ("low", s.draw(2000, 5000)))


def come_and_go(s: Studio, most: float = 8.0) -> np.ndarray:
    """Level of a vehicle that nears, waits or leaves: a smooth curve, at times by 2 * ``most`` dB."""
    return 10 ** (s.draw(0, most) / 20 * np.clip(s.smooth(0.25), -2, 2))


def air_brakes(s: Studio) -> np.ndarray:
    """Compressed air let off in one to three hisses."""
    starts = s.draws(0, s.duration, int(s.rng.integers(1, 4)))
    return s.gate([(at, at + s.draw(0.15, 1.2)) for at in starts], 0.05) * s.noise(("high", s.draw(1500, 3500)))


# Bicycle: a wheel of 2.1 m (ISO 5775 size 37-622) at 3 to 8 m/s, freewheels of 16 to 36 clicks a turn; bells
# are cups with inharmonic partials from 2 kHz up, struck once or rung 10 to 18 times a second.
def bicycle(s: Studio) -> np.ndarray:
    speed = s.draw(3, 8) * (1 + 0.06 * s.smooth(0.6))
    clicks = np.flatnonzero(np.diff(s.phase(speed / 2.1 * s.rng.integers(16, 37)).astype(np.int64)))
    coasting = s.gate(s.spells((1.0, 4.0), (0.5, 3.0)), 0.05)[clicks]
    times = clicks / s.rate + 0.0006 * s.rng.standard_normal(len(clicks))
    tick = s.body(2500, 11000, 0.004, 0.015)
    out = normalised(s.scatter(times, coasting * (1 + 0.3 * s.rng.standard_normal(len(clicks))), tick))
    pedalling = 1 + 0.5 * np.sin(2 * np.pi * s.draw(1.0, 1.6) * s.time)
    out = out * s.draw(0.15, 0.8) + s.draw(0.03, 0.15) * s.noise(("band", s.draw(2500, 5000), 0.8)) * pedalling
    out = out + s.draw(0.03, 0.2) * road(s)
    if s.chance(0.75):
        out = out + s.draw(1.0, 3.0) * normalised(bicycle_bell(s))
    return out


def bicycle_bell(s: Studio) -> np.ndarray:
    """A cup rung by its rotating striker, or struck once or twice by a sprung one, again and again."""
    overtones = [(1.45, 1.6), (2.0, 2.3), (2.6, 2.9), (3.2, 3.6), (3.9, 4.3)]
    cup = np.array([1, 1.008, *(s.draw(*partial) for partial in overtones)])
    decays = s.draw(0.6, 1.6) * np.array([1, 0.9, 0.6, 0.5, 0.35, 0.25, 0.2])
    hit = s.struck(s.draw(1700, 3000) * cup, [0.8, 0.8, 0.7, 0.6, 0.6, 0.4, 0.3], decays)
    click = s.burst(0.006, 2500, 14000)
    hit[: len(click)] += s.draw(0.3, 1.0) * click
    strokes, at, rung, gap = [0.1], s.draw(0, 0.6), s.chance(0.75), s.draw(0.055, 0.1)
    while at < s.duration:
        count, mean = (int(s.rng.integers(7, 17)), gap) if rung else (int(s.rng.integers(1, 3)), 0.22)
        strokes += list(at + np.cumsum(mean * s.draws(0.7, 1.3, count)))
        at = strokes[-1] + s.draw(0.6, 2.5)
    return s.scatter(strokes[1:], s.draws(0.3, 1.0, len(strokes) - 1), hit)


# Skateboard: hard urethane wheels at 2 to 6 m/s; paving joints every 0.6 to 1.8 m hit the front and, a wheelbase of
# 0.36 m later, the back axle; the tail pops, the board flies for 0.3 to 0.6 s (no rolling) and lands with both axles.
def skateboard(s: Studio) -> np.ndarray:
    speed, slab = s.draw(2, 6), s.draw(0.6, 1.8)
    rolling = s.noise(("band", s.draw(200, 450), 0.8)) + s.draw(0.6, 1.4) * s.noise(("band", s.draw(800, 1600), 0.8))
    rolling = rolling + s.draw(0.2, 0.5) * s.noise(("band", s.draw(2500, 5000), 0.8))
    rolling *= np.exp(s.draw(0.2, 0.5) * s.smooth(s.draw(60, 160)) + 0.3 * s.smooth(0.8))  # coarse grains of the ground
    flights, at = [], s.draw(0.3, 2.0)
    while at < s.duration:
        flights.append((at, at + s.draw(0.3, 0.6)))
        at = flights[-1][1] + s.draw(1.5, 5.0)
    ground = 1 - 0.95 * s.gate(flights, 0.01)
    out = rolling * ground
    if s.chance(0.5):
        joints = np.arange(s.draw(0, 1) * slab / speed, s.duration, slab / speed)
        joints = np.concatenate([joints, joints + 0.36 / speed])
        joints = joints[joints < s.duration]
        clack = s.burst(s.draw(0.03, 0.07), 150, s.draw(1500, 4000))
        levels = s.draw(0.5, 2.0) * s.draws(0.5, 1.5, len(joints)) * ground[(joints * s.rate).astype(int)]
        out = out + s.scatter(joints, levels, clack)
    pops = [at + late for start, end in flights for at, late in ((start, 0.0), (end, 0.0), (end, s.draw(0.01, 0.04)))]
    pop = s.burst(s.draw(0.06, 0.12), 120, 6000)
    return out + s.scatter(pops, s.draws(3, 8, len(pops)), pop)


# Car: four or six cylinders, idling at 700-950 and shifting at 2200-4500 revolutions a minute, so that it
# fires some 25 to 200 times a second (Heywood, Internal Combustion Engine Fundamentals, 1988).
def car(s: Studio) -> np.ndarray:
    speed, load = drive(s, s.draw(700, 950), s.draw(2200, 4500), (1.5, 4.0))
    cylinders = int(s.rng.choice([4, 4, 4, 6]))
    motor = s.engine(speed, cylinders, width=s.draw(0.12, 0.25), unevenness=s.draw(0.04, 0.15),
                     clatter=s.draw(0.1, 0.4), breath=s.draw(0.2, 0.7))  # fmt: skip
    motor = exhaust(s, motor, s.draw(70, 140), s.draw(1200, 4000)) * (0.4 + load)
    return (motor + s.draw(0.1, 0.6) * load * road(s)) * come_and_go(s)


# A car passing at 40 to 130 km/h, 3 to 15 m away: tyre noise above the engine (Sandberg and Ejsmont, 2002),
# level and Doppler shift from the geometry.
def car_passing_by(s: Studio) -> np.ndarray:
    def source(t: Studio) -> np.ndarray:
        motor = t.engine(t.draw(900, 2800) / 60, 4, width=t.draw(0.12, 0.25), unevenness=0.1, clatter=0.1, breath=0.4)
        tyres = t.filter(road(t), ("peak", 90, 0.7, 8.0))
        return tyres + t.draw(0.15, 0.7) * exhaust(t, motor, t.draw(70, 140), t.draw(1000, 3000))

    return s.passing(source, s.draw(11, 36), s.draw(3, 15), s.draw(0.35, 0.65) * s.duration)


def diesel(
    s: Studio, idle: float, shift: float, pull: Span, clatter: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    """A six-cylinder Diesel under way, and its speed (revolutions/s)."""
    speed, load = drive(s, idle, shift, pull)
    motor = s.engine(
        speed, 6, width=s.draw(0.12, 0.25), unevenness=s.draw(0.06, 0.18), clatter=clatter, breath=s.draw(0.4, 1.0)
    )
    return exhaust(s, motor, s.draw(45, 90), high) * (0.45 + load), speed


# Bus: a muffled rear Diesel idling at 550-750 and shifting early (1300-2000 revolutions a minute) by an
# automatic gearbox (Heywood, 1988, for the speeds of heavy Diesels); whine, brake and door air, at times the
# beep of a kneeling bus.
def bus(s: Studio) -> np.ndarray:
    out, speed = diesel(s, s.draw(550, 750), s.draw(1300, 2000), (2.0, 4.5), s.draw(0.1, 0.5), s.draw(600, 1600))
    out = out + s.draw(0.1, 0.4) * road(s)
    if s.chance(0.5):
        out = out + s.draw(0.05, 0.25) * s.tone(speed * s.draw(11, 23), [1.0, 0.4, 0.2])
    if s.chance(0.6):
        out = out + s.draw(0.3, 1.2) * air_brakes(s)
    if s.chance(0.25):
        beeps = [(at, at + 0.2) for at in np.arange(s.draw(0, 3), 6, 0.45)]
        out = out + s.draw(0.2, 0.6) * s.gate(beeps, 0.01) * s.tone(s.draw(1200, 2400), [1.0, 0.3])
    return out * come_and_go(s)


# Truck: a larger Diesel, 500-700 idling and 1400-2100 revolutions a minute at the shift through many close
# gears (Heywood, 1988); harder knock, a turbocharger's whistle, brake air, a body that rattles.
def truck(s: Studio) -> np.ndarray:
    out, speed = diesel(s, s.draw(500, 700), s.draw(1400, 2100), (1.0, 2.6), s.draw(0.6, 1.6), s.draw(1200, 3200))
    out = out + s.draw(0.05, 0.3) * road(s)
    if s.chance(0.5):
        turbo = speed / speed.max()
        out = out + s.draw(0.02, 0.1) * s.tone(s.draw(2500, 4500) * turbo**0.7) * turbo
    if s.chance(0.6):
        out = out + s.draw(0.5, 2.0) * air_brakes(s)
    if s.chance(0.6):
        rattles = s.draws(0, s.duration, int(s.rng.integers(4, 20)))
        out = out + s.scatter(rattles, s.draws(0.1, 0.6, len(rattles)), s.body(300, 3500, 0.05, 0.3))
    return out * come_and_go(s)


# Motorcycle: one, two (V-twins fire unevenly) or four cylinders, idling at 900-1400 and reaching 3500 to 9000
# revolutions a minute; short open exhausts, thus sharp pulses; quick blips of the throttle (firing by the
# four-stroke cycle, Heywood, 1988; the speeds are those of common road machines).
def motorcycle(s: Studio) -> np.ndarray:
    cylinders = int(s.rng.choice([1, 2, 2, 4]))
    idle, shift = s.draw(900, 1400), s.draw(3500, 6000) if cylinders < 4 else s.draw(5000, 9000)
    if s.chance(0.45):
        knots = [(0.0, idle)]
        while (at := knots[-1][0] + s.draw(0.1, 1.2)) < s.duration:
            up = at + s.draw(0.15, 0.6)
            knots += [(at, idle), (up, s.draw(0.4, 1.0) * shift), (up + s.draw(0.4, 1.2), idle)]
        speed = np.interp(s.time, *np.array(knots).T) / 60 * (1 + 0.015 * s.smooth(5))
        load = np.clip((speed * 60 - idle) / (shift - idle), 0, 1)
    else:
        speed, load = drive(s, idle, shift, (0.8, 2.2))
    late = s.draw(0.15, 0.25) if cylinders == 2 and s.chance(0.6) else 0.0
    motor = s.engine(speed, cylinders, width=s.draw(0.04, 0.12), unevenness=s.draw(0.1, 0.3),
                     clatter=s.draw(0.3, 0.9), breath=s.draw(0.2, 0.7), late=late)  # fmt: skip
    return exhaust(s, motor, s.draw(90, 200), s.draw(2500, 6000)) * (0.35 + load) * come_and_go(s)


# Train: bogies with a wheelbase of 2.0 to 2.6 m under coaches of 20 to 26 m, so that a rail joint clacks in
# pairs; rolling noise at 400-2000 Hz and squeal in curves (Thompson, Railway Noise and Vibration, 2009).
def train(s: Studio) -> np.ndarray:
    speed, wheelbase, coach = s.draw(8, 28), s.draw(2.0, 2.6), s.draw(20, 26)
    beat = 10 ** (0.12 * np.sin(2 * np.pi * (s.time * speed / coach + s.draw(0, 1))))
    rumble = s.noise(("low", s.draw(90, 200)), ("high", 30))
    out = s.draw(0.8, 2.0) * rumble + s.draw(0.5, 1.2) * s.noise(("band", s.draw(500, 1100), 0.5), ("low", 4500))
    out = out * beat
    if s.chance(0.75):  # beside one joint, every axle of every coach is heard crossing it
        axles = np.array([0, wheelbase, 0.7 * coach, 0.7 * coach + wheelbase])
        crossings = np.arange(-coach, s.duration * speed, coach)[:, None] + axles + s.draw(0, coach)
        clack = s.burst(s.draw(0.12, 0.25), 60, s.draw(500, 1500))
        out = out + s.scatter(crossings.ravel() / speed, s.draw(0.8, 2.5) * s.draws(0.7, 1.2, crossings.size), clack)
    if s.chance(0.5):
        squeal = np.zeros(s.samples)
        for pitch in s.draws(1500, 5000, int(s.rng.integers(2, 5))):
            squeal += s.tone(pitch * (1 + 0.006 * s.smooth(15)), [1.0, 0.25]) * np.exp(s.smooth(4))
        out = out + s.draw(0.1, 0.6) * squeal * s.gate(s.spells((0.8, 3.0), (0.5, 3.0)), 0.3)
    return out * come_and_go(s, 6.0)


VEHICLE_SOUNDS: dict[str, Callable[[Studio], np.ndarray]] = {
    "Bicycle": bicycle,
    "Skateboard": skateboard,
    "Car": car,
    "Car passing by": car_passing_by,
    "Bus": bus,
    "Truck": truck,
    "Motorcycle": motorcycle,
    "Train": train,
}
