"""What happens in one clip of the demo world: what ``planning`` draws, and ``sounds`` and ``pictures`` render."""

from __future__ import annotations

from dataclasses import dataclass


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
    level_db: float  # only differences between beds matter


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
    """Everything that sounds and shows in one clip; rendering adds nothing but ``seed``'s details."""

    clip: str
    duration: float  # s
    events: tuple[SoundEvent, ...]
    beds: tuple[Bed, ...]
    distractions: tuple[Distraction, ...]
    sights: tuple[Sight, ...]
    reverberation: float  # T60, s
    seed: int  # of the rendering's generator
