"""Region proposals against published boxes and planted objects; RoI pooling against a literal one."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from chapters import one_track
from PIL import Image
from scipy.stats import spearmanr
from torchvision.ops import box_iou

from avrepro.backbones.caffenet import CaffeNet
from avrepro.backbones.efficientnet import EfficientNetLite0
from avrepro.corpora.base import Clip, Corpus
from avrepro.encode import write_clip
from avrepro.features.edges import GRADIENT_EDGES, edge_detector, orientation
from avrepro.features.regions import (
    CHANNELS,
    FIRST_CELL,
    STRIDE,
    TIMES,
    Search,
    edge_boxes,
    pool_regions,
    proposals,
    propose,
    region_features,
    regions_of,
)
from avrepro.features.store import extract
from avrepro.media import read_frames

RATE = 16000
# The published edges of the reference picture are a picture of 8 bits, stretched so that the strongest is 255, and
# already thinned. The scores of its boxes say that the strongest was 0.68; thinned edges need a larger radius
# for their orientations than the 4 px of whole ones.
STRONGEST, RADIUS = 0.68, 6


class Reference(NamedTuple):
    picture: np.ndarray  # uint8 [384, 512, 3] RGB
    edges: np.ndarray  # float32 [384, 512]
    boxes: np.ndarray  # float32 [2196, 4] left, top, right, bottom; best first
    scores: np.ndarray  # [2196]


@pytest.fixture(scope="module")
def reference(mirror: Path) -> Reference:
    folder = mirror / "edgeboxes"
    images = [Image.open(folder / f"peppers{name}.png").convert("RGB") for name in ("", "_edges")]
    picture, edges = map(np.asarray, images)
    table = np.loadtxt(folder / "peppersbbs.csv", delimiter=",", dtype=np.float32)
    x, y, w, h, scores = table.T  # pixels counted from 1
    boxes = np.stack([x - 1, y - 1, x + w, y + h], axis=1)
    return Reference(picture, edges[..., 0].astype(np.float32) / 255 * STRONGEST, boxes, scores)


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return EfficientNetLite0.pretrained(size=None)


def agreement(reference: Reference, edges: np.ndarray, directions: np.ndarray | None = None) -> tuple[float, ...]:
    """Shares of the reference's 200 best boxes among ours and among our 200 best (IoU 0.7); Spearman's of scores."""
    directions = orientation(edges, RADIUS) if directions is None else directions
    boxes, scores = edge_boxes(edges, directions, Search(boxes=len(reference.boxes)))
    assert (np.diff(scores) <= 0).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    overlaps = box_iou(torch.from_numpy(reference.boxes), torch.from_numpy(boxes)).numpy()
    matched = overlaps.max(axis=1) >= 0.7
    rank_correlation = spearmanr(reference.scores[matched], scores[overlaps.argmax(axis=1)][matched]).statistic
    shares = [(overlaps[:200, :among].max(axis=1) >= 0.7).mean() for among in (None, 200)]
    return (*map(float, shares), float(rank_correlation))


def test_boxes_are_those_published(reference: Reference) -> None:
    """And wrong edges give other boxes, or agreement would prove nothing.

    Gradients of the same picture are not wrong, but not as good either. Directions decide which edges belong together:
    all 2196 boxes hide it, the best of them do not.
    """
    edges = reference.edges
    top, best, correlation = agreement(reference, edges)
    assert top >= 0.95 and best >= 0.75 and correlation >= 0.75
    along = np.mod(orientation(edges, RADIUS) + np.float32(np.pi / 2), np.float32(np.pi))
    wrong: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        "shifted": (np.roll(edges, (60, 90), (0, 1)), None),
        "image gradients": GRADIENT_EDGES(reference.picture),
        "directions along the edges": (edges, along),
    }
    for name, given in wrong.items():
        _, found_best, found_correlation = agreement(reference, *given)
        assert found_best < best - 0.1 and found_correlation < correlation - 0.15, name


def planted(box: tuple[int, int, int, int], colour: tuple[int, int, int], noise: float = 2.0) -> np.ndarray:
    """One ellipse on a plain ground, with the noise of a camera; box: left, top, right, bottom, px."""
    frame = np.full((144, 192, 3), 90, dtype=np.uint8)
    left, top, right, bottom = box
    axes = ((right - left) // 2, (bottom - top) // 2)
    cv2.ellipse(frame, ((left + right) // 2, (top + bottom) // 2), axes, 0, 0, 360, colour, -1, cv2.LINE_AA)
    noisy = frame + np.random.default_rng(sum(box)).normal(0, noise, frame.shape)
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("search", [Search(), Search(alpha=0.45, min_score=0.03)])
@pytest.mark.parametrize("box", [(20, 30, 80, 90), (100, 40, 180, 90), (60, 10, 120, 134)])
def test_a_planted_object_is_proposed(box: tuple[int, int, int, int], search: Search) -> None:
    truth = torch.tensor([box], dtype=torch.float32)
    for colour in ((230, 200, 60), (20, 20, 60), (90, 200, 90)):
        rows = propose(planted(box, colour), GRADIENT_EDGES, search)
        found = torch.from_numpy(rows[:, :4] * np.array([192, 144, 192, 144], np.float32))
        overlaps = box_iou(truth, found[~found.isnan().any(1)])
        assert overlaps.max() > 0.7, f"{colour}: {overlaps}"


def test_a_frame_without_edges_is_its_own_box() -> None:
    grain = np.random.default_rng(0).integers(127, 130, (144, 192, 3), dtype=np.uint8)
    for frame in (np.full((144, 192, 3), 128, np.uint8), np.zeros((8, 10, 3), np.uint8), grain):
        rows = propose(frame, GRADIENT_EDGES, Search())
        np.testing.assert_array_equal(rows[0], [0, 0, 1, 1, 0])
        assert np.isnan(rows[1:]).all() and rows.shape == (10, 5)


@pytest.mark.parametrize("pooled", [2, 6])
def test_regions_are_pooled_from_their_own_frame(network: EfficientNetLite0, pooled: int) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(5)
    frames = rng.integers(0, 256, (3, 96, 128, 3), dtype=np.uint8)
    corners = np.sort(rng.random((3, 4, 2, 2)), axis=2)  # frame, box, first or second corner, x or y
    rows = np.full((3, 4, 5), np.nan, dtype=np.float32)
    rows[..., :4] = corners.reshape(3, 4, 4)
    rows[..., 4] = 0.5
    rows[1, 2:] = np.nan
    rows[2, 0] = 0, 0, 1, 1, 0
    for net in (network, CaffeNet().eval()):
        maps = net.maps(frames)
        expected = []
        for frame, box in zip(*np.nonzero(~np.isnan(rows[..., 4])), strict=True):
            pixels = rows[frame, box, :4] * np.array([128, 96, 128, 96]) - np.array([0, 0, 1, 1])  # first and last
            left, top, right, bottom = np.floor((pixels - FIRST_CELL[net.name]) / STRIDE + 0.5).astype(int).clip(0)
            expected.append(maps[frame, :, top : bottom + 1, left : right + 1].max(axis=(1, 2)))
        found = pool_regions(net, frames, rows, pooled)
        assert found.shape == (10, maps.shape[1] * pooled**2)
        np.testing.assert_array_equal(found.reshape(10, -1, pooled**2).max(axis=2), np.array(expected))


def test_where_the_first_cell_looks(network: EfficientNetLite0) -> None:
    """Cell (i, j) depends on the pixels around 16 i + FIRST_CELL: centroid of the squares of its gradients."""
    lite = network.network
    torch.manual_seed(1)
    caffenet = CaffeNet().eval()
    computes = {
        "efficientnet-lite0": lambda images: lite.blocks[:5](lite.bn1(lite.conv_stem(images))),
        "caffenet": caffenet.convolutions,
    }
    for name, compute in computes.items():
        squares = torch.zeros(144, 192)
        for _ in range(4):
            images = torch.randn(1, 3, 144, 192, requires_grad=True)
            compute(images)[0, :, 4, 6].square().sum().backward()
            assert images.grad is not None
            squares += images.grad.square().sum(dim=(0, 1))
        centre = np.array([(squares.sum(1) * torch.arange(144)).sum(), (squares.sum(0) * torch.arange(192)).sum()])
        centre = centre / squares.sum().item() - np.array([16 * 4, 16 * 6])
        assert (np.abs(centre - FIRST_CELL[name]) < 4).all()


@pytest.fixture
def corpus(tmp_path: Path, home: Path) -> Corpus:
    """A clip whose object jumps every second, one of 2.6 s, a still, and the sound of the first alone."""
    jumping = [planted((10 + 12 * k, 40, 60 + 12 * k, 100), (220, 60, 60), noise=0) for k in range(10)]
    moments = {"whole": np.arange(40) // 4, "short": np.arange(10) // 4}  # 4 pictures a second
    for name, moment in moments.items():
        write_clip(tmp_path / f"{name}.mp4", np.stack(jumping)[moment], 4, np.zeros(len(moment) * 4000, "f4"), RATE)
    write_clip(tmp_path / "still.mp4", jumping[3][None], 0.1, np.zeros(10 * RATE, "f4"), RATE)
    one_track(tmp_path / "whole.mp4", "audio", tmp_path / "sound.mp4")
    clips = [Clip(name, tmp_path / f"{name}.mp4", "train", ("a",)) for name in ("whole", "short", "still", "sound")]
    return Corpus("toy", ("a",), tuple(clips), (), "d")


def test_regions_of_clips(corpus: Corpus, network: EfficientNetLite0) -> None:
    boxes = proposals(GRADIENT_EDGES, None, Search())
    arrays = extract(boxes, corpus)
    assert arrays.present.tolist() == [True, True, True, False]
    assert [len(rows) for rows in arrays] == [10, 3, 1, 0]  # the half second at the end of "short" is shown at 2.5 s
    for k, rows in enumerate(arrays[0]):  # the object of that second, not of another
        truth = torch.tensor([[10 + 12 * k, 40, 60 + 12 * k, 100]]) / torch.tensor([192, 144, 192, 144])
        found = torch.from_numpy(rows[~np.isnan(rows[:, 4]), :4])
        assert box_iou(truth, found).max() > 0.7
    features = extract(region_features("efficientnet-lite0", boxes, None, 2, torch.device("cpu")), corpus)
    assert features[3].shape == (0, 448) and features.present.tolist() == arrays.present.tolist()
    for clip, rows, vectors in zip(corpus.clips[:3], arrays, features, strict=False):
        regions = regions_of(rows)
        assert vectors.shape == (len(regions.boxes), 448) and vectors.dtype == np.float16
        assert set(regions.times) == set(TIMES[: len(rows)])
        assert ((regions.boxes >= 0) & (regions.boxes <= 1)).all()
        for number in {0, len(vectors) // 2, len(vectors) - 1}:  # a region by itself, in the frame of its time
            frame = read_frames(clip.path, times=[regions.times[number]])[0]
            alone = pool_regions(network, frame, np.array([[[*regions.boxes[number], 1.0]]]), 2)[0]
            np.testing.assert_allclose(vectors[number].astype(float), alone, atol=5e-3 * np.abs(alone).max())


def test_settings_are_in_the_recipes() -> None:
    settings = [(None, Search()), ((144, 192), Search()), (None, Search(alpha=0.45)), (None, Search(boxes=5))]
    boxes = [proposals(edge_detector(), size, search) for size, search in settings]
    features = [
        region_features(name, one, size, pooled, torch.device("cpu"))
        for name, one, size, pooled in product(CHANNELS, boxes[:2], (None, (96, 128)), (2, 6))
    ]
    assert len({feature.recipe.key for feature in (*boxes, *features)}) == 4 + 16
