"""Region proposals against published boxes and planted objects; RoI pooling against a literal one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torchvision.ops import box_iou

from avrepro.backbones.caffenet import CaffeNet
from avrepro.backbones.efficientnet import EfficientNetLite0
from avrepro.corpora.base import Clip, Corpus
from avrepro.encode import write_clip
from avrepro.features.edges import GradientEdges, edge_detector, orientation, smoothed
from avrepro.features.regions import (
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


class Agreement(NamedTuple):
    """How well boxes agree with the reference's; an IoU of 0.7 is a match."""

    top_200: float  # share of the 200 best boxes of the reference that are among ours, as many as it has
    best_200: float  # that are among our 200 best
    rank_correlation: float  # Spearman's, of the scores of matched boxes


def read_picture(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.fixture(scope="module")
def reference(mirror: Path) -> Reference:
    folder = mirror / "edgeboxes"
    picture, edges = (read_picture(folder / f"peppers{name}.png") for name in ("", "_edges"))
    table = np.loadtxt(folder / "peppersbbs.csv", delimiter=",", dtype=np.float32)
    x, y, w, h, scores = table.T  # pixels counted from 1
    boxes = np.stack([x - 1, y - 1, x + w, y + h], axis=1)
    return Reference(picture, edges[..., 0].astype(np.float32) / 255 * STRONGEST, boxes, scores)


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return EfficientNetLite0.pretrained(size=None)


def agreement(reference: Reference, edges: np.ndarray, directions: np.ndarray | None = None) -> Agreement:
    edges = np.ascontiguousarray(edges, dtype=np.float32)
    directions = orientation(edges, RADIUS) if directions is None else directions
    boxes, scores = edge_boxes(edges, directions, Search(boxes=len(reference.boxes)))
    overlaps = box_iou(torch.from_numpy(reference.boxes), torch.from_numpy(boxes)).numpy()
    matched = overlaps.max(axis=1) >= 0.7
    ours = scores[overlaps.argmax(axis=1)]
    rank_correlation = spearmanr(reference.scores[matched], ours[matched]).statistic

    def share(top: int, among: int | None) -> float:
        return float((overlaps[:top, :among].max(axis=1) >= 0.7).mean())

    return Agreement(share(200, None), share(200, 200), float(rank_correlation))


def test_boxes_are_those_published(reference: Reference, mirror: Path) -> None:
    """And wrong edges give other boxes, or agreement would prove nothing.

    Gradients of the same picture are not wrong, but not as good either. Directions decide which edges belong together:
    all 2196 boxes hide it, the best of them do not.
    """
    edges, shape = reference.edges, reference.edges.shape
    right = agreement(reference, edges)
    assert right.top_200 >= 0.95 and right.best_200 >= 0.75 and right.rank_correlation >= 0.75
    other = read_picture(sorted((mirror / "imagenet_samples").glob("*.JPEG"))[0])
    along = np.mod(orientation(edges, RADIUS) + np.float32(np.pi / 2), np.float32(np.pi))
    wrong: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        "shuffled": (np.random.default_rng(0).permutation(edges.ravel()).reshape(shape), None),
        "blurred away": (smoothed(edges, 4), None),
        "shifted": (np.roll(edges, (60, 90), (0, 1)), None),
        "another picture's": GradientEdges()(cv2.resize(other, shape[::-1])),
        "image gradients": GradientEdges()(reference.picture),
        "directions along the edges": (edges, along),
    }
    for name, given in wrong.items():
        found = agreement(reference, *given)
        assert found.best_200 < right.best_200 - 0.1, name
        assert found.rank_correlation < right.rank_correlation - 0.15, name
        if name not in ("image gradients", "directions along the edges"):  # whose edges lie in the right places
            assert found.top_200 < 0.75, name


def test_fewer_boxes_are_the_first_of_more(reference: Reference) -> None:
    directions = orientation(reference.edges, RADIUS)
    boxes, scores = edge_boxes(reference.edges, directions, Search(boxes=10))
    more, more_scores = edge_boxes(reference.edges, directions, Search(boxes=10_000))
    assert len(boxes) == 10 < len(more)
    np.testing.assert_array_equal(boxes, more[:10])
    np.testing.assert_array_equal(scores, more_scores[:10])
    assert (np.diff(more_scores) <= 0).all() and (more_scores > 0).all()
    assert (more[:, 2:] > more[:, :2]).all()
    assert (more[:, :2].min(axis=0) == 0).all()  # some reach all borders of the picture
    assert (more[:, 2:].max(axis=0) == (512, 384)).all()


def planted(box: tuple[int, int, int, int], colour: tuple[int, int, int], noise: float = 2.0) -> np.ndarray:
    """One ellipse on a plain ground, with the noise of a camera; box: left, top, right, bottom, px."""
    frame = np.full((144, 192, 3), 90, dtype=np.uint8)
    left, top, right, bottom = box
    axes = ((right - left) // 2, (bottom - top) // 2)
    cv2.ellipse(frame, ((left + right) // 2, (top + bottom) // 2), axes, 0, 0, 360, colour, -1, cv2.LINE_AA)
    noisy = frame + np.random.default_rng(sum(box)).normal(0, noise, frame.shape)
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("search", [Search(), Search(alpha=0.45, min_score=0.03)])
@pytest.mark.parametrize("box", [(20, 30, 80, 90), (100, 40, 180, 90), (60, 10, 120, 134), (130, 80, 176, 128)])
def test_a_planted_object_is_proposed(box: tuple[int, int, int, int], search: Search) -> None:
    truth = torch.tensor([box], dtype=torch.float32)
    for colour in ((230, 200, 60), (20, 20, 60), (90, 200, 90)):
        rows = propose(planted(box, colour), GradientEdges(), search)
        found = torch.from_numpy(rows[:, :4] * np.array([192, 144, 192, 144], np.float32))
        overlaps = box_iou(truth, found[~found.isnan().any(1)])
        assert overlaps.max() > 0.7, f"{colour}: {overlaps}"


def test_a_frame_without_edges_is_its_own_box() -> None:
    for frame in (np.full((144, 192, 3), 128, np.uint8), np.zeros((8, 10, 3), np.uint8)):
        rows = propose(frame, GradientEdges(), Search())
        np.testing.assert_array_equal(rows[0], [0, 0, 1, 1, 0])
        assert np.isnan(rows[1:]).all() and rows.shape == (10, 5)
    grain = np.random.default_rng(0).integers(127, 130, (144, 192, 3), dtype=np.uint8)
    np.testing.assert_array_equal(propose(grain, GradientEdges(), Search())[0], [0, 0, 1, 1, 0])


def literal_roi_pool(maps: np.ndarray, boxes: np.ndarray, pooled: int) -> np.ndarray:
    """Girshick (2015), section 2.1, as published: maps [C, h, w], boxes [n, 4] first and last px -> [n, C, p, p]."""
    channels, height, width = maps.shape
    result = np.zeros((len(boxes), channels, pooled, pooled), dtype=maps.dtype)
    for number, box in enumerate(boxes):
        left, top, right, bottom = (int(np.floor(abs(v) / STRIDE + 0.5) * np.sign(v)) for v in box)
        cell_height, cell_width = max(bottom - top + 1, 1) / pooled, max(right - left + 1, 1) / pooled
        for row in range(pooled):
            for column in range(pooled):
                first_y, last_y = top + np.floor(row * cell_height), top + np.ceil((row + 1) * cell_height)
                first_x, last_x = left + np.floor(column * cell_width), left + np.ceil((column + 1) * cell_width)
                rows = slice(int(np.clip(first_y, 0, height)), int(np.clip(last_y, 0, height)))
                columns = slice(int(np.clip(first_x, 0, width)), int(np.clip(last_x, 0, width)))
                cell = maps[:, rows, columns]
                if cell.size:
                    result[number, :, row, column] = cell.max(axis=(1, 2))
    return result


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
        maps = net.region_maps(frames) if isinstance(net, CaffeNet) else net.maps(frames)
        expected = []
        for frame in range(3):
            inside = rows[frame][~np.isnan(rows[frame, :, 4]), :4]
            pixels = inside * np.array([128, 96, 128, 96]) - np.array([0, 0, 1, 1]) - FIRST_CELL[net.name]
            expected.append(literal_roi_pool(maps[frame], pixels, pooled).reshape(len(inside), -1))
        found = pool_regions(net, frames, rows, pooled)
        assert found.shape == (10, maps.shape[1] * pooled**2)
        np.testing.assert_array_equal(found, np.concatenate(expected))


def test_where_the_first_cell_looks(network: EfficientNetLite0) -> None:
    """Cell (i, j) depends on the pixels around 16 i + FIRST_CELL: centroid of the squares of its gradients."""
    lite = network.network
    torch.manual_seed(1)
    caffenet = CaffeNet().eval()
    computes = {
        "efficientnet-lite0": lambda images: lite.blocks[:5](lite.bn1(lite.conv_stem(images))),
        "caffenet": lambda images: caffenet.convolutions(images),
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
        print(f"\n{name}: cell (0, 0) looks at about {centre.round(1)} px")
        assert (np.abs(centre - FIRST_CELL[name]) < 4).all()


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """A clip whose object jumps every second, one of 2.6 s, a still, and the sound of the first alone."""
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AVREPRO_MIRROR", raising=False)
    jumping = [planted((10 + 12 * k, 40, 60 + 12 * k, 100), (220, 60, 60), noise=0) for k in range(10)]
    moments = {"whole": np.arange(40) // 4, "short": np.arange(10) // 4}  # 4 pictures a second
    for name, moment in moments.items():
        write_clip(tmp_path / f"{name}.mp4", np.stack(jumping)[moment], 4, np.zeros(len(moment) * 4000, "f4"), RATE)
    write_clip(tmp_path / "still.mp4", jumping[3][None], 0.1, np.zeros(10 * RATE, "f4"), RATE)
    with av.open(str(tmp_path / "whole.mp4")) as source, av.open(str(tmp_path / "sound.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    clips = [Clip(name, tmp_path / f"{name}.mp4", "train", ("a",)) for name in ("whole", "short", "still", "sound")]
    return Corpus("toy", ("a",), tuple(clips), (), "d")


def test_regions_of_clips(corpus: Corpus, network: EfficientNetLite0) -> None:
    boxes = proposals(edge_detector(), None, Search())
    arrays = extract(boxes, corpus).arrays
    assert arrays.present.tolist() == [True, True, True, False]
    assert [len(rows) for rows in arrays] == [10, 3, 1, 0]  # the half second at the end of "short" is shown at 2.5 s
    for k, rows in enumerate(arrays[0]):  # the object of that second, not of another
        truth = torch.tensor([[10 + 12 * k, 40, 60 + 12 * k, 100]]) / torch.tensor([192, 144, 192, 144])
        found = torch.from_numpy(rows[~np.isnan(rows[:, 4]), :4])
        assert box_iou(truth, found).max() > 0.7
    describing = region_features("efficientnet-lite0", boxes, None, 2, torch.device("cpu"))
    features = extract(describing, corpus).arrays
    assert features[3].shape == (0, 448) and features.present.tolist() == arrays.present.tolist()
    for clip, rows, vectors in zip(corpus.clips[:3], arrays, features, strict=False):
        regions = regions_of(rows)
        assert vectors.shape == (len(regions.boxes), 448) and vectors.dtype == np.float16
        assert len(regions.times) == len(regions.scores) == len(regions.boxes) <= 100
        assert set(regions.times) == set(TIMES[: len(rows)])
        assert ((regions.boxes >= 0) & (regions.boxes <= 1)).all()
        assert (regions.boxes[:, 2:] > regions.boxes[:, :2]).all()
        for number in {0, len(vectors) // 2, len(vectors) - 1}:  # a region by itself, in the frame of its time
            frame = read_frames(clip.path, times=[regions.times[number]])[0]
            alone = pool_regions(network, frame, np.array([[[*regions.boxes[number], 1.0]]]), 2)[0]
            np.testing.assert_allclose(vectors[number].astype(float), alone, atol=5e-3 * np.abs(alone).max())
    np.testing.assert_array_equal(boxes.of(corpus.clips[0]), arrays[0])  # and without the cache
    np.testing.assert_array_equal(describing.of(corpus.clips[0]), features[0])


def test_settings_are_in_the_recipes() -> None:
    settings = [(None, Search()), ((144, 192), Search()), (None, Search(alpha=0.45)), (None, Search(boxes=5))]
    features = [proposals(GradientEdges(), size, search) for size, search in settings]
    features += [
        region_features(name, features[index], None, pooled, torch.device("cpu"))
        for name in ("efficientnet-lite0", "caffenet")
        for index in (0, 1)
        for pooled in (2, 6)
    ]
    assert len({feature.recipe.key for feature in features}) == len(features)
    with pytest.raises(ValueError, match=r"expected one of caffenet, efficientnet-lite0, found 'resnet152'"):
        region_features("resnet152", features[0], None, 2, torch.device("cpu"))
