"""Renumbering of labels, and centroids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unreid.graph import oracle
from unreid.clustering.partition import centroids, compact
from unreid.structures import PseudoLabels


@given(st.lists(st.integers(-4, 12), min_size=1, max_size=50), st.integers(1, 5))
def test_compact_equals_a_walk_over_the_images(labels: list[int], min_size: int) -> None:
    ids: dict[int, int] = {}
    wanted = []
    for label in labels:
        if label < 0 or labels.count(label) < min_size:
            wanted.append(-1)
        else:
            wanted.append(ids.setdefault(label, len(ids)))
    found = compact(labels, min_size)
    assert found.dtype == np.int64 and found.tolist() == wanted
    PseudoLabels(found)  # refuses gaps


def test_compact_of_compact_is_the_same(rng: np.random.Generator) -> None:
    once = compact(rng.integers(-2, 30, 200), 3)
    assert (compact(once, 3) == once).all()


def test_compact_takes_empty_all_noise_and_huge_ids() -> None:
    assert compact([]).tolist() == [] and compact([]).dtype == np.int64
    assert compact([-1, -7]).tolist() == [-1, -1]
    assert compact([2**60, 3, 2**60]).tolist() == [0, 1, 0]


def test_compact_does_not_modify_its_input() -> None:
    labels = np.array([4, 4, -9])
    labels.setflags(write=False)
    compact(labels, 3)
    assert labels.tolist() == [4, 4, -9]


def test_compact_refuses_what_is_no_labelling() -> None:
    with pytest.raises(TypeError, match="labels must be integers, got float64"):
        compact([0.5, 1.0])
    with pytest.raises(ValueError, match=r"labels must have shape \(N,\)"):
        compact(np.zeros((2, 2), int))
    with pytest.raises(ValueError, match="min_size must be an integer >= 1"):
        compact([1, 2], 0)


def test_centroids_are_mean_directions_and_leave_noise_out(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 60, 9)
    labels = compact(rng.integers(-1, 7, 60))
    found = centroids(features, labels)
    assert found.dtype == np.float32 and found.shape == (labels.max() + 1, 9)
    for label in range(labels.max() + 1):
        mean = features[labels == label].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(found[label], mean / np.linalg.norm(mean), atol=1e-6)


def test_centroid_of_one_image_is_the_image(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 5, 7)
    np.testing.assert_allclose(centroids(features, np.arange(5)), features, atol=1e-7)


def test_centroid_of_images_that_cancel_is_the_first() -> None:
    features = np.array([[0, 1], [1, 0], [-1, 0]], dtype=np.float32)
    assert centroids(features, [0, 1, 1]).tolist() == [[0, 1], [1, 0]]


def test_centroids_of_noise_alone_are_none() -> None:
    assert centroids(np.eye(3, dtype=np.float32), [-1, -1, -1]).shape == (0, 3)


def test_permuting_images_leaves_centroids(rng: np.random.Generator) -> None:
    features, labels = oracle.unit(rng, 40, 6), np.arange(40) % 5
    order = rng.permutation(40)
    moved = centroids(features[order], labels[order])
    np.testing.assert_allclose(moved, centroids(features, labels), atol=1e-6)


def test_centroids_refuse_gaps_lengths_and_bad_features() -> None:
    features = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match=r"labels must use every id of 0\.\.4, but 2 are used"):
        centroids(features, [0, 4, -1])
    with pytest.raises(ValueError, match=r"labels must have shape \(3,\)"):
        centroids(features, [0, 1])
    with pytest.raises(ValueError, match="features must have unit rows"):
        centroids(features * 3, [0, 1, 2])
