"""The sound of a demo-world scene: events, beds and distractions mixed as one microphone records them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avrepro.corpora.demo.scenes import Scene
from avrepro.corpora.demo.sounds_background import BED_SOUNDS, DISTRACTION_SOUNDS
from avrepro.corpora.demo.sounds_vehicles import VEHICLE_SOUNDS
from avrepro.corpora.demo.sounds_warning import WARNING_SOUNDS
from avrepro.corpora.demo.synthesis import Studio, normalised, reverberate, rms

EVENT_SOUNDS = {**WARNING_SOUNDS, **VEHICLE_SOUNDS}
SOUND_CLASSES = tuple(EVENT_SOUNDS)  # those of DCASE 2017 Task 4: warning sounds, then vehicles
BEDS = tuple(BED_SOUNDS)
DISTRACTIONS = tuple(DISTRACTION_SOUNDS)

FLOOR_DB = -30.0  # the recorder's own noise under the beds together, or under 0 dB where there is no bed
EDGE = 0.02  # s, fades at both ends of every event, so that none begins or ends with a click
PEAK = 0.95  # of full scale, never passed
# Streams of the scene's generator: each part draws from its own, so that changing one leaves the others as they are.
EVENT, BED, DISTRACTION, ROOM, FLOOR, MICROPHONE = range(6)


@dataclass(frozen=True)
class Layers:
    """What reaches the microphone of a scene, apart; every array float32 [samples] or [n, samples]."""

    background: np.ndarray  # [samples] beds and noise floor
    events: np.ndarray  # [events, samples] in the scene's order, with their reverberation
    distractions: np.ndarray  # [distractions, samples]

    def mix(self) -> np.ndarray:
        """The sum of all, float32 [samples]."""
        return self.background + self.events.sum(axis=0) + self.distractions.sum(axis=0)


def synthesise_event(label: str, duration: float, rng: np.random.Generator, sample_rate: int = 32000) -> np.ndarray:
    """One event of a class, dry and alone: float32 [samples] of RMS 1 over ``duration`` s.

    All parameters are drawn from ``rng``. Raises ValueError for a label that is not in ``SOUND_CLASSES``.
    """
    if label not in EVENT_SOUNDS:
        raise ValueError(f"sound class {label!r} is unknown: expected one of {', '.join(SOUND_CLASSES)}")
    studio = Studio(max(round(duration * sample_rate), 64), sample_rate, rng)
    return normalised(EVENT_SOUNDS[label](studio)).astype(np.float32)


def synthesise_layers(scene: Scene, sample_rate: int = 32000) -> Layers:
    """The layers of ``scene`` before the microphone.

    Levels: beds are summed with RMS ``level_db`` (dB; only their differences matter, the recording gain is
    random), and a noise floor lies 30 dB under their sum; without beds the floor alone is the background.
    An event (or distraction) with its reverberation has, over its active span [onset, offset), an RMS that
    is ``snr_db`` above the RMS of the background over the whole clip. Pauses inside the span count; the
    reverberant tail after the offset does not. The levels hold before the microphone's band-pass.

    Every part draws from its own stream of ``scene.seed``: the n-th event sounds the same whatever the
    others are. Raises ValueError for unknown labels.
    """
    samples = round(scene.duration * sample_rate)

    def studio(length: int, part: int, index: int = 0) -> Studio:
        return Studio(length, sample_rate, np.random.default_rng([scene.seed, part, index]))

    background = np.zeros(samples)
    for index, bed in enumerate(scene.beds):
        background += 10 ** (bed.level_db / 20) * normalised(BED_SOUNDS[bed.kind](studio(samples, BED, index)))
    floor = (rms(background) if scene.beds else 1.0) * 10 ** (FLOOR_DB / 20)
    background += floor * studio(samples, FLOOR).noise()
    level = rms(background)
    response = studio(samples, ROOM).room(scene.reverberation)

    def placed(sound: np.ndarray, onset: float, snr_db: float, place: Studio) -> np.ndarray:
        """``sound`` from ``onset`` on, dulled by a random distance, in the room, at its level, [samples]."""
        dulled = place.filter(sound * place.fade(EDGE, EDGE), ("low", place.draw(4000, 14000), 0.5))
        wet = reverberate(dulled, response)
        wet *= 10 ** (snr_db / 20) * level / max(rms(wet[: place.samples]), 1e-12)
        out = np.zeros(samples, dtype=np.float32)
        start = min(round(onset * sample_rate), samples)
        out[start : start + len(wet)] = wet[: samples - start]
        return out

    events = np.zeros((len(scene.events), samples), dtype=np.float32)
    for index, event in enumerate(scene.events):
        rng = np.random.default_rng([scene.seed, EVENT, index])
        sound = synthesise_event(event.label, event.offset - event.onset, rng, sample_rate)
        events[index] = placed(sound, event.onset, event.snr_db, Studio(len(sound), sample_rate, rng))
    distractions = np.zeros((len(scene.distractions), samples), dtype=np.float32)
    for index, one in enumerate(scene.distractions):
        place = studio(max(round((one.offset - one.onset) * sample_rate), 64), DISTRACTION, index)
        distractions[index] = placed(DISTRACTION_SOUNDS[one.kind](place), one.onset, one.snr_db, place)
    return Layers(background.astype(np.float32), events, distractions)


def synthesise(scene: Scene, sample_rate: int = 32000) -> np.ndarray:
    """The recording of ``scene``: float32 [samples], |x| <= 0.95, the same samples for the same scene.

    The layers (see ``synthesise_layers``) go through a random band-pass (a small microphone: 40-180 Hz to
    7-14 kHz) and are scaled to a random peak of 0.1 to 0.95; nothing is clipped.
    """
    mix = synthesise_layers(scene, sample_rate).mix()
    microphone = Studio(len(mix), sample_rate, np.random.default_rng([scene.seed, MICROPHONE, 0]))
    recorded = microphone.filter(mix, ("high", microphone.draw(40, 180)), ("low", microphone.draw(7000, 14000)))
    peak = PEAK * 10 ** (microphone.draw(-19.5, 0) / 20)
    return (recorded * (peak / max(float(np.abs(recorded).max()), 1e-9))).astype(np.float32)
