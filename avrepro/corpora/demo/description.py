"""The demo world's description, read strictly from data_manifests/demo_world.yaml, and its dials."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from avrepro.corpora.base import CorpusError
from avrepro.manifests import manifest_path

Gap = float | Literal["never"]  # s between a sound and the sight of its source; "never": it is not seen at all


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("a range goes from low to high")
    return bounds


def _adds_to_one(shares: tuple[float, ...]) -> tuple[float, ...]:
    if not math.isclose(sum(shares), 1.0):
        raise ValueError("shares must add up to 1")
    return shares


Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Range = Annotated[tuple[float, float], AfterValidator(_rising)]
Shares = Annotated[tuple[Probability, ...], AfterValidator(_adds_to_one)]  # of clips with 0, 1, 2, ...


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ClipFormat(_Strict):
    seconds: float
    frames_per_second: int
    size: tuple[int, int]  # height, width in pixels
    sample_rate: int  # Hz


class Sizes(_Strict):
    train: int
    validation: int
    test: int


class Events(_Strict):
    count: Shares
    snr_db: Range
    imbalance: float
    missing_labels: Probability


class SoundClass(_Strict):
    seconds: Range
    visible: Probability
    visible_silent: Probability


class Beds(_Strict):
    count: Shares
    level_db: dict[str, Range]


class Distractions(_Strict):
    count: Shares
    seconds: Range
    snr_db: Range


class Sights(_Strict):
    asynchrony: Probability | None
    gap: Gap | None = None  # takes the place of asynchrony, see planning.moved
    seconds: Range
    occlusion: Range
    distracting: Shares


class WorldDescription(_Strict):
    """The whole world; the meaning and reason of each number stand beside it in demo_world.yaml."""

    seed: int = Field(ge=0)
    clip: ClipFormat
    profiles: dict[str, Sizes]
    events: Events
    classes: dict[str, SoundClass]  # commonest in training first
    beds: Beds
    distractions: Distractions
    reverberation: Range
    sights: Sights

    def chosen(
        self, profile: str, seed: int | None = None, asynchrony: float | None = None, gap: Gap | None = None
    ) -> WorldDescription:
        """The world of one profile, with another seed, asynchrony (0..1) or gap (s, 0 or more) where they are not None.

        Raises CorpusError for what the world does not have.
        """
        if profile not in self.profiles:
            raise CorpusError(f"the demo world has no profile {profile!r}, it has {', '.join(self.profiles)}")
        if asynchrony is not None and gap is not None:
            raise CorpusError(f"give asynchrony or gap, not both; found asynchrony {asynchrony!r} and gap {gap!r}")
        if asynchrony is not None and not 0.0 <= asynchrony <= 1.0:
            raise CorpusError(f"asynchrony goes from 0 (together) to 1 (independent), found {asynchrony!r}")
        if gap not in (None, "never") and (isinstance(gap, str) or not 0.0 <= gap < math.inf):
            raise CorpusError(f"a gap is 0 or more seconds, or 'never'; found {gap!r}")
        sights = self.sights
        if asynchrony is not None:
            sights = sights.model_copy(update={"asynchrony": float(asynchrony), "gap": None})
        elif gap is not None:
            sights = sights.model_copy(update={"asynchrony": None, "gap": gap if gap == "never" else float(gap)})
        profiles = {profile: self.profiles[profile]}
        chosen_seed = self.seed if seed is None else seed
        return self.model_copy(update={"profiles": profiles, "seed": chosen_seed, "sights": sights})


@cache  # every recipe asks for it
def load_world_description(path: Path | None = None) -> WorldDescription:
    """Read the description at ``path`` (the project's own unless given); CorpusError names each wrong key."""
    path = path or manifest_path("demo_world.yaml")
    try:
        # By way of JSON, whose arrays may become tuples while numbers and texts stay strict.
        return WorldDescription.model_validate_json(json.dumps(yaml.safe_load(path.read_text("utf-8"))))
    except ValidationError as error:
        raise CorpusError(f"{path} does not describe a demo world: {error}") from error
