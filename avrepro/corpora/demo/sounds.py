"""The sound of a demo-world scene: events, beds and distractions mixed as one microphone records them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import signal

from avrepro.corpora.demo.scenes import Distraction, Scene, SoundEvent
from avrepro.corpora.demo.sounds_background import BED_SOUNDS, DISTRACTION_SOUNDS
from avrepro.corpora.demo.sounds_vehicles import VEHICLE_SOUNDS
from avrepro.corpora.demo.sounds_warning import WARNING_SOUNDS
from avrepro.corpora.demo.synthesis import Studio, normalised, rms

EVENT_SOUNDS = {**WARNING_SOUNDS, **VEHICLE_SOUNDS}
SOUND_CLASSES = tuple(EVENT_SOUNDS)  # those of DCASE 2017 Task 4: warning sounds, then vehicles
DISTRACTIONS = tuple(DISTRACTION_SOUNDS)

FLOOR_DB = -30.0  # the recorder's own noise under the beds together, or under 0 dB where there is no bed
EDGE = 0.02  # s, fades at both ends of every event, so that none begins or ends with a click
PEAK = 0.95  # of full scale, never passed
# Streams of the scene's generator: each part draws from its own, so that changing one leaves the others as they are.
EVENT, BED, DISTRACTION, ROOM, FLOOR, MICROPHONE = range(6)


@dataclass(frozen=True)
class Layers:
    """What reaches the microphone of a scene, apart; float32 arrays."""

    background: np.ndarray  # [samples] beds and noise floor
    events: np.ndarray  # [events, samples] in the scene's order, with their reverberation
    distractions: np.ndarray  # [distractions, samples]


def synthesise_event(label: str, duration: float, rng: np.random.Generator, sample_rate: int = 32000) -> np.ndarray:
    """One event of a class of ``SOUND_CLASSES``, dry and alone: float32 [samples] of RMS 1 over ``duration`` s."""
    return _event(label, Studio(max(round(duration * sample_rate), 64), sample_rate, rng))


def _event(label: str, studio: Studio) -> np.ndarray:
    return normalised(EVENT_SOUNDS[label](studio)).astype(np.float32)


def synthesise_layers(scene: Scene, sample_rate: int = 32000) -> Layers:
    """The layers of ``scene`` before the microphone.

    Beds are summed with RMS ``level_db``, and a noise floor lies 30 dB under their sum; without beds it alone is the
    background. An event (or distraction) with its reverberation has, over its span [onset, offset), an RMS that is
    ``snr_db`` above the RMS of the background over the whole clip. Pauses inside the span count; the reverberant tail
    after the offset does not.
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

    def place(
        out: np.ndarray, planned: SoundEvent | Distraction, sound: Callable[[Studio], np.ndarray], part: int, index: int
    ) -> None:
        """Write ``sound`` from its onset on, dulled by a random distance, in the room, at its level."""
        own = studio(max(round((planned.offset - planned.onset) * sample_rate), 64), part, index)
        faded = sound(own) * own.fade(EDGE, EDGE)
        dulled = own.filter(faded, ("low", own.draw(4000, 14000), 0.5))
        wet = signal.fftconvolve(dulled.astype(np.float32), response.astype(np.float32))
        wet *= 10 ** (planned.snr_db / 20) * level / max(rms(wet[: own.samples]), 1e-12)
        start = min(round(planned.onset * sample_rate), samples)
        out[start : start + len(wet)] = wet[: samples - start]

    events = np.zeros((len(scene.events), samples), dtype=np.float32)
    for index, event in enumerate(scene.events):
        place(events[index], event, partial(_event, event.label), EVENT, index)
    distractions = np.zeros((len(scene.distractions), samples), dtype=np.float32)
    for index, distraction in enumerate(scene.distractions):
        place(distractions[index], distraction, DISTRACTION_SOUNDS[distraction.kind], DISTRACTION, index)
    return Layers(background.astype(np.float32), events, distractions)


def synthesise(scene: Scene, sample_rate: int = 32000) -> np.ndarray:
    """The recording of ``scene``: float32 [samples], |x| <= 0.95, the same samples for the same scene.

    The sum of its layers goes through a random band-pass (a small microphone: 40-180 Hz to 7-14 kHz) and is scaled to a
    random peak of 0.1 to 0.95; nothing is clipped.
    """
    layers = synthesise_layers(scene, sample_rate)
    mix = layers.background + layers.events.sum(axis=0) + layers.distractions.sum(axis=0)
    microphone = Studio(len(mix), sample_rate, np.random.default_rng([scene.seed, MICROPHONE, 0]))
    recorded = microphone.filter(mix, ("high", microphone.draw(40, 180)), ("low", microphone.draw(7000, 14000)))
    peak = PEAK * 10 ** (microphone.draw(-19.5, 0) / 20)
    return (recorded * (peak / max(float(np.abs(recorded).max()), 1e-9))).astype(np.float32)
