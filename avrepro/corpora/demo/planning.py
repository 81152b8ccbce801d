"""Plans of the demo world's clips, drawn from its description."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avrepro.corpora.demo.description import Gap, WorldDescription
from avrepro.corpora.demo.scenes import Bed, Distraction, Scene, Sight, SoundEvent
from avrepro.corpora.demo.sounds import DISTRACTIONS, SOUND_CLASSES
from avrepro.corpora.demo.vocabulary import DISTRACTING, SIGHTS

LEAST_IN_VIEW = 1.0  # s of a sight that no gap moves out of the clip (all of a shorter one)


def draw_scenes(world: WorldDescription) -> tuple[dict[str, list[Scene]], dict[str, tuple[str, ...]]]:
    """Plan every clip of a world of one profile: split -> scenes, and clip -> weak labels.

    Weak labels are the classes that sound (not those only seen), in the classes' order; a stated share of training
    labels is missing. Another asynchrony or gap changes when, or whether, sources of sounding events are seen and
    nothing else.
    """
    (sizes,) = world.profiles.values()
    scenes: dict[str, list[Scene]] = {}
    weak_labels: dict[str, tuple[str, ...]] = {}
    for number, (split, clips) in enumerate(sizes):
        training = split == "train"
        missing = world.events.missing_labels if training else 0.0
        # Generator 0 of a split says which classes sound in which clip, generator k + 1 draws clip k.
        allotting = np.random.default_rng([world.seed, number, 0])
        sounding = allot_classes(allotting, world, clips, balanced=not training)
        scenes[split] = []
        for index, labels in enumerate(sounding):
            rng = np.random.default_rng([world.seed, number, index + 1])
            scene = draw_scene(rng, f"{split}-{index:04d}", labels, world)
            labelled = {label for label in labels if rng.random() >= missing}
            scenes[split].append(scene)
            weak_labels[scene.clip] = tuple(name for name in SOUND_CLASSES if name in labelled)
    return scenes, weak_labels


def allot_classes(
    rng: np.random.Generator, world: WorldDescription, clips: int, balanced: bool
) -> list[tuple[str, ...]]:
    """Which classes sound in each of ``clips`` clips, all different within a clip.

    Each clip takes the classes that lie furthest behind their own share, chance deciding between equals: balanced
    counts differ by at most 1, unbalanced ones follow the geometric law closely in small splits too.
    """
    classes = list(world.classes)
    imbalance = 1.0 if balanced else world.events.imbalance
    share = imbalance ** -np.linspace(0.0, 1.0, len(classes))
    wanted = np.array(world.events.count) * clips
    clips_with = np.floor(wanted).astype(int)
    clips_with[np.argsort(clips_with - wanted, kind="stable")[: clips - clips_with.sum()]] += 1  # largest remainders
    used = np.zeros(len(classes))
    allotted = []
    for count in rng.permutation(np.repeat(np.arange(len(clips_with)), clips_with)):
        # A class's next event falls anywhere within its period, so that rare ones are not always the last.
        chosen = np.argsort((used + rng.random(len(classes))) / share, kind="stable")[:count]
        used[chosen] += 1
        allotted.append(tuple(classes[index] for index in chosen))
    return allotted


def draw_scene(rng: np.random.Generator, clip: str, labels: Sequence[str], world: WorldDescription) -> Scene:
    """Plan one clip in which ``labels`` sound; the draws from ``rng`` depend neither on asynchrony nor on gap."""
    duration, asynchrony, gap = world.clip.seconds, world.sights.asynchrony, world.sights.gap
    events = []
    for label in labels:
        onset, offset = _span(rng, world.classes[label].seconds, duration, log=True)
        events.append(SoundEvent(label, onset, offset, _uniform(rng, world.events.snr_db)))
    beds = tuple(
        Bed(kind, _uniform(rng, world.beds.level_db[kind]))
        for kind in _some(rng, tuple(world.beds.level_db), world.beds.count)
    )
    distractions = []
    for kind in _some(rng, DISTRACTIONS, world.distractions.count):
        onset, offset = _span(rng, world.distractions.seconds, duration, log=True)
        distractions.append(Distraction(kind, onset, offset, _uniform(rng, world.distractions.snr_db)))

    sights = []
    sounding = {event.label: event for event in events}
    for label, described in world.classes.items():
        event = sounding.get(label)
        visible = rng.random() < (described.visible if event else described.visible_silent)
        start, end = _span(rng, world.sights.seconds, duration)
        if event and gap is not None:
            start, end = moved(event.onset, event.offset, gap, duration)
        elif event and asynchrony is not None:
            start = event.onset + asynchrony * (start - event.onset)
            end = event.offset + asynchrony * (end - event.offset)
        thing = SIGHTS[label][rng.integers(len(SIGHTS[label]))]
        occlusion = _uniform(rng, world.sights.occlusion)
        if visible:
            sights.append(Sight(thing, label, start, end, occlusion))
    for thing in _some(rng, DISTRACTING, world.sights.distracting):
        start, end = _span(rng, world.sights.seconds, duration)
        sights.append(Sight(thing, None, start, end, _uniform(rng, world.sights.occlusion)))
    reverberation, seed = _uniform(rng, world.reverberation), int(rng.integers(2**31))
    return Scene(clip, duration, tuple(events), beds, tuple(distractions), tuple(sights), reverberation, seed)


def moved(onset: float, offset: float, gap: Gap, duration: float) -> tuple[float, float]:
    """Start and end (s) of the sight of what sounds from ``onset`` to ``offset`` (s), ``gap`` apart.

    The sound's span is moved to the side where the clip has more room, at most so far that ``LEAST_IN_VIEW`` is still
    in the clip. "never" is an empty span and not a missing sight: other sights are then drawn as if it were there.
    """
    if gap == "never":
        return onset, onset
    stays = min(offset - onset, LEAST_IN_VIEW)
    if duration - offset >= onset:  # more room later
        return min(onset + gap, duration - stays), min(offset + gap, duration)
    return max(onset - gap, 0.0), max(offset - gap, stays)


def _uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(rng.uniform(*bounds))


def _span(
    rng: np.random.Generator, seconds: tuple[float, float], duration: float, log: bool = False
) -> tuple[float, float]:
    """Start and end within 0..duration; lengths log-uniform where short ones are as usual as long ones."""
    length = float(np.exp(rng.uniform(*np.log(seconds)))) if log else _uniform(rng, seconds)
    length = min(length, duration)  # exp(log(10)) may exceed 10 by a rounding
    start = float(rng.uniform(0.0, duration - length))
    return start, min(start + length, duration)


def _some(rng: np.random.Generator, kinds: tuple[str, ...], shares: tuple[float, ...]) -> list[str]:
    """Different kinds, as many as ``shares`` (of clips with 0, 1, 2, ...) says."""
    return [kinds[index] for index in rng.permutation(len(kinds))[: rng.choice(len(shares), p=shares)]]
