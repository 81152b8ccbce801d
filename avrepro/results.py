"""The results store: one Parquet file a run, one row a number, each with its passport.

A passport says what a number was measured on and with: data, recipes, seeds, how sure. The book reads its numbers from
here and from nowhere else.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from avrepro import checkout, corpora
from avrepro.corpora.base import Corpus
from avrepro.evaluation.intervals import Interval
from avrepro.files import atomic
from avrepro.home import home
from avrepro.protocol import recipe_of
from avrepro.recipes import Recipe, digest
from avrepro.systems import SYSTEMS, Condition
from avrepro.training import choose_device, device_name

ADDED = (
    "system", "against", "split", "metric", "label", "step", "value", "low", "high", "interval", "threshold_rule",
)  # fmt: skip
NUMBER = (*ADDED, "clips", "missing", "recipe")
PASSPORT = (
    "run", "chapter", "measured", "corpus", "corpus_digest", "profile", "seeds", "condition", "device", "threads",
    "seconds", "recipes", "lock", "commit", "versions", "time",
)  # fmt: skip
KEY = ["run", "system", "against", "split", "metric", "label", "step"]
EVALUATION = 1  # version of how scores become numbers: metrics, thresholds, intervals


class ResultsError(RuntimeError):
    """A number that is missing, or that may not be shown."""


@dataclass
class Run:
    """What is measured in one go: collects numbers, then writes them all at once."""

    chapter: str  # for which it is
    measured: str  # what of it, for example "protocol"; names the run together with the condition
    condition: Condition  # of the first seed
    seeds: tuple[int, ...]
    corpora: Sequence[Corpus]  # what was scored, a corpus a seed
    rows: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def corpus_digest(self) -> str:
        """Of all clips that were scored."""
        digests = sorted({corpus.digest for corpus in self.corpora})
        return digests[0] if len(digests) == 1 else digest(digests)

    def add(
        self,
        system: str,
        metric: str,
        value: float | Interval,
        *,
        against: str = "",
        split: str = "",
        label: str = "",
        step: int = -1,
        rule: str = "",
    ) -> None:
        """Note one number.

        :param value: a fraction, seconds or whatever the metric's unit is; or a value with its 95 % interval.
        :param against: the system whose number is subtracted, for differences.
        :param label: class (or condition) that the number belongs to; empty for all.
        :param step: epoch, for curves; -1 for none. :param rule: how thresholds were chosen.
        """
        known = value if isinstance(value, Interval) else Interval(float(value), math.nan, math.nan, "")
        row = (system, against, split, metric, label, step, known.value, known.low, known.high, known.method, rule)
        self.rows.append(dict(zip(ADDED, row, strict=True)))

    def write(self, folder: Path | None = None) -> Results:
        """Write all rows to ``folder`` (default: the store) at once; nobody ever reads half a file.

        :raises ResultsError: a number was noted twice.
        """
        table = pd.DataFrame(self.rows, columns=[*ADDED])
        twice = table[table.duplicated(KEY[1:])]
        if len(twice):
            raise ResultsError(f"noted twice: {twice.iloc[0][KEY[1:]].to_dict()}")
        corpora = {corpus.digest: corpus for corpus in self.corpora}.values()
        scored = {split: [one.split(split) if split else one for one in corpora] for split in table["split"].unique()}
        table["clips"] = [sum(len(one.clips) for one in scored[split]) if split else 0 for split in table["split"]]
        table["missing"] = [sum(len(one.missing) for one in scored[split]) for split in table["split"]]
        recipes = {name: number_recipe(name, self.condition) for name in table["system"].unique()}
        table["recipe"] = [recipes[name].key[:16] for name in table["system"]]
        passport = self._passport(list(recipes.values()))
        table = table.assign(**passport)[[*PASSPORT, *NUMBER]]
        with atomic((folder or store()) / f"{self.chapter}-{self.measured}-{passport['run']}.parquet") as path:
            table.to_parquet(path, index=False)
        return Results(table)

    def _passport(self, recipes: Sequence[Recipe]) -> dict[str, Any]:
        condition = asdict(replace(self.condition, seed=0))
        parts = [self.chapter, self.measured, condition, self.seeds, self.corpus_digest]
        versions = {name: version for one in recipes for name, version in one.versions.items()}
        return {
            "run": digest([*parts, sorted(one.key for one in recipes)])[:16],
            "chapter": self.chapter,
            "measured": self.measured,
            "corpus": self.corpora[0].name,
            "corpus_digest": self.corpus_digest,
            "profile": self.condition.profile,
            "seeds": json.dumps(self.seeds),
            "condition": json.dumps(condition, sort_keys=True),
            "device": device_name(choose_device(self.condition.device)),
            "threads": torch.get_num_threads(),
            "seconds": round(time.monotonic() - self.started, 3),
            "recipes": json.dumps(versions, sort_keys=True),
            "lock": checkout.lock_digest(),
            "commit": checkout.commit(),
            "versions": json.dumps(checkout.versions(), sort_keys=True),
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }


@dataclass(frozen=True)
class Results:
    """Numbers with their passports, as a table of the columns ``PASSPORT`` and ``NUMBER``."""

    table: pd.DataFrame

    def select(self, **wanted: Any) -> pd.DataFrame:
        """Rows in which the named columns have the given value, or one of a list of values."""
        table = self.table
        for name, value in wanted.items():
            table = table[table[name].isin(value if isinstance(value, list) else [value])]
        return table

    def find(self, system: str, metric: str, **wanted: Any) -> Interval | None:
        """One number, None where it was not measured; ``against``, ``label``, ``split`` are "" unless given."""
        wanted = {"against": "", "split": "", "label": "", "step": -1} | wanted
        found = self.select(system=system, metric=metric, **wanted)
        if len(found) > 1:
            raise ResultsError(f"{len(found)} numbers where one is needed: {metric} of {system}, {wanted}")
        return None if found.empty else interval_of(found.iloc[0])

    def number(self, system: str, metric: str, **wanted: Any) -> Interval:
        """One number.

        :raises ResultsError: it is missing, or stands there more than once.
        """
        found = self.find(system, metric, **wanted)
        if found is None:
            raise ResultsError(f"no {metric} of {system}, {wanted}. Run the chapter again.")
        return found

    @property
    def stale(self) -> bool:
        """Whether any number is older than what it depends on."""
        return bool(is_stale(self.table).any())

    def passport(self) -> dict[str, Any]:
        """The passport that all rows share.

        :raises ResultsError: the rows are of several runs, or there are none.
        """
        runs = self.table["run"].unique()
        if len(runs) != 1:
            raise ResultsError(f"a passport belongs to one run, the table holds {len(runs)}")
        return {name: self.table.iloc[0][name] for name in PASSPORT}


def interval_of(row: pd.Series) -> Interval:
    return Interval(float(row["value"]), float(row["low"]), float(row["high"]), str(row["interval"]))


def store() -> Path:
    """Folder of this machine's results."""
    return home() / "results"


def read(run: str | None = None, folders: tuple[Path, ...] | None = None) -> Results:
    """All results (or one run's) of this machine and those committed with the project; empty where there are none."""
    tables = []
    for folder in folders or (store(), checkout.COMMITTED):
        pattern = f"*-{run}.parquet" if run else "*.parquet"
        paths = [path for path in sorted(folder.glob(pattern)) if not path.name.startswith(".")]  # no half files
        tables += [pd.read_parquet(path) for path in paths]
    if not tables:
        return Results(pd.DataFrame(columns=[*PASSPORT, *NUMBER]))
    return Results(pd.concat(tables, ignore_index=True).drop_duplicates(KEY))


def committed(measured: str, corpus: str, chapter: str | None = None) -> Results:
    """A committed measurement; an empty table where it was not made."""
    found = read(folders=(checkout.COMMITTED,)).select(measured=measured, corpus=corpus)
    return Results(found if chapter is None else found[found["chapter"] == chapter])


def number_recipe(system: str, condition: Condition) -> Recipe:
    """What a number depends on besides the clips: how its system was made, its world, and how numbers are counted."""
    world = corpora.recipe(condition.corpus, profile=condition.profile, gap=condition.gap)
    known = (recipe_of(system, condition),) if system in SYSTEMS else ()
    return Recipe("numbers", EVALUATION, parts=(world, *known))


def is_stale(table: pd.DataFrame) -> pd.Series:
    """Whether each number is older than what it depends on: another version or setting of a recipe; bool a row."""
    today = {}
    for system, condition in table[["system", "condition"]].drop_duplicates().itertuples(index=False):
        try:
            today[system, condition] = number_recipe(system, condition_of(condition)).key[:16]
        except (KeyError, TypeError, ValueError):  # a system or a setting that is no more
            today[system, condition] = ""
    keys = [today[pair] for pair in zip(table["system"], table["condition"], strict=True)]
    return table["recipe"] != keys


def condition_of(text: str) -> Condition:
    """A condition out of a passport."""
    values: Mapping[str, Any] = json.loads(text)
    options = tuple((name, value) for name, value in values.get("options", ()))
    fold = values.get("fold")
    return Condition(**{**values, "options": options, "fold": tuple(fold) if fold else None})


def check_shown(table: pd.DataFrame, allow_ci: bool = False) -> None:
    """Stop where a number may not stand in the book.

    A committed number that is stale may: it is shown as stale, since the default build cannot make it anew.

    :raises ResultsError: there is no number, it is older than what it depends on, or it is of profile ci or a dry run.
    """
    if table.empty:
        raise ResultsError("no results to show: the run is not in the store. Run the chapter again.")
    here = {path.stem.rpartition("-")[2] for path in checkout.COMMITTED.glob("*.parquet")}
    for run, rows in table.groupby("run"):
        first = rows.iloc[0]
        place = f"{first['chapter']}, {first['measured']}, run {run}"
        if json.loads(first["condition"]).get("dry"):
            raise ResultsError(f"{place}: a dry run checks the machinery, its numbers are never shown")
        if first["profile"] == "ci" and not allow_ci:
            raise ResultsError(f"{place}: profile ci checks the machinery, its numbers are not shown")
        if run not in here and is_stale(rows).any():
            raise ResultsError(f"{place}: older than what it depends on. Run the chapter again.")
    if table["value"].isna().all():
        raise ResultsError("all numbers are missing (not a number)")
