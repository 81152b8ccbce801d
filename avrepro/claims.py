"""What the three papers claim, as quantities that can be measured, and the rule by which a measurement decides.

The claims and the rule are data: ``data_manifests/claims.yaml``, whose head says what each kind of quantity is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from avrepro import digests
from avrepro.corpora.dcase2017 import CLASSES
from avrepro.evaluation.intervals import Interval
from avrepro.manifests import manifest_path
from avrepro.parameters import nearest

CHAPTER_OF = {"li2017": "lightweight_fusion", "parekh2018": "unsynchronized_mil", "fayek2020": "attention_fusion"}
OF_CLASSES = ("class_f1", "average_precision")  # metrics that each class has its own of

# What can be compared: paper -> name -> what it is. Elsewhere a system is called paper/name.
SYSTEMS: dict[str, dict[str, str]] = {
    "li2017": {
        "audio": "convolutional recurrent network on log-mel spectra",
        "video": "objects in key frames chosen by DS3, mapped to classes by word vectors",
        "fused": "audio and video, weighted 0.8 and 0.2 by which is better on a class",
        "fused_tuned": "audio and video, weights tuned on validation clips",
        "video_even": "video with evenly spaced frames",
        "video_kmeans": "video with key frames chosen by k-means",
        "audio_half": "audio with the threshold 0.5 for all classes",
        "audio_single": "audio with one threshold for all classes, tuned on validation clips",
        "fused_half": "fused with the threshold 0.5 for all classes",
        "fused_single": "fused with one threshold for all classes, tuned on validation clips",
    },
    "parekh2018": {
        "two_stream": "classification and localisation streams on regions and segments",
        "audio_only": "two streams on segments of sound alone",
        "video_only": "two streams on regions of pictures alone",
        "wsddn": "two streams on regions, with a softmax over classes as in WSDDN",
        "one_stream": "classification stream with a soft maximum, on regions and segments",
        "synchronous": "two streams on seconds seen and heard together (ours)",
        "two_stream_without_l2": "two streams whose scores are added without l2 normalisation",
        "cvssp_gated_crnn": "gated convolutional recurrent network on log-mel spectra",
        "cvssp_fusion": "mean of several gated convolutional recurrent networks",
    },
    "fayek2020": {
        "audio": "convolutional network on log-mel spectra, with sequential co-supervision",
        "audio_first_generation": "the same network without co-supervision",
        "visual": "fully connected network on the mean features of frames",
        "average": "mean of audio and visual",
        "regression": "logistic regression of audio and visual",
        "mlp": "network with one hidden layer on audio and visual",
        "attention": "attention weights of each clip and class, from both modalities",
        "attention_self": "attention of each modality from itself",
        "attention_cross": "attention of each modality from the other",
        "attention_without_na_nv": "attention without the networks n_a and n_v",
        "attention_without_nav": "attention without the network n_av",
        "attention_class_weights": "attention whose weights were replaced after training by their means of each class",
        "resnet_audio": "residual network on sound (Ford et al. 2019)",
        "r2plus1d_visual": "R(2+1)D network on moving pictures (Wang et al. 2019)",
        "gblend": "one network of sound and pictures, trained by gradient blending (Wang et al. 2019)",
    },
    "beyond": {
        "bottleneck": "transformer with attention bottlenecks on segments and regions",
        "union": "the three papers' best ideas together",
        "union_without_words": "the same without word vectors for rare classes",
    },
}


class ClaimError(ValueError):
    """A registry that is wrong: names the claim and says what was expected."""


class NullWorldError(RuntimeError):
    """Where pictures tell nothing of sounds, a claim that looking helps is not refuted."""


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
    paper: Literal["li2017", "parekh2018", "fayek2020"]
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
    vision_helps: bool
    chapter: str

    @model_validator(mode="after")
    def is_consistent(self) -> Claim:
        if self.chapter != CHAPTER_OF[self.paper]:
            raise ValueError(f"chapter: expected {CHAPTER_OF[self.paper]!r}, found {self.chapter!r}")
        known = [f"{paper}/{name}" for paper, names in SYSTEMS.items() for name in names]
        for key, system in (("system", self.system), ("against", self.against)):
            if system not in known:
                raise ValueError(f"{key}: unknown system {system!r}{nearest(system, known)}")
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
        return self


def load_claims(path: Path | None = None) -> tuple[Rule, dict[str, Claim]]:
    """The rule of verdicts and every claim by its id, in the registry's order.

    :param path: another registry than ``data_manifests/claims.yaml``.
    :raises ClaimError: names every mistake: the claim, the key, what was expected and what was found.
    """
    path = path or manifest_path("claims.yaml")
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ClaimError(f"{path}: {error}") from error
    if not isinstance(told, dict) or set(told) != {"rule", "claims"} or not isinstance(told["claims"], dict):
        raise ClaimError(f"{path}: expected rule and claims, claims being a mapping of ids to entries")
    mistakes: list[str] = []
    rule = _read(Rule, "rule", told["rule"], mistakes)
    claims = {}
    for name, entry in told["claims"].items():
        if not isinstance(entry, dict) or "id" in entry:
            mistakes.append(f"{name}: expected a mapping of the claim's keys; its id is {name!r} and no key of it")
        elif claim := _read(Claim, str(name), entry | {"id": name}, mistakes):
            claims[claim.id] = claim
    if mistakes or rule is None:
        raise ClaimError(f"{path}:\n" + "\n".join(f"  - {line}" for line in mistakes))
    return rule, claims


def quantities(claims: Mapping[str, Claim]) -> str:
    """Digest of what is measured of all claims: a committed difference is one of the claims that had it."""
    words = {"paper", "sentence", "where", "published", "vision_helps", "chapter"}
    return digests.of_values({name: claim.model_dump(mode="json", exclude=words) for name, claim in claims.items()})


def verdict(interval: Interval | None, rule: Rule) -> str:
    """``holds``, ``does not hold``, ``undecided`` or ``not measured``.

    :param interval: of the claim's quantity, a fraction; None or a value that is NaN: there is no number. One with
        a value and no bounds (of a single seed, say) decides nothing.
    """
    if interval is None or math.isnan(interval.value):
        return "not measured"
    if math.isnan(interval.low) or math.isnan(interval.high):
        return "undecided"
    if interval.low > 0:
        return "holds"
    return "does not hold" if interval.high < rule.margin else "undecided"


def published_text(claim: Claim) -> str:
    """What the paper prints, for a cell of a table: ``5.3 points of micro F1 (DCASE 2017 ...)`` or its words."""
    told = claim.published
    if told.value is None:
        return f"“{told.words}”"
    return f"{told.value:g} {told.unit} ({told.data})"


def check_null(differences: Mapping[str, Interval], claims: Mapping[str, Claim], rule: Rule) -> None:
    """Stop unless every claim that looking helps is refuted where pictures tell nothing of sounds.

    :param differences: claim id -> interval of its quantity on ``demo-null``.
    :raises NullWorldError: names each claim whose verdict is not ``does not hold``, by verdict.
    """
    meaning = {
        "holds": "hold where they cannot; sounds or labels reach the systems by way of the pictures",
        "undecided": "are undecided; their intervals reach the margin, so more clips or seeds are needed",
        "not measured": "are not measured",
    }
    found: dict[str, list[str]] = {said: [] for said in meaning}
    for name, claim in claims.items():
        interval = differences.get(name)
        said = verdict(interval, rule)
        if claim.vision_helps and said in found:
            bounds = f" [{interval.low:+.3f}, {interval.high:+.3f}]" if interval else ""
            found[said].append(name + bounds)
    if any(found.values()):
        lines = [f"  - {words}: {', '.join(found[said])}" for said, words in meaning.items() if found[said]]
        raise NullWorldError("claims that looking helps, where pictures tell nothing of sounds:\n" + "\n".join(lines))


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
