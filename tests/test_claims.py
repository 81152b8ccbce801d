"""The registry of claims: complete, true to the papers' numbers, strict; and the rule of verdicts."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from avrepro.claims import (
    CHAPTER_OF,
    SYSTEMS,
    Claim,
    ClaimError,
    NullWorldError,
    Rule,
    check_null,
    load_claims,
    published_text,
    quantities,
    verdict,
)
from avrepro.evaluation.intervals import Interval
from avrepro.manifests import manifest_path

REGISTRY = manifest_path("claims.yaml")
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
    assert all(number in RULE.words for number in ("above 0", "0.02", "95 %", "2,000"))


def test_no_claim_is_lost_or_told_twice() -> None:
    # A mapping's repeated key would silently replace the first one: the ids are counted in the text.
    ids = re.findall(r"^  (\w+):", REGISTRY.read_text(encoding="utf-8").split("\nclaims:")[1], re.MULTILINE)
    assert ids == list(CLAIMS) and len(ids) >= 30
    tested = [
        (one.kind, one.system, one.against, one.metric, one.classes, one.other_classes) for one in CLAIMS.values()
    ]
    assert len(set(tested)) == len(tested)
    assert len({one.sentence for one in CLAIMS.values()}) == len(CLAIMS)
    assert {one.paper for one in CLAIMS.values()} == set(CHAPTER_OF)
    assert all(name.startswith(f"{one.paper}_") for name, one in CLAIMS.items())


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_compares_systems_of_its_own_paper(name: str) -> None:
    claim = CLAIMS[name]
    for system in (claim.system, claim.against):
        paper, _, one = system.partition("/")
        assert paper == claim.paper and SYSTEMS[paper][one]
    assert claim.sentence.endswith(".") and claim.sentence[0].isupper()
    assert (claim.published.words or str(claim.published.value)) and published_text(claim)


def test_only_claims_that_add_pictures_are_refuted_by_blind_worlds() -> None:
    with_pictures = {"video", "fused", "two_stream", "visual", "average", "attention"}
    marked = [claim for claim in CLAIMS.values() if claim.vision_helps]
    assert {claim.paper for claim in marked} == set(CHAPTER_OF) and len(marked) >= 6
    for claim in marked:
        assert claim.system.split("/")[1] in with_pictures and claim.against.split("/")[1] in ("audio", "audio_only")
        assert claim.kind != "contrast"


def test_systems_are_described_in_a_line() -> None:
    described = [text for names in SYSTEMS.values() for text in names.values()]
    assert len(set(described)) == len(described) == 37
    assert all(10 < len(text) <= 90 for text in described)


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
    told, tables = claim.published.value, published_quantity(claim)
    assert told is not None
    if claim.metric == "map" and (gain := GAINS.get((claim.system, claim.against))) is not None:
        assert told == gain and abs(told - tables) < 0.011  # over gblend, the text has 4.35 and Table 3 makes 4.36
    else:
        assert told == round(tables, 2 if claim.paper == "fayek2020" else 1)  # decimals as the papers print them
    metric = {"micro_f1": "micro F1", "class_f1": "mean class F1", "map": "mAP", "mauc": "mAUC"}[claim.metric]
    assert claim.published.unit == f"points of {metric}"
    assert claim.published.data.startswith(PUBLISHED[claim.paper]["corpus"])


def test_enough_numbers_are_checked() -> None:
    assert len(NUMBERS) >= 30
    assert published_quantity(CLAIMS["parekh2018_two_stream_above_audio_only"]) == pytest.approx(6.9)
    assert len(GAINS) == 8 and set(GAINS) - {("fayek2020/average", "fayek2020/visual")} <= {
        (claim.system, claim.against) for claim in CLAIMS.values() if claim.metric == "map"
    }


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
    for name, share in (
        ("fayek2020_audio_dominant_classes", "audio_better"),
        ("fayek2020_classes_improved", "improved"),
    ):
        claim = counts.pop(name)
        assert claim.published.value == over[share] and claim.expected == over[share] / 100
    assert fayek["changes"]["improved"] / 527 > 0.83 and 1 - fayek["changes"]["visual_better"] / 527 > 0.75
    assert not counts


def test_classes_are_those_of_the_papers() -> None:
    seven = PUBLISHED["li2017"]["claims"]["video_better"]["classes"]
    assert CLAIMS["li2017_video_better_on_seven"].classes == tuple(seven)
    lists = [KINDS["vehicle"], KINDS["warning"], set(seven), {"Bus"}, {"Car passing by"}]
    for claim in CLAIMS.values():
        assert not claim.classes or set(claim.classes) in lists
        assert not claim.other_classes or set(claim.other_classes) == (
            set(CLASSES) - set(claim.classes)  # all the others, which of vehicles are the warning sounds
        )


def test_places_are_those_of_the_published_numbers() -> None:
    li, parekh = PUBLISHED["li2017"]["claims"], PUBLISHED["parekh2018"]["claims"]
    for name, where in (
        ("li2017_video_better_on_seven", li["video_better"]["where"]),
        ("li2017_classes_improved", li["classes_improved"]["where"]),
        ("parekh2018_two_stream_above_one_stream", parekh["one_stream"]["where"]),
        ("parekh2018_cvssp_better_on_warnings", parekh["cvssp_warnings"]["where"]),
        ("parekh2018_out_of_step", parekh["asynchronous"]["where"]),
        ("fayek2020_visual_above_r2plus1d", {"section": "4.2", "page": 6}),
    ):
        assert CLAIMS[name].where.model_dump() == where
    assert CLAIMS["parekh2018_out_of_step"].published.words == parekh["asynchronous"]["text"]


def test_published_text() -> None:
    text = published_text(CLAIMS["li2017_fusion_above_audio"])
    assert text == "5.3 points of micro F1 (DCASE 2017 Task 4, evaluation)"
    assert published_text(CLAIMS["li2017_classes_improved"]) == "14 of 17 classes (DCASE 2017 Task 4, test)"
    words = "even better performance may be expected if they were tuned more carefully"
    assert published_text(CLAIMS["li2017_tuned_weights"]) == f"“{words}”"


# Strictness.

ENTRY = "li2017_fusion_above_audio"
COUNT = "li2017_classes_improved"
CONTRAST = "parekh2018_complementary_sound"


TOLD = yaml.safe_load(REGISTRY.read_text(encoding="utf-8"))


def written(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A registry of the rule and one claim (or the first), one of them changed."""
    one = ENTRY if name == "rule" else name
    told = copy.deepcopy({"rule": TOLD["rule"], "claims": {one: TOLD["claims"][one]}})
    change(told["rule"] if name == "rule" else told["claims"][name])
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump(told), encoding="utf-8")
    return path


def put(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda entry: entry.update(values)


def drop(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda entry: entry.pop(key)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (ENTRY, put(sistem="li2017/fused"), "unknown key 'sistem'; did you mean 'system'"),
        (ENTRY, put(id="other"), "no key of it"),
        (ENTRY, put(paper="li2018"), "paper: .*'li2017', 'parekh2018' or 'fayek2020'"),
        (ENTRY, put(kind="ratio"), "kind: .*'difference', 'contrast' or 'count'.*'ratio'"),
        (ENTRY, put(metric="accuracy"), "metric: .*'accuracy'"),
        (ENTRY, put(system="li2017/fuse"), "system: unknown system 'li2017/fuse'; did you mean 'li2017/fused'"),
        (ENTRY, put(against="audio"), "against: unknown system 'audio'"),
        (ENTRY, put(against="li2017/fused"), "expected another system"),
        (ENTRY, put(chapter="attention_fusion"), "chapter: expected 'lightweight_fusion'"),
        (ENTRY, put(vision_helps="yes"), "vision_helps: .*'yes'"),
        (ENTRY, put(where={"section": "3.5"}), "expected where.page, which is missing"),
        (ENTRY, put(where={"section": 3.5, "page": 4}), "where.section: .*3.5"),
        (ENTRY, put(published={"value": 5.3, "unit": "points"}), "published: expected value, unit and data together"),
        (ENTRY, put(published={"value": 5.3, "unit": "a", "data": "b", "words": "c"}), "or words alone"),
        (ENTRY, put(published={}), "or words alone"),
        (ENTRY, put(published={"value": -1, "unit": "a", "data": "b"}), "published.value: .*-1"),
        (ENTRY, put(classes=["Bus"]), "metric: classes or a count need one of class_f1, average_precision"),
        (ENTRY, put(classes=["bus"], metric="class_f1"), "unknown class 'bus'; did you mean 'Bus'"),
        (ENTRY, put(classes=["Bus", "Bus"], metric="class_f1"), "each class once"),
        (ENTRY, put(other_classes=["Bus"], metric="class_f1"), "a contrast has classes and other_classes"),
        (ENTRY, put(expected=0.5), "expected: a count has"),
        (COUNT, drop("expected"), "expected: a count has"),
        (COUNT, put(metric="micro_f1"), "metric: classes or a count"),
        (COUNT, put(classes=["Bus"]), "a contrast has"),
        (CONTRAST, drop("other_classes"), "a contrast has"),
        (CONTRAST, drop("classes"), "a contrast has"),
        ("rule", put(margin=0), "margin: .*0"),
        ("rule", put(seed=5), "unknown key 'seed'; did you mean 'seeds'"),
        ("rule", drop("level"), "expected level, which is missing"),
        *[(ENTRY, drop(key), f"expected {key}, which is missing") for key in
          ("paper", "sentence", "where", "published", "kind", "system", "against", "metric", "vision_helps")],
    ],
)  # fmt: skip
def test_mistakes_are_told_by_claim(
    tmp_path: Path, name: str, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    with pytest.raises(ClaimError, match=f"{name}: .*{words}") as error:
        load_claims(written(tmp_path, name, change))
    assert str(error.value).count("\n  - ") == 1  # that one mistake and no other


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    def both(entry: dict[str, Any]) -> None:
        entry.pop("kind")
        entry["colour"] = "red"

    with pytest.raises(ClaimError, match=rf"{ENTRY}: .*kind(.|\n)*{ENTRY}: .*'colour'"):
        load_claims(written(tmp_path, ENTRY, both))


@pytest.mark.parametrize("text", ["", "claims: {}", "rule: {}\nclaims: []", "rule: [", "- a"])
def test_no_registry_at_all(tmp_path: Path, text: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ClaimError, match=r"claims\.yaml"):
        load_claims(path)


def test_claims_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        CLAIMS[ENTRY].vision_helps = False


# Verdicts.


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.05, "holds"),
        (1e-12, 0.001, "holds"),  # however small, where it is sure
        (0.0, 0.05, "undecided"),  # not above 0
        (0.0, 0.019, "does not hold"),
        (-0.05, -0.01, "does not hold"),
        (-0.05, 0.0199, "does not hold"),
        (-0.05, 0.02, "undecided"),  # not below the margin
        (-0.05, 0.3, "undecided"),
        (0.0, 0.0, "does not hold"),  # two systems that say the same
        (math.nan, math.nan, "undecided"),
        (0.1, math.nan, "undecided"),
        (math.nan, -0.1, "undecided"),
    ],
)
def test_verdict(low: float, high: float, expected: str) -> None:
    assert verdict(Interval(0.01, low, high, "made"), RULE) == expected


def test_verdict_without_a_number() -> None:
    assert verdict(None, RULE) == "not measured"
    assert verdict(Interval(math.nan, math.nan, math.nan, "made"), RULE) == "not measured"


def test_verdict_follows_the_rules_margin() -> None:
    wide = Rule(words="wide", margin=0.1, level=0.95, resamples=1, seeds=2, fusion_seeds=2)
    assert verdict(interval(-0.05, 0.05), RULE) == "undecided"
    assert verdict(interval(-0.05, 0.05), wide) == "does not hold"


def test_a_blind_world_refutes_that_looking_helps() -> None:
    helpful = [name for name, claim in CLAIMS.items() if claim.vision_helps]
    differences = {name: interval(0.1, 0.2) for name in CLAIMS}  # all the others may hold
    differences |= {name: interval(-0.03, 0.01) for name in helpful}
    check_null(differences, CLAIMS, RULE)

    differences[helpful[0]] = interval(0.01, 0.05)
    differences[helpful[1]] = interval(-0.01, 0.05)
    del differences[helpful[2]]
    with pytest.raises(NullWorldError) as error:
        check_null(differences, CLAIMS, RULE)
    head, holds, undecided, missing = str(error.value).splitlines()
    assert "looking helps" in head
    assert "hold where they cannot" in holds and f"{helpful[0]} [+0.010, +0.050]" in holds
    assert "undecided" in undecided and f"{helpful[1]} [-0.010, +0.050]" in undecided
    assert "not measured" in missing and missing.endswith(helpful[2])
    for line, own in zip((holds, undecided, missing), helpful, strict=False):
        assert [name for name in CLAIMS if name in line.replace(",", " ").split()] == [own]


def test_undecided_alone_stops_too() -> None:
    differences = {name: interval(-0.03, 0.01) for name in CLAIMS} | {ENTRY: interval(-0.03, 0.03)}
    with pytest.raises(NullWorldError, match=f"undecided.*{ENTRY}") as error:
        check_null(differences, CLAIMS, RULE)
    assert "hold where they cannot" not in str(error.value)


def test_what_is_measured_has_a_digest_that_words_do_not_change() -> None:
    claims = load_claims()[1]
    first = next(iter(claims))
    before = quantities(claims)
    assert quantities(claims | {first: claims[first].model_copy(update={"sentence": "Other words."})}) == before
    for change in ({"metric": "mauc"}, {"against": "li2017/video"}, {"kind": "count", "expected": 0.5}):
        assert quantities(claims | {first: claims[first].model_copy(update=change)}) != before
