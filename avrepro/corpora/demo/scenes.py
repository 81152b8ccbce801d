"""What happens in the clips of the demo world: plans of sounds and sights, drawn from its description."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from avrepro.corpora.base import CorpusError
from avrepro.corpora.demo.description import WorldDescription

Gap = float | Literal["never"]  # s between a sound and the sight of its source; "never": it is not seen at all
LEAST_IN_VIEW = 1.0  # s of a sight that no gap moves out of the clip (all of a shorter one)


@dataclass(frozen=True)
class SoundEvent:
    """One of the 17 classes sounding from ``onset`` to ``offset`` (s)."""

    label: str
    onset: float
    offset: float
    snr_db: float  # level against the background, dB


@dataclass(frozen=True)
class Bed:
    """Background sound that lasts the whole clip."""

    kind: str
    level_db: float


@dataclass(frozen=True)
class Distraction:
    """A sound outside the 17 classes, from ``onset`` to ``offset`` (s)."""

    kind: str
    onset: float
    offset: float
    snr_db: float


@dataclass(frozen=True)
class Sight:
    """One drawn thing, in view from ``start`` to ``end`` (s); never where they are equal."""

    object: str  # name in the drawn vocabulary, for example "fire engine"
    label: str | None  # sound class whose source it is; None for distracting objects
    start: float
    end: float
    occlusion: float  # share of it hidden at most, 0..1


@dataclass(frozen=True)
class Scene:
    """Everything that is heard and seen in one clip; rendering adds nothing but ``seed``'s details."""

    clip: str
    duration: float  # s
    events: tuple[SoundEvent, ...]
    beds: tuple[Bed, ...]
    distractions: tuple[Distraction, ...]
    sights: tuple[Sight, ...]
    reverberation: float  # T60, s
    seed: int  # of the rendering's generator


@dataclass(frozen=True)
class Vocabulary:
    """What the renderers can make: the names a plan may use."""

    classes: tuple[str, ...]  # sound classes in DCASE 2017 Task 4's order
    beds: tuple[str, ...]
    distractions: tuple[str, ...]
    sights: Mapping[str, tuple[str, ...]]  # sound class -> objects that show its source
    objects: tuple[str, ...]  # objects that show no class's source


def vocabulary() -> Vocabulary:
    """The names that sounds.py and pictures.py can render."""
    from avrepro.corpora.demo import pictures, sounds  # they import this module's dataclasses

    sources = {name for names in pictures.SIGHTS.values() for name in names}
    return Vocabulary(
        classes=tuple(sounds.SOUND_CLASSES),
        beds=tuple(sounds.BEDS),
        distractions=tuple(sounds.DISTRACTIONS),
        sights={label: tuple(names) for label, names in pictures.SIGHTS.items()},
        objects=tuple(name for name in pictures.OBJECTS if name not in sources),
    )


def choose(
    world: WorldDescription, profile: str, seed: int | None, asynchrony: float | None, gap: Gap | None
) -> tuple[int, float | None, Gap | None]:
    """Seed, asynchrony and gap; of the last two exactly one is not None.

    The description's seed where None, and its asynchrony where both are None. CorpusError for what the world
    does not have.
    """
    if profile not in world.profiles:
        raise CorpusError(f"the demo world has no profile {profile!r}, it has {', '.join(world.profiles)}")
    seed = world.seed if seed is None else seed
    if seed < 0:
        raise CorpusError(f"a seed is 0 or more, found {seed!r}")
    if gap is not None:
        if asynchrony is not None:
            raise CorpusError(f"give asynchrony or gap, not both; found asynchrony {asynchrony!r} and gap {gap!r}")
        if gap == "never":
            return seed, None, gap
        if isinstance(gap, str) or not 0.0 <= gap < math.inf:
            raise CorpusError(f"a gap is 0 or more seconds, or 'never'; found {gap!r}")
        return seed, None, float(gap)
    asynchrony = world.sights.asynchrony if asynchrony is None else float(asynchrony)
    if not 0.0 <= asynchrony <= 1.0:
        raise CorpusError(f"asynchrony goes from 0 (together) to 1 (independent), found {asynchrony!r}")
    return seed, asynchrony, None


def draw_scenes(
    world: WorldDescription,
    profile: str,
    seed: int | None = None,
    asynchrony: float | None = None,
    gap: Gap | None = None,
    names: Vocabulary | None = None,
) -> tuple[dict[str, list[Scene]], dict[str, tuple[str, ...]]]:
    """Plan every clip of a profile: split -> scenes, and clip -> weak labels.

    ``seed`` and ``asynchrony`` (0..1) are the description's unless given; ``names`` is what can be rendered.
    ``gap`` takes the place of asynchrony: a source that is in view is seen for its sound's own span moved by that
    many seconds (0 or more) to the side where the clip has more room, but at most so far that the first or last
    second of it (all of a shorter one) is still in the clip; or "never". Another asynchrony or gap changes when,
    or whether, sources of sounding events are seen and nothing else.
    Weak labels are the classes that sound (not those only seen), in the classes' order; a stated share of
    training labels is missing. Raises CorpusError if profile, description and renderers do not fit.
    """
    seed, asynchrony, gap = choose(world, profile, seed, asynchrony, gap)
    names = names or vocabulary()
    _check(world, names)

    scenes: dict[str, list[Scene]] = {}
    weak_labels: dict[str, tuple[str, ...]] = {}
    for number, (split, clips) in enumerate(world.profiles[profile]):
        training = split == "train"
        # Generator 0 of a split says which classes sound in which clip, generator k + 1 draws clip k.
        allotting = np.random.default_rng([seed, number, 0])
        sounding = allot_classes(allotting, world, clips, balanced=not training)
        scenes[split] = []
        for index, labels in enumerate(sounding):
            rng = np.random.default_rng([seed, number, index + 1])
            scene = draw_scene(rng, f"{split}-{index:04d}", labels, world, asynchrony, gap, names)
            told = rng.random(len(labels)) >= (world.events.missing_labels if training else 0.0)
            kept = {label for label, is_told in zip(labels, told, strict=True) if is_told}
            scenes[split].append(scene)
            weak_labels[scene.clip] = tuple(name for name in names.classes if name in kept)
    return scenes, weak_labels


def allot_classes(
    rng: np.random.Generator, world: WorldDescription, clips: int, balanced: bool
) -> list[tuple[str, ...]]:
    """Which classes sound in each of ``clips`` clips, all different within a clip.

    As many clips with 0, 1, 2, 3 events as their shares say, in random order. Each clip takes the classes
    that lie furthest behind their own share, chance deciding between equals: balanced counts differ by at
    most 1, unbalanced ones follow the geometric law closely in small splits too.
    """
    classes = list(world.classes)
    share = np.ones(len(classes))
    if not balanced:
        share = world.events.imbalance ** -np.linspace(0.0, 1.0, len(classes))
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


def draw_scene(
    rng: np.random.Generator,
    clip: str,
    labels: Sequence[str],
    world: WorldDescription,
    asynchrony: float | None,
    gap: Gap | None,
    names: Vocabulary,
) -> Scene:
    """Plan one clip in which ``labels`` sound; the draws from ``rng`` depend neither on asynchrony nor on gap."""
    duration = world.clip.seconds
    events = []
    for label in labels:
        onset, offset = _span(rng, world.classes[label].seconds, duration, log=True)
        events.append(SoundEvent(label, onset, offset, _uniform(rng, world.events.snr_db)))
    beds = tuple(
        Bed(kind, _uniform(rng, world.beds.level_db[kind]))
        for kind in _some(rng, tuple(world.beds.level_db), world.beds.count)
    )
    distractions = []
    for kind in _some(rng, names.distractions, world.distractions.count):
        onset, offset = _span(rng, world.distractions.seconds, duration, log=True)
        distractions.append(Distraction(kind, onset, offset, _uniform(rng, world.distractions.snr_db)))

    sights = []
    sounding = {event.label: event for event in events}
    for label, described in world.classes.items():
        event = sounding.get(label)
        seen = rng.random() < (described.visible if event else described.visible_silent)
        start, end = _span(rng, world.sights.seconds, duration)
        if event and asynchrony is not None:
            start = event.onset + asynchrony * (start - event.onset)
            end = event.offset + asynchrony * (end - event.offset)
        elif event and gap is not None:
            start, end = moved(event.onset, event.offset, gap, duration)
        thing = names.sights[label][rng.integers(len(names.sights[label]))]
        occlusion = _uniform(rng, world.sights.occlusion)
        if seen:
            sights.append(Sight(thing, label, start, end, occlusion))
    for thing in _some(rng, names.objects, world.sights.distracting):
        start, end = _span(rng, world.sights.seconds, duration)
        sights.append(Sight(thing, None, start, end, _uniform(rng, world.sights.occlusion)))
    return Scene(
        clip=clip,
        duration=duration,
        events=tuple(events),
        beds=beds,
        distractions=tuple(distractions),
        sights=tuple(sights),
        reverberation=_uniform(rng, world.reverberation),
        seed=int(rng.integers(2**31)),
    )


def moved(onset: float, offset: float, gap: Gap, duration: float) -> tuple[float, float]:
    """Start and end (s) of the sight of what sounds from ``onset`` to ``offset`` (s) of a clip, as far apart as told.

    "never" is an empty span and not a missing sight: other sights are then drawn as if it were there.
    """
    if gap == "never":
        return onset, onset
    kept = min(offset - onset, LEAST_IN_VIEW)
    if duration - offset >= onset:  # more room later
        return min(onset + gap, duration - kept), min(offset + gap, duration)
    return max(onset - gap, 0.0), max(offset - gap, kept)


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


def _check(world: WorldDescription, names: Vocabulary) -> None:
    """Stop where the plan would use what is not described or cannot be rendered."""
    if odd := set(names.classes) ^ set(world.classes):
        raise CorpusError(f"classes either described or rendered, not both: {sorted(odd)}")
    if odd := set(world.beds.level_db) - set(names.beds):
        raise CorpusError(f"beds that cannot be rendered: {sorted(odd)}; there are {', '.join(names.beds)}")
    if unseen := [label for label in world.classes if not names.sights.get(label)]:
        raise CorpusError(f"classes whose source no drawn object shows: {unseen}")
