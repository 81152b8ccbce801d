"""The demo world's description, read strictly from data_manifests/demo_world.yaml."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from avrepro.corpora.base import CorpusError
from avrepro.manifests import manifest_path


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


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ClipFormat(_Strict):
    seconds: float = Field(gt=0.0)
    frames_per_second: int = Field(gt=0)
    size: tuple[int, int]  # height, width in pixels
    sample_rate: int = Field(gt=0)  # Hz


class Sizes(_Strict):
    train: int = Field(ge=2)
    validation: int = Field(ge=2)
    test: int = Field(ge=2)  # two at least: demo-null swaps pictures within a split


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
    asynchrony: Probability
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


def load_world_description(path: Path | None = None) -> WorldDescription:
    """Read the description at ``path`` (the project's own demo_world.yaml unless given).

    Raises CorpusError naming each key that is unknown, missing, or of a wrong type or value.
    """
    path = path or manifest_path("demo_world.yaml")
    try:
        told = yaml.safe_load(path.read_text("utf-8"))
        # By way of JSON, whose arrays may become tuples while numbers and texts stay strict.
        world = WorldDescription.model_validate_json(json.dumps(told))
    except yaml.YAMLError as error:
        raise CorpusError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}, found {e['input']!r:.80}" for e in error.errors()]
    else:
        wrong = _misfits(world)
        if not wrong:
            return world
    raise CorpusError("\n  ".join([f"{path} does not describe a demo world:", *wrong]))


def _misfits(world: WorldDescription) -> list[str]:
    """What no single key can say: everything fits into a clip, and there are kinds enough."""
    longest = world.clip.seconds
    spans = {f"classes.{name}.seconds": one.seconds for name, one in world.classes.items()}
    spans |= {"distractions.seconds": world.distractions.seconds, "sights.seconds": world.sights.seconds}
    wrong = [
        f"{key}: {span[1]:g} s does not fit into {longest:g} s" for key, span in spans.items() if span[1] > longest
    ]
    for key, shares, kinds in (
        ("events.count", world.events.count, len(world.classes)),
        ("beds.count", world.beds.count, len(world.beds.level_db)),
    ):
        if len(shares) - 1 > kinds:
            wrong.append(f"{key}: up to {len(shares) - 1} different ones of {kinds}")
    return wrong
