"""What YAMNet, taught on real sounds, hears in the demo world's sounds when each stands alone."""

from __future__ import annotations

import numpy as np
import soxr
import torch

from avrepro.corpora.demo.sounds import SOUND_CLASSES, synthesise_event
from avrepro.evaluation import metric_interval
from avrepro.models.yamnet import YAMNet
from avrepro.results import Run

SECONDS = 4.0  # of a rendering: within or near the usual length of every class
RATE = 32_000  # Hz, the demo world's
LEVEL, PEAK = 0.1, 0.95  # RMS of a rendering (-20 dB of full scale), and where its peak ends it
TOP = 5  # of the looser count

ROAD = (
    "Vehicle", "Motor vehicle (road)", "Car", "Car passing by", "Race car, auto racing", "Truck", "Bus", "Motorcycle",
    "Traffic noise, roadway noise", "Engine", "Light engine (high frequency)", "Medium engine (mid frequency)",
    "Heavy engine (low frequency)", "Engine knocking", "Engine starting", "Idling", "Accelerating, revving, vroom",
)  # fmt: skip
RAIL = ("Rail transport", "Train", "Railroad car, train wagon", "Train wheels squealing", "Subway, metro, underground")
WHEELS = ("Bicycle", "Bicycle bell", "Skateboard")
SIRENS = (
    "Siren", "Emergency vehicle", "Police car (siren)", "Ambulance (siren)", "Fire engine, fire truck (siren)",
    "Civil defense siren",
)  # fmt: skip
HORNS = (
    "Vehicle horn, car horn, honking", "Toot", "Air horn, truck horn", "Train horn", "Train whistle", "Foghorn",
)  # fmt: skip
VOICES = ("Screaming", "Shout", "Yell", "Bellow", "Whoop", "Children shouting")
# Names of AudioSet that count as the right family, written down before anything was heard: the class itself, what
# makes its sound in the same way, and general names of that kind of source. A siren is no horn and no mere alarm, a
# horn is no train.
FAMILIES: dict[str, tuple[str, ...]] = {
    "Train horn": HORNS,
    "Air horn, truck horn": HORNS,
    "Car alarm": ("Car alarm", "Alarm", "Vehicle horn, car horn, honking", "Toot"),  # most alarms sound the horn
    "Reversing beeps": ("Reversing beeps", "Beep, bleep", "Alarm"),
    "Bicycle": WHEELS,
    "Skateboard": WHEELS,
    "Ambulance (siren)": SIRENS,
    "Fire engine, fire truck (siren)": SIRENS,
    "Civil defense siren": SIRENS,
    "Police car (siren)": SIRENS,
    "Screaming": VOICES,
    "Car": ROAD,
    "Car passing by": ROAD,
    "Bus": ROAD,
    "Truck": ROAD,
    "Motorcycle": ROAD,
    "Train": RAIL,
}


def isolated_sound(label: str, number: int, seed: int) -> np.ndarray:
    """Rendering ``number`` of a class, dry and alone: float32 [SECONDS x RATE], at LEVEL unless its peak forbids."""
    rng = np.random.default_rng([seed, SOUND_CLASSES.index(label), number])
    waveform = synthesise_event(label, SECONDS, rng, RATE)  # RMS 1
    return waveform * min(LEVEL, PEAK / float(np.abs(waveform).max()))


def listen(run: Run, network: YAMNet, renderings: int, seed: int, device: torch.device) -> None:
    """Note in ``run`` how often YAMNet's first name, and one of its first five, is of the right family.

    A rendering is named by the mean of its patches' scores. A class is right where more than half of its renderings
    are. ``heard`` tells, class by class, the share of renderings that have a name first.
    """
    network = network.to(device)
    first: list[bool] = []
    among: list[bool] = []
    for label in SOUND_CLASSES:
        sounds = [isolated_sound(label, number, seed) for number in range(renderings)]
        waveforms = np.stack([soxr.resample(sound, RATE, network.sample_rate, quality="HQ") for sound in sounds])
        with torch.inference_mode():
            scores = network(torch.from_numpy(waveforms).to(device))[0].mean(1).cpu().numpy()  # (renderings, 521)
        ranked = [[network.classes[k] for k in np.argsort(-row, kind="stable")[:TOP]] for row in scores]
        right = [names[0] in FAMILIES[label] for names in ranked]
        near = [bool(set(names) & set(FAMILIES[label])) for names in ranked]
        run.add("YAMNet", "", "family_first", float(np.mean(right)), label=label)
        run.add("YAMNet", "", "family_among_five", float(np.mean(near)), label=label)
        for name in dict.fromkeys(names[0] for names in ranked):
            share = float(np.mean([names[0] == name for names in ranked]))
            run.add("YAMNet", "", "heard", share, label=f"{label} | {name}")
        first += right
        among += near
    run.add("YAMNet", "", "renderings", renderings)
    for metric, values in (("family_first", first), ("family_among_five", among)):
        by_class = np.reshape(values, (len(SOUND_CLASSES), renderings)).mean(axis=1)
        run.add(
            "YAMNet", "", metric, metric_interval(lambda _, right: right.mean(), np.array(values), np.array(values))
        )
        run.add("YAMNet", "", f"classes_{metric}", int((by_class > 0.5).sum()))
