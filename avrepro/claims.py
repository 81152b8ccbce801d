"""What the three papers claim, as quantities that can be measured, and the rule by which a measurement decides.

The claims and the rule are data: ``data_manifests/claims.yaml``, whose head says what each kind of quantity is, and
what is asked of a claim on the control.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from avrepro.corpora.dcase2017 import CLASSES
from avrepro.evaluation import Interval, bonferroni_level
from avrepro.manifests import manifest_path
from avrepro.parameters import mistakes, nearest

CHAPTER_OF = {"li2017": "lightweight_fusion", "parekh2018": "unsynchronized_mil", "fayek2020": "attention_fusion"}
OF_CLASSES = ("class_f1", "average_precision")  # metrics that each class has its own of
REFUTED = "does not hold"


class ClaimError(ValueError):
    """A registry that is wrong: names the claim and what was expected."""


class NullWorldError(RuntimeError):
    """On the control, pictures that are independent of the labels seem to help."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Rule(_Strict):
    """How an interval becomes a verdict; written before the numbers."""

    words: str
    margin: float = Field(gt=0, lt=1)  # the smallest quantity that counts, a fraction
    level: float = Field(gt=0, lt=1)  # of the interval
    resamples: int = Field(ge=1)
    seeds: int = Field(ge=2)  # at least
    fusion_seeds: int = Field(ge=2)  # at least, of the fusions of fayek2020


class Where(_Strict):
    """Where a paper makes a claim; pages as in ``data_manifests/published``."""

    section: str
    page: int = Field(ge=1)


class Published(_Strict):
    """What a paper prints: a number with its unit and data, or words."""

    value: float | None = Field(default=None, gt=0)
    unit: str = ""
    data: str = ""
    words: str = ""

    @model_validator(mode="after")
    def is_number_or_words(self) -> Published:
        given = [name for name, value in self if value]
        if given not in (["value", "unit", "data"], ["words"]):
            raise ValueError(f"expected value, unit and data together, or words alone, found {given}")
        return self


class Claim(_Strict):
    """One claim: that a quantity is greater than 0. Classes are empty where all are meant."""

    id: str = ""  # its name in the registry
    sentence: str
    where: Where
    published: Published
    kind: Literal["difference", "contrast", "count"]
    system: str
    against: str
    metric: Literal["micro_f1", "map", "mauc", "class_f1", "average_precision"]
    classes: tuple[str, ...] = Field(default=(), strict=False)
    other_classes: tuple[str, ...] = Field(default=(), strict=False)
    expected: float | None = Field(default=None, ge=0, lt=1)
    pictures: Literal["help", "differ"] | None = None  # what is asked on the control

    @property
    def paper(self) -> str:
        return self.system.partition("/")[0]

    @property
    def chapter(self) -> str:
        return CHAPTER_OF[self.paper]

    @model_validator(mode="after")
    def is_consistent(self) -> Claim:
        is_count, is_contrast = self.kind == "count", self.kind == "contrast"
        if self.system == self.against or self.paper != self.against.partition("/")[0]:
            raise ValueError(f"against: expected another system of {self.paper}, found {self.against!r}")
        if bool(self.other_classes) != is_contrast or (is_contrast and not self.classes) or (is_count and self.classes):
            raise ValueError("classes: a contrast has classes and other_classes, a difference may have classes alone")
        if (self.classes or is_count) and self.metric not in OF_CLASSES:
            raise ValueError(f"metric: classes or a count need one of {', '.join(OF_CLASSES)}, found {self.metric!r}")
        if (self.expected is not None) != is_count:
            raise ValueError("expected: a count has a share that is expected, no other kind has")
        return self


class _Registry(_Strict):
    rule: Rule
    claims: dict[str, Claim]


def load_claims(path: Path | None = None) -> tuple[Rule, dict[str, Claim]]:
    """The rule of verdicts and every claim by its id, in the registry's order.

    :param path: another registry than ``data_manifests/claims.yaml``.
    :raises ClaimError: names every mistake: the claim, the key, what was expected and what was found.
    """
    from avrepro.systems import SYSTEMS  # slow to import

    path = path or manifest_path("claims.yaml")
    try:
        registry = _Registry.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ClaimError(f"{path}: {error}") from error
    except ValidationError as error:
        known = [name for model in (Rule, Claim, Where, Published) for name in model.model_fields]
        raise ClaimError(f"{path}:\n{mistakes(error, known)}") from None
    claims = {name: claim.model_copy(update={"id": name}) for name, claim in registry.claims.items()}
    for name, claim in claims.items():
        systems, classes = (claim.system, claim.against), claim.classes + claim.other_classes
        for one, known in [*((one, [*SYSTEMS]) for one in systems), *((one, [*CLASSES]) for one in classes)]:
            if one not in known:
                raise ClaimError(f"{path}: {name}: unknown {one!r}{nearest(one, known)}")
    return registry.rule, claims


def verdict(interval: Interval | None, rule: Rule) -> str:
    """``holds``, ``does not hold``, ``undecided`` or ``not measured``.

    :param interval: of the claim's quantity, a fraction; None or a value that is NaN: there is no number. One with
        a value and no bounds (of a single split, say) decides nothing.
    """
    if interval is None or math.isnan(interval.value):
        return "not measured"
    if math.isnan(interval.low) or math.isnan(interval.high):
        return "undecided"
    if interval.low > 0:
        return "holds"
    return REFUTED if interval.high < rule.margin else "undecided"


def published_text(claim: Claim) -> str:
    """What the paper prints, for a cell of a table: ``5.3 points of micro F1 (DCASE 2017 ...)`` or its words."""
    published = claim.published
    return f"“{published.words}”" if published.words else f"{published.value:g} {published.unit} ({published.data})"


def control_level(claims: Mapping[str, Claim], rule: Rule) -> float:
    """Level of the intervals by which claims hold on the control, corrected for how many may not hold there."""
    return bonferroni_level(rule.level, sum(claim.pictures is not None for claim in claims.values()))


def check_null(
    intervals: Mapping[str, Interval], corrected: Mapping[str, Interval], claims: Mapping[str, Claim], rule: Rule
) -> tuple[str, ...]:
    """Stop unless pictures that are independent of the labels help no system, as ``claims.yaml`` asks of the control.

    :param intervals: claim id -> interval of its quantity on the control, at the rule's level; what was measured.
    :param corrected: the same at :func:`control_level`, at least of the claims with ``pictures``.
    :returns: claims with ``pictures: differ`` that hold at the rule's level alone, to be shown as held by chance.
    :raises NullWorldError: names each claim with ``pictures`` that holds at the corrected level, and each with
        ``pictures: help`` that is not refuted at the rule's level, with its verdict.
    """
    asked = {name: claim.pictures for name, claim in claims.items() if claim.pictures}
    if lacking := [name for name in asked if name in intervals and name not in corrected]:
        raise ValueError(f"corrected: expected intervals at level {control_level(claims, rule):.5f} of {lacking}")
    verdicts = {name: verdict(intervals.get(name), rule) for name in asked}
    holding = [name for name in asked if verdict(corrected.get(name), rule) == "holds"]
    unrefuted = [name for name in asked if asked[name] == "help" and verdicts[name] != REFUTED]
    lines = [f"{name} holds {_bounds(corrected[name])}; labels reach its system by the pictures" for name in holding]
    lines += [f"{name} has to be refuted: {verdicts[name]} {_bounds(intervals.get(name))}" for name in unrefuted]
    if lines:
        raise NullWorldError("\n  - ".join(["on the control, where pictures are independent of the labels:", *lines]))
    return tuple(name for name in asked if verdicts[name] == "holds")


def _bounds(interval: Interval | None) -> str:
    return f"[{interval.low:+.3f}, {interval.high:+.3f}]" if interval else ""
