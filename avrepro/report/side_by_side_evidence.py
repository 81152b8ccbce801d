"""What the chapter ``side_by_side`` knows: the registry of claims, and all results that speak of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from avrepro.claims import Claim, Rule, load_claims, quantities
from avrepro.evaluation.intervals import Interval
from avrepro.parameters import check
from avrepro.report import origin
from avrepro.results import Results, is_stale, read

CHAPTER = "side_by_side"
NOT_MEASURED = "not measured"
# Chapter -> the system that its differences start from, their metric, its name there, and whether it is the first
# or the second of the two: the first chapter notes a system less audio, the others their own system less another.
OF_CHAPTERS = {
    "lightweight_fusion": ("li2017/audio", "micro_f1", "micro_f1_gain", False),
    "unsynchronized_mil": ("parekh2018/two_stream", "micro_f1", "micro_f1_lead", True),
    "attention_fusion": ("fayek2020/attention", "map", "map_lead", True),
}
NAMES_THERE = {"li2017/fused_tuned": "fused, tuned weights"}


@dataclass(frozen=True)
class Measured(Results):
    """Results of one run, whose numbers can be looked up by the thousand."""

    @cached_property
    def numbers(self) -> dict[tuple[str, str, str, str], Interval]:
        """Numbers by system, metric, split and label; those with nothing to measure on are left out."""
        rows = self.table[(self.table["step"] < 0) & self.table["value"].notna()]
        keys = zip(*(rows[name] for name in ("system", "metric", "split", "label")), strict=True)
        values = zip(*(rows[name] for name in ("value", "low", "high", "interval")), strict=True)
        return {key: Interval(*value) for key, value in zip(keys, values, strict=True)}


@dataclass(frozen=True)
class Evidence:
    """Claims, the rule that judges them, and all results that speak of them."""

    rule: Rule
    claims: Mapping[str, Claim]
    runs: Mapping[tuple[str, str], Measured]  # (corpus, what was measured); what is not there was not measured
    live: Mapping[str, Measured]  # chapter -> what this build measured itself, with one seed

    def run(self, corpus: str, measured: str = "protocol") -> Measured | None:
        return self.runs.get((corpus, measured))

    @property
    def papers(self) -> list[str]:
        return list(dict.fromkeys(claim.paper for claim in self.claims.values()))

    @property
    def any(self) -> Results | None:
        """Some results, for texts that belong to all."""
        return next(iter([*self.runs.values(), *self.live.values()]), None)


def load(profile: str = "demo") -> Evidence:
    """All evidence of the results store.

    :param profile: of the build; on ``ci`` the other chapters have no numbers of their own to show.
    """
    rule, claims = load_claims()
    table = read().table
    runs: dict[tuple[str, str], Measured] = {}
    live: dict[str, Measured] = {}
    for _, rows in table.sort_values("time", kind="stable").groupby("run", sort=False):  # of two the later one
        one, first = Measured(rows), rows.iloc[0]
        told = json.loads(first["parameters"])
        if first["chapter"] == CHAPTER and "measured" in told:
            runs[told["corpus"], told["measured"]] = one
        elif first["chapter"] in OF_CHAPTERS and first["parts"] == "[]" and profile == "demo":
            default = check(first["chapter"], {}).model_dump()
            if default.items() <= told.items() and not is_stale(first):
                live[first["chapter"]] = one
    return Evidence(rule, claims, runs, live)


def number(results: Measured | None, system: str, metric: str, label: str = "", split: str = "test") -> Interval | None:
    """A number, or None where it is not there or was nothing to measure on."""
    return None if results is None else results.numbers.get((system, metric, split, label))


def measured_here(evidence: Evidence, claim: Claim) -> Interval | None:
    """What a chapter of this build measured of the claim with its one seed, None where it does not compare the two."""
    base, metric, noted, is_first = OF_CHAPTERS[claim.chapter]
    pair = (claim.system, claim.against)
    if claim.kind != "difference" or claim.metric != metric or claim.classes or base not in pair:
        return None
    other = pair[1] if pair[0] == base else pair[0]
    one = number(evidence.live.get(claim.chapter), NAMES_THERE.get(other, other.partition("/")[2]), noted)
    if one is None or (pair[0] == base) == is_first:
        return one
    return Interval(-one.value, -one.high, -one.low, one.method)


def place(results: Results | None) -> str:
    """Corpus, profile and number of seeds, for heads and captions."""
    if results is None:
        return NOT_MEASURED
    told = json.loads(results.passport()["parameters"])
    fewest, most = (choose(map(len, told["seeds"].values())) for choose in (min, max))
    stale = told["measured"] == "protocol" and told.get("claims") != quantities(load_claims()[1])
    older = ", stale: measured for other claims than today's" if stale else ""
    return f"{origin(results)}, {fewest if fewest == most else f'{fewest} to {most}'} seeds{older}"
