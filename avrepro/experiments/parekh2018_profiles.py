"""How large a run of the chapter on Parekh et al. (2018) is, by profile."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from avrepro.features.regions import Search


@dataclass(frozen=True)
class Profile:
    """How large a run of the chapter is; every difference from ``paper`` is a stated deviation."""

    search: Search  # of boxes in a frame
    proposal_size: (
        tuple[int, int] | None
    )  # height, width of the frames that boxes are looked for in, px; None: as filmed
    image_network: str  # base visual network, frozen
    image_size: tuple[int, int] | None  # height, width of the frames that it sees, px
    pooled: int  # cells of a region, in height and in width
    audio_networks: tuple[str, ...]  # base audio network, frozen: the first whose weights are at hand
    region_units: int  # of fc6 and fc7
    segment_units: int
    scaled: bool  # features by their root mean square; not where pretrained layers follow, which know them as they are
    learning_rate: float  # of Adam
    batch: int  # clips
    steps: int

    def values(self) -> dict:
        return asdict(self)


# Section 4, implementation details.
PAPER = Profile(
    search=Search(),
    proposal_size=None,
    image_network="caffenet",
    image_size=None,
    pooled=6,
    audio_networks=("vggish",),
    region_units=4096,
    segment_units=128,
    scaled=False,
    learning_rate=1e-5,
    batch=24,
    steps=25_000,
)
# Frames of the demo world have 144 x 192 px; at 112 x 144 boxes and features cost half as much. Rate, steps and scaling
# were chosen on validation clips.
DEMO = Profile(
    search=Search(alpha=0.45, min_score=0.03),
    proposal_size=(112, 144),
    image_network="efficientnet-lite0",
    image_size=(112, 144),
    pooled=3,
    audio_networks=("vggish", "yamnet"),
    region_units=128,
    segment_units=128,
    scaled=True,
    learning_rate=1e-3,
    batch=24,
    steps=600,
)
PROFILES = {"ci": replace(DEMO, steps=8), "demo": DEMO, "paper": PAPER}
