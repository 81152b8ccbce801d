"""How often labels occur, and together with which others."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from sklearn.preprocessing import MultiLabelBinarizer

from avrepro.corpora.base import SPLITS, ListedClip


def co_occurrence(labels: Sequence[tuple[str, ...]], classes: Sequence[str]) -> pd.DataFrame:
    """Clips that hold both of two labels, int64 [classes, classes]; on the diagonal, clips that hold the one."""
    held = MultiLabelBinarizer(classes=list(classes)).fit_transform(labels)
    return pd.DataFrame(held.T @ held, index=list(classes), columns=list(classes))


def class_counts(listed: Sequence[ListedClip], classes: Sequence[str]) -> pd.DataFrame:
    """Clips that hold each label, int64 [classes, splits that occur], by split in the order of SPLITS."""
    table = pd.DataFrame([(clip.split, label) for clip in listed for label in clip.labels], columns=["split", "label"])
    splits = [split for split in SPLITS if split in set(table["split"])]
    return pd.crosstab(table["label"], table["split"]).reindex(index=list(classes), columns=splits, fill_value=0)
