"""ESC-10: 400 real recordings of 10 sounds, 5 s each, in five folds (Piczak 2015). Sound alone, no pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avrepro.corpora.base import Clip, Corpus, CorpusError, clips_digest
from avrepro.recipes import file_digest

DURATION = 5.0  # s
FOLDS = 5


def load_esc10(folder: str | Path | None = None) -> Corpus:
    """The recordings under ``folder`` (default: fetched), one subfolder a class, every clip in split ``test``.

    Not splits but :func:`folds` say who trains and who is tested: every clip is tested once.

    Raises CorpusError where the folder holds no recordings, or one without a fold in its name.
    """
    if folder is None:
        from avrepro.fetch import fetch_all

        paths = sorted(path for path in fetch_all("esc10").values() if path.suffix == ".ogg")
    else:
        paths = sorted(Path(folder).glob("*/*.ogg"))
    if not paths:
        raise CorpusError(f"{folder}: holds no recordings; expected CLASS/FOLD-NAME.ogg below it")
    for path in paths:
        if path.name[0] not in "12345" or path.name[1] != "-":
            raise CorpusError(f"{path}: expected a name that begins with its fold, as 3-148330-A.ogg")
    classes = tuple(sorted({path.parent.name for path in paths}))
    clips = tuple(Clip(f"{path.parent.name}/{path.stem}", path, "test", (path.parent.name,)) for path in paths)
    digest = clips_digest(classes, [(clip.id, clip.split, clip.labels, file_digest(clip.path)) for clip in clips])
    return Corpus("esc10", classes, clips, (), digest)


def folds(corpus: Corpus) -> np.ndarray:
    """Fold of each clip, 1 to 5, int [clips]: fragments of one source recording share one."""
    return np.array([int(clip.path.name[0]) for clip in corpus.clips])
