"""Regions of pictures that may show an object, and their features (Parekh et al., 2018, sections 3.1 and 4).

One frame a second, the best boxes of each by EdgeBoxes (Zitnick and Dollár, ECCV 2014; OpenCV's implementation),
and for each box what a frozen ImageNet network sees there: one pass a frame, then RoI max pooling.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from avrepro import backbones
from avrepro.corpora.base import Clip
from avrepro.features.edges import EdgeDetector
from avrepro.features.store import Feature
from avrepro.media import read_frames
from avrepro.recipes import Recipe

TIMES = np.arange(10) + 0.5  # s; the paper takes 1 frame a second of 10 s and does not say which: the middle one
STRIDE = 16  # px a cell of the networks' maps
# px; the centre of what the first cell of the maps depends on. CaffeNet's margins put it at 0; lite0's lies, by the
# gradients with respect to the picture, at 9 or 10 px where height and width are multiples of 16: half a cell.
FIRST_CELL = {"caffenet": 0, "efficientnet-lite0": 8}
CHANNELS = {"caffenet": 256, "efficientnet-lite0": 112}  # of the maps: conv5, and stage 4


@dataclass(frozen=True)
class Search:
    """Settings of EdgeBoxes; what is not named here is as its authors publish it, as in the paper."""

    boxes: int = 10  # best boxes of a frame that are kept, M_img (K in section 4)
    alpha: float = 0.65  # overlap (IoU) of neighbouring windows; lower is faster; up to 0.4 all of them are square
    min_score: float = 0.01  # windows below it are not refined; higher is faster, and plain frames get fewer boxes


class Regions(NamedTuple):
    """The regions of one clip, frame after frame, the best of each frame first."""

    times: np.ndarray  # float64 [regions], s
    boxes: np.ndarray  # float32 [regions, 4]: left, top, right, bottom as fractions 0..1 of the frame


def edge_boxes(edges: np.ndarray, directions: np.ndarray, search: Search) -> tuple[np.ndarray, np.ndarray]:
    """The best boxes by EdgeBoxes: left, top, right, bottom in px, float32 [n, 4], and their scores [n], falling.

    edges, directions: float32 [H, W], as of an EdgeDetector. n is at most ``search.boxes``, 0 where
    nothing scores enough. Since boxes are kept greedily, best first, fewer are the first of more.
    """
    boxes = cv2.ximgproc.createEdgeBoxes(alpha=search.alpha, minScore=search.min_score, maxBoxes=search.boxes)
    found, scores = boxes.getBoundingBoxes(edges, directions)
    x, y, w, h = np.asarray(found, dtype=np.float32).reshape(-1, 4).T
    # OpenCV counts pixels from 1, and its boxes reach up to and including pixel x + w.
    return np.stack([x - 1, y - 1, x + w, y + h], axis=1), np.asarray(scores, dtype=np.float32).reshape(-1)


def propose(frame: np.ndarray, detector: EdgeDetector, search: Search) -> np.ndarray:
    """Proposals of a frame (uint8 [H, W, 3] RGB), float32 [search.boxes, 5], the best first.

    Each is left, top, right, bottom as fractions 0..1 of the frame, and its score. Rows that are not filled are
    NaN. Where nothing is found, as in a frame without edges, the whole frame is the only box, with score 0.
    """
    height, width = frame.shape[:2]
    boxes, scores = edge_boxes(*detector(frame), search)
    rows = np.full((search.boxes, 5), np.nan, dtype=np.float32)
    rows[0] = 0, 0, 1, 1, 0
    rows[: len(boxes), :4] = boxes / np.array([width, height, width, height], dtype=np.float32)
    rows[: len(boxes), 4] = scores
    return rows


def proposals(detector: EdgeDetector, size: tuple[int, int] | None, search: Search) -> Feature:
    """Proposals of each clip, float32 [frames, search.boxes, 5] as of :func:`propose`; frame k is on show at k + 0.5 s.

    Frames after the last change of the picture are left out, so a short clip has fewer than 10 and a still has one.

    :param size: height and width the frames are decoded to, px; None: as they are.
    """

    def read(clip: Clip) -> np.ndarray:  # everything here: OpenCV lets threads work side by side
        frames, began = read_frames(clip.path, times=TIMES, size=size)
        last = int(np.flatnonzero(np.diff(began, prepend=-np.inf) > 0)[-1])
        return np.stack([propose(frame, detector, search) for frame in frames[: last + 1]])

    def nothing() -> np.ndarray:
        return np.zeros((0, search.boxes, 5), np.float32)

    settings = {"edges": detector.name, "size": size and list(size), "search": asdict(search)}
    return Feature(Recipe("proposals", 1, settings, data=detector.digest), "video", read, lambda rows: rows, nothing)


def regions_of(rows: np.ndarray) -> Regions:
    """A clip's proposals [frames, boxes, 5] as one list; their features come in the same order."""
    frame, box = np.nonzero(~np.isnan(rows[..., 4]))
    return Regions(TIMES[frame], rows[frame, box, :4])


def region_features(
    network: str, boxes: Feature, size: tuple[int, int] | None, pooled: int, device: torch.device
) -> Feature:
    """Features of each clip's regions, float16 [regions, channels x pooled x pooled], in the order of `regions_of`.

    The paper: CaffeNet's conv5 (256 channels), pooled 6 x 6, which is 9216 values, 1.8 MB for 100 regions.
    EfficientNet-lite0 gives 112 channels; 2 x 2 is 448 values, 90 kB.

    :param network: name of the backbone, one of ``CHANNELS``. :param boxes: :func:`proposals`.
    :param size: height and width of the frames that the network gets, px; multiples of 16. None: as they are.
    :param pooled: cells that each region is pooled to, in height and in width.
    """

    def read(clip: Clip, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return read_frames(clip.path, times=TIMES[: len(rows)], size=size)[0], rows

    def compute(decoded: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        frames, rows = decoded
        return pool_regions(backbones.load(network, device), frames, rows, pooled).astype(np.float16)

    def nothing() -> np.ndarray:
        return np.zeros((0, CHANNELS[network] * pooled**2), np.float16)

    settings = {"size": size and list(size), "pooled": pooled}
    recipe = Recipe("regions", 1, settings, (backbones.recipe(network), boxes.recipe))
    return Feature(recipe, "video", read, compute, nothing, uses=(boxes,))


def pool_regions(network: Any, frames: np.ndarray, rows: np.ndarray, pooled: int) -> np.ndarray:
    """One pass a frame, then the maximum over each cell of each region: float32 [regions, channels x pooled x pooled].

    network: CaffeNet or EfficientNetLite0; frames: uint8 [frames, H, W, 3] RGB; rows: their proposals,
    [frames, boxes, 5].
    """
    from torchvision.ops import roi_pool  # takes seconds to import

    maps = network.maps(frames)
    height, width = frames.shape[1:3]
    frame, box = np.nonzero(~np.isnan(rows[..., 4]))
    # Fast R-CNN (Girshick, 2015) names a region by its first and its last pixel.
    pixels = rows[frame, box, :4] * np.array([width, height, width, height]) - [0, 0, 1, 1] - FIRST_CELL[network.name]
    with torch.inference_mode():
        regions = torch.from_numpy(np.column_stack([frame, pixels]).astype(np.float32))  # (regions, 5)
        return roi_pool(torch.from_numpy(maps), regions, pooled, spatial_scale=1 / STRIDE).flatten(1).numpy()
