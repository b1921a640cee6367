"""Silhouettes against scikit-learn and a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import silhouette_score

from unreid.clustering.partition import compact
from unreid.clustering.silhouette import silhouette, sphere_silhouette


def distances(rng: np.random.Generator, num: int) -> np.ndarray:
    matrix = rng.random((num, num)).astype(np.float32)
    matrix = np.minimum(1.0, matrix + matrix.T) / 1.0
    np.fill_diagonal(matrix, 0)
    return matrix.astype(np.float32)


@given(st.integers(0, 2**32 - 1), st.integers(4, 30), st.integers(2, 6))
def test_silhouette__equals_scikit_learn_dense_and_sparse(
    seed: int, num: int, clusters: int
) -> None:
    rng = np.random.default_rng(seed)
    matrix = distances(rng, num)
    labels = compact(rng.integers(0, clusters, num))
    if 2 <= labels.max() + 1 < num:
        expected = silhouette_score(matrix, labels, metric="precomputed")
    else:
        expected = -1.0
    assert silhouette(matrix, labels) == pytest.approx(expected, abs=1e-6)
    rows, cols = np.nonzero((matrix < 1) | np.eye(num, dtype=bool))
    stored = sparse.csr_array((matrix[rows, cols], (rows, cols)), shape=matrix.shape)
    assert silhouette(stored, labels) == pytest.approx(expected, abs=1e-6)


def test_silhouette__leaves_the_distance_as_it_was(rng: np.random.Generator) -> None:
    matrix = distances(rng, 6) + np.eye(6, dtype=np.float32) * 1e-7
    kept = matrix.copy()
    silhouette(matrix, np.array([0, 0, 1, 1, 2, 2]))
    np.testing.assert_array_equal(matrix, kept)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]], ids=["one cluster", "singletons"])
def test_silhouette__where_it_is_not_defined_is_the_worst(labels: list[int]) -> None:
    assert silhouette(distances(np.random.default_rng(0), 4), np.array(labels)) == -1.0


def slow_sphere(features: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of (b - a) / max(a, b), with distances to the unit means of clusters.

    An image is left out of the mean of its own cluster. A singleton has score 0.
    """
    kept = [i for i in range(len(labels)) if labels[i] >= 0]
    scores = []
    for i in kept:
        x = features[i].astype(np.float64)
        others = [features[j].astype(np.float64) for j in kept if labels[j] == labels[i] and j != i]
        if not others:
            scores.append(0.0)
            continue
        mean = sum(others)
        a = 1 - x @ mean / np.linalg.norm(mean)
        b = min(
            1 - x @ total / np.linalg.norm(total)
            for k in set(labels[kept].tolist()) - {labels[i]}
            for total in [sum(features[j].astype(np.float64) for j in kept if labels[j] == k)]
        )
        scores.append((b - a) / max(a, b))
    return sum(scores) / len(scores)


@given(st.integers(0, 2**32 - 1), st.integers(3, 25), st.integers(2, 6), st.sampled_from([3, 2048]))
def test_sphere_silhouette__equals_a_loop(
    seed: int, num: int, clusters: int, block_size: int
) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num, 6))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    labels = compact(rng.integers(-1, clusters, num))
    score = sphere_silhouette(features, labels, block_size=block_size)
    if labels.max() < 1:
        assert score == -1.0
    else:
        assert score == pytest.approx(slow_sphere(features, labels), abs=1e-4)
        assert -1 <= score <= 1


def test_sphere_silhouette__prefers_the_true_partition(rng: np.random.Generator) -> None:
    truth = np.arange(40) % 4
    features = np.eye(8)[truth] + 0.1 * rng.normal(size=(40, 8))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    merged, mixed = truth // 2, rng.permutation(truth)
    scores = [sphere_silhouette(features, labels) for labels in (truth, merged, mixed)]
    assert scores[0] > scores[1] > 0.5 and scores[2] < 0.1


def test_sphere_silhouette__all_noise_and_one_cluster_are_the_worst() -> None:
    features = np.eye(4, dtype=np.float32)
    assert sphere_silhouette(features, np.full(4, -1)) == -1.0
    assert sphere_silhouette(features, np.zeros(4, dtype=np.int64)) == -1.0
