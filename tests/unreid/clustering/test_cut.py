"""The cut of a merge tree by silhouette, without labels."""

from __future__ import annotations

import numpy as np
import pytest

from unreid.clustering.bottom_up import cut_tree, merge_tree
from unreid.clustering.cut import cut_by_silhouette
from unreid.clustering.silhouette import sphere_silhouette


def _blobs(rng: np.random.Generator, num_clusters: int, size: int, noise: float) -> np.ndarray:
    centers = rng.normal(size=(num_clusters, 32))
    points = np.repeat(centers, size, axis=0) + noise * rng.normal(size=(num_clusters * size, 32))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def test_cut__finds_the_number_of_well_separated_clusters(rng: np.random.Generator) -> None:
    features = _blobs(rng, 20, 10, 0.15)
    # Levels from 5 to 66 clusters, including 20.
    labels, score = cut_by_silhouette(features, merge_tree(features)[0], levels=62)
    assert labels.max() + 1 == 20
    assert score > 0.8
    assert all(len(set(labels[start : start + 10])) == 1 for start in range(0, 200, 10))


def test_cut__is_the_best_of_its_levels(rng: np.random.Generator) -> None:
    features = _blobs(rng, 15, 8, 0.9)
    merges = merge_tree(features)[0]
    labels, score = cut_by_silhouette(features, merges, smallest=2, largest=30, levels=7)
    counts = np.geomspace(120 / 30, 120 / 2, 7).round().astype(int)
    scores = {c: sphere_silhouette(features, cut_tree(merges, 120 - c, 120)) for c in counts}
    assert score == max(scores.values())
    assert labels.max() + 1 == max(scores, key=lambda c: scores[c])


@pytest.mark.parametrize("count", [2, 3, 5])
def test_cut__works_on_a_handful_of_images(rng: np.random.Generator, count: int) -> None:
    features = _blobs(rng, count, 1, 0.0)
    labels, _ = cut_by_silhouette(features, merge_tree(features)[0])
    assert labels.shape == (count,)
    assert labels.min() == 0


def test_cut__of_identical_images_is_defined() -> None:
    features = np.tile(np.float32([[0.6, 0.8]]), (30, 1))
    labels, score = cut_by_silhouette(features, merge_tree(features)[0])
    assert np.isfinite(score)
    assert labels.shape == (30,)


def test_cut__refuses_a_range_upside_down(rng: np.random.Generator) -> None:
    features = _blobs(rng, 3, 3, 0.1)
    with pytest.raises(ValueError, match="largest must be a number >= 8"):
        cut_by_silhouette(features, merge_tree(features)[0], smallest=8, largest=4)
