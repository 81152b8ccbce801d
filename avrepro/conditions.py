"""What systems are trained and tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Condition:
    """What systems are trained and tested on."""

    corpus: str = "demo"
    profile: str = "demo"
    seed: int = 0  # of the training; for corpora that are split or rendered by a seed, of that too
    share: float = 1.0  # of the training clips that are used
    noise: float = 0.0  # share of the training clips' labels that are replaced by wrong ones
    gap: float | Literal["never"] | None = None  # s between sound and picture, demo world alone
    fold: tuple[int, int] | None = None  # (k, n): the clips of fold k of n of the training clips are left out
    dry: bool = False  # a few clips and training steps, to see that a profile runs
    clips: str = ""  # folder of clips, for corpora that are given one
    labels: str = ""  # their labels, likewise
    strict: bool = False  # surely labelled items alone, for corpus paired
    device: str = "auto"
    options: tuple[tuple[str, Any], ...] = ()  # settings of the profile that differ, such as ("key_frames", 8)

    @property
    def plain(self) -> bool:
        """Whether the training clips are as the corpus has them."""
        return self.share == 1 and self.noise == 0 and self.fold is None

    @property
    def drawn(self) -> bool:
        """Whether the pictures are drawings, which ImageNet networks do not know."""
        return self.corpus.startswith("demo")
