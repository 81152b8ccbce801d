"""A person's own clips: scored by systems trained on them or, where they are few, on the demo world."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from avrepro import protocol
from avrepro.conditions import Condition
from avrepro.files import atomic
from avrepro.home import SCORES_FILE, home
from avrepro.parameters import OnCorpus
from avrepro.progress import say
from avrepro.protocol import Fitted
from avrepro.systems import Data

COLUMNS = ("clip", "system", "label", "score")


def score(names: Sequence[str], parameters: OnCorpus) -> pd.DataFrame:
    """Scores of a person's clips, one row a clip, system and label, highest score of a clip and system first.

    They are written as CSV beside the executed chapter (``X.scores.csv`` for ``X.ipynb``). Empty for other corpora.
    A score is a probability where the system gives one.

    :param names: of systems; with ``parameters.checkpoint``, the checkpoint's system and those that it uses instead.
    """
    if parameters.corpus != "folder":
        return pd.DataFrame(columns=list(COLUMNS))
    data = protocol.load(parameters.condition)
    table = table_of(scorers(names, parameters), data)
    path = Path(os.environ.get(SCORES_FILE) or home() / "runs" / f"{data.corpus.digest[:16]}.scores.csv")
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    say(f"scores of {len(data.corpus.clips)} clips: {path}")
    return table


def scorers(names: Sequence[str], parameters: OnCorpus) -> dict[str, Fitted]:
    """Systems that score a person's clips, by name."""
    condition = parameters.condition
    if parameters.checkpoint:
        return _with_parts(protocol.load_fitted(Path(parameters.checkpoint)))
    if not protocol.trains(condition):
        condition = demo_condition(condition)
        say(f"under {protocol.FEWEST} clips: they are scored by systems that were trained on the demo world")
        if protocol.untrained(names, [condition]):
            protocol.announce(names, [condition])
    return {name: protocol.fit(name, condition) for name in names}


def demo_condition(condition: Condition) -> Condition:
    """Where systems are trained that score clips too few to train on."""
    profile = "ci" if condition.profile == "ci" else "demo"
    return Condition(profile=profile, device=condition.device, options=condition.options)


def table_of(fitted: Mapping[str, Fitted], data: Data) -> pd.DataFrame:
    """One row a clip, system and label that it has a score of."""
    scores = {name: protocol.scores(one, data) for name, one in fitted.items()}
    rows = []
    for number, clip in enumerate(data.corpus.clips):
        for name, one in fitted.items():
            of_clip = scores[name][number]
            for k in np.argsort(-of_clip, kind="stable"):
                if not np.isnan(of_clip[k]):
                    rows.append((clip.id, name, one.checkpoint.classes[k], of_clip[k]))
    return pd.DataFrame(rows, columns=[*COLUMNS])


def top(table: pd.DataFrame, data: Data, system: str, labels: int = 3) -> list[list[str]]:
    """A row a clip for a table: its name, its own labels, and the labels with the highest scores."""
    rows = []
    for clip in data.corpus.clips:
        own = table[(table["clip"] == clip.id) & (table["system"] == system)].head(labels)
        best = ", ".join(f"{row.label} {row.score:.2f}" for row in own.itertuples())
        rows.append([clip.id, ", ".join(clip.labels) or "none", best])
    return rows


def _with_parts(fitted: Fitted) -> dict[str, Fitted]:
    parts: dict[str, Fitted] = {}
    for part in fitted.parts.values():
        parts |= _with_parts(part)
    return parts | {fitted.system.name: fitted}
