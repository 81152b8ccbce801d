"""The numbers that sentences use of the chapter ``side_by_side``, its own and those of the front page.

Every name is always said: what was not measured reads ``not measured``.
"""

from __future__ import annotations

from avrepro.claims import published_text
from avrepro.report import say, show_note
from avrepro.report.side_by_side import DATA, judged, points, tally
from avrepro.report.side_by_side_evidence import NOT_MEASURED, Evidence, Measured, number, place
from avrepro.report.side_by_side_tables import ahead, best_of_papers, differences, sides

SHORT = {"paired": "paired", "demo": "demo", "demo-null": "null"}  # corpus -> what names end with
MAIN = ("li2017_fusion_above_audio", "parekh2018_two_stream_above_audio_only", "fayek2020_attention_above_audio")
ON_FRONT_PAGE = (*MAIN, "fayek2020_average_above_audio")
BEYOND = ("union", "bottleneck")


def say_all(evidence: Evidence) -> None:
    """Name the texts that sentences use: verdicts, counts of verdicts and classes, origins, and the rule."""
    if evidence.any is None:
        show_note("Not measured: no results of these comparisons are kept with this book.")
        return
    for name, text in _rule(evidence).items():
        say(name, text, evidence.any)
    for corpus in DATA:
        for name, text in _of_corpus(evidence, corpus).items():
            say(f"{name}_{SHORT[corpus]}", text, evidence.run(corpus) or evidence.any)
    for measured in ("robustness", "noise", "learning"):
        results = evidence.run("demo", measured)
        say(f"origin_{measured}", place(results), results or evidence.any)


def _rule(evidence: Evidence) -> dict[str, str]:
    """The rule and what the papers print: of the registry, not of a run."""
    rule, claims = evidence.rule, evidence.claims.values()
    texts = {
        "rule_margin": f"{100 * rule.margin:g} points",
        "rule_level": f"{100 * rule.level:g} %",
        "rule_resamples": f"{rule.resamples:,}",
        "rule_seeds": str(rule.seeds),
        "rule_fusion_seeds": str(rule.fusion_seeds),
        "claims": str(len(evidence.claims)),
        "claims_vision": str(sum(claim.vision_helps for claim in claims)),
        "expected_by_chance": f"{(1 - rule.level) / 2 * len(evidence.claims):.0f}",
    }
    return texts | {f"claim_{name}_published": published_text(evidence.claims[name]) for name in ON_FRONT_PAGE}


def _of_corpus(evidence: Evidence, corpus: str) -> dict[str, str]:
    results = evidence.run(corpus)
    texts = {"origin": place(results), "verdicts": tally(evidence, corpus)}
    for name in ON_FRONT_PAGE:
        texts[f"claim_{name}"] = judged(number(results, name, "difference"), evidence.rule)
    for name in MAIN:
        texts[f"classes_{name}"] = sides(differences(evidence, corpus, name))
    return texts | _beyond(results)


def _beyond(results: Measured | None) -> dict[str, str]:
    """How far what goes beyond the papers is ahead of the best system of each."""
    best = best_of_papers(results) if results is not None else {}
    texts = {}
    for paper in ("li2017", "parekh2018", "fayek2020"):
        for name in BEYOND:
            lead = number(results, f"beyond/{name}", "map_lead", best.get(paper, ""))
            texts[f"{name}_less_{paper}"] = NOT_MEASURED if lead is None else f"{points(lead)}, {ahead(lead)}"
    return texts
