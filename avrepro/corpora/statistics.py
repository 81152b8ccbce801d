"""How often labels occur, and together with which others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from avrepro.corpora.base import SPLITS, ListedClip


def co_occurrence(labels: Sequence[tuple[str, ...]], classes: Sequence[str]) -> pd.DataFrame:
    """Clips that hold both of two labels, int64 [classes, classes]; on the diagonal, clips that hold the one.

    labels: those of each clip, names out of ``classes``, each once.
    """
    column = {name: index for index, name in enumerate(classes)}
    columns = np.array([column[name] for names in labels for name in names], dtype=np.int64)
    rows = np.repeat(np.arange(len(labels)), [len(names) for names in labels])
    # Sparse: two million clips of 527 classes hold three labels each.
    held = csr_array((np.ones(len(columns), np.int64), (rows, columns)), shape=(len(labels), len(classes)))
    return pd.DataFrame((held.T @ held).toarray(), index=list(classes), columns=list(classes))


def class_counts(listed: Sequence[ListedClip], classes: Sequence[str]) -> pd.DataFrame:
    """Clips that hold each label, int64 [classes, splits that occur], by split in the order of SPLITS."""
    by_split = {split: [clip.labels for clip in listed if clip.split == split] for split in SPLITS}
    counts = {split: np.diag(co_occurrence(labels, classes)) for split, labels in by_split.items() if labels}
    return pd.DataFrame(counts, index=list(classes))
