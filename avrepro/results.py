"""The results store: one Parquet file a run, one row a number, each with its passport.

A passport says what a number was measured on and with: data, code, seed, how sure. The book reads
its numbers from here and from nowhere else.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from avrepro import digests
from avrepro.corpora.base import Corpus
from avrepro.digests import COMMITTED
from avrepro.evaluation.intervals import Interval
from avrepro.files import atomic
from avrepro.home import home

NUMBER = ("system", "split", "metric", "label", "step", "value", "low", "high", "interval", "threshold_rule")
PASSPORT = (
    "run", "chapter", "corpus", "corpus_digest", "profile", "seed", "parameters", "clips", "missing",
    "device", "seconds", "digest", "parts", "code_digest", "dependencies_digest", "commit", "versions", "time",
)  # fmt: skip
KEY = ["run", "system", "split", "metric", "label", "step"]


class ResultsError(RuntimeError):
    """A number that is missing, or that may not be shown."""


@dataclass
class Run:
    """One run of a chapter: collects numbers, then writes them all at once.

    :param chapter: name of the chapter.
    :param parameters: the chapter's checked parameters, as plain values.
    :param corpus: what was scored.
    :param device: ``"cpu"`` or the GPU's name.
    :param parts: for results that are committed: the source files and folders that their numbers depend on, so
        that other code can change without making them stale. Empty: all code, manifests and locked dependencies.
    """

    chapter: str
    parameters: Mapping[str, Any]
    corpus: Corpus
    device: str = "cpu"
    parts: tuple[str, ...] = ()
    rows: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        """The same for the same chapter, parameters, data, code and dependencies: a repeated run replaces itself."""
        return digests.of_values([self.chapter, self.digest, self.corpus.digest, self.device])[:16]

    @property
    def digest(self) -> str:
        """Digest of code, parameters and dependencies."""
        return passport_digest(self.chapter, self.parameters, self.parts)

    def add(
        self,
        system: str,
        split: str,
        metric: str,
        value: float | Interval,
        *,
        label: str = "",
        step: int = -1,
        threshold_rule: str = "",
    ) -> None:
        """Note one number.

        :param value: a fraction, seconds or whatever the metric's unit is; or a value with its 95 % interval.
        :param label: class the number belongs to; empty for all.
        :param step: epoch, for curves; -1 for none.
        :raises ResultsError: if the number was noted before.
        """
        if any((row["system"], row["split"], row["metric"], row["label"], row["step"])
               == (system, split, metric, label, step) for row in self.rows):  # fmt: skip
            raise ResultsError(f"noted twice: {system}, {split}, {metric}, {label or 'all classes'}, step {step}")
        known = value if isinstance(value, Interval) else Interval(float(value), math.nan, math.nan, "")
        self.rows.append(
            {
                "system": system, "split": split, "metric": metric, "label": label, "step": step,
                "value": known.value, "low": known.low, "high": known.high, "interval": known.method,
                "threshold_rule": threshold_rule,
            }
        )  # fmt: skip

    def write(self, folder: Path | None = None) -> Results:
        """Write all rows to ``folder`` (default: the store) at once; nobody ever reads half a file."""
        folder = folder or store()
        sizes = {name: self.corpus.split(name) for name in {row["split"] for row in self.rows} if name}
        table = pd.DataFrame(self.rows, columns=list(NUMBER))
        table["clips"] = [len(sizes[name].clips) if name else 0 for name in table["split"]]
        table["missing"] = [len(sizes[name].missing) if name else len(self.corpus.missing) for name in table["split"]]
        passport = {
            "run": self.id,
            "chapter": self.chapter,
            "corpus": self.corpus.name,
            "corpus_digest": self.corpus.digest,
            "profile": self.parameters["profile"],
            "seed": self.parameters["seed"],
            "parameters": json.dumps(dict(self.parameters), sort_keys=True),
            "device": self.device,
            "seconds": round(time.monotonic() - self.started, 3),
            "digest": self.digest,
            "parts": json.dumps(self.parts),
            "code_digest": digests.code(),
            "dependencies_digest": digests.dependencies(),
            "commit": digests.commit(),
            "versions": json.dumps(digests.versions(), sort_keys=True),
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),  # of two runs alike the later one counts
        }
        table = table.assign(**passport)[[*PASSPORT, *NUMBER]]
        with atomic(folder / f"{self.chapter}-{self.id}.parquet") as path:
            table.to_parquet(path, index=False)
        return Results(table)


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

    def number(self, system: str, metric: str, split: str = "", label: str = "", step: int = -1) -> Interval:
        """One number.

        :raises ResultsError: if it is missing or stands there more than once.
        """
        found = self.select(system=system, metric=metric, split=split, label=label, step=step)
        if len(found) != 1:
            raise ResultsError(
                f"{len(found)} numbers where one is needed: {metric} of {system} on {split or 'no split'}"
                f"{f' for {label}' if label else ''}. Run the chapter again."
            )
        row = found.iloc[0]
        return Interval(float(row["value"]), float(row["low"]), float(row["high"]), str(row["interval"]))

    def passport(self) -> dict[str, Any]:
        """The passport that all rows share.

        :raises ResultsError: if the rows are of several runs.
        """
        runs = self.table["run"].unique()
        if len(runs) != 1:
            raise ResultsError(f"a passport belongs to one run, the table holds {len(runs)}")
        return {name: self.table.iloc[0][name] for name in PASSPORT if name not in ("clips", "missing")}


def store() -> Path:
    """Folder of this machine's results."""
    return home() / "results"


def read(run: str | None = None, folders: tuple[Path, ...] | None = None) -> Results:
    """All results (or one run's) of this machine and those committed with the project."""
    tables = []
    for folder in folders or (store(), COMMITTED):
        pattern = f"*-{run}.parquet" if run else "*.parquet"
        paths = [path for path in sorted(folder.glob(pattern)) if not path.name.startswith(".")]  # no half files
        tables += [pd.read_parquet(path) for path in paths]
    if not tables:
        return Results(pd.DataFrame(columns=[*PASSPORT, *NUMBER]))
    return Results(pd.concat(tables, ignore_index=True).drop_duplicates(KEY))


def passport_digest(chapter: str, parameters: Mapping[str, Any], parts: Sequence[str] = ()) -> str:
    """Digest of everything but the data: the package's code, the parameters, locked dependencies, manifests.

    With ``parts``: of those parts of the code, the parameters, and the versions of the packages that compute.
    """
    if parts:
        return digests.of_values([chapter, dict(parameters), digests.code(*parts), digests.versions()])
    return digests.of_values([chapter, dict(parameters), digests.code(), digests.dependencies(), digests.manifests()])


def is_stale(row: pd.Series) -> bool:
    """Whether a number is older than the code, parameters or dependencies that make it; for any row of a table."""
    parts = json.loads(row["parts"])
    try:
        return bool(row["digest"] != passport_digest(row["chapter"], json.loads(row["parameters"]), parts))
    except FileNotFoundError:  # a part that it depends on is no longer there
        return True


def check_shown(table: pd.DataFrame, allow_ci: bool = False) -> None:
    """Stop where a number may not stand in the book.

    A committed number that is stale may: it is shown as stale, since the default build cannot make it anew.

    :raises ResultsError: if there is no number, if it is older than its code, parameters, manifests or
        dependencies, or if a ``ci`` number or one of a dry run would be shown.
    """
    if table.empty:
        raise ResultsError("no results to show: the run is not in the store. Run the chapter again.")
    for _, rows in table.groupby(["chapter", "run", "profile", "digest", "parameters"]):
        first = rows.iloc[0]
        place = f"{first['chapter']}, run {first['run']}"
        if json.loads(first["parameters"]).get("dry"):
            raise ResultsError(f"{place}: a dry run checks the machinery, its numbers are never shown")
        if first["profile"] == "ci" and not allow_ci:
            raise ResultsError(f"{place}: profile ci checks the machinery, its numbers are not shown")
        if is_stale(first) and not json.loads(first["parts"]):
            raise ResultsError(f"{place}: older than today's code, manifests or dependencies. Run the chapter again.")
    if table["value"].isna().all():
        raise ResultsError("all numbers are missing (not a number)")
