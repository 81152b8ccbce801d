"""What the three papers claim, as quantities that can be measured, and the rule by which a measurement decides.

The claims and the rule are data: ``data_manifests/claims.yaml``, whose head says what each kind of quantity is, and
what is asked of a claim on the control.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from avrepro.corpora.dcase2017 import CLASSES
from avrepro.evaluation import Interval, bonferroni_level
from avrepro.manifests import manifest_path
from avrepro.parameters import nearest
from avrepro.recipes import digest

CHAPTER_OF = {"li2017": "lightweight_fusion", "parekh2018": "unsynchronized_mil", "fayek2020": "attention_fusion"}
OF_CLASSES = ("class_f1", "average_precision")  # metrics that each class has its own of
REFUTED = "does not hold"


class ClaimError(ValueError):
    """A registry that is wrong: names the claim and what was expected."""


class NullWorldError(RuntimeError):
    """On the control, pictures that are independent of the labels seem to help."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


Model = TypeVar("Model", bound=_Strict)


class Rule(_Strict):
    """How an interval becomes a verdict; written before the numbers."""

    words: str = Field(min_length=1)
    margin: float = Field(gt=0, lt=1)  # the smallest quantity that counts, a fraction
    level: float = Field(gt=0, lt=1)  # of the interval
    resamples: int = Field(ge=1)
    seeds: int = Field(ge=2)  # at least
    fusion_seeds: int = Field(ge=2)  # at least, of the fusions of fayek2020


class Where(_Strict):
    """Where a paper makes a claim; pages as in ``data_manifests/published``."""

    section: str = Field(min_length=1)
    page: int = Field(ge=1)


class Published(_Strict):
    """What a paper prints: a number with its unit and data, or words."""

    value: float | None = Field(default=None, gt=0)
    unit: str = ""
    data: str = ""
    words: str = ""

    @model_validator(mode="after")
    def number_or_words(self) -> Published:
        given = [self.value is not None, bool(self.unit), bool(self.data), bool(self.words)]
        if given not in ([True, True, True, False], [False, False, False, True]):
            raise ValueError("expected value, unit and data together, or words alone")
        return self


class Claim(_Strict):
    """One claim: that a quantity is greater than 0. Classes are empty where all are meant."""

    id: str = Field(pattern="^[a-z0-9_]+$")
    sentence: str = Field(min_length=1)
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
        if {self.id.partition("_")[0], self.against.partition("/")[0]} != {self.paper} or self.paper not in CHAPTER_OF:
            raise ValueError(f"system: expected id, system and against of one of the papers {', '.join(CHAPTER_OF)}")
        if self.system == self.against:
            raise ValueError(f"against: expected another system than {self.system!r}")
        named = self.classes + self.other_classes
        for name in named:
            if name not in CLASSES:
                raise ValueError(f"classes: unknown class {name!r}{nearest(name, list(CLASSES))}")
        if len(set(named)) < len(named):
            raise ValueError("classes: expected each class once in classes and other_classes together")
        if self.metric not in OF_CLASSES and (named or self.kind == "count"):
            raise ValueError(f"metric: classes or a count need one of {', '.join(OF_CLASSES)}, found {self.metric!r}")
        needed = {"difference": bool(self.classes), "contrast": True, "count": False}[self.kind]
        if bool(self.classes) != needed or bool(self.other_classes) != (self.kind == "contrast"):
            raise ValueError("classes: a contrast has classes and other_classes, a difference may have classes alone")
        if (self.expected is not None) != (self.kind == "count"):
            raise ValueError("expected: a count has a share that is expected, no other kind has")
        if self.kind == "contrast" and self.pictures == "help":
            raise ValueError("pictures: a contrast says where pictures help, not that they do")
        return self


def load_claims(path: Path | None = None, known: Collection[str] | None = None) -> tuple[Rule, dict[str, Claim]]:
    """The rule of verdicts and every claim by its id, in the registry's order.

    :param path: another registry than ``data_manifests/claims.yaml``.
    :param known: names of the systems that can be compared; by default those of :mod:`avrepro.systems`.
    :raises ClaimError: names every mistake: the claim, the key, what was expected and what was found.
    """
    if known is None:
        from avrepro.systems import SYSTEMS  # slow to import

        known = SYSTEMS
    path, mistakes = path or manifest_path("claims.yaml"), list[str]()
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ClaimError(f"{path}: {error}") from error
    if not isinstance(found, dict) or set(found) != {"rule", "claims"} or not isinstance(found["claims"], dict):
        raise ClaimError(f"{path}: expected rule and claims, claims being a mapping of ids to entries")
    rule, claims = _read(Rule, "rule", found["rule"], mistakes), {}
    for name, entry in found["claims"].items():
        if not isinstance(entry, dict) or "id" in entry:
            mistakes.append(f"{name}: expected a mapping of the claim's keys; its id is {name!r} and no key of it")
        elif claim := _read(Claim, str(name), entry | {"id": name}, mistakes):
            claims[claim.id] = claim
            unknown = {claim.system, claim.against} - set(known)
            mistakes += [f"{name}: unknown system {system!r}{nearest(system, list(known))}" for system in unknown]
    if mistakes or rule is None:
        raise ClaimError(f"{path}:\n" + "\n".join(f"  - {line}" for line in mistakes))
    return rule, claims


def quantities(claims: Mapping[str, Claim]) -> str:
    """Digest of what is measured of all claims: a committed difference is one of the claims that had it."""
    words = {"sentence", "where", "published", "pictures"}
    return digest({name: claim.model_dump(mode="json", exclude=words) for name, claim in claims.items()})


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


def _read(model: type[Model], name: str, entry: Any, mistakes: list[str]) -> Model | None:
    try:
        return model.model_validate(entry)
    except ValidationError as error:
        mistakes += [f"{name}: {_mistake(problem, list(model.model_fields))}" for problem in error.errors()]
        return None


def _mistake(problem: Any, known: list[str]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"expected {key}, which is missing"
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}{nearest(key, known) if len(problem['loc']) == 1 else ''}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message}, found {problem['input']!r}" if key else message
