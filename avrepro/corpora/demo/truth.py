"""What was planted in the clips of the demo world. For evaluation alone: no feature and no model reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from avrepro.corpora.base import Corpus, CorpusError
from avrepro.corpora.demo.description import load_world_description

if TYPE_CHECKING:
    import pandas as pd


def read_events(corpus: Corpus) -> pd.DataFrame:
    """What sounds when in the corpus' clips, a row an event: clip, label, onset, offset (s), snr_db.

    :raises CorpusError: the corpus has no planted events; demo and demo-null have.
    """
    import pandas as pd

    return _read(pd.read_csv, corpus, "sound.csv")


def read_sights(corpus: Corpus) -> pd.DataFrame:
    """What the corpus' clips show, a row a frame and object: clip, frame, object, label, x, y, w, h (px), visible.

    Frame k is at k / frames per second of the demo world, s. ``label`` is the sound class whose source the object
    is, missing for things of no class; ``visible`` the share (0..1) of it in the frame that nothing hides. In
    demo-null it is what the exchanged pictures show.

    :raises CorpusError: the corpus has no planted sights; demo and demo-null have.
    """
    import pandas as pd

    return _read(pd.read_parquet, corpus, "sight.parquet")


def planted_gaps(corpus: Corpus, in_view: float) -> pd.DataFrame:
    """How long each event's source is first seen before or after the event begins, a row an event.

    :param in_view: a source is seen where at least this share of it (0..1) is not hidden.
    :returns: clip, label, onset (s), first_seen (s, NaN where no source of the event's own class is ever in view) and
        gap, the time between the two (s, 0 or more, NaN likewise).
    :raises CorpusError: as :func:`read_events`.
    """
    sights = read_sights(corpus)
    frames = sights[sights["visible"] >= in_view].groupby(["clip", "label"])["frame"].min()
    first_seen = (frames / load_world_description().clip.frames_per_second).rename("first_seen")
    table = read_events(corpus)[["clip", "label", "onset"]].join(first_seen, on=["clip", "label"])
    return table.assign(gap=(table["first_seen"] - table["onset"]).abs())


def _read(reader: Callable[..., pd.DataFrame], corpus: Corpus, name: str) -> pd.DataFrame:
    """The rows of the corpus' own clips: it may be one split of those that the file tells about."""
    if corpus.strong is None or not (path := corpus.strong / name).is_file():
        raise CorpusError(f"corpus {corpus.name!r} has no planted truth ({name}); demo and demo-null have")
    table = reader(path)
    return table[table["clip"].isin([clip.id for clip in corpus.clips])].reset_index(drop=True)
