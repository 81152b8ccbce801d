"""The registry of claims: complete, true to the papers' numbers, strict; the rule of verdicts; and the control."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from avrepro.claims import (
    CHAPTER_OF,
    Claim,
    ClaimError,
    NullWorldError,
    check_null,
    control_level,
    load_claims,
    verdict,
)
from avrepro.evaluation import Interval
from avrepro.manifests import manifest_path
from avrepro.systems import SYSTEMS

REGISTRY = manifest_path("claims.yaml")
ENTRIES: dict[str, Any] = yaml.safe_load(REGISTRY.read_text(encoding="utf-8"))
RULE, CLAIMS = load_claims()
PUBLISHED = {paper: yaml.safe_load(manifest_path(f"published/{paper}.yaml").read_text()) for paper in CHAPTER_OF}
CLASSES: dict[str, dict[str, Any]] = PUBLISHED["parekh2018"]["table2"]["classes"]
KINDS = {kind: {name for name, row in CLASSES.items() if row["kind"] == kind} for kind in ("vehicle", "warning")}


def interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, "made")


def test_the_rule_is_the_one_agreed_on() -> None:
    assert RULE.model_dump(exclude={"words"}) == {
        "margin": 0.02, "level": 0.95, "resamples": 2000, "seeds": 5, "fusion_seeds": 10,
    }  # fmt: skip
    assert all(words in RULE.words for words in ("above 0", "0.02", "95 %", "2,000", "Nadeau and Bengio 2003"))


def test_no_claim_is_lost_or_written_twice() -> None:
    # A mapping's repeated key would silently replace the first one: the ids are counted in the text.
    ids = re.findall(r"^  (\w+):", REGISTRY.read_text(encoding="utf-8").split("\nclaims:")[1], re.MULTILINE)
    assert ids == list(CLAIMS) and len(ids) >= 30
    tested = {
        (one.kind, one.system, one.against, one.metric, one.classes, one.other_classes) for one in CLAIMS.values()
    }
    assert len(tested) == len({one.sentence for one in CLAIMS.values()}) == len(CLAIMS)
    assert {one.paper for one in CLAIMS.values()} == set(CHAPTER_OF)
    assert all(one.id.startswith(one.paper) for one in CLAIMS.values())


# Published numbers, computed anew from data_manifests/published.


def scores_of(claim: Claim, side: str) -> Any:
    system = side.split("/")[1]
    if claim.paper == "li2017":
        return {"micro_f1": PUBLISHED["li2017"]["micro_f1"][system]["evaluation"]}
    if claim.paper == "parekh2018":
        column = PUBLISHED["parekh2018"]["table2"]["systems"]
        by_class = {name: row["f1"][column.index(system)] for name, row in CLASSES.items()} if system in column else {}
        return {"micro_f1": PUBLISHED["parekh2018"]["table1"][system]["f1"], "class_f1": by_class}
    tables = PUBLISHED["fayek2020"]
    row = next(tables[table][system] for table in ("table2", "table3", "table4") if system in tables[table])
    return {"map": float(row["map"]), "mauc": float(row["mauc"])}


def published_quantity(claim: Claim) -> float:
    """The quantity in points, the long way round."""
    one, other = (scores_of(claim, side)[claim.metric] for side in (claim.system, claim.against))
    if claim.metric != "class_f1":
        return one - other

    def mean(names: tuple[str, ...]) -> float:
        return sum(one[name] - other[name] for name in names) / len(names)

    return mean(claim.classes) - (mean(claim.other_classes) if claim.other_classes else 0)


NUMBERS = [name for name, claim in CLAIMS.items() if claim.published.value is not None and claim.kind != "count"]
GAINS = {
    (f"fayek2020/{gain['system']}", f"fayek2020/{gain['over']}"): float(gain["points"])
    for place in PUBLISHED["fayek2020"]["gains"]
    for gain in place["of"]
}


@pytest.mark.parametrize("name", NUMBERS)
def test_published_numbers_are_those_of_the_papers(name: str) -> None:
    claim = CLAIMS[name]
    printed, tables = claim.published.value, published_quantity(claim)
    assert printed is not None
    if claim.metric == "map" and (gain := GAINS.get((claim.system, claim.against))) is not None:
        assert printed == gain and abs(printed - tables) < 0.011  # over gblend 4.35 in the text, 4.36 by Table 3
    else:
        assert printed == round(tables, 2 if claim.paper == "fayek2020" else 1)  # decimals as the papers print them
    assert claim.published.data.startswith(PUBLISHED[claim.paper]["corpus"])


def test_every_gain_of_the_paper_is_a_claim() -> None:
    assert len(NUMBERS) >= 30 and len(GAINS) == 8
    claimed = {(claim.system, claim.against) for claim in CLAIMS.values() if claim.metric == "map"}
    assert set(GAINS) - claimed <= {("fayek2020/average", "fayek2020/visual")}


def test_counts_are_those_of_the_papers() -> None:
    counts = {name: claim for name, claim in CLAIMS.items() if claim.kind == "count"}
    li, fayek = PUBLISHED["li2017"]["claims"]["classes_improved"], PUBLISHED["fayek2020"]
    assert counts.pop("li2017_classes_improved").published.value == li["value"] == 14

    two_stream = counts.pop("parekh2018_classes_improved")
    one, other = (scores_of(two_stream, side)["class_f1"] for side in (two_stream.system, two_stream.against))
    assert two_stream.published.value == sum(one[name] > other[name] for name in CLASSES) == 14
    for name in ("li2017_classes_improved", "parekh2018_classes_improved"):
        expected = CLAIMS[name].expected
        assert expected is not None and 13 / 17 < expected < 14 / 17

    over = {share["of"]: share["over"] for share in fayek["shares"]}
    for name, share in (("audio_dominant_classes", "audio_better"), ("classes_improved", "improved")):
        claim = counts.pop(f"fayek2020_{name}")
        assert claim.published.value == over[share] and claim.expected == over[share] / 100
    assert not counts


def test_classes_are_those_of_the_papers() -> None:
    seven = PUBLISHED["li2017"]["claims"]["video_better"]["classes"]
    assert CLAIMS["li2017_video_better_on_seven"].classes == tuple(seven)
    lists = [KINDS["vehicle"], KINDS["warning"], set(seven), {"Bus"}, {"Car passing by"}]
    for claim in CLAIMS.values():
        classes, others = set(claim.classes), set(claim.other_classes)
        assert not classes or classes in lists
        assert not others or others == set(CLASSES) - classes  # all the others, which of vehicles are the warnings


ENTRY, COUNT = "li2017_fusion_above_audio", "li2017_classes_improved"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (ENTRY, {"sistem": "li2017/fused"}, "sistem'; did you mean 'system'"),
        (ENTRY, {"system": "li2017/fuse"}, "unknown 'li2017/fuse'; did you mean 'li2017/fused'"),
        (ENTRY, {"against": "fayek2020/audio"}, "against: expected another system of li2017, found 'fayek2020/audio'"),
        (ENTRY, {"published": {"value": 5.3, "unit": "points"}}, "published: expected value, unit and data together"),
        (ENTRY, {"classes": ["Bus"]}, "metric: classes or a count need one of class_f1, average_precision, found 'mic"),
        (ENTRY, {"expected": 0.5}, "expected: a count has"),
        (COUNT, {"classes": ["Bus"]}, "classes: a contrast has"),
        ("rule", {"margin": 0}, "margin = 0: .*greater than 0"),
    ],
)
def test_mistakes_are_named_by_claim_and_key(tmp_path: Path, name: str, change: dict[str, Any], words: str) -> None:
    entries = copy.deepcopy(ENTRIES)
    changed = entries["rule"] if name == "rule" else entries["claims"][name]
    changed.update(change)
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(entries), encoding="utf-8")
    with pytest.raises(ClaimError, match=rf"claims\.yaml(.|\n)*{name}.*{words}"):
        load_claims(path)


def test_what_is_no_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text("rule: [", encoding="utf-8")
    with pytest.raises(ClaimError, match=r"claims\.yaml"):
        load_claims(path)


# Verdicts.


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.05, "holds"),
        (0.0, 0.05, "undecided"),  # not above 0
        (0.0, 0.019, "does not hold"),
        (-0.05, 0.0199, "does not hold"),
        (-0.05, 0.02, "undecided"),  # not below the margin
        (0.0, 0.0, "does not hold"),  # two systems with the same scores
        (math.nan, math.nan, "undecided"),  # of one split
    ],
)
def test_verdict(low: float, high: float, expected: str) -> None:
    assert verdict(Interval(0.01, low, high, "made"), RULE) == expected


def test_verdict_without_a_number_and_with_another_margin() -> None:
    assert verdict(None, RULE) == verdict(Interval(math.nan, math.nan, math.nan, "made"), RULE) == "not measured"
    assert verdict(interval(-0.05, 0.05), RULE.model_copy(update={"margin": 0.1})) == "does not hold"


# The control, where every clip shows the pictures of another clip.


def streams(system: str) -> set[str]:
    """Which of sound and pictures reach a system, by itself or by what it fuses."""
    return set(SYSTEMS[system].modalities).union(*map(streams, SYSTEMS[system].uses))


def test_claims_that_only_pictures_can_make_true_are_marked() -> None:
    for name, claim in CLAIMS.items():
        ours, theirs = streams(claim.system), streams(claim.against)
        assert not claim.pictures or ("video" in ours and ours - theirs <= {"video"}), f"{name}: sound could, too"
        assert claim.pictures != "help" or theirs == {"audio"}, f"{name}: over sound alone"
    assert [sum(one.pictures == asked for one in CLAIMS.values()) for asked in ("help", "differ")] == [11, 6]


HELP, DIFFER = ([name for name, one in CLAIMS.items() if one.pictures == asked] for asked in ("help", "differ"))


def control(**changed: tuple[float, float] | None) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """Intervals at the rule's level and wider ones at the corrected level; all that may hold does."""
    bounds: dict[str, Any] = {name: (0.1, 0.2) for name in CLAIMS}
    bounds |= dict.fromkeys(HELP, (-0.03, 0.01)) | dict.fromkeys(DIFFER, (-0.03, 0.1)) | changed
    given = {name: one for name, one in bounds.items() if one is not None}
    return tuple(  # type: ignore[return-value]
        {name: interval(low - wider, high + wider) for name, (low, high) in given.items()} for wider in (0, 0.02)
    )


def test_a_control_without_any_help_of_pictures_passes() -> None:
    assert check_null(*control(), CLAIMS, RULE) == ()
    unmeasured = control(**dict.fromkeys(DIFFER))  # what is not measured cannot hold
    assert check_null(*unmeasured, CLAIMS, RULE) == ()
    by_chance = control(**{DIFFER[1]: (0.01, 0.1)})  # above 0 at 95 %, and not at the corrected level
    assert check_null(*by_chance, CLAIMS, RULE) == (DIFFER[1],)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({HELP[0]: (0.01, 0.05)}, rf"{HELP[0]} has to be refuted: holds \[\+0.010, \+0.050\]"),
        ({HELP[1]: (-0.01, 0.05)}, rf"{HELP[1]} has to be refuted: undecided \[-0.010, \+0.050\]"),
        ({HELP[2]: None}, f"{HELP[2]} has to be refuted: not measured"),
        *[({name: (0.03, 0.09)}, rf"{name} holds \[\+0.010, \+0.110\]") for name in DIFFER],
    ],
)
def test_a_control_in_which_pictures_help_stops(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(NullWorldError, match=message) as error:
        check_null(*control(**changed), CLAIMS, RULE)
    assert str(error.value).count("\n  - ") == 1


def test_a_control_needs_both_levels() -> None:
    at_rule, corrected = control()
    del corrected[DIFFER[0]]
    assert control_level(CLAIMS, RULE) == pytest.approx(1 - 0.05 / 17)
    with pytest.raises(ValueError, match=rf"level 0\.99706 of \['{DIFFER[0]}'\]"):
        check_null(at_rule, corrected, CLAIMS, RULE)
