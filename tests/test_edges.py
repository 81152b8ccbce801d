"""Edges, their directions and their thinning; a structured forest in the published format."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from avrepro.features.edges import GRADIENT_EDGES, edge_detector, orientation, smoothed, thin
from avrepro.recipes import file_digest


def test_directions_point_across_edges() -> None:
    """A bright disc: across its outline is along its radius.

    The second derivatives' ratio is the tangent's square, so that directions from them are up to 15 degrees off.
    """
    y, x = np.mgrid[:120, :120] - 59.5
    radius, angle = np.hypot(x, y), np.mod(np.arctan2(y, x), np.pi)
    picture = np.repeat((255 / (1 + np.exp(radius - 40)))[..., None], 3, axis=2).astype(np.uint8)
    outline = np.exp(-((radius - 40) ** 2) / 8).astype(np.float32)
    for (edges, directions), tolerance in ((GRADIENT_EDGES(picture), 0.1), ((outline, orientation(outline)), 0.28)):
        ring = (np.abs(radius - 40) < 1) & (np.abs(np.mod(angle, np.pi / 2) - np.pi / 4) < 0.7)
        apart = np.abs(directions - angle)[ring]
        assert np.minimum(apart, np.pi - apart).max() < tolerance
        assert ((directions >= 0) & (directions < np.pi)).all()
        assert edges.dtype == directions.dtype == np.float32


def test_thinning_against_a_literal_one() -> None:
    rng = np.random.default_rng(3)
    edges = smoothed(rng.random((20, 30), dtype=np.float32), 1)
    directions = (rng.random((20, 30)) * np.pi).astype(np.float32)
    expected = edges.copy()
    for row in range(20):
        for column in range(30):
            for step in (-2, -1, 1, 2):
                x = min(max(column + step * np.cos(directions[row, column]), 0), 28.999)
                y = min(max(row + step * np.sin(directions[row, column]), 0), 18.999)
                i, j, below, beyond = int(y), int(x), y % 1, x % 1
                upper = edges[i, j] * (1 - beyond) + edges[i, j + 1] * beyond
                lower = edges[i + 1, j] * (1 - beyond) + edges[i + 1, j + 1] * beyond
                if edges[row, column] < upper * (1 - below) + lower * below:
                    expected[row, column] = 0
    found = thin(edges, directions)
    inside = (slice(3, -3), slice(3, -3))  # OpenCV interpolates to 1/32 px: near ties may fall either way
    assert (found != expected)[inside].mean() < 0.01
    assert 0.1 < (found > 0).mean() < 0.6


@pytest.mark.usefixtures("home")
def test_a_structured_forest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forest of one tree in the published format: where it is bright, there is an edge."""
    path = tmp_path / "structured_edges" / "model.yml.gz"
    path.parent.mkdir()
    options = {"stride": 2, "shrinkNumber": 2, "patchSize": 32, "patchInnerSize": 16, "selfsimilarityGridSize": 5}
    options |= {"numberOfGradientOrientations": 4, "gradientSmoothingRadius": 0, "regFeatureSmoothingRadius": 2}
    options |= {"ssFeatureSmoothingRadius": 8, "gradientNormalizationRadius": 4, "numberOfTrees": 1}
    options |= {"numberOfTreesToEvaluate": 1}
    lines = ["%YAML:1.0", "options:", *(f"   {name}: {value}" for name, value in options.items())]
    centre = 8 * 16 + 8  # feature 136: lightness in the middle of the patch
    trees = {"childs": "[ 2, 0, 0 ]", "featureIds": f"[ {centre}, 0, 0 ]", "thresholds": "[ 0.2, 0., 0. ]"}
    trees |= {"edgeBoundaries": "[ 0, 0, 0, 2 ]", "edgeBins": "[ 100, 120 ]"}
    for name, values in trees.items():
        lines += [f"{name}:", f"   - {values}"]
    with gzip.open(path, "wt") as file:
        file.write("\n".join(lines) + "\n")
    monkeypatch.setenv("AVREPRO_MIRROR", str(tmp_path))
    detector = edge_detector()
    assert detector.name == "structured edges" and detector.digest == file_digest(path)
    frame = np.zeros((96, 128, 3), dtype=np.uint8)
    frame[:, 64:] = 250
    whole, _ = detector.detect(frame.astype(np.float32) / 255)
    assert whole[20:-20, 84:-20].min() > 0 and whole[20:-20, 20:44].max() == 0
    edges, directions = detector(frame)
    assert edges.shape == directions.shape == (96, 128) and 0 < edges.max() <= whole.max()
    path.write_text("no forest", encoding="utf-8")
    with pytest.raises(ValueError, match="expected a structured forest"):
        edge_detector()
    path.unlink()
    assert edge_detector().name == "image gradients"
