"""Do the numbers that Fayek and Kumar (2020) print agree with each other? Arithmetic on them alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from avrepro.report import show_table
from avrepro.report.fayek2020 import PAPER, published_maps

YES, ROUNDED, NO = "yes", "by rounding alone", "no"
NAMES = {  # in the words of the text
    "audio": "audio",
    "visual": "visual",
    "average": "average fusion",
    "regression": "regression fusion",
    "mlp": "MLP fusion",
    "attention": "attention fusion",
    "r2plus1d_visual": "visual of Wang et al.",
    "gblend": "G-Blend of Wang et al.",
}
COUNTED = {
    "improved": "classes improved",
    "improved_10": "classes improved by more than 10 points",
    "audio_better": "classes in which visual is not better than audio",
}


@dataclass(frozen=True)
class Claim:
    """A printed number, what the numbers that it is made of give, and what their rounding leaves open."""

    words: str
    printed: str
    value: float
    low: float
    high: float
    where: str
    more_than: bool = False  # the paper says "over" or "more than"

    @property
    def decimals(self) -> int:
        return len(self.printed.partition(".")[2])

    @property
    def follows(self) -> str:
        """``yes``: the printed numbers give it; ``by rounding alone``: other numbers that print so do; ``no``."""
        if self.more_than:
            return YES if self.value > float(self.printed) else NO
        if f"{self.value:.{self.decimals}f}" == self.printed:
            return YES
        printed, half = float(self.printed), half_unit(self.printed)
        return ROUNDED if self.low <= printed + half and self.high >= printed - half else NO


def half_unit(printed: str) -> float:
    """How far a number may lie from what it is printed as: half a unit of its last decimal."""
    return 0.5 * 10.0 ** -len(printed.partition(".")[2])


def difference(system: str, other: str) -> tuple[float, float, float]:
    """Points of mAP that one printed number is above another: value, least and largest before rounding."""
    (one, a), (two, b) = ((float(text), half_unit(text)) for text in _maps(system, other))
    return one - two, one - two - a - b, one - two + a + b


def ratio(system: str, other: str) -> tuple[float, float, float]:
    """The same in percent of the other's mAP. It grows with the first and falls with the second: corners are bounds."""
    (one, a), (two, b) = ((float(text), half_unit(text)) for text in _maps(system, other))
    high, low = ((one + sign * a) / (two - sign * b) for sign in (1, -1))
    return 100 * (one / two - 1), 100 * (low - 1), 100 * (high - 1)


def claims() -> list[Claim]:
    """Every number of the text that can be worked out from others that the paper prints."""
    found = []
    for gain, where in ((gain, place(part["where"])) for part in PAPER["gains"] for gain in part["of"]):
        one, two = _maps(gain["system"], gain["over"])
        value = difference(gain["system"], gain["over"])
        words = f"{NAMES[gain['system']]} over {NAMES[gain['over']]}"
        found.append(Claim(f"{words}: {one} - {two}", gain["points"], *value, where))
        if "relative" in gain:
            value = ratio(gain["system"], gain["over"])
            found.append(Claim(f"{words}: {one} / {two} - 1, %", gain["relative"], *value, where))
    classes, changes = PAPER["audioset"]["classes"], PAPER["changes"]
    counts = {**changes, "audio_better": classes - changes["visual_better"]}
    for share in PAPER["shares"]:
        value = 100 * counts[share["of"]] / classes
        words = f"{COUNTED[share['of']]}: {counts[share['of']]} of {classes}, %"
        found.append(Claim(words, str(share["over"]), value, value, value, place(share["where"]), more_than=True))
    merged: dict[tuple[str, str], Claim] = {}  # the same number, printed the same elsewhere, is one claim
    for claim in found:
        same = merged.get((claim.words, claim.printed))
        merged[claim.words, claim.printed] = replace(claim, where=f"{same.where}; {claim.where}") if same else claim
    return list(merged.values())


def place(where: dict) -> str:
    """Where something is printed: ``section 4.2 (page 5)``."""
    section = where["section"]
    return f"{section if section.isalpha() else f'section {section}'} (page {where['page']})"


def twice_printed() -> dict[str, list[Claim]]:
    """Claims that the paper prints more than once, with different numbers."""
    found: dict[str, list[Claim]] = {}
    for claim in claims():
        found.setdefault(claim.words, []).append(claim)
    return {words: same for words, same in found.items() if len({claim.printed for claim in same}) > 1}


def published_check() -> None:
    """Do the text's differences, ratios and shares follow from the paper's own tables and counts?"""
    rows = []
    for claim in claims():
        digits = max(2, claim.decimals)
        span = f"{claim.value:.{digits}f}"
        if claim.high > claim.low:
            span += f" ({claim.low:.{digits}f} to {claim.high:.{digits}f})"
        printed = f"over {claim.printed}" if claim.more_than else claim.printed
        rows.append([claim.words, span, printed, claim.where, claim.follows])
    told = " ".join(
        f"The gain of {words.partition(':')[0]} is printed as {' and as '.join(c.printed for c in same)} "
        f"({' and '.join(c.where for c in same)}); both cannot be its rounding."
        for words, same in twice_printed().items()
    )
    show_table(
        ["claim (points of mAP, or percent)", "from the printed numbers (range)", "as printed", "where", "follows"],
        rows,
        f"Does the paper agree with itself? Its differences, ratios and shares ({PAPER['corpus']}), worked out from "
        "Tables 2 and 3 and the counts of section 5.1; the range is what rounding them to the printed decimals allows. "
        f"{summary()}. {told}",
    )


def summary() -> str:
    """How many claims follow, and how."""
    words = [claim.follows for claim in claims()]
    return f"{words.count(YES)} of {len(words)} follow, {words.count(ROUNDED)} by rounding alone, {words.count(NO)} not"


def _maps(*systems: str) -> list[str]:
    maps = dict(published_maps())
    return [maps[system] for system in systems]
