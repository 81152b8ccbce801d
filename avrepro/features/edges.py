"""Edges of a picture, thinned to lines, and their orientations: what region proposals are made of.

EdgeBoxes (Zitnick and Dollár, ECCV 2014) takes them from structured forests (Dollár and Zitnick, 2015) learnt
on outlines that people drew. Where the learnt model is not at hand, colour gradients take its place; the
detector's ``name`` is part of the recipe of proposals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from avrepro.fetch import find
from avrepro.recipes import file_digest

ORIENTATION_RADIUS = 4  # px; edges are smoothed so far before their orientation is taken, as the forests' authors do
THIN_RADIUS = 2  # px; an edge stays where none within so far, across it, is stronger, as EdgeBoxes' authors do
GRADIENT_RADIUS = 2  # px; colours are smoothed so far: less than that is noise of compression
GRADIENT_QUANTILE = 0.99  # pixels with gradients above this quantile count as the strongest edges
GRADIENT_STRENGTH = 0.6  # of the strongest edges; with it, scores are of the size that learnt edges give
GRADIENT_FLOOR = 0.1  # least gradient that counts as strongest, a step of 4 % of full scale: noise makes no edges


@dataclass(frozen=True)
class EdgeDetector:
    """Finds edges in frames; ``name`` and ``digest`` are part of what proposals depend on.

    Calling it: frame uint8 [H, W, 3] RGB gives thinned edges, 0..1, and the directions across them, radians in 0..pi,
    from the x axis towards the (downward) y axis; both float32 [H, W].
    """

    name: str
    detect: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # frame as float32 0..1 -> edges and directions
    digest: str = ""  # of the file that it was read from, SHA-256; empty: of none

    def __call__(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        edges, directions = self.detect(frame.astype(np.float32) / 255)
        return thin(edges, directions), directions


def edge_detector() -> EdgeDetector:
    """The structured forest where its file is at hand (source ``structured_edges``), image gradients elsewhere."""
    path = find("structured_edges")
    return structured_edges(path, path.stat().st_mtime_ns) if path is not None else GRADIENT_EDGES


@cache
def structured_edges(path: Path, changed: int) -> EdgeDetector:
    """Edges by a structured forest in OpenCV's format, .yml or .yml.gz, read once (seconds).

    :param changed: when the file was written. :raises ValueError: not such a file.
    """
    try:
        forest = cv2.ximgproc.createStructuredEdgeDetection(str(path))
    except cv2.error as error:
        raise ValueError(f"{path}: expected a structured forest in OpenCV's format; {error}") from error

    def detect(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        edges = forest.detectEdges(frame)
        return edges, orientation(edges)

    return EdgeDetector("structured edges", detect, file_digest(path))


def gradients(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest gradient of the three colours, with its direction; frame float32 [H, W, 3], 0..1.

    The strongest hundredth of the pixels gets ``GRADIENT_STRENGTH``. Texture makes edges here, unlike outlines
    learnt from people.
    """
    smooth = smoothed(frame, GRADIENT_RADIUS)
    x, y = (cv2.Sobel(smooth, -1, *order) for order in ((1, 0), (0, 1)))  # (H, W, 3)
    squares = x * x + y * y
    strongest = squares.argmax(axis=2)[..., None]  # (H, W, 1)
    x, y, squares = (np.take_along_axis(values, strongest, 2)[..., 0] for values in (x, y, squares))
    magnitude = np.sqrt(squares)
    full = max(float(np.quantile(magnitude, GRADIENT_QUANTILE)), GRADIENT_FLOOR)
    return GRADIENT_STRENGTH * np.minimum(magnitude / full, 1), _within_pi(np.arctan2(y, x))


GRADIENT_EDGES = EdgeDetector("image gradients", gradients)


def orientation(edges: np.ndarray, radius: int = ORIENTATION_RADIUS) -> np.ndarray:
    """Directions across edges from the second derivatives of their strength, float32 [H, W], 0..pi.

    edges: float32 [H, W], not thinned; of thinned edges the same needs a larger radius (px). The formula is that
    of the structured forests' authors; it is up to 15 degrees off between the axes.
    """
    smooth = smoothed(edges, radius)
    xx, xy, yy = (cv2.Sobel(smooth, -1, *order) for order in ((2, 0), (1, 1), (0, 2)))
    with np.errstate(divide="ignore"):
        return _within_pi(np.arctan(yy * np.sign(-xy) / (xx + 1e-5)))


def thin(edges: np.ndarray, directions: np.ndarray, radius: int = THIN_RADIUS) -> np.ndarray:
    """Edges [H, W] with zeros wherever one of ``radius`` px before or behind, across the edge, is stronger."""
    height, width = edges.shape
    edges = edges.astype(np.float32)
    across_x, across_y = np.cos(directions), np.sin(directions)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    strongest = np.ones(edges.shape, dtype=bool)
    for step in (*range(-radius, 0), *range(1, radius + 1)):
        to_x, to_y = x + step * across_x, y + step * across_y
        strongest &= edges >= cv2.remap(edges, to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.where(strongest, edges, np.float32(0))


def smoothed(values: np.ndarray, radius: int) -> np.ndarray:
    """Mean under a triangle that reaches zero ``radius`` + 1 px away; float32 [H, W] or [H, W, C]."""
    triangle = radius + 1 - np.abs(np.arange(-radius, radius + 1, dtype=np.float32))
    triangle /= triangle.sum()
    return cv2.sepFilter2D(values, -1, triangle, triangle, borderType=cv2.BORDER_REFLECT)


def _within_pi(angles: np.ndarray) -> np.ndarray:
    angles = np.mod(angles.astype(np.float32), np.float32(np.pi))
    return np.where(angles < np.pi, angles, np.float32(0))  # rounding may leave pi itself
