"""The demo world's description, read strictly from data_manifests/demo_world.yaml, and its dials."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from avrepro.corpora.base import CorpusError
from avrepro.manifests import manifest_path

Gap = float | Literal["never"]  # s between a sound and the sight of its source; "never": it is not seen at all


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"a range goes from low to high, found {list(bounds)}")
    return bounds


def _adds_to_one(shares: tuple[float, ...]) -> tuple[float, ...]:
    if not shares or not math.isclose(sum(shares), 1.0, abs_tol=1e-9):
        raise ValueError(f"shares must add up to 1, found {sum(shares):g}")
    return shares


Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Range = Annotated[tuple[float, float], AfterValidator(_rising)]
Positive = Annotated[float, Field(gt=0.0)]
Seconds = Annotated[tuple[Positive, Positive], AfterValidator(_rising)]
ProbabilityRange = Annotated[tuple[Probability, Probability], AfterValidator(_rising)]
Shares = Annotated[tuple[Probability, ...], AfterValidator(_adds_to_one)]  # of clips with 0, 1, 2, ...
Size = Annotated[int, Field(ge=2)]  # clips of a split: demo-null exchanges pictures within it


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ClipFormat(_Strict):
    seconds: Positive
    frames_per_second: int = Field(gt=0)
    size: tuple[int, int]  # height, width in pixels
    sample_rate: int = Field(gt=0)  # Hz


class Sizes(_Strict):
    train: Size
    validation: Size
    test: Size


class Events(_Strict):
    count: Shares
    snr_db: Range
    imbalance: float = Field(ge=1.0)
    missing_labels: Probability


class SoundClass(_Strict):
    seconds: Seconds
    visible: Probability
    visible_silent: Probability


class Beds(_Strict):
    count: Shares
    level_db: dict[str, Range]


class Distractions(_Strict):
    count: Shares
    seconds: Seconds
    snr_db: Range


class Sights(_Strict):
    asynchrony: Probability | None
    gap: Gap | None = None  # takes the place of asynchrony, see planning.draw_scenes
    seconds: Seconds
    occlusion: ProbabilityRange
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

    @model_validator(mode="after")
    def fits(self) -> WorldDescription:
        """Everything fits into a clip, and there are kinds enough."""
        spans = {f"classes.{name}.seconds": one.seconds for name, one in self.classes.items()}
        spans |= {"distractions.seconds": self.distractions.seconds, "sights.seconds": self.sights.seconds}
        for key, (_, longest) in spans.items():
            if longest > self.clip.seconds:
                raise ValueError(f"{key}: {longest:g} s does not fit into {self.clip.seconds:g} s")
        kinds = {"events": len(self.classes), "beds": len(self.beds.level_db)}
        for key, most in (("events", len(self.events.count) - 1), ("beds", len(self.beds.count) - 1)):
            if most > kinds[key]:
                raise ValueError(f"{key}.count: up to {most} different ones of {kinds[key]}")
        return self

    def chosen(self, profile: str, seed: int | None, asynchrony: float | None, gap: Gap | None) -> WorldDescription:
        """The world of one profile, with another seed, asynchrony or gap where they are not None.

        Raises CorpusError for what the world does not have.
        """
        if profile not in self.profiles:
            raise CorpusError(f"the demo world has no profile {profile!r}, it has {', '.join(self.profiles)}")
        if seed is not None and seed < 0:
            raise CorpusError(f"a seed is 0 or more, found {seed!r}")
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


def load_world_description(path: Path | None = None) -> WorldDescription:
    """Read the description at ``path`` (the project's own demo_world.yaml unless given).

    Raises CorpusError naming each key that is unknown, missing, or of a wrong type or value.
    """
    return _own_description() if path is None else _read_description(path)


@cache  # every recipe asks for it
def _own_description() -> WorldDescription:
    return _read_description(manifest_path("demo_world.yaml"))


def _read_description(path: Path) -> WorldDescription:
    try:
        # By way of JSON, whose arrays may become tuples while numbers and texts stay strict.
        return WorldDescription.model_validate_json(json.dumps(yaml.safe_load(path.read_text("utf-8"))))
    except yaml.YAMLError as error:
        raise CorpusError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}, found {e['input']!r:.80}" for e in error.errors()]
        raise CorpusError("\n  ".join([f"{path} does not describe a demo world:", *wrong])) from error
